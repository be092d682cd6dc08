"""Whole runs through the command: results, resuming, stopping, every bad input."""

import dataclasses
import functools
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces
from rich.console import Console

import mairl
from mairl import cli, evaluate, learner, metrics, training
from mairl.algorithms import ALGORITHMS, bc
from mairl.algorithms import mairl as algorithm
from mairl.algorithms.config import MAIRLConfig
from mairl.demos.data import shipped_file
from mairl.job import TrainConfig, check_settings
from mairl.report.alarms import alarms
from mairl.report.progress import Progress
from mairl.report.summary import summarize
from mairl.rewards.airl import NEVER
from mairl.rundir import command
from mairl.types import EnvSpec, MairlError

TINY = shlex.split(
    "--steps 360 --warmup-steps 100 --collect-steps 20 --iterations 0.2 --batch-size 16 "
    "--evaluations 4 --eval-episodes 1 --episodes 1 "
    "--policy.hidden 8 --reward.hidden 8 --value.hidden 8 --dynamics.width 8 --dynamics.depth 1 "
    "--dynamics.members 2 --dynamics.batch-size 8"
)


@pytest.fixture(autouse=True)
def quick_cloning(monkeypatch):
    small = functools.partial(bc.BCConfig, hidden=(8,), iterations=5, batch_size=8)
    monkeypatch.setattr(evaluate.bc, "BCConfig", small)


def no_update(config, spec, state, replay, expert, progress, *, iterations, key):
    """In place of the algorithm's, where what it learns does not matter: compiles at once."""
    return state, {"reward/loss": progress}


def train(out: Path, *more: str, env: str = "CartPole-v1") -> int:
    return cli.main(["train", env, *TINY, "--out", str(out), *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        small = functools.partial(bc.BCConfig, hidden=(8,), iterations=5, batch_size=8)
        patch.setattr(evaluate.bc, "BCConfig", small)
        assert train(out) == 0
    return out


def result(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


def learned(out: Path) -> dict:
    """All that must not depend on interruptions."""
    newest = max((out / "checkpoints").iterdir())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("wall_seconds")
        line.pop("time/fps", None)
    found = result(out)
    return {
        "arrays": (newest / "arrays.safetensors").read_bytes(),
        "policy": (out / "policy.safetensors").read_bytes(),
        "reward": (out / "reward.safetensors").read_bytes(),
        "metrics": lines,
        "evaluations": [
            {k: v for k, v in e.items() if k != "wall_seconds"} for e in found["evaluations"]
        ],
        **{k: found[k] for k in ("return_mean", "bc_return_mean", "random_return", "updates")},
    }


def assert_same(out: Path, whole: Path) -> None:
    one, other = learned(out), learned(whole)
    for name in one:
        assert one[name] == other[name], f"{name} differs"


# What a run leaves behind.


def test_result(finished):
    found = result(finished)
    assert found["env_id"] == "CartPole-v1"
    assert (found["algorithm"], found["preset"], found["seed"]) == ("mairl", "default", 0)
    assert found["demos"] == {
        "source": "CartPole-v1",
        "episodes": 1,
        "every": 1,
        "transitions": 500,
    }
    # 13 rounds of 20 steps after 100 random ones, 0.2 iterations a step.
    assert (found["env_steps"], found["updates"]) == (360, 52)
    assert found["expert_return"] == 500.0
    low, high = found["random_return"], found["expert_return"]
    assert found["normalized_return"] == pytest.approx((found["return_mean"] - low) / (high - low))
    assert found["bc_normalized_return"] == pytest.approx(
        (found["bc_return_mean"] - low) / (high - low)
    )
    assert [entry["env_steps"] for entry in found["evaluations"]] == [180, 280, 360]
    assert found["evaluations"][-1]["return_mean"] == found["return_mean"]
    assert found["evaluations"][-1]["episodes"] == 20
    assert sum(found["time_shares"].values()) == pytest.approx(1.0)
    assert found["peak_memory_bytes"] > 1e6
    assert 0 < found["first_update_seconds"] <= found["wall_seconds"]
    assert found["versions"]["jax"] == jax.__version__
    assert found["config"]["algo"]["policy"]["hidden"] == [8]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps the starter's")
def test_peak_memory_is_not_that_of_who_started_the_process():
    ask = "from mairl.rundir import peak_memory_bytes as p; print(p())"
    code = (
        "import subprocess, sys; held = b'1' * 1_000_000_000; "
        f"sys.exit(subprocess.run([sys.executable, '-c', {ask!r}]).returncode)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert 1e6 < int(told) < 1e9


def test_files(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        *("config.json", "result.json", "metrics.jsonl", "tensorboard", "checkpoints"),
        *("policy.safetensors", "policy.json", "reward.safetensors", "reward.json"),
        *("dynamics.safetensors", "dynamics.json"),
        *("curve.png", "summary.txt", "snapshots"),
    }
    # The reward as it was at each evaluation, the last as it is.
    snapshots = sorted(path.name for path in (finished / "snapshots").glob("*.safetensors"))
    assert snapshots == [f"reward-{step:08d}.safetensors" for step in (180, 280, 360)]
    last = finished / "snapshots" / snapshots[-1]
    assert last.read_bytes() == (finished / "reward.safetensors").read_bytes()
    assert (finished / "curve.png").read_bytes().startswith(b"\x89PNG")
    summary = (finished / "summary.txt").read_text()
    assert "500 transitions of 1 episode" in summary
    assert f"mairl evaluate {finished}" in summary


def test_metrics(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    steps = [line["env_steps"] for line in lines]
    assert steps == sorted(steps)
    names = {name for line in lines for name in line}
    assert {"eval/mean_reward", "time/fps", "rollout/ep_len_mean", "reward/accuracy_expert"} < names
    # The true reward is for evaluation: nothing of training episodes' return is known.
    assert not any(name.startswith("rollout/ep_rew") for name in names)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("eval/mean_reward")] == [180, 280, 360]


def test_command_in_config_repeats_the_run():
    words = "CartPole-v1 --steps 5000 --gamma 0.9 --policy.hidden 8 4 --reward.softplus 0"
    config = cli.parse_train([*words.split(), "--reward.shaping", "--out", "a b"])
    algo = config.algo
    assert (algo.gamma, algo.policy.hidden, config.out) == (0.9, (8, 4), "a b")
    assert (algo.reward.softplus, algo.reward.shaping) == (0.0, True)
    assert algo.dynamics == algorithm.MAIRLConfig().dynamics
    again = shlex.split(command(config))
    assert again[:3] == ["mairl", "train", "CartPole-v1"]
    assert cli.parse_train(again[2:]) == config
    paper = cli.parse_train(["Pendulum-v1", "--preset", "paper", "--seed", "3", "--gamma", "0.9"])
    assert paper.algo == dataclasses.replace(algorithm.PRESETS["paper"], gamma=0.9)
    assert cli.parse_train(shlex.split(command(paper))[2:]) == paper


@pytest.mark.parametrize("name", ALGORITHMS)
def test_command_repeats_every_setting(name):
    def changed(settings):
        values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
        for field, value in values.items():
            if dataclasses.is_dataclass(value):
                values[field] = changed(value)
            elif isinstance(value, bool):
                values[field] = not value
            elif isinstance(value, int | float):
                values[field] = value + type(value)(1)
            elif isinstance(value, tuple):
                values[field] = (*value, 5)
        return dataclasses.replace(settings, **values)

    default = TrainConfig("CartPole-v1", algorithm=name)
    config = dataclasses.replace(default, algo=changed(default.algo))
    assert cli.parse_train(shlex.split(command(config))[2:]) == config


def test_whole_numbers_are_checked_like_others():
    """As Python writes them: gamma=1 is no less wrong than gamma=1.0."""

    def given(part, field, value):  # past the type checker that tests run under
        algo = MAIRLConfig()
        object.__setattr__(getattr(algo, part) if part else algo, field, value)
        return TrainConfig("X", algo=algo)

    check_settings(given("policy", "target_entropy", -3))
    wrong = [("", "gamma", 1), ("", "iterations", 0), ("", "decay", 2), ("policy", "dropout", 1)]
    for part, field, value in wrong:
        with pytest.raises(MairlError, match=f"{field} is {value}; give a"):
            check_settings(given(part, field, value))


def test_preset_decides_the_defaults():
    parsed = cli.parse_train(["CartPole-v1", "--preset=paper", "--gamma", "0.5"])
    assert parsed.algo == dataclasses.replace(algorithm.PRESETS["paper"], gamma=0.5)


@pytest.mark.parametrize(
    ("obs", "actions", "horizon"),
    [(3, 3, 3), (128, 4, 5), (3, None, 0), (129, 4, 0), (129, None, 0)],
)
def test_what_is_left_open_is_settled_by_the_task(obs, actions, horizon):
    """By how many numbers are observed and acted (None: discrete)."""
    box = ((-1.0,) * actions, (1.0,) * actions) if actions else ()
    spec = EnvSpec("Probe", obs, actions or 2, actions is None, *box)
    config = algorithm.MAIRLConfig().settled(spec, 1000, expert_ends=False)
    assert config.policy.horizon == horizon
    assert config.batch_size == (64 if actions else 128)
    found = config.demonstrated, config.iterations, config.reward.gradient_penalty
    assert found == ((0.1, 1.0, 5.0) if obs > 128 else (0.5, 2.0, 0.5))
    asked = dataclasses.replace(
        config,
        gamma=0.5,
        demonstrated=0.0,
        iterations=0.25,
        reward=algorithm.PRESETS["paper"].reward,
        policy=algorithm.PRESETS["paper"].policy,
    )
    assert asked.settled(spec, 1000, expert_ends=True) == asked


@pytest.mark.parametrize(
    ("obs", "transitions", "expert_ends", "gamma"),
    [(11, 1000, False, 0.99), (11, 50, False, 0.97), (348, 1000, False, 0.97), (6, 3, True, 0.99)],
)
def test_the_discount_looks_far_where_much_is_demonstrated(obs, transitions, expert_ends, gamma):
    """Hopper's whole episode, its every 20th transition, Humanoid's episode, Acrobot's ends."""
    spec = EnvSpec("Probe", obs, 1, False, (-1.0,), (1.0,))
    assert algorithm.MAIRLConfig().settled(spec, transitions, expert_ends).gamma == gamma


def test_config_says_what_was_settled(finished):
    """CartPole's actions are discrete."""
    document = json.loads((finished / "config.json").read_text())
    settings = document["config"]["algo"]
    assert (settings["gamma"], settings["policy"]["horizon"]) == (0.99, 0)
    assert "--gamma" not in document["command"]
    assert "--policy.horizon" not in document["command"]


# What is handed on.


def test_model_acts_as_the_run_did(finished, capsys):
    model = mairl.load(finished)
    found = model.evaluate()
    assert found.returns.mean() == result(finished)["return_mean"]
    capsys.readouterr()
    assert cli.main(["evaluate", str(finished), "--episodes", "3"]) == 0
    said = capsys.readouterr().out
    assert f"return {found.returns[:3].mean():.1f}" in said
    assert "normalized" in said


def test_predict(finished):
    model = mairl.load(finished)
    batch = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    actions, state = model.predict(batch, state="kept")
    assert state == "kept"
    assert actions.shape == (5,)
    assert set(actions.tolist()) <= {0, 1}
    assert [int(model.predict(obs)[0]) for obs in batch] == actions.tolist()
    assert model.predict(batch[:1])[0].shape == (1,)
    drawn = {int(model.predict(batch[0], deterministic=False)[0]) for _ in range(50)}
    assert drawn == {0, 1}
    with pytest.raises(mairl.MairlError, match=r"shape \(3,\).*4 numbers"):
        model.predict(np.zeros(3))
    with pytest.raises(mairl.MairlError, match="NaN"):
        model.predict(np.full(4, np.nan))


def test_predict_and_reward_of_continuous_actions(tmp_path):
    config = cli.parse_train(["Pendulum-v1", *TINY, "--out", str(tmp_path / "run")])
    kept = {}
    with pytest.MonkeyPatch.context() as patch:
        finish = training._Training.finish

        def spy(self):
            kept["state"] = self._learner.state
            return finish(self)

        patch.setattr(training._Training, "finish", spy)
        patch.setattr(algorithm, "update", no_update)
        run = mairl.train(config)
    state, model = kept["state"], run.model
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 7, 3)).astype(np.float32)
    actions, _ = model.predict(obs)
    assert actions.shape == (7, 1)
    assert np.abs(actions).max() <= 2.0
    inside_actions = algorithm.exploit(state, jax.numpy.asarray(obs))
    np.testing.assert_allclose(actions, 2.0 * inside_actions, rtol=1e-5, atol=1e-6)
    # The reward is that of the networks in memory, in the environment's units.
    ends = np.array([0, 1, 0, 1, 0, 0, 1], np.float32)
    inside = mairl.Transition(
        state.normalizer.normalize(jax.numpy.asarray(obs)),
        jax.numpy.asarray(actions / 2.0),
        state.normalizer.normalize(jax.numpy.asarray(next_obs)),
        jax.numpy.asarray(ends),
    )
    np.testing.assert_allclose(
        model.reward(obs, actions, next_obs, ends), state.params.reward.f(inside), rtol=1e-4
    )
    np.testing.assert_allclose(
        model.reward(obs, actions, next_obs, ends, component="g"),
        state.params.reward.g(inside.obs, inside.action),
        rtol=1e-4,
    )
    single = model.reward(obs[1], actions[1], next_obs[1], True)
    assert single == pytest.approx(float(model.reward(obs, actions, next_obs, ends)[1]), rel=1e-4)
    with pytest.raises(mairl.MairlError, match="7, 7, 7 and 1 rows"):
        model.reward(obs, actions, next_obs, False)


def test_reward_says_where_it_comes_from(finished):
    reward = mairl.LearnedReward.load(finished)
    meta, config = reward.meta, json.loads((finished / "config.json").read_text())
    assert meta["demonstrations"] == {
        **config["demos"],
        "episodes": 1,
        "every": 1,
        "transitions": 500,
    }
    assert meta["config"] == config["config"]["algo"]
    assert (meta["env_steps"], meta["seed"]) == (360, 0)
    assert meta["packages"] == config["versions"]
    assert reward.form.bound == algorithm.MAIRLConfig().reward.bound
    # CartPole's expert never ends: nothing is worse, and living is what tells it from a policy.
    assert reward.form.ended == NEVER
    assert reward.form.live > 0


def test_reward_pictures(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert cli.main(["reward", str(run), "--dims", "0", "2"]) == 0
    names = {f"reward-{name}.png" for name in ("map", "saliency", "episode", "training")}
    assert {path.name for path in run.glob("*.png")} == names | {"curve.png"}
    said = capsys.readouterr().out.split()
    assert set(said) == {str(run / name) for name in names}
    for name in names:
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    assert cli.main(["reward", str(run), "--dims", "0", "4"]) == 2
    assert "observation dimensions 0 to 3" in capsys.readouterr().err


def test_reward_judgment(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mairl.judge.TRANSITIONS", 60)
    monkeypatch.setattr("mairl.regression.STEPS", 5)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert cli.main(["evaluate", str(run), "--reward"]) == 0
    assert "the true reward never changes there" in capsys.readouterr().out
    scores = json.loads((run / "reward_scores.json").read_text())
    assert scores["agent"] == {
        "transitions": 60,
        **dict.fromkeys(("pearson_g", "spearman_g", "pearson_f", "spearman_f")),
    }
    assert scores["epic_g"] is None


def test_load_what_is_not_there(finished, tmp_path):
    with pytest.raises(mairl.MairlError, match="no run directory"):
        mairl.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(mairl.MairlError, match="no policy yet"):
        mairl.load(tmp_path)
    for name in ("policy", "reward"):
        for kind in ("safetensors", "json"):
            (tmp_path / f"{name}.{kind}").write_bytes((finished / f"{name}.{kind}").read_bytes())
    mairl.load(tmp_path)
    data = bytearray((tmp_path / "reward.safetensors").read_bytes())
    data[-5] ^= 1
    (tmp_path / "reward.safetensors").write_bytes(data)
    with pytest.raises(mairl.MairlError, match=r"reward\.safetensors is corrupt"):
        mairl.load(tmp_path)


# Resuming.


class Killed(Exception):
    """Stands for a process that is no more: nothing catches it."""


def kill_at(monkeypatch, target: object, name: str, call: int, after: bool = False) -> None:
    """Die in the ``call``-th call of a function, before or after it has done its work."""
    real, count = getattr(target, name), [0]

    def deadly(*args, **kwargs):
        count[0] += 1
        if count[0] < call:
            return real(*args, **kwargs)
        if after:
            real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(target, name, deadly)


@pytest.mark.parametrize(
    ("target", "name", "call", "after"),
    [
        (learner.Learner, "begin", 1, True),  # before any checkpoint
        (learner.Learner, "collect", 6, False),  # after an update that no checkpoint holds
        (training._Training, "save", 2, True),  # right after a checkpoint
        (learner.checkpoint, "save", 2, False),  # after an evaluation, before its checkpoint
        (training, "draw", 1, False),  # all learned, nothing handed on
    ],
)
def test_killed_and_resumed_equals_whole(
    finished, tmp_path, monkeypatch, target, name, call, after
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, target, name, call, after)
        with pytest.raises(Killed):
            train(out)
    assert train(out, "--resume") == 0
    assert_same(out, finished)


def test_lost_episodes_are_left_and_that_resumes_as_well(tmp_path, monkeypatch):
    """Where all is lost, episodes last as long as patience, random ones included."""
    monkeypatch.setattr(algorithm, "LOST", 1.1)
    patient = ("--patience", "20")
    assert train(tmp_path / "whole", *patient, env="Pendulum-v1") == 0
    lines = metrics.read(tmp_path / "whole" / "metrics.jsonl")
    lengths = [line["rollout/ep_len_mean"] for line in lines if "rollout/ep_len_mean" in line]
    assert len(lengths) == 13
    assert set(lengths) == {20.0}
    with monkeypatch.context() as patch:
        kill_at(patch, learner.Learner, "collect", 7)
        with pytest.raises(Killed):
            train(tmp_path / "run", *patient, env="Pendulum-v1")
    assert train(tmp_path / "run", "--resume", *patient, env="Pendulum-v1") == 0
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_kill_9(finished, tmp_path):
    out = tmp_path / "run"
    script = (
        "import functools, sys\n"
        "from mairl import cli, evaluate\n"
        "small = functools.partial(evaluate.bc.BCConfig, hidden=(8,), iterations=5, batch_size=8)\n"
        "evaluate.bc.BCConfig = small\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", script, "train", "CartPole-v1", *TINY, "--out", str(out)]
    # Another process must compile as this one does, to come to the same bits.
    name = "jax_disable_most_optimizations"
    env = {**os.environ, name.upper(): str(jax.config.values[name])}
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 120
    while not any((out / "checkpoints").glob("checkpoint-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "result.json").exists()
    assert train(out, "--resume") == 0
    assert_same(out, finished)


@pytest.fixture
def ctrl_c():
    """Python's own handler of Ctrl-C, which a program that was started in the background lacks."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(finished, tmp_path, monkeypatch, capsys, number):
    out = tmp_path / "run"
    real, count = learner.Learner.collect, [0]

    def collect(self):
        count[0] += 1
        if count[0] == 3:
            os.kill(os.getpid(), number)
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(learner.Learner, "collect", collect)
        assert train(out) == 128 + number
    said = capsys.readouterr().err
    assert "Stopped at environment step 160 of 360" in said
    assert "Traceback" not in said
    again = shlex.split(said.strip().splitlines()[-1])
    assert again[0] == "mairl"
    assert cli.main(again[1:]) == 0
    assert_same(out, finished)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_second_ctrl_c_stops_at_once(tmp_path, monkeypatch, capsys):
    def collect(self):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(learner.Learner, "collect", collect)
    assert train(tmp_path / "run") == 130
    said = capsys.readouterr().err
    assert "no checkpoint yet" in said
    assert "--resume" in said


def test_environment_that_cannot_be_put_back(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, training._Training, "save", 2, after=True)
        with pytest.raises(Killed):
            train(out)
    monkeypatch.setattr(learner.Collector, "_replay", lambda *_: None)
    assert train(out, "--resume") == 0
    assert "could not be put back" in capsys.readouterr().out
    assert result(out)["env_steps"] == 360


def test_a_run_directory_is_for_one_process_at_a_time(finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    real, codes = learner.Learner.collect, []

    def collect(self):
        if not codes:
            codes.append(train(out, "--resume"))
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(learner.Learner, "collect", collect)
        assert train(out) == 0
    assert codes == [2]
    assert f"another process is running in {out}" in " ".join(capsys.readouterr().err.split())
    assert_same(out, finished)


def test_resume_of_a_finished_run(finished, capsys):
    before = result(finished)
    assert train(finished, "--resume") == 0
    assert "is finished" in capsys.readouterr().out
    assert result(finished) == before


def test_several_environments_and_fractions_of_iterations(tmp_path, monkeypatch):
    monkeypatch.setattr(algorithm, "update", no_update)
    out = tmp_path / "run"
    assert train(out, "--num-envs", "3", "--iterations", "0.01", "--steps", "200") == 0
    found = result(out)
    # 33 random rows of 3 environments, then rows of 3 as long as they fit into 200.
    assert found["env_steps"] == 198
    assert found["updates"] == 1


# Trouble while training.


def test_divergence_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, capsys):
    def update(config, spec, state, replay, expert, progress, *, iterations, key):
        return state, {"reward/loss": jax.numpy.where(progress > 0.5, jax.numpy.nan, 1.0)}

    out = tmp_path / "run"
    monkeypatch.setattr(algorithm, "update", update)
    assert train(out) == 1
    said = capsys.readouterr().err
    assert "reward/loss became nan at environment step 200" in said
    assert "checkpoint of environment step 180 is kept" in said
    assert "Traceback" not in said
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["checkpoint-00000001-step-180"]


def test_parameters_that_are_not_finite_are_never_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(algorithm, "update", no_update)
    real = learner.Learner.save

    def save(self, *args):
        poison = jax.tree.map(lambda x: x * float("nan"), self.state.params.policy)
        self.state = self.state._replace(params=self.state.params._replace(policy=poison))
        real(self, *args)

    monkeypatch.setattr(learner.Learner, "save", save)
    assert train(tmp_path / "run") == 1
    assert "parameter is not finite at environment step 180" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


class Faulty(gym.Env):
    """CartPole's spaces; goes wrong at step 150 of its life."""

    observation_space = spaces.Box(-10.0, 10.0, (4,), np.float32)
    action_space = spaces.Discrete(2)
    steps = 0
    kind = "raise"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action):
        Faulty.steps += 1
        if Faulty.steps == 150 and self.kind == "raise":
            raise RuntimeError("the motor is gone")
        bad = np.nan if Faulty.steps == 150 else 0.5
        return np.full(4, bad, np.float32), 1.0, Faulty.steps % 30 == 0, False, {}


@pytest.mark.parametrize(
    ("kind", "cause"), [("raise", "the motor is gone"), ("nan", r"observation[0] is nan")]
)
def test_environment_that_fails(tmp_path, monkeypatch, capsys, kind, cause):
    gym.register("mairl-test/Faulty-v0", entry_point=Faulty)
    monkeypatch.setattr(Faulty, "kind", kind)
    monkeypatch.setattr(Faulty, "steps", 0)
    try:
        demos = write_demos(tmp_path / "d.npz")
        out = tmp_path / "run"
        assert train(out, "--demos", demos, env="mairl-test/Faulty-v0") == 2
    finally:
        gym.registry.pop("mairl-test/Faulty-v0")
    shown, said = capsys.readouterr()
    assert "Faulty-v0 has no time limit" in shown
    assert "'mairl-test/Faulty-v0?max_episode_steps=1000' sets one" in shown
    assert cause in said
    assert "with action" in said
    assert "Traceback" not in said


# Bad input: one message, exit code 2, nothing computed.


def write_demos(path: Path, **changed) -> str:
    """CartPole's demonstrations with fields changed (None leaves one out)."""
    with shipped_file("CartPole-v1") as shipped, np.load(shipped) as archive:
        fields = {name: archive[name] for name in archive.files if name != "env_id"}
    for name, change in changed.items():
        if change is None:
            del fields[name]
        else:
            fields[name] = change(fields[name]) if callable(change) else change
    np.savez(path, **fields)
    return str(path)


def poke(value: float):
    def change(array):
        array = array.astype(np.float64) if array.dtype.kind == "f" else array.copy()
        array[3] = value
        return array

    return change


@pytest.fixture
def nothing_computed(monkeypatch):
    def compute(*_):
        raise AssertionError("compute was spent before the input was checked")

    monkeypatch.setattr(learner.Learner, "begin", compute)
    monkeypatch.setattr(learner.Learner, "resume", compute)


class Talker(gym.Env):
    """Says something."""

    observation_space = spaces.Text(5)
    action_space = spaces.Discrete(2)


gym.register("mairl-test/Talker-v0", entry_point=Talker)


@pytest.mark.usefixtures("nothing_computed")
class TestBadInput:
    def refused(self, capsys, *arguments: str) -> str:
        assert cli.main(list(arguments)) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return said.err

    @pytest.mark.parametrize(
        ("env", "parts"),
        [
            ("Hoper-v5", ["Hoper-v5", "not registered", "Hopper-v5"]),
            ("NoSuchThing-v0", ["NoSuchThing-v0", "not registered"]),
            ("mairl-test/Talker-v0", ["observation space Text", "TransformObservation"]),
        ],
    )
    def test_environment(self, tmp_path, capsys, env, parts):
        said = self.refused(capsys, "train", env, "--out", str(tmp_path / "run"))
        assert all(part in said for part in parts), said
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("changed", "parts"),
        [
            ({"observations": None}, ["observations"]),
            ({"observations": lambda x: x[:, :3]}, ["observations", "CartPole-v1"]),
            ({"observations": lambda x: x.astype("U8")}, ["observations", "dtype"]),
            ({"observations": poke(np.nan)}, ["nan", "step 3", "episode 0"]),
            ({"observations": poke(np.inf)}, ["inf", "step 3"]),
            ({"actions": poke(7)}, ["7", "step 3", "whole numbers 0 to 1"]),
            ({"episode_lengths": np.zeros(0, int)}, ["no episode"]),
            ({"env_id": np.array("Hopper-v5")}, ["Hopper-v5", "CartPole-v1"]),
            ({"actions": lambda x: x.astype(object)}, ["actions", "pickle"]),
        ],
    )
    def test_demonstrations(self, tmp_path, capsys, changed, parts):
        path = write_demos(tmp_path / "mine.npz", **changed)
        said = self.refused(
            capsys, "train", "CartPole-v1", "--demos", path, "--out", str(tmp_path / "run")
        )
        assert "mine.npz" in said
        assert all(part in said for part in parts), said
        assert not (tmp_path / "run").exists()

    def test_demonstration_files(self, tmp_path, capsys):
        def refused(path):
            out = str(tmp_path / "run")
            return self.refused(capsys, "train", "CartPole-v1", "--demos", str(path), "--out", out)

        assert "does not exist" in refused(tmp_path / "missing.npz")
        whole = Path(write_demos(tmp_path / "whole.npz")).read_bytes()
        (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
        assert "cut.npz" in refused(tmp_path / "cut.npz")
        assert "Hopper-v5" in refused("Hopper-v5")
        assert "no demonstrations called 'CartPole'" in refused("CartPole")
        said = self.refused(
            capsys, "train", "CartPole-v1", "--episodes", "999", "--out", str(tmp_path / "run")
        )
        assert "999 episodes" in said

    def test_run_directory(self, tmp_path, capsys):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").write_text("years of work")
        said = self.refused(capsys, "train", "CartPole-v1", "--out", str(tmp_path / "full"))
        assert "not empty" in said
        assert "--out" in said
        under = tmp_path / "full" / "thesis.tex" / "run"
        said = self.refused(capsys, "train", "CartPole-v1", "--out", str(under))
        assert "cannot be used" in said
        assert (tmp_path / "full" / "thesis.tex").read_text() == "years of work"

    def test_resume(self, finished, tmp_path, capsys):
        said = self.refused(
            capsys, "train", "CartPole-v1", "--resume", "--out", str(tmp_path / "none")
        )
        assert "nothing to resume" in said
        assert not (tmp_path / "none").exists()
        again = ["train", "CartPole-v1", *TINY, "--out", str(finished)]
        said = self.refused(capsys, *again)
        assert "--resume" in said
        said = self.refused(capsys, *again, "--resume", "--seed", "1", "--reward.bound", "3")
        assert "config.seed: saved 0, now 1" in said
        assert "config.algo.reward.bound" in said
        said = self.refused(capsys, *again, "--resume", "--steps", "9999")
        assert "--steps 360" in said
        assert "learning rates" in said

    def test_checkpoint_of_another_version(self, finished, tmp_path, capsys, monkeypatch):
        monkeypatch.undo()  # This one is found out on loading.
        out = tmp_path / "run"
        for path in sorted(finished.rglob("*")):
            target = out / path.relative_to(finished)
            if path.is_dir():
                target.mkdir(parents=True)
            elif path.name != "result.json":
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        for meta in out.glob("checkpoints/*/checkpoint.json"):
            document = json.loads(meta.read_text())
            meta.write_text(json.dumps({**document, "format_version": 99}))
        said = self.refused(capsys, "train", "CartPole-v1", *TINY, "--out", str(out), "--resume")
        assert "format version 99" in said

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (["--steps", "50"], ["--steps is 50", "--warmup-steps"]),
            (["--seed", "-1"], ["--seed is -1"]),
            (["--every", "0"], ["every 0-th"]),
            (["--gamma", "1.5"], ["--gamma is 1.5", "between 0 and 1"]),
            (["--policy.learning-rate", "nan"], ["--policy.learning-rate is nan"]),
            (["--policy.cloning", "-1"], ["--policy.cloning is -1"]),
            (["--reward.imagined", "1.5"], ["--reward.imagined is 1.5", "0 to 1"]),
            (["--reward.bound", "0"], ["--reward.bound is 0", "above 0"]),
            (["--dynamics.width", "0"], ["--dynamics.width is 0"]),
            (["--policy.hidden", "8", "-8"], ["--policy.hidden is -8"]),
            (["--value.steps", "0"], ["--policy.horizon", "nothing to climb"]),
            (["--dynamics.members", "3"], ["--batch-size is 128", "multiple of 6"]),
            (["--policy.anchored", "--num-envs", "4"], ["--policy.anchored", "--value.steps 0"]),
            (["--algo", "bc", "--iterations", "0"], ["--iterations is 0"]),
            (["--algo", "gail", "--policy.epochs", "0"], ["--policy.epochs is 0"]),
            (["--algo", "gail", "--reward.steps", "0"], ["--reward.steps is 0"]),
            (
                ["--algo", "gail", "--num-envs", "2", "--policy.minibatches", "257"],
                ["--policy.minibatches is 257", "256 steps"],
            ),
        ],
    )
    def test_settings(self, tmp_path, capsys, options, parts):
        said = self.refused(
            capsys, "train", "CartPole-v1", *options, "--out", str(tmp_path / "run")
        )
        assert all(part in said for part in parts), said

    @pytest.mark.parametrize(
        "arguments",
        [
            ["train"],
            ["train", "CartPole-v1", "--no-such-option", "1"],
            ["train", "CartPole-v1", "--steps", "many"],
            ["train", "CartPole-v1", "--preset", "best"],
            ["evaluate"],
        ],
    )
    def test_syntax(self, capsys, arguments):
        assert self.refused(capsys, *arguments)

    def test_other_verbs(self, tmp_path, capsys):
        assert "did you mean 'train'" in self.refused(capsys, "trian")
        assert "no run directory" in self.refused(capsys, "evaluate", str(tmp_path / "no"))
        assert "Did you mean Hopper-v5" in self.refused(capsys, "demos", "Hoper-v5")
        assert "minari download a/b-v0" in self.refused(capsys, "demos", "a/b-v0")
        assert "--env" in self.refused(capsys, "demos", write_demos(tmp_path / "nameless.npz"))


# The other verbs, and looks.


def test_demos(tmp_path, capsys):
    assert cli.main(["demos"]) == 0
    assert "Hopper-v5" in capsys.readouterr().out
    assert cli.main(["demos", "CartPole-v1"]) == 0
    assert "episodes" in capsys.readouterr().out
    path = write_demos(tmp_path / "d.npz")
    assert cli.main(["demos", path, "--env", "CartPole-v1"]) == 0
    assert "d.npz" in "".join(capsys.readouterr().out.split())  # However its path was broken.
    path = write_demos(tmp_path / "e.npz", env_id=np.array("CartPole-v1"))
    assert cli.main(["demos", path]) == 0


def test_help_is_quick_and_shows_defaults(capsys):
    assert cli.main(["--help"]) == 0
    assert "mairl train ENV_ID" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert cli.main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--reward.learning-rate" in said
    assert "--resume" in said
    assert f"default: {TrainConfig('CartPole-v1').steps}" in said
    heavy = "import sys, mairl.cli; mairl.cli.main(['--help']); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", heavy], stdout=subprocess.DEVNULL).returncode == 0


def test_summary_is_honest():
    base = {
        **{"env_id": "X-v0", "env_steps": 10, "wall_seconds": 61.0, "random_return": 0.0},
        "demos": {"source": "x", "episodes": 2, "every": 20, "transitions": 7},
        **{"return_mean": 50.0, "return_std": 1.0, "expert_return": 100.0},
        **{"normalized_return": 0.5, "bc_return_mean": 80.0, "bc_normalized_return": 0.8},
    }
    said = summarize(base, Path("runs/x"))
    assert "not at the expert's level: it goes 50% of the way" in said
    assert "cloning the same demonstrations is better" in said
    good = {**base, "return_mean": 99.0, "normalized_return": 0.99}
    said = summarize(good, Path("runs/x"), ["Something is off."])
    assert "at the expert's level, and better than cloning" in said
    assert "! Something is off." in said
    assert "less than half" not in said
    worse = {"returns": [-9.0] * 18 + [-40.0, 1.0]}
    assert "less than half" not in summarize(base | worse, Path("runs/x"))
    assert "less than half" not in summarize(good | {"returns": [99.0] * 20}, Path("runs/x"))
    fell = summarize(good | {"returns": [99.0] * 18 + [40.0, 49.6]}, Path("runs/x"))
    assert "1 of 20 episodes is less than half as far above random actions as the mid" in fell
    unknown = {**base, "expert_return": None, "normalized_return": None}
    assert "carry no rewards" in summarize(unknown, Path("runs/x"))


def test_alarms():
    calm = {
        **{"reward/accuracy_expert": 0.8, "reward/accuracy_policy": 0.7},
        **{"reward/expert_mean": 1.0, "reward/policy_mean": -1.0},
        **{"dynamics/squared_error": 0.05, "policy/entropy": 0.0, "rollout/ep_len_mean": 400.0},
        "policy/target_entropy": -1.0,
    }
    cases = {
        "tells expert from policy nearly always": {
            "reward/accuracy_expert": 1.0,
            "reward/accuracy_policy": 0.995,
        },
        "reward is the same": {"reward/expert_mean": 0.0, "reward/policy_mean": 0.001},
        "error has grown 40-fold": {"dynamics/squared_error": 2.0},
        "hardly varies its actions": {"policy/entropy": -9.0},
        "got shorter: 20 steps": {"rollout/ep_len_mean": 20.0},
    }
    assert alarms([calm] * 40, 500.0) == []
    for text, bad in cases.items():
        lines = [calm] * 20 + [{"eval/mean_reward": 1.0}] + [{**calm, **bad}] * 10
        (alarm,) = alarms(lines, 500.0)
        assert text in alarm
    # While an alarm lasts its numbers change: it is said once.
    console = Console(file=io.StringIO(), width=200)
    progress = Progress(console, "Hopper-v5", 100)
    for entropy in (-9.0, -9.5, -10.25):
        lines = [calm] * 20 + [{**calm, "policy/entropy": entropy}] * 10
        progress.alarms(alarms(lines, 500.0))
    progress.alarms([])
    progress.alarms(alarms(lines, 500.0))
    assert console.file.getvalue().count("hardly varies its actions") == 2  # pyright: ignore
    # Where the expert finishes early, shorter is better.
    shorter = [calm] * 20 + [{**calm, "rollout/ep_len_mean": 20.0}] * 10
    assert alarms(shorter, 25.0) == []
    # A model that was surprised once and learns from it is no cause for alarm.
    errors = [0.05] * 20 + [2.0] * 20 + [0.8] * 10
    assert alarms([{**calm, "dynamics/squared_error": error} for error in errors], 500.0) == []
    # Metrics that an algorithm does not have raise no alarm.
    assert alarms([{"env_steps": 1}] * 40, 500.0) == []
