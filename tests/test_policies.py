"""Policies: a contract for both kinds, densities against numerical integration, bounds."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mairl.nets.distributions import SATURATION, tanh_gaussian, tanh_gaussian_log_prob
from mairl.policies import CategoricalPolicy, GaussianPolicy, Policy, make_policy
from mairl.policies.gaussian import LOG_STD_MAX, LOG_STD_MIN

OBS, ACTION, HIDDEN = 3, 2, (16, 16)
KINDS = {"gaussian": False, "categorical": True}


@functools.cache
def build(kind, dropout=0.0):
    key = jax.random.key(0)
    policy = make_policy(OBS, ACTION, KINDS[kind], HIDDEN, dropout=dropout, key=key)
    rng = np.random.default_rng(0)
    stir = lambda x: x + jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32)  # noqa: E731
    return jax.tree.map(stir, policy)


def observations(*batch):
    return jnp.asarray(np.random.default_rng(1).normal(size=(*batch, OBS)), jnp.float32)


def some_actions(kind, *batch):
    rng = np.random.default_rng(2)
    if KINDS[kind]:
        return jnp.asarray(np.eye(ACTION, dtype=np.float32)[rng.integers(0, ACTION, batch)])
    return jnp.asarray(rng.uniform(-0.99, 0.99, (*batch, ACTION)), jnp.float32)


def with_outputs(policy, *outputs):
    """The policy whose network gives ``outputs`` for every observation."""
    last = lambda p: (p.net.layers[-1].weight, p.net.layers[-1].bias)  # noqa: E731
    weight, _ = last(policy)
    return eqx.tree_at(last, policy, (jnp.zeros_like(weight), jnp.float32(outputs)))


def raw_log_std(log_std):
    """The network output that means ``log_std``."""
    return float(np.arctanh(2 * (log_std - LOG_STD_MIN) / (LOG_STD_MAX - LOG_STD_MIN) - 1))


# --- What every policy keeps to ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
class TestContract:
    def test_every_leaf_is_an_array(self, kind):
        leaves = jax.tree.leaves(build(kind))
        assert leaves
        assert all(isinstance(x, jax.Array) and x.dtype == jnp.float32 for x in leaves)

    def test_the_action_space_decides_the_kind(self, kind):
        assert isinstance(build(kind), CategoricalPolicy if KINDS[kind] else GaussianPolicy)
        assert isinstance(build(kind), Policy)

    @pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
    def test_shapes(self, kind, batch):
        policy, obs, action = build(kind), observations(*batch), some_actions(kind, *batch)

        @jax.jit
        def everything(policy, obs, action):
            return (
                policy.sample(obs, jax.random.key(0)),
                policy.reproduce(obs, action, jax.random.key(1)),
                policy.mode(obs),
                policy.log_prob(obs, action),
                policy.cloning_loss(obs, action),
            )

        sampled, reproduced, mode, log_prob, cloning = everything(policy, obs, action)
        for out, entropy in (sampled, reproduced):
            assert out.shape == (*batch, ACTION)
            assert entropy.shape == batch
        assert mode.shape == (*batch, ACTION)
        assert log_prob.shape == batch
        assert cloning.shape == ()

    def test_batches_are_rows_and_vmap_is_the_same(self, kind):
        policy, obs, action = build(kind), observations(4), some_actions(kind, 4)
        np.testing.assert_allclose(policy.mode(obs)[2], policy.mode(obs[2]), atol=1e-6)
        np.testing.assert_allclose(
            policy.log_prob(obs, action)[2], policy.log_prob(obs[2], action[2]), rtol=1e-5
        )
        np.testing.assert_allclose(
            jax.vmap(policy.log_prob)(obs, action), policy.log_prob(obs, action), rtol=1e-5
        )
        # A vmap over policies (seeds) as well.
        both = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), policy)
        modes = jax.vmap(lambda p: p.mode(obs))(both)
        np.testing.assert_allclose(modes[0], policy.mode(obs), atol=1e-6)

    def test_samples_repeat_with_the_key_and_differ_without(self, kind):
        policy, obs = build(kind), observations(32)
        first, again, other = (policy.sample(obs, jax.random.key(k))[0] for k in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert jnp.any(first != other)

    def test_dropout_acts_on_samples_only(self, kind):
        policy, obs = build(kind, dropout=0.5), observations(64)
        plain = build(kind)
        np.testing.assert_array_equal(policy.mode(obs), plain.mode(obs))
        log_prob = policy.log_prob(obs, some_actions(kind, 64))
        np.testing.assert_array_equal(log_prob, plain.log_prob(obs, some_actions(kind, 64)))
        entropies = [p.sample(obs, jax.random.key(0))[1] for p in (policy, plain)]
        assert jnp.any(entropies[0] != entropies[1])


# --- Continuous --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -1.0), (0.7, 0.0), (-1.5, -0.5)])
def test_gaussian_log_prob_is_the_density_of_tanh_of_a_normal(mean, log_std):
    grid = np.linspace(-0.99, 0.99, 2001)
    policy = with_outputs(
        GaussianPolicy(OBS, 1, HIDDEN, key=jax.random.key(0)), mean, raw_log_std(log_std)
    )
    log_prob = policy.log_prob(jnp.zeros((2001, OBS)), jnp.asarray(grid[:, None], jnp.float32))
    # Change of variables: p(a) = N(atanh a) / (1 - a^2).
    normal = stats.norm(mean, np.exp(log_std))
    expected = normal.logpdf(np.arctanh(grid)) - np.log(1 - grid**2)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-3, atol=1e-3)
    # And it integrates to the probability of the interval.
    mass = np.trapezoid(np.exp(np.float64(log_prob)), grid)
    inside = normal.cdf(np.arctanh(0.99)) - normal.cdf(np.arctanh(-0.99))
    np.testing.assert_allclose(mass, inside, atol=2e-3)


def test_gaussian_dimensions_are_independent():
    mean, log_std = jnp.float32([0.3, -0.5]), jnp.float32([-1.0, -0.2])
    action = jnp.float32([0.2, -0.8])
    each = [
        tanh_gaussian_log_prob(mean[i : i + 1], log_std[i : i + 1], action[i : i + 1])
        for i in range(2)
    ]
    together = tanh_gaussian_log_prob(mean, log_std, action)
    np.testing.assert_allclose(together, each[0] + each[1], rtol=1e-5)


def test_gaussian_samples_follow_the_law_and_report_their_own_density():
    mean, log_std = 0.4, -0.7
    policy = with_outputs(
        GaussianPolicy(OBS, 1, HIDDEN, key=jax.random.key(0)), mean, raw_log_std(log_std)
    )
    obs = jnp.zeros((20_000, OBS))
    action, entropy = policy.sample(obs, jax.random.key(1))
    normal = stats.norm(mean, np.exp(log_std))
    inside = np.arctanh(np.float64(action[:, 0]))
    assert stats.kstest(inside, normal.cdf).pvalue > 1e-3
    usual = np.abs(action[:, 0]) < SATURATION
    assert usual.mean() > 0.98
    log_prob = policy.log_prob(obs, action)
    np.testing.assert_allclose(-entropy[usual], log_prob[usual], rtol=1e-3, atol=1e-3)
    # Their mean is the entropy: -int p log p, integrated over x = atanh a, where
    # log p(a) = log N(x) - log(1 - tanh(x)^2) and 1 - tanh^2 = 1 / cosh^2.
    x = np.linspace(mean - 10 * np.exp(log_std), mean + 10 * np.exp(log_std), 20_001)
    log_density = normal.logpdf(x) + 2 * np.log(np.cosh(x))
    expected = -np.trapezoid(np.exp(normal.logpdf(x)) * log_density, x)
    np.testing.assert_allclose(jnp.mean(entropy), expected, atol=0.02)


def test_gaussian_density_of_far_samples_is_finite_and_right():
    # tanh(20) is 1 in float32; log(1 - tanh^2) = 2 (log 2 - 20) to that precision.
    _, log_prob = tanh_gaussian(jnp.float32([20.0]), jnp.float32([0.0]), jnp.float32([0.0]))
    expected = -0.5 * np.log(2 * np.pi) - 2 * (np.log(2) - 20.0)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


def test_gaussian_mode_is_tanh_of_the_mean_and_deviation_stays_in_bounds():
    policy = GaussianPolicy(OBS, 1, HIDDEN, key=jax.random.key(0))
    obs = jnp.zeros(OBS)
    np.testing.assert_allclose(with_outputs(policy, 0.8, 0.0).mode(obs), np.tanh([0.8]), rtol=1e-6)
    for raw, bound in ((-1e3, LOG_STD_MIN), (1e3, LOG_STD_MAX)):
        _, log_std = with_outputs(policy, 0.8, raw)._parameters(obs)
        np.testing.assert_allclose(log_std, [bound], rtol=1e-6)


@pytest.mark.parametrize("log_std", [-4.9, -1.0, 0.9])
def test_actions_on_their_bounds_stay_finite(log_std):
    """Experts' actions often are: density, cloning, reproduction and all their gradients."""
    policy = build("gaussian")
    bias = jnp.float32([3.0, -3.0, raw_log_std(log_std), raw_log_std(log_std)])
    policy = eqx.tree_at(lambda p: p.net.layers[-1].bias, policy, bias)
    obs = observations(4)
    action = jnp.float32([[1, 1], [-1, -1], [1, -1], [-1, 1]])

    def everything(policy, obs, action):
        out, entropy = policy.reproduce(obs, action, jax.random.key(0))
        log_prob, cloning = policy.log_prob(obs, action), policy.cloning_loss(obs, action)
        return jnp.sum(log_prob) + cloning + jnp.sum(out) + jnp.sum(entropy)

    value, gradients = jax.value_and_grad(everything, argnums=(0, 1, 2))(policy, obs, action)
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(gradients))
    # A cloned bound is bounded: at most 2^2 per dimension.
    assert policy.cloning_loss(obs, action) <= 8.0


def test_a_bound_has_the_density_of_the_action_it_is_pulled_in_to():
    policy, obs = build("gaussian"), observations()
    at_bound = policy.log_prob(obs, jnp.ones(2))
    np.testing.assert_allclose(at_bound, policy.log_prob(obs, jnp.full(2, SATURATION)), rtol=1e-6)
    np.testing.assert_allclose(at_bound, policy.log_prob(obs, jnp.full(2, 0.999)), rtol=1e-6)


def test_gaussian_cloning_loss_by_hand():
    policy = with_outputs(build("gaussian"), 0.0, 20.0, 0.0, 0.0)  # mode (0, 1)
    action = jnp.float32([[0.5, 1.0], [-1.0, 0.0]])
    # (0.25 + 0 + 1 + 1) / 2
    np.testing.assert_allclose(policy.cloning_loss(jnp.zeros((2, OBS)), action), 1.125, rtol=1e-6)


# --- Discrete ----------------------------------------------------------------------------------


@functools.cache
def three_choices():
    return with_outputs(CategoricalPolicy(OBS, 3, HIDDEN, key=jax.random.key(0)), 2.0, 1.0, 0.0)


# e^2, e, 1 over their sum 11.1073
CHANCES = np.float64([0.665241, 0.244728, 0.090031])


def test_categorical_by_hand():
    policy, obs = three_choices(), jnp.zeros(OBS)
    log_prob = jax.vmap(lambda a: policy.log_prob(obs, a))(jnp.eye(3))
    np.testing.assert_allclose(log_prob, np.log(CHANCES), rtol=1e-5)
    np.testing.assert_allclose(policy.mode(obs), [1.0, 0.0, 0.0])
    _, entropy = policy.sample(obs, jax.random.key(0))
    np.testing.assert_allclose(entropy, -np.sum(CHANCES * np.log(CHANCES)), rtol=1e-5)
    # Cloning is the mean negative log-likelihood.
    cloning = policy.cloning_loss(jnp.zeros((3, OBS)), jnp.eye(3))
    np.testing.assert_allclose(cloning, -np.mean(np.log(CHANCES)), rtol=1e-5)


def test_categorical_expectation_is_exact_and_so_is_its_slope():
    """Sum of chance * value over the choices; nothing of what the value says between them."""
    policy, obs = three_choices(), jnp.zeros((2, OBS))
    worth = np.float64([1.0, -2.0, 4.0])

    def value(obs, action):  # Nonsense off the corners of the simplex, to any order.
        return action @ jnp.float32(worth) + 50.0 * jnp.prod(1.0 - action, -1) * action[..., 0]

    mean, entropy = policy.expect(obs, value, jax.random.key(0))
    np.testing.assert_allclose(mean, [CHANCES @ worth] * 2, rtol=1e-5)
    np.testing.assert_allclose(entropy, [-np.sum(CHANCES * np.log(CHANCES))] * 2, rtol=1e-5)
    slope = jax.grad(lambda p: jnp.mean(p.expect(obs, value, jax.random.key(0))[0]))(policy)
    # d/d logit_i sum_j p_j v_j = p_i (v_i - sum_j p_j v_j)
    expected = CHANCES * (worth - CHANCES @ worth)
    np.testing.assert_allclose(slope.net.layers[-1].bias, expected, rtol=1e-4)


def test_categorical_samples_follow_the_law_and_are_one_hot():
    action, entropy = three_choices().sample(jnp.zeros((20_000, OBS)), jax.random.key(1))
    action = np.asarray(action)
    np.testing.assert_array_equal(np.sort(action, -1), np.tile([0.0, 0.0, 1.0], (20_000, 1)))
    # Deviations of the shares are below sqrt(0.25 / 20 000) = 0.0035.
    np.testing.assert_allclose(action.mean(0), CHANCES, atol=0.015)
    assert entropy.shape == (20_000,)


@pytest.mark.parametrize("logit", [0.0, 30.0, 200.0])
def test_certain_choices_stay_finite(logit):
    """Also where the recorded choice is one the policy would never make."""
    policy = with_outputs(CategoricalPolicy(OBS, 3, HIDDEN, key=jax.random.key(0)), logit, 0.0, 0.0)

    def everything(policy, obs, action):
        sample, entropy = policy.sample(obs, jax.random.key(0))
        again, entropy_again = policy.reproduce(obs, action, jax.random.key(1))
        return (
            jnp.sum(policy.log_prob(obs, action))
            + jnp.sum((sample + again) * jnp.arange(3.0)[None])
            + jnp.sum(entropy + entropy_again)
        )

    value, gradients = jax.value_and_grad(everything, argnums=(0, 1, 2))(
        policy, observations(3), jnp.eye(3)
    )
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(gradients))
