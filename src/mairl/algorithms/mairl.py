"""MAIRL: policy and reward from demonstrations, through a learned model. Read this file first.

    collect a few steps with the policy, add them to the replay, then repeat, all compiled:

        dynamics   fit F(s, a) to replayed and demonstrated transitions
        reward     f = g + gamma h' - h learns to tell demonstrations from replayed transitions
                   and from rollouts of the current policy through F, started at demonstrated
                   and replayed states
        value      Q of that reward by temporal difference, on replay and demonstrations
        policy     climb sum_t gamma^t [r + temperature * entropy] + gamma^h Q along rollouts, on
                   average over h = 0 ... H, by the gradient of the rollout itself, while cloning
                   demonstrated actions

The horizon H is the dial: 0 leaves the policy to Q alone (off-policy AIRL with SAC's gradient),
10 without a value on anchored rollouts is the paper (Sun et al. 2021). Everything here works on
normalized observations and inside actions.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from mairl import replay as replays
from mairl.algorithms.config import PRESETS, MAIRLConfig, settled, split
from mairl.dynamics import Ensemble, make_dynamics, mean
from mairl.losses.dynamics import ensemble_loss
from mairl.losses.policy import temperature_loss
from mairl.losses.returns import returns
from mairl.losses.reward import reward_loss
from mairl.losses.value import surprising, temporal_difference, value_loss
from mairl.normalizer import Normalizer, fit
from mairl.policies import Policy, make_policy
from mairl.replay import Replay
from mairl.rewards import ENDS, AIRLReward, BoundedReward, end_level, end_logits
from mairl.rollout import Rollout, anchored, imagine
from mairl.types import EnvSpec, Metrics, Transition
from mairl.value import ActionValue, polyak

__all__ = [
    "PRESETS",
    "Learner",
    "MAIRLConfig",
    "State",
    "Step",
    "exploit",
    "explore",
    "initialize",
    "lost",
    "update",
]


LOST = 0.1
"""Mean probability of being the expert's, by the discriminator, below which steps are lost."""


class Parameters(NamedTuple):
    """What gradient descent changes; a second one of these holds the optimizers' states."""

    dynamics: Ensemble
    reward: AIRLReward
    value: ActionValue
    policy: Policy
    log_temperature: Float[Array, ""]


class State(NamedTuple):
    """Everything learned.

    ``expert_ended`` and ``policy_ended`` are the shares of discounted time that demonstrations
    and training episodes spend after a termination (``rewards.ended_share``); the training loop
    sets the latter (``learner.policy_ended``). ``end_level`` is the level of f at the policy's
    ends (``rewards.end_level``).
    """

    params: Parameters
    target_value: ActionValue
    optimizers: Parameters
    normalizer: Normalizer
    delta_scale: Float[Array, " obs"]
    expert_ended: Float[Array, ""]
    policy_ended: Float[Array, ""]
    end_level: Float[Array, ""]


def initialize(
    config: MAIRLConfig,
    spec: EnvSpec,
    expert: Transition,
    random: Transition,
    expert_ended: float,
    *,
    normalizer: Normalizer | None = None,
    key: Key[Array, ""],
) -> State:
    """Fresh networks, and the scales of observations and of their changes.

    ``expert`` and ``random`` are transitions ``[N, ...]`` in the environment's units; scales are
    those of an even mixture of both, and stay fixed. A ``normalizer`` that is given is kept.
    """
    keys = split(key, "dynamics", "reward", "value", "policy")
    obs, action = spec.obs_size, spec.action_size
    d, r, v, p = config.dynamics, config.reward, config.value, config.policy
    normalizer = normalizer or fit(expert.obs, random.obs)
    params = Parameters(
        dynamics=Ensemble(
            lambda key: make_dynamics(d.kind, obs, action, d.width, d.depth, key=key),
            d.members,
            key=keys["dynamics"],
        ),
        reward=AIRLReward(
            obs,
            action,
            r.hidden,
            gamma=settled(config.gamma),
            state_only=r.state_only,
            shaping=r.shaping,
            dropout=r.dropout,
            key=keys["reward"],
        ),
        value=ActionValue(obs, action, v.hidden, v.members, key=keys["value"]),
        policy=make_policy(
            obs, action, spec.discrete, p.hidden, dropout=p.dropout, key=keys["policy"]
        ),
        log_temperature=jnp.log(jnp.float32(p.temperature)),
    )
    return State(
        params=params,
        target_value=jax.tree.map(jnp.copy, params.value),
        optimizers=_optimizers(params),
        normalizer=normalizer,
        delta_scale=_change_scale(normalizer, expert, random),
        expert_ended=jnp.float32(expert_ended),
        policy_ended=jnp.float32(0.0),
        end_level=jnp.float32(0.0),
    )


def explore(
    config: MAIRLConfig,
    spec: EnvSpec,
    state: State,
    obs: Float[Array, "n obs"],
    *,
    key: Key[Array, ""],
) -> Float[Array, "n action"]:
    """Inside actions to collect with, for observations in the environment's units.

    Sampled, and where they are continuous with more noise: what lies around a gait has to be in
    the replay for model and critics to know it, and the policy itself hardly varies.
    """
    # Beside the policy's own key, so that without noise it acts as ever.
    other = jax.random.fold_in(key, 7)
    action = state.params.policy.sample(state.normalizer.normalize(obs), key)[0]
    if spec.discrete or not config.exploration_noise:
        return action
    noise = jax.random.normal(other, action.shape)
    return jnp.clip(action + config.exploration_noise * noise, -1.0, 1.0)


def exploit(state: State, obs: Float[Array, "n obs"]):
    """Deterministic inside actions ``[n, action]`` for observations in the environment's units."""
    return state.params.policy.mode(state.normalizer.normalize(obs))


def lost(config: MAIRLConfig, state: State, replay: Replay) -> Bool[Array, " num_envs"]:
    """Which environments' newest ``patience`` steps, all of one episode, look like no expert's.

    An episode that has gone where no demonstration leads, a robot on its back, teaches little
    more by its remaining steps (early termination: Peng et al. 2018, section 6.2). The
    discriminator says when; the true reward and the task's own ends have no part in it.
    """
    steps, last = replays.rollout(replay, config.patience)
    steps = state.normalizer.transition(steps)
    logit = state.params.reward.f(steps)
    if config.reward.log_prob:
        logit = logit - state.params.policy.log_prob(steps.obs, steps.action)
    expert = jnp.mean(jax.nn.sigmoid(logit), 0)
    whole = (jnp.sum(last, 0) == 0) & (replay.filled >= config.patience)
    return whole & (expert < LOST)


def update(
    config: MAIRLConfig,
    spec: EnvSpec,
    state: State,
    replay: Replay,
    expert: Transition,
    progress: Float[Array, ""],
    *,
    iterations: int,
    key: Key[Array, ""],
    steps: type["Step"] | None = None,
) -> tuple[State, Metrics]:
    """``iterations`` rounds of all four steps in one program; metrics are their means.

    ``progress`` is the share of the environment steps already taken (0 to 1): learning rates of
    reward and policy fall with it, so that what is handed over at the end is settled. ``steps``
    are other four steps than :class:`Step`'s (see ``algorithms.transfer``).
    """
    ends, lengths, counts = replays.newest_ends(replay, ENDS)
    logits = state.params.reward.f(state.normalizer.transition(ends))
    state = state._replace(end_level=end_level(logits, counts * settled(config.gamma) ** lengths))
    step = (steps or Step)(config, spec, state, replay, expert, progress)

    def iteration(learner: Learner, key: Key[Array, ""]) -> tuple[Learner, Metrics]:
        keys = split(key, "dynamics", "reward", "value", "policy")
        learner, dynamics = step.dynamics(learner, keys["dynamics"])
        learner, reward = step.reward(learner, keys["reward"])
        drawn = step.candidates(learner, keys["value"])
        learner, value = step.value(learner, keys["value"], drawn)
        learner, policy = step.policy(learner, keys["policy"], drawn)
        return learner, dynamics | reward | value | policy

    learner = Learner(state.params, state.target_value, state.optimizers)
    learner, metrics = jax.lax.scan(iteration, learner, jax.random.split(key, iterations))
    return state._replace(**learner._asdict()), jax.tree.map(jnp.mean, metrics)


class Learner(NamedTuple):
    """The part of the state that an iteration changes."""

    params: Parameters
    target_value: ActionValue
    optimizers: Parameters

    def descend(self, name: str, rate, loss, aside=None) -> tuple["Learner", Metrics]:
        """One Adam step of the part ``name`` on ``loss(part) -> (value, metrics)``.

        ``aside(part)``, a second such loss, counts as far as it does not drown the
        first: its gradient is cut to the length of the first one's.
        """
        part = getattr(self.params, name)
        (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(part)
        if aside is not None:
            (_, more), other = jax.value_and_grad(aside, has_aux=True)(part)
            longer = optax.tree.norm(other) / jnp.maximum(optax.tree.norm(gradient), 1e-12)
            cut = 1.0 / jnp.maximum(longer, 1.0)
            gradient = jax.tree.map(lambda g, o: g + cut * o, gradient, other)
            metrics = metrics | more
        change, optimizer = _optimizer(name).update(gradient, getattr(self.optimizers, name))
        part = jax.tree.map(lambda p, c: p - rate * c, part, change)
        metrics = {**metrics, f"{name}/gradient_norm": optax.tree.norm(gradient)}
        return self._replace(
            params=self.params._replace(**{name: part}),
            optimizers=self.optimizers._replace(**{name: optimizer}),
        ), metrics


class Candidates(NamedTuple):
    """Replayed transitions, and by how much the critics err on each: mean over their members."""

    transition: Transition
    error: Float[Array, " n"]


class Step:
    """The four steps of an iteration: ``(learner, key) -> (learner, metrics)``.

    Value and policy take the ``candidates`` of the iteration as well. Holds what stays the same
    during one call of ``update``.
    """

    def __init__(self, config: MAIRLConfig, spec: EnvSpec, state, replay, expert, progress):
        self.config, self.state, self.replay, self.expert = config, state, replay, expert
        self.gamma, self.horizon = settled(config.gamma), settled(config.policy.horizon)
        size = settled(config.batch_size)
        self.half, self.shown = size // 2, round(settled(config.demonstrated) * size)
        self.replayed = size - self.shown
        falling = (1.0 - progress) / max(config.decay, 1e-9)
        self.rate = jnp.clip(falling, config.final_rate, 1.0)
        bound = config.reward.bound
        ended, live = end_logits(state.expert_ended, state.policy_ended, state.end_level, bound)
        self.bounded = BoundedReward(bound, config.reward.softplus, live, ended)
        # Few numbers tell policy and expert apart by smaller distances: f may be steeper there.
        self.stiffness = min(1.0, (spec.obs_size + spec.action_size) / 16.0)
        self.target_entropy = (
            0.2 * math.log(spec.action_size)
            if spec.discrete
            else config.policy.target_entropy * spec.action_size
        )

    def end_value(self, reward: AIRLReward, transition: Transition) -> Float[Array, "*batch"]:
        """What it is worth that episodes end by these transitions."""
        return self.bounded.after(reward.f(transition)) / (1.0 - self.gamma)

    def dynamics(self, learner: Learner, key):
        """Each member fits its own draw of all transitions there are, replayed and demonstrated.

        A model with a memory is fit to successive steps, as many as its rollouts have.
        """
        c = self.config.dynamics
        longest = max(self.horizon, self.config.reward.imagined_horizon, self.config.value.horizon)
        length = max(1, longest) if learner.params.dynamics.remembers else 1

        def step(learner: Learner, key):
            drawn = self._segments(key, c.members * max(1, c.batch_size // length), length)
            segments, mask = jax.tree.map(lambda x: x.reshape(c.members, -1, *x.shape[1:]), drawn)
            return learner.descend(
                "dynamics",
                c.learning_rate,
                lambda ensemble: ensemble_loss(
                    ensemble, self.state.delta_scale, self._normalize(segments), mask
                ),
            )

        return _repeat(step, learner, c.steps, key)

    def reward(self, learner: Learner, key):
        """Demonstrations against replayed transitions and the current policy's imagined ones."""
        c = self.config.reward
        keys = split(key, "expert", "replay", "imagined", "loss")
        expert = self._expert(keys["expert"], self.half)
        negative, weight = self._replay(keys["replay"], self.half), jnp.ones(self.half)
        if c.imagined:
            made, alive = self._imagined(learner, c.imagined_horizon, keys["imagined"])
            negative = jax.tree.map(lambda *xs: jnp.concatenate(xs), negative, made)
            # Shares of the two kinds are by weight, not by number of rows.
            weight = jnp.concatenate(
                [(1.0 - c.imagined) * weight, c.imagined / c.imagined_horizon * alive]
            )
        if c.expected:
            expert, negative = (self._expected(learner, batch) for batch in (expert, negative))
        policy = learner.params.policy
        return learner.descend(
            "reward",
            c.learning_rate * self.rate,
            lambda reward: reward_loss(
                reward,
                expert,
                negative,
                self._log_prob(policy, expert),
                self._log_prob(policy, negative),
                weight,
                gradient_penalty=settled(c.gradient_penalty) * self.stiffness,
                slope=c.slope,
                expert_weight=c.expert_weight,
                key=keys["loss"],
            ),
        )

    def candidates(self, learner: Learner, key) -> Candidates | None:
        """Replayed transitions for value and policy to choose from; None where they get no
        choice."""
        c = self.config.value
        if c.candidates == 1 or not c.steps:
            return None
        # A number that no split of the caller's reaches: split(key, n)[i] is fold_in(key, i).
        replay_key, error_key = jax.random.split(jax.random.fold_in(key, 1 << 16))
        batch = self._replay(replay_key, c.candidates * self.replayed)
        errors, _ = self._errors(learner, batch, 0, error_key)
        return Candidates(batch, jnp.mean(jnp.abs(errors(learner.params.value)[0]), 0))

    def value(self, learner: Learner, key, drawn: Candidates | None = None):
        """Temporal difference of the bounded reward, demonstrations among each batch."""
        c = self.config.value

        def step(learner: Learner, key):
            keys = split(key, "batch", "loss")
            batch, weight = self._mixed(keys["batch"], drawn)
            errors, rewards = self._errors(learner, batch, c.horizon, keys["loss"])

            def loss(value: ActionValue):
                error, metrics = errors(value)
                loss = value_loss(error, weight)
                return loss, {"value/loss": loss, **metrics}

            learner, metrics = learner.descend("value", c.learning_rate, loss)
            for name, part in (
                ("mean_expert", rewards[: self.shown]),
                ("mean", rewards[self.shown :]),
            ):
                if part.size:
                    metrics[f"reward/{name}"] = jnp.mean(part)
            target = polyak(learner.target_value, learner.params.value, c.tau)
            return learner._replace(target_value=target), metrics

        return _repeat(step, learner, c.steps, key)

    def policy(self, learner: Learner, key, drawn: Candidates | None = None):
        """Climb the objective's own gradient, held near the demonstrations where they are.

        Then move the temperature to its target.
        """
        c, params = self.config.policy, learner.params
        keys = split(key, "batch", "rollout", "final", "clone")
        model = params.dynamics, self.state.delta_scale
        if c.anchored:
            # The newest steps of every environment: on-policy, as the paper's are.
            segment, mask = replays.newest(self.replay, self.horizon)
            steps = self._normalize(segment), mask
            rollout = lambda policy: anchored(policy, *model, *steps, key=keys["rollout"])  # noqa: E731
        else:
            starts = _deal(self._mixed(keys["batch"], drawn)[0].obs, self.config.dynamics.members)
            rollout = lambda policy: imagine(  # noqa: E731
                policy, *model, starts, self.horizon, key=keys["rollout"]
            )

        expert = self._expert(keys["clone"], self.half)

        def clone(policy: Policy):
            loss = policy.cloning_loss(expert.obs, expert.action)
            return c.cloning / (1.0 - self.gamma) * loss, {"policy/cloning_loss": loss}

        def loss(policy: Policy):
            earned, entropy = self._returns(learner, policy, rollout(policy), keys["final"])
            mean = jnp.mean(earned)
            return -mean, {"policy/objective": mean, "policy/entropy": jnp.mean(entropy)}

        learner, metrics = learner.descend(
            "policy", c.learning_rate * self.rate, loss, clone if c.cloning else None
        )
        if c.temperature_rate:
            learner, more = learner.descend(
                "log_temperature",
                c.temperature_rate,
                lambda log: temperature_loss(log, metrics["policy/entropy"], self.target_entropy),
            )
            metrics |= more
            # Cloning may leave less entropy than the target for good: its price then must not
            # rise above everything else.
            most = jnp.log(jnp.float32(c.temperature))
            lower = jnp.minimum(learner.params.log_temperature, most)
            learner = learner._replace(params=learner.params._replace(log_temperature=lower))
        return learner, metrics

    def _imagined(self, learner: Learner, horizon: int, key):
        """Transitions of the current policy in the model, flat, and how alive each is."""
        batch_key, rollout_key = jax.random.split(key)
        if self.config.reward.imagined_demonstrated:
            starts = self._expert(batch_key, self.half).obs
        else:
            starts = _deal(self._mixed(batch_key)[0].obs[::2], self.config.dynamics.members)
        rollout = imagine(
            learner.params.policy,
            learner.params.dynamics,
            self.state.delta_scale,
            starts,
            horizon,
            key=rollout_key,
        )
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout.transition)
        return jax.lax.stop_gradient((flat, rollout.alive.reshape(-1)))

    def _expected(self, learner: Learner, batch: Transition) -> Transition:
        """The batch with next observations that the ensemble expects, in its mean.

        The logit's optimum log pi_E(a|s) is then an f: with the next observation that came, f
        would have to say the same of all actions that chance leads to it (Fu et al. 2018 assume
        no chance). Exact where the potential is linear or little is left to chance.
        """
        delta = mean(learner.params.dynamics(batch.obs, batch.action)).delta
        scale = jnp.broadcast_to(self.state.delta_scale, delta.shape)
        return jax.lax.stop_gradient(batch._replace(next_obs=batch.obs + scale * delta))

    def _log_prob(self, policy: Policy, batch: Transition):
        """log pi of the batch's actions under the current policy; zero where f alone decides."""
        if not self.config.reward.log_prob:
            return jnp.zeros(batch.terminated.shape)
        log_prob = jax.lax.stop_gradient(policy.log_prob(batch.obs, batch.action))
        return jnp.clip(log_prob, -10.0, 10.0)

    def _returns(self, learner: Learner, policy: Policy, steps: Rollout, key):
        """What ``policy`` earns along ``steps`` of its own, and its entropy (see ``returns``)."""
        params = learner.params
        return returns(
            policy,
            steps,
            # The slow copy: it says the same with less noise, and a policy that follows noise
            # loses its gait.
            learner.target_value if self.config.value.steps else None,
            lambda transition: self.bounded(params.reward, transition),
            jnp.exp(params.log_temperature),
            self.target_entropy,
            lambda transition: self.end_value(params.reward, transition),
            self.gamma,
            key=key,
        )

    def _errors(self, learner: Learner, batch: Transition, horizon: int, key):
        """A function that gives critics' errors on the batch, and the batch's bounded rewards.

        What follows a step is ``horizon`` steps of the current policy through the model and then
        the slow copy of the critics (value expansion: Feinberg et al. 2018), on average over all
        shorter ones too, as in the policy's loss.
        """
        params = learner.params
        rewards = self.bounded(params.reward, batch)
        end_values = self.end_value(params.reward, batch)
        # Dealt to the models and gathered again; without a step there is nothing to deal.
        parts = self.config.dynamics.members if horizon else 1
        steps = imagine(
            *(params.policy, params.dynamics, self.state.delta_scale),
            _deal(batch.next_obs, parts),
            horizon,
            key=jax.random.fold_in(key, 1 << 16),
        )
        future, _ = self._returns(learner, params.policy, steps, key)
        future = _deal(future, len(future) // parts)
        return lambda value: temporal_difference(
            value, batch, rewards, future, end_values, gamma=self.gamma
        ), rewards

    def _mixed(
        self, key, drawn: Candidates | None = None
    ) -> tuple[Transition, Float[Array, " batch"] | None]:
        """Demonstrations as their share of a batch, then replay: drawn evenly, or among
        ``drawn`` by the critics' errors there. And weights, None where all are alike."""
        expert_key, replay_key = jax.random.split(key)
        expert = self._expert(expert_key, self.shown)
        if drawn is None:
            replayed, weight = self._replay(replay_key, self.replayed), None
        else:
            rows, weight = surprising(replay_key, drawn.error, self.replayed)
            replayed = jax.tree.map(lambda x: x[rows], drawn.transition)
            weight = jnp.concatenate([jnp.ones(self.shown), weight])
        return jax.tree.map(lambda *xs: jnp.concatenate(xs), expert, replayed), weight

    def _expert(self, key, n: int) -> Transition:
        rows = jax.random.randint(key, (n,), 0, self.expert.terminated.shape[0])
        return self._normalize(jax.tree.map(lambda x: x[rows], self.expert))

    def _segments(self, key, n: int, length: int):
        """Runs of steps and which count, as ``replay.sample_segments``, demonstrated ones among
        them in proportion to how many transitions are demonstrated, half at most.

        A few demonstrated transitions in half of each batch would be learned by heart.
        """
        keys = split(key, "which", "expert", "replay")
        demonstrated = self.expert.terminated.shape[0]
        share = demonstrated / (demonstrated + self.replay.filled * self.replay.num_envs)
        which = jax.random.uniform(keys["which"], (n,)) < jnp.minimum(share, 0.5)
        return jax.tree.map(
            lambda e, r: jnp.where(which.reshape(-1, *[1] * (r.ndim - 1)), e, r),
            self._expert_segments(keys["expert"], n, length),
            replays.sample_segments(self.replay, keys["replay"], n, length),
        )

    def _expert_segments(self, key, n: int, length: int):
        """Runs of demonstrated steps: one goes on while the next row begins where the one before
        has ended, not over an episode's end, nor where transitions between have been left out.
        """
        size = self.expert.terminated.shape[0]
        times = jax.random.randint(key, (n,), 0, size)[:, None] + jnp.arange(length)[None, :]
        steps = jax.tree.map(lambda x: x[times % size], self.expert)
        linked = jnp.all(steps.next_obs[:, :-1] == steps.obs[:, 1:], -1) & (times[:, 1:] < size)
        mask = jnp.cumprod(linked * (1.0 - steps.terminated[:, :-1]), axis=1)
        return steps, jnp.concatenate([jnp.ones((n, 1)), mask], axis=1)

    def _replay(self, key, n: int) -> Transition:
        return self._normalize(replays.sample(self.replay, key, n))

    def _normalize(self, batch: Transition) -> Transition:
        return self.state.normalizer.transition(batch)


def _deal(rows: Array, parts: int) -> Array:
    """Row i to part i modulo ``parts``, part after part; ``rows / parts`` parts undo it.

    Of [expert; replay] rows every model of the ensemble then gets as many of both.
    """
    return rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def _repeat(step, learner: Learner, steps: int, key) -> tuple[Learner, Metrics]:
    """``steps`` times ``step(learner, key)``, unrolled: an inner loop would copy all parameters."""
    if not steps:
        return learner, {}
    learner, metrics = jax.lax.scan(step, learner, jax.random.split(key, steps), unroll=steps)
    return learner, jax.tree.map(jnp.mean, metrics)


def _optimizers(params: Parameters) -> Parameters:
    """Every part's optimizer at its start."""
    states: dict[str, Any] = {n: _optimizer(n).init(p) for n, p in params._asdict().items()}
    return Parameters(**states)


def _optimizer(name: str) -> optax.GradientTransformation:
    """Adam, gradients clipped but for the value's; rates are applied outside, since they change.

    The value's gradient is large where an episode ends, which is rare and matters most: clipping
    it would make critics blind to falls.
    """
    clip = optax.identity() if name == "value" else optax.clip_by_global_norm(10.0)
    return optax.chain(clip, optax.scale_by_adam())


def _change_scale(normalizer: Normalizer, *batches: Transition) -> Float[Array, " obs"]:
    """Root mean square change of each normalized dimension; 1 where nothing changes."""
    change = [
        normalizer.normalize(jnp.asarray(b.next_obs)) - normalizer.normalize(jnp.asarray(b.obs))
        for b in batches
    ]
    square = sum((jnp.mean(c**2, 0) for c in change), jnp.zeros(())) / len(change)
    return jnp.where(square > 1e-12, jnp.sqrt(square), 1.0)
