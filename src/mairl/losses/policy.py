"""The policy's loss: minus the return of a rollout, differentiated through all of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.policies import Policy
from mairl.rollout import Rollout, mean_objective, objective
from mairl.types import Metrics, Transition
from mairl.value import ActionValue


def policy_loss(
    policy: Policy,
    rollout: Callable[[Policy], Rollout],
    value: ActionValue | None,
    reward: Callable[[Transition], Float[Array, "horizon batch"]],
    temperature: Float[Array, ""],
    target_entropy: float,
    end_value: Callable[[Transition], Float[Array, "horizon batch"]],
    gamma: float,
    *,
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
    """Minus the mean over h = 0 ... H of E sum_{t<h} gamma^t [r_t + temperature * entropy_t]
    + gamma^h V(s_h).

    V(s) = min over members of Q(s, a) + temperature * entropy, a ~ pi(s); without a value only the
    whole horizon counts and the return stops there, as in the paper; an end by a transition is
    worth its ``end_value``. Entropies count from ``target_entropy``: what is held on average is
    worth nothing, so living on earns no more by it than an end. Gradients reach the policy through
    actions, rewards, the model and Q; none of those is changed by it.
    """
    steps = rollout(policy)
    entropy = steps.entropy
    steps = steps._replace(entropy=entropy - target_entropy)
    rewards, end_values = reward(steps.transition), end_value(steps.transition)
    if value is None:
        last = jnp.zeros(steps.final_alive.shape)
        returns = objective(steps, rewards, temperature, end_values, last, gamma)
    else:
        obs = jnp.concatenate([steps.transition.obs, steps.final_obs[None]])
        values, entropy = policy.expect(obs, value.lower, key)
        values = values + temperature * (entropy - target_entropy)
        returns = mean_objective(steps, rewards, temperature, end_values, values, gamma)
    mean = jnp.mean(returns)
    return -mean, {
        "policy/objective": mean,
        "policy/entropy": jnp.mean(entropy),
    }


def temperature_loss(
    log_temperature: Float[Array, ""], entropy: Float[Array, ""], target: float
) -> tuple[Float[Array, ""], Metrics]:
    """Raise the temperature where the entropy is below its target (Haarnoja et al. 2018b)."""
    temperature = jnp.exp(log_temperature)
    loss = temperature * jax.lax.stop_gradient(entropy - target)
    return loss, {
        "policy/temperature": temperature,
        "policy/target_entropy": jnp.float32(target),
    }
