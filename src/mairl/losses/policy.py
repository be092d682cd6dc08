"""The policy's loss: minus the return of a rollout, differentiated through all of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.losses.returns import returns
from mairl.policies import Policy
from mairl.rollout import Rollout
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
    """Minus the mean of ``returns.returns``.

    Gradients reach the policy through actions, rewards, the model and Q; none of those is changed
    by it.
    """
    earned, entropy = returns(
        *(policy, rollout(policy), value, reward, temperature, target_entropy, end_value, gamma),
        key=key,
    )
    mean = jnp.mean(earned)
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
