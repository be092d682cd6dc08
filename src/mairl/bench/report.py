"""Tables of a suite's records, in markdown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mairl.bench import figures
from mairl.bench.results import Record
from mairl.bench.statistics import (
    Strata,
    first_reach,
    improvement_interval,
    interval,
    iqm,
    probability_of_improvement,
    staying,
)
from mairl.bench.suite import Suite, Task

LEVELS = (0.5, 0.9, 0.95)
FILE = "report.md"


@dataclass(frozen=True)
class Row:
    """The finished runs of one algorithm on one task, by seed."""

    task: Task
    algorithm: str
    place: int
    """Of the algorithm in the suite."""
    records: tuple[Record, ...]

    @property
    def scores(self) -> np.ndarray:
        """Normalized returns of the last policies ``[seeds]``."""
        return np.array([r["normalized_return"] for r in self.records])

    @property
    def episodes(self) -> np.ndarray | None:
        """Normalized returns of all episodes of all last policies; None where any is unknown."""
        if not all(r.get("returns") for r in self.records):
            return None
        parts = []
        for record in self.records:
            low, high = record["random_return"], record["expert_return"]
            parts.append((np.array(record["returns"]) - low) / (high - low))
        return np.concatenate(parts)

    def curves(self, axis: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each run's evaluations: ``(x, normalized return)``; without those whose x is unknown.

        ``axis``: env_steps or seconds.
        """
        found = []
        for record in self.records:
            steps, scores, seconds = zip(*record["evaluations"], strict=True)
            x = steps if axis == "env_steps" else seconds
            if None not in x:
                found.append((np.array(x, float), np.array(scores, float)))
        return found


def rows_of(suite: Suite, records: Sequence[Record]) -> list[Row]:
    """Rows in the suite's order; those without a finished run are left out."""
    rows = []
    for task in suite.tasks:
        for place, algorithm in enumerate(suite.algorithms):
            mine = [
                r for r in records if (r["task"], r["algorithm"]) == (task.name, algorithm.name)
            ]
            if mine and algorithm.runs_on(task):
                by_seed = sorted(mine, key=lambda r: r["seed"])
                rows.append(Row(task, algorithm.name, place, tuple(by_seed)))
    return rows


def strata_of(rows: Sequence[Row]) -> dict[str, dict[str, np.ndarray]]:
    """Scores by algorithm, then by task, both in the suite's order."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for row in sorted(rows, key=lambda row: row.place):
        found.setdefault(row.algorithm, {})[row.task.name] = row.scores
    return found


def complete(rows: Sequence[Row]) -> dict[str, Strata]:
    """Scores of the algorithms that have been run on every task that any has: only these can be
    summed up over tasks and compared."""
    tasks = dict.fromkeys(row.task.name for row in rows)
    by_algorithm = strata_of(rows)
    return {
        name: [scores[t] for t in tasks]
        for name, scores in by_algorithm.items()
        if set(scores) == set(tasks)
    }


def write(suite: Suite, records: Sequence[Record], out: Path) -> str:
    """Write ``out/report.md`` and the figures beside it; returns the report's text."""
    rows = rows_of(suite, records)
    drawn = figures.draw(rows, complete(rows), strata_of(rows), out)
    parts = [f"# {suite.name}", suite.description, _head(), task_table(rows)]
    parts += ["## All tasks together", overall_table(rows)]
    if len(strata_of(rows)) > 1:
        parts += ["## Probability of improvement", improvement_table(rows)]
    parts += ["## Figures", "\n\n".join(f"![{text}]({name})\n*{text}*" for name, text in drawn)]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (out / FILE).write_text(text, encoding="utf-8")
    return text


def _head() -> str:
    return (
        "Normalized return (return − random) / (expert − random) of the last policy on 20 fresh "
        "episodes, deterministic actions: interquartile mean (IQM) over seeds with 95 % "
        "stratified bootstrap interval. *Episodes*: IQM over the episodes of all seeds, which "
        "leaves out the worst and the best quarter of them. *Cloning*: IQM of behavioral cloning "
        "on the same transitions. *To .5 / .9 / .95*: median over seeds of the environment steps, "
        "and of the seconds, at the first evaluation at that level, with the number of seeds that "
        "got there if not all did (– where half or more did not). *Stays*: of the evaluations "
        "after the first at .9, the share above .8."
    )


def task_table(rows: Sequence[Row]) -> str:
    """A line for each task and algorithm; a column for episodes where any are known."""
    known = any(row.episodes is not None for row in rows)
    lines = []
    for row in rows:
        curves = row.curves("env_steps")
        stays = staying([scores for _, scores in curves])
        cloned = [r["bc_normalized_return"] for r in row.records]
        cloned = np.array([c for c in cloned if c is not None])
        episodes = row.episodes
        lines.append(
            [
                row.task.name,
                row.algorithm,
                f"{row.records[0]['definition']['steps']}",
                f"{len(row.records)}",
                _with_interval(iqm([row.scores]), interval([row.scores]), len(row.records)),
                *(["–" if episodes is None else f"{iqm([episodes]):.3f}"] if known else []),
                f"{iqm([cloned]):.2f}" if len(cloned) else "–",
                _reached(curves),
                _reached(row.curves("seconds")),
                "–" if stays is None else f"{stays:.2f}",
                f"{np.median([r['wall_seconds'] for r in row.records]):.0f}",
            ]
        )
    head = ["task", "algorithm", "steps", "seeds", "IQM [95 %]"]
    head += ["episodes", "cloning"] if known else ["cloning"]
    return _table([*head, "steps to .5 / .9 / .95", "seconds to", "stays", "seconds"], lines)


def overall_table(rows: Sequence[Row]) -> str:
    """A line for each algorithm that has been run on every task; the others are named."""
    whole = complete(rows)
    lines = [
        [
            name,
            f"{len(strata)}",
            f"{sum(map(len, strata))}",
            _with_interval(iqm(strata), interval(strata), max(map(len, strata))),
        ]
        for name, strata in whole.items()
    ]
    parts = [_table(["algorithm", "tasks", "runs", "IQM [95 %]"], lines)] if lines else []
    number = len({row.task.name for row in rows})
    missing = [
        f"{name} ({len(scores)} of {number} tasks)"
        for name, scores in strata_of(rows).items()
        if name not in whole
    ]
    if missing:
        parts.append(f"Not on every task, and so not summed up: {', '.join(missing)}.")
    return "\n\n".join(parts)


def improvement_table(rows: Sequence[Row]) -> str:
    """The first algorithm against each other, on the tasks that both were run on."""
    first, *others = strata_of(rows).items()
    lines = []
    for name, scores in others:
        shared = [t for t in first[1] if t in scores]
        if shared:
            x, y = [first[1][t] for t in shared], [scores[t] for t in shared]
            chance = probability_of_improvement(x, y), improvement_interval(x, y)
            lines.append(
                [
                    f"{first[0]} > {name}",
                    f"{len(shared)}",
                    _with_interval(*chance, max(map(len, x + y))),
                ]
            )
    text = "The chance that a run of the one scores above a run of the other on the same task."
    return f"{text}\n\n{_table(['', 'tasks', 'P [95 %]'], lines)}"


def _reached(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    texts = []
    for level in LEVELS:
        found = np.array([first_reach(x, scores, level) for x, scores in curves])
        number = int(np.isfinite(found).sum())
        middle = float(np.median(found)) if len(found) else math.inf
        share = "" if number == len(found) else f" ({number})"
        texts.append(f"{middle:.0f}{share}" if math.isfinite(middle) else "–")
    return " / ".join(texts)


def _with_interval(value: float, ends: tuple[float, float], seeds: int) -> str:
    # Of one seed nothing can be redrawn: an interval of no width would claim certainty.
    spread = f"[{ends[0]:.3f}, {ends[1]:.3f}]" if seeds > 1 else "(one seed)"
    return f"{value:.3f} {spread}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
