"""The dynamics' loss: squared error of the change, cross-entropy of termination."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mairl.dynamics import Dynamics, Ensemble
from mairl.types import Metrics, Transition


def dynamics_loss(
    dynamics: Dynamics,
    delta_scale: Float[Array, " obs"],
    segments: Transition,
    mask: Float[Array, "batch steps"],
) -> tuple[Float[Array, ""], Metrics]:
    """One member's loss on normalized ``segments`` ``[batch, steps, ...]`` of successive steps.

    Mean over dimensions and over the steps that count (``mask`` 1) of
    ((s' - s) / scale - F(s, a))^2, plus the binary cross-entropy of ``terminated``. What the
    model remembers begins empty, as in a rollout, and grows along the segment.
    """

    def step(carry, inputs):
        return dynamics.step(carry, *inputs)

    time_first = lambda x: jnp.swapaxes(x, 0, 1)  # noqa: E731
    inputs = time_first(segments.obs), time_first(segments.action)
    _, prediction = jax.lax.scan(step, dynamics.initial(mask.shape[:1]), inputs)
    delta, logit = jax.tree.map(time_first, prediction)
    scale = jnp.broadcast_to(delta_scale, segments.obs.shape)
    error = (segments.next_obs - segments.obs) / scale - delta
    weight = mask / jnp.mean(mask)
    squared = jnp.mean(weight[..., None] * error**2)
    terminated = jnp.mean(weight * (jax.nn.softplus(logit) - segments.terminated * logit))
    return squared + terminated, {
        "dynamics/squared_error": squared,
        "dynamics/termination_loss": terminated,
    }


def ensemble_loss(
    ensemble: Ensemble,
    delta_scale: Float[Array, " obs"],
    segments: Transition,
    mask: Float[Array, "members batch steps"],
) -> tuple[Float[Array, ""], Metrics]:
    """Sum of the members' losses, each on its own ``segments[member]``; metrics are their means."""
    loss, metrics = jax.vmap(lambda member, *own: dynamics_loss(member, delta_scale, *own))(
        ensemble.members, segments, mask
    )
    return jnp.sum(loss), jax.tree.map(jnp.mean, metrics)
