"""Categorical policy for discrete actions, sampled by straight-through Gumbel-softmax."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.nets.distributions import gumbel_softmax_sample, one_hot_argmax, straight_through
from mairl.nets.mlp import MLP
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
        self.net = MLP(obs_size, hidden, action_size, key=key, out_scale=0.01, dropout=dropout)
        self.temperature = temperature

    def sample(
        self, obs: Float[Array, "*batch obs"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
        """Straight-through one-hot sample and the exact entropy."""
        dropout_key, noise_key = jax.random.split(key)
        logits = self.net(obs, key=dropout_key)
        log_p = jax.nn.log_softmax(logits)
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1)
        return gumbel_softmax_sample(logits, self.temperature, noise_key), entropy

    def mode(self, obs: Float[Array, "*batch obs"]) -> Float[Array, "*batch action"]:
        """The likeliest choice, one-hot."""
        return one_hot_argmax(self.net(obs))

    def log_prob(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch"]:
        """Log-probability of a one-hot action."""
        return jnp.sum(jax.nn.log_softmax(self.net(obs)) * action, -1)

    def reproduce(
        self,
        obs: Float[Array, "*batch obs"],
        action: Float[Array, "*batch action"],
        key: Key[Array, ""],
    ) -> Float[Array, "*batch action"]:
        """The given one-hot action forward, a relaxed sample's derivative backward.

        Gumbel noise is drawn from its posterior given that ``action`` won (Maddison et al.
        2014): the winner's perturbed logit is Gumbel at log-sum-exp, the others truncated below.
        """
        dropout_key, noise_key = jax.random.split(key)
        logits = self.net(obs, key=dropout_key)
        log_p = jax.nn.log_softmax(logits)
        uniform = jax.random.uniform(noise_key, logits.shape, minval=1e-6, maxval=1.0 - 1e-6)
        exponential = -jnp.log(uniform)
        top = -jnp.log(jnp.sum(exponential * action, -1, keepdims=True))
        others = -jnp.log(exponential * jnp.exp(-log_p) + jnp.exp(-top))
        noise = jax.lax.stop_gradient(jnp.where(action > 0.5, top, others) - log_p)
        relaxed = jax.nn.softmax((log_p + noise) / self.temperature)
        return straight_through(action, relaxed)

    def cloning_loss(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, ""]:
        """Negative log-likelihood."""
        return -jnp.mean(self.log_prob(obs, action))
