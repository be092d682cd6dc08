"""Squashed Gaussian policy for continuous actions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.nets.distributions import (
    SATURATION,
    straight_through,
    tanh_gaussian,
    tanh_gaussian_log_prob,
    tanh_gaussian_sample,
)
from mairl.nets.mlp import MLP, NARROW
from mairl.policies.base import Policy

LOG_STD_MIN, LOG_STD_MAX = -5.0, 1.0


class GaussianPolicy(Policy):
    """a = tanh(mean(s) + std(s) * noise), noise ~ N(0, 1) (Haarnoja et al. 2018)."""

    net: MLP

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        hidden: Sequence[int],
        *,
        dropout: float = 0.0,
        key: Key[Array, ""],
    ):
        """A network with ``2 * action_size`` outputs."""
        self.net = MLP(
            *(obs_size, hidden, 2 * action_size),
            key=key,
            scale=NARROW,
            out_scale=0.01,
            dropout=dropout,
        )

    def _parameters(self, obs, key=None):
        mean, raw = jnp.split(self.net(obs, key=key), 2, -1)
        # A smooth bound: a hard clip would leave no gradient once std is out of range.
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (jnp.tanh(raw) + 1.0)
        return mean, log_std

    def sample(
        self, obs: Float[Array, "*batch obs"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """Squashed sample and -log pi of it."""
        dropout_key, noise_key = jax.random.split(key)
        action, log_prob = tanh_gaussian_sample(*self._parameters(obs, dropout_key), noise_key)
        return action, -log_prob

    def mode(self, obs: Float[Array, "*batch obs"]) -> Float[Array, "*batch action"]:
        """tanh of the mean."""
        return jnp.tanh(self._parameters(obs)[0])

    def log_prob(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """Log-density; actions on the bounds are pulled in to ``SATURATION``."""
        return tanh_gaussian_log_prob(*self._parameters(obs), action)

    def scored(
        self, obs: Float[Array, "*batch obs"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """Squashed sample, and its log-density with the sample before squashing held fixed.

        Exact at any action, unlike :meth:`log_prob`, which cannot tell saturated ones apart.
        """
        dropout_key, noise_key = jax.random.split(key)
        mean, log_std = self._parameters(obs, dropout_key)
        drawn = mean + jnp.exp(log_std) * jax.random.normal(noise_key, mean.shape)
        noise = (jax.lax.stop_gradient(drawn) - mean) * jnp.exp(-log_std)
        action, log_prob = tanh_gaussian(mean, log_std, noise)
        return jax.lax.stop_gradient(action), log_prob

    def reproduce(
        self,
        obs: Float[Array, "*batch obs"],
        action: Float[Array, "*batch action"],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """The given action forward, d tanh(mean + std * inferred noise) backward; -log pi."""
        mean, log_std = self._parameters(obs, key)
        pre = jnp.arctanh(jnp.clip(action, -SATURATION, SATURATION))
        noise = jax.lax.stop_gradient((pre - mean) * jnp.exp(-log_std))
        again, log_prob = tanh_gaussian(mean, log_std, noise)
        return straight_through(action, again), -log_prob

    def cloning_loss(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, ""]:
        """Squared error of the deterministic action: bounded at saturated actions."""
        return jnp.mean(jnp.sum((self.mode(obs) - action) ** 2, -1))
