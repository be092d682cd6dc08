"""Unsquashed Gaussian policy for continuous actions, as likelihood-ratio methods use it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.nets.distributions import straight_through
from mairl.nets.mlp import MLP
from mairl.policies.base import Policy

_LOG_2PI = 1.8378770664093453


class DiagonalGaussianPolicy(Policy):
    """a = mean(s) + exp(log_std) * noise, noise ~ N(0, 1); ``log_std`` is the same everywhere.

    Samples may lie outside [-1, 1], where the environment clips them; their density is that of
    the sample, not of what is executed (Schulman et al. 2017 and every implementation since).
    """

    net: MLP
    log_std: Float[Array, "*seeds action"]

    def __init__(
        self, obs_size: int, action_size: int, hidden: Sequence[int], *, key: Key[Array, ""]
    ):
        """A network of tanh layers for the mean, and a deviation of one."""
        self.net = MLP(obs_size, hidden, action_size, key=key, activation=jnp.tanh, out_scale=0.01)
        self.log_std = jnp.zeros(action_size)

    def sample(
        self, obs: Float[Array, "*batch obs"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """A sample, not clipped, and the exact entropy."""
        mean = self.net(obs)
        noise = jax.random.normal(key, mean.shape)
        return mean + self._like(mean, jnp.exp(self.log_std)) * noise, self._entropy(obs)

    def mode(self, obs: Float[Array, "*batch obs"]) -> Float[Array, "*batch action"]:
        """The mean, clipped."""
        return jnp.clip(self.net(obs), -1.0, 1.0)

    def log_prob(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """Log-density of a sample."""
        mean = self.net(obs)
        z = (action - mean) * self._like(mean, jnp.exp(-self.log_std))
        return jnp.sum(-0.5 * (z**2 + _LOG_2PI) - self._like(mean, self.log_std), -1)

    def reproduce(
        self,
        obs: Float[Array, "*batch obs"],
        action: Float[Array, "*batch action"],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """The given action forward, d (mean + std * inferred noise) backward; the entropy."""
        mean = self.net(obs)
        std = self._like(mean, jnp.exp(self.log_std))
        noise = jax.lax.stop_gradient((action - mean) / std)
        return straight_through(action, mean + std * noise), self._entropy(obs)

    def cloning_loss(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, ""]:
        """Squared error of the mean."""
        return jnp.mean(jnp.sum((self.net(obs) - action) ** 2, -1))

    def _entropy(self, obs: Float[Array, "*batch obs"]) -> Float[Array, "*batch"]:
        entropy = jnp.sum(self.log_std + 0.5 * (_LOG_2PI + 1.0))
        return jnp.broadcast_to(entropy, obs.shape[:-1])

    @staticmethod
    def _like(mean: Float[Array, "*batch action"], row: Float[Array, " action"]):
        return jnp.broadcast_to(row, mean.shape)
