"""How far two rewards are from each other: correlation, EPIC, DARD.

Pure NumPy over functions ``reward(obs, action, next_obs) -> [n]`` of batches; whatever units
and shapes those take. Sampled: expectations are means over given samples, the same ones for
every state, so that shaping by a potential cancels exactly and not just on average.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

Reward = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""``reward(obs, action, next_obs) -> [n]``."""
Dynamics = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``dynamics(obs, action) -> next_obs``, a sample for each row."""

CHUNK = 65_536
"""Rows evaluated at once."""


class Steps(NamedTuple):
    """Transitions ``[n, ...]`` to compare on."""

    obs: np.ndarray
    action: np.ndarray
    next_obs: np.ndarray


def pearson(first: np.ndarray, second: np.ndarray) -> float | None:
    """Linear correlation in [-1, 1]; None where one of the two never changes."""
    if len(first) < 2 or _constant(first) or _constant(second):
        return None
    return float(np.corrcoef(np.float64(first), np.float64(second))[0, 1])


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Correlation of the ranks in [-1, 1]; None where one of the two never changes."""
    if len(first) < 2 or _constant(first) or _constant(second):
        return None
    # On ranks, Pearson's is Spearman's.
    return pearson(stats.rankdata(first), stats.rankdata(second))


def pearson_distance(first: np.ndarray, second: np.ndarray) -> float | None:
    """sqrt((1 - Pearson) / 2): 0 the same up to scale, 1 opposite (Gleave et al. 2021)."""
    found = pearson(first, second)
    return None if found is None else float(np.sqrt(max(0.0, 1.0 - found) / 2.0))


def epic_distance(
    first: Reward,
    second: Reward,
    coverage: Steps,
    actions: np.ndarray,
    next_obs: np.ndarray,
    gamma: float,
) -> float | None:
    """EPIC, the equivalent-policy invariant comparison (Gleave et al. 2021).

    Pearson distance over ``coverage`` of the canonically shaped rewards

        C(R)(s, a, s') = R(s, a, s') + E[gamma R(s', A, S') - R(s, A, S')] - constant

    The expectation is the mean over the given pairs (A, S'): ``actions`` and ``next_obs``,
    ``[m, ...]``, drawn independently of each other and of s, whatever the dynamics. (The
    constant, gamma E R(S, A, S'), is left out: correlation does not see it.) 0 for rewards that
    differ by scale, shift and potential shaping only; None where a shaped reward is constant.
    """
    return pearson_distance(
        *(_epic_canonical(r, coverage, actions, next_obs, gamma) for r in (first, second))
    )


def dard_distance(
    first: Reward,
    second: Reward,
    coverage: Steps,
    actions: np.ndarray,
    dynamics: Dynamics,
    gamma: float,
) -> float | None:
    """DARD, the dynamics-aware reward distance (Wulfe et al. 2022).

    As :func:`epic_distance`, with the rewards canonicalized over transitions that are possible,
    or nearly so,

        C(R)(s, a, s') = R(s, a, s') + E[gamma R(s', A, S'') - R(s, A, S') - gamma R(S', A, S'')]

    S' ~ dynamics(s, A), S'' ~ dynamics(s', A): one sample for each of the given ``actions``
    ``[m, ...]``.
    """
    return pearson_distance(
        *(_dard_canonical(r, coverage, actions, dynamics, gamma) for r in (first, second))
    )


def _epic_canonical(
    reward: Reward, steps: Steps, actions: np.ndarray, next_obs: np.ndarray, gamma: float
) -> np.ndarray:
    def mean(obs: np.ndarray) -> np.ndarray:
        return _mean_over(len(actions), obs, lambda rows, j: reward(rows, actions[j], next_obs[j]))

    return reward(*steps) + gamma * mean(steps.next_obs) - mean(steps.obs)


def _dard_canonical(
    reward: Reward, steps: Steps, actions: np.ndarray, dynamics: Dynamics, gamma: float
) -> np.ndarray:
    def term(rows: np.ndarray, j: np.ndarray) -> np.ndarray:
        obs, next_obs, action = rows[:, 0], rows[:, 1], actions[j]
        after, after_next = dynamics(obs, action), dynamics(next_obs, action)
        return (
            gamma * reward(next_obs, action, after_next)
            - reward(obs, action, after)
            - gamma * reward(after, action, after_next)
        )

    both = np.stack([steps.obs, steps.next_obs], 1)
    return reward(*steps) + _mean_over(len(actions), both, term)


def _mean_over(
    m: int, rows: np.ndarray, value: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """``[n]``: for each of n rows, the mean of ``value(row, j)`` over j < m, in batches."""
    each = max(1, CHUNK // m)
    parts = [rows[i : i + each] for i in range(0, len(rows), each)]
    means = [
        np.reshape(
            value(np.repeat(part, m, axis=0), np.tile(np.arange(m), len(part))), (len(part), m)
        ).mean(1, dtype=np.float64)
        for part in parts
    ]
    return np.concatenate(means)


def _constant(values: np.ndarray) -> bool:
    # Beyond round-off, which would correlate with anything.
    return bool(np.std(values) <= 1e-6 * max(1.0, float(np.max(np.abs(values)))))
