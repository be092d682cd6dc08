"""The plain dense model: the baseline that any structure has to beat."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float, Key

from mairl.dynamics.base import MarkovDynamics, join
from mairl.nets.mlp import MLP


class MLPDynamics(MarkovDynamics):
    """raw = MLP([obs, action]).

    The deterministic form of the members of PETS (Chua et al. 2018) and MBPO (Janner et al.
    2019), with their smooth activation: gradients of a rollout pass through it many times.
    """

    net: MLP

    def __init__(
        self, obs_size: int, action_size: int, hidden: Sequence[int], *, key: Key[Array, ""]
    ):
        """Build one hidden layer per entry of ``hidden``."""
        self.net = MLP(
            obs_size + action_size,
            hidden,
            obs_size + 1,
            key=key,
            activation=jax.nn.silu,
            out_scale=0.1,
        )

    def raw(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch out"]:
        """Apply the network to obs and action side by side."""
        return self.net(join(obs, action))
