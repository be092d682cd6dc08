"""Categorical policy for discrete actions, sampled by straight-through Gumbel-softmax."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.nets.distributions import (
    gumbel_posterior,
    gumbel_softmax_sample,
    one_hot_argmax,
    straight_through,
)
from mairl.nets.mlp import MLP, NARROW
from mairl.policies.base import Policy


class CategoricalPolicy(Policy):
    """One-hot actions whose gradient is the Gumbel-softmax relaxation's (Jang et al. 2017)."""

    net: MLP
    temperature: float = eqx.field(static=True)

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        hidden: Sequence[int],
        *,
        dropout: float = 0.0,
        temperature: float = 1.0,
        key: Key[Array, ""],
    ):
        """A network with one logit per choice."""
        self.net = MLP(
            *(obs_size, hidden, action_size),
            key=key,
            scale=NARROW,
            out_scale=0.01,
            dropout=dropout,
        )
        self.temperature = temperature

    def sample(
        self, obs: Float[Array, "*batch obs"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """Straight-through one-hot sample and the exact entropy."""
        dropout_key, noise_key = jax.random.split(key)
        logits = self.net(obs, key=dropout_key)
        action = gumbel_softmax_sample(logits, self.temperature, noise_key)
        return action, _entropy(jax.nn.log_softmax(logits))

    def expect(
        self,
        obs: Float[Array, "*batch obs"],
        function: Callable[[Array, Array], Array],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Sum over the choices, so that no slope of ``function`` between them is used.

        A critic has seen whole choices only; what it says between them is an accident
        (Christodoulou 2019, eq. 10-12).
        """
        log_p = jax.nn.log_softmax(self.net(obs, key=key))
        num = log_p.shape[-1]
        choices = jnp.eye(num).reshape(num, *(1,) * (obs.ndim - 1), num)
        choices = jnp.broadcast_to(choices, (num, *log_p.shape))
        values = function(jnp.broadcast_to(obs, (num, *obs.shape)), choices)
        return jnp.sum(jnp.moveaxis(jnp.exp(log_p), -1, 0) * values, 0), _entropy(log_p)

    def mode(self, obs: Float[Array, "*batch obs"]) -> Float[Array, "*batch action"]:
        """The likeliest choice, one-hot."""
        return one_hot_argmax(self.net(obs))

    def log_prob(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """Log-probability of a one-hot action."""
        return jnp.sum(jax.nn.log_softmax(self.net(obs)) * action, -1)

    def scored(
        self, obs: Float[Array, "*batch obs"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """One-hot sample and its log-probability, dropout that of the sample."""
        dropout_key, noise_key = jax.random.split(key)
        logits = self.net(obs, key=dropout_key)
        action = jax.lax.stop_gradient(gumbel_softmax_sample(logits, self.temperature, noise_key))
        return action, jnp.sum(jax.nn.log_softmax(logits) * action, -1)

    def reproduce(
        self,
        obs: Float[Array, "*batch obs"],
        action: Float[Array, "*batch action"],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """The given one-hot action forward, a relaxed sample's derivative backward; the entropy.

        The Gumbel noise is drawn from its posterior given that ``action`` won.
        """
        dropout_key, noise_key = jax.random.split(key)
        log_p = jax.nn.log_softmax(self.net(obs, key=dropout_key))
        noise = jax.lax.stop_gradient(gumbel_posterior(log_p, action, noise_key))
        relaxed = jax.nn.softmax((log_p + noise) / self.temperature)
        return straight_through(action, relaxed), _entropy(log_p)

    def cloning_loss(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, ""]:
        """Negative log-likelihood."""
        return -jnp.mean(self.log_prob(obs, action))


def _entropy(log_p: Float[Array, "*batch choice"]) -> Float[Array, "*batch"]:
    return -jnp.sum(jnp.exp(log_p) * log_p, -1)
