"""``mairl bench``: statistics against rliable's, suites, whole runs stopped and gone on with."""

import argparse
import importlib.util
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mairl
from mairl import cli, demos, envs
from mairl.bench import cells, figures, report, results, statistics
from mairl.bench.suite import Algorithm, Suite, Task, load, shipped_suites
from mairl.demos.data import shipped_file

# Computed by rliable 1.2.0 (with arch 7.2.0):
#   x, y = np.array(X), np.array(Y); n = 50_000 bootstrap samples; T = [0.0, 0.5, 0.7, 0.9, 1.1]
#   metrics.aggregate_iqm(x), metrics.aggregate_iqm(y), metrics.probability_of_improvement(x, y)
#   library.create_performance_profile({"x": x}, np.array(T), reps=n)
#   library.get_interval_estimates({"x": x, "y": y}, lambda s: np.array([aggregate_iqm(s)]), reps=n)
#   library.get_interval_estimates({"x,y": (x, y)}, lambda a, b:
#       np.array([metrics.probability_of_improvement(a, b)]), reps=n)
X = [[0.8, 0.89, 0.718], [0.533, 0.664, 0.503], [0.818, 1.202, 0.652]]
X += [[0.614, 0.947, 0.907], [0.832, 0.521, 0.791]]
Y = [[0.8, 0.197, 0.463], [0.03, 0.213, 0.047], [0.529, 0.22, 0.681], [0.647, 0.544, -0.155]]
T = [0.0, 0.5, 0.7, 0.9, 1.1]
RLIABLE = {
    "iqm": (0.7532222222222221, 0.361),
    "iqm_interval": ([0.6446666666666666, 0.8393333333333334], [0.14683333333333334, 0.5513333333]),
    "improvement": 0.875,
    "improvement_interval": [0.7166666666666667, 0.9833333333333334],
    "profile": [1.0, 1.0, 0.6, 0.2, 0.06666666666666667],
    "profile_band": ([1.0, 1.0, 1 / 3, 0.0, 0.0], [1.0, 1.0, 13 / 15, 0.4, 0.2]),
}


def strata(scores: list[list[float]]) -> list[np.ndarray]:
    return list(np.array(scores).T)


def test_point_estimates_are_those_of_rliable():
    x, y = strata(X), strata(Y)
    assert (statistics.iqm(x), statistics.iqm(y)) == pytest.approx(RLIABLE["iqm"], abs=1e-12)
    found = statistics.probability_of_improvement(x, y)
    assert found == pytest.approx(RLIABLE["improvement"], abs=1e-12)
    assert statistics.performance_profile(x, np.array(T)) == pytest.approx(RLIABLE["profile"])


def test_intervals_are_those_of_rliable():
    x, y = strata(X), strata(Y)
    for scores, wanted in zip((x, y), RLIABLE["iqm_interval"], strict=True):
        assert statistics.interval(scores, samples=20_000) == pytest.approx(wanted, abs=0.01)
    found = statistics.improvement_interval(x, y, samples=10_000)
    assert found == pytest.approx(RLIABLE["improvement_interval"], abs=0.01)
    band = statistics.profile_band(x, np.array(T), samples=10_000)
    for one, other in zip(band, RLIABLE["profile_band"], strict=True):
        assert one == pytest.approx(other, abs=1 / 15 + 1e-9)  # one run of 15


def test_statistics_by_hand():
    one = [np.array([5.0, 1.0, 2.0, 9.0, 3.0])]  # the middle three: 2, 3, 5
    assert statistics.iqm(one) == pytest.approx(10 / 3)
    assert statistics.iqm([np.array([1.0, 2.0]), np.array([6.0])]) == pytest.approx(3.0)
    # 6 pairs: 3 > 1, 3 > 2, 3 = 3 on a half; 1 = 1 on a half, the others below.
    x, y = [np.array([3.0, 1.0])], [np.array([1.0, 2.0, 3.0])]
    assert statistics.probability_of_improvement(x, y) == pytest.approx((2.5 + 0.5) / 6)
    steps, scores = np.array([10.0, 20.0, 30.0]), np.array([0.2, 0.9, 0.95])
    assert statistics.first_reach(steps, scores, 0.9) == 20.0
    assert statistics.first_reach(steps, scores, 0.96) == float("inf")
    runs = [np.array([0.95, 0.7, 0.9]), np.array([0.5, 0.91]), np.array([0.1, 0.9, 0.81])]
    assert statistics.staying(runs) == pytest.approx(2 / 3)
    assert statistics.staying([np.array([0.5, 0.91])]) is None


def test_curves():
    xs = [np.array([0.0, 10.0]), np.array([2.0, 6.0])]
    grid, values = statistics.curve(xs, [np.array([0.0, 1.0]), np.array([0.5, 0.7])], points=5)
    assert grid.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert values[0] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[1] == pytest.approx([0.5, 0.6, 0.7, 0.7, 0.7])  # ended: its last score
    # Of three runs nothing is cut, and all draws of one run, 1/27 each, hold the outer 2.5 %.
    many = np.random.default_rng(0).normal(size=(3, 4))
    middle, low, high = statistics.curve_band(many)
    assert middle == pytest.approx(many.mean(axis=0))
    assert low == pytest.approx(many.min(axis=0))
    assert high == pytest.approx(many.max(axis=0))


# Suites.

SUITE = """
seeds = 2
evaluations = 4
[[tasks]]
name = "a"
env = "CartPole-v1"
episodes = 1
steps = 400
[[tasks]]
name = "b"
env = "Pendulum-v1"
steps = 300
[[algorithms]]
name = "fake"
program = "fake.py"
[[algorithms]]
name = "other"
program = "fake.py"
flags = ["--score", "0.25"]
tasks = ["a"]
steps = { a = 800 }
"""

FAKE = """
import json, os, pathlib, sys, time
words = dict(zip(sys.argv, sys.argv[1:]))
out, steps, seed = pathlib.Path(words["--out"]), int(words["--steps"]), int(words["--seed"])
if "--fail" in words:
    print("no luck")
    sys.exit(3)
out.mkdir(parents=True, exist_ok=True)
with (out / "config.json").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
(out / "pid").write_text(str(os.getpid()))
score = float(words.get("--score", 0.9)) + seed / 100
history = []
for i in range(1, 5):
    time.sleep(float(os.environ.get("FAKE_SECONDS", 0)) / 4)
    history.append({"env_steps": steps * i // 4, "normalized_return": score * i / 4,
                    "wall_seconds": i})
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(history[-1]) + "\\n")
result = {"env_id": sys.argv[1], "env_steps": steps, "wall_seconds": 4.5, "return_mean": 10 * score,
          "normalized_return": score, "evaluations": history}
(out / "result.json").write_text(json.dumps(result))
"""


def write_suite(folder: Path, text: str = SUITE, name: str = "tiny.toml") -> str:
    (folder / "fake.py").write_text(FAKE)
    (folder / name).write_text(text)
    return str(folder / name)


def test_shipped_suites():
    assert set(shipped_suites()) == {"small", "marks", "mujoco", "learning"}
    for name in shipped_suites():
        suite = load(name)
        assert suite.description
        # Each task's demonstrations are there.
        for task in suite.tasks:
            cells._check_task(task)


def test_cells_and_their_options(tmp_path):
    suite = load(write_suite(tmp_path))
    assert [str(c) for c in cells.select(suite, None, None)] == [
        *("a:fake:s0", "a:other:s0", "b:fake:s0", "a:fake:s1", "a:other:s1", "b:fake:s1")
    ]
    assert [str(c) for c in cells.select(suite, 1, "a")] == ["a:fake:s0", "a:other:s0"]
    assert [str(c) for c in cells.select(suite, 1, "*:fake")] == ["a:fake:s0", "b:fake:s0"]
    with pytest.raises(mairl.MairlError, match=r"--only c\* fits no .*a:other"):
        cells.select(suite, None, "c*")
    task = Task("t", "Hopper-v5", 2000, episodes=4, every=20)
    cell = cells.Cell(task, Algorithm("x", ("--gamma", "0.5"), steps={"t": 3000}), 7)
    config = cli.parse_train(cell.options(suite, Path("here")))
    assert (config.env_id, config.episodes, config.every, config.steps) == (
        "Hopper-v5",
        4,
        20,
        3000,
    )
    assert (config.seed, config.out, config.evaluations, config.algo.gamma) == (7, "here", 4, 0.5)


def test_paths_are_relative_to_the_suite(tmp_path):
    with shipped_file("CartPole-v1") as file:
        (tmp_path / "own.npz").write_bytes(file.read_bytes())
    text = SUITE.replace("episodes = 1", 'demos = "own.npz"')
    suite = load(write_suite(tmp_path, text))
    first, _, last = cells.select(suite, 1, None)
    cells._check_task(first.task)
    options = first.options(suite, Path("here"))
    assert options[options.index("--demos") + 1] == str(tmp_path / "own.npz")
    assert first.definition["demos"] == "own.npz"
    assert first.command(suite, tmp_path)[1] == str(tmp_path / "fake.py")
    assert last.definition["demos"] is None
    # Nor do raw numbers name a folder of the machine that made them.
    results.note_definition(first, tmp_path)
    first.path(tmp_path).mkdir()
    run = dict.fromkeys(results.NEEDED, 1.0) | {"evaluations": []}
    run["demos"] = {"source": str(tmp_path / "own.npz"), "episodes": 1}
    (first.path(tmp_path) / "result.json").write_text(json.dumps(run))
    assert results.record(first, tmp_path)["demos"] == {"source": "own.npz", "episodes": 1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 2", "seed = 2", "unknown key 'seed'; did you mean 'seeds'"),
        ("seeds = 2", 'name = "x"', "unknown key 'name'"),
        ("steps = 300", "step = 300", r"tasks\[1\] \('b'\): unknown key 'step'"),
        ("steps = 300", 'steps = "300"', "steps is '300'; give a whole number"),
        ("steps = 300", "steps = true", "steps is True; give a whole number"),
        ("steps = 300", "", "'steps' is missing"),
        ("seeds = 2", "seeds = 0", "seeds is 0; give a whole number, 1 or more"),
        ('["--score", "0.25"]', '"--score 0.25"', "flags is .*; give a list of texts"),
        ('["--score", "0.25"]', '["--score", 0.25]', "flags is .*; give a list of texts"),
        ('tasks = ["a"]', 'tasks = ["c"]', "'other': tasks has 'c', which is none of the tasks"),
        ("{ a = 800 }", "{ c = 800 }", "'other': steps has 'c', which is none of the tasks"),
        ("{ a = 800 }", "{ a = 0.5 }", "steps is .*; give whole numbers by task"),
        ('"other"', '"fake"', "the name 'fake' is there twice"),
        ('"other"', '"../x"', r"the name '\.\./x' cannot be a folder's"),
        ("fake.py", "none.py", "there is no program"),
        ("[[tasks]]", "[[tasks]", "cannot be read"),
        ("CartPole-v1", "CartPol-v1", "suite tiny, task 'a', algorithm 'fake': .*CartPole-v1"),
        ("episodes = 1", "episodes = 999", "task 'a'.*999 episodes asked for"),
        ("episodes = 1", 'demos = "Hopper-v4"', "no demonstrations called 'Hopper-v4'"),
        ("episodes = 1", 'demos = "Hopper-v5"', "task 'a'.*Hopper-v5"),
        ('program = "fake.py"\nflags', "flags", r"`mairl train` does not take --score 0\.25"),
        (
            'program = "fake.py"\nflags = ["--score", "0.25"]',
            'flags = ["--gamma", "1.5", "--warmup-steps", "100"]',
            "algorithm 'other': --gamma is 1.5",
        ),
    ],
)
def test_mistakes_in_a_suite(old, new, message, tmp_path, capsys):
    path = write_suite(tmp_path, SUITE.replace(old, new))
    assert cli.main(["bench", path, "--out", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_other_mistakes(tmp_path, capsys):
    assert cli.main(["bench", "smal"]) == 2
    assert "did you mean 'small'" in capsys.readouterr().err
    path = write_suite(tmp_path)
    assert cli.main(["bench", path, "--out", str(tmp_path / "out"), "--report"]) == 2
    assert "there is no finished cell" in capsys.readouterr().err
    assert cli.main(["bench", path, "--out", str(tmp_path / "out"), "--jobs", "0"]) == 2
    assert cli.main(["bench"]) == 0
    assert "small" in capsys.readouterr().out


def test_two_processes_may_add_to_the_same_results(tmp_path):
    words = """
import sys; from pathlib import Path; from mairl.bench import results
for seed in range(40):
    results.add(Path(sys.argv[1]), {"task": sys.argv[2], "algorithm": "a", "seed": seed})
"""
    start = [sys.executable, "-c", words, str(tmp_path)]
    both = [subprocess.Popen([*start, task]) for task in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    assert len(results.read(tmp_path)) == 80


# Whole suites.


def starts(out: Path, cell: str) -> list[str]:
    return (out / cell / "config.json").read_text().splitlines()


def test_a_suite_end_to_end(tmp_path, capsys, monkeypatch):
    path, out = write_suite(tmp_path), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(figures, "draw", lambda *_: [])  # It takes seconds.
        assert cli.main(["bench", path, "--out", str(out), "--jobs", "2", "--only", "a:*"]) == 0
    assert "4 of 4 cells of tiny to run" in capsys.readouterr().out
    assert cli.main(["bench", path, "--out", str(out), "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 of 6 cells of tiny to run" in said
    assert len(starts(out, "a/fake/s0")) == 1
    records = results.by_key(results.read(out))
    assert len(records) == 6
    found = records["a", "other", 1]
    assert found["definition"] == {
        **{"env": "CartPole-v1", "demos": None, "episodes": 1, "every": 1},
        **{"steps": 800, "flags": ["--score", "0.25"], "program": "fake.py"},
    }
    assert (found["normalized_return"], found["return_mean"]) == (0.26, 2.6)
    assert found["evaluations"][1] == [400, 0.13, 2]
    # Seeds score .9 and .91: half of it at half of the steps; only the second is .91 at the end.
    assert "| a | fake | 400 | 2 | 0.905 [0.900, 0.910] | – | 300 / 400 / – | 3 / 4 / – |" in said
    assert "| fake | 2 | 4 | 0.905 [0.900, 0.910] |" in said
    assert "Not on every task, and so not summed up: other (1 of 2 tasks)." in said
    assert "| fake > other | 1 | 1.000 [1.000, 1.000] |" in said
    assert (out / "report.md").read_text().startswith("# tiny")
    drawn = re.findall(r"!\[(.*)\]\((.*)\)", said)
    drawn = [(name, text) for text, name in drawn]
    pictures = ("curves-env_steps", "curves-seconds", "scores", "profile", "improvement")
    for name in pictures:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({name}.png)" in said

    # Raw numbers are enough, without the runs.
    again = tmp_path / "again"
    again.mkdir()
    (again / "results.json").write_bytes((out / "results.json").read_bytes())
    monkeypatch.setattr(figures, "draw", lambda *_: drawn)
    assert cli.main(["bench", path, "--out", str(again), "--report"]) == 0
    assert (again / "report.md").read_bytes() == (out / "report.md").read_bytes()

    # Results of other settings are not passed off as the suite's.
    path = write_suite(tmp_path, SUITE.replace("steps = 300", "steps = 301"))
    assert cli.main(["bench", path, "--out", str(out)]) == 2
    assert "the suite says steps 301" in capsys.readouterr().err


def test_a_failing_cell_does_not_stop_the_others(tmp_path, capsys):
    path = write_suite(tmp_path, SUITE.replace('"--score", "0.25"', '"--fail", "yes"'))
    out = tmp_path / "out"
    assert cli.main(["bench", path, "--out", str(out), "--seeds", "1"]) == 1
    captured = capsys.readouterr()
    assert "1 cells failed" in captured.err
    assert "a:other:s0: failed with exit code 3" in captured.out
    assert (out / "a" / "other" / "s0.log").read_text() == "no luck\n"
    assert {r["algorithm"] for r in results.read(out)} == {"fake"}


def bench_process(path: str, out: Path, seconds: int, *more: str) -> subprocess.Popen[bytes]:
    """Where fake runs take ``seconds``."""
    command = [sys.executable, "-m", "mairl.cli", "bench", path, "--out", str(out), *more]
    env = {**os.environ, "FAKE_SECONDS": str(seconds)}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(path: Path, seconds: float = 90.0) -> None:
    last = time.monotonic() + seconds
    while not any(path.parent.glob(path.name)):
        assert time.monotonic() < last, f"{path} did not come"
        time.sleep(0.02)


def test_killed_while_its_runs_go_on(tmp_path, capsys, monkeypatch):
    """Cells of a killed bench that still run are waited for, never started twice."""
    path, out = write_suite(tmp_path), tmp_path / "out"
    only = ("--only", "a:other", "--seeds", "1")
    process = bench_process(path, out, 3, *only)
    wait_for(out / "a" / "other" / "s0" / "config.json")
    process.kill()
    process.communicate()
    assert not (out / "a" / "other" / "s0" / "result.json").exists()
    monkeypatch.setattr(figures, "draw", lambda *_: [])
    assert cli.main(["bench", path, "--out", str(out), *only]) == 0
    assert len(starts(out, "a/other/s0")) == 1
    assert "| a | other | 800 | 1 | 0.250 (one seed) |" in capsys.readouterr().out


TRAINED = """
seeds = 1
evaluations = 2
eval_episodes = 1
[[tasks]]
name = "cart"
env = "CartPole-v1"
episodes = 1
steps = 400
[[algorithms]]
name = "fake"
program = "fake.py"
[[algorithms]]
name = "ours"
flags = {flags}
"""
TINY = shlex.split(
    "--warmup-steps 100 --collect-steps 20 --iterations 0.2 --batch-size 16 "
    "--policy.hidden 8 --reward.hidden 8 --value.hidden 8 --dynamics.width 8 --dynamics.depth 1 "
    "--dynamics.members 2 --dynamics.batch-size 8"
)


def test_two_cells_stopped_and_gone_on_with(tmp_path, capsys, monkeypatch):
    path = write_suite(tmp_path, TRAINED.replace("{flags}", json.dumps(TINY)))
    out = tmp_path / "out"
    process = bench_process(path, out, 600, "--jobs", "2")
    wait_for(out / "cart" / "ours" / "s0" / "config.json")
    wait_for(out / "cart" / "fake" / "s0" / "pid")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"Stopped with 0 of 2 cells done. The same command goes on." in said
    pid = int((out / "cart" / "fake" / "s0" / "pid").read_text())
    with pytest.raises(ProcessLookupError):  # Nothing is left running.
        os.kill(pid, 0)

    # What was begun under other settings is not gone on with.
    changed = write_suite(tmp_path, Path(path).read_text().replace("steps = 400", "steps = 420"))
    assert cli.main(["bench", changed, "--out", str(out)]) == 2
    assert "the suite says steps 420" in capsys.readouterr().err

    path = write_suite(tmp_path, TRAINED.replace("{flags}", json.dumps(TINY)))
    monkeypatch.setattr(figures, "draw", lambda *_: [])
    assert cli.main(["bench", path, "--out", str(out), "--jobs", "2"]) == 0
    first, second = starts(out, "cart/fake/s0")
    assert second == f"{first} --resume"
    found = results.by_key(results.read(out))["cart", "ours", 0]
    assert found["env_steps"] == 400
    assert found["evaluations"][-1][1] == found["normalized_return"]
    assert found["bc_normalized_return"] is not None
    assert len(found["returns"]) == 20
    assert math.isclose(np.mean(found["returns"]), found["return_mean"], abs_tol=0.01)
    row = report.rows_of(load(path), [found])[0]
    assert row.episodes is not None
    assert math.isclose(row.episodes.mean(), found["normalized_return"], abs_tol=1e-3)


# Committed results; peers.

ROOT = Path(__file__).parents[1]


def test_committed_results_make_the_committed_report():
    folder = ROOT / "benchmarks" / "results" / "learning"
    suite = load("learning")
    records = results.read(folder)
    for cell in cells.select(suite, None, None):
        found = results.by_key(records).get(cell.key)
        # Older records do not say that no other program made them.
        assert found is None or {"program": None} | found["definition"] == cell.definition
    text = (folder / "report.md").read_text()
    for line in report.task_table(report.rows_of(suite, records)).splitlines():
        assert line in text


def load_file(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_peers_get_the_same_transitions_and_episodes(tmp_path):
    """What a peer reads is what ``mairl train`` learns from; it is evaluated as mairl is."""
    peer = load_file("peer", ROOT / "benchmarks" / "peers" / "peer.py")
    run = load_file("run", ROOT / "benchmarks" / "peers" / "run.py")
    spec = envs.make_spec("Pendulum-v1")
    found = demos.find_demonstrations(None, spec)
    expert = demos.subsample(found, 2, 20, seed=3)
    options = argparse.Namespace(
        **{"env_id": "Pendulum-v1", "peer": "sb3-dac", "steps": 1000, "seed": 3},
        **{"evaluations": 4, "eval_episodes": 3},
    )
    run.write_job(tmp_path, options, expert, spec)
    job = peer.Job(tmp_path)
    np.testing.assert_array_equal(job.expert["obs"], expert.transition.obs)
    np.testing.assert_array_equal(
        spec.encode_action(job.expert["action"]), expert.transition.action
    )
    # In the environment's units, in which the torque goes to 2.
    assert job.expert["action"] == pytest.approx(2.0 * expert.transition.action)

    def torque(obs):
        return np.clip(-2.0 * obs[..., 1:2] - 0.5 * obs[..., 2:3], -1.0, 1.0)

    job.evaluate(lambda obs: 2.0 * torque(obs), 250)
    job.evaluate(lambda obs: 2.0 * torque(obs), 300)  # not due again before 500
    job.finish(lambda obs: 2.0 * torque(obs), 1000)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in lines] == [250, 1000]

    def returns(episodes, stream):
        act = lambda obs, _: torque(obs)  # noqa: E731
        return envs.evaluate_episodes(act, "Pendulum-v1", spec, episodes, 3, stream=stream).returns

    assert lines[0]["returns"] == pytest.approx(returns(3, "eval"), rel=1e-4)
    assert lines[1]["returns"] == pytest.approx(returns(20, "final"), rel=1e-4)


def test_every_algorithm_of_the_peers_suite_is_there():
    suite: Suite = load(str(ROOT / "benchmarks" / "peers.toml"))
    run = load_file("run", ROOT / "benchmarks" / "peers" / "run.py")
    peers = [a for a in suite.algorithms if a.program]
    assert {a.flags[1] for a in peers} == set(run.PEERS)
    for folder, _ in run.PEERS.values():
        assert (ROOT / "benchmarks" / "peers" / folder / "requirements.txt").exists()


def test_recorded_controllers_are_demonstrations(tmp_path, monkeypatch):
    """What the script writes is read, and is what the suite of those tasks asks for."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    controllers = load_file("controllers", ROOT / "benchmarks" / "controllers.py")
    env_id, path = "MountainCarContinuous-v0", tmp_path / "demos.npz"
    act = controllers.TASKS[env_id](env_id)
    controllers.record(env_id, act, 2, path, reset_seeds=controllers.reset_seeds(env_id, act))
    found = demos.find_demonstrations(str(path), envs.make_spec(env_id))
    assert len(found.trajectories) == 2
    assert np.load(path)["seeds"].tolist() == [1000, 1001]
    assert found.episode_returns == pytest.approx([90, 90], abs=10)  # 90 is about the most
    assert found.expert_return == pytest.approx(90, abs=10)
    suite = load(str(ROOT / "benchmarks" / "controllers.toml"))
    assert {task.env for task in suite.tasks} == set(controllers.TASKS)
    assert all(Path(str(task.demos)).stem == task.env for task in suite.tasks)
