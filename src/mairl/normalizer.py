"""Scaling of observations to zero mean and unit deviation, as a pytree of two arrays."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mairl.types import MairlError, Transition

CLIP = 10.0
"""Normalized values stay within ±CLIP, so that one outlier cannot swamp a network."""

_CONSTANT = 1e-6


class Normalizer(eqx.Module):
    """Mean and deviation of each dimension, in the environment's units; carries no gradient
    of its own because nothing trains it.
    """

    mean: Float[Array, "*batch size"]
    std: Float[Array, "*batch size"]

    def normalize(self, x: Float[Array, "*leading size"]) -> Float[Array, "*leading size"]:
        """``(x - mean) / std``, clipped to ±10 (where it clips, the gradient is zero)."""
        mean, std = _align(self.mean, x), _align(self.std, x)
        return jnp.clip((x - mean) / std, -CLIP, CLIP)

    def transition(self, batch: Transition) -> Transition:
        """``batch`` with both its observations normalized."""
        return batch._replace(
            obs=self.normalize(batch.obs), next_obs=self.normalize(batch.next_obs)
        )

    def denormalize(self, x: Float[Array, "*leading size"]) -> Float[Array, "*leading size"]:
        """``x * std + mean``: the inverse of :meth:`normalize` where it did not clip."""
        return x * _align(self.std, x) + _align(self.mean, x)


def identity(size: int) -> Normalizer:
    """A normalizer that only clips."""
    return Normalizer(jnp.zeros(size, jnp.float32), jnp.ones(size, jnp.float32))


def fit(*batches: np.ndarray | Array, weights: Sequence[float | int] | None = None) -> Normalizer:
    """Mean and deviation of a mixture of data sets ``[..., size]``.

    Each batch counts by its weight (equal by default), however many rows it has: with the
    expert and a random policy at one half each, ``std`` covers both even where one is a hundred
    times larger. The variance is that of the mixture,
    ``sum_i w_i (var_i + mean_i^2) - mean^2``, the spread between the means included.
    Dimensions that never change get a deviation of 1, so that they come out as zero.

    Raises:
        MairlError: no data, a non-finite value, or weights that are not positive.
    """
    if not batches:
        raise MairlError("normalizer: no data to fit")
    rows = [np.asarray(batch, np.float64) for batch in batches]
    rows = [batch.reshape(-1, batch.shape[-1]) for batch in rows]
    for index, batch in enumerate(rows):
        if batch.shape[-1] != rows[0].shape[-1]:
            raise MairlError(
                f"normalizer: batch {index} has {batch.shape[-1]} dimensions, batch 0 has "
                f"{rows[0].shape[-1]}; fit data of one environment only"
            )
        if not len(batch):
            raise MairlError(f"normalizer: batch {index} is empty; leave it out")
        if not np.isfinite(batch).all():
            row, dim = np.argwhere(~np.isfinite(batch))[0]
            raise MairlError(
                f"normalizer: batch {index}, row {row}, dimension {dim} is {batch[row, dim]}; "
                "remove the episodes with non-finite values"
            )
    shares = np.ones(len(rows)) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != (len(rows),) or not np.isfinite(shares).all() or (shares <= 0).any():
        raise MairlError(
            f"normalizer: weights {list(np.atleast_1d(shares))} for {len(rows)} batches; give "
            "one positive number for each"
        )
    shares = shares / shares.sum()
    means = np.stack([batch.mean(0) for batch in rows])
    variances = np.stack([batch.var(0) for batch in rows])
    mean = shares @ means
    # Around the mixture's mean, not E[x²] - mean²: no cancellation for large offsets.
    std = np.sqrt(shares @ (variances + np.square(means - mean)))
    # Relative to the mean's size too: float32 data with a large constant carries round-off.
    std = np.where(std > _CONSTANT * np.maximum(1.0, np.abs(mean)), std, 1.0)
    return Normalizer(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def _align(stat: Float[Array, " size"], x: Float[Array, "*leading size"]) -> Array:
    """Give ``stat`` the rank of ``x``, which rank promotion rules would otherwise refuse."""
    return stat.reshape((1,) * (x.ndim - stat.ndim) + stat.shape)
