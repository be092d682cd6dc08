"""EPIC and DARD on finite worlds, where shaping is exact and values can be had by hand."""

import jax
import numpy as np
import pytest

from mairl.distances import (
    Steps,
    _dard_canonical,
    _epic_canonical,
    dard_distance,
    epic_distance,
    pearson,
    pearson_distance,
    spearman,
)
from mairl.regression import fit_regression

GAMMA = 0.9
STATES, ACTIONS = 4, 3
ALL = Steps(*(x.ravel() for x in np.meshgrid(range(STATES), range(ACTIONS), range(STATES))))
"""Every transition of a world of 4 states and 3 actions."""
BINARY = Steps(*(x.ravel() for x in np.meshgrid([0, 1], [0, 1], [0, 1])))
PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
"""(A, S') for actions and states of 0 and 1, each pair once: exact expectations."""


def tabular(seed):
    table = np.random.default_rng(seed).normal(size=(STATES, ACTIONS, STATES))
    return lambda s, a, s2: table[s, a, s2]


def shaped(reward, scale=3.0, shift=-2.0):
    potential = np.array([0.0, 5.0, -1.0, 2.0])
    return lambda s, a, s2: scale * reward(s, a, s2) + shift + GAMMA * potential[s2] - potential[s]


def epic(first, second, coverage=ALL, samples=50):
    rng = np.random.default_rng(0)
    pairs = rng.integers(ACTIONS, size=samples), rng.integers(STATES, size=samples)
    return epic_distance(first, second, coverage, *pairs, GAMMA)


def dard(first, second, coverage=ALL, samples=50):
    actions = np.random.default_rng(0).integers(ACTIONS, size=samples)
    table = np.random.default_rng(1).integers(STATES, size=(STATES, ACTIONS))
    return dard_distance(first, second, coverage, actions, lambda s, a: table[s, a], GAMMA)


@pytest.mark.parametrize("distance", [epic, dard])
def test_shaping_and_scale_do_not_count_and_opposites_are_1(distance):
    """Exactly, with few samples: the same ones are used everywhere."""
    reward = tabular(0)
    assert distance(reward, shaped(reward)) == pytest.approx(0.0, abs=1e-6)
    assert distance(reward, lambda *t: -reward(*t)) == pytest.approx(1.0)
    assert distance(reward, lambda *t: -shaped(reward)(*t)) == pytest.approx(1.0)
    assert 0.4 < distance(reward, tabular(1)) < 0.95
    # A potential of another discount is no shaping.
    other = lambda s, a, s2: reward(s, a, s2) + 5.0 * s2 - 5.0 * s  # noqa: E731
    assert distance(reward, other) > 0.05
    # Nothing but shaping: equivalent to no reward at all, which nothing can be compared with.
    assert distance(shaped(lambda s, a, s2: 0.0 * s, 0.0), reward) is None


def test_epic_by_hand():
    now, action, after = (lambda s, a, s2, i=i: 1.0 * (s, a, s2)[i] for i in range(3))
    actions, next_obs = PAIRS.T
    # s + E[gamma s' - s]; a + E[gamma A - A]; s' + E[gamma S' - S']; A and S' are 1/2 on average.
    for reward, expected in (
        (now, GAMMA * BINARY.next_obs),
        (action, BINARY.action - 0.05),
        (after, BINARY.next_obs - 0.05),
    ):
        found = _epic_canonical(reward, BINARY, actions, next_obs, GAMMA)
        np.testing.assert_allclose(found, expected)

    def distance(first, second):
        return epic_distance(first, second, BINARY, actions, next_obs, GAMMA)

    # The state now or next: a matter of shaping. State and action: uncorrelated, sqrt(1 / 2).
    assert distance(now, after) == pytest.approx(0.0, abs=1e-7)
    assert distance(now, action) == pytest.approx(0.70711, rel=1e-4)
    # s' + a against s': Pearson 1 / sqrt(2), sqrt((1 - 0.70711) / 2) = 0.38268.
    both = lambda s, a, s2: 1.0 * (s2 + a)  # noqa: E731
    assert distance(both, after) == pytest.approx(0.38268, rel=1e-4)


def test_dard_by_hand():
    """The action says the next state, so that S' = S'' = A, 1/2 on average."""
    actions = np.array([0, 1])
    dynamics = lambda s, a: a  # noqa: E731
    steps = Steps(BINARY.obs, BINARY.action, BINARY.action)
    now, action, after = (lambda s, a, s2, i=i: 1.0 * (s, a, s2)[i] for i in range(3))
    # s + E[gamma s' - s - gamma S']; a + E[gamma A - A - gamma A]; s' likewise.
    for reward, expected in (
        (now, GAMMA * steps.next_obs - 0.45),
        (action, steps.action - 0.5),
        (after, steps.next_obs - 0.5),
    ):
        found = _dard_canonical(reward, steps, actions, dynamics, GAMMA)
        np.testing.assert_allclose(found, expected)
    # Unlike EPIC, it never asks about what cannot be: s' other than a.
    asked = []

    def careful(s, a, s2):
        asked.append(bool(np.all(s2 == a)))
        return 1.0 * s

    assert dard_distance(careful, now, steps, actions, dynamics, GAMMA) == pytest.approx(
        0, abs=1e-7
    )
    assert all(asked)


def test_many_rows_come_in_batches(monkeypatch):
    reward, other = tabular(0), tabular(1)
    whole = epic(reward, other), dard(reward, other)
    monkeypatch.setattr("mairl.distances.CHUNK", 120)
    assert (epic(reward, other), dard(reward, other)) == whole


def test_correlations_by_hand():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    # Deviations -1.5 -.5 .5 1.5 and -7.5 -3.5 1.5 9.5: 28 / sqrt(5 * 161) = 0.98687.
    y = np.array([1.0, 5.0, 10.0, 18.0])
    assert pearson(x, y) == pytest.approx(0.98687, rel=1e-4)
    assert spearman(x, y) == pytest.approx(1.0)
    # Ranks 1 2 3 4 against 2.5 2.5 1 4: 1 - 6 * sum d^2 / 60 would forget the tie.
    assert spearman(x, np.array([2.0, 2.0, 1.0, 3.0])) == pytest.approx(0.31623, rel=1e-4)
    assert pearson_distance(x, -x) == pytest.approx(1.0)
    assert pearson(x, np.full(4, 0.1)) is None
    assert pearson(x, 1e6 + 1e-3 * x) is None


def test_regression_finds_a_function_and_says_how_well(monkeypatch):
    for name, value in {"STEPS": 400, "HIDDEN": (32,), "LEARNING_RATE": 1e-2}.items():
        monkeypatch.setattr(f"mairl.regression.{name}", value)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3)).astype(np.float32)
    noise = rng.normal(size=2000)
    y = np.stack([100.0 + 5.0 * x[:, 0] * x[:, 1], noise, np.full(2000, 7.0)], 1)
    fitted = fit_regression(x, y, key=jax.random.key(0))
    assert fitted.explained[0] > 0.8
    # What x does not tell cannot be told, and is not claimed.
    assert fitted.explained[1] < 0.1
    np.testing.assert_allclose(fitted(x[:5])[:, 2], 7.0)
    fresh = rng.normal(size=(500, 3)).astype(np.float32)
    error = fitted(fresh)[:, 0] - (100.0 + 5.0 * fresh[:, 0] * fresh[:, 1])
    assert np.std(error) < 2.5
