"""The dynamics' loss: squared error of the change, cross-entropy of termination."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mairl.dynamics import Dynamics, Ensemble
from mairl.types import Metrics, Transition


def dynamics_loss(
    dynamics: Dynamics, delta_scale: Float[Array, " obs"], batch: Transition
) -> tuple[Float[Array, ""], Metrics]:
    """One member's loss on normalized transitions ``[batch, ...]``.

    Mean over dimensions of ((s' - s) / scale - F(s, a))^2, plus the binary cross-entropy of
    ``terminated``.
    """
    prediction = dynamics(batch.obs, batch.action)
    scale = jnp.broadcast_to(delta_scale, batch.obs.shape)
    error = (batch.next_obs - batch.obs) / scale - prediction.delta
    squared = jnp.mean(error**2)
    logit = prediction.terminated_logit
    terminated = jnp.mean(jax.nn.softplus(logit) - batch.terminated * logit)
    return squared + terminated, {
        "dynamics/squared_error": squared,
        "dynamics/termination_loss": terminated,
    }


def ensemble_loss(
    ensemble: Ensemble, delta_scale: Float[Array, " obs"], batch: Transition
) -> tuple[Float[Array, ""], Metrics]:
    """Sum of the members' losses, each on its own ``batch[member]``; metrics are their means."""
    loss, metrics = jax.vmap(lambda member, rows: dynamics_loss(member, delta_scale, rows))(
        ensemble.members, batch
    )
    return jnp.sum(loss), jax.tree.map(jnp.mean, metrics)
