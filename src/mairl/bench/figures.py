"""Pictures of a suite's records."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mairl.bench.statistics import (
    Strata,
    curve,
    curve_band,
    improvement_interval,
    interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    profile_band,
)

if TYPE_CHECKING:
    from mairl.bench.report import Row

COLOURS = (
    *("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3"),
    *("#937860", "#da8bc3", "#4d4d4d", "#ccb974", "#64b5cd"),
)
AXES = {"env_steps": "environment steps", "seconds": "seconds"}
THRESHOLDS = np.linspace(0.0, 1.05, 106)

Colours = Mapping[str, str]


def draw(
    rows: Sequence["Row"],
    whole: Mapping[str, Strata],
    by_algorithm: Mapping[str, Mapping[str, np.ndarray]],
    out: Path,
) -> list[tuple[str, str]]:
    """Write the pictures to ``out``; their file names, with a line on what each shows.

    ``whole``: scores of algorithms run on every task; ``by_algorithm``: of all, by task.
    """
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(by_algorithm)}
    drawn = []
    for axis, label in AXES.items():
        if any(row.curves(axis) for row in rows):
            _curves(rows, axis, colours).savefig(out / f"curves-{axis}.png", dpi=130)
            text = f"Evaluations over {label}: IQM over seeds and its 95 % interval"
            drawn.append((f"curves-{axis}.png", text))
    if rows:
        _scores(rows, whole, colours).savefig(out / "scores.png", dpi=130)
        drawn.append(("scores.png", "Last policies: IQM, its 95 % interval, and every seed"))
    if whole:
        _profile(whole, colours).savefig(out / "profile.png", dpi=130)
        drawn.append(("profile.png", "Performance profile: share of runs above each score"))
    if len(by_algorithm) > 1:
        _improvement(by_algorithm, colours).savefig(out / "improvement.png", dpi=130)
        drawn.append(("improvement.png", "Probability of improvement, with 95 % interval"))
    return drawn


def _curves(rows: Sequence["Row"], axis: str, colours: Colours) -> Any:
    tasks = list(dict.fromkeys(row.task.name for row in rows))
    columns = min(3, len(tasks))
    figure, grid = _figure(4.2 * columns, 2.9 * math.ceil(len(tasks) / columns), tasks, columns)
    for panel, task in zip(grid, tasks, strict=True):
        for row in (r for r in rows if r.task.name == task):
            if not (found := row.curves(axis)):
                continue
            x, values = curve([x for x, _ in found], [scores for _, scores in found])
            middle, low, high = curve_band(values)
            panel.fill_between(x, low, high, color=colours[row.algorithm], alpha=0.18, linewidth=0)
            panel.plot(x, middle, color=colours[row.algorithm], linewidth=1.6, label=row.algorithm)
        panel.axhline(1.0, color="#222222", linewidth=0.8, linestyle=":")
        panel.set_title(task, fontsize=10)
        panel.set_xlim(left=0)
        panel.set_xlabel(AXES[axis], fontsize=9)
        panel.set_ylim(*_limits(panel))
    grid[0].set_ylabel("normalized return", fontsize=9)
    _legend(figure, colours)
    return figure


def _limits(panel: Any) -> tuple[float, float]:
    # One very bad evaluation must not flatten the rest.
    low, high = panel.get_ylim()
    return max(low, -0.5), min(max(high, 1.05), 1.5)


def _scores(rows: Sequence["Row"], whole: Mapping[str, Strata], colours: Colours) -> Any:
    lines = [(f"{r.task.name}   {r.algorithm}", r.algorithm, [r.scores]) for r in rows]
    lines += [(f"all tasks   {name}", name, strata) for name, strata in whole.items()]
    figure, (panel,) = _figure(7.5, 0.6 + 0.26 * len(lines), ["scores"], 1)
    for y, (_, name, strata) in enumerate(lines):
        low, high = interval(strata)
        scores = np.concatenate(strata)
        panel.plot(scores, np.full(len(scores), y), "|", color=colours[name], alpha=0.6)
        panel.plot(
            [low, high], [y, y], color=colours[name], linewidth=5, alpha=0.35, solid_capstyle="butt"
        )
        panel.plot(iqm(strata), y, "o", color=colours[name], markersize=5)
    panel.set_yticks(range(len(lines)), [text for text, *_ in lines], fontsize=8)
    panel.invert_yaxis()
    panel.axvline(1.0, color="#222222", linewidth=0.8, linestyle=":")
    low, high = panel.get_xlim()
    panel.set_xlim(max(low, -0.5), min(high, 1.5))
    panel.set_xlabel("normalized return", fontsize=9)
    return figure


def _profile(whole: Mapping[str, Strata], colours: Colours) -> Any:
    figure, (panel,) = _figure(5.5, 3.6, ["profile"], 1)
    for name, strata in whole.items():
        low, high = profile_band(strata, THRESHOLDS)
        panel.fill_between(THRESHOLDS, low, high, color=colours[name], alpha=0.18, linewidth=0)
        shares = performance_profile(strata, THRESHOLDS)
        panel.plot(THRESHOLDS, shares, color=colours[name], linewidth=1.6)
    panel.set_xlabel("normalized return τ", fontsize=9)
    panel.set_ylabel("share of runs above τ", fontsize=9)
    panel.set_xlim(THRESHOLDS[0], THRESHOLDS[-1])
    panel.set_ylim(-0.02, 1.02)
    _legend(figure, {name: colours[name] for name in whole})
    return figure


def _improvement(scores: Mapping[str, Mapping[str, np.ndarray]], colours: Colours) -> Any:
    lines = []
    names = list(scores)
    for i, x in enumerate(names):
        for y in names[i + 1 :]:
            shared = [task for task in scores[x] if task in scores[y]]
            if shared:
                lines.append((x, y, [scores[x][t] for t in shared], [scores[y][t] for t in shared]))
    figure, (panel,) = _figure(6.5, 0.8 + 0.3 * len(lines), ["improvement"], 1)
    for row, (x, _, of_x, of_y) in enumerate(lines):
        panel.plot(
            improvement_interval(of_x, of_y),
            [row, row],
            color=colours[x],
            linewidth=5,
            alpha=0.35,
            solid_capstyle="butt",
        )
        panel.plot(probability_of_improvement(of_x, of_y), row, "o", color=colours[x], markersize=5)
    labels = [f"{x} > {y}   ({len(a)} task{'s' if len(a) > 1 else ''})" for x, y, a, _ in lines]
    panel.set_yticks(range(len(lines)), labels, fontsize=8)
    panel.invert_yaxis()
    panel.axvline(0.5, color="#222222", linewidth=0.8, linestyle=":")
    panel.set_xlim(-0.02, 1.02)
    panel.set_xlabel("probability", fontsize=9)
    return figure


def _figure(
    width: float, height: float, panels: Sequence[str], columns: int
) -> tuple[Any, list[Any]]:
    # Here, not on top: it takes a second to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(math.ceil(len(panels) / columns), columns, squeeze=False).ravel()
    for panel in grid[len(panels) :]:
        panel.set_visible(False)
    for panel in grid:
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return figure, list(grid[: len(panels)])


def _legend(figure: Any, colours: Colours) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=2) for colour in colours.values()]
    figure.legend(
        *(handles, list(colours)),
        loc="outside lower center",
        ncols=min(5, len(handles)),
        frameon=False,
        fontsize=8,
    )
