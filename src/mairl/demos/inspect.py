"""Look at demonstrations before training on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mairl.demos.alignment import action_shift
from mairl.demos.formats import Demonstrations
from mairl.types import EnvSpec, Trajectory

FEW_TRANSITIONS = 200
SATURATED = 1.0 - 1e-3


@dataclass(frozen=True)
class DemoReport:
    """What :func:`inspect` found.

    Lengths in steps. ``obs_*``: per dimension, in the environment's units.
    ``action_saturation``: per dimension, the share of steps within 1e-3 of a bound (inside
    units), None if discrete; ``action_counts``: steps per choice (numbered from
    ``first_choice``), None if continuous. ``state_counts``: steps (last observations included) in
    each state of a discrete space (numbered from ``first_state``), None where observations are
    vectors; the ``obs_*`` are then of one-hot vectors. ``duplicate_*``: how many repeat an
    earlier one exactly. ``warnings``: plain sentences.
    """

    source: str
    env_id: str
    episodes: int
    transitions: int
    length_min: int
    length_mean: float
    length_max: int
    ended_terminated: int
    ended_cut_off: int
    episode_returns: tuple[float, ...] | None
    expert_return: float | None
    obs_mean: tuple[float, ...]
    obs_std: tuple[float, ...]
    obs_min: tuple[float, ...]
    obs_max: tuple[float, ...]
    constant_obs: tuple[int, ...]
    action_saturation: tuple[float, ...] | None
    action_counts: tuple[int, ...] | None
    first_choice: int
    state_counts: tuple[int, ...] | None
    first_state: int
    duplicate_transitions: int
    duplicate_episodes: int
    action_shift: int
    warnings: list[str]


def inspect(demos: Demonstrations, spec: EnvSpec) -> DemoReport:
    """Measure demonstrations and say in words what may spoil learning from them."""
    trajectories = demos.trajectories
    lengths = [len(trajectory) for trajectory in trajectories]
    obs = np.concatenate([t.observations for t in trajectories]).astype(np.float64)
    actions = np.concatenate([t.actions for t in trajectories])
    low, high = obs.min(axis=0), obs.max(axis=0)
    terminated = sum(t.terminated for t in trajectories)
    saturation = np.mean(np.abs(actions) >= SATURATED, axis=0)
    report = DemoReport(
        source=demos.source,
        env_id=spec.env_id,
        episodes=len(lengths),
        transitions=sum(lengths),
        length_min=min(lengths),
        length_mean=float(np.mean(lengths)),
        length_max=max(lengths),
        ended_terminated=terminated,
        ended_cut_off=len(lengths) - terminated,
        episode_returns=demos.episode_returns,
        expert_return=demos.expert_return,
        obs_mean=_floats(obs.mean(axis=0)),
        obs_std=_floats(obs.std(axis=0)),
        obs_min=_floats(low),
        obs_max=_floats(high),
        constant_obs=tuple(int(i) for i in np.flatnonzero(low == high)),
        action_saturation=None if spec.discrete else _floats(saturation),
        action_counts=(
            tuple(int(n) for n in actions.sum(axis=0, dtype=np.int64)) if spec.discrete else None
        ),
        first_choice=spec.discrete_start,
        state_counts=(
            None
            if spec.obs_start is None
            else tuple(int(n) for n in obs.sum(axis=0, dtype=np.int64))
        ),
        first_state=spec.obs_start or 0,
        duplicate_transitions=_duplicate_transitions(trajectories),
        duplicate_episodes=_repeats(
            t.observations.tobytes() + t.actions.tobytes() for t in trajectories
        ),
        action_shift=action_shift(trajectories),
        warnings=[],
    )
    report.warnings.extend(_warnings(report))
    return report


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _repeats(items: Iterable[bytes]) -> int:
    items = list(items)
    return len(items) - len(set(items))


def _duplicate_transitions(trajectories: Sequence[Trajectory]) -> int:
    rows = [
        np.c_[t.observations[:-1], t.actions, t.observations[1:]] + np.float32(0.0)  # -0.0 is 0.0
        for t in trajectories
    ]
    return _repeats(row.tobytes() for row in np.concatenate(rows))


def _warnings(report: DemoReport) -> list[str]:
    checks = (_few, _mixed_ends, _duplicates, _constant, _scales, _actions, _shift)
    return [text for check in checks for text in check(report)]


def _few(report: DemoReport) -> list[str]:
    if report.transitions >= FEW_TRANSITIONS:
        return []
    return [f"Only {report.transitions} transitions: expect imitation to be hard."]


def _mixed_ends(report: DemoReport) -> list[str]:
    if not (report.ended_terminated and report.ended_cut_off):
        return []
    return [
        f"Episodes end in two ways: {report.ended_terminated} by termination, "
        f"{report.ended_cut_off} cut off. If the terminated ones are failures, leave them out; "
        "if the cut-off ones were stopped by hand at the goal, mark them terminated."
    ]


def _duplicates(report: DemoReport) -> list[str]:
    if report.duplicate_episodes:
        return [
            f"{report.duplicate_episodes} of {report.episodes} episodes repeat an earlier one "
            "exactly: there is less data than it seems, and held-out tests leak."
        ]
    # Between a few states the same transition is made again and again.
    if report.state_counts is None and (report.duplicate_transitions > 0.01 * report.transitions):
        return [
            f"{report.duplicate_transitions} of {report.transitions} transitions repeat an "
            "earlier one exactly: was something recorded while nothing moved, or twice?"
        ]
    return []


def _constant(report: DemoReport) -> list[str]:
    if report.state_counts is not None:
        missed = sum(count == 0 for count in report.state_counts)
        return [_unseen_states(missed, len(report.state_counts))] if missed else []
    if not report.constant_obs:
        return []
    return [
        f"{len(report.constant_obs)} of {len(report.obs_std)} observation dimensions never change "
        f"({listed(report.constant_obs)}): they teach nothing, and there a learner that leaves "
        "the demonstrated states meets values never seen."
    ]


def _unseen_states(missed: int, states: int) -> str:
    return (
        f"{missed} of {states} states are never visited: of what to do there the demonstrations "
        "say nothing, and a policy that gets there has to find its own way back."
    )


def _scales(report: DemoReport) -> list[str]:
    if report.state_counts is not None:
        return []
    varying = [std for i, std in enumerate(report.obs_std) if i not in report.constant_obs]
    if not varying or max(varying) <= 1e4 * min(varying):
        return []
    return [
        f"Observation dimensions differ widely in scale (standard deviations {min(varying):.2g} to "
        f"{max(varying):.2g}): keep observation normalization on, and check the units."
    ]


def _actions(report: DemoReport) -> list[str]:
    if report.action_counts is not None:
        counts = enumerate(report.action_counts, report.first_choice)
        unused = [choice for choice, count in counts if count == 0]
        return [f"The expert never takes choice {listed(unused)}."] if unused else []
    saturation = report.action_saturation or ()
    dims = [i for i, share in enumerate(saturation) if share > 0.25]
    if not dims:
        return []
    shares = f"{min(saturation[i] for i in dims):.0%} to {max(saturation[i] for i in dims):.0%}"
    return [
        f"Actions sit at their bounds much of the time (dimensions {listed(dims)}: {shares} of "
        "steps). If the expert was not bang-bang by nature, check that they were not clipped or "
        "recorded in other units."
    ]


def _shift(report: DemoReport) -> list[str]:
    if not report.action_shift:
        return []
    row, when = ("previous", "early") if report.action_shift < 0 else ("next", "late")
    return [
        f"Actions may be recorded one step too {when}: the {row} row's action explains what "
        "happens at a step clearly better than its own. "
        "Row t of actions must be what was sent after seeing row t of observations."
    ]


def listed(numbers: Sequence[int], shown: int = 8) -> str:
    """Return "0, 1, 2 and 5 more"."""
    text = ", ".join(str(number) for number in numbers[:shown])
    return text + (f" and {len(numbers) - shown} more" if len(numbers) > shown else "")
