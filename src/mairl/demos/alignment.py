"""Are the actions recorded one step too early or too late?

The action of step t moves the environment from ``obs`` t to t + 1. If its neighbour in the
recording explains that move clearly better, the action rows are shifted against the
observation rows, and whatever is learned from them is wrong. The test is linear, so it can
miss a shift where the motion is strongly nonlinear (contacts); it is made not to cry wolf.
"""

from collections.abc import Sequence

import numpy as np

from mairl.types import Trajectory

MAX_ROWS = 5000
ROWS_PER_FEATURE = 4
CLEARLY_BETTER = 0.8
"""A neighbour's error over the recorded action's. On the shipped sets, as recorded, no
neighbour gets below 0.91 (Ant). Shifted on purpose, the five that can be told (CartPole,
HalfCheetah, Humanoid, Pendulum, Swimmer) are below 0.6; Hopper, Walker2d, Ant, Acrobot and
MountainCar stay above 0.85, so a shift there goes unnoticed."""


def action_shift(trajectories: Sequence[Trajectory]) -> int:
    """Return the shift s for which action t + s explains step t clearly best: -1, 0 or 1.

    0 also where there is too little data to tell.
    """
    long_enough = [t for t in trajectories if len(t) >= 3]
    if not long_enough:
        return 0
    obs, change, *neighbours = (
        np.concatenate(rows)[:MAX_ROWS] for rows in zip(*map(_aligned, long_enough), strict=True)
    )
    features = obs.shape[1] + neighbours[0].shape[1] + 1
    if len(obs) < ROWS_PER_FEATURE * features:
        return 0
    before, recorded, after = (_unexplained(np.c_[obs, a], change) for a in neighbours)
    best = min(before, after)
    if best >= CLEARLY_BETTER * recorded:
        return 0
    return -1 if before < after else 1


def _aligned(trajectory: Trajectory) -> tuple[np.ndarray, ...]:
    """Obs, change of obs, and actions t - 1, t, t + 1 over the steps that have all of them."""
    obs = trajectory.observations.astype(np.float64)
    actions = trajectory.actions.astype(np.float64)
    return obs[1:-2], obs[2:-1] - obs[1:-2], actions[:-2], actions[1:-1], actions[2:]


def _unexplained(inputs: np.ndarray, targets: np.ndarray) -> float:
    """Share of the targets' variance a ridge regression leaves on held-out rows.

    A geometric mean over the target dimensions: the few that an action moves directly (the
    velocities) decide, however many others follow from the observation alone.
    """
    varies = targets.std(axis=0) > 1e-8
    if not varies.any():
        return 1.0
    targets = targets[:, varies]
    targets = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    inputs = (inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-8)
    inputs = np.c_[inputs, np.ones(len(inputs))]
    held_out = np.arange(len(inputs)) % 5 == 0
    train_in, train_out = inputs[~held_out], targets[~held_out]
    gram = train_in.T @ train_in + 1e-6 * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, train_in.T @ train_out)
    error = np.mean((targets[held_out] - inputs[held_out] @ weights) ** 2, axis=0)
    # The floor keeps a dimension that is explained perfectly from deciding alone.
    return float(np.exp(np.mean(np.log(np.minimum(error, 1.0) + 1e-4))))
