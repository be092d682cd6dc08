"""Checkpoints to resume from, and artifacts to hand on: safetensors with JSON, never pickles.

A checkpoint is a folder ``checkpoint-<serial>-<name>`` with ``arrays.safetensors`` and
``checkpoint.json``. It is written under another name and renamed when complete, so a kill at
any moment leaves what was there before or the new one whole. The newest is the one with the
highest serial; there is no link or index that could point to nothing. Two are kept, and a
hash over all content decides on loading whether one can be trusted.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from mairl.artifact import FORMAT_VERSION, CorruptError, artifact_paths, hash_over, unpack
from mairl.types import MairlError

_KEEP = 2
_ARRAYS, _JSON = "arrays.safetensors", "checkpoint.json"
_FOLDER = re.compile(r"checkpoint-(\d{8,})-([\w.-]+)")
_TEMPORARY = ".unfinished-"
_ADDED = ("versions", "sha256", "warnings")


def save(directory: str | Path, name: str, tree: Any, meta: Mapping[str, Any]) -> Path:
    """Write a checkpoint of ``tree`` and return its folder; older ones but one are removed.

    Leaves may be jax or numpy arrays, typed PRNG keys, and Python or numpy scalars. ``meta``
    (configuration, counters) must be expressible in JSON. ``name`` (letters, digits, ``_ . -``)
    is for people; order is kept by a serial number. One process at a time may write to
    ``directory``.

    Raises:
        MairlError: it cannot be written (no space, no permission).
        TypeError: a leaf that is not an array, or ``meta`` that is not JSON.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"checkpoint name {name!r}: use letters, digits, '_', '.', '-'")
    directory = Path(directory)
    data, document = _pack(tree, meta)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(stale, ignore_errors=True)
        found = _folders(directory)
        serial = found[0][0] + 1 if found else 1
        final = directory / f"checkpoint-{serial:08d}-{name}"
        temporary = directory / f"{_TEMPORARY}{final.name}"
        temporary.mkdir()
        _write(temporary / _ARRAYS, data)
        _write(temporary / _JSON, document)
        _sync_folder(temporary)
        os.replace(temporary, final)
        _sync_folder(directory)
        for _, old in _folders(directory)[_KEEP:]:
            # Renamed first: a kill amid the removal must not leave half a checkpoint by its name.
            doomed = directory / f"{_TEMPORARY}{old.name}"
            os.replace(old, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
    except OSError as error:
        raise MairlError(
            f"checkpoint {name!r} cannot be written to {directory}: {error}; make room or choose "
            "another directory (earlier checkpoints are untouched)"
        ) from error
    return final


def load_latest(directory: str | Path, like_tree: Any) -> tuple[Any, dict[str, Any]]:
    """The newest sound checkpoint, as a pytree like ``like_tree``, and its meta.

    ``like_tree`` gives structure, shapes, dtypes and the kind of each leaf (jax, numpy, Python
    scalar, PRNG key); its values are not used, ``jax.eval_shape`` output will do. To meta, as
    JSON gives it back, are added ``versions`` (of mairl and jax when saved) and ``warnings``
    (messages: newer checkpoints that were corrupt and passed over).

    Raises:
        MairlError: there is none; all are corrupt; or the newest sound one is of another
            configuration or format (the first entry that differs is named).
    """
    arrays, document, folder, warnings = _newest(Path(directory))
    tree = _rebuild(like_tree, arrays, document["leaves"], str(folder))
    return tree, {**document["meta"], "versions": document["versions"], "warnings": warnings}


def load_part(directory: str | Path, name: str, like: Any) -> tuple[Any, dict[str, Any]]:
    """One entry of the tree alone, such as its state, and the meta, as :func:`load_latest`.

    Raises:
        MairlError: as :func:`load_latest`.
    """
    arrays, document, folder, warnings = _newest(Path(directory))
    saved = {k: v for k, v in document["leaves"].items() if k.startswith(f"{name}.")}
    tree = _rebuild({name: like}, arrays, saved, str(folder))
    meta = {**document["meta"], "versions": document["versions"], "warnings": warnings}
    return tree[name], meta


def _newest(directory: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], Path, list[str]]:
    """Arrays, document and folder of the newest sound checkpoint, and messages on others."""
    found = _folders(directory)
    if not found:
        raise MairlError(
            f"nothing to resume: there is no checkpoint in {directory}; check the path, or "
            "start the run without resuming"
        )
    problems: list[str] = []
    for _, folder in found:
        try:
            arrays, document = unpack(folder / _ARRAYS, folder / _JSON)
        except CorruptError as error:
            problems.append(f"checkpoint {folder} is corrupt: {error}")
            continue
        warnings = [f"{problem}; using {folder.name} instead" for problem in problems]
        return arrays, document, folder, warnings
    raise MairlError("; ".join(problems) + ". Restore the files from a copy, or start a new run")


def save_artifact(path: str | Path, tree: Any, meta: Mapping[str, Any]) -> Path:
    """Write ``<path>.safetensors`` and ``<path>.json`` for others to use; returns the former.

    Entries are named by their path in ``tree`` (``layers.0.weight``); the JSON holds ``meta``
    under that name, the versions, and each entry's shape and dtype.

    Raises:
        MairlError: it cannot be written. TypeError: as :func:`save`.
    """
    arrays_path, json_path = artifact_paths(path)
    data, document = _pack(tree, meta)
    try:
        arrays_path.parent.mkdir(parents=True, exist_ok=True)
        # Two files cannot be replaced at once; the hash tells a pair that does not belong.
        for target, content in ((arrays_path, data), (json_path, document)):
            temporary = target.with_name(f"{_TEMPORARY}{target.name}")
            _write(temporary, content)
            os.replace(temporary, target)
        _sync_folder(arrays_path.parent)
    except OSError as error:
        raise MairlError(
            f"{arrays_path} cannot be written: {error}; make room or choose another place"
        ) from error
    return arrays_path


def check_config(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Check that a run is resumed with the configuration it was begun with.

    Values are compared as JSON keeps them (a tuple equals a list). Leave fields that may change
    out of both, such as how long to run.

    Raises:
        MairlError: with every field that differs, its saved and its present value.
    """
    before, now = _fields(_as_json(saved)), _fields(_as_json(current))
    differing = [
        f"  {name}: saved {_shown(before, name)}, now {_shown(now, name)}"
        for name in sorted(before.keys() | now.keys())
        if _shown(before, name) != _shown(now, name)
    ]
    if differing:
        raise MairlError(
            "the checkpoint is of another configuration:\n"
            + "\n".join(differing)
            + "\nresume with the saved values, or start a new run directory for the new ones"
        )


def _pack(tree: Any, meta: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Content of the two files; the second holds the hash over both."""
    arrays, leaves = {}, {}
    for name, leaf in _named_leaves(tree):
        if name in arrays:
            raise ValueError(f"two entries of the tree are both called {name!r}")
        leaves[name], arrays[name] = _signature(leaf), _to_numpy(name, leaf)
    data = safetensors.numpy.save(arrays)
    document = {
        "format_version": FORMAT_VERSION,
        "versions": {name: _version(name) for name in ("mairl", "jax")},
        "meta": {name: value for name, value in _as_json(meta).items() if name not in _ADDED},
        "leaves": leaves,
        "arrays_sha256": hashlib.sha256(data).hexdigest(),
    }
    document["sha256"] = hash_over(data, document)
    return data, json.dumps(document, indent=2).encode()


def _rebuild(
    like_tree: Any, arrays: dict[str, np.ndarray], saved: dict[str, str], where: str
) -> Any:
    wanted = {name: _signature(leaf) for name, leaf in _named_leaves(like_tree)}
    for name in [*wanted, *saved]:
        there, here = saved.get(name, "absent"), wanted.get(name, "absent")
        if there != here:
            raise MairlError(
                f"{where} is a checkpoint of another configuration or version: {name!r} is "
                f"{there} in it and {here} in this run; resume with the configuration and "
                "version it was saved with, or start a new run directory"
            )
    leaves = [_from_numpy(arrays[name], leaf) for name, leaf in _named_leaves(like_tree)]
    return jax.tree.unflatten(jax.tree.structure(like_tree), leaves)


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(p, simple=True, separator=".") or "value", x) for p, x in leaves]


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _signature(leaf: Any) -> str:
    """Kind, dtype and shape, as compared and as shown: ``float32[64,3]``, ``key<fry>[]``."""
    if isinstance(leaf, (bool, int, float)) and not isinstance(leaf, np.generic):
        return f"Python {type(leaf).__name__}"
    if not hasattr(leaf, "dtype"):
        raise TypeError(f"a leaf of type {type(leaf).__name__} cannot be saved: {leaf!r}")
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _to_numpy(name: str, leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf, order="C")
    if array.dtype.kind in "OUSc" or (isinstance(leaf, int) and array.dtype.kind == "u"):
        raise TypeError(f"{name!r} cannot be saved: {leaf!r} does not fit an array of numbers")
    if array.dtype.kind == "V":  # bfloat16 and the like, which numpy does not know by itself.
        array = array.view(f"u{array.dtype.itemsize}")
    return array


def _from_numpy(array: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        # The implementation is part of the dtype, which has been compared.
        return jax.random.wrap_key_data(jnp.asarray(array), impl=_implementation(like))
    if isinstance(like, np.generic):
        return array[()]
    if isinstance(like, (bool, int, float)):
        return array.item()
    if isinstance(like, np.ndarray):
        return array.copy()
    return jnp.asarray(array)


def _implementation(key: Any) -> Any:
    # Of an abstract key too, which jax.random.key_impl refuses.
    return (
        key.dtype._impl.name if isinstance(key, jax.ShapeDtypeStruct) else jax.random.key_impl(key)
    )


def _folders(directory: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints with their serial numbers, newest first."""
    if not directory.is_dir():
        return []
    matches = ((_FOLDER.fullmatch(entry.name), entry) for entry in directory.iterdir())
    return sorted(((int(m[1]), entry) for m, entry in matches if m), reverse=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make a rename inside ``path`` survive a power cut, where the system knows how."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_encode))


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return np.asarray(value).tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")


def _fields(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value} if prefix else {}
    return {
        name: leaf
        for key, part in value.items()
        for name, leaf in _fields(part, f"{prefix}.{key}" if prefix else key).items()
    }


def _shown(fields: dict[str, Any], name: str) -> str:
    return json.dumps(fields[name]) if name in fields else "absent"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
