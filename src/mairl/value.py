"""Action values: an ensemble of layer-normalized critics."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.nets.mlp import MLP, NARROW


class ActionValue(eqx.Module):
    """Q(obs, action) of several members, on normalized observations and inside actions.

    Layer norm keeps values of unseen actions bounded, which off-policy training at a high
    update-to-data ratio depends on (RLPD, Ball et al. 2023).
    """

    members: MLP  # stacked on the leading axis of every leaf

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        hidden: Sequence[int],
        num_members: int,
        *,
        key: Key[Array, ""],
    ):
        """``num_members`` networks with independent initial weights."""
        make = lambda k: MLP(  # noqa: E731
            obs_size + action_size, hidden, 1, key=k, norm=True, scale=NARROW, out_scale=NARROW
        )
        self.members = jax.vmap(make)(jax.random.split(key, num_members))

    def __call__(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "members *batch"]:
        """Each member's value."""
        x = jnp.concatenate([obs, action], -1)
        return jax.vmap(lambda member: member(x)[..., 0])(self.members)

    def lower(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """The members' minimum (clipped double Q, Fujimoto et al. 2018)."""
        return jnp.min(self(obs, action), 0)


def polyak(target, source, tau: float):
    """``target + tau * (source - target)``, leaf by leaf."""
    return jax.tree.map(lambda t, s: t + tau * (s - t), target, source)
