"""What scores of a few seeds on a few tasks say, and how surely.

After Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*,
NeurIPS 2021. Scores are given as strata: one array ``[seeds]`` for each task, of any lengths.
"""

from collections.abc import Callable, Sequence

import numpy as np

Strata = Sequence[np.ndarray]

SAMPLES = 2000
"""Bootstrap samples of an interval."""


def iqm(strata: Strata) -> float:
    """Interquartile mean of all runs of all tasks together.

    The mean without the lowest and the highest quarter, each rounded down to whole runs: of
    five the middle three, of three or fewer all.
    """
    ordered = np.sort(np.concatenate(strata))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def interval(
    strata: Strata,
    statistic: Callable[[Strata], float] = iqm,
    samples: int = SAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of ``statistic`` by the stratified bootstrap.

    Each sample draws, for each task by itself, as many seeds as there are, with replacement.
    """
    rng = np.random.default_rng(seed)
    found = [statistic(_redraw(strata, rng)) for _ in range(samples)]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def performance_profile(strata: Strata, thresholds: np.ndarray) -> np.ndarray:
    """Share of runs that score above each of ``thresholds`` ``[n]``, mean over tasks: ``[n]``."""
    return np.mean([(s[:, None] > thresholds).mean(axis=0) for s in strata], axis=0)


def profile_band(
    strata: Strata, thresholds: np.ndarray, samples: int = SAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % pointwise band ``([n], [n])`` of :func:`performance_profile`."""
    rng = np.random.default_rng(seed)
    found = [performance_profile(_redraw(strata, rng), thresholds) for _ in range(samples)]
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return low, high


def probability_of_improvement(x: Strata, y: Strata) -> float:
    """P(a run of X scores above a run of Y on the same task), mean over tasks; ties count half.

    This is the Mann-Whitney U statistic over the number of pairs. ``x`` and ``y`` are of the
    same tasks, in the same order.
    """
    return float(np.mean([_above(a, b) for a, b in zip(x, y, strict=True)]))


def improvement_interval(
    x: Strata, y: Strata, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of :func:`probability_of_improvement`; the seeds of X and Y are independent."""
    rng = np.random.default_rng(seed)
    found = [probability_of_improvement(_redraw(x, rng), _redraw(y, rng)) for _ in range(samples)]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def curve(
    xs: Sequence[np.ndarray], scores: Sequence[np.ndarray], points: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of several runs on one axis: ``(grid [points], values [runs, points])``.

    ``xs[i]`` (env steps or seconds, rising) and ``scores[i]`` are the evaluations of run i. In
    between values are linear; the grid begins where every run has been evaluated, and a run
    that has ended keeps its last score.
    """
    grid = np.linspace(max(x[0] for x in xs), max(x[-1] for x in xs), points)
    return grid, np.stack([np.interp(grid, x, y) for x, y in zip(xs, scores, strict=True)])


def curve_band(
    values: np.ndarray, samples: int = SAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IQM over runs of ``values`` ``[runs, points]``, and its pointwise 95 % interval.

    Whole runs are drawn, so points of one sample belong together.
    """
    runs = len(values)
    draws = np.random.default_rng(seed).integers(0, runs, (samples, runs))
    cut = runs // 4

    def middle(ordered: np.ndarray) -> np.ndarray:
        return ordered[..., cut : runs - cut, :].mean(axis=-2)

    low, high = np.percentile(middle(np.sort(values[draws], axis=1)), [2.5, 97.5], axis=0)
    return middle(np.sort(values, axis=0)), low, high


def first_reach(x: np.ndarray, scores: np.ndarray, level: float) -> float:
    """``x`` at the first evaluation at or above ``level``; infinity if there is none."""
    reached = np.flatnonzero(scores >= level)
    return float(x[reached[0]]) if len(reached) else float("inf")


def staying(runs: Sequence[np.ndarray], reached: float = 0.9, stays: float = 0.8) -> float | None:
    """Stability: of evaluations after a run's first at ``reached``, the share above ``stays``.

    Over the evaluations of all ``runs``; None where none followed.
    """
    later = [
        scores[np.argmax(scores >= reached) + 1 :] for scores in runs if scores.max() >= reached
    ]
    pooled = np.concatenate([np.zeros(0), *later])
    return float((pooled > stays).mean()) if len(pooled) else None


def _redraw(strata: Strata, rng: np.random.Generator) -> list[np.ndarray]:
    return [s[rng.integers(0, len(s), len(s))] for s in strata]


def _above(x: np.ndarray, y: np.ndarray) -> float:
    return float((x[:, None] > y).mean() + 0.5 * (x[:, None] == y).mean())
