"""Estimators of the policy gradient: closed forms, restored environments, the command."""

import functools
import json
import shlex

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from mairl import cli, evaluate
from mairl import estimators as e
from mairl.algorithms import bc
from mairl.dynamics import Ensemble
from mairl.dynamics.base import MarkovDynamics
from mairl.envs import make_spec, sample_random
from mairl.envs.restoring import Simulator
from mairl.moments import compare
from mairl.nets.mlp import MLP
from mairl.normalizer import identity
from mairl.policies import CategoricalPolicy, DiagonalGaussianPolicy, GaussianPolicy
from mairl.types import MairlError, Transition
from mairl.value import ActionValue
from mairl.variance import Effort, Snapshot, measure

# s' = A s + B a; r = -(Q s^2 + R a^2); the value -(P s^2 + W a^2); a = K s + c + deviation * noise.
A, B, Q, R, P, W, GAMMA = 0.9, 0.5, 1.0, 0.4, 2.0, 0.8, 0.9
K, C, DEVIATION, START = -0.4, 0.1, 0.15, 0.5


class Linear(MarkovDynamics):
    gain: jax.Array

    def raw(self, obs, action):
        change = (A - 1.0) * obs + self.gain * action
        return jnp.concatenate([change, jnp.full((*obs.shape[:-1], 1), -200.0)], -1)


class Quadratic(ActionValue):
    def __init__(self):
        self.members = MLP(2, (), 1, key=jax.random.key(0))

    def lower(self, obs, action):
        return -(P * obs[..., 0] ** 2 + W * action[..., 0] ** 2)


class Cost(eqx.Module):
    def __call__(self, transition: Transition):
        return -(Q * transition.obs[..., 0] ** 2 + R * transition.action[..., 0] ** 2)

    def end_value(self, transition: Transition):
        return jnp.zeros(transition.terminated.shape)


def problem(gain: float = B) -> e.Problem:
    return e.Problem(
        reward=Cost(),
        value=Quadratic(),
        dynamics=Ensemble(lambda key: Linear(jnp.float32(gain)), 2, key=jax.random.key(0)),
        delta_scale=jnp.ones(1),
        gamma=GAMMA,
    )


def linear_policy() -> DiagonalGaussianPolicy:
    policy = DiagonalGaussianPolicy(1, 1, (), key=jax.random.key(0))
    values = jnp.float32([C]), jnp.float32([[K]]), jnp.log(jnp.float32([DEVIATION]))
    where = lambda p: (p.net.layers[0].bias, p.net.layers[0].weight, p.log_std)  # noqa: E731
    return eqx.tree_at(where, policy, values)


def by_moments(theta, horizon: int, start: float):
    """J_H by the recursion of the state's mean m and variance v, theta the policy's parameters."""
    gain, offset, log_std = theta
    m, v, total = start, 0.0, 0.0
    for t in range(horizon + 1):
        state = m**2 + v
        action = (gain * m + offset) ** 2 + gain**2 * v + jnp.exp(2 * log_std)
        q, r = (P, W) if t == horizon else (Q, R)
        total = total - GAMMA**t * (q * state + r * action)
        m, v = (A + B * gain) * m + B * offset, (A + B * gain) ** 2 * v
        v = v + B**2 * jnp.exp(2 * log_std)
    return total


SURROGATES = {
    "none": lambda p, s, key: e.likelihood_ratio(p, problem(), s, e.no_baseline, key),
    "leave_one_out": lambda p, s, key: e.likelihood_ratio(p, problem(), s, e.leave_one_out, key),
    "value": lambda p, s, key: e.likelihood_ratio(p, problem(), s, e.value_baseline, key),
    "action_value": lambda p, s, key: e.likelihood_ratio(
        p, problem(), s, e.action_value_baseline, key
    ),
    "same_start": lambda p, s, key: e.likelihood_ratio(p, problem(), s, e.same_start(4), key),
    "imagined": lambda p, s, key: e.imagined_path(
        p, problem(), jnp.full((32, 1), START), len(s.keys), key
    ),
    "anchored": lambda p, s, key: e.anchored_path(p, problem(), s, key),
}


def draws(name: str, horizon: int, batches: int) -> np.ndarray:
    """Gradients ``[batches, 3]`` (gain, offset, log deviation) of 32 trajectories each."""

    def one(key):
        sample_key, estimate_key = jax.random.split(key)
        obs = jnp.full((32, 1), START)
        sample = e.sample_imagined(linear_policy(), problem(), obs, max(horizon, 1), key=sample_key)
        surrogate = functools.partial(SURROGATES[name], s=e.cut(sample, horizon), key=estimate_key)
        gradient = jax.grad(surrogate)(linear_policy())
        layer = gradient.net.layers[0]
        return jnp.stack([layer.weight[0, 0], layer.bias[0], gradient.log_std[0]])

    with jax.debug_key_reuse(False):  # vmap over keys is no reuse, but is taken for one
        return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), batches)))


@pytest.mark.parametrize(
    ("name", "horizon"),
    [
        (name, horizon)
        for name in SURROGATES
        for horizon in (0, 3)
        if (name, horizon) != ("anchored", 0)
    ],
)
def test_estimators_are_unbiased_where_the_model_is_exact(name, horizon):
    exact = jax.grad(lambda theta: by_moments(theta, horizon, START))(
        jnp.array([K, C, np.log(DEVIATION)])
    )
    found = draws(name, horizon, 2000)
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(0) - exact) < 4 * error + 1e-6)
    # Not for want of precision: the gradient is many standard errors away from zero.
    assert np.linalg.norm(exact) > (2 if name == "none" else 20) * np.linalg.norm(error)


def closed_form(kind: str) -> float:
    """Trace of the covariance of one trajectory's estimate at H = 0, by exact quadrature.

    With a = m + d n: the score is (n / d)(s, 1) by (gain, offset) and n^2 - 1 by log d; the
    path's derivative is -2 W a (s, 1) and -2 W a d n.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    m, d = K * START + C, DEVIATION
    action = m + d * nodes
    gain = -(P * START**2 + W * action**2)
    if kind == "imagined":
        by_mean, by_deviation = -2 * W * action, -2 * W * action * d * nodes
    else:
        # The policy's mode, clipped nowhere here, is its mean.
        left = gain + (P * START**2 + W * m**2 if kind == "value" else 0.0)
        by_mean, by_deviation = nodes / d * left, (nodes**2 - 1) * left
    variance = lambda x: weights @ x**2 - (weights @ x) ** 2  # noqa: E731
    return (START**2 + 1) * variance(by_mean) + variance(by_deviation)


@pytest.mark.parametrize("kind", ["none", "value", "imagined"])
def test_variance_is_that_of_the_closed_form(kind):
    rows = draws(kind, 0, 1000)
    found = compare(rows, draws("imagined", 0, 200), 32)
    exact = closed_form(kind)
    assert abs(found["trace"] - exact) < 4 * found["trace_error"]
    assert found["trace_error"] < 0.1 * exact


def test_likelihood_ratio_has_hundreds_of_times_the_variance_of_the_path():
    """What the closed forms say of each other, so that the test above means something."""
    assert closed_form("none") > 200 * closed_form("imagined")
    assert closed_form("value") < closed_form("none") / 50


def test_figures_of_known_gradients():
    """Normal gradients around known means: variance, bias and cosine come out, with their error."""
    rng = np.random.default_rng(0)
    mean, true = np.array([3.0, 0.0, 0.0, 1.0]), np.array([3.0, 4.0, 0.0, 0.0])
    rows = mean + rng.normal(size=(400, 4)) * 2.0
    found = compare(rows, true + rng.normal(size=(300, 4)), 10)
    # |true|^2 = 25, |mean - true|^2 = 17, <mean, true> = 9; a batch's trace is 4 * 4.
    expected = {
        "variance": 10 * 16 / 25,
        "bias_squared": 17 / 25,
        "cosine": 9 / (np.sqrt(10) * 5),
        "norm_squared": 10.0,
    }
    for name, value in expected.items():
        assert abs(found[name] - value) < 4 * found[f"{name}_error"], name
        assert found[f"{name}_error"] < 0.2 * value, name
    low, high = found["bias_interval"]
    assert low < np.sqrt(17) / 5 < high
    assert found["cosine_of_batch"] < found["cosine"]


def test_errors_are_the_jackknifes():
    """As leaving out one batch after the other gives them."""
    rng = np.random.default_rng(2)
    rows, other = rng.normal(size=(9, 4)) + 1.0, rng.normal(size=(8, 4)) + 2.0
    found = compare(rows, other, 3)
    for name in ("trace", "bias_squared", "cosine", "cosine_of_batch"):
        square = 0.0
        for n, left in (
            (9, [compare(np.delete(rows, i, 0), other, 3)[name] for i in range(9)]),
            (8, [compare(rows, np.delete(other, i, 0), 3)[name] for i in range(8)]),
        ):
            square += (n - 1) * np.var(left)
        np.testing.assert_allclose(found[f"{name}_error"], np.sqrt(square), rtol=1e-9)


def test_noise_is_not_taken_for_bias():
    """Two noisy samples of one mean: the plain distance of their means is large, the bias is not.

    Their error is honest: over many repetitions it is the spread of what comes out.
    """
    rng = np.random.default_rng(1)
    true = np.zeros(50)
    true[0] = 1.0
    found, errors = [], []
    for _ in range(60):
        rows, other = (true + rng.normal(size=(20, 50)) for _ in range(2))
        plain = np.sum((rows.mean(0) - other.mean(0)) ** 2)
        assert plain > 2.0
        each = compare(rows, other, 1)
        if each["bias_squared"] is not None and each["bias_squared_error"] is not None:
            found.append(each["bias_squared"] / (each["variance"] / each["trace"]))
            errors.append(each["bias_squared_error"] / (each["variance"] / each["trace"]))
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))
    assert 0.4 < np.median(errors) / np.std(found) < 2.5


# --- The action's score --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GaussianPolicy, CategoricalPolicy, DiagonalGaussianPolicy])
def test_score_is_that_of_the_sampled_action(kind):
    policy = kind(3, 2, (8,), key=jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (5, 3))
    action, log_prob = policy.scored(obs, jax.random.key(2))
    np.testing.assert_allclose(action, policy.sample(obs, jax.random.key(2))[0], rtol=1e-6)
    np.testing.assert_allclose(log_prob, policy.log_prob(obs, action), rtol=1e-3, atol=1e-3)

    def total(policy, function):
        return jnp.sum(function(policy) * jnp.arange(1.0, 6.0))

    by_score = jax.grad(total)(policy, lambda p: p.scored(obs, jax.random.key(2))[1])
    by_density = jax.grad(total)(policy, lambda p: p.log_prob(obs, action))
    for one, other in zip(*map(jax.tree.leaves, (by_score, by_density)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


def test_score_of_saturated_actions_is_exact():
    """Where log_prob pulls the action in, E score = 0 still holds."""
    policy = GaussianPolicy(1, 1, (), key=jax.random.key(0))
    policy = eqx.tree_at(lambda p: p.net.layers[0].bias, policy, jnp.array([3.5, 0.0]))
    obs = jnp.zeros((20000, 1))
    action, _ = policy.scored(obs, jax.random.key(2))
    assert np.mean(np.asarray(action) > 0.995) > 0.5
    bias = lambda g: np.asarray(g.net.layers[0].bias)  # noqa: E731
    score = jax.grad(lambda p: jnp.mean(p.scored(obs, jax.random.key(2))[1]))(policy)
    pulled = jax.grad(lambda p: jnp.mean(p.log_prob(obs, action)))(policy)
    assert np.all(np.abs(bias(score)) < 0.1)
    assert np.any(np.abs(bias(pulled)) > 0.5)


# --- Environments put back -----------------------------------------------------------------


class LinearEnv(gym.Env):
    """The linear system, with a hiding place for its state."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, hidden: bool = False):
        self.hidden, self.place = hidden, {}

    def _put(self, state):
        if self.hidden:
            self.place = {"state": state}
        else:
            self.state = state
        return np.float32([state]), {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._put(float(self.np_random.uniform(-0.5, 0.5)))

    def step(self, action):
        state = self.place["state"] if self.hidden else self.state
        obs, info = self._put(A * state + B * float(action[0]))
        return obs, 0.0, False, False, info


gym.register("LinearForVariance-v0", LinearEnv, max_episode_steps=20)


def snapshot(gain: float = B, hidden: bool = False) -> Snapshot:
    spec = make_spec(f"LinearForVariance-v0?hidden={hidden}")
    policy = linear_policy()
    act = jax.jit(lambda obs, key: policy.scored(obs, key)[0])
    return Snapshot(
        spec,
        policy,
        problem(gain),
        identity(1),
        lambda obs, key: np.asarray(act(obs, key)),
        {"env_id": spec.env_id, "algorithm": "mairl", "preset": "default", "seed": 0}
        | {"env_steps": 0},
    )


SMALL = Effort(horizons=(2,), trajectories=768, reference=768, batch_size=16, starts=8)


def test_measured_against_the_environment_the_exact_model_is_unbiased_a_wrong_one_is_not():
    exact, wrong = (measure(snapshot(gain), SMALL) for gain in (B, 2.0 * B))
    assert exact["reference_dynamics"] == "environment"
    zero, two = (at["estimators"] for at in exact["horizons"])
    assert set(zero) == {*list(two)} - {"imagined", "anchored", "in_the_model"}
    for name, each in {**two, **{f"0 {k}": v for k, v in zero.items()}}.items():
        if name != "value":
            assert abs(each["bias_squared"]) < 4 * each["bias_squared_error"] + 1e-4, name
    # Q two steps early is another objective: that is seen.
    assert two["value"]["bias_interval"][0] > 0.05
    assert two["likelihood_ratio"]["trace"] > 8 * two["imagined"]["trace"]
    assert two["anchored"]["env_steps_per_trajectory"] == 2.0
    assert two["imagined"]["env_steps_per_trajectory"] == 0.0
    two = wrong["horizons"][1]["estimators"]
    for name in ("imagined", "anchored"):
        assert two[name]["bias_interval"][0] > 0.0, name
    each = two["action_value_baseline"]
    assert abs(each["bias_squared"]) < 4 * each["bias_squared_error"]


def test_an_environment_that_cannot_be_put_back_is_measured_in_the_model():
    found = measure(snapshot(2.0 * B, hidden=True), SMALL)
    assert found["reference_dynamics"] == "model"
    two = found["horizons"][1]["estimators"]
    assert "anchored" not in two
    # Of its own dynamics the model's gradient is unbiased, right or wrong.
    assert abs(two["imagined"]["bias_squared"]) < 4 * two["imagined"]["bias_squared_error"] + 1e-4


@pytest.mark.parametrize(
    "env_id", ["Hopper-v5", "Pendulum-v1", "CartPole-v1", "mairl/GridWorld-v0"]
)
def test_environments_go_back_to_where_they_were(env_id):
    spec = make_spec(env_id)

    def act(obs, count):
        return sample_random(np.random.default_rng([7, count]), len(obs), spec)

    with Simulator(spec, 2) as simulator:
        visits = simulator.visit(act, 60, 0)
        assert len(visits) >= 60
        assert simulator.restorable(visits)
        # Other actions from the same state: the first step differs, the start does not.
        start = visits[5].snapshot
        steps, mask = simulator.branch(act, [start, start], 4)
        np.testing.assert_array_equal(steps.obs[0], np.stack([start.obs, start.obs]))
        assert mask[0].all()
        np.testing.assert_array_equal(mask[1:], mask[:-1] * (1.0 - steps.terminated[:-1]))


def test_a_branch_stops_where_the_episode_ends():
    spec = make_spec("CartPole-v1")
    left = lambda obs, _: np.tile(np.float32([1, 0]), (len(obs), 1))  # noqa: E731
    with Simulator(spec, 1) as simulator:
        visits = simulator.visit(left, 8, 0)
        steps, mask = simulator.branch(left, [visits[0].snapshot], 30)
    lived = int(mask.sum())
    assert 5 < lived < 15
    np.testing.assert_array_equal(mask[:, 0], np.arange(30) < lived)
    assert steps.terminated[lived - 1, 0] == 1.0
    assert not steps.obs[lived:].any()


# --- The command ---------------------------------------------------------------------------

TINY = shlex.split(
    "--steps 200 --warmup-steps 100 --collect-steps 50 --iterations 0.1 --batch-size 16 "
    "--evaluations 1 --eval-episodes 1 --episodes 1 --policy.hidden 8 --reward.hidden 8 "
    "--value.hidden 8 --dynamics.width 8 --dynamics.depth 1 --dynamics.members 2 "
    "--dynamics.batch-size 8"
)
LITTLE = shlex.split("--horizons 2 --trajectories 64 --reference 64 --batch-size 8 --starts 2")


def test_command_measures_a_run(tmp_path, capsys, monkeypatch):
    small = functools.partial(bc.BCConfig, hidden=(8,), iterations=5, batch_size=8)
    monkeypatch.setattr(evaluate.bc, "BCConfig", small)
    run = tmp_path / "run"
    assert cli.main(["train", "CartPole-v1", *TINY, "--out", str(run)]) == 0
    capsys.readouterr()
    assert cli.main(["variance", str(run), *LITTLE]) == 0
    found = json.loads((run / "variance" / "step-00000200.json").read_text())
    assert found["reference_dynamics"] == "environment"
    assert [at["horizon"] for at in found["horizons"]] == [0, 2]
    traces = {k: v["trace"] for k, v in found["horizons"][1]["estimators"].items()}
    assert set(traces) >= {"likelihood_ratio", "leave_one_out", "imagined", "anchored", "value"}
    assert all(np.isfinite(trace) and trace > 0 for trace in traces.values())
    text = capsys.readouterr().out
    assert "pathwise, anchored" in text
    assert text.startswith((run / "variance" / "step-00000200.md").read_text())
    assert (run / "variance" / "step-00000200.png").read_bytes().startswith(b"\x89PNG")
    # Twice the same: only the clock may differ.
    assert cli.main(["variance", str(run), *LITTLE]) == 0
    again = json.loads((run / "variance" / "step-00000200.json").read_text())
    assert {k: v["trace"] for k, v in again["horizons"][1]["estimators"].items()} == traces


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        (None, [], "there is no run in"),
        ({"algorithm": "gail", "env_id": "CartPole-v1"}, [], "without a model"),
        ({"env_id": "CartPole-v1"}, [], "not a run of mairl train"),
    ],
)
def test_runs_that_cannot_be_measured(tmp_path, capsys, config, options, said):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    assert cli.main(["variance", str(tmp_path), *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"horizons": (0,)}, "--horizons"),
        ({"batch_size": 20}, "--batch-size"),
        ({"starts": 7}, "--starts"),
        ({"trajectories": 100}, "--trajectories"),
        ({"reference": 100}, "--reference"),
    ],
)
def test_efforts_that_cannot_be(change, said):
    with pytest.raises(MairlError, match=said):
        Effort(**{"batch_size": 16, "starts": 16, **change}).check(members=8)
