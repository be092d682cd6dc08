"""Demonstrations as the package holds them, and the ``.npz`` files they are read from.

The ``.npz`` layout holds N episodes of T_i steps, one after another:

=================  =================================  ==========================================
``observations``   [sum(T_i + 1), ...] numbers        each episode's first and last included
``actions``        [sum T_i, ...] numbers             environment units; [sum T_i] if discrete
``terminations``   [sum T_i] bool                     true where the task itself ended
``episode_lengths``  [N] integers                     the T_i
=================  =================================  ==========================================

Optional: ``truncations`` [sum T_i] bool, ``rewards`` [sum T_i], ``episode_returns`` [N] and
``expert_return`` (one number: the mean over all the expert's episodes, when the file holds only
some of them), the three for evaluation only, and ``env_id`` (one string). Observations of a
Discrete space are its whole numbers or one-hot. Other fields are ignored. Nothing is unpickled.
"""

import difflib
import hashlib
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mairl.demos.checks import (
    as_actions,
    as_flags,
    as_observations,
    check_env_id,
    problem,
    to_trajectory,
)
from mairl.demos.data import shipped
from mairl.types import EnvSpec, Trajectory

REQUIRED = ("observations", "actions", "terminations", "episode_lengths")
OPTIONAL = ("truncations", "rewards", "episode_returns", "expert_return", "env_id")
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    SyntaxError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
)
"""What NumPy and zipfile raise on damaged archives, depending on which byte is wrong."""


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of an expert, checked against one environment.

    source: the path, shipped name or Minari id they came from. env_id: the environment they
    say they were recorded in, if any. trajectories: actions in inside units.
    episode_returns: per episode, and expert_return: mean over the whole original set;
    env_rewards: the true reward of each step, an array ``[T]`` per episode; the three are for
    evaluation and never given to a learner. sha256: of the file, or of a dataset's arrays.
    """

    source: str
    env_id: str | None
    trajectories: tuple[Trajectory, ...]
    episode_returns: tuple[float, ...] | None
    expert_return: float | None
    sha256: str
    env_rewards: tuple[np.ndarray, ...] | None = None


def load_npz(path: str | os.PathLike[str], spec: EnvSpec) -> Demonstrations:
    """Read a ``.npz`` file of the layout above and check it against ``spec``.

    Raises:
        MairlError: the file is missing, damaged or pickled, or its content does not fit the
            layout or the environment; the message names field, episode and remedy.
    """
    path = Path(path)
    where = str(path)
    sha256 = _open_and_hash(path)
    fields = _read_fields(path)
    env_id = _env_id(fields, where)
    remedy = (
        f"Give demonstrations of {spec.env_id} or train in {env_id}; if the two are the same "
        "task, save the file again with the env_id field corrected"
    )
    check_env_id(where, env_id, spec, remedy)
    lengths = _lengths(fields["episode_lengths"], where)
    observations = as_observations(fields["observations"], where, spec)
    actions = as_actions(fields["actions"], where, spec)
    ends = {
        name: as_flags(fields[name], where, name)
        for name in ("terminations", "truncations")
        if name in fields
    }
    total = sum(lengths)
    _check_rows(observations, where, "observations", total + len(lengths), "sum of (length + 1)")
    for name, rows in {"actions": actions, **ends}.items():
        _check_rows(rows, where, name, total, "sum of the lengths")

    trajectories = []
    start = 0
    for episode, steps in enumerate(lengths):
        first_obs, now = start + episode, slice(start, start + steps)
        trajectories.append(
            to_trajectory(
                f"{where}, episode {episode}",
                spec,
                observations[first_obs : first_obs + steps + 1],
                actions[now],
                ends["terminations"][now],
                ends["truncations"][now] if "truncations" in ends else None,
            )
        )
        start += steps
    env_rewards = _env_rewards(fields, where, lengths)
    returns = _returns(fields, where, len(lengths))
    if returns is None and env_rewards is not None:
        returns = tuple(float(np.sum(rewards)) for rewards in env_rewards)
    expert_return = np.mean(returns) if returns else None
    if "expert_return" in fields:
        expert_return = _numbers(fields["expert_return"], where, "expert_return", 1)[0]
    return Demonstrations(
        source=where,
        env_id=env_id,
        trajectories=tuple(trajectories),
        episode_returns=returns,
        expert_return=None if expert_return is None else float(expert_return),
        sha256=sha256,
        env_rewards=env_rewards,
    )


def npz_env_id(path: str | os.PathLike[str]) -> str | None:
    """The environment that a ``.npz`` file of the layout above says it was recorded in, if any.

    Raises:
        MairlError: the file is missing, damaged or pickled, or not of the layout.
    """
    path = Path(path)
    _open_and_hash(path)
    return _env_id(_read_fields(path), str(path))


def _open_and_hash(path: Path) -> str:
    """Return the file's sha256, after refusing what is plainly no ``.npz`` archive."""
    where = str(path)
    again = "Copy or download it again, or save it with numpy.savez_compressed"
    if not path.exists():
        near = difflib.get_close_matches(path.name.removesuffix(".npz"), shipped(), cutoff=0.5)
        remedy = "Check the path"
        if near:
            remedy += f", or use a shipped set by its name: {', '.join(near)}"
        raise problem(where, "the file", "does not exist", remedy)
    if path.is_dir():
        raise problem(where, "the path", "is a folder", "Give the .npz file inside it")
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
        raise problem(where, "the file", found, "Check its permissions") from error
    if not start:
        raise problem(where, "the file", "is empty", again)
    if start == b"\x93NUMPY":
        found = "is a single array (.npy), expected an archive of several (.npz)"
        remedy = f"Save all of {', '.join(REQUIRED)} with numpy.savez_compressed"
        raise problem(where, "the file", found, remedy)
    if not zipfile.is_zipfile(path):
        cut_off = start.startswith(b"PK\x03\x04")
        found = "was cut off: the archive has no end" if cut_off else "is not an .npz archive"
        raise problem(where, "the file", found, again)
    return digest


def _read_fields(path: Path) -> dict[str, np.ndarray]:
    where = str(path)
    fields: dict[str, np.ndarray] = {}
    name = "the file"
    try:
        with np.load(path, allow_pickle=False) as archive:
            present = list(archive.files)
            for name in (*REQUIRED, *OPTIONAL):
                if name in present:
                    fields[name] = archive[name]
    except UNREADABLE as error:
        if "allow_pickle" in str(error) and name != "the file":
            found = "holds pickled Python objects, which are never loaded"
            remedy = "Save plain number arrays, with episodes one after another (not a list)"
        else:
            found = f"is damaged and cannot be read ({type(error).__name__}: {error})"
            remedy = "Copy or download the file again"
        raise problem(where, name, found, remedy) from error
    for name in REQUIRED:
        if name not in fields:
            found = f"is missing; the file has {', '.join(present) or 'no field'}"
            raise problem(where, name, found, _remedy_missing(name, present))
        if not isinstance(fields[name], np.ndarray):
            raise problem(where, name, "is not an array", "Save it with numpy.savez_compressed")
    return fields


def _remedy_missing(name: str, present: list[str]) -> str:
    if name == "terminations":
        return (
            "Add terminations: bool, one per step, true where the task itself ended (a fall, "
            "the goal) and false where the recording or the time limit ended; without it a "
            "learner cannot tell the two apart"
        )
    unknown = [field for field in present if field not in (*REQUIRED, *OPTIONAL)]
    near = difflib.get_close_matches(name, unknown, n=1, cutoff=0.4)
    rename = f"Rename {near[0]} to {name}" if near else f"Add {name}"
    return f"{rename}; the layout is described in mairl.demos.formats"


def _numbers(raw: np.ndarray, where: str, field: str, size: int) -> np.ndarray:
    array = np.asarray(raw)
    if array.dtype.kind not in "iuf" or array.size != size or not np.isfinite(array).all():
        found = f"has shape {array.shape} and dtype {array.dtype}, expected {size} finite number(s)"
        raise problem(where, field, found, f"Correct {field} or leave it out")
    return array.reshape(size).astype(np.float64)


def _returns(fields: dict[str, np.ndarray], where: str, episodes: int) -> tuple[float, ...] | None:
    if "episode_returns" not in fields:
        return None
    numbers = _numbers(fields["episode_returns"], where, "episode_returns", episodes)
    return tuple(float(value) for value in numbers)


def _env_rewards(
    fields: dict[str, np.ndarray], where: str, lengths: list[int]
) -> tuple[np.ndarray, ...] | None:
    if "rewards" not in fields:
        return None
    numbers = _numbers(fields["rewards"], where, "rewards", sum(lengths))
    return tuple(np.split(numbers, np.cumsum(lengths)[:-1]))


def _env_id(fields: dict[str, np.ndarray], where: str) -> str | None:
    if "env_id" not in fields:
        return None
    array = np.asarray(fields["env_id"])
    if array.dtype.kind != "U" or array.size != 1:
        found = f"has shape {array.shape} and dtype {array.dtype}, expected one string"
        remedy = "Save it as numpy.array('Task-v0'), or leave it out"
        raise problem(where, "env_id", found, remedy)
    return str(array.reshape(())[()])


def _lengths(raw: np.ndarray, where: str) -> list[int]:
    array = np.asarray(raw)
    field, remedy = "episode_lengths", "Save episode_lengths as integers [episodes], each 1 or more"
    if array.dtype.kind not in "iu" or array.ndim != 1:
        found = f"has shape {array.shape} and dtype {array.dtype}, expected integers [episodes]"
        raise problem(where, field, found, remedy)
    if array.size == 0:
        raise problem(where, field, "is empty: no episode", "Record at least one episode")
    short = np.flatnonzero(array < 1)
    if short.size:
        found = f"is {array[short[0]]}, expected 1 or more steps"
        remedy = "Leave out episodes without a step (and their observation)"
        raise problem(f"{where}, episode {short[0]}", field, found, remedy)
    return [int(value) for value in array]


def _check_rows(array: np.ndarray, where: str, field: str, rows: int, what: str) -> None:
    if len(array) != rows:
        found = f"have {len(array)} rows, but episode_lengths ask for {rows} ({what})"
        remedy = "Correct episode_lengths, or save every row"
        if field == "observations":
            remedy += "; each episode has one observation more than actions"
        raise problem(where, field, found, remedy)
