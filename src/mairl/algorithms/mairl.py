"""MAIRL: policy and reward from demonstrations, through a learned model. Read this file first.

    for every few environment steps:
        collect them with the policy, add them to the replay
        repeat (one compiled program):
            dynamics   fit F(s, a) to replay and demonstrations
            reward     f = g + gamma h' - h tells demonstrations from: replay, and rollouts of the
                       current policy through F started at demonstrated and replayed states
            value      Q of the bounded reward, temporal difference on replay and demonstrations
            policy     climb sum_t gamma^t [r + entropy] + gamma^H Q along rollouts through F,
                       by the gradient of the rollout itself

Everything here works on normalized observations and inside actions.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from mairl import replay as replays
from mairl.dynamics import Ensemble, make_dynamics
from mairl.losses.dynamics import dynamics_loss
from mairl.losses.reward import reward_loss
from mairl.losses.value import value_loss
from mairl.normalizer import Normalizer
from mairl.policies import Policy, make_policy
from mairl.replay import Replay
from mairl.rewards import AIRLReward, end_logits
from mairl.rollout import anchored, imagine, objective
from mairl.types import EnvSpec, Metrics, Transition
from mairl.value import ActionValue, polyak


@dataclass(frozen=True)
class DynamicsConfig:
    """The learned model F(s, a)."""

    kind: Literal["tokens", "window", "released", "mlp", "gru"] = "mlp"
    width: int = 128
    depth: int = 2
    members: int = 4
    learning_rate: float = 1e-3
    batch_size: int = 128


@dataclass(frozen=True)
class RewardConfig:
    """The learned reward f and the discriminator it makes."""

    hidden: tuple[int, ...] = (128, 128)
    learning_rate: float = 1e-4
    gradient_penalty: float = 1.0
    state_only: bool = False
    shaping: bool = False
    log_prob: bool = False
    bound: float = 5.0
    transform: str = "softplus"
    imagined: float = 0.5
    imagined_horizon: int = 1
    dropout: float = 0.0


@dataclass(frozen=True)
class PolicyConfig:
    """The policy and how it climbs."""

    hidden: tuple[int, ...] = (128, 128)
    learning_rate: float = 1e-4
    horizon: int = 0
    target_entropy: float = -2.0
    temperature: float = 0.1
    temperature_rate: float = 3e-4
    dropout: float = 0.0


@dataclass(frozen=True)
class ValueConfig:
    """The critics."""

    hidden: tuple[int, ...] = (128, 128)
    learning_rate: float = 3e-4
    members: int = 2
    tau: float = 0.005
    steps: int = 2


@dataclass(frozen=True)
class MAIRLConfig:
    """All of the algorithm's settings."""

    gamma: float = 0.99
    batch_size: int = 128
    iterations: int = 2
    decay: float = 0.5
    final_rate: float = 0.1
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    value: ValueConfig = field(default_factory=ValueConfig)


class Parameters(NamedTuple):
    """What gradient descent changes."""

    dynamics: Ensemble
    reward: AIRLReward
    value: ActionValue
    policy: Policy
    log_temperature: Float[Array, ""]


class State(NamedTuple):
    """Everything learned."""

    params: Parameters
    target_value: ActionValue
    optimizers: Parameters
    normalizer: Normalizer
    delta_scale: Float[Array, " obs"]
    expert_ended: Float[Array, ""]
    policy_ended: Float[Array, ""]


def optimizer():
    """Adam with clipped gradients; the rate is applied outside, so that it may change."""
    return optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())


def init(config: MAIRLConfig, spec: EnvSpec, normalizer, delta_scale, expert_ended, *, key) -> State:
    k = dict(zip(("dynamics", "reward", "value", "policy"), jax.random.split(key, 4), strict=True))
    o, a = spec.obs_size, spec.action_size
    c = config
    params = Parameters(
        dynamics=Ensemble(
            lambda key: make_dynamics(
                c.dynamics.kind, o, a, c.dynamics.width, c.dynamics.depth, key=key
            ),
            c.dynamics.members,
            key=k["dynamics"],
        ),
        reward=AIRLReward(
            o, a, c.reward.hidden, gamma=c.gamma, state_only=c.reward.state_only,
            shaping=c.reward.shaping, dropout=c.reward.dropout, key=k["reward"],
        ),
        value=ActionValue(o, a, c.value.hidden, c.value.members, key=k["value"]),
        policy=make_policy(
            o, a, spec.discrete, c.policy.hidden, dropout=c.policy.dropout, key=k["policy"]
        ),
        log_temperature=jnp.log(jnp.float32(c.policy.temperature)),
    )
    return State(
        params=params,
        target_value=jax.tree.map(jnp.copy, params.value),
        optimizers=Parameters(*(optimizer().init(p) for p in params)),
        normalizer=normalizer,
        delta_scale=delta_scale,
        expert_ended=jnp.float32(expert_ended),
        policy_ended=jnp.float32(0.0),
    )


def policy_reward(config, reward, transition, live_logit):
    """The reward the policy sees."""
    f = reward.f(transition) + live_logit
    return transform(config, f)


def transform(config, f):
    b = config.reward.bound
    if config.reward.transform == "softplus":
        return jax.nn.softplus(b * jnp.tanh(f / b))
    return b * jnp.tanh(f / b)


def update(config: MAIRLConfig, spec_discrete, state: State, replay: Replay, expert: Transition, iterations: int, progress, *, key):
    """``iterations`` rounds of all steps, in one program. Returns (state, metrics)."""
    decay = jnp.clip((1.0 - progress) / config.decay, config.final_rate, 1.0) if config.decay else 1.0
    act_size = expert.action.shape[-1]
    target_entropy = (
        0.2 * jnp.log(act_size) if spec_discrete else config.policy.target_entropy * act_size
    )
    ended_logit, live_logit = end_logits(state.expert_ended, state.policy_ended, config.reward.bound)
    end_value = transform(config, ended_logit) / (1.0 - config.gamma)
    half = config.batch_size // 2
    N = expert.terminated.shape[0]

    def normalize(t):
        return t._replace(
            obs=state.normalizer.normalize(t.obs), next_obs=state.normalizer.normalize(t.next_obs)
        )

    def sample_expert(key, n):
        i = jax.random.randint(key, (n,), 0, N)
        return normalize(jax.tree.map(lambda x: x[i], expert))

    def sample_replay(key, n):
        return normalize(replays.sample(replay, key, n))

    def apply(name, params, optimizers, rate, loss, *args):
        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(getattr(params, name), *args)
        updates, new_opt = optimizer().update(grads, getattr(optimizers, name))
        new = jax.tree.map(lambda p, u: p - rate * u, getattr(params, name), updates)
        metrics = {**metrics, f"{name}/gradient_norm": optax.global_norm(grads)}
        return params._replace(**{name: new}), optimizers._replace(**{name: new_opt}), metrics

    def iteration(carry, key):
        params, target_value, opts = carry
        k = jax.random.split(key, 16)
        metrics = {}
        # dynamics
        if config.policy.horizon or config.reward.imagined:
            m, b = config.dynamics.members, config.dynamics.batch_size
            db = jax.tree.map(
                lambda x, y: jnp.concatenate([x, y]),
                sample_replay(k[0], m * b * 3 // 4), sample_expert(k[1], m * b // 4),
            )
            # interleave so each member gets its share of both
            perm = jax.random.permutation(k[2], m * b)
            db = jax.tree.map(lambda x: x[perm].reshape(m, b, *x.shape[1:]), db)

            def dyn_loss(ensemble, batch):
                loss, mt = jax.vmap(lambda mem, ba: dynamics_loss(mem, state.delta_scale, ba))(
                    ensemble.members, batch
                )
                return jnp.sum(loss), jax.tree.map(jnp.mean, mt)

            params, opts, mt = apply("dynamics", params, opts, config.dynamics.learning_rate, dyn_loss, db)
            metrics |= mt
        # reward
        eb, rb = sample_expert(k[3], half), sample_replay(k[4], half)
        neg, w = rb, jnp.ones(half)
        if config.reward.imagined:
            starts = jnp.concatenate([sample_expert(k[5], half // 2).obs, sample_replay(k[6], half // 2).obs])
            starts = starts.reshape(2, -1, starts.shape[-1]).swapaxes(0, 1).reshape(half, -1)
            ro = imagine(params.policy, params.dynamics, state.delta_scale, starts, config.reward.imagined_horizon, key=k[7])
            im = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), ro.transition)
            share = config.reward.imagined
            w = jnp.concatenate([(1 - share) * jnp.ones(half), share * ro.alive.reshape(-1) / config.reward.imagined_horizon])
            neg = jax.lax.stop_gradient(jax.tree.map(lambda x, y: jnp.concatenate([x, y]), rb, im))
        if config.reward.log_prob:
            lp_e = jnp.clip(params.policy.log_prob(eb.obs, eb.action), -10, 10)
            lp_n = jnp.clip(params.policy.log_prob(neg.obs, neg.action), -10, 10)
        else:
            lp_e, lp_n = jnp.zeros(half), jnp.zeros(neg.terminated.shape[0])
        params, opts, mt = apply(
            "reward", params, opts, config.reward.learning_rate * decay,
            lambda r: reward_loss(r, eb, neg, jax.lax.stop_gradient(lp_e), jax.lax.stop_gradient(lp_n), w,
                                  gradient_penalty=config.reward.gradient_penalty, key=k[8]),
        )
        metrics |= mt
        alpha = jnp.exp(params.log_temperature)

        # value
        for j in range(config.value.steps):
            kk = jax.random.split(k[9 + j], 3)
            vb = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), sample_expert(kk[0], half), sample_replay(kk[1], half))
            r = policy_reward(config, params.reward, vb, live_logit)
            params, opts, mt = apply(
                "value", params, opts, config.value.learning_rate,
                lambda v: value_loss(v, target_value, params.policy, vb, r, alpha, end_value, gamma=config.gamma, key=kk[2]),
            )
            target_value = polyak(target_value, params.value, config.value.tau)
        metrics |= mt
        metrics["reward/mean"] = jnp.mean(r[half:])
        metrics["reward/mean_expert"] = jnp.mean(r[:half])

        # policy
        starts = vb.obs.reshape(2, half, -1).swapaxes(0, 1).reshape(2 * half, -1)

        def policy_loss(policy):
            kr, ka = jax.random.split(k[14])
            if config.policy.horizon:
                ro = imagine(policy, params.dynamics, state.delta_scale, starts, config.policy.horizon, key=kr)
                action, entropy = policy.sample(ro.final_obs, ka)
                q = jnp.mean(params.value(ro.final_obs, action), 0) + alpha * entropy
                rew = policy_reward(config, params.reward, ro.transition, live_logit)
                ret = objective(ro, rew, alpha, end_value, q, config.gamma)
                entropy = ro.entropy[0]
            else:
                action, entropy = policy.sample(starts, ka)
                q = jnp.mean(params.value(starts, action), 0)
                ret = q + alpha * entropy
            return -jnp.mean(ret), {"policy/objective": jnp.mean(ret), "policy/entropy": jnp.mean(entropy)}

        params, opts, mt = apply("policy", params, opts, config.policy.learning_rate * decay, policy_loss)
        metrics |= mt
        ent = mt["policy/entropy"]
        params, opts, mt = apply(
            "log_temperature", params, opts, config.policy.temperature_rate,
            lambda lt: (jnp.exp(lt) * jax.lax.stop_gradient(ent - target_entropy), {"policy/temperature": alpha}),
        )
        metrics["policy/temperature"] = alpha
        return (params, target_value, opts), metrics

    (params, target_value, opts), metrics = jax.lax.scan(
        iteration, (state.params, state.target_value, state.optimizers), jax.random.split(key, iterations)
    )
    metrics = jax.tree.map(jnp.mean, metrics)
    metrics["reward/ended_logit"] = ended_logit
    return state._replace(params=params, target_value=target_value, optimizers=opts), metrics
