"""The price of entropy. What the policy itself climbs is ``losses.returns``."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mairl.types import Metrics


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
