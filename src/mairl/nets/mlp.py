"""Dense networks; every leaf is an array, so plain ``jax.jit``/``vmap``/``scan`` work on them."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

NARROW = 3**-0.5
"""Scale of weights, PyTorch's default: for networks whose outputs a game is played with.

Wider ones (sqrt(2) is usual for relu) saturate tanh units and hold back layer-normalized ones,
whose direction turns the slower the longer they are: HalfCheetah then is hardly learned.
"""


class Linear(eqx.Module):
    """``x @ weight + bias`` over the last axis.

    Weights start truncated normal with deviation ``scale / sqrt(in_size)``. (Orthogonal ones
    would take seconds to compile, for their QR decomposition.)
    """

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, in_size: int, out_size: int, *, key: Key[Array, ""], scale: float = 1.0):
        init = jax.nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")
        self.weight = init(key, (in_size, out_size), jnp.float32)
        self.bias = jnp.zeros(out_size)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Map the last axis from ``in`` to ``out``."""
        y = x @ self.weight
        return y + jnp.broadcast_to(self.bias, y.shape)


def layer_norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Zero mean, unit variance over the last axis (Ba et al. 2016), without scale and shift."""
    x = x - jnp.mean(x, -1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)


class MLP(eqx.Module):
    """Hidden layers of the given sizes, then a linear output. Works over any leading axes."""

    layers: tuple[Linear, ...]
    activation: Callable = eqx.field(static=True)
    norm: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        hidden: Sequence[int],
        out_size: int,
        *,
        key: Key[Array, ""],
        activation: Callable = jax.nn.relu,
        norm: bool = False,
        dropout: float = 0.0,
        scale: float = 2**0.5,
        out_scale: float = 1.0,
    ):
        """Build the layers; ``norm`` puts a layer norm in front of each activation.

        ``scale`` is that of the hidden layers' weights at first (see :class:`Linear`).
        """
        keys = jax.random.split(key, len(hidden) + 1)
        sizes = (in_size, *hidden)
        shapes = zip(sizes[:-1], sizes[1:], keys[:-1], strict=True)
        self.layers = (
            *(Linear(m, n, key=k, scale=scale) for m, n, k in shapes),
            Linear(sizes[-1], out_size, key=keys[-1], scale=out_scale),
        )
        self.activation = activation
        self.norm = norm
        self.dropout = dropout

    def __call__(
        self, x: Float[Array, "*batch in"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "*batch out"]:
        """Apply the network over the last axis; hidden units drop out only when given a key."""
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            x = self.activation(layer_norm(x) if self.norm else x)
            if self.dropout and key is not None:
                keep = jax.random.bernoulli(jax.random.fold_in(key, i), 1.0 - self.dropout, x.shape)
                x = jnp.where(keep, x / (1.0 - self.dropout), 0.0)
        return self.layers[-1](x)
