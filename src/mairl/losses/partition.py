"""Guided cost learning: maximum likelihood whose partition function is sampled."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mairl.types import Metrics


def log_partition(
    energy: Float[Array, " samples"], log_q: Float[Array, " samples"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """log Z = log mean_j exp(energy_j) / q_j, and the effective share of the samples.

    Importance sampling of Z = sum_x exp(energy(x)) with x_j ~ q (Finn et al. 2016, eq. 2). The
    share is (sum w)^2 / (n sum w^2): 1 where all weigh the same, 1/n where one is all there is.
    """
    log_w = energy - log_q
    n = log_w.shape[0]
    log_z = jax.nn.logsumexp(log_w) - jnp.log(n)
    share = jnp.exp(2.0 * jax.nn.logsumexp(log_w) - jax.nn.logsumexp(2.0 * log_w)) / n
    return log_z, share


def partition_loss(
    expert_energy: Float[Array, " batch"],
    energy: Float[Array, " samples"],
    log_q: Float[Array, " samples"],
) -> tuple[Float[Array, ""], Metrics]:
    """-E_expert[energy] + log Z: minus the demonstrations' log-likelihood (eq. 1, cost -energy)."""
    log_z, share = log_partition(energy, log_q)
    expert = jnp.mean(expert_energy)
    return log_z - expert, {
        "reward/loss": log_z - expert,
        "reward/log_partition": log_z,
        "reward/effective_samples": share,
        "reward/expert_mean": expert,
        "reward/policy_mean": jnp.mean(energy),
    }
