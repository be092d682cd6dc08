"""Pathwise gradients: against finite differences, closed forms, and where none may flow."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import stop_gradient
from scipy import stats

from mairl.algorithms.mairl import Learner, Parameters, _optimizers
from mairl.dynamics import Ensemble, make_dynamics
from mairl.dynamics.base import MarkovDynamics
from mairl.losses.policy import temperature_loss
from mairl.losses.returns import returns
from mairl.losses.reward import reward_loss
from mairl.losses.value import temporal_difference, value_loss
from mairl.nets.distributions import (
    SATURATION,
    gumbel_posterior,
    gumbel_softmax_sample,
    one_hot_argmax,
    straight_through,
)
from mairl.policies import CategoricalPolicy, GaussianPolicy, Policy
from mairl.rewards import AIRLReward, BoundedReward
from mairl.rollout import anchored, imagine, objective
from mairl.types import Transition
from mairl.value import ActionValue

OBS, ACTION, HIDDEN, BATCH, HORIZON, GAMMA = 3, 2, (16, 16), 4, 3, 0.9
SCALE = np.float32([0.3, 0.5, 0.2])


@functools.cache
def parts(seed=0):
    """Policy, dynamics (2 members), reward and value, all with weights large enough to matter."""
    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(seed), 4)
        policy = GaussianPolicy(OBS, ACTION, HIDDEN, key=keys[0])
        dynamics = Ensemble(
            lambda key: make_dynamics("mlp", OBS, ACTION, 16, 1, key=key), 2, key=keys[1]
        )
        reward = AIRLReward(
            OBS, ACTION, HIDDEN, gamma=GAMMA, state_only=False, shaping=True, key=keys[2]
        )
        value = ActionValue(OBS, ACTION, HIDDEN, 2, key=keys[3])
        rng = np.random.default_rng(seed)
        # Fresh outputs are nearly constant (small last weights): make these react.
        stir = lambda x: x + jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32)  # noqa: E731
        return jax.tree.map(stir, policy), jax.tree.map(stir, dynamics), reward, value


def random_segment(horizon=HORIZON, batch=BATCH, seed=1):
    """Connected real transitions that no model made, one of them ending."""
    rng = np.random.default_rng(seed)
    path = np.float32(rng.normal(size=(horizon + 1, batch, OBS)))
    action = np.float32(rng.uniform(-0.9, 0.9, (horizon, batch, ACTION)))
    terminated = np.zeros((horizon, batch), np.float32)
    terminated[1, 0] = 1.0
    mask = np.ones((horizon, batch), np.float32)
    mask[2:, 0] = 0.0
    return Transition(path[:-1], action, path[1:], terminated), mask


def direction_like(tree, seed=2):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), tree)


def along(function, point, direction, eps=1e-6):
    """Central difference of ``function`` at ``point`` along ``direction``."""
    ahead, behind = (
        function(jax.tree.map(lambda x, d, e=e: x + e * d, point, direction)) for e in (eps, -eps)
    )
    return (ahead - behind) / (2 * eps)


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def minus_return(*args, **kwargs):
    """The policy's loss."""
    return -jnp.mean(returns(*args, **kwargs)[0])


# --- Finite differences ---------------------------------------------------------------------


def test_imagined_gradient_is_that_of_finite_differences(double):
    """The whole objective: rewards, entropies, chances of an end, terminal value."""
    policy, dynamics, reward, value = double(parts())
    obs, scale = double((np.random.default_rng(0).normal(size=(BATCH, OBS)), SCALE))
    bounded = BoundedReward(5.0, True, double(0.3), double(-0.5))

    def loss(policy, obs):
        return minus_return(
            policy,
            imagine(policy, dynamics, scale, obs, HORIZON, key=jax.random.key(1)),
            value,
            lambda transition: bounded(reward, transition),
            double(0.2),
            0.3,
            lambda transition: bounded.after(reward.f(transition)),
            GAMMA,
            key=jax.random.key(2),
        )

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    _, gradients = both(policy, obs)
    way = direction_like(policy)
    slope = along(lambda p: both(p, obs)[0], policy, way)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(dot(gradients[0], way), slope, rtol=1e-5)
    way = direction_like(obs)
    slope = along(lambda o: both(policy, o)[0], obs, way)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(dot(gradients[1], way), slope, rtol=1e-5)


def test_anchored_gradient_is_that_of_the_rollout_with_frozen_corrections(double):
    """Finite differences of an ordinary rollout that keeps noise and model errors fixed.

    With noise_t and error_t = s'_real - F(s, a) held at their values, s_{t+1} = F(s_t, a_t) +
    error_t passes through the real states and moves with the parameters as the model does.
    """
    policy, dynamics, reward, _ = double(parts())
    (segment, mask), scale = double((random_segment(), SCALE))
    bounded = BoundedReward(5.0, False, double(0.0), double(-0.5))
    model = dynamics.member(0)
    dynamics = Ensemble(lambda key: model, 1, key=jax.random.key(0))
    horizon = HORIZON

    def loss(policy, obs):
        moved = segment._replace(obs=segment.obs.at[0].set(obs))
        return minus_return(
            policy,
            anchored(policy, dynamics, scale, moved, mask, key=jax.random.key(1)),
            None,
            lambda transition: bounded(reward, transition),
            double(0.2),
            0.0,
            lambda transition: bounded.after(reward.f(transition)),
            GAMMA,
            key=jax.random.key(2),
        )

    def corrections(policy):
        mean, log_std = policy._parameters(segment.obs)
        noise = (jnp.arctanh(segment.action) - mean) * jnp.exp(-log_std)
        predicted = segment.obs + model(segment.obs, segment.action).delta * scale[None, None]
        return noise, segment.next_obs - predicted

    noise, error = corrections(policy)

    @jax.jit
    def plain(policy, obs):
        total = jnp.zeros(BATCH)
        for t in range(horizon):
            mean, log_std = policy._parameters(obs)
            pre = mean + jnp.exp(log_std) * noise[t]
            action = jnp.tanh(pre)
            # -log pi = noise^2 / 2 + log std + log sqrt(2 pi) + log(1 - tanh^2)
            entropy = 0.5 * noise[t] ** 2 + log_std + 0.5 * np.log(2 * np.pi)
            entropy = jnp.sum(entropy + jnp.log(1.0 - action**2), -1)
            next_obs = obs + model(obs, action).delta * scale[None] + error[t]
            step = Transition(obs, action, next_obs, segment.terminated[t])
            end = segment.terminated[t] * bounded.after(reward.f(step))
            gain = bounded(reward, step) + 0.2 * entropy + GAMMA * end
            total = total + GAMMA**t * mask[t] * gain
            obs = next_obs
        return -jnp.mean(total)

    start = segment.obs[0]
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(policy, start)
    np.testing.assert_allclose(value, plain(policy, start), rtol=1e-10)
    way = direction_like(policy)
    slope = along(lambda p: plain(p, start), policy, way)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(dot(gradients[0], way), slope, rtol=1e-5)
    way = direction_like(start)
    slope = along(lambda o: plain(policy, o), start, way)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(dot(gradients[1], way), slope, rtol=1e-5)


def test_anchored_rollout_keeps_exactly_to_the_recording():
    policy, dynamics, _, _ = parts()
    segment, mask = jax.tree.map(jnp.asarray, random_segment())
    rollout = jax.jit(anchored)(
        policy, dynamics, jnp.asarray(SCALE), segment, mask, key=jax.random.key(0)
    )
    jax.tree.map(np.testing.assert_array_equal, rollout.transition, segment)
    np.testing.assert_array_equal(rollout.alive, mask)
    np.testing.assert_array_equal(rollout.final_obs, segment.next_obs[-1])
    # The first trajectory terminated, the others go on.
    np.testing.assert_array_equal(rollout.final_alive, [0, 1, 1, 1])


# --- A linear-quadratic problem in closed form -----------------------------------------------


class LinearDynamics(MarkovDynamics):
    """s' = s + scale * ((A - 1) s + B a) / scale, never ending."""

    a: jax.Array
    b: jax.Array
    scale: jax.Array

    def raw(self, obs, action):
        change = obs @ self.a.T - obs + action @ self.b.T
        change = change / jnp.broadcast_to(self.scale, change.shape)
        return jnp.concatenate([change, jnp.full((*obs.shape[:-1], 1), -200.0)], -1)


class LinearPolicy(Policy):
    """a = -K s, without noise."""

    gain: jax.Array

    def mode(self, obs):
        return -obs @ self.gain.T

    def sample(self, obs, key):
        return self.mode(obs), jnp.zeros(obs.shape[:-1])

    def reproduce(self, obs, action, key):
        return straight_through(action, self.mode(obs)), jnp.zeros(obs.shape[:-1])

    def log_prob(self, obs, action):
        return jnp.zeros(obs.shape[:-1])

    def cloning_loss(self, obs, action):
        return jnp.mean((self.mode(obs) - action) ** 2)


def form(matrix, x):
    """x' matrix x."""
    return jnp.einsum("...i,ij,...j->...", x, matrix, x)


class LQ:
    """J = sum_{t<H} -gamma^t (s'Qs + a'Ra) - gamma^H s_H'P s_H, in numpy."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.a = np.eye(OBS) + 0.2 * rng.normal(size=(OBS, OBS))
        self.b = 0.5 * rng.normal(size=(OBS, ACTION))
        self.q, self.r, self.p = np.diag([1.0, 0.5, 2.0]), np.diag([0.3, 0.6]), 1.5 * np.eye(OBS)
        self.gain = 0.3 * rng.normal(size=(ACTION, OBS))
        self.start = rng.normal(size=(BATCH, OBS))

    def gradient(self, path, actions):
        """dJ/dK and dJ/ds_0 by the adjoint recursion along given states ``[H + 1, obs]``.

        With lambda_H = -2 gamma^H P s_H and mu_t = -2 gamma^t R a_t + B' lambda_{t+1}:
            lambda_t = -2 gamma^t Q s_t + A' lambda_{t+1} - K' mu_t,  dJ/dK = -sum_t mu_t s_t'.
        """
        horizon = len(actions)
        adjoint = -2 * GAMMA**horizon * self.p @ path[-1]
        by_gain = np.zeros_like(self.gain)
        for t in reversed(range(horizon)):
            mu = -2 * GAMMA**t * self.r @ actions[t] + self.b.T @ adjoint
            by_gain -= np.outer(mu, path[t])
            adjoint = -2 * GAMMA**t * self.q @ path[t] + self.a.T @ adjoint - self.gain.T @ mu
        return by_gain, adjoint

    def reward(self, transition):
        state = jnp.einsum("...i,ij,...j->...", transition.obs, self.q, transition.obs)
        return -state - jnp.einsum(
            "...i,ij,...j->...", transition.action, self.r, transition.action
        )

    def total(self, rollout):
        rewards, final = self.reward(rollout.transition), -form(self.p, rollout.final_obs)
        return jnp.sum(
            objective(rollout, rewards, jnp.zeros(()), jnp.zeros_like(rewards), final, GAMMA)
        )

    def model(self, scale):
        return Ensemble(
            lambda key: LinearDynamics(jnp.asarray(self.a), jnp.asarray(self.b), scale),
            2,
            key=jax.random.key(0),
        )


def test_imagined_gradient_of_a_linear_quadratic_problem(double):
    lq, horizon, scale = LQ(), 6, double(SCALE)
    path, actions = [lq.start], []
    for _ in range(horizon):
        actions.append(-path[-1] @ lq.gain.T)
        path.append(path[-1] @ lq.a.T + actions[-1] @ lq.b.T)
    path, actions = np.stack(path), np.stack(actions)
    expected = [lq.gradient(path[:, i], actions[:, i]) for i in range(BATCH)]

    def total(gain, start):
        rollout = imagine(
            LinearPolicy(gain), lq.model(scale), scale, start, horizon, key=jax.random.key(0)
        )
        return lq.total(rollout)

    by_gain, by_start = jax.grad(total, (0, 1))(double(lq.gain), double(lq.start))
    np.testing.assert_allclose(by_gain, sum(g for g, _ in expected), rtol=1e-9)
    np.testing.assert_allclose(by_start, np.stack([s for _, s in expected]), rtol=1e-9)


def test_anchored_gradient_of_a_linear_quadratic_problem(double):
    """The recorded system differs from the model: its states, the model's Jacobians."""
    lq, horizon, scale = LQ(), 6, double(SCALE)
    rng = np.random.default_rng(5)
    path = np.cumsum(rng.normal(size=(horizon + 1, BATCH, OBS)), 0)
    actions = rng.normal(size=(horizon, BATCH, ACTION))
    segment = double(Transition(path[:-1], actions, path[1:], np.zeros((horizon, BATCH))))
    expected = [lq.gradient(path[:, i], actions[:, i]) for i in range(BATCH)]

    def total(gain, start):
        moved = segment._replace(obs=segment.obs.at[0].set(start))
        mask = jnp.ones((horizon, BATCH))
        rollout = anchored(
            LinearPolicy(gain), lq.model(scale), scale, moved, mask, key=jax.random.key(0)
        )
        return lq.total(rollout)

    by_gain, by_start = jax.grad(total, (0, 1))(double(lq.gain), double(path[0]))
    np.testing.assert_allclose(by_gain, sum(g for g, _ in expected), rtol=1e-9)
    np.testing.assert_allclose(by_start, np.stack([s for _, s in expected]), rtol=1e-9)


# --- Discrete actions: Gumbel-softmax --------------------------------------------------------

TEMPERATURE = 0.7


def test_straight_through_is_exact_forward():
    # 1 + 1e-9 rounds to 1, and (0.1 - 1e9) + 1e9 to 0: sums of differences would not do.
    value, gradient = jnp.float32([0.1, 1.0, 0.0]), jnp.float32([1e9, 1e-9, 0.3])
    np.testing.assert_array_equal(straight_through(value, gradient), value)
    slope = jax.grad(lambda v, g: jnp.sum(straight_through(v, g) * jnp.arange(3.0)), (0, 1))
    by_value, by_gradient = slope(value, gradient)
    np.testing.assert_array_equal(by_value, [0, 0, 0])
    np.testing.assert_array_equal(by_gradient, [0, 1, 2])


def test_gumbel_sample_is_one_hot_forward_and_relaxed_backward():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(64, 4)), jnp.float32)
    sample = gumbel_softmax_sample(logits, TEMPERATURE, jax.random.key(0))
    noise = jax.random.gumbel(jax.random.key(0), logits.shape)
    np.testing.assert_array_equal(sample, np.eye(4)[np.argmax(logits + noise, -1)])
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(64, 4)), jnp.float32)
    gradient = jax.grad(
        lambda x: jnp.sum(weight * gumbel_softmax_sample(x, TEMPERATURE, jax.random.key(0)))
    )(logits)
    # d softmax(x / T)_i / dx_j = y_i (1[i=j] - y_j) / T
    y = np.asarray(jax.nn.softmax((logits + noise) / TEMPERATURE))
    w = np.asarray(weight)
    expected = y * (w - np.sum(w * y, -1, keepdims=True)) / TEMPERATURE
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected).max() > 0.1


def drawn_actions(log_p, rows, seed=0):
    rng = np.random.default_rng(seed)
    return np.eye(len(log_p), dtype=np.float32)[
        rng.choice(len(log_p), rows, p=np.exp(log_p) / np.exp(log_p).sum())
    ]


def test_posterior_noise_makes_the_recorded_action_win():
    log_p = jax.nn.log_softmax(jnp.float32([2.0, 0.0, -1.0, -6.0]))
    action = jnp.asarray(np.eye(4, dtype=np.float32)[np.arange(20_000) % 4])
    log_p = jnp.broadcast_to(log_p, action.shape)
    noise = gumbel_posterior(log_p, action, jax.random.key(0))
    np.testing.assert_array_equal(one_hot_argmax(log_p + noise), action)


def test_posterior_noise_is_standard_gumbel_over_the_policys_actions():
    """Unconditionally the recorded steps' noise must look like a fresh sample's."""
    rows = 20_000
    log_p = np.asarray(jax.nn.log_softmax(jnp.float32([1.0, 0.0, -1.0])))
    action = jnp.asarray(drawn_actions(log_p, rows))
    batch = jnp.broadcast_to(jnp.asarray(log_p), action.shape)
    noise = gumbel_posterior(batch, action, jax.random.key(1))
    for choice in range(3):
        assert stats.kstest(np.asarray(noise[:, choice]), stats.gumbel_r.cdf).pvalue > 1e-3
    # Independent too: correlations of 20 000 rows deviate by 1 / sqrt(20 000) = 0.007.
    assert np.abs(np.corrcoef(np.asarray(noise).T) - np.eye(3)).max() < 0.035
    # So the relaxed samples follow the Gumbel-softmax law, which noise without regard to the
    # action that was recorded would do as well, but then they would not be that action's.
    relaxed = np.asarray(jax.nn.softmax((batch + noise) / TEMPERATURE))
    fresh = jax.random.gumbel(jax.random.key(2), action.shape)
    fresh = np.asarray(jax.nn.softmax((batch + fresh) / TEMPERATURE))
    for choice in range(3):
        assert stats.ks_2samp(relaxed[:, choice], fresh[:, choice]).pvalue > 1e-3
    assert np.all(relaxed.argmax(-1) == np.asarray(action).argmax(-1))
    assert np.mean(fresh.argmax(-1) == np.asarray(action).argmax(-1)) < 0.7


def test_categorical_reproduces_the_action_with_a_samples_mean_gradient():
    """Recorded actions of the policy give, on average, the gradient that fresh samples give."""
    policy = CategoricalPolicy(OBS, 3, HIDDEN, temperature=TEMPERATURE, key=jax.random.key(0))
    policy = eqx.tree_at(lambda p: p.net.layers[-1].bias, policy, jnp.float32([1.0, 0.0, -1.0]))
    rows = 20_000
    obs = jnp.broadcast_to(jnp.float32([0.5, -1.0, 2.0]), (rows, OBS))
    log_p = np.asarray(jax.nn.log_softmax(policy.net(obs[0])))
    action = jnp.asarray(drawn_actions(log_p, rows))
    weight = jnp.broadcast_to(jnp.float32([1.0, -2.0, 0.5]), (rows, 3))

    def recorded(policy):
        out, _ = policy.reproduce(obs, action, jax.random.key(1))
        return jnp.mean(jnp.sum(weight * out, -1)), out

    def fresh(policy):
        return jnp.mean(jnp.sum(weight * policy.sample(obs, jax.random.key(2))[0], -1))

    gradient, out = jax.jit(jax.grad(recorded, has_aux=True))(policy)
    np.testing.assert_array_equal(out, action)
    by_bias = gradient.net.layers[-1].bias
    expected = jax.jit(jax.grad(fresh))(policy).net.layers[-1].bias
    # Each row's gradient is below 1.5 in size: a mean of 20 000 deviates by about 0.005.
    np.testing.assert_allclose(by_bias, expected, atol=0.03)
    assert np.abs(expected).max() > 0.15


# --- Continuous actions ----------------------------------------------------------------------


def test_gaussian_reproduces_the_action_with_its_own_noises_gradient():
    policy = parts()[0]
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(BATCH, OBS)), jnp.float32)
    action = jnp.asarray([[0.3, -0.9], [1.0, -1.0], [0.0, 0.99], [-0.5, 0.2]], jnp.float32)
    mean, log_std = policy._parameters(obs)
    inside = np.clip(action, -SATURATION, SATURATION)
    noise = (np.arctanh(inside) - mean) * np.exp(-log_std)

    def sampled(policy):
        mean, log_std = policy._parameters(obs)
        return jnp.sum(jnp.tanh(mean + jnp.exp(log_std) * noise) * jnp.arange(2.0)[None])

    def reproduced(policy):
        out, _ = policy.reproduce(obs, action, jax.random.key(0))
        return jnp.sum(out * jnp.arange(2.0)[None]), out

    gradient, out = jax.grad(reproduced, has_aux=True)(policy)
    # Forward the action itself, also where it sits on its bounds and noise could not reach it.
    np.testing.assert_array_equal(out, action)
    expected = jax.grad(sampled)(policy)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), gradient, expected
    )


@pytest.mark.parametrize("discrete", [False, True])
def test_entropy_of_recorded_actions_has_the_entropys_gradient(discrete):
    """-log pi of recorded actions is differentiated through the actions.

    At a fixed action its gradient has mean zero whatever the policy (E grad log pi = 0), and the
    entropy bonus would do nothing. For a squashed Gaussian with mean 0 and small deviation,
    dH/d log std = 1 - E[...] is close to 1; for the categorical it is exact.
    """
    rows = 20_000
    kind = CategoricalPolicy if discrete else GaussianPolicy
    policy = kind(OBS, 2, HIDDEN, key=jax.random.key(0))
    bias = jnp.float32([1.0, 0.0] if discrete else [0.0, 0.0, -0.1, -0.1])
    policy = eqx.tree_at(lambda p: p.net.layers[-1].bias, policy, bias)
    obs = jnp.zeros((rows, OBS))
    action = stop_gradient(policy.sample(obs, jax.random.key(1))[0])

    def entropy(policy, fresh):
        if fresh:
            return jnp.mean(policy.sample(obs, jax.random.key(2))[1])
        return jnp.mean(policy.reproduce(obs, action, jax.random.key(3))[1])

    recorded, expected = (
        jax.grad(lambda p, f=fresh: entropy(p, f))(policy).net.layers[-1].bias
        for fresh in (False, True)
    )
    np.testing.assert_allclose(recorded, expected, atol=0.03)
    assert np.abs(expected).max() > 0.15


# --- Where gradients may flow, and where not --------------------------------------------------


def test_value_loss_moves_nothing_but_the_value():
    _, _, _, value = parts()
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), random_segment()[0])

    def loss(value, rewards, future, end_value):
        error, _ = temporal_difference(value, batch, rewards, future, end_value, gamma=GAMMA)
        return value_loss(error)

    numbers = jnp.ones(BATCH)
    by_value, *others = jax.grad(loss, argnums=range(4))(value, numbers, numbers, numbers)
    assert all(jnp.all(x == 0) for x in jax.tree.leaves(others))
    assert all(jnp.any(x != 0) for x in jax.tree.leaves(by_value))


def test_temperature_loss_moves_the_temperature_towards_its_target():
    # d/d log T of T (entropy - target) = T (entropy - target), none to the entropy.
    slope = jax.grad(lambda log, entropy: temperature_loss(log, entropy, -2.0)[0], argnums=(0, 1))
    by_log, by_entropy = slope(jnp.log(0.5), jnp.float32(-5.0))
    np.testing.assert_allclose(by_log, 0.5 * (-5.0 + 2.0), rtol=1e-6)  # too low: raise it
    assert by_entropy == 0
    assert slope(jnp.log(0.5), jnp.float32(1.0))[0] > 0  # too high: lower it


def test_reward_loss_takes_log_probs_as_given():
    """Its gradient is that of the logits f - log pi in f: sigma(logit) - label, averaged."""
    _, _, reward, _ = parts()
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), random_segment()[0])
    other = jax.tree.map(lambda x: jnp.asarray(x[1]), random_segment()[0])
    log_prob = jnp.float32([-1.0, 0.5, 2.0, -3.0])

    def loss(offset):
        shifted = jax.tree.map(lambda x: x, reward)
        shifted = eqx.tree_at(lambda r: r.reward.layers[-1].bias, shifted, offset)
        ones = jnp.ones(BATCH)
        return reward_loss(
            shifted,
            batch,
            other,
            log_prob,
            log_prob,
            ones,
            gradient_penalty=0.0,
            slope=0.0,
            key=jax.random.key(0),
        )[0]

    sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x)))  # noqa: E731
    expert, negative = (sigmoid(reward.f(b) - log_prob) for b in (batch, other))
    expected = np.mean(expert - 1.0) + np.mean(negative)
    np.testing.assert_allclose(jax.grad(loss)(jnp.zeros(1))[0], expected, rtol=1e-4)


class Gate(MarkovDynamics):
    """A model of which only the share ``keep`` of its derivative passes."""

    model: MarkovDynamics
    keep: jax.Array

    def raw(self, obs, action):
        out = self.model.raw(obs, action)
        return self.keep * out + (1.0 - self.keep) * stop_gradient(out)


@pytest.mark.parametrize("kind", ["imagined", "anchored"])
def test_policy_gradient_passes_through_reward_entropy_value_ends_and_model(kind):
    """The objective is linear in the four things it sums, so its gradient is the sum of theirs.

    None of them is zero, and each is another one when the model's derivative is cut.
    """
    policy, dynamics, reward, value = parts()
    bounded = BoundedReward(5.0, True, jnp.float32(0.0), jnp.float32(0.0))
    segment, mask = jax.tree.map(jnp.asarray, random_segment())
    scale = jnp.asarray(SCALE)

    @jax.jit
    @jax.grad
    def slope(policy, weight, keep):
        gated = Gate(dynamics.members, jnp.broadcast_to(keep, (2,)))
        model = eqx.tree_at(lambda e: e.members, dynamics, gated)
        key = jax.random.key(1)

        def rollout(policy):
            if kind == "imagined":
                return imagine(policy, model, scale, segment.obs[0], HORIZON, key=key)
            return anchored(policy, model, scale, segment, mask, key=key)

        # A critic's last layer is linear: scaling it scales the value.
        last = lambda v: v.members.layers[-1].weight  # noqa: E731
        return minus_return(
            policy,
            rollout(policy),
            eqx.tree_at(last, value, weight["value"] * last(value)),
            lambda transition: weight["reward"] * bounded(reward, transition),
            weight["entropy"],
            0.3,
            lambda transition: weight["end"] * jnp.ones_like(transition.terminated),
            GAMMA,
            key=jax.random.key(2),
        )

    def gradient(keep=1.0, **weight):
        weight = {"reward": 0.0, "entropy": 0.0, "value": 0.0, "end": 0.0, **weight}
        tree = slope(policy, jax.tree.map(jnp.float32, weight), jnp.float32(keep))
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])

    weights = {"reward": 1.0, "entropy": 0.3, "value": 1.0, "end": -2.0}
    if kind == "anchored":
        del weights["end"]  # the recorded ends are what they are
    full = gradient(**weights)
    alone = {name: gradient(**{name: weight}) for name, weight in weights.items()}
    for name, part in alone.items():
        size = np.linalg.norm(part)
        assert size > 1e-3 * np.linalg.norm(full), name
        without_model = gradient(keep=0.0, **{name: weights[name]})
        assert np.linalg.norm(part - without_model) > 1e-2 * size, name
    np.testing.assert_allclose(sum(alone.values()), full, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("size", "counts"), [(0.5, 0.5), (1.0, 1.0), (1000.0, 1.0)])
def test_an_aside_is_cut_to_the_length_of_the_loss(size, counts):
    """At right angles: what counts of it is the smaller of its length and the loss's own."""
    nothing: Any = None
    params = Parameters(nothing, nothing, nothing, nothing, jnp.zeros(2))
    _, metrics = Learner(params, nothing, _optimizers(params)).descend(
        "log_temperature",
        0.1,
        lambda x: (-x[0], {"loss": x[0]}),
        lambda x: (-size * x[1], {"aside": x[1]}),
    )
    assert metrics.keys() == {"loss", "aside", "log_temperature/gradient_norm"}
    np.testing.assert_allclose(
        metrics["log_temperature/gradient_norm"], np.hypot(1.0, counts), rtol=1e-6
    )
