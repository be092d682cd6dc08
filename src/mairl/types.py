"""The few types everything else is made of.

Inside the library actions are always floating point: continuous actions are scaled to
[-1, 1] per dimension, discrete actions are one-hot. Only :mod:`mairl.envs` knows the
environment's own units. The true reward is deliberately absent from every type a learner
can reach.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Metrics = dict[str, Any]
"""Scalars by name (``group/name``)."""


class MairlError(Exception):
    """A problem the user can fix: the message names the thing and the remedy.

    The command prints the message alone and exits with code 2.
    """


class Transition(NamedTuple):
    """One step of experience, or a batch of them (leading axes in front).

    obs: ``[..., obs]`` float32, before the action, in the environment's units.
    action: ``[..., action]`` float32, scaled to [-1, 1] or one-hot.
    next_obs: ``[..., obs]`` float32, after the action.
    terminated: ``[...]`` float32, 1 where the episode ended because of what happened
        (never because time ran out): no future follows.
    """

    obs: Any
    action: Any
    next_obs: Any
    terminated: Any


@dataclass(frozen=True)
class EnvSpec:
    """What a learner may know of an environment: sizes and action bounds, no reward.

    ``action_size`` is the number of choices when ``discrete`` (actions are one-hot inside),
    otherwise the number of dimensions. ``action_low``/``action_high`` are the bounds in the
    environment's own units (empty when discrete). ``discrete_start`` is the first choice's
    number. ``obs_start`` is the first observation's where the environment's are choices, one-hot
    inside; None where they are vectors. ``max_episode_steps`` is the time limit, or None.
    """

    env_id: str
    obs_size: int
    action_size: int
    discrete: bool
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    discrete_start: int = 0
    obs_start: int | None = None
    max_episode_steps: int | None = None

    def encode_action(self, action: np.ndarray) -> np.ndarray:
        """Environment actions ``[...(, action)]`` to inside ones ``[..., action]`` float32."""
        if self.discrete:
            return np.eye(self.action_size, dtype=np.float32)[
                np.asarray(action, np.int64) - self.discrete_start
            ]
        low = np.asarray(self.action_low, np.float64)
        high = np.asarray(self.action_high, np.float64)
        scaled = (np.asarray(action, np.float64) - low) / (high - low) * 2.0 - 1.0
        return np.clip(scaled, -1.0, 1.0).astype(np.float32)

    def decode_action(self, action: np.ndarray) -> np.ndarray:
        """Inside actions ``[..., action]`` to environment actions, clipped to the bounds."""
        if self.discrete:
            return np.argmax(action, axis=-1).astype(np.int64) + self.discrete_start
        low = np.asarray(self.action_low, np.float64)
        high = np.asarray(self.action_high, np.float64)
        scaled = low + (np.clip(np.asarray(action, np.float64), -1.0, 1.0) + 1.0) / 2.0 * (
            high - low
        )
        return scaled.astype(np.float32)


@dataclass(frozen=True)
class Trajectory:
    """One demonstrated episode of T steps.

    observations: ``[T + 1, obs]`` float32 (flattened); actions: ``[T, action]`` float32,
    inside units; terminated: the last step ended the episode for good (else it was cut off:
    a time limit, or the end of the recording).
    """

    observations: np.ndarray
    actions: np.ndarray
    terminated: bool

    def __len__(self) -> int:
        return len(self.actions)
