"""What scores of a few seeds on a few tasks say, and how surely.

After Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*,
NeurIPS 2021. Scores are given as strata: one array ``[seeds]`` for each task, of any lengths.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Strata = Sequence[np.ndarray]

SAMPLES = 2000
"""Bootstrap samples of an interval."""


def iqm(strata: Strata) -> float:
    """Interquartile mean of all runs of all tasks together.

    The mean without the lowest and the highest quarter, each rounded down to whole runs: of
    five the middle three, of three or fewer all.
    """
    return float(_trimmed_mean(np.concatenate(strata)))


def interval(strata: Strata, samples: int = SAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of :func:`iqm` by the stratified bootstrap.

    Each sample draws, for each task by itself, as many seeds as there are, with replacement.
    """
    low, high = _ends(_trimmed_mean(np.concatenate(_redraw(strata, samples, seed), axis=1)))
    return float(low), float(high)


def performance_profile(strata: Strata, thresholds: np.ndarray) -> np.ndarray:
    """Share of runs that score above each of ``thresholds`` ``[n]``, mean over tasks: ``[n]``."""
    return np.mean([(s[..., None] > thresholds).mean(axis=-2) for s in strata], axis=0)


def profile_band(
    strata: Strata, thresholds: np.ndarray, samples: int = SAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % pointwise band ``([n], [n])`` of :func:`performance_profile`."""
    return _ends(performance_profile(_redraw(strata, samples, seed), thresholds))


def probability_of_improvement(x: Strata, y: Strata) -> float:
    """P(a run of X scores above a run of Y on the same task), mean over tasks; ties count half.

    This is the Mann-Whitney U statistic over the number of pairs. ``x`` and ``y`` are of the
    same tasks, in the same order.
    """
    return float(_above(x, y))


def improvement_interval(
    x: Strata, y: Strata, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of :func:`probability_of_improvement`; seeds of X and Y are independent."""
    low, high = _ends(_above(_redraw(x, samples, seed), _redraw(y, samples, seed + 1)))
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
    low, high = _ends(_trimmed_mean(np.moveaxis(values[draws], 1, -1)))
    return _trimmed_mean(values.T), low, high


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


def _redraw(strata: Strata, samples: int, seed: int) -> list[np.ndarray]:
    """For each task ``[samples, seeds]``."""
    rng = np.random.default_rng(seed)
    return [s[rng.integers(0, len(s), (samples, len(s)))] for s in strata]


def _ends(found: np.ndarray) -> Any:
    """The lower and the upper end of 95 % of the samples, which lie along the first axis."""
    return tuple(np.percentile(found, [2.5, 97.5], axis=0))


def _trimmed_mean(scores: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    number = scores.shape[-1]
    cut = number // 4
    return np.asarray(np.sort(scores, axis=-1)[..., cut : number - cut].mean(axis=-1))


def _above(x: Strata, y: Strata) -> np.ndarray:
    """Share of pairs of the last axes, ``[..., X seeds]`` and ``[..., Y seeds]``, with X above."""
    found = []
    for a, b in zip(x, y, strict=True):
        one, other = a[..., :, None], b[..., None, :]
        found.append((np.greater(one, other) + 0.5 * np.equal(one, other)).mean(axis=(-2, -1)))
    return np.asarray(np.mean(found, axis=0))
