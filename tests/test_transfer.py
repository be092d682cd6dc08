"""mairl transfer: a frozen reward in another environment, through the command."""

import dataclasses
import functools
import importlib
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mairl
from mairl import cli, envs, evaluate, independent, replay, training
from mairl.algorithms import bc
from mairl.algorithms import mairl as algorithm
from mairl.algorithms.config import MAIRLConfig, RewardConfig
from mairl.algorithms.transfer import PRESETS, Transfer, WarmStart
from mairl.envs.gridworld import GridWorld
from mairl.normalizer import Normalizer
from mairl.transfer import _warnings as warnings_of
from mairl.types import EnvSpec, Transition

SMALL = shlex.split(
    "--steps 240 --warmup-steps 100 --collect-steps 20 --iterations 0.2 --batch-size 16 "
    "--evaluations 2 --eval-episodes 1 --policy.hidden 8 --value.hidden 8 --dynamics.width 8 "
    "--dynamics.depth 1 --dynamics.members 2 --dynamics.batch-size 8"
)
TASK = "mairl/GridWorld-v0"
BOX = EnvSpec("Box-v0", 3, 2, False, (-1.0, -1.0), (1.0, 1.0))
SETTLED = PRESETS["default"].settled(BOX, 1000, expert_ends=False)


@pytest.fixture(autouse=True)
def quick_cloning(monkeypatch):
    small = functools.partial(bc.BCConfig, hidden=(8,), iterations=5, batch_size=8)
    monkeypatch.setattr(evaluate.bc, "BCConfig", small)
    monkeypatch.setattr(evaluate, "FINAL_EPISODES", 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A run whose reward can be transferred."""
    out = tmp_path_factory.mktemp("source") / "run"
    options = shlex.split("--reward.hidden 8 --reward.state-only --reward.shaping --value.tau 0.01")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "FINAL_EPISODES", 2)
        small = functools.partial(bc.BCConfig, hidden=(8,), iterations=5, batch_size=8)
        patch.setattr(evaluate.bc, "BCConfig", small)
        # What it learns does not matter here, and not learning compiles at once.
        patch.setattr(algorithm, "update", no_update)
        assert cli.main(["train", TASK, *SMALL, *options, "--out", str(out)]) == 0
    return out


def no_update(config, spec, state, replay, expert, progress, *, iterations, key):
    return state, {"reward/loss": progress}


def transfer(source: Path, out: Path, *more: str, env: str = TASK) -> int:
    return cli.main(["transfer", str(source), env, *SMALL, "--out", str(out), *more])


def result(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


def refused(capsys, *arguments) -> str:
    assert cli.main(list(map(str, arguments))) == 2
    return capsys.readouterr().err


# The whole way.


def test_transfer(source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "whole"
    assert transfer(source, out) == 0
    found = result(out)
    assert (found["algorithm"], found["env_id"]) == ("transfer", TASK)
    assert found["source"]["run"] == str(source)
    assert found["source"]["state_only"]
    assert found["source"]["warnings"] == []
    # What it is measured against: all of it in the target, on the same episodes.
    own = mairl.load(source).evaluate(2).returns.mean()
    assert found["source_return_mean"] == pytest.approx(own)
    for name in ("bc_return_mean", "random_return", "expert_return"):
        assert found[name] is not None
    assert "source's policy" in (out / "summary.txt").read_text()
    assert (out / "curve.png").stat().st_size > 1000
    # The reward has not moved; its potential is left behind.
    before, after = mairl.load(source), mairl.load(out)
    cells = np.eye(25, dtype=np.float32)
    arguments = cells, np.zeros(25, np.int64), cells[::-1], np.zeros(25)
    g = before.reward(*arguments, component="g")
    assert np.ptp(g) > 0
    np.testing.assert_array_equal(after.reward(*arguments, component="f"), g)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("value/loss" in line for line in lines)
    assert not any("reward/loss" in line or "reward/mean_expert" in line for line in lines)

    # Killed in the middle and gone on with, it ends in the same place.
    again, rounds = tmp_path / "again", training._Training.round

    def one_round(self):
        if self._learner.rounds == 3:
            self.save()
            raise KeyboardInterrupt
        rounds(self)

    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "round", one_round)
        assert transfer(source, again) == 130
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert shlex.split(said) == ["mairl", "transfer", *shlex.split(said)[2:]]
    assert cli.main(shlex.split(said)[1:]) == 0
    for name in ("policy", "reward", "dynamics"):
        files = [run / f"{name}.safetensors" for run in (out, again)]
        assert files[0].read_bytes() == files[1].read_bytes()

    # A transfer learned no reward of its own.
    said = refused(capsys, "transfer", out, TASK, "--out", tmp_path / "third")
    assert "is not that of a run of mairl train" in said
    # Another reward under the same name does not go on with this run.
    other = tmp_path / "other"
    shutil.copytree(source, other)
    first = min(source.glob("snapshots/reward-*.json"))
    for suffix in (".json", ".safetensors"):
        shutil.copy(first.with_suffix(suffix), other / f"reward{suffix}")
    said = refused(capsys, "transfer", other, TASK, *SMALL, "--out", again, "--resume")
    assert "demos.reward_sha256" in said


@pytest.mark.parametrize("name", [TASK, "mairl/PointMazeRight-v0"])
def test_an_independent_learner_is_shown_no_true_reward(name):
    true, shown = envs.make(name), independent.blind(name)
    true.reset(seed=0), shown.reset(seed=0)
    shown.action_space.seed(0)
    worth = 0.0
    for _ in range(30):
        action = shown.action_space.sample()
        worth += abs(float(true.step(action)[1]))
        _, reward, _, _, info = shown.step(action)
        assert reward == 0.0
        assert not any("reward" in key for key in info)
    assert worth > 0.0


@pytest.mark.sb3
def test_sb3(source, tmp_path, monkeypatch, capsys):
    import stable_baselines3 as sb3  # pyright: ignore[reportMissingImports]

    learned = []
    # The second time, in a task whose true reward is another.
    for name, worth in (("one", 0.0), ("other", 7.0)):
        init = GridWorld.__init__

        def other(self, *args, worth=worth, init=init, **kwargs):
            init(self, *args, **kwargs)
            for outcomes in (row for by_action in self.P.values() for row in by_action.values()):
                outcomes[:] = [(p, after, r + worth, ends) for p, after, r, ends in outcomes]

        monkeypatch.setattr(GridWorld, "__init__", other)
        out = tmp_path / name
        few = ["--steps", "240", "--evaluations", "2", "--eval-episodes", "1"]
        asked = ["transfer", str(source), TASK, "--learner", "sb3", *few, "--out", str(out)]
        assert cli.main(asked) == 0
        learned.append(sb3.DQN.load(out / "policy.zip").policy.state_dict())
        monkeypatch.setattr(GridWorld, "__init__", init)
    for key, weight in learned[0].items():
        np.testing.assert_array_equal(weight, learned[1][key])
    found, again = (result(tmp_path / name) for name in ("one", "other"))
    assert again["random_return"] == pytest.approx(found["random_return"] + 7.0 * 50)
    assert [entry["env_steps"] for entry in found["evaluations"]] == [120, 240]
    assert found["config"]["learner"] == "sb3"
    assert found["config"]["algo"]["learner"] == "DQN"
    for name in ("source_return_mean", "bc_return_mean", "random_return", "expert_return"):
        assert found[name] is not None
    assert "Stable-Baselines3's: load" in refused(capsys, "evaluate", tmp_path / "one")
    said = refused(capsys, *asked)
    assert "choose another --out, or empty it" in said


# Bad input.


def test_refused(source, tmp_path, capsys):
    out = tmp_path / "out"
    said = refused(capsys, "transfer", tmp_path / "none", TASK)
    assert "there is no run directory" in said
    said = refused(capsys, "transfer", source, "CartPole-v1", "--out", out)
    assert "observation size: 25" in said
    assert "CartPole-v1 has 4" in said
    said = refused(capsys, "transfer", source, "mairl/GridWurld-v0", "--out", out)
    assert "nearest: 'mairl/GridWorld-v0'" in said
    said = refused(capsys, "transfer", source, TASK, "--steps", "50", "--out", out)
    assert "raise --steps" in said
    said = refused(capsys, "transfer", source, TASK, "--reward.bound", "2", "--out", out)
    assert "--reward.bound" in said
    said = refused(capsys, "transfer", source, TASK, "--policy.cloning", "1", "--out", out)
    assert "--policy.cloning" in said
    assert not out.exists()


def test_refused_by_sb3(source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    asked = "transfer", source, TASK, "--learner", "sb3", "--out", out
    assert "leave out the algorithm's" in refused(capsys, *asked, "--gamma", "0.9")
    assert "leave out --warm-start" in refused(capsys, *asked, "--warm-start")
    assert "leave out --resume" in refused(capsys, *asked, "--resume")
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    assert "pip install 'mairl[sb3]'" in refused(capsys, *asked)
    assert not out.exists()


def test_damaged_reward(source, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    data = bytearray((copy / "reward.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "reward.safetensors").write_bytes(bytes(data))
    said = refused(capsys, "transfer", copy, TASK, "--out", tmp_path / "out")
    assert "reward.safetensors is corrupt" in said


def test_state_action_reward_is_warned_of():
    (warning,) = warnings_of(False, "runs/x")
    assert "runs/x" in warning
    assert "--preset transferable" in warning
    assert warnings_of(True, "runs/x") == []


# The algorithm.


def rows(n: int) -> Transition:
    rng = np.random.default_rng(0)
    obs, action, after = (rng.normal(size=(n, size)).astype(np.float32) for size in (3, 2, 3))
    return Transition(obs, np.tanh(action), after, np.zeros(n, np.float32))


def initialized(config: MAIRLConfig, warm: bool):
    """A source's state, and that of its transfer."""
    keys = jax.random.split(jax.random.key(0))
    scales = Normalizer(jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0]))
    before = algorithm.initialize(config, BOX, rows(8), rows(8), 0.25, key=keys[0])
    parts = before.params, before.target_value, before.delta_scale
    method = Transfer(before.params.reward, scales, WarmStart(*parts) if warm else None)
    return before, method, method.initialize(config, BOX, rows(4), rows(8), 0.25, key=keys[1])


def same(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("warm", [False, True])
def test_what_is_carried_over(warm):
    config = dataclasses.replace(SETTLED, reward=RewardConfig(hidden=(8,)))
    before, _, after = initialized(config, warm)
    assert same(before.params.reward, after.params.reward)
    np.testing.assert_array_equal(after.normalizer.mean, [1.0, 2.0, 3.0])
    assert float(after.expert_ended) == 0.25
    for name in ("policy", "dynamics", "value", "log_temperature"):
        one, other = (getattr(state.params, name) for state in (before, after))
        assert same(one, other) is (warm or name == "log_temperature"), name
    assert same(before.target_value, after.target_value) is warm
    assert same(before.delta_scale, after.delta_scale) is warm


def test_an_update_leaves_the_source_to_be_measured():
    """It takes the buffers of the state that it is given."""
    config = dataclasses.replace(SETTLED, reward=RewardConfig(hidden=(8,)))
    before, _, after = initialized(config, True)
    update = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    update(after)
    for leaf in jax.tree.leaves(before.params):
        np.asarray(leaf)  # It would be deleted.


def test_discount_and_horizon_are_the_runs(source, tmp_path):
    def settings(run: Path) -> tuple[float, int]:
        algo = json.loads((run / "config.json").read_text())["config"]["algo"]
        return algo["gamma"], algo["policy"]["horizon"]

    assert transfer(source, tmp_path / "open") == 0
    assert settings(tmp_path / "open") == settings(source)
    said = ["--gamma", "0.5", "--policy.horizon", "1"]
    assert transfer(source, tmp_path / "said", *said) == 0
    assert settings(tmp_path / "said") == (0.5, 1)


def test_a_warm_start_goes_on_as_the_run_did(source, tmp_path, monkeypatch):
    """By its settings, where nothing else is said, and its policy takes the first steps."""
    module = importlib.import_module("mairl.transfer")  # mairl.transfer is the function
    acting, counts = module._explorer, []

    def counted(*given):
        act = acting(*given)
        return lambda obs, count: counts.append(count) or act(obs, count)

    monkeypatch.setattr(module, "_explorer", counted)
    out = tmp_path / "warm"
    assert transfer(source, out, "--warm-start", "--policy.learning-rate", "2e-4") == 0
    assert counts == list(range(100))
    algo = json.loads((out / "config.json").read_text())["config"]["algo"]
    assert algo["policy"]["learning_rate"] == 2e-4
    assert algo["policy"]["temperature"] == 0.1
    assert algo["policy"]["cloning"] == 0.0
    assert algo["value"]["tau"] == 0.01
    assert algo["patience"] == 0


def test_a_warm_start_needs_no_more_steps_than_the_run_did(source, tmp_path):
    """A fresh transfer takes 4 000 random steps unless told otherwise."""
    module: Any = importlib.import_module("mairl.transfer")
    asked = {"run": str(source), "env_id": TASK, "steps": 240}
    with pytest.raises(mairl.MairlError, match="raise --steps"):
        module.check(module.TransferConfig(**asked, out=str(tmp_path / "fresh")))
    warm = module.TransferConfig(**asked, out=str(tmp_path / "warm"), warm_start=True)
    assert module.check(warm).config.algo.warmup_steps == 100


def test_a_warm_start_needs_critics_and_a_checkpoint(source, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(source, run)
    settings = json.loads((run / "config.json").read_text())
    settings["config"]["algo"]["value"]["steps"] = 0
    (run / "config.json").write_text(json.dumps(settings))
    said = refused(capsys, "transfer", run, TASK, "--warm-start", "--out", tmp_path / "out")
    assert "learned none: leave it out" in said
    shutil.rmtree(run)
    shutil.copytree(source, run, ignore=shutil.ignore_patterns("checkpoints"))
    said = refused(capsys, "transfer", run, TASK, "--warm-start", "--out", tmp_path / "out")
    assert "copy the whole run directory" in said


def test_demonstrations_take_no_part():
    config = dataclasses.replace(SETTLED, reward=RewardConfig(hidden=(8,)), batch_size=16)
    _, method, state = initialized(config, False)
    memory = replay.init(32, 1, 3, 2)
    # Of another size: a step that read them would fail.
    expert = Transition(*(np.zeros((4, 99), np.float32),) * 3, np.zeros(4, np.float32))
    update = functools.partial(method.update, config, BOX, iterations=1, key=jax.random.key(1))
    made, metrics = jax.eval_shape(
        lambda s, m: update(s, m, expert, jnp.float32(0.0)), state, memory
    )
    assert jax.tree.structure(made) == jax.tree.structure(state)
    assert "value/loss" in metrics
    assert not any(name.startswith("reward/loss") for name in metrics)
