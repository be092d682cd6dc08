"""Imitation by likelihood ratio: what GAIL, AIRL and guided cost learning share.

    take a rollout of every environment with the policy, then, all compiled:

        reward     a few steps on demonstrations against the rollout's transitions
        policy     PPO on the learned reward of the rollout, and the value it needs

Each of them is a reward's loss and settings. Only the newest rollout is used, with the policy that
made it: log-probabilities at the time of collecting are therefore those of the policy as it is
when the update begins, and need not be stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from mairl import replay as replays
from mairl.algorithms.config import split
from mairl.losses.ppo import advantages, clipped_surrogate
from mairl.nets.mlp import MLP
from mairl.normalizer import Normalizer, fit
from mairl.policies import CategoricalPolicy, DiagonalGaussianPolicy, Policy
from mairl.replay import Replay
from mairl.rewards import ENDS, AIRLReward, BoundedReward, end_level, end_logits
from mairl.types import EnvSpec, MairlError, Metrics, Transition

REMEMBERED = 8192
"""Transitions that are kept, of which rewards and policies learn from the newest rollout."""


@dataclass(frozen=True)
class RewardConfig:
    """The learned reward f and the loss it is learned by."""

    hidden: tuple[int, ...] = (64, 64)
    state_only: bool = False
    """g sees the observation alone, so that the reward transfers to other dynamics."""
    shaping: bool = False
    """Add gamma * h(next_obs) - h(obs) to g."""
    log_prob: bool = False
    """Logit, and reward, f - log pi (AIRL's) instead of f."""
    learning_rate: float = 1e-3
    steps: int = 8
    """Gradient steps per rollout."""
    batch_size: int = 256
    """Demonstrated transitions of a step, and as many of the rollout's."""
    gradient_penalty: float = 1.0
    bound: float = 10.0
    """The policy sees bound * tanh(f / bound) ..."""
    softplus: float = 0.0
    """... and of that the softplus of this width; 0 for none."""


@dataclass(frozen=True)
class PolicyConfig:
    """The policy and PPO."""

    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 3e-4
    epochs: int = 10
    """Passes over a rollout."""
    minibatches: int = 16
    """Gradient steps of a pass."""
    clip: float = 0.2
    """How far the probability ratio may go from 1."""
    gae_lambda: float = 0.95
    """Decay of later steps' errors in an advantage (Schulman et al. 2016); 1 for whole returns."""
    entropy: float = 0.0
    """Weight of the entropy beside advantages of unit deviation."""


@dataclass(frozen=True)
class ValueConfig:
    """The value V(s), fitted in the same steps as the policy."""

    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class OnPolicyConfig:
    """All settings."""

    on_policy: ClassVar[bool] = True
    patience: ClassVar[int] = 0
    warmup_hold: ClassVar[int] = 1
    gamma: float = 0.99
    num_envs: int = 8
    collect_steps: int = 128
    """Steps of each environment in a rollout."""
    warmup_steps: int = 1000
    """Random steps before learning, for the scales of observations; they count."""
    decay: float = 0.5
    """Share of the run, at its end, over which learning rates fall to zero."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    value: ValueConfig = field(default_factory=ValueConfig)

    @property
    def rollout_size(self) -> int:
        """Steps of a rollout, of all environments together."""
        return self.num_envs * self.collect_steps

    @property
    def replay_size(self) -> int:
        """A rollout, and what came before it: how long its episodes are, and how others ended."""
        return max(self.rollout_size, REMEMBERED)

    @property
    def iterations(self) -> float:
        """One for each rollout."""
        return 1.0 / self.rollout_size

    def check(self) -> None:
        """Check what holds of the settings together.

        Raises:
            MairlError: numbers that cannot work with one another.
        """
        if self.policy.minibatches > self.rollout_size:
            raise MairlError(
                f"--policy.minibatches is {self.policy.minibatches}, more than the "
                f"{self.rollout_size} steps of a rollout (--num-envs times --collect-steps)"
            )
        if not self.reward.steps:
            raise MairlError("--reward.steps is 0; give 1 or more")


class Parameters(NamedTuple):
    """What gradient descent changes; a second one of these holds the optimizers' states."""

    reward: AIRLReward
    policy: Policy
    value: MLP


class State(NamedTuple):
    """Everything learned; what is known of ends is as in ``mairl.State``."""

    params: Parameters
    optimizers: Parameters
    normalizer: Normalizer
    expert_ended: Float[Array, ""]
    policy_ended: Float[Array, ""]
    end_level: Float[Array, ""]


class RewardBatch(NamedTuple):
    """Normalized transitions of both sides, with log pi of their actions under the policy."""

    expert: Transition
    policy: Transition
    expert_log_prob: Float[Array, " batch"]
    policy_log_prob: Float[Array, " batch"]


RewardLoss = Callable[..., tuple[Float[Array, ""], Metrics]]
"""``(config.reward, reward, batch: RewardBatch, key) -> (loss, metrics)``."""


def no_offset(f: Float[Array, " n"], log_prob: Float[Array, " n"]) -> Float[Array, ""]:
    """What is added to f on the way to the policy where f is a logit already: nothing."""
    return jnp.float32(0.0)


def initialize(
    config: OnPolicyConfig,
    spec: EnvSpec,
    expert: Transition,
    random: Transition,
    expert_ended: float,
    *,
    key: Key[Array, ""],
) -> State:
    """Fresh networks, and the scales of observations (as ``mairl.initialize``)."""
    keys = split(key, "reward", "policy", "value")
    obs, action, r = spec.obs_size, spec.action_size, config.reward
    kind = CategoricalPolicy if spec.discrete else DiagonalGaussianPolicy
    params = Parameters(
        reward=AIRLReward(
            obs,
            action,
            r.hidden,
            gamma=config.gamma,
            state_only=r.state_only,
            shaping=r.shaping,
            key=keys["reward"],
        ),
        policy=kind(obs, action, config.policy.hidden, key=keys["policy"]),
        value=MLP(obs, config.value.hidden, 1, key=keys["value"], activation=jnp.tanh),
    )
    moments: dict[str, Any] = {n: _optimizer().init(p) for n, p in params._asdict().items()}
    return State(
        params=params,
        optimizers=Parameters(**moments),
        normalizer=fit(expert.obs, random.obs),
        expert_ended=jnp.float32(expert_ended),
        policy_ended=jnp.float32(0.0),
        end_level=jnp.float32(0.0),
    )


def explore(
    config: OnPolicyConfig,
    spec: EnvSpec,
    state: State,
    obs: Float[Array, "n obs"],
    *,
    key: Key[Array, ""],
):
    """Sampled actions ``[n, action]``, not clipped, for observations in the environment's units."""
    return state.params.policy.sample(state.normalizer.normalize(obs), key)[0]


def exploit(state: State, obs: Float[Array, "n obs"]):
    """Deterministic inside actions ``[n, action]`` for observations in the environment's units."""
    return state.params.policy.mode(state.normalizer.normalize(obs))


def update(
    config: OnPolicyConfig,
    spec: EnvSpec,
    state: State,
    replay: Replay,
    expert: Transition,
    progress: Float[Array, ""],
    *,
    iterations: int,
    key: Key[Array, ""],
    loss: RewardLoss,
    offset: Callable[..., Float[Array, ""]] = no_offset,
) -> tuple[State, Metrics]:
    """The reward's steps, then the policy's, on the newest rollout.

    ``iterations`` is 1: a rollout serves once. ``loss`` and ``offset`` are what the algorithms
    differ in.
    """
    reward_key, policy_key = jax.random.split(key)
    data, last = replays.rollout(replay, config.collect_steps)
    ends, lengths, counts = replays.newest_ends(replay, ENDS)
    data, expert, ends = map(state.normalizer.transition, (data, expert, ends))
    # What the environment executed; only PPO's ratio is of what was drawn.
    executed, ends = (x._replace(action=jnp.clip(x.action, -1.0, 1.0)) for x in (data, ends))
    rate = jnp.minimum(1.0, (1.0 - progress) / max(config.decay, 1e-9))
    learner = _Learner(state.params, state.optimizers)
    learner, metrics = _learn_reward(
        config, learner, jax.tree.map(_flat, executed), expert, rate, loss, reward_key
    )
    level = end_level(learner.params.reward.f(ends), counts * config.gamma**lengths)
    state = state._replace(end_level=level)
    rewards, after = _rewards(config, state, learner.params.reward, executed, offset)
    learner, more = _improve(config, learner, data, rewards, after, last, rate, policy_key)
    state = state._replace(params=learner.params, optimizers=learner.optimizers)
    return state, {**metrics, **more}


class _Learner(NamedTuple):
    """The part of the state that gradient steps change."""

    params: Parameters
    optimizers: Parameters

    def descend(self, name: str, rate, loss) -> tuple["_Learner", Metrics]:
        """One Adam step of the part ``name`` on ``loss(part) -> (value, metrics)``."""
        part = getattr(self.params, name)
        (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(part)
        change, optimizer = _optimizer().update(gradient, getattr(self.optimizers, name))
        part = jax.tree.map(lambda p, c: p - rate * c, part, change)
        return _Learner(
            self.params._replace(**{name: part}), self.optimizers._replace(**{name: optimizer})
        ), metrics


def _learn_reward(config, learner, rollout, expert, rate, loss, key) -> tuple[_Learner, Metrics]:
    """``reward.steps`` steps of ``loss``; ``rollout`` is flat."""
    c, policy = config.reward, learner.params.policy

    def step(learner: _Learner, key: Key[Array, ""]) -> tuple[_Learner, Metrics]:
        keys = split(key, "expert", "policy", "loss")
        sides = (
            _draw(expert, c.batch_size, keys["expert"]),
            _draw(rollout, c.batch_size, keys["policy"]),
        )
        batch = RewardBatch(*sides, *(policy.log_prob(s.obs, s.action) for s in sides))
        return learner.descend(
            "reward",
            c.learning_rate * rate,
            lambda reward: loss(c, reward, batch, keys["loss"]),
        )

    learner, metrics = jax.lax.scan(step, learner, jax.random.split(key, c.steps))
    return learner, jax.tree.map(jnp.mean, metrics)


def _rewards(config, state: State, reward: AIRLReward, rollout: Transition, offset):
    """The rewards ``[steps, envs]`` that the policy is given, and what an end there is worth.

    Both in units in which a constant reward has itself as value, (1 - gamma) times the usual: so
    the value's network has numbers of order one to fit.
    """
    c = config.reward
    shares = state.expert_ended, state.policy_ended, state.end_level
    ended, live = end_logits(*shares, c.bound)
    bounded = BoundedReward(c.bound, c.softplus, live, ended)
    f = reward.f(rollout)
    log_prob = state.params.policy.log_prob(rollout.obs, rollout.action)
    rewards = bounded.transform(f + offset(_flat(f), _flat(log_prob)) + live)
    if c.log_prob:
        rewards = rewards - log_prob
    return (1.0 - config.gamma) * rewards, bounded.after(f)


def _improve(
    config: OnPolicyConfig,
    learner: _Learner,
    rollout: Transition,
    rewards: Float[Array, "steps envs"],
    ends: Float[Array, "steps envs"],
    last: Float[Array, "steps envs"],
    rate: Float[Array, ""],
    key: Key[Array, ""],
) -> tuple[_Learner, Metrics]:
    """PPO: ``epochs`` passes over the rollout in ``minibatches``."""
    c, gamma = config.policy, config.gamma
    policy, value = learner.params.policy, learner.params.value
    now, after = value(rollout.obs)[..., 0], value(rollout.next_obs)[..., 0]
    after = jnp.where(rollout.terminated > 0, ends, after)
    advantage = advantages(rewards, now, after, last, gamma, c.gae_lambda)
    log_prob = policy.log_prob(rollout.obs, rollout.action)
    rows = [_flat(x) for x in (rollout.obs, rollout.action, log_prob, advantage, advantage + now)]
    size = rows[0].shape[0] // c.minibatches

    def step(learner: _Learner, chosen) -> tuple[_Learner, Metrics]:
        obs, action, old_log_prob, advantage, target = (x[chosen] for x in rows)
        advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)

        def policy_loss(policy: Policy):
            loss, metrics = clipped_surrogate(
                policy.log_prob(obs, action), old_log_prob, advantage, c.clip
            )
            # Exact for both kinds of policy: no noise is used, whatever the key.
            entropy = jnp.mean(policy.sample(obs, jax.random.key(0))[1])
            return loss - c.entropy * entropy, {**metrics, "policy/entropy": entropy}

        def value_loss(value: MLP):
            loss = 0.5 * jnp.mean((value(obs)[..., 0] - target) ** 2)
            return loss, {"value/loss": loss}

        learner, metrics = learner.descend("policy", c.learning_rate * rate, policy_loss)
        learner, more = learner.descend("value", config.value.learning_rate * rate, value_loss)
        return learner, {**metrics, **more}

    def epoch(learner: _Learner, key) -> tuple[_Learner, Metrics]:
        order = jax.random.permutation(key, rows[0].shape[0])[: size * c.minibatches]
        return jax.lax.scan(step, learner, order.reshape(c.minibatches, size))

    learner, metrics = jax.lax.scan(epoch, learner, jax.random.split(key, c.epochs))
    metrics = jax.tree.map(jnp.mean, metrics)
    unexplained = jnp.var(advantage) / (jnp.var(advantage + now) + 1e-8)
    return learner, {
        **metrics,
        "reward/mean": jnp.mean(rewards) / (1.0 - gamma),
        "value/mean": jnp.mean(now),
        "value/explained": 1.0 - unexplained,
    }


def _draw(batch: Transition, n: int, key: Key[Array, ""]) -> Transition:
    rows = jax.random.randint(key, (n,), 0, batch.terminated.shape[0])
    return jax.tree.map(lambda x: x[rows], batch)


def _flat(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _optimizer() -> optax.GradientTransformation:
    """Adam, gradients clipped (PPO's usual 0.5); rates are applied outside, since they change."""
    return optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam(eps=1e-5))
