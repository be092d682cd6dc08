"""What a run hands on, read without JAX: safetensors for the arrays, JSON for what they mean.

``<name>.json`` holds ``format_version``, ``versions``, ``meta`` (what the arrays are and where
they come from), ``leaves`` (each array's dtype and shape), ``arrays_sha256`` (of the
.safetensors file, as ``sha256sum`` prints it) and ``sha256`` (over both files). The hashes tell
damage and files that do not belong together; they are no signature.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from mairl.types import MairlError

FORMAT_VERSION = 1
"""Raised whenever files written so far could no longer be read."""


class CorruptError(Exception):
    """The files are not what was written; the message says how."""


def load_artifact(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What ``checkpoint.save_artifact`` wrote: arrays by name, and meta.

    To meta are added ``versions`` and ``sha256``. ``path`` is that of either file, or without
    the ending.

    Raises:
        MairlError: it is missing, incomplete, corrupt, or of a newer format.
    """
    arrays_path, json_path = artifact_paths(path)
    for part in (arrays_path, json_path):
        if not part.exists():
            raise MairlError(
                f"{part} does not exist; an artifact is {arrays_path.name} and {json_path.name} "
                "side by side: check the path, or copy both"
            )
    try:
        arrays, document = unpack(arrays_path, json_path)
    except CorruptError as error:
        raise MairlError(
            f"{arrays_path} is corrupt: {error}; copy or export both files again"
        ) from error
    added = {name: document[name] for name in ("versions", "sha256")}
    return arrays, {**document["meta"], **added}


def artifact_paths(path: str | Path) -> tuple[Path, Path]:
    """The .safetensors and the .json file of an artifact."""
    # Not with_suffix: "policy-0.5" must not lose its ".5".
    stem = str(path).removesuffix(".safetensors").removesuffix(".json")
    return Path(f"{stem}.safetensors"), Path(f"{stem}.json")


def unpack(arrays_path: Path, json_path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and document of the two files.

    Raises:
        CorruptError: they are not what was written. MairlError: another format version.
    """
    try:
        data, text = arrays_path.read_bytes(), json_path.read_bytes()
    except OSError as error:
        raise CorruptError(str(error)) from error
    try:
        document = json.loads(text)
        version = document["format_version"]
        # Before the hash: another version may hash otherwise.
        if isinstance(version, int) and version != FORMAT_VERSION:
            raise MairlError(
                f"{json_path} has format version {version}, this mairl reads {FORMAT_VERSION}; "
                f"install mairl {document.get('versions', {}).get('mairl')} to use it"
            )
        expected = document["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{json_path.name} is not readable ({error!r})") from error
    if hash_over(data, document) != expected:
        raise CorruptError(f"{arrays_path.name} and {json_path.name} do not match their hash")
    try:
        arrays = safetensors.numpy.load(data)
    except SafetensorError as error:
        raise CorruptError(str(error)) from error
    for name, signature in document["leaves"].items():
        if signature.startswith(("bfloat16[", "float8_")):
            arrays[name] = arrays[name].view(signature.partition("[")[0])
    return arrays, document


def hash_over(data: bytes, document: dict[str, Any]) -> str:
    """sha256 over the arrays' bytes and the document without its own hash."""
    rest = {name: value for name, value in document.items() if name != "sha256"}
    digest = hashlib.sha256(data)
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()
