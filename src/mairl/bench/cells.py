"""The cells of a suite: one algorithm on one task with one seed, each a process of its own."""

import fnmatch
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from mairl.bench.suite import Algorithm, Suite, Task
from mairl.types import MairlError


@dataclass(frozen=True)
class Cell:
    """One run."""

    task: Task
    algorithm: Algorithm
    seed: int

    def __str__(self) -> str:
        return f"{self.task.name}:{self.algorithm.name}:s{self.seed}"

    @property
    def key(self) -> tuple[str, str, int]:
        """Names of task and algorithm, and the seed."""
        return self.task.name, self.algorithm.name, self.seed

    def path(self, out: Path) -> Path:
        """Its run directory; the log lies beside it, with the suffix .log."""
        return out / self.task.name / self.algorithm.name / f"s{self.seed}"

    @property
    def definition(self) -> dict[str, Any]:
        """What it is, apart from names: results of another definition are not its results."""
        demos = self.task.demos
        if demos is not None and demos.endswith(".npz"):
            demos = Path(demos).name  # The folder differs from machine to machine.
        return {
            "env": self.task.env,
            "demos": demos,
            "episodes": self.task.episodes,
            "every": self.task.every,
            "steps": self.algorithm.budget(self.task),
            "flags": list(self.algorithm.flags),
            "program": self.algorithm.program and Path(self.algorithm.program).name,
        }

    def options(self, suite: Suite, path: Path) -> list[str]:
        """The words after ``mairl train``."""
        task = self.task
        words = [task.env, "--every", task.every, "--steps", self.algorithm.budget(task)]
        if task.demos is not None:
            words += ["--demos", task.demos]
        if task.episodes is not None:
            words += ["--episodes", task.episodes]
        words += ["--evaluations", suite.evaluations, "--eval-episodes", suite.eval_episodes]
        words += ["--seed", self.seed, "--out", path, *self.algorithm.flags]
        return [str(word) for word in words]

    def command(self, suite: Suite, out: Path) -> list[str]:
        """The process to start; it goes on where there is something to go on with."""
        program = self.algorithm.program
        how = ["-m", "mairl.cli", "train"] if program is None else [program]
        again = ["--resume"] if (self.path(out) / "config.json").exists() else []
        return [sys.executable, *how, *self.options(suite, self.path(out)), *again]


def select(suite: Suite, seeds: int | None, only: str | None) -> list[Cell]:
    """The suite's cells, all algorithms of a seed before the next seed.

    ``only`` is a pattern of ``task:algorithm``, or of one of the two.

    Raises:
        MairlError: nothing fits ``only``, or fewer than one seed.
    """
    if seeds is not None and seeds < 1:
        raise MairlError(f"--seeds is {seeds}; give 1 or more")
    pairs = [(t, a) for t in suite.tasks for a in suite.algorithms if a.runs_on(t)]
    if only is not None:
        kept = [pair for pair in pairs if _fits(*pair, only)]
        if not kept:
            rows = ", ".join(f"{t.name}:{a.name}" for t, a in pairs)
            raise MairlError(f"--only {only} fits no task:algorithm of the suite ({rows})")
        pairs = kept
    return [Cell(t, a, s) for s in range(seeds or suite.seeds) for t, a in pairs]


def begun(suite: Suite, out: Path) -> list[Cell]:
    """The suite's cells that have a run directory under ``out``, whatever their seeds."""
    return [
        Cell(task, algorithm, int(path.name[1:]))
        for task in suite.tasks
        for algorithm in suite.algorithms
        for path in (out / task.name / algorithm.name).glob("s*")
        if path.is_dir() and path.name[1:].isdecimal()
    ]


def _fits(task: Task, algorithm: Algorithm, only: str) -> bool:
    names = (f"{task.name}:{algorithm.name}", task.name, algorithm.name)
    return any(fnmatch.fnmatchcase(name, only) for name in names)


def check(suite: Suite, cells: Sequence[Cell], out: Path) -> None:
    """Check all that can be before computing: environments, demonstrations, flags.

    ``cells`` are those still to be run. A task and algorithm whose run has begun passed before.

    Raises:
        MairlError: whatever ``mairl train`` would say, with the suite's entry named; or
            demonstrations without returns, by which nothing can be scored.
    """
    seen: set[tuple[str, str]] = set()
    for cell in cells:
        pair = (cell.task.name, cell.algorithm.name)
        if pair in seen or (cell.path(out) / "config.json").exists():
            continue
        seen.add(pair)
        try:
            _check_task(cell.task)
            if cell.algorithm.program is None:
                _check_training(suite, cell)
        except MairlError as error:
            raise MairlError(
                f"suite {suite.name}, task {pair[0]!r}, algorithm {pair[1]!r}: {error}"
            ) from error


def _check_task(task: Task) -> None:
    from mairl import envs
    from mairl.demos import find_demonstrations, subsample

    demos = find_demonstrations(task.demos, envs.make_spec(task.env))
    subsample(demos, task.episodes, task.every, seed=0)
    if demos.expert_return is None:
        raise MairlError(
            f"{demos.source} carries no returns, so that nothing can be scored by it; add "
            "expert_return to the file"
        )


def _check_training(suite: Suite, cell: Cell) -> None:
    from mairl import job
    from mairl.cli import parse_train

    said = StringIO()
    with tempfile.TemporaryDirectory() as folder:
        try:
            with redirect_stdout(said), redirect_stderr(said):
                config = parse_train(cell.options(suite, Path(folder) / "run"))
        except SystemExit as error:
            flags = " ".join(cell.algorithm.flags)
            raise MairlError(f"`mairl train` does not take {flags}\n{said.getvalue()}") from error
        # All that a run checks, the compilable shapes of its update included.
        job.check(replace(config, resume=False))
