"""Variance, bias and direction of gradient estimates, from inner products of batches.

A batch's gradient is one row; rows of an estimator, and of the reference it is held against, are
independent of each other and alike. Squared norms of means leave out products of a batch with
itself, which makes them unbiased: noise is not taken for bias. Standard errors are the
jackknife's.
"""

from typing import Any

import numpy as np


def compare(rows: np.ndarray, reference: np.ndarray, size: int) -> dict[str, Any]:
    """Figures of an estimator from its batches' gradients ``[batches, parameters]``.

    ``reference``: gradients of the reference's batches, independent of ``rows``; ``size``:
    trajectories of a batch. Each figure comes with ``..._error``, its standard error; None where
    the gradient cannot be told from zero. variance: trace of the covariance of one
    trajectory's estimate over the reference's squared norm; trace: not divided; bias_squared:
    squared distance of the mean from the reference's, in the same unit; cosine: of the two
    means; cosine_of_batch: of one batch and the reference's mean, on average.
    """
    rows, reference = (x.astype(np.float64) for x in (rows, reference))
    value, error = _figures(rows @ rows.T, rows @ reference.T, reference @ reference.T, size)
    found: dict[str, Any] = {}
    for i, name in enumerate(FIGURES):
        found[name] = _finite(value[i])
        found[f"{name}_error"] = _finite(error[i])
    low, high = _interval(found["bias_squared"], found["bias_squared_error"])
    found["bias"] = None if high is None else _root(found["bias_squared"])
    found["bias_interval"] = [_root(low), _root(high)]
    return found


FIGURES = ("norm_squared", "trace", "variance", "bias_squared", "cosine", "cosine_of_batch")


def _figures(
    xx: np.ndarray, xr: np.ndarray, rr: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """``FIGURES`` and their standard errors.

    From the inner products of the batches, with each other (xx), the reference's (xr), and of
    those (rr). The jackknife leaves out each batch of either in turn.
    """
    n, m = xr.shape
    length = np.sqrt(np.diagonal(xx))
    to_mean, to_each = xr.sum(1), xr.sum(0)
    along = to_mean / m / length
    mine, true = _moments(xx), _moments(rr)
    value = _combine(mine, true, xr.mean(), along.mean(), size)
    without = (
        _combine(
            _moments(xx, leave_out=True),
            true,
            (xr.sum() - to_mean) / ((n - 1) * m),
            (along.sum() - along) / (n - 1),
            size,
        ),
        _combine(
            mine,
            _moments(rr, leave_out=True),
            (xr.sum() - to_each) / (n * (m - 1)),
            np.mean((to_mean[:, None] - xr) / (m - 1) / length[:, None], 0),
            size,
        ),
    )
    return value, np.sqrt(sum((each.shape[1] - 1) * np.var(each, 1) for each in without))


def _combine(
    mine: tuple[Any, Any], reference: tuple[Any, Any], cross: Any, along: Any, size: int
) -> np.ndarray:
    """``FIGURES``, along the first axis, from ``_moments`` of both and mean inner products."""
    (norm, spread), (true, _) = mine, reference
    with np.errstate(invalid="ignore", divide="ignore"):
        true = np.where(np.asarray(true) > 0.0, true, np.nan)
        found = (
            norm,
            size * spread,
            size * spread / true,
            (norm + true - 2.0 * cross) / true,
            cross / np.sqrt(norm * true),
            along / np.sqrt(true),
        )
        return np.stack(np.broadcast_arrays(*found))


def _moments(products: np.ndarray, leave_out: bool = False) -> tuple[Any, Any]:
    """Unbiased estimates of the mean's squared norm and of the covariance's trace, of batches.

    Or as many as there are batches, each without one.
    """
    n, total, own = len(products), products.sum(), np.trace(products)
    if leave_out:
        each = np.diagonal(products)
        n, total, own = n - 1, total - 2.0 * products.sum(1) + each, own - each
    return (total - own) / (n * (n - 1)), (own - total / n) / (n - 1)


def relate(found: dict[str, Any], base: str) -> None:
    """Add how each compares with the estimator ``base``: at equal samples, at equal compute."""
    b = found[base]
    for each in found.values():
        ratio = each["trace"] / b["trace"]
        relative = np.hypot(each["trace_error"] / each["trace"], b["trace_error"] / b["trace"])
        each["trace_ratio"] = ratio
        each["trace_ratio_interval"] = [
            ratio * float(np.exp(sign * 1.96 * relative * (each is not b))) for sign in (-1, 1)
        ]
        seconds = each["seconds_per_trajectory"] / b["seconds_per_trajectory"]
        each["trace_ratio_equal_compute"] = ratio * seconds


def norm_of(rows: np.ndarray) -> dict[str, Any]:
    """The reference's norm, and the relative Monte Carlo error of its mean."""
    rows = rows.astype(np.float64)
    norm, spread = _moments(rows @ rows.T)
    error = _finite(np.sqrt(spread / len(rows) / norm)) if norm > 0.0 else None
    return {"norm": _root(max(norm, 0.0)), "relative_error": error}


def _interval(value: float | None, error: float | None) -> tuple[float | None, float | None]:
    if value is None or error is None:
        return None, None
    return value - 1.96 * error, value + 1.96 * error


def _root(square: float | None) -> float | None:
    return None if square is None else float(np.sqrt(max(square, 0.0)))


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
