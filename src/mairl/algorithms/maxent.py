"""Maximum-entropy IRL for finite tasks, exact (Ziebart et al. 2008; causal form: Ziebart 2010).

    Q(s, a) = r(s) + gamma sum_s' P(s'|s, a) V(s'),   V(s) = log sum_a exp Q(s, a)     (backward)
    pi(a|s) = exp(Q(s, a) - V(s))
    x(s) = mu(s) + gamma sum_s', a P(s|s', a) pi(a|s') x(s')                            (forward)

The reward is linear in the one-hot state, and maximizes the likelihood of the demonstrated
actions under pi. Its gradient is what the expert visits minus what pi visits. The
transition table P is the task's own, which the environment must show; its rewards are not looked
at, no step is taken, nothing is sampled. An end is an absorbing state, with a reward like others.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from mairl import envs
from mairl.algorithms.config import split
from mairl.algorithms.offline import Offline
from mairl.normalizer import Normalizer, identity
from mairl.policies import CategoricalPolicy
from mairl.replay import Replay
from mairl.rewards import AIRLReward
from mairl.types import EnvSpec, MairlError, Metrics, Transition

SWEEPS = 100
"""Policy iterations at most; a handful converge, since they are Newton's steps."""


@dataclass(frozen=True)
class MaxEntConfig(Offline):
    """All settings."""

    gamma: float = 0.99  # pyright: ignore[reportIncompatibleVariableOverride]
    """Discount."""
    iterations: int = 200
    """Steps of L-BFGS; where the gradient is zero sooner, nothing changes any more."""
    weight_decay: float = 1e-4
    """Weight of the reward's mean square: an expert without doubts would have an infinite one."""


PRESETS = {"default": MaxEntConfig()}


class Parameters(NamedTuple):
    """The reward, and the policy that it makes: tables, as linear networks of one-hot states."""

    reward: AIRLReward
    policy: CategoricalPolicy


class State(NamedTuple):
    """Everything learned; ``policy_ended`` is the loop's, and unused."""

    params: Parameters
    normalizer: Normalizer
    policy_ended: Float[Array, ""]


def initialize(
    config: MaxEntConfig,
    spec: EnvSpec,
    expert: Transition,
    random: Transition,
    expert_ended: float,
    *,
    key: Key[Array, ""],
) -> State:
    """A reward of zero.

    Raises:
        MairlError: actions are not discrete.
    """
    if not spec.discrete:
        raise MairlError(
            f"--algo maxent is for finite tasks, and {spec.env_id} has continuous actions; choose "
            "another --algo"
        )
    states, actions = spec.obs_size, spec.action_size
    keys = split(key, "reward", "policy")
    reward = AIRLReward(
        states, actions, (), gamma=config.gamma, state_only=True, shaping=False, key=keys["reward"]
    )
    policy = CategoricalPolicy(states, actions, (), key=keys["policy"])
    params = jax.tree.map(jnp.zeros_like, Parameters(reward, policy))
    return State(params, identity(states), jnp.float32(0.0))


def explore(
    config: MaxEntConfig,
    spec: EnvSpec,
    state: State,
    obs: Float[Array, "n obs"],
    *,
    key: Key[Array, ""],
):
    """Sampled inside actions."""
    return state.params.policy.sample(obs, key)[0]


def exploit(state: State, obs: Float[Array, "n obs"]):
    """The likeliest inside actions."""
    return state.params.policy.mode(obs)


def update(
    config: MaxEntConfig,
    spec: EnvSpec,
    state: State,
    replay: Replay | None,
    expert: Transition,
    progress: Float[Array, ""],
    *,
    iterations: int,
    key: Key[Array, ""],
) -> tuple[State, Metrics]:
    """Solve; ``expert`` holds one-hot states and actions ``[N, ...]``. ``key`` is not used.

    Raises:
        MairlError: the task shows no transition table (when the update is built).
    """
    table = jnp.asarray(envs.transition_table(spec.env_id), jnp.float32)
    visits = jnp.einsum("ns,na->sa", expert.obs, expert.action) / expert.obs.shape[0]

    def loss(r: Float[Array, " states"]) -> Float[Array, ""]:
        return negative_log_likelihood(r, table, visits, config.gamma) + (
            config.weight_decay * jnp.mean(r**2)
        )

    optimizer = optax.lbfgs()
    evaluate = optax.value_and_grad_from_state(loss)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        r, moments = carry
        value, gradient = evaluate(r, state=moments)
        change, moments = optimizer.update(
            gradient, moments, r, value=value, grad=gradient, value_fn=loss
        )
        return (optax.apply_updates(r, change), moments), None

    r = state.params.reward.reward.layers[0].weight[:, 0]
    (r, _), _ = jax.lax.scan(step, (r, optimizer.init(r)), length=iterations)
    log_pi = log_policy(soft_value(r, table, config.gamma), table, config.gamma)
    gap = jax.grad(negative_log_likelihood)(r, table, visits, config.gamma)
    params = Parameters(
        reward=eqx.tree_at(lambda n: n.reward.layers[0].weight, state.params.reward, r[:, None]),
        policy=eqx.tree_at(lambda n: n.net.layers[0].weight, state.params.policy, log_pi),
    )
    return state._replace(params=params), {
        "policy/log_likelihood": jnp.sum(visits * log_pi),
        "reward/visitation_gap": jnp.max(jnp.abs(gap)),
        "reward/gradient_norm": optax.tree.norm(jax.grad(loss)(r)),
    }


def negative_log_likelihood(
    r: Float[Array, " states"],
    table: Float[Array, "states actions states"],
    visits: Float[Array, "states actions"],
    gamma: float,
) -> Float[Array, ""]:
    """-sum_sa visits(s, a) log pi(a|s), the dual of matching what the expert visits.

    Its gradient by r is x(s) - visits(s), x being pi's visitation from
    mu(s) = visits(s) - gamma sum_s'a visits(s', a) P(s|s', a): from where, and as often as, the
    demonstrations begin. (They may be any transitions, not only whole episodes.)
    """
    return -jnp.sum(visits * log_policy(soft_value(r, table, gamma), table, gamma))


def log_policy(
    v: Float[Array, " states"], table: Float[Array, "states actions states"], gamma: float
) -> Float[Array, "states actions"]:
    """log pi(a|s) = Q(s, a) - V(s); r(s) is the same for all actions, and so falls out."""
    return jax.nn.log_softmax(gamma * table @ v)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def soft_value(
    r: Float[Array, " states"], table: Float[Array, "states actions states"], gamma: float
) -> Float[Array, " states"]:
    """The fixed point V = log sum_a exp(r + gamma P V), by policy iteration.

    Each sweep solves V = r + entropy(pi) + gamma P_pi V for the policy of the last one, which is
    Newton's method on a convex equation. Its derivative is the forward pass
    (``visitation``), so that differentiating through it takes no iteration.
    """

    def sweep(carry):
        v, _, count = carry
        log_pi = log_policy(v, table, gamma)
        pi = jnp.exp(log_pi)
        entropy = -jnp.sum(pi * log_pi, -1)
        new = jnp.linalg.solve(_eye(table) - gamma * _under(pi, table), r + entropy)
        return new, jnp.max(jnp.abs(new - v) / (1.0 + jnp.abs(new))), count + 1

    def going_on(carry):
        _, change, count = carry
        return (change > 1e-6) & (count < SWEEPS)

    return jax.lax.while_loop(going_on, sweep, (jnp.zeros_like(r), jnp.float32(jnp.inf), 0))[0]


def visitation(
    mu: Float[Array, " states"],
    pi: Float[Array, "states actions"],
    table: Float[Array, "states actions states"],
    gamma: float,
) -> Float[Array, " states"]:
    """x = mu + gamma P_pi^T x: discounted visits of pi that begins at mu (the forward pass)."""
    return jnp.linalg.solve(_eye(table) - gamma * _under(pi, table).T, mu)


def _forward(r, table, gamma):
    v = soft_value(r, table, gamma)
    return v, (v, table)


def _backward(gamma, saved, cotangent):
    v, table = saved
    pi = jnp.exp(log_policy(v, table, gamma))
    return visitation(cotangent, pi, table, gamma), jnp.zeros_like(table)


soft_value.defvjp(_forward, _backward)


def _under(pi: Float[Array, "states actions"], table: Float[Array, "states actions states"]):
    """P_pi(s, s') = sum_a pi(a|s) P(s'|s, a)."""
    return jnp.einsum("sa,sat->st", pi, table)


def _eye(table: Float[Array, "states actions states"]):
    return jnp.eye(table.shape[0])
