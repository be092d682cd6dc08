"""Estimators of one policy gradient: by likelihood ratio, and along the path.

All are of the same objective,

    J_H = E sum_{t<H} gamma^t r(s_t, a_t, s_{t+1}) + gamma^H Q(s_H, a_H),

every action drawn from the policy, ends accounted for as in ``rollout.objective``, with reward and
Q frozen. Each is a function of the policy whose gradient, not whose value, is the estimate; what
was sampled is data. Observations are normalized, actions inside ones.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.dynamics import Ensemble
from mairl.policies import Policy
from mairl.rewards import AIRLReward, BoundedReward
from mairl.rollout import Rollout, anchored, gains, imagine, objective
from mairl.types import Transition
from mairl.value import ActionValue


@runtime_checkable
class Reward(Protocol):
    """What an objective pays."""

    def __call__(self, transition: Transition) -> Array:
        """For steps, of any leading axes."""
        ...

    def end_value(self, transition: Transition) -> Array:
        """For ends by these steps."""
        ...


class SeenReward(eqx.Module):
    """The learned reward as the policy's loss sees it: bounded, and ends valued."""

    network: AIRLReward
    live: Float[Array, ""]
    ended: Float[Array, ""]
    bound: float = eqx.field(static=True)
    softplus: float = eqx.field(static=True)
    gamma: float = eqx.field(static=True)

    def __call__(self, transition: Transition) -> Float[Array, "*batch"]:
        """Of transitions with any leading axes."""
        return self._bounded(self.network, transition)

    def end_value(self, transition: Transition) -> Float[Array, "*batch"]:
        """What ends by these transitions are worth."""
        return self._bounded.after(self.network.f(transition)) / (1.0 - self.gamma)

    @property
    def _bounded(self) -> BoundedReward:
        return BoundedReward(self.bound, self.softplus, self.live, self.ended)


class Problem(eqx.Module):
    """What is frozen: the objective, and the model to differentiate through.

    value: None for an objective that stops at H.
    """

    reward: Reward
    value: ActionValue | None
    dynamics: Ensemble
    delta_scale: Float[Array, " obs"]
    gamma: float = eqx.field(static=True)


class Sample(NamedTuple):
    """Trajectories of the policy, and the key ``[horizon]`` of each step's actions."""

    rollout: Rollout
    keys: Key[Array, "*horizon"]


Baseline = Callable[[Policy, Problem, Rollout, Array, Array], tuple[Array, Array]]
"""(policy, problem, rollout, gains still to come, key) -> what is taken off those
``[H + 1, batch]``, and what is added to the surrogate ``[batch]`` for it."""


def sample_imagined(
    policy: Policy, problem: Problem, obs: Float[Array, "batch obs"], horizon: int, key
) -> Sample:
    """Trajectories in the model."""
    # The keys by which the rollout draws its actions.
    keys = jax.random.split(jax.random.clone(key), horizon)
    rollout = imagine(policy, problem.dynamics, problem.delta_scale, obs, horizon, key=key)
    return Sample(jax.lax.stop_gradient(rollout), keys)


def sample_real(segment: Transition, mask: Float[Array, "horizon batch"], keys) -> Sample:
    """Trajectories that an environment made; leading axes ``[horizon, batch]``."""
    final_alive = mask[-1] * (1.0 - segment.terminated[-1])
    return Sample(
        Rollout(segment, jnp.zeros(mask.shape), mask, segment.next_obs[-1], final_alive), keys
    )


def cut(sample: Sample, horizon: int) -> Sample:
    """The first ``horizon`` steps, 0 or more, of trajectories of at least one."""
    rollout, keys = sample
    transition, alive = rollout.transition, rollout.alive
    if horizon == 0:
        final_obs, final_alive = transition.obs[0], alive[0]
    else:
        final_obs = transition.next_obs[horizon - 1]
        final_alive = alive[horizon - 1] * (1.0 - transition.terminated[horizon - 1])
    transition, entropy, alive = jax.tree.map(
        lambda x: x[:horizon], (transition, rollout.entropy, alive)
    )
    return Sample(Rollout(transition, entropy, alive, final_obs, final_alive), keys[:horizon])


def likelihood_ratio(
    policy: Policy, problem: Problem, sample: Sample, baseline: Baseline, key: Key[Array, ""]
) -> Float[Array, ""]:
    """Mean over trajectories of sum_{t<=H} log pi(a_t | s_t) [G_t - b_t] (Williams 1992).

    G_t are the gains from step t on, discounted from the start; the action after the last step,
    at which Q is asked, is the (H+1)-th. Unbiased in the dynamics that made the sample if b_t does
    not depend on a_t, or what it takes off is added again.
    """
    final_key, baseline_key = jax.random.split(key)
    rollout, keys = sample
    # Cloned: the actions of the sample are drawn once more, on purpose.
    log_prob = jax.vmap(lambda obs, k: policy.scored(obs, jax.random.clone(k))[1])(
        rollout.transition.obs, keys
    )
    final_action, final_log_prob = policy.scored(rollout.final_obs, final_key)
    to_come = gains_to_come(problem, rollout, final_action)
    taken, added = baseline(
        policy, problem, _with_final(rollout, final_action), to_come, baseline_key
    )
    weight = jax.lax.stop_gradient(to_come - taken)
    log_probs = jnp.concatenate([log_prob, final_log_prob[None]])
    return jnp.mean(jnp.sum(log_probs * weight, 0) + added)


def gains_to_come(
    problem: Problem, rollout: Rollout, final_action: Float[Array, "batch action"]
) -> Float[Array, "steps batch"]:
    """G_t for t = 0 ... H: discounted from the start, zero after an end."""
    final_value = jnp.zeros(rollout.final_alive.shape)
    if problem.value is not None:
        final_value = problem.value.lower(rollout.final_obs, final_action)
    steps, final = gains(
        rollout,
        problem.reward(rollout.transition),
        jnp.zeros(()),
        problem.reward.end_value(rollout.transition),
        final_value,
        problem.gamma,
    )
    return jnp.cumsum(jnp.concatenate([steps, final[None]])[::-1], 0)[::-1]


def no_baseline(policy, problem, rollout, to_come, key):
    """b_t = 0."""
    return jnp.zeros(to_come.shape), jnp.zeros(to_come.shape[1])


def leave_one_out(policy, problem, rollout, to_come, key):
    """b_t = the mean G_t of the batch's other trajectories that got as far as step t."""
    return _others(to_come, rollout.alive), jnp.zeros(to_come.shape[1])


def value_baseline(policy, problem, rollout, to_come, key):
    """b_t = gamma^t Q(s_t, mode of pi(s_t)): a function of the state."""
    obs = rollout.transition.obs
    worth = problem.value.lower(obs, policy.mode(obs))
    return _discount(problem, rollout) * worth, jnp.zeros(to_come.shape[1])


def action_value_baseline(policy, problem, rollout, to_come, key):
    """b_t = gamma^t Q(s_t, a_t); its expected gradient, known along the path, is added again.

    Q as a control variate (Gu et al. 2017, Q-Prop, eq. 8, with Q itself instead of its
    linearization): unbiased whatever Q is. No baseline without Q.
    """
    if problem.value is None:
        return no_baseline(policy, problem, rollout, to_come, key)
    obs, action = rollout.transition.obs, rollout.transition.action
    discount = jax.lax.stop_gradient(_discount(problem, rollout))
    expected, _ = policy.expect(obs, problem.value.lower, key)
    return discount * problem.value.lower(obs, action), jnp.sum(discount * expected, 0)


def same_start(group: int) -> Baseline:
    """``action_value_baseline``, and what it leaves, the mean of others from the same start state.

    For samples in which every ``group`` successive trajectories start in one state.
    """

    def baseline(policy, problem, rollout, to_come, key):
        taken, added = action_value_baseline(policy, problem, rollout, to_come, key)
        steps, batch = to_come.shape
        grouped = steps, batch // group, group
        others = _others((to_come - taken).reshape(grouped), rollout.alive.reshape(grouped))
        return taken + others.reshape(steps, batch), added

    return baseline


def _others(to_come, alive):
    """Along the last axis: the others' mean, of those alive; zero where one is not."""
    count = jnp.sum(alive, -1, keepdims=True) - alive
    mean = (jnp.sum(to_come, -1, keepdims=True) - to_come) / jnp.maximum(count, 1.0)
    return alive * jnp.where(count > 0.0, mean, 0.0)


def imagined_path(
    policy: Policy,
    problem: Problem,
    obs: Float[Array, "batch obs"],
    horizon: int,
    key: Key[Array, ""],
) -> Float[Array, ""]:
    """The mean return of rollouts in the model, differentiated through them.

    At horizon 0 through Q alone, the model unused.
    """
    rollout_key, final_key = jax.random.split(key)
    model = problem.dynamics, problem.delta_scale
    return _path(
        policy, problem, lambda p: imagine(p, *model, obs, horizon, key=rollout_key), final_key
    )


def anchored_path(
    policy: Policy, problem: Problem, sample: Sample, key: Key[Array, ""]
) -> Float[Array, ""]:
    """The mean return of recorded trajectories, differentiated through the model's Jacobians."""
    rollout_key, final_key = jax.random.split(key)
    model = problem.dynamics, problem.delta_scale
    steps = sample.rollout.transition, sample.rollout.alive
    return _path(policy, problem, lambda p: anchored(p, *model, *steps, key=rollout_key), final_key)


def _path(policy, problem: Problem, rollout, key) -> Float[Array, ""]:
    steps = rollout(policy)
    final = jnp.zeros(steps.final_alive.shape)
    if problem.value is not None:
        final, _ = policy.expect(steps.final_obs, problem.value.lower, key)
    t, reward = steps.transition, problem.reward
    rewards, end_values = reward(t), reward.end_value(t)
    return jnp.mean(objective(steps, rewards, jnp.zeros(()), end_values, final, problem.gamma))


def _with_final(rollout: Rollout, final_action) -> Rollout:
    """The state after the last step, and the action there, as one more step of the rollout."""
    t = rollout.transition
    join = lambda x, last: jnp.concatenate([x, last[None]])  # noqa: E731
    transition = Transition(
        join(t.obs, rollout.final_obs),
        join(t.action, final_action),
        join(t.next_obs, rollout.final_obs),
        join(t.terminated, jnp.zeros(rollout.final_alive.shape)),
    )
    return rollout._replace(transition=transition, alive=join(rollout.alive, rollout.final_alive))


def _discount(problem: Problem, rollout: Rollout) -> Float[Array, "steps batch"]:
    powers: Array = problem.gamma ** jnp.arange(rollout.alive.shape[0])
    return powers[:, None] * rollout.alive
