"""Measure the policy gradient's estimators over training: makes results/variance.json.

    python benchmarks/variance.py [--tasks Hopper-v5 Pendulum-v1] [--runs runs/variance]
        [--out benchmarks/results/variance.json] [--picture docs/variance.png]

Trains each task with the default settings and stops it (as Ctrl-C does) a little after each of the
points below, each time in a copy of the run directory as it was at the point before; then
measures every copy with ``mairl variance``. What is there already is not done again. Beside the
raw numbers of ``--out`` all tables are written, as a page of Markdown.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mairl.report.variance import describe, draw

TASKS = {
    "Hopper-v5": (["--episodes", "1", "--steps", "30000"], (1500, 4000, 12000)),
    "Pendulum-v1": (["--episodes", "4", "--steps", "15000"], (1500, 4000)),
    "InvertedPendulum-v5": (["--episodes", "1", "--steps", "10000"], (1500, 4000)),
    "HalfCheetah-v5": (["--episodes", "4", "--steps", "100000"], (3000, 12000)),
}
"""Options of the run, and the environment steps after which it is measured."""

HORIZONS = ("1", "3", "10")
MAIRL = [sys.executable, "-m", "mairl"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=["Hopper-v5", "Pendulum-v1"])
    parser.add_argument("--runs", type=Path, default=Path("runs/variance"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/variance.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/variance.png"))
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for task in arguments.tasks:
        options, points = TASKS[task]
        before: Path | None = None
        for point in points:
            run = arguments.runs / f"{task}-{point}"
            if steps(run) < point:
                train(task, options, point, run, before)
            found.append(measure(run))
            before = run
            # Each time anew, so that a long series shows what it has.
            arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            arguments.out.with_suffix(".md").write_text("\n".join(map(describe, found)), "utf-8")
            draw(found, arguments.picture)


def train(task: str, options: list[str], point: int, run: Path, before: Path | None) -> None:
    """Make ``run``: the run of ``before`` (or a new one), gone on with until past ``point``."""
    if not run.exists() and before is not None:
        shutil.copytree(before, run, ignore=shutil.ignore_patterns("variance"))
    resume = ["--resume"] if run.exists() else []
    # A checkpoint comes with every evaluation, which here need not be good.
    more = ["--evaluations", str(int(options[-1]) // 500), "--eval-episodes", "1"]
    process = subprocess.Popen([*MAIRL, "train", task, *options, *more, "--out", str(run), *resume])
    while process.poll() is None and steps(run) < point:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.wait()
    if steps(run) < point:
        raise SystemExit(f"the run of {task} in {run} ended before step {point}")


def measure(run: Path) -> dict[str, Any]:
    """What ``mairl variance`` says of the run."""
    path = run / "variance" / f"step-{steps(run):08d}.json"
    if not path.exists():
        subprocess.run([*MAIRL, "variance", str(run), "--horizons", *HORIZONS], check=True)
    return json.loads(path.read_text(encoding="utf-8"))


def steps(run: Path) -> int:
    """Environment steps of the newest checkpoint in ``run``; 0 without any."""
    found = (run / "checkpoints").glob("checkpoint-*-step-*")
    return max((int(folder.name.rpartition("-")[2]) for folder in found), default=0)


if __name__ == "__main__":
    main()
