"""Causal attention over the last steps of a rollout."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.dynamics.base import Carry, Dynamics, Prediction, join, split_prediction
from mairl.nets.mlp import Linear, layer_norm
from mairl.types import MairlError


class WindowCarry(NamedTuple):
    """Keys and values of the last steps per layer (oldest first), and which of them exist."""

    keys: Float[Array, "*batch layers past width"]
    values: Float[Array, "*batch layers past width"]
    exists: Float[Array, "*batch past"]


class WindowBlock(eqx.Module):
    """Attention from the present step to itself and the past, then a feed-forward layer."""

    query: Linear
    out: Linear
    up: Linear
    down: Linear

    def __init__(self, width: int, expand: int, *, key: Key[Array, ""]):
        """``expand`` is the feed-forward layer's width in units of ``width``."""
        k_query, k_out, k_up, k_down = jax.random.split(key, 4)
        self.query = Linear(width, width, key=k_query)
        self.out = Linear(width, width, key=k_out, scale=0.5)
        self.up = Linear(width, expand * width, key=k_up, scale=2**0.5)
        self.down = Linear(expand * width, width, key=k_down, scale=0.5)


class WindowDynamics(Dynamics):
    """The present (obs, action) attends to itself and to the last ``window - 1`` steps.

        e_t = W [obs_t, action_t];  K, V of layer l = W_l layer_norm(e_t);  x = e_t
        x = x + W_o softmax(q(x) K^T / sqrt(d) + lag_bias) V;  x = x + FF(layer_norm(x))

    Multi-head causal attention (Vaswani et al. 2017) with a learned bias per head and lag. Keys
    and values depend on their own step alone, so they are computed once and carried: a step
    costs the same whatever the window, and the past can never see the future.
    """

    embed: Linear
    keys_values: Linear
    lag_bias: Float[Array, "layers heads window"]
    blocks: tuple[WindowBlock, ...]
    readout: Linear
    width: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    window: int = eqx.field(static=True)

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        *,
        width: int,
        layers: int,
        window: int = 8,
        heads: int = 4,
        expand: int = 2,
        key: Key[Array, ""],
    ):
        """``window`` counts the present step."""
        if width % heads:
            raise MairlError(f"width {width} is not a multiple of heads {heads}; change either")
        k_embed, k_keys_values, k_readout, *k_blocks = jax.random.split(key, 3 + layers)
        self.embed = Linear(obs_size + action_size, width, key=k_embed, scale=2**0.5)
        self.keys_values = Linear(width, 2 * layers * width, key=k_keys_values)
        self.lag_bias = jnp.zeros((layers, heads, window))
        self.blocks = tuple(WindowBlock(width, expand, key=k) for k in k_blocks)
        self.readout = Linear(width, obs_size + 1, key=k_readout, scale=0.1)
        self.width, self.heads, self.window = width, heads, window

    def initial(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """An empty past."""
        past = self.window - 1
        shape = (*batch_shape, len(self.blocks), past, self.width)
        return WindowCarry(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((*batch_shape, past)))

    def step(
        self, carry: Carry, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> tuple[Carry, Prediction]:
        """Predict from the present and the carried past; push the present into the carry."""
        layers, batch = len(self.blocks), obs.shape[:-1]
        x = self.embed(join(obs, action))
        new = self.keys_values(layer_norm(x)).reshape(*batch, layers, 1, 2 * self.width)
        keys = jnp.concatenate([carry.keys, new[..., : self.width]], axis=-2)
        values = jnp.concatenate([carry.values, new[..., self.width :]], axis=-2)
        exists = jnp.concatenate([carry.exists, jnp.ones((*batch, 1))], axis=-1)
        for i, block in enumerate(self.blocks):
            past = keys[..., i, :, :], values[..., i, :, :]
            x = x + block.out(self._attend(i, block.query(layer_norm(x)), *past, exists))
            x = x + block.down(jax.nn.silu(block.up(layer_norm(x))))
        carry = WindowCarry(keys[..., 1:, :], values[..., 1:, :], exists[..., 1:])
        return carry, split_prediction(self.readout(layer_norm(x)))

    def _attend(self, layer: int, query: Array, keys: Array, values: Array, exists: Array) -> Array:
        heads, batch = (self.heads, self.width // self.heads), query.shape[:-1]
        keys = keys.reshape(*batch, self.window, *heads)
        values = values.reshape(*batch, self.window, *heads)
        scores = jnp.einsum("...hd,...whd->...hw", query.reshape(*batch, *heads), keys)
        scores = scores * heads[1] ** -0.5
        scores = scores + jnp.broadcast_to(self.lag_bias[layer], scores.shape)
        scores = jnp.where(exists[..., None, :] > 0.5, scores, -1e9)
        mixed = jnp.einsum("...hw,...whd->...hd", jax.nn.softmax(scores, axis=-1), values)
        return mixed.reshape(*batch, self.width)
