"""Observations of any Gymnasium space as vectors, as Gymnasium's FlattenObservation makes them.

Box row by row, Discrete and MultiDiscrete one-hot, MultiBinary as it is, Dict and Tuple part by
part in the space's own order (by name where the Dict was made of a plain one).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces


def parts(space: spaces.Space) -> list[spaces.Space] | None:
    """The spaces in a Dict or Tuple, in order; None of any other."""
    if isinstance(space, spaces.Dict):
        return list(space.spaces.values())
    return list(space.spaces) if isinstance(space, spaces.Tuple) else None


def flat_size(space: spaces.Space) -> int:
    """How many numbers an observation has, or a continuous action.

    Raises:
        ValueError: a space whose elements are no vectors of one size (Text, Graph, ...).
    """
    inside = parts(space)
    if inside is not None:
        return sum(flat_size(part) for part in inside)
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.sum(space.nvec))
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise ValueError(f"observation space {type(space).__name__} is not supported")


def flatten_obs(space: spaces.Space, raw: Any) -> np.ndarray:
    """An environment's observation as ``[obs]`` float32, always a copy.

    Raises:
        ValueError, TypeError: not numbers, or not of the space.
    """
    inside = parts(space)
    if inside is not None:
        pairs = zip(inside, _values(space, raw), strict=True)
        return np.concatenate([flatten_obs(part, value) for part, value in pairs])
    if isinstance(space, spaces.Discrete):
        choice = int(raw) - int(space.start)
        if not 0 <= choice < space.n:
            raise ValueError(f"observation {raw} is outside {space}")
        return np.eye(int(space.n), dtype=np.float32)[choice]
    if isinstance(space, spaces.MultiDiscrete):
        sizes = zip(space.nvec.flat, space.start.flat, strict=True)
        choices = spaces.Tuple([spaces.Discrete(n, start=first) for n, first in sizes])
        return flatten_obs(choices, np.asarray(raw).reshape(-1))
    obs = np.array(raw, np.float32)
    if obs.shape != space.shape:
        raise ValueError(f"the observation has shape {obs.shape}, its space says {space.shape}")
    return obs.reshape(-1)


def flatten_batch(space: spaces.Space, raw: Any) -> np.ndarray:
    """A batch of observations of one ``space`` as ``[n, obs]`` float32, always a copy.

    A batch is as vector environments and recorded episodes have it: arrays with an axis in
    front, of a Dict or Tuple one of these for each part.

    Raises:
        ValueError, TypeError: not numbers, not of the space, or parts of different lengths.
    """
    inside = parts(space)
    if isinstance(space, spaces.Box):
        obs = np.array(raw, np.float32)
        if obs.shape[1:] != space.shape:
            raise ValueError(f"observations have shape {obs.shape[1:]}, not {space.shape}")
        return obs.reshape(len(obs), -1)
    if inside is None:
        return np.stack([flatten_obs(space, row) for row in raw])
    pairs = zip(inside, _values(space, raw), strict=True)
    columns = [flatten_batch(part, value) for part, value in pairs]
    if len({len(column) for column in columns}) != 1:
        lengths = [len(column) for column in columns]
        raise ValueError(f"the parts of the observations have different lengths {lengths}")
    return np.concatenate(columns, axis=1)


def _values(space: spaces.Space, raw: Any) -> list[Any]:
    """What belongs to each of the parts of a Dict or Tuple."""
    if isinstance(space, spaces.Tuple):
        return list(raw)
    names = list(space.spaces)  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(raw, Mapping) or set(raw) != set(names):
        found = sorted(map(str, raw)) if isinstance(raw, Mapping) else type(raw).__name__
        raise ValueError(f"the observation is {found}, its space says {names}")
    return [raw[name] for name in names]
