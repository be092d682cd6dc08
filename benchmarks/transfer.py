"""The transfer benchmark: point mazes, robots, and the grid's reward beside the true one.

    python benchmarks/transfer.py maze --seeds 5 --out runs/transfer
    python benchmarks/transfer.py grid --seeds 5 --out runs/transfer
    python benchmarks/transfer.py robots --seeds 5 --out runs/transfer
    python benchmarks/transfer.py ants --seeds 5 --out runs/transfer
    python benchmarks/transfer.py cheetahs --seeds 3 --out runs/transfer
    python benchmarks/transfer.py table --out runs/transfer
    python benchmarks/transfer.py picture RUN [TRANSFER_RUN] FILE.png
    python benchmarks/transfer.py grid-picture RUN FILE.png
    python benchmarks/transfer.py robots-picture FILE.png
    python benchmarks/transfer.py ants-picture FILE.png
    python benchmarks/transfer.py cheetahs-picture FILE.png

``maze`` learns rewards in PointMazeLeft and transfers each to PointMazeRight: ours of states
alone (also under Stable-Baselines3 where it is installed) and of states and actions, GAIL's and
AIRL's under the same budget; beside learners of the true reward there (``true_reward.py``).
``grid`` records demonstrations of GridWorld's maximum-entropy expert and learns its reward from
them, adversarially and by exact maximum-entropy IRL. ``robots`` learns Hopper's reward of states
alone and goes on with it under other physics (``--warm-start``); beside it the same learner on the
true reward there, from nothing. ``ants`` learns CustomAnt's reward, ranks disturbed behavior there
(``mairl rank``), and learns the disabled ant afresh by the ranked, the adversarial and the true
reward, and by GAIL's and AIRL's under the same budget. ``cheetahs`` does so with HalfCheetah and a
weaker one, where it also goes on with the adversarial reward (``--warm-start``). Runs that are
there already are kept, killed ones resumed. ``table`` puts the runs into
``benchmarks/results/transfer-*.json``, in the place of former ones of the same cell and seed, and
prints all that are there; ``picture`` draws a maze's g with episodes of the policies on it.
"""

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from experts import grid_expert, record

import mairl
from mairl.bench.schedule import ONE_THREAD
from mairl.bench.statistics import interval, iqm
from mairl.envs import pointmaze

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LEFT, RIGHT, GRIDWORLD = (
    f"mairl/{name}-v0" for name in ("PointMazeLeft", "PointMazeRight", "GridWorld")
)
FEW = shlex.split("--evaluations 4 --eval-episodes 2")
SMALL = shlex.split("--dynamics.width 64 --dynamics.members 2")
"""Two observed numbers need no larger model."""

OURS = shlex.split("--preset transferable")
PPO = shlex.split("--num-envs 2 --collect-steps 125")
"""Rollouts short enough for some twenty of them in the budget."""

REWARDS = {
    "state-only": [*SMALL, *OURS],
    "state-action": [*SMALL, *OURS, "--reward.no-state-only"],
    "gail": ["--algo", "gail", *PPO],
    "airl": ["--algo", "airl", "--reward.state-only", *PPO],
}
GRID = shlex.split(
    "--preset transferable --gamma 0.95 --reward.expected --reward.imagined 1 "
    "--reward.imagined-demonstrated --reward.gradient-penalty 0 --reward.learning-rate 3e-2 "
    "--iterations 2 --policy.hidden 32 32 --policy.learning-rate 1e-3 --value.hidden 32 32 "
    "--value.steps 1 --value.learning-rate 1e-3 --dynamics.members 2 --dynamics.batch-size 512 "
    "--dynamics.learning-rate 3e-4 --reward.hidden"
)
"""g and h are tables (no hidden layer), and the discount is the expert's."""

ROBOT, CHEETAH = "Hopper-v5", "HalfCheetah-v5"
SHIFTS = ("gravity=0.7", "mass=1.3", "gear=0.8")
ROBOT_STEPS, SHIFT_STEPS = 20_000, 15_000
LONG_STEPS = {ROBOT: 50_000, CHEETAH: 60_000}
"""How far the true reward gets in longer, with the first seed."""

ANT, DISABLED = "mairl/CustomAnt-v0", "mairl/DisabledAnt-v0"
ANT_STEPS, DISABLED_STEPS = 8_000, 20_000

WEAKER = "mairl/HalfCheetah-v0?gear=0.8"
CHEETAH_STEPS, WEAKER_STEPS = 20_000, 20_000

MAZE_STEPS, TRANSFER_STEPS, GRID_STEPS = 10_000, 12_000, 20_000
GRID_EPISODES, GRID_LENGTH = 50_000, 10
"""Short episodes: five sixths of 50 steps would be spent at the goal."""


def run(out: Path, *words: str, program: tuple[str, ...] = ("-m", "mairl.cli")) -> None:
    """``mairl`` with these words, on one thread; resumed or left alone where it has been.

    What cannot be resumed (another ``program``, Stable-Baselines3) begins anew.
    """
    if (out / "result.json").exists():
        return
    command = [sys.executable, *program, *words, "--out", str(out)]
    if (out / "checkpoints").exists():
        command.append("--resume")
    elif out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Not with_suffix: names have dots (gravity-0.7).
    with open(out.parent / f"{out.name}.log", "a") as log:
        environment = {**os.environ, **ONE_THREAD}
        code = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
    print(f"{out.name}: {'done' if not code else f'exit code {code}, see its .log'}", flush=True)


def maze(seeds: list[int], out: Path) -> None:
    """Sources, their transfers and the references, seed by seed."""
    sb3 = importlib.util.find_spec("stable_baselines3") is not None
    if not sb3:
        print("Stable-Baselines3 is not installed: its cells are left out")
    for seed in map(str, seeds):
        length = ["--steps", str(TRANSFER_STEPS), "--seed", seed]
        for name, options in REWARDS.items():
            source = out / f"maze-{name}-source-s{seed}"
            begin = ["--steps", str(MAZE_STEPS), "--seed", seed]
            run(source, "train", LEFT, *options, "--reward.hidden", "64", "64", *FEW, *begin)
            kinds = {"fresh": SMALL}
            if name == "state-only" and sb3:
                kinds |= {"sb3": ["--learner", "sb3"]}
            for kind, more in kinds.items():
                target = out / f"maze-{name}-{kind}-s{seed}"
                run(target, "transfer", str(source), RIGHT, *more, *FEW, *length)
        program = (str(HERE / "true_reward.py"),)
        for learner in ("mairl", *(["sb3"] if sb3 else [])):
            scales = ["--run", str(out / f"maze-state-only-source-s{seed}")]
            words = [RIGHT, "--learner", learner, *scales, *length]
            run(out / f"maze-true-reward-{learner}-s{seed}", *words, program=program)


def grid(seeds: list[int], out: Path) -> None:
    """The grid's reward, from demonstrations of its own for every seed."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        demos = out / f"grid-demos-s{seed}.npz"
        if not demos.exists():
            record(GRIDWORLD, grid_expert(seed), GRID_EPISODES, demos, seed, length=GRID_LENGTH)
        words = ["train", GRIDWORLD, "--demos", str(demos), "--seed", str(seed)]
        run(out / f"grid-maxent-s{seed}", *words, "--algo", "maxent", "--gamma", "0.95")
        # The option without numbers comes last: it takes all that follow.
        length = ["--steps", str(GRID_STEPS)]
        run(out / f"grid-mairl-s{seed}", *words, *FEW, *length, *GRID)


def robots(seeds: list[int], out: Path) -> None:
    """A robot's reward, and how its policy comes to terms with other physics by it."""
    for seed in map(str, seeds):
        source = out / f"robots-source-s{seed}"
        begin = ["--episodes", "1", "--steps", str(ROBOT_STEPS), "--seed", seed]
        run(source, "train", ROBOT, "--reward.state-only", *begin)
        length = ["--steps", str(SHIFT_STEPS), "--seed", seed]
        for shift in SHIFTS:
            target = f"mairl/{ROBOT.partition('-')[0]}-v0?{shift}"
            name = f"robots-{shift.replace('=', '-')}"
            words = ["transfer", str(source), target, "--warm-start", *length]
            run(out / f"{name}-warm-s{seed}", *words)
            true_reward(out / f"{name}-true-reward-s{seed}", target, source, length)
    first = str(seeds[0])
    length = ["--steps", str(LONG_STEPS[ROBOT]), "--seed", first]
    source, name = out / f"robots-source-s{first}", f"robots-mass-1.3-true-reward-long-s{first}"
    true_reward(out / name, "mairl/Hopper-v0?mass=1.3", source, length)


def ants(seeds: list[int], out: Path) -> None:
    """The ant's reward in an ant without the use of its front legs; afresh, no warm start."""
    for seed in map(str, seeds):
        length = ["--steps", str(DISABLED_STEPS), "--seed", seed]
        source = ranked(out, "ants", (ANT, ANT_STEPS), DISABLED, length, seed)
        run(out / f"ants-adversarial-s{seed}", "transfer", str(source), DISABLED, *length)
        for name in ("gail", "airl"):
            source = out / f"ants-{name}-source-s{seed}"
            begin = ["--episodes", "1", "--steps", str(ANT_STEPS), "--seed", seed]
            run(source, "train", ANT, *REWARDS[name], *FEW, *begin)
            run(out / f"ants-{name}-s{seed}", "transfer", str(source), DISABLED, *length)


def cheetahs(seeds: list[int], out: Path) -> None:
    """HalfCheetah's rewards where its motors are weaker: afresh, and going on with the policy."""
    for seed in map(str, seeds):
        length = ["--steps", str(WEAKER_STEPS), "--seed", seed]
        source = ranked(out, "cheetahs", (CHEETAH, CHEETAH_STEPS), WEAKER, length, seed)
        length = ["--steps", str(SHIFT_STEPS), "--seed", seed]
        words = ["transfer", str(source), WEAKER, "--warm-start", *length]
        run(out / f"cheetahs-warm-s{seed}", *words)
    first = str(seeds[0])
    length = ["--steps", str(LONG_STEPS[CHEETAH]), "--seed", first]
    source = out / f"cheetahs-source-s{first}"
    true_reward(out / f"cheetahs-true-reward-long-s{first}", WEAKER, source, length)
    if importlib.util.find_spec("stable_baselines3"):
        words = [WEAKER, "--learner", "sb3", "--steps", str(WEAKER_STEPS), "--seed", first]
        program = (str(HERE / "true_reward.py"),)
        run(out / f"cheetahs-true-reward-sb3-s{first}", *words, program=program)


def ranked(
    out: Path, task: str, origin: tuple[str, int], target: str, length: list[str], seed: str
) -> Path:
    """The target learned afresh by the origin's ranked and by the true reward; the source's run."""
    source, reward = out / f"{task}-source-s{seed}", out / f"{task}-reward-s{seed}"
    begin = ["--episodes", "1", "--steps", str(origin[1]), "--seed", seed]
    run(source, "train", origin[0], "--reward.state-only", *begin)
    if not (reward / "reward.json").exists():
        run(reward, "rank", str(source), "--seed", seed)
    run(out / f"{task}-ranked-s{seed}", "transfer", str(reward), target, *length)
    true_reward(out / f"{task}-true-reward-s{seed}", target, source, length)
    return source


def true_reward(out: Path, target: str, source: Path, length: list[str]) -> None:
    """A robot learned afresh by the true reward, at the discount and horizon of its source."""
    algo = json.loads((source / "config.json").read_text(encoding="utf-8"))["config"]["algo"]
    words = [target, "--learner", "mairl", "--run", str(source), *length]
    words += ["--gamma", str(algo["gamma"]), "--horizon", str(algo["policy"]["horizon"])]
    run(out, *words, program=(str(HERE / "true_reward.py"),))


def compare_grid(path: Path) -> dict[str, Any]:
    """Recovered against true reward: Pearson's r, and cells whose best action is a best one.

    Both rewards are solved exactly with the known transitions; an action counts as best if its
    true Q is within 1e-6 of the best.
    """
    env: Any = gym.make(GRIDWORLD).unwrapped
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
        "largest_regret": float(regret.max()),
        "recovered": recovered.tolist(),
    }


def optimal_values(transitions: np.ndarray, reward: np.ndarray, gamma: float = 0.95) -> np.ndarray:
    """Q* ``[cells, actions]`` by value iteration, to 1e-9 of the largest reward."""
    value, q = np.zeros(len(reward)), np.zeros(0)
    for _ in range(1000):
        q = reward[:, None] + gamma * transitions @ value
        value = q.max(1)
    return q


NAMES = ("return_mean", "source_return_mean", "bc_return_mean", "random_return", "expert_return")


def table(out: Path) -> None:
    """Put the runs that are there into the raw results and print those."""
    for task in ("grid", "maze", "robots", "ants", "cheetahs"):
        file = RESULTS / f"transfer-{task}.json"
        rows = json.loads(file.read_text()) if file.exists() else []
        rows += [read_row(path.parent) for path in out.glob(f"{task}-*/result.json")]
        if not rows:
            continue
        newest = {(row["cell"], row["seed"]): row for row in rows}
        rows = [newest[key] for key in sorted(newest)]
        RESULTS.mkdir(exist_ok=True)
        file.write_text(json.dumps(rows, indent=1) + "\n")
        for cell in dict.fromkeys(row["cell"] for row in rows):
            print(cell_line(cell, [row for row in rows if row["cell"] == cell]))


def read_row(path: Path) -> dict[str, Any]:
    """What is kept of one run."""
    result = json.loads((path / "result.json").read_text())
    cell, seed = path.name.rsplit("-s", 1)
    names = ("env_steps", *NAMES, "wall_seconds", "peak_memory_bytes")
    row = {"cell": cell, "seed": int(seed), **{name: result.get(name) for name in names}}
    if cell.startswith(("robots", "ants", "cheetahs")):
        # true_reward.py's are pairs already.
        pairs = [
            (e["env_steps"], e["return_mean"]) if isinstance(e, dict) else e
            for e in result["evaluations"]
        ]
        row["evaluations"] = [[steps, round(value, 1)] for steps, value in pairs]
    if cell.endswith("-ranked"):
        reward = path.parent / f"{cell.removesuffix('ranked')}reward-s{seed}"
        about = json.loads((reward / "config.json").read_text())["ranked"]
        names = ("env_steps", "lambda", "held_out_mistakes", "weights")
        row["ranking"] = {name: about[name] for name in names}
    return row | (compare_grid(path) if cell.startswith("grid") else {})


def cell_line(cell: str, rows: list[dict[str, Any]]) -> str:
    """Its seeds in one line: IQM and 95 % interval."""
    returns = np.array([row["return_mean"] for row in rows])
    low, high = interval([returns])
    text = f"{cell:28s} {len(rows)} seeds  return {iqm([returns]):.2f} [{low:.2f}, {high:.2f}]"
    for name in NAMES[1:]:
        found = [row[name] for row in rows if row[name] is not None]
        text += f"  {name.split('_')[0]} {iqm([np.array(found)]):.2f}" if found else ""
    if cell.startswith(("robots", "cheetahs")) and cell.endswith("warm"):
        text += (
            f"  better than the source's policy after {[first_better(row) for row in rows]} steps"
        )
    if "pearson" in rows[0]:
        text += f"  Pearson {[round(row['pearson'], 4) for row in rows]}"
        text += f"  optimal in {[row['optimal_cells'] for row in rows]} of 25 cells"
    return text


def first_better(row: dict[str, Any]) -> int | None:
    """Environment steps from which on every evaluation beats the source's policy."""
    steps = None
    for taken, found in reversed(row["evaluations"]):
        if found <= row["source_return_mean"]:
            break
        steps = taken
    return steps


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


def grid_picture(run: Path, file: Path) -> None:
    """True reward and recovered g, in the true one's units by least squares, with numbers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    env: Any = gym.make(GRIDWORLD).unwrapped
    true, found = env.reward_table, compare_grid(run)
    scale, offset = np.polyfit(found["recovered"], true, 1)
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    image: Any = None
    title = f"recovered, r = {found['pearson']:.3f}"
    fitted = scale * np.array(found["recovered"]) + offset
    for axes, name, cells in zip(
        figure.subplots(1, 2), ("true reward", title), (true, fitted), strict=True
    ):
        image = axes.imshow(cells.reshape(env.shape), cmap="viridis", vmin=-1.2, vmax=1.2)
        for cell, value in enumerate(cells):
            row, column = divmod(cell, env.shape[1])
            colour = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
        axes.set(title=name, xticks=[], yticks=[])
    figure.colorbar(image, ax=list(figure.axes), label="reward of a step from there", shrink=0.85)
    figure.savefig(file, dpi=130)


def draw_returns(axes: Any, rows: list[dict[str, Any]], kinds: Any) -> None:
    """Of each kind (cell, colour, label) every seed's returns, and their median."""
    for name, colour, label in kinds:
        found = [row for row in rows if row["cell"] == name]
        if not found:
            continue
        for row in found:
            axes.plot(*np.array(row["evaluations"]).T, color=colour, lw=0.7, alpha=0.4)
        taken = np.array(found[0]["evaluations"])[:, 0]
        middle = np.median([np.array(row["evaluations"])[:, 1] for row in found], 0)
        axes.plot(taken, middle, color=colour, lw=2.2, label=label)


LEVELS = {
    "expert_return": ("-.", "shipped expert"),
    "source_return_mean": ("--", "source's policy"),
    "bc_return_mean": (":", "cloning"),
}


def returns_picture(task: str, title: str, file: Path) -> None:
    """Return over environment steps in the target, from the committed raw numbers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = json.loads((RESULTS / f"transfer-{task}.json").read_text())
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kinds = (
        (f"{task}-ranked", "#2f6f9f", "ranked reward"),
        (f"{task}-adversarial", "#c98a2b", "adversarial reward"),
        (f"{task}-warm", "#c98a2b", "adversarial reward, warm start"),
        (f"{task}-true-reward", "#b04a3a", "true reward"),
    )
    draw_returns(axes, rows, kinds)
    moved = {row["seed"]: row for row in rows if row["source_return_mean"] is not None}
    for name, (style, label) in LEVELS.items():
        found = [row[name] for row in moved.values() if row[name] is not None]
        if found:
            level = float(np.mean(found))
            axes.axhline(level, color="black", lw=1.0, ls=style, label=label)
    axes.set(title=title, xlabel="environment steps", ylabel="true return")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(file, dpi=130)


def robots_picture(file: Path) -> None:
    """Return over environment steps under each physics, from the committed raw numbers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = json.loads((RESULTS / "transfer-robots.json").read_text())
    figure = Figure(figsize=(4.0 * len(SHIFTS), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(SHIFTS), sharey=True, squeeze=False)[0]
    for axes, shift in zip(all_axes, SHIFTS, strict=True):
        cell = f"robots-{shift.replace('=', '-')}"
        kinds = (
            (f"{cell}-warm", "#2f6f9f", "learned reward, warm start"),
            (f"{cell}-true-reward", "#b04a3a", "true reward, from nothing"),
        )
        draw_returns(axes, rows, kinds)
        warm = [row for row in rows if row["cell"] == f"{cell}-warm"]
        for name, style, label in (
            ("source_return_mean", "--", "source's policy"),
            ("bc_return_mean", ":", "cloning"),
        ):
            level = np.mean([row[name] for row in warm])
            axes.axhline(level, color="black", lw=1.0, ls=style, label=label)
        axes.set(title=f"Hopper, {shift}", xlabel="environment steps", ylim=(0, 3900))
    all_axes[0].set_ylabel("true return")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "verb",
        choices=[
            *("maze", "grid", "robots", "ants", "cheetahs", "table"),
            *("picture", "grid-picture", "robots-picture", "ants-picture", "cheetahs-picture"),
        ],
    )
    parser.add_argument("paths", nargs="*", type=Path, help="of picture: runs, then the file")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    options = parser.parse_args()
    seeds = list(range(options.seeds))
    if options.verb == "picture":
        *runs, file = options.paths
        picture(runs, file)
    elif options.verb == "grid-picture":
        grid_picture(*options.paths)
    elif options.verb == "robots-picture":
        robots_picture(*options.paths)
    elif options.verb == "ants-picture":
        returns_picture("ants", "DisabledAnt", *options.paths)
    elif options.verb == "cheetahs-picture":
        returns_picture("cheetahs", "HalfCheetah, gear=0.8", *options.paths)
    elif options.verb == "table":
        table(options.out)
    else:
        verbs = {"maze": maze, "grid": grid, "robots": robots, "ants": ants, "cheetahs": cheetahs}
        verbs[options.verb](seeds, options.out)


if __name__ == "__main__":
    main()
