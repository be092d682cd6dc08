"""Several models of one kind, side by side."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.dynamics.base import Carry, Dynamics, Prediction


class Ensemble(eqx.Module):
    """``num_members`` independently initialized models, stacked along a leading axis.

    Predictions carry a leading axis ``members``. Used as in PETS (Chua et al. 2018): train all
    members, imagine with one per rollout or with the mean.
    """

    members: Dynamics
    num_members: int = eqx.field(static=True)

    def __init__(
        self,
        build: Callable[[Key[Array, ""]], Dynamics],
        num_members: int,
        *,
        key: Key[Array, ""],
    ):
        """``build(key)`` makes one member; each gets its own key, so the members differ."""
        # One after the other, not by vmap: orthogonal initialization (a QR decomposition per
        # shape) compiles several times faster unbatched.
        members = [build(k) for k in jax.random.split(key, num_members)]
        self.members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        self.num_members = num_members

    @property
    def remembers(self) -> bool:
        """Whether earlier steps of a rollout say anything to the models."""
        return bool(jax.tree.leaves(self.members.initial()))

    def member(self, index: int) -> Dynamics:
        """One member as a model of its own."""
        return jax.tree.map(lambda leaf: leaf[index], self.members)

    def initial(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """Every member's initial carry, members first."""
        return jax.vmap(lambda model: model.initial(batch_shape), axis_size=self.num_members)(
            self.members
        )

    def step(
        self, carry: Carry, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> tuple[Carry, Prediction]:
        """All members predict from the same obs and action."""
        return jax.vmap(lambda model, c: model.step(c, obs, action))(self.members, carry)

    def step_each(
        self,
        carry: Carry,
        obs: Float[Array, "members *batch obs"],
        action: Float[Array, "members *batch action"],
    ) -> tuple[Carry, Prediction]:
        """Each member predicts from its own obs and action: one rollout per member."""
        return jax.vmap(lambda model, c, o, a: model.step(c, o, a))(
            self.members, carry, obs, action
        )

    def __call__(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Prediction:
        """One step with nothing remembered, per member."""
        return self.step(self.initial(obs.shape[:-1]), obs, action)[1]


def mean(prediction: Prediction) -> Prediction:
    """The average over members (of the logits too: the geometric mean of the odds)."""
    return Prediction(*(jnp.mean(x, axis=0) for x in prediction))
