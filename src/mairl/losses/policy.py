"""The policy's loss: minus the return of a rollout, differentiated through all of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.policies import Policy
from mairl.rollout import Rollout, objective
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
    """Minus E sum_{t<H} gamma^t [r_t + temperature * entropy_t] + gamma^H V(s_H).

    V(s) = min over members of Q(s, a) + temperature * entropy, a ~ pi(s); without a value the
    return stops at the horizon, as in the paper; an end by a transition is worth its ``end_value``.
    Entropies count from ``target_entropy``: what is held on average is worth nothing, so living on
    earns no more by it than an end. Gradients reach the policy through actions, rewards, the model
    and Q; none of those is changed by it.
    """
    steps = rollout(policy)
    # At horizon 0 (nothing imagined) the entropy reported is that of the final action.
    entropies = [steps.entropy] if steps.entropy.shape[0] else []
    final_value = jnp.zeros(steps.final_alive.shape)
    if value is not None:
        final_value, entropy = policy.expect(steps.final_obs, value.lower, key)
        final_value = final_value + temperature * (entropy - target_entropy)
        entropies.append(entropy[None])
    steps = steps._replace(entropy=steps.entropy - target_entropy)
    values = reward(steps.transition), temperature, end_value(steps.transition), final_value
    returns = objective(steps, *values, gamma)
    mean = jnp.mean(returns)
    return -mean, {
        "policy/objective": mean,
        "policy/entropy": jnp.mean(jnp.concatenate(entropies)),
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
