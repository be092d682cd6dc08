"""Least squares with a network: a true reward, or a next observation, as a function to ask."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from mairl.nets.mlp import MLP

HIDDEN, STEPS, BATCH_SIZE, LEARNING_RATE = (128, 128), 3000, 256, 1e-3
HELD_OUT = 0.2


class Regression(NamedTuple):
    """``y`` predicted from ``x``.

    explained: ``[out]``, the share of each output's variance explained on held-out rows (R²,
    at most 1); 1 where an output never changes.
    """

    net: MLP
    centre: np.ndarray
    scale: np.ndarray
    explained: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Predictions ``[n, out]`` for inputs ``[n, in]``."""
        return np.asarray(_apply(self.net, jnp.asarray(x))) * self.scale + self.centre


def fit_regression(x: np.ndarray, y: np.ndarray, *, key: Key[Array, ""]) -> Regression:
    """Fit ``y [n, out]`` to ``x [n, in]``, which should be of unit scale; a fifth is held out."""
    init_key, fit_key, row_key = jax.random.split(key, 3)
    order = np.asarray(jax.random.permutation(row_key, len(x)))
    test, train = np.split(order, [max(1, int(HELD_OUT * len(x)))])
    centre, spread = y[train].mean(0), y[train].std(0)
    varies = spread > 1e-6 * np.maximum(1.0, np.abs(centre))
    scale = np.where(varies, spread, 1.0)
    net = MLP(x.shape[1], HIDDEN, y.shape[1], key=init_key)
    targets = jnp.asarray((y[train] - centre) / scale, jnp.float32)
    net = _fit(net, jnp.asarray(x[train]), targets, fit_key)
    fitted = Regression(net, centre, np.where(varies, scale, 0.0), np.ones(0))
    error = np.mean((fitted(x[test]) - y[test]) ** 2, 0)
    variance = np.mean((y[test] - y[test].mean(0)) ** 2, 0)
    explained = np.where(variance > 0, 1.0 - error / np.where(variance > 0, variance, 1.0), 1.0)
    return fitted._replace(explained=explained)


@jax.jit
def _fit(net: MLP, x: Float[Array, "n in"], y: Float[Array, "n out"], key: Key[Array, ""]) -> MLP:
    """Adam with a rate that falls to zero (cosine), in one program."""
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, STEPS))

    def loss(net: MLP, rows: Array) -> Array:
        return jnp.mean((net(x[rows]) - y[rows]) ** 2)

    def step(carry, key):
        net, moments = carry
        rows = jax.random.randint(key, (BATCH_SIZE,), 0, x.shape[0])
        updates, moments = optimizer.update(jax.grad(loss)(net, rows), moments)
        return (optax.apply_updates(net, updates), moments), None

    keys = jax.random.split(key, STEPS)
    (net, _), _ = jax.lax.scan(step, (net, optimizer.init(net)), keys)  # pyright: ignore
    return net


@jax.jit
def _apply(net: MLP, x: Float[Array, "n in"]) -> Float[Array, "n out"]:
    return net(x)
