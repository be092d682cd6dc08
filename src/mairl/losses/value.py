"""The value's loss: temporal differences, and which transitions to take them on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mairl.types import Metrics, Transition
from mairl.value import ActionValue


def temporal_difference(
    value: ActionValue,
    batch: Transition,
    rewards: Float[Array, " batch"],
    future: Float[Array, " batch"],
    end_value: Float[Array, " batch"],
    *,
    gamma: float,
) -> tuple[Float[Array, "members batch"], Metrics]:
    """Every member's error Q(s, a) - y,

    y = r + gamma (1 - terminated) * future + gamma * terminated * end_value

    (Haarnoja et al. 2018, eq. 5-6). ``future`` is what the policy earns from s' on
    (``returns.returns``): with the entropy counted from its target it is the Lagrangian of "as
    much reward as can be had with that entropy". Paid for all of its entropy, a discrete policy
    would rather live on, and a continuous one, whose target is negative, rather not.

    Nothing but ``value`` gets a gradient. A truncated step bootstraps like any other.
    """
    goes_on = 1.0 - batch.terminated
    y = rewards + gamma * (goes_on * future + batch.terminated * end_value)
    q = value(batch.obs, batch.action)
    error = q - jax.lax.stop_gradient(y)[None]
    return error, {"value/mean": jnp.mean(q), "value/target": jnp.mean(y)}


def value_loss(
    error: Float[Array, "members batch"], weight: Float[Array, " batch"] | None = None
) -> Float[Array, ""]:
    """Mean over the batch, by ``weight`` where given, of error^2 / 2 summed over the members."""
    square = jnp.sum(error**2, 0)
    return 0.5 * jnp.mean(square if weight is None else weight * square)


def surprising(
    key: Key[Array, ""], error: Float[Array, " batch"], n: int
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """``n`` different rows drawn in proportion to their ``error``, and weights of mean 1 for them.

    Prioritized replay (Schaul et al. 2016, eq. 1 and section 3.4) with exponents 1 and 1/2, over
    rows drawn evenly before, so that no priorities need be kept. Weights make up for half of the
    preference. Drawn without replacement as in Kool et al. (2019): the largest of log(error) +
    Gumbel noise.
    """
    error = error + 1e-3
    _, rows = jax.lax.top_k(jnp.log(error) + jax.random.gumbel(key, error.shape), n)
    weight = error[rows] ** -0.5
    return rows, weight / jnp.mean(weight)
