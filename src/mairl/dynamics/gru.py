"""A recurrent model: remembers the rollout so far in a hidden vector."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.dynamics.base import Carry, Dynamics, Prediction, join, split_prediction
from mairl.nets.mlp import MLP, Linear


class GRUDynamics(Dynamics):
    """Gated recurrent unit (Cho et al. 2014) over (obs, action), then a dense head.

        x = silu(W [obs, action]);  z, r = sigmoid(U [x, h])
        n = tanh(V [x, r * h]);     h' = z * h + (1 - z) * n;     raw = MLP([x, h'])

    The released code's transfer modes use a GRU. The carry is ``h``, zero at the start.
    """

    embed: Linear
    gates: Linear
    candidate: Linear
    head: MLP
    width: int = eqx.field(static=True)

    def __init__(
        self, obs_size: int, action_size: int, width: int, depth: int, *, key: Key[Array, ""]
    ):
        """Embedding, hidden vector and the ``depth`` layers of the head are all ``width`` wide."""
        k_embed, k_gates, k_candidate, k_head = jax.random.split(key, 4)
        self.embed = Linear(obs_size + action_size, width, key=k_embed, scale=2**0.5)
        self.gates = Linear(2 * width, 2 * width, key=k_gates)
        self.candidate = Linear(2 * width, width, key=k_candidate)
        self.head = MLP(
            2 * width,
            (width,) * depth,
            obs_size + 1,
            key=k_head,
            activation=jax.nn.silu,
            out_scale=0.1,
        )
        self.width = width

    def initial(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """A zero hidden vector."""
        return jnp.zeros((*batch_shape, self.width))

    def step(
        self, carry: Carry, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> tuple[Carry, Prediction]:
        """Fold the step into the hidden vector and predict from it."""
        x = jax.nn.silu(self.embed(join(obs, action)))
        keep, reset = jnp.split(jax.nn.sigmoid(self.gates(join(x, carry))), 2, axis=-1)
        new = jnp.tanh(self.candidate(join(x, reset * carry)))
        hidden = keep * carry + (1.0 - keep) * new
        return hidden, split_prediction(self.head(join(x, hidden)))
