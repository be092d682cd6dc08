"""What every policy can do."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key


class Policy(eqx.Module):
    """pi(action | obs) on normalized observations and inside actions."""

    @abc.abstractmethod
    def sample(
        self, obs: Float[Array, "*batch obs"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """A differentiable sample, and an unbiased estimate of the entropy in nats (E[-log pi])."""

    def expect(
        self,
        obs: Float[Array, "*batch obs"],
        function: Callable[[Array, Array], Array],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Estimate E function(obs, action), action ~ pi(obs), and the entropy; differentiable.

        Here by one sample; exact where actions can be counted.
        """
        action, entropy = self.sample(obs, key)
        return function(obs, action), entropy

    @abc.abstractmethod
    def mode(self, obs: Float[Array, "*batch obs"]) -> Float[Array, "*batch action"]:
        """The deterministic action."""

    @abc.abstractmethod
    def log_prob(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """Log-probability (log-density when continuous) of a given action, in nats."""

    def scored(
        self, obs: Float[Array, "*batch obs"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """The action of :meth:`sample` with the same key, and its log-probability.

        No gradient passes through the action: the log-probability's is the score, as
        likelihood-ratio estimators need it.
        """
        action = jax.lax.stop_gradient(self.sample(obs, key)[0])
        return action, self.log_prob(obs, action)

    @abc.abstractmethod
    def reproduce(
        self,
        obs: Float[Array, "*batch obs"],
        action: Float[Array, "*batch action"],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """:meth:`sample`, as if the given action had come out.

        Forward, the action is the given one; backward, it and the entropy estimate carry the
        reparameterized sample's derivatives. The noise that would have produced ``action`` is
        inferred and held fixed, as SVG does (Heess et al. 2015, section 4.1), so real transitions
        can be followed by gradients.
        """

    @abc.abstractmethod
    def cloning_loss(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, ""]:
        """Mean behavioral-cloning loss; finite for actions on their bounds."""
