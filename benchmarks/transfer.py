"""The transfer benchmark: point mazes, and the grid's reward beside the true one.

    python benchmarks/transfer.py maze --seeds 5 --out runs/transfer
    python benchmarks/transfer.py grid --seeds 5 --out runs/transfer
    python benchmarks/transfer.py table --out runs/transfer
    python benchmarks/transfer.py picture RUN [TRANSFER_RUN] FILE.png

``maze`` learns a reward in PointMazeLeft, of states alone and of states and actions, and
transfers each to PointMazeRight, with and without a warm start; also one of states alone by the
default settings. ``grid`` learns GridWorld's
reward by adversarial maximum-entropy learning. Runs that are there already are kept, killed ones
resumed. ``table`` writes ``benchmarks/results/transfer.json`` and prints it; ``picture`` draws a
maze's g with episodes of the policies on it.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import mairl
from mairl.bench.schedule import ONE_THREAD
from mairl.bench.statistics import interval, iqm
from mairl.envs import pointmaze

RESULTS = Path(__file__).parent / "results" / "transfer.json"
LEFT, RIGHT, GRID = "mairl/PointMazeLeft-v0", "mairl/PointMazeRight-v0", "mairl/GridWorld-v0"
SMALL = shlex.split(
    "--iterations 1 --policy.hidden 64 64 --value.hidden 64 64 --dynamics.width 64 "
    "--dynamics.members 2"
)
"""Two observed numbers need no more."""

REWARDS = {
    "state-only": ["--preset", "transferable"],
    "state-action": ["--preset", "transferable", "--reward.no-state-only"],
    "default": ["--reward.state-only"],
}
MAZE_STEPS, TRANSFER_STEPS, GRID_STEPS = 6_000, 12_000, 20_000


def run(out: Path, *words: str) -> None:
    """``mairl`` with these words, on one thread; resumed or left alone where it has been."""
    if (out / "result.json").exists():
        return
    command = [sys.executable, "-m", "mairl.cli", *words, "--out", str(out)]
    if out.exists():
        command.append("--resume")
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".log"), "a") as log:
        environment = {**os.environ, "XLA_FLAGS": ONE_THREAD}
        code = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
    print(f"{out.name}: {'done' if not code else f'exit code {code}, see its .log'}", flush=True)


def maze(seeds: list[int], out: Path) -> None:
    """Sources and their transfers, seed by seed."""
    for seed in map(str, seeds):
        for name, options in REWARDS.items():
            source = out / f"maze-{name}-source-s{seed}"
            reward = [*options, "--reward.hidden", "64", "64"]
            length = ["--steps", str(MAZE_STEPS), "--seed", seed]
            run(source, "train", LEFT, *SMALL, *reward, *length)
            for kind, warm in (("fresh", []), ("warm", ["--warm-start"])):
                target = out / f"maze-{name}-{kind}-s{seed}"
                length = ["--steps", str(TRANSFER_STEPS), "--seed", seed]
                run(target, "transfer", str(source), RIGHT, *SMALL, *warm, *length)


def grid(seeds: list[int], out: Path) -> None:
    """The grid's reward."""
    for seed in map(str, seeds):
        length = ["--steps", str(GRID_STEPS), "--seed", seed]
        run(out / f"grid-s{seed}", "train", GRID, *SMALL, "--preset", "transferable", *length)


def compare_grid(path: Path) -> dict[str, Any]:
    """Recovered against true reward: Pearson's r, and cells whose best action is a best one.

    Both rewards are solved exactly with the known transitions; an action counts as best if its
    true Q is within 1e-6 of the best.
    """
    env: Any = gym.make(GRID).unwrapped
    cells = np.eye(len(env.reward_table), dtype=np.float32)
    nothing = np.zeros(len(cells))
    recovered = mairl.load(path).reward(cells, nothing.astype(int), cells, nothing, component="g")
    q = optimal_values(env.transition_matrix, env.reward_table)
    chosen = optimal_values(env.transition_matrix, recovered).argmax(1)
    regret = q.max(1) - q[np.arange(len(q)), chosen]
    return {
        "pearson": float(np.corrcoef(recovered, env.reward_table)[0, 1]),
        "optimal_cells": int(np.sum(regret < 1e-6)),
        "cells": len(q),
        "recovered": recovered.tolist(),
    }


def optimal_values(transitions: np.ndarray, reward: np.ndarray, gamma: float = 0.95) -> np.ndarray:
    """Q* ``[cells, actions]`` by value iteration, to 1e-9 of the largest reward."""
    value, q = np.zeros(len(reward)), np.zeros(0)
    for _ in range(1000):
        q = reward[:, None] + gamma * transitions @ value
        value = q.max(1)
    return q


def table(out: Path) -> None:
    """Gather what is there, write it and print it."""
    rows: list[dict[str, Any]] = []
    for path in sorted(out.glob("*/result.json")):
        result = json.loads(path.read_text())
        cell, seed = path.parent.name.rsplit("-s", 1)
        names = ("env_steps", "return_mean", "source_return_mean", "bc_return_mean")
        names += ("random_return", "expert_return", "wall_seconds", "peak_memory_bytes")
        row = {"cell": cell, "seed": int(seed), **{name: result.get(name) for name in names}}
        rows.append(row | (compare_grid(path.parent) if cell == "grid" else {}))
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    for cell in dict.fromkeys(row["cell"] for row in rows):
        mine = [row for row in rows if row["cell"] == cell]
        returns = np.array([row["return_mean"] for row in mine])
        low, high = interval([returns])
        text = f"{cell:28s} {len(mine)} seeds  return {iqm([returns]):.2f} [{low:.2f}, {high:.2f}]"
        for name in ("source_return_mean", "bc_return_mean", "random_return", "expert_return"):
            found = [row[name] for row in mine if row[name] is not None]
            text += f"  {name.split('_')[0]} {np.mean(found):.2f}" if found else ""
        if cell == "grid":
            text += f"  Pearson {[round(row['pearson'], 3) for row in mine]}"
            text += f"  optimal in {[row['optimal_cells'] for row in mine]} of 25 cells"
        print(text)


def picture(runs: list[Path], file: Path) -> None:
    """The mazes of one or two runs, each with the first run's g and three episodes on it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    source = mairl.load(runs[0])
    ticks = np.linspace(*pointmaze.BOUNDS, 121)
    points = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2).astype(np.float32)
    rest = np.zeros(len(points))
    g = source.reward(points, np.zeros((len(points), 2)), points, rest, component="g")
    figure = Figure(figsize=(4.6 * len(runs) + 0.6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(runs), squeeze=False)[0]
    image: Any = None
    for axes, path in zip(all_axes, runs, strict=True):
        model = mairl.load(path)
        env: Any = gym.make(model.spec.env_id)
        edges = (*pointmaze.BOUNDS, *pointmaze.BOUNDS)
        image = axes.imshow(g.reshape(121, 121), origin="lower", extent=edges, cmap="viridis")
        for number, policy in ((0, model), *([(1, source)] if path != runs[0] else [])):
            for episode in range(3):
                obs, over, track = env.reset(seed=episode)[0], False, []
                while not over:
                    track.append(obs)
                    obs, _, terminated, truncated, _ = env.step(policy.predict(obs)[0])
                    over = terminated or truncated
                colour, label = (("white", "this policy"), ("#ff9d5c", "source's policy"))[number]
                axes.plot(*np.array(track).T, color=colour, lw=1.4, label="" if episode else label)
        west, east = env.unwrapped.wall
        axes.plot([west, east], [0.3, 0.3], color="black", lw=7, solid_capstyle="round")
        axes.plot(*pointmaze.START, "o", color="white", mec="black", label="start")
        axes.plot(*pointmaze.TARGET, "*", color="white", mec="black", ms=13, label="goal")
        axes.set(title=model.spec.env_id, xlabel="x (m)", ylabel="y (m)")
        axes.legend(fontsize=7, loc="lower left", framealpha=0.4, labelcolor="black")
    figure.colorbar(image, ax=list(all_axes), label="recovered g", shrink=0.85)
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("verb", choices=["maze", "grid", "table", "picture"])
    parser.add_argument("paths", nargs="*", type=Path, help="of picture: runs, then the file")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    options = parser.parse_args()
    seeds = list(range(options.seeds))
    if options.verb == "picture":
        *runs, file = options.paths
        picture(runs, file)
    elif options.verb == "table":
        table(options.out)
    else:
        {"maze": maze, "grid": grid}[options.verb](seeds, options.out)


if __name__ == "__main__":
    main()
