"""Proximal policy optimization (Schulman et al. 2017): advantages and the clipped surrogate."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mairl.types import Metrics


def advantages(
    rewards: Float[Array, "steps envs"],
    value: Float[Array, "steps envs"],
    next_value: Float[Array, "steps envs"],
    last: Float[Array, "steps envs"],
    gamma: float,
    gae_lambda: float,
) -> Float[Array, "steps envs"]:
    """Generalized advantage estimates (Schulman et al. 2016, eq. 16).

        A_t = delta_t + gamma lambda (1 - last_t) A_{t+1},
        delta_t = r_t + gamma V(s'_t) - V(s_t)

    ``next_value`` is that of the observation each step led to, an episode's end included (of a
    truncation the true last observation, of a termination what an end is worth), so nothing
    leaks from one episode into another and a time limit ends no future.
    """
    delta = rewards + gamma * next_value - value

    def back(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, last = step
        advantage = delta + gamma * gae_lambda * (1.0 - last) * later
        return advantage, advantage

    _, found = jax.lax.scan(back, jnp.zeros(delta.shape[1]), (delta, last), reverse=True)
    return found


def clipped_surrogate(
    log_prob: Float[Array, " batch"],
    old_log_prob: Float[Array, " batch"],
    advantage: Float[Array, " batch"],
    clip: float,
) -> tuple[Float[Array, ""], Metrics]:
    """-E min(w A, clip(w, 1 - c, 1 + c) A), w = pi / pi_old (Schulman et al. 2017, eq. 7)."""
    log_ratio = log_prob - old_log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    loss = -jnp.mean(jnp.minimum(ratio * advantage, clipped * advantage))
    return loss, {
        # E[w - 1 - log w]: positive, and unbiased for KL(old, new).
        "policy/kl": jnp.mean(ratio - 1.0 - log_ratio),
        "policy/clipped": jnp.mean(jnp.abs(ratio - 1.0) > clip),
    }
