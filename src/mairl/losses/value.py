"""The value's loss: one-step temporal difference with entropy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.policies import Policy
from mairl.types import Metrics, Transition
from mairl.value import ActionValue


def value_loss(
    value: ActionValue,
    target: ActionValue,
    policy: Policy,
    batch: Transition,
    rewards: Float[Array, " batch"],
    temperature: Float[Array, ""],
    target_entropy: float,
    end_value: Float[Array, " batch"],
    *,
    gamma: float,
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean over batch and members of (Q(s, a) - y)^2 / 2,

    y = r + gamma (1 - terminated) [min Q'(s', a') + temperature * (entropy(s') - target_entropy)]
      + gamma * terminated * end_value, a' ~ pi(s')  (Haarnoja et al. 2018, eq. 5-6).

    The Lagrangian of "as much reward as can be had with that entropy": a policy that just has it
    is paid nothing for it. Paid for all of its entropy, a discrete policy would rather live on, and
    a continuous one, whose target is negative, rather not.

    Nothing but ``value`` gets a gradient. A truncated step bootstraps like any other.
    """
    future, entropy = policy.expect(batch.next_obs, target.lower, key)
    future = future + temperature * (entropy - target_entropy)
    goes_on = 1.0 - batch.terminated
    y = rewards + gamma * (goes_on * future + batch.terminated * end_value)
    q = value(batch.obs, batch.action)
    error = q - jax.lax.stop_gradient(y)[None]
    loss = 0.5 * jnp.mean(jnp.sum(error**2, 0))
    return loss, {"value/loss": loss, "value/mean": jnp.mean(q), "value/target": jnp.mean(y)}
