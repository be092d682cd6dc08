"""Behavioral cloning: the policy that imitates the demonstrations by regression alone.

The measure beside which a learner is shown: what the same transitions give without a single
step in the environment.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from mairl.normalizer import Normalizer
from mairl.policies import Policy, make_policy
from mairl.types import EnvSpec, Transition


@dataclass(frozen=True)
class BCConfig:
    """Settings that do well on all shipped tasks, from 50 transitions to 20 000."""

    hidden: tuple[int, ...] = (256, 256)
    steps: int = 3000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


def clone(
    config: BCConfig,
    spec: EnvSpec,
    expert: Transition,
    normalizer: Normalizer,
    *,
    key: Key[Array, ""],
) -> Policy:
    """A policy fitted to ``expert`` (raw observations ``[N, obs]``, inside actions)."""
    init_key, fit_key = jax.random.split(key)
    policy = make_policy(
        spec.obs_size, spec.action_size, spec.discrete, config.hidden, key=init_key
    )
    obs = normalizer.normalize(jnp.asarray(expert.obs))
    return _fit(config, policy, obs, jnp.asarray(expert.action), fit_key)


@partial(jax.jit, static_argnums=0)
def _fit(
    config: BCConfig,
    policy: Policy,
    obs: Float[Array, "n obs"],
    action: Float[Array, "n action"],
    key: Key[Array, ""],
) -> Policy:
    """Adam with weight decay and a rate that falls to zero (cosine), in one program."""
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    optimizer = optax.adamw(rate, weight_decay=config.weight_decay)

    def step(carry, key):
        policy, moments = carry
        rows = jax.random.randint(key, (config.batch_size,), 0, obs.shape[0])
        gradient = jax.grad(lambda p: p.cloning_loss(obs[rows], action[rows]))(policy)
        updates, moments = optimizer.update(gradient, moments, policy)
        return (optax.apply_updates(policy, updates), moments), None

    keys = jax.random.split(key, config.steps)
    (policy, _), _ = jax.lax.scan(step, (policy, optimizer.init(policy)), keys)  # pyright: ignore
    return policy


def exploit(
    policy: Policy, normalizer: Normalizer, obs: Float[Array, "n obs"]
) -> Float[Array, "n action"]:
    """Deterministic inside actions for observations in the environment's units."""
    return policy.mode(normalizer.normalize(obs))
