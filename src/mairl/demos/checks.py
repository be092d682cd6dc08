"""What must hold of a demonstration before anything learns from it.

Each check raises :class:`MairlError` with one message: file and episode, field, what was
found against what was expected, and the remedy. A wrong demonstration that passes here is
learned silently, so nothing is repaired by guessing.
"""

from typing import Any

import numpy as np

from mairl.types import EnvSpec, MairlError, Trajectory

BOUND_TOLERANCE = 1e-4
"""Actions may exceed a bound by this fraction of the range (rounding); they are clipped."""


def problem(where: str, field: str, found: str, remedy: str) -> MairlError:
    """One message from its four parts; ``where`` is the file, with the episode where known."""
    return MairlError(f"{where}: {field} {found}. {remedy}.")


def wrong_task(spec: EnvSpec) -> str:
    """The remedy for demonstrations that come from another environment."""
    return (
        f"If they were recorded in another environment, train in that one, "
        f"or give demonstrations of {spec.env_id}"
    )


def check_env_id(where: str, env_id: str | None, spec: EnvSpec, remedy: str) -> None:
    """Raise MairlError if the recording names an environment other than ``spec.env_id``."""
    if env_id is None:
        return
    # "package:Task-v0" and "Task-v0" are the same task: the prefix only says what to import.
    if env_id.rpartition(":")[2] != spec.env_id.rpartition(":")[2]:
        found = f"is {env_id!r}, but the environment is {spec.env_id!r}"
        raise problem(where, "env_id", found, remedy)


def _check_numbers(array: np.ndarray, where: str, field: str) -> None:
    if array.dtype.kind not in "biuf":
        found = f"have dtype {array.dtype}, expected real numbers"
        raise problem(where, field, found, f"Save {field} as a float32 or integer array")


def as_observations(raw: Any, where: str, spec: EnvSpec) -> np.ndarray:
    """Raw observations ``[rows, ...]`` as ``[rows, obs]`` float32, flattened.

    Those of a Discrete space may be the numbers ``[rows]`` themselves; they become one-hot.

    Raises:
        MairlError: not numbers, no row axis, not ``spec.obs_size`` numbers a row, or a number
            outside the Discrete space.
    """
    array = np.asarray(raw)
    _check_numbers(array, where, "observations")
    if spec.obs_start is not None and array.ndim == 1:
        last = spec.obs_start + spec.obs_size - 1
        _check_choices(array, where, "observations", (spec.obs_start, last), spec)
        return np.eye(spec.obs_size, dtype=np.float32)[array.astype(np.int64) - spec.obs_start]
    if array.ndim < 2:
        found = f"have shape {array.shape}, expected [rows, {spec.obs_size}]"
        remedy = f"Save one row per step: observations.reshape(-1, {spec.obs_size})"
        raise problem(where, "observations", found, remedy)
    size = int(np.prod(array.shape[1:]))
    if size != spec.obs_size:
        found = f"have {size} numbers a step, but {spec.env_id} has {spec.obs_size}"
        raise problem(where, "observations", found, wrong_task(spec))
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, reported as such
        return array.reshape(len(array), size).astype(np.float32)


def as_actions(raw: Any, where: str, spec: EnvSpec) -> np.ndarray:
    """Raw actions as ``[rows]`` (discrete) or ``[rows, action]``, in the environment's units.

    Raises:
        MairlError: not numbers, or a shape that does not fit the action space.
    """
    array = np.asarray(raw)
    _check_numbers(array, where, "actions")
    if spec.discrete:
        return _as_choices(array, where, spec)
    if array.ndim < 2:
        remedy = wrong_task(spec)
        if spec.action_size == 1:
            remedy = "Save one row per step: actions.reshape(-1, 1)"
        found = f"have shape {array.shape}, expected [rows, {spec.action_size}]"
        raise problem(where, "actions", found, remedy)
    size = int(np.prod(array.shape[1:]))
    if size != spec.action_size:
        found = f"have {size} numbers a step, but {spec.env_id} takes {spec.action_size}"
        raise problem(where, "actions", found, wrong_task(spec))
    return array.reshape(len(array), size)


def _as_choices(array: np.ndarray, where: str, spec: EnvSpec) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 1:
        return array
    remedy = wrong_task(spec)
    if array.ndim == 2 and array.shape[1] == spec.action_size:
        remedy = "If they are one-hot, save the choice's number: actions.argmax(axis=1)"
        if spec.discrete_start:
            remedy += f" + {spec.discrete_start}"
    found = (
        f"have shape {array.shape}, but {spec.env_id} takes one of {spec.action_size} "
        "choices: expected whole numbers [rows]"
    )
    raise problem(where, "actions", found, remedy)


def as_flags(raw: Any, where: str, field: str) -> np.ndarray:
    """Raw end marks as ``[rows]`` bool.

    Raises:
        MairlError: other than true/false or 0/1, or other than one per step.
    """
    array = np.asarray(raw)
    remedy = f"Save {field} as bool [rows], one per step"
    if array.ndim != 1:
        raise problem(where, field, f"have shape {array.shape}, expected [rows]", remedy)
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise problem(where, field, f"(dtype {array.dtype}) are not all true or false", remedy)
    return array.astype(bool)


def to_trajectory(
    where: str,
    spec: EnvSpec,
    observations: np.ndarray,
    actions: np.ndarray,
    terminations: np.ndarray,
    truncations: np.ndarray | None,
) -> Trajectory:
    """One episode of T steps, checked, with its actions brought to inside units.

    ``observations`` ``[T + 1, obs]``, ``actions`` ``[T(, action)]``, ``terminations`` and
    ``truncations`` ``[T]``, as the ``as_...`` functions return them.

    Raises:
        MairlError: no step, lengths that do not fit, NaN or inf, an action outside the space,
            or an end before the last step.
    """
    steps = len(actions)
    if steps == 0:
        raise problem(where, "actions", "are empty: the episode has no step", "Leave it out")
    if len(observations) != steps + 1:
        found = f"have {len(observations)} rows for {steps} actions, expected {steps + 1}"
        remedy = "Save the first observation, every one between, and the one after the last action"
        raise problem(where, "observations", found, remedy)
    _check_end(where, "terminations", terminations, steps)
    if truncations is not None:
        _check_end(where, "truncations", truncations, steps)
    _check_finite(observations, where, "observations")
    _check_finite(actions, where, "actions")
    if spec.discrete:
        last = spec.discrete_start + spec.action_size - 1
        _check_choices(actions, where, "actions", (spec.discrete_start, last), spec)
    else:
        _check_bounds(actions, where, spec)
    return Trajectory(observations, spec.encode_action(actions), bool(terminations[-1]))


def _check_end(where: str, field: str, flags: np.ndarray, steps: int) -> None:
    if len(flags) != steps:
        found = f"have {len(flags)} rows for {steps} actions"
        raise problem(where, field, found, f"Save {field} once per step")
    early = np.flatnonzero(flags[:-1])
    if early.size:
        found = f"are true at step {early[0]}, but the episode goes on to step {steps - 1}"
        remedy = f"An episode ends where it is true: correct the episode lengths or {field}"
        raise problem(where, field, found, remedy)


def _check_finite(array: np.ndarray, where: str, field: str) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        step, *rest = (int(index) for index in bad[0])
        found = f"are {array[tuple(bad[0])]} at step {step}"
        if rest:
            found += f", dimension {rest[0]}"
        raise problem(where, field, found, "Leave this episode out, or record it again")


def _check_choices(
    numbers: np.ndarray, where: str, field: str, ends: tuple[int, int], spec: EnvSpec
) -> None:
    first, last = ends
    bad = np.flatnonzero((numbers != np.round(numbers)) | (numbers < first) | (numbers > last))
    if bad.size:
        verb = "takes" if field == "actions" else "has"
        found = (
            f"are {numbers[bad[0]]} at step {bad[0]}, "
            f"but {spec.env_id} {verb} whole numbers {first} to {last}"
        )
        remedy = f"Save each choice's number, counted from {first}"
        raise problem(where, field, found, remedy)


def _check_bounds(actions: np.ndarray, where: str, spec: EnvSpec) -> None:
    low, high = np.array(spec.action_low, float), np.array(spec.action_high, float)
    slack = BOUND_TOLERANCE * (high - low)
    bad = np.argwhere((actions < low - slack) | (actions > high + slack))
    if bad.size:
        step, dim = (int(index) for index in bad[0])
        found = (
            f"are {actions[step, dim]:.6g} at step {step}, dimension {dim}, outside "
            f"[{low[dim]:.6g}, {high[dim]:.6g}]"
        )
        remedy = (
            f"Save the actions in the units of {spec.env_id}, as they were sent "
            "(clipped to its bounds)"
        )
        raise problem(where, "actions", found, remedy)
