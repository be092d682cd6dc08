"""The learning benchmark: cells of (task, demonstrations, preset) over seeds.

    python benchmarks/learning.py run [CELL ...] --seeds 5 --jobs 2 --out runs/benchmark
    python benchmarks/learning.py table --out runs/benchmark

``run`` starts ``mairl train`` for every cell and seed that has no result yet (killed ones are
resumed), each on one thread; ``table`` gathers every ``result.json`` into
``benchmarks/results/learning.json`` and prints interquartile means with 95 % bootstrap intervals.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "learning.json"

TASKS = {
    "hopper-full": ("Hopper-v5", 1, 1, 30_000),
    "hopper-scarce": ("Hopper-v5", 4, 20, 50_000),
    "hopper-one-scarce": ("Hopper-v5", 1, 20, 30_000),
    "cartpole": ("CartPole-v1", 1, 1, 10_000),
    "inverted-pendulum": ("InvertedPendulum-v5", 1, 1, 10_000),
    "pendulum": ("Pendulum-v1", 4, 1, 15_000),
    "acrobot": ("Acrobot-v1", 4, 1, 20_000),
    "mountain-car": ("MountainCar-v0", 4, 1, 20_000),
    "swimmer-full": ("Swimmer-v5", 1, 1, 30_000),
    "walker2d-full": ("Walker2d-v5", 1, 1, 50_000),
    "ant-full": ("Ant-v5", 1, 1, 50_000),
    "halfcheetah-full": ("HalfCheetah-v5", 1, 1, 100_000),
}
"""Name to (environment, episodes, every k-th transition, environment steps)."""

VARIANTS = {
    "default": ["--preset", "default"],
    "paper": ["--preset", "paper"],
    "no-model": ["--preset", "default", "--reward.imagined", "0"],
    "no-cloning": ["--preset", "default", "--policy.cloning", "0"],
}
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean: the mean of the middle half, with fractional weights at its edges."""
    ordered = np.sort(scores)
    n = len(ordered)
    edges = np.arange(n + 1) / n
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    return float(weight @ ordered / weight.sum())


def interval(scores: np.ndarray, samples: int = 5000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the interquartile mean over seeds."""
    rng = np.random.default_rng(0)
    draws = rng.choice(scores, (samples, len(scores)))
    low, high = np.percentile([iqm(draw) for draw in draws], [2.5, 97.5])
    return float(low), float(high)


def run_one(cell: str, seed: int, out: Path) -> str:
    """Train one seed of ``task:variant``; returns a line to print."""
    task, variant = cell.split(":")
    env_id, episodes, every, steps = TASKS[task]
    path = out / f"{task}-{variant}-s{seed}"
    if (path / "result.json").exists():
        return f"{path.name}: done before"
    command = [sys.executable, "-m", "mairl.cli", "train", env_id, "--episodes", str(episodes)]
    command += ["--every", str(every), "--steps", str(steps), "--seed", str(seed)]
    command += [*VARIANTS[variant], "--out", str(path)]
    if path.exists():
        command.append("--resume")
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"{path.name}.log", "a") as log:
        environment = {**os.environ, "XLA_FLAGS": ONE_THREAD}
        code = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
    if code:
        return f"{path.name}: exit code {code}, see {path.name}.log"
    score = json.loads((path / "result.json").read_text())["normalized_return"]
    return f"{path.name}: {score:.3f}"


def run(cells: list[str], seeds: list[int], jobs: int, out: Path) -> None:
    """All cells, seed by seed, ``jobs`` at a time."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        todo = [pool.submit(run_one, cell, seed, out) for cell in cells for seed in seeds]
        for done in concurrent.futures.as_completed(todo):
            print(done.result(), flush=True)


def steps_to(result: dict, level: float) -> int | None:
    """Environment steps at the first evaluation at or above ``level``."""
    reached = [e["env_steps"] for e in result["evaluations"] if e["normalized_return"] >= level]
    return min(reached) if reached else None


def table(out: Path) -> None:
    """Gather the results, write the raw numbers and print the table."""
    cells: dict[str, list[dict]] = {}
    for path in sorted(out.glob("*/result.json")):
        cells.setdefault(path.parent.name.rsplit("-s", 1)[0], []).append(
            json.loads(path.read_text())
        )
    rows = []
    for name, results in cells.items():
        scores = np.array([r["normalized_return"] for r in results])
        low, high = interval(scores)
        first = results[0]
        late = [e for r in results for e in _after(r, 0.9)]
        rows.append(
            {
                "cell": name,
                "env_id": first["env_id"],
                "demos": first["demos"],
                "env_steps": first["env_steps"],
                "seeds": [r["seed"] for r in results],
                "normalized_return": scores.tolist(),
                "iqm": iqm(scores),
                "interval": [low, high],
                "bc_iqm": iqm(np.array([r["bc_normalized_return"] for r in results])),
                "bc_normalized_return": [r["bc_normalized_return"] for r in results],
                "steps_to": {
                    str(level): [steps_to(r, level) for r in results] for level in (0.5, 0.9, 0.95)
                },
                "stays_above_0.8": float(np.mean([e > 0.8 for e in late])) if late else None,
                "wall_seconds": [r["wall_seconds"] for r in results],
                "evaluations": [
                    [[e["env_steps"], e["normalized_return"]] for e in r["evaluations"]]
                    for r in results
                ],
                "return_mean": [r["return_mean"] for r in results],
                "expert_return": first["expert_return"],
                "random_return": [r["random_return"] for r in results],
            }
        )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print("| cell | steps | seeds | IQM [95 %] | cloning IQM | median steps to .9 | stays | s |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        reached = [s for s in row["steps_to"]["0.9"] if s is not None]
        median = f"{int(np.median(reached))} ({len(reached)})" if reached else "–"
        stays = "–" if row["stays_above_0.8"] is None else f"{row['stays_above_0.8']:.2f}"
        print(
            f"| {row['cell']} | {row['env_steps']} | {len(row['seeds'])} | {row['iqm']:.3f} "
            f"[{row['interval'][0]:.3f}, {row['interval'][1]:.3f}] | {row['bc_iqm']:.2f} "
            f"| {median} | {stays} | {np.median(row['wall_seconds']):.0f} |"
        )


def _after(result: dict, level: float) -> list[float]:
    """Scores of the evaluations that follow the first one at or above ``level``."""
    scores = [e["normalized_return"] for e in result["evaluations"]]
    first = next((i for i, s in enumerate(scores) if s >= level), len(scores))
    return scores[first + 1 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("verb", choices=["run", "table"])
    parser.add_argument("cells", nargs="*", help="task:variant, or task for its default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    options = parser.parse_args()
    if options.verb == "table":
        return table(options.out)
    cells = [c if ":" in c else f"{c}:default" for c in options.cells or TASKS]
    unknown = [c for c in cells if c.split(":")[0] not in TASKS or c.split(":")[1] not in VARIANTS]
    if unknown:
        parser.error(f"unknown cells {unknown}; tasks: {list(TASKS)}, variants: {list(VARIANTS)}")
    return run(cells, list(range(options.seeds)), options.jobs, options.out)


if __name__ == "__main__":
    main()
