"""What every dynamics model is: a one-step predictor with a carry, empty for Markov models."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

Carry = Any
"""What a model remembers between steps: a pytree of arrays with the batch axes in front."""


class Prediction(NamedTuple):
    """What follows one step.

    delta: ``[*batch, obs]``, the change of the normalized observation, next_obs - obs, in units
        of a per-dimension scale that the caller owns (so that it is of order one).
    terminated_logit: ``[*batch]``, log-odds that the episode ends here for good.
    """

    delta: Float[Array, "*batch obs"]
    terminated_logit: Float[Array, "*batch"]


class Dynamics(eqx.Module):
    """F(obs, action): predicts the change of the observation and the chance of an end.

    Roll out with ``carry, prediction = model.step(carry, obs, action)`` from
    ``model.initial(batch_shape)``. Calling the model is one step without a past. Everything is in
    normalized units: standardized observations, actions in [-1, 1] or one-hot.
    """

    @abc.abstractmethod
    def initial(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """The carry at the start of an episode or of a rollout."""

    @abc.abstractmethod
    def step(
        self, carry: Carry, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> tuple[Carry, Prediction]:
        """Predict one step and remember it. Differentiable in carry, obs and action."""

    def __call__(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Prediction:
        """One step with nothing remembered: ``step`` from the initial carry."""
        return self.step(self.initial(obs.shape[:-1]), obs, action)[1]


class MarkovDynamics(Dynamics):
    """A model without memory: implement ``raw``; the carry is ``()``."""

    @abc.abstractmethod
    def raw(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch out"]:
        """The network's ``obs_size + 1`` numbers: the change, then the termination logit."""

    def initial(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """Nothing: the last observation says it all."""
        return ()

    def step(
        self, carry: Carry, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> tuple[Carry, Prediction]:
        """Predict one step; the carry passes through untouched."""
        return carry, split_prediction(self.raw(obs, action))


def split_prediction(raw: Float[Array, "*batch out"]) -> Prediction:
    """Read ``obs_size + 1`` network outputs as a :class:`Prediction`."""
    return Prediction(delta=raw[..., :-1], terminated_logit=raw[..., -1])


def join(
    obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
) -> Float[Array, "*batch in"]:
    """(obs, action) as one vector: the input of every model that does not tell them apart."""
    return jnp.concatenate([obs, action], axis=-1)
