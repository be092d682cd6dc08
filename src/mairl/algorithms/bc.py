"""Behavioral cloning: the policy that imitates the demonstrations by regression alone.

Also the measure beside which a learner is shown: what the same transitions give without a single
step in the environment.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from mairl.algorithms.offline import Offline
from mairl.normalizer import Normalizer, fit
from mairl.policies import Policy, make_policy
from mairl.replay import Replay
from mairl.types import EnvSpec, Metrics, Transition


@dataclass(frozen=True)
class BCConfig(Offline):
    """Settings that do well on all shipped tasks, from 50 transitions to 20 000."""

    hidden: tuple[int, ...] = (256, 256)
    iterations: int = 3000
    """Gradient steps."""
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


PRESETS = {"default": BCConfig()}


class Parameters(NamedTuple):
    """What gradient descent changes."""

    policy: Policy


class State(NamedTuple):
    """Everything learned; ``policy_ended`` is the loop's, and unused."""

    params: Parameters
    normalizer: Normalizer
    policy_ended: Float[Array, ""]


def initialize(
    config: BCConfig,
    spec: EnvSpec,
    expert: Transition,
    random: Transition,
    expert_ended: float,
    *,
    key: Key[Array, ""],
) -> State:
    """A fresh policy, and the scales of the demonstrated observations."""
    policy = make_policy(spec.obs_size, spec.action_size, spec.discrete, config.hidden, key=key)
    return State(Parameters(policy), fit(expert.obs), jnp.float32(0.0))


def explore(
    config: BCConfig,
    spec: EnvSpec,
    state: State,
    obs: Float[Array, "n obs"],
    *,
    key: Key[Array, ""],
):
    """Sampled inside actions for observations in the environment's units."""
    return state.params.policy.sample(state.normalizer.normalize(obs), key)[0]


def exploit(state: State, obs: Float[Array, "n obs"]):
    """Deterministic inside actions for observations in the environment's units."""
    return state.params.policy.mode(state.normalizer.normalize(obs))


def update(
    config: BCConfig,
    spec: EnvSpec,
    state: State,
    replay: Replay | None,
    expert: Transition,
    progress: Float[Array, ""],
    *,
    iterations: int,
    key: Key[Array, ""],
) -> tuple[State, Metrics]:
    """``iterations`` steps of Adam with weight decay, at a rate that falls to zero (cosine).

    On ``expert`` alone (raw observations ``[N, obs]``, inside actions). The metrics are those of
    the last tenth of the steps.
    """
    rate = optax.cosine_decay_schedule(config.learning_rate, iterations)
    optimizer = optax.adamw(rate, weight_decay=config.weight_decay)
    obs, action = state.normalizer.normalize(expert.obs), expert.action

    def step(carry: Any, key: Key[Array, ""]) -> tuple[Any, Float[Array, ""]]:
        policy, moments = carry
        rows = jax.random.randint(key, (config.batch_size,), 0, obs.shape[0])
        loss, gradient = jax.value_and_grad(lambda p: p.cloning_loss(obs[rows], action[rows]))(
            policy
        )
        updates, moments = optimizer.update(gradient, moments, policy)
        return (optax.apply_updates(policy, updates), moments), loss

    keys = jax.random.split(key, iterations)
    start: Any = state.params.policy
    (policy, _), losses = jax.lax.scan(step, (start, optimizer.init(start)), keys)
    metrics = {"policy/cloning_loss": jnp.mean(losses[-max(1, iterations // 10) :])}
    return state._replace(params=Parameters(policy)), metrics


def clone(config: BCConfig, spec: EnvSpec, expert: Transition, *, key: Key[Array, ""]) -> State:
    """What ``--algo bc`` learns from ``expert``, without a training loop."""
    init_key, fit_key = jax.random.split(key)
    state = initialize(config, spec, expert, expert, 0.0, key=init_key)
    return _fit(config, spec, state, jax.tree.map(jnp.asarray, expert), fit_key)


@partial(jax.jit, static_argnums=(0, 1))
def _fit(config: BCConfig, spec: EnvSpec, state: State, expert: Transition, key) -> State:
    replay, progress = None, jnp.float32(0.0)
    return update(
        config, spec, state, replay, expert, progress, iterations=config.iterations, key=key
    )[0]
