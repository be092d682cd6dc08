"""Find demonstrations by what a user types: nothing, a shipped name, a path, a Minari id."""

import dataclasses
import difflib
import os
from pathlib import Path

from mairl.demos.data import shipped, shipped_file
from mairl.demos.formats import Demonstrations, load_npz, npz_env_id
from mairl.demos.minari import MINARI_ID, load_minari, minari_env_id, minari_folder
from mairl.types import EnvSpec, MairlError

OWN = (
    "give your own as the path of an .npz file (layout: mairl.demos.formats) "
    "or the id of a Minari dataset"
)


def find_demonstrations(
    name_or_path: str | os.PathLike[str] | None, spec: EnvSpec
) -> Demonstrations:
    """Load the demonstrations that ``name_or_path`` means, checked against ``spec``.

    None is the set shipped for ``spec.env_id``; otherwise, in this order: a shipped name, a
    path (of a file that is there, or ending in ``.npz``), a Minari id such as
    ``mujoco/hopper/expert-v0`` (never downloaded by itself).

    Raises:
        MairlError: nothing of that name, or demonstrations that do not fit.
    """
    if name_or_path is None:
        task = spec.env_id.rpartition(":")[2]  # "package:Task-v0" only says what to import
        if task not in shipped():
            raise MairlError(
                f"no demonstrations of {spec.env_id} are shipped "
                f"(there are: {', '.join(shipped())}): {OWN}."
            )
        return _load_shipped(task, spec)
    name = os.fspath(name_or_path)
    if name in shipped():
        return _load_shipped(name, spec)
    if name.endswith(".npz") or Path(name).is_file():
        return load_npz(name, spec)
    if _is_minari(name):
        return load_minari(name, spec)
    raise _unknown(name)


def recorded_in(name: str) -> str:
    """The environment that a shipped set, a file or a Minari dataset says it was recorded in.

    Raises:
        MairlError: nothing of that name, or it does not say.
    """
    if name in shipped():
        return name
    if name.endswith(".npz") or Path(name).is_file():
        env_id = npz_env_id(name)
    elif _is_minari(name):
        env_id = minari_env_id(name)
    else:
        raise _unknown(name)
    if env_id is None:
        raise MairlError(
            f"{name} does not say which environment it was recorded in; say it with --env ENV_ID"
        )
    return env_id


def _is_minari(name: str) -> bool:
    return bool(MINARI_ID.fullmatch(name)) and ("/" in name or minari_folder(name).exists())


def _unknown(name: str) -> MairlError:
    near = difflib.get_close_matches(name, shipped())
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return MairlError(
        f"no demonstrations called {name!r}.{hint} Shipped: {', '.join(shipped())}. Or {OWN}."
    )


def _load_shipped(name: str, spec: EnvSpec) -> Demonstrations:
    with shipped_file(name) as path:
        # Recorded by name: where the package is installed differs from machine to machine.
        return dataclasses.replace(load_npz(path, spec), source=name)
