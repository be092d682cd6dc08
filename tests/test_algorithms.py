"""The compositions beside MAIRL: their parts against numbers by hand, and that each one learns."""

import dataclasses
import functools
import json
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mairl
from mairl import cli, envs, evaluate, learner
from mairl import replay as replays
from mairl.algorithms import ALGORITHMS, bc, find, maxent
from mairl.algorithms.airl import AIRLConfig
from mairl.algorithms.config import MAIRLConfig
from mairl.losses.partition import log_partition, partition_loss
from mairl.losses.ppo import advantages, clipped_surrogate
from mairl.policies import DiagonalGaussianPolicy
from mairl.rundir import command
from mairl.types import EnvSpec, MairlError, Transition

# --- The registry --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALGORITHMS)
def test_settings_tell_the_loop_what_it_asks(name):
    algorithm = find(name)
    for config in algorithm.PRESETS.values():
        assert type(config) is type(algorithm.PRESETS["default"])
        if isinstance(config, MAIRLConfig):
            config = config.settled(SPEC, 1000, expert_ends=False)
            assert type(config) is type(algorithm.PRESETS["default"])
        assert 0 < config.gamma < 1
        assert config.num_envs >= 1
        assert config.iterations > 0
        assert config.replay_size >= (config.num_envs * config.collect_steps or 1)
        if config.on_policy:
            # One update for each rollout.
            assert config.num_envs * config.collect_steps * config.iterations == pytest.approx(1.0)


def test_commands_name_the_algorithm():
    parsed = cli.parse_train(["CartPole-v1", "--algo", "gail", "--policy.clip", "0.1"])
    assert parsed.algorithm == "gail"
    gail = find("gail").PRESETS["default"]
    policy = dataclasses.replace(gail.policy, clip=0.1)
    assert parsed.algo == dataclasses.replace(gail, policy=policy)
    again = command(parsed).split()
    assert again[2:] == ["CartPole-v1", "--algo", "gail", "--policy.clip", "0.1"]
    assert cli.parse_train(again[2:]) == parsed
    assert cli.parse_train(["CartPole-v1"]).algorithm == "mairl"
    assert str(parsed.path) == "runs/CartPole-v1-gail-s0"


def test_help_shows_the_algorithms_own_settings(capsys):
    assert cli.main(["train", "CartPole-v1", "--algo", "gcl", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--policy.clip" in said
    assert "--dynamics.kind" not in said


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--algo", "gial"], ["--algo gial", "did you mean 'gail'"]),
        (["--algo", "gail", "--preset", "paper"], ["--preset paper", "gail"]),
        (["--algo", "airl", "--steps", "1500"], ["--steps is 1500", "rollout of 128", "8 env"]),
        (["--algo", "airl", "--policy.clip", "-1"], ["--policy.clip is -1"]),
        (["--algo", "maxent"], ["CartPole-v1 is no finite task", "Box"]),
    ],
)
def test_mistakes(tmp_path, capsys, monkeypatch, arguments, parts):
    monkeypatch.setattr(learner.Learner, "begin", lambda *_: pytest.fail("compute was spent"))
    assert cli.main(["train", "CartPole-v1", *arguments, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in parts), said
    assert not (tmp_path / "run").exists()


def test_settings_of_another_algorithm(tmp_path):
    config = mairl.TrainConfig("CartPole-v1", algo=AIRLConfig(), out=str(tmp_path / "run"))
    with pytest.raises(MairlError, match="AIRLConfig, but mairl takes MAIRLConfig"):
        mairl.train(config)


# --- PPO -----------------------------------------------------------------------------------------


def test_advantages_by_hand():
    """Two columns; gamma 0.5, lambda 0.5, so that an advantage carries back by a quarter."""
    rewards = jnp.float32([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    value = jnp.float32([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    after = jnp.float32([[2.0, 8.0], [4.0, 4.0], [6.0, 6.0]])
    # The second environment's episode ends with the first step, at an observation worth 8.
    last = jnp.float32([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    found = advantages(rewards, value, after, last, 0.5, 0.5)
    # delta: first 1 + 1 - 1 = 1 (second env 1 + 4 - 1 = 4), then 2 + 2 - 2 = 2, 3 + 3 - 4 = 2.
    expected = [[1 + 2.5 / 4, 4.0], [2 + 2 / 4, 2.5], [2.0, 2.0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_advantages_of_lambda_one_are_returns_minus_values():
    rng = np.random.default_rng(0)
    rewards, value = np.float32(rng.normal(size=(2, 6, 1)))
    after = np.concatenate([value[1:], np.float32([[0.7]])])
    found = advantages(*map(jnp.asarray, (rewards, value, after)), jnp.zeros((6, 1)), 0.9, 1.0)
    returns, future = np.zeros((6, 1)), 0.7
    for t in reversed(range(6)):
        returns[t] = future = rewards[t, 0] + 0.9 * future
    np.testing.assert_allclose(found, returns - value, rtol=1e-4, atol=1e-5)


def test_clipped_surrogate_by_hand():
    old = jnp.zeros(4)
    log_prob = jnp.log(jnp.float32([1.5, 1.5, 0.5, 0.5]))
    advantage = jnp.float32([1.0, -1.0, 1.0, -1.0])
    loss, metrics = clipped_surrogate(log_prob, old, advantage, 0.2)
    # min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8): 1.2 - 1.5 + 0.5 - 0.8
    np.testing.assert_allclose(loss, 0.6 / 4, rtol=1e-5)
    assert metrics["policy/clipped"] == 1.0
    # mean of w - 1 - log w: (0.5 - log 1.5 - 0.5 - log 0.5) / 2
    np.testing.assert_allclose(metrics["policy/kl"], -np.log(0.75) / 2, rtol=1e-5)
    slopes = jax.grad(lambda x: clipped_surrogate(x, old, advantage, 0.2)[0])(log_prob)
    # Gradients stop where the ratio has gone too far in the advantage's direction: rows 0 and 3.
    np.testing.assert_allclose(slopes, [0.0, 1.5 / 4, -0.5 / 4, 0.0], rtol=1e-5, atol=1e-7)


def test_unsquashed_gaussian():
    policy = DiagonalGaussianPolicy(3, 2, (8,), key=jax.random.key(0))
    std = jnp.float32([0.5, 2.0])
    policy = eqx.tree_at(lambda p: p.log_std, policy, jnp.log(std))
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(40_000, 3)), jnp.float32)
    action, entropy = policy.sample(obs, jax.random.key(1))
    mean = policy.net(obs)
    np.testing.assert_allclose(jnp.std(action - mean, axis=0), std, rtol=0.02)
    z = (action - mean) / std.reshape(1, 2)
    density = jnp.exp(-0.5 * z**2) / (std.reshape(1, 2) * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(
        policy.log_prob(obs, action), jnp.sum(jnp.log(density), -1), rtol=1e-3, atol=1e-4
    )
    # E[-log pi], which the entropy is exactly.
    np.testing.assert_allclose(entropy[0], -jnp.mean(policy.log_prob(obs, action)), rtol=0.01)
    assert jnp.max(jnp.abs(action)) > 1.0
    again, _ = policy.reproduce(obs, action, jax.random.key(2))
    np.testing.assert_allclose(again, action, rtol=1e-6)
    shifted = jax.tree.map(lambda x: 5 * x + 3, policy)
    assert jnp.max(jnp.abs(shifted.mode(obs))) == 1.0


# --- Guided cost learning ------------------------------------------------------------------------


def test_partition_of_an_enumerable_case():
    """Four outcomes; samples in exact proportion to q, so that the estimate is the sum itself."""
    energy = jnp.float32([0.3, -1.0, 2.0, 0.0])
    q = jnp.float32([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    drawn = jnp.array([0, 0, 0, 0, 1, 1, 2, 3])
    log_z, share = log_partition(energy[drawn], jnp.log(q)[drawn])
    np.testing.assert_allclose(log_z, np.log(np.sum(np.exp(energy))), rtol=1e-6)
    weights = np.exp(energy[drawn]) / q[drawn]
    np.testing.assert_allclose(share, weights.sum() ** 2 / (8 * (weights**2).sum()), rtol=1e-5)
    # A proposal equal to the model wastes nothing.
    model = jax.nn.log_softmax(energy)
    np.testing.assert_allclose(log_partition(energy[drawn], model[drawn])[1], 1.0, rtol=1e-6)


def test_partition_loss_has_the_likelihoods_gradient():
    energy, expert = jnp.float32([0.3, -1.0, 2.0, 0.0]), jnp.array([2, 2, 3])
    log_q = jnp.log(jnp.float32([1 / 2, 1 / 4, 1 / 8, 1 / 8]))
    drawn = jnp.array([0, 0, 0, 0, 1, 1, 2, 3])

    def loss(energy):
        return partition_loss(energy[expert], energy[drawn], log_q[drawn])[0]

    # Model's probabilities minus the demonstrations'.
    expected = jax.nn.softmax(energy) - jnp.float32([0, 0, 2 / 3, 1 / 3])
    np.testing.assert_allclose(jax.grad(loss)(energy), expected, atol=1e-6)


# --- Maximum entropy -----------------------------------------------------------------------------


def fork():
    """State 0 leads to the absorbing 1 or 2, as one likes."""
    table = np.zeros((3, 2, 3), np.float32)
    table[0, 0, 1] = table[0, 1, 2] = table[1, :, 1] = table[2, :, 2] = 1.0
    return jnp.asarray(table)


def test_soft_values_in_closed_form():
    r, gamma = jnp.float32([0.5, 1.0, 0.4]), 0.5
    v = maxent.soft_value(r, fork(), gamma)
    # Staying for ever: V = r + log 2 + V / 2.
    stay = 2 * (np.array([1.0, 0.4]) + np.log(2))
    np.testing.assert_allclose(v[1:], stay, rtol=1e-6)
    np.testing.assert_allclose(v[0], 0.5 + np.logaddexp(*(0.5 * stay)), rtol=1e-6)
    pi = jnp.exp(maxent.log_policy(v, fork(), gamma))
    np.testing.assert_allclose(pi[0, 0], 1 / (1 + np.exp(-0.6)), rtol=1e-6)
    x = maxent.visitation(jnp.float32([1.0, 0.0, 0.0]), pi, fork(), gamma)
    # Once at the start, then (1/2 + 1/4 + ...) = 1 at where it went.
    np.testing.assert_allclose(x, [1.0, pi[0, 0], pi[0, 1]], rtol=1e-6)


def random_task(seed=0, states=6, actions=3):
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(states, 0.5), (states, actions))
    return jnp.asarray(table, jnp.float32), jnp.asarray(rng.normal(size=states), jnp.float32)


def test_gradient_is_policys_minus_experts_visits():
    table, r = random_task()
    gamma, mu = 0.9, jnp.full(6, 1 / 6)
    pi = jnp.exp(maxent.log_policy(maxent.soft_value(r, table, gamma), table, gamma))
    expert_pi = jnp.full((6, 3), 1 / 3)
    visits = maxent.visitation(mu, expert_pi, table, gamma)[:, None] * expert_pi
    gradient = jax.grad(maxent.negative_log_likelihood)(r, table, visits, gamma)
    expected = maxent.visitation(mu, pi, table, gamma) - jnp.sum(visits, 1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


def test_maxent_recovers_a_maximum_entropy_expert(monkeypatch):
    """The expert is soft-optimal for a reward: its policy and its visits must come back."""
    table, r = random_task(1)
    monkeypatch.setattr(envs, "transition_table", lambda _: np.asarray(table))
    spec, config = EnvSpec("Table", 6, 3, True), maxent.MaxEntConfig(gamma=0.9, weight_decay=0.0)
    log_pi = maxent.log_policy(maxent.soft_value(3 * r, table, 0.9), table, 0.9)
    mu = jnp.full(6, 1 / 6)
    x = maxent.visitation(mu, jnp.exp(log_pi), table, 0.9)
    counts = np.rint(200_000 * np.asarray(x[:, None] * jnp.exp(log_pi) / x.sum())).astype(int)
    s, a = (np.repeat(i.ravel(), counts.ravel()) for i in np.indices((6, 3)))
    obs, action = np.eye(6, dtype=np.float32)[s], np.eye(3, dtype=np.float32)[a]
    expert = Transition(obs, action, obs, np.zeros(len(s), np.float32))
    state = maxent.initialize(config, spec, expert, expert, 0.0, key=jax.random.key(0))
    solve = jax.jit(partial(maxent.update, config, spec, iterations=50))
    state, metrics = solve(state, None, expert, jnp.float32(0.0), key=jax.random.key(1))
    assert metrics["reward/visitation_gap"] < 1e-4
    found = jax.nn.softmax(state.params.policy.net(jnp.eye(6)))
    np.testing.assert_allclose(found, np.exp(log_pi), atol=3e-3)
    again = maxent.visitation(mu, found, table, 0.9)
    np.testing.assert_allclose(again, x, rtol=5e-3)
    # A policy that was not learned is far off.
    assert np.abs(1 / 3 - np.exp(log_pi)).max() > 0.2


def test_transition_table_of_frozen_lake():
    table = envs.transition_table("FrozenLake-v1")
    assert table.shape == (16, 4, 16)
    # Left in the corner: stays (wall), slips up (wall) or down.
    np.testing.assert_allclose(table[0, 0, [0, 4]], [2 / 3, 1 / 3])
    for end in (5, 7, 11, 12, 15):  # four holes and the goal
        np.testing.assert_array_equal(table[end], np.eye(16)[[end] * 4])
    with pytest.raises(MairlError, match="Box"):
        envs.transition_table("CartPole-v1")


# --- Each one learns -----------------------------------------------------------------------------

SPEC = EnvSpec("Probe", 2, 2, False, (-1.0, -1.0), (1.0, 1.0))


def best_action(obs):
    return np.clip(obs @ np.float32([[0.5, -0.2], [0.0, 0.4]]), -0.9, 0.9)


def experience(act, *batch, seed):
    """A world without consequences: observations come and go whatever is done."""
    rng = np.random.default_rng(seed)
    obs, next_obs = np.float32(rng.normal(size=(2, *batch, 2)))
    return Transition(obs, np.float32(act(obs)), next_obs, np.zeros(batch, np.float32))


def small(name):
    """Rollouts of 32 steps in 8 environments, small networks, high rates."""
    config = find(name).PRESETS["default"]
    more = {"num_envs": 8, "collect_steps": 32, "gamma": 0.5}
    sizes = {"hidden": (32,)}
    if name == "mgail":
        more |= {
            "collect_steps": 10,
            "dynamics": dataclasses.replace(config.dynamics, width=16, steps=1),
            "policy": dataclasses.replace(
                config.policy, learning_rate=3e-3, horizon=2, temperature=0.1, **sizes
            ),
        }
    else:
        policy = dataclasses.replace(config.policy, learning_rate=3e-3, minibatches=4, **sizes)
        more |= {"policy": policy}
    reward = dataclasses.replace(config.reward, learning_rate=1e-2, **sizes)
    config = dataclasses.replace(config, reward=reward, **more)
    return (
        config.settled(SPEC, 1000, expert_ends=False) if isinstance(config, MAIRLConfig) else config
    )


@pytest.mark.parametrize(("name", "iterations"), [("airl", 1), ("gcl", 1), ("mgail", 4)])
def test_the_policy_finds_the_experts_action(name, iterations):
    """By the learned reward alone: one of the wrong sign, or a cut gradient, does not get there."""
    algorithm, config = find(name), small(name)
    expert = jax.tree.map(jnp.asarray, experience(best_action, 256, seed=1))
    random = experience(lambda obs: np.random.default_rng(0).uniform(-1, 1, obs.shape), 256, seed=2)
    state = algorithm.initialize(config, SPEC, expert, random, 0.0, key=jax.random.key(0))
    state = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)
    update = jax.jit(partial(algorithm.update, config, SPEC, iterations=iterations))
    explore = jax.jit(partial(algorithm.explore, config, SPEC))
    exploit = jax.jit(algorithm.exploit)
    add = jax.jit(replays.add)
    rows = config.collect_steps
    replay = replays.init(rows if config.on_policy else 1000, 8, 2, 2)
    fresh = np.float32(np.random.default_rng(9).normal(size=(500, 2)))

    def error():
        return float(np.mean(np.sum((exploit(state, fresh) - best_action(fresh)) ** 2, -1)))

    before = error()
    for count in range(70):
        seen = experience(lambda obs: obs, rows, 8, seed=100 + count)
        flat = jnp.asarray(seen.obs.reshape(-1, 2))
        action = explore(state, flat, key=jax.random.key(1000 + count))
        replay = add(replay, seen._replace(action=action.reshape(rows, 8, 2)), jnp.zeros((rows, 8)))
        state, metrics = update(state, replay, expert, jnp.float32(0), key=jax.random.key(count))
    assert all(np.isfinite(value) for value in metrics.values())
    assert error() < 0.35 * before


def train(out, *more, env="CartPole-v1"):
    return cli.main(["train", env, "--eval-episodes", "2", "--out", str(out), *more])


@pytest.fixture(autouse=True)
def quick_baseline(monkeypatch):
    tiny = functools.partial(bc.BCConfig, hidden=(8,), iterations=5, batch_size=8)
    monkeypatch.setattr(evaluate.bc, "BCConfig", tiny)


def result(out):
    return json.loads((out / "result.json").read_text())


def test_bc_learns_without_a_step(tmp_path):
    options = ["--hidden", "32", "--iterations", "600", "--steps", "5"]
    assert train(tmp_path / "run", "--algo", "bc", *options) == 0
    found = result(tmp_path / "run")
    assert (found["algorithm"], found["env_steps"], found["updates"]) == ("bc", 0, 600)
    assert found["return_mean"] > 300 > 3 * found["random_return"]
    model = mairl.load(tmp_path / "run")
    assert model.evaluate().returns.mean() == found["return_mean"]
    assert not (tmp_path / "run" / "reward.json").exists()
    summary = (tmp_path / "run" / "summary.txt").read_text().splitlines()
    (left,) = [line for line in summary if line.startswith("In ")]
    assert "policy.safetensors" in left
    assert "reward" not in left
    with pytest.raises(MairlError, match="policy alone"):
        model.reward(np.zeros(4), np.array(0), np.zeros(4), False)


GAIL = ("--algo", "gail", "--steps", "9000", "--evaluations", "2", "--episodes", "4")


def test_gail_learns_cartpole(tmp_path):
    assert train(tmp_path / "run", *GAIL, "--policy.learning-rate", "1e-3") == 0
    found = result(tmp_path / "run")
    # 1000 random steps and 7 rollouts of 1024, each of which is learned from.
    assert (found["env_steps"], found["updates"]) == (8168, 7)
    assert found["return_mean"] > 4 * found["random_return"]


TINY = (
    *("--algo", "airl", "--steps", "448", "--warmup-steps", "50", "--collect-steps", "20"),
    *("--num-envs", "4", "--policy.hidden", "8", "--reward.hidden", "8", "--value.hidden", "8"),
    *("--reward.batch-size", "16", "--policy.minibatches", "2", "--policy.epochs", "2"),
    *("--evaluations", "3", "--episodes", "1"),
)


class Killed(Exception):
    """Stands for a process that is no more."""


def test_on_policy_killed_and_resumed_equals_whole(tmp_path, monkeypatch, capsys):
    assert train(tmp_path / "whole", *TINY) == 0
    real, count = learner.Learner.collect, [0]

    def deadly(self):
        count[0] += 1
        if count[0] == 4:
            raise Killed
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(learner.Learner, "collect", deadly)
        with pytest.raises(Killed):
            train(tmp_path / "cut", *TINY)
    assert train(tmp_path / "cut", *TINY, "--resume") == 0
    one, other = result(tmp_path / "whole"), result(tmp_path / "cut")
    # 48 random steps, then rollouts of 80.
    assert (one["env_steps"], one["updates"]) == (448, 5)
    # Each policy is evaluated once, and the last one is in a checkpoint.
    assert [e["env_steps"] for e in one["evaluations"]] == [208, 368, 448]
    newest = max((tmp_path / "whole" / "checkpoints").glob("*/checkpoint.json"))
    assert json.loads(newest.read_text())["meta"]["learner"]["updates"] == 5
    assert one["return_mean"] == other["return_mean"]
    for name in ("policy.safetensors", "reward.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    model = mairl.load(tmp_path / "cut")
    assert np.isfinite(model.reward(np.zeros(4), np.array(0), np.ones(4), False))
    other = ["gcl" if word == "airl" else word for word in TINY]
    capsys.readouterr()
    assert train(tmp_path / "cut", *other, "--resume") == 2
    assert 'config.algorithm: saved "airl", now "gcl"' in capsys.readouterr().err


def test_maxent_through_the_command(tmp_path):
    """Deterministic optimal walks along the cliff: learned without a step, artifacts and all."""
    right, down, up = 1, 2, 0
    actions = np.array([up, *[right] * 11, down] * 2)
    walk = np.array([36, *range(24, 36), 47])
    np.savez(
        tmp_path / "walks.npz",
        observations=np.eye(48, dtype=np.float32)[np.tile(walk, 2)],
        actions=actions,
        terminations=np.arange(26) % 13 == 12,
        episode_lengths=np.array([13, 13]),
        episode_returns=np.array([-13.0, -13.0]),
    )
    options = ["--algo", "maxent", "--iterations", "30", "--demos", str(tmp_path / "walks.npz")]
    assert train(tmp_path / "run", *options, env="CliffWalking-v1") == 0
    assert result(tmp_path / "run")["return_mean"] == -13.0
    model = mairl.load(tmp_path / "run")
    goal, cliff_edge = np.eye(48)[47], np.eye(48)[0]
    value = partial(model.reward, action=np.array(0), next_obs=goal, terminated=False)
    assert value(goal) > value(cliff_edge)
