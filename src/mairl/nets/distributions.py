"""Reparameterized action distributions: squashed Gaussian and Gumbel-softmax."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

_LOG_2PI = 1.8378770664093453
# Expert actions often sit exactly on their bounds, where a squashed Gaussian has no density.
# They are pulled in to +-tanh(3): the same number everywhere a density is asked for.
SATURATION = 0.995


def tanh_gaussian_sample(
    mean: Float[Array, "*batch action"], log_std: Float[Array, "*batch action"], key: Key[Array, ""]
) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
    """:func:`tanh_gaussian` of fresh noise."""
    return tanh_gaussian(mean, log_std, jax.random.normal(key, mean.shape))


def tanh_gaussian(
    mean: Float[Array, "*batch action"],
    log_std: Float[Array, "*batch action"],
    noise: Float[Array, "*batch action"],
) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch"]]:
    """``tanh(mean + std * noise)`` and its log-density in nats, differentiable (SAC, app. C)."""
    pre = mean + jnp.exp(log_std) * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * _LOG_2PI - _log_tanh_slope(pre)
    return jnp.tanh(pre), jnp.sum(log_prob, -1)


def tanh_gaussian_log_prob(
    mean: Float[Array, "*batch action"],
    log_std: Float[Array, "*batch action"],
    action: Float[Array, "*batch action"],
) -> Float[Array, "*batch"]:
    """Log-density of a given action, pulled in from the bounds to ``SATURATION``."""
    pre = jnp.arctanh(jnp.clip(action, -SATURATION, SATURATION))
    z = (pre - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * z**2 - log_std - 0.5 * _LOG_2PI - _log_tanh_slope(pre), -1)


def _log_tanh_slope(pre: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """``log(1 - tanh(pre)^2)`` without cancellation."""
    return 2.0 * (jnp.log(2.0) - pre - jax.nn.softplus(-2.0 * pre))


def gumbel_softmax_sample(
    logits: Float[Array, "*batch choice"], temperature: float, key: Key[Array, ""]
) -> Float[Array, "*batch choice"]:
    """A one-hot sample forward, the relaxed sample's gradient backward.

    Straight-through Gumbel-softmax (Jang et al. 2017, eq. 2 and section 2.2).
    """
    relaxed = jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape)) / temperature)
    return straight_through(one_hot_argmax(relaxed), relaxed)


def gumbel_posterior(
    log_p: Float[Array, "*batch choice"], action: Float[Array, "*batch choice"], key: Key[Array, ""]
) -> Float[Array, "*batch choice"]:
    """Gumbel noise that makes ``action`` (one-hot) the largest of ``log_p + noise``.

    Drawn from its posterior given that ``action`` won (Maddison et al. 2014): with normalized
    ``log_p`` the winner's sum is Gumbel at log-sum-exp = 0, the others' are truncated below it.
    Over actions drawn from ``exp(log_p)`` the noise is again independent standard Gumbel.
    """
    uniform = jax.random.uniform(key, log_p.shape, minval=1e-6, maxval=1.0 - 1e-6)
    exponential = -jnp.log(uniform)
    top = -jnp.log(jnp.sum(exponential * action, -1, keepdims=True))
    others = -jnp.log(exponential * jnp.exp(-log_p) + jnp.exp(-top))
    return jnp.where(action > 0.5, top, others) - log_p


def straight_through(value: Float[Array, "*n"], gradient: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Exactly ``value`` forward, ``gradient``'s derivative backward."""
    # Not stop_gradient(value - gradient) + gradient, which returns value only up to rounding.
    return jax.lax.stop_gradient(value) + (gradient - jax.lax.stop_gradient(gradient))


def one_hot_argmax(x: Float[Array, "*batch choice"]) -> Float[Array, "*batch choice"]:
    """One-hot of the largest entry of the last axis."""
    return jax.nn.one_hot(jnp.argmax(x, -1), x.shape[-1])
