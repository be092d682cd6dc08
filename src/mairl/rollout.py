"""Following the policy through the learned model, with gradients end to end.

``imagine`` runs in the model alone; ``anchored`` keeps to real transitions forward and takes
only the model's Jacobian backward (Baram et al. 2017, section 3.2). Both work on normalized
observations. Dynamics ensembles share the batch: each member carries its own part of it, so a
rollout costs what one member costs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.dynamics import Ensemble
from mairl.nets.distributions import straight_through
from mairl.policies import Policy
from mairl.types import Transition


class Rollout(NamedTuple):
    """``horizon`` steps of a batch of trajectories.

    transition: leading axes ``[horizon, batch]``; ``terminated`` is a probability where the
        model made it.
    entropy: ``[horizon, batch]``, of the policy at ``transition.obs``, nats.
    alive: ``[horizon, batch]``, probability that the trajectory got as far as this step.
    final_obs, final_alive: after the last step.
    """

    transition: Transition
    entropy: Float[Array, "horizon batch"]
    alive: Float[Array, "horizon batch"]
    final_obs: Float[Array, "batch obs"]
    final_alive: Float[Array, " batch"]


def imagine(
    policy: Policy,
    dynamics: Ensemble,
    delta_scale: Float[Array, " obs"],
    obs: Float[Array, "batch obs"],
    horizon: int,
    *,
    key: Key[Array, ""],
) -> Rollout:
    """Roll the policy ``horizon`` steps through the model from ``obs``.

    s' = s + scale * F(s, a), a ~ pi(s) reparameterized. Gradients flow through every step.
    The batch must be a multiple of the number of members.
    """

    def step(carry, step_key):
        memory, obs, alive = carry
        action, entropy = policy.sample(obs, step_key)
        memory, prediction = _step_shared(dynamics, memory, obs, action)
        next_obs = obs + jnp.broadcast_to(delta_scale, obs.shape) * prediction.delta
        terminated = jax.nn.sigmoid(prediction.terminated_logit)
        out = (Transition(obs, action, next_obs, terminated), entropy, alive)
        return (memory, next_obs, alive * (1.0 - terminated)), out

    first = (_initial_shared(dynamics, obs.shape[0]), obs, jnp.ones(obs.shape[0]))
    keys = jax.random.split(key, horizon)
    # Unrolled, as a loop copies the parameters it carries; but for long ones, to compile in time.
    unroll = max(1, min(horizon, 4))
    (_, final_obs, final_alive), out = jax.lax.scan(step, first, keys, unroll=unroll)
    return Rollout(*out, final_obs, final_alive)


def anchored(
    policy: Policy,
    dynamics: Ensemble,
    delta_scale: Float[Array, " obs"],
    segment: Transition,
    mask: Float[Array, "horizon batch"],
    *,
    key: Key[Array, ""],
) -> Rollout:
    """Follow real transitions ``segment`` (leading axes ``[horizon, batch]``).

    Forward, every observation and action is the recorded one. Backward, actions carry the
    policy's derivative (with the noise inferred that makes them the recorded ones) and next
    observations the model's: s' = F(s, a) + stop_gradient(s'_real - F(s, a)). ``mask`` is 1 on
    the steps that belong to the segment's first episode.
    """

    def step(carry, inputs):
        memory, obs = carry
        real, alive, step_key = inputs
        obs = straight_through(real.obs, obs)
        action, entropy = policy.reproduce(obs, real.action, step_key)
        memory, prediction = _step_shared(dynamics, memory, obs, action)
        predicted = obs + jnp.broadcast_to(delta_scale, obs.shape) * prediction.delta
        next_obs = straight_through(real.next_obs, predicted)
        out = (Transition(obs, action, next_obs, real.terminated), entropy, alive)
        return (memory, next_obs), out

    horizon, batch = mask.shape
    first = (_initial_shared(dynamics, batch), segment.obs[0])
    inputs = (segment, mask, jax.random.split(key, horizon))
    (_, final_obs), out = jax.lax.scan(step, first, inputs)
    final_alive = mask[-1] * (1.0 - segment.terminated[-1])
    return Rollout(*out, final_obs, final_alive)


def objective(
    rollout: Rollout,
    rewards: Float[Array, "horizon batch"],
    temperature: Float[Array, ""],
    end_value: Float[Array, "horizon batch"],
    final_value: Float[Array, " batch"],
    gamma: float,
) -> Float[Array, " batch"]:
    """sum_t gamma^t [r_t + temperature * entropy_t] + gamma^H * V(s_H), ends accounted for.

    ``end_value`` is what an end by a step is worth, ``final_value`` what the state after the last
    step is.
    """
    steps, final = gains(rollout, rewards, temperature, end_value, final_value, gamma)
    return jnp.sum(steps, 0) + final


def mean_objective(
    rollout: Rollout,
    rewards: Float[Array, "horizon batch"],
    temperature: Float[Array, ""],
    end_value: Float[Array, "horizon batch"],
    values: Float[Array, "states batch"],
    gamma: float,
) -> Float[Array, " batch"]:
    """The mean of :func:`objective` over the horizons 0 ... H: each step's reward, each state's V.

    ``values`` are those of all H + 1 states. The model errs in one way, the critics in another:
    neither alone is to be believed everywhere (cf. the mixtures of Hafner et al. 2020, eq. 6).
    """
    steps, final = gains(rollout, rewards, temperature, end_value, values[-1], gamma)
    horizon = rewards.shape[0]
    t = jnp.arange(horizon, dtype=jnp.float32)[:, None]
    # Step t is part of the H - t horizons that are longer.
    earlier = (horizon - t) * steps + gamma**t * rollout.alive * values[:-1]
    return (jnp.sum(earlier, 0) + final) / (horizon + 1)


def gains(
    rollout: Rollout,
    rewards: Float[Array, "horizon batch"],
    temperature: Float[Array, ""],
    end_value: Float[Array, "horizon batch"],
    final_value: Float[Array, " batch"],
    gamma: float,
) -> tuple[Float[Array, "horizon batch"], Float[Array, " batch"]]:
    """The summands of :func:`objective`: those of the steps, and the final one."""
    horizon = rewards.shape[0]
    discount = (gamma ** jnp.arange(horizon))[:, None] * rollout.alive
    steps = rewards + temperature * rollout.entropy
    steps = steps + gamma * rollout.transition.terminated * end_value
    return discount * steps, gamma**horizon * rollout.final_alive * final_value


def _initial_shared(dynamics: Ensemble, batch: int):
    """The carry of a batch whose rows are dealt out to the members in equal parts."""
    return dynamics.initial((batch // dynamics.num_members,))


def _step_shared(dynamics: Ensemble, memory, obs, action) -> tuple:
    """One step in which row i of the batch belongs to member i // (batch / members)."""
    split = lambda x: x.reshape(dynamics.num_members, -1, *x.shape[1:])  # noqa: E731
    join = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    memory, prediction = dynamics.step_each(memory, split(obs), split(action))
    return memory, jax.tree.map(join, prediction)
