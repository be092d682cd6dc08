"""Raw numbers of a suite: one record for each finished cell, all in one JSON file."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mairl.bench.cells import Cell
from mairl.rundir import lock_file, read_json
from mairl.types import MairlError

Record = dict[str, Any]
"""task, algorithm, seed; the cell's definition; what :data:`KEPT` names of its result.json
(``returns``: of the last policy's episodes, which older records lack); evaluations: ``[[env_steps,
normalized_return, wall_seconds], ...]``."""

FILE = "results.json"
KEPT = (
    *("env_id", "demos", "env_steps", "updates", "wall_seconds"),
    *("normalized_return", "return_mean", "return_std", "returns"),
    *("expert_return", "random_return"),
    *("bc_normalized_return", "bc_return_mean", "peak_memory_bytes", "versions"),
)
NEEDED = ("env_id", "env_steps", "wall_seconds", "normalized_return", "return_mean")


def read(out: Path) -> list[Record]:
    """The records of ``out/results.json``; none where there is no such file.

    Raises:
        MairlError: it cannot be read.
    """
    path = out / FILE
    if not path.exists():
        return []
    records = read_json(path).get("records")
    if not isinstance(records, list):
        raise MairlError(f"{path} has no list of records; restore it from a copy")
    return records


def add(out: Path, new: Record) -> None:
    """Put a record into ``out/results.json``, beside those that other processes have put there.

    Raises:
        MairlError: the file cannot be read.
    """
    with (out / f".{FILE}.lock").open("ab") as lock:
        lock_file(lock, wait=True)
        write(out, list((by_key(read(out)) | by_key([new])).values()))


def write(out: Path, records: Sequence[Record]) -> None:
    """Write ``out/results.json``, a line for each record, whole or not at all."""
    lines = ",\n".join(json.dumps(record) for record in sorted(records, key=_order))
    temporary = out / f".{FILE}.{os.getpid()}.tmp"
    temporary.write_text(f'{{"records": [\n{lines}\n]}}\n', encoding="utf-8")
    os.replace(temporary, out / FILE)


def gather(out: Path, cells: Iterable[Cell]) -> list[Record]:
    """The file's records, with those of ``cells`` that lie finished under ``out``.

    A run directory is newer than the file and replaces its record.

    Raises:
        MairlError: a file that cannot be read, or results of another definition than the cell's.
    """
    records = by_key(read(out))
    for cell in cells:
        if (cell.path(out) / "result.json").exists():
            records[cell.key] = record(cell, out)
        if cell.key in records:
            _check_same(cell, records[cell.key]["definition"], cell.path(out))
    return list(records.values())


def by_key(records: Iterable[Record]) -> dict[tuple[str, str, int], Record]:
    """Records by task, algorithm and seed, as :attr:`Cell.key`."""
    return {(r["task"], r["algorithm"], r["seed"]): r for r in records}


def record(cell: Cell, out: Path) -> Record:
    """What is kept of a finished cell.

    Raises:
        MairlError: its result.json cannot be read or lacks something.
    """
    path = cell.path(out) / "result.json"
    result = read_json(path)
    task, algorithm, seed = cell.key
    try:
        for name in NEEDED:
            if result[name] is None:
                raise KeyError(name)
        evaluations = [
            [e["env_steps"], e["normalized_return"], e.get("wall_seconds")]
            for e in result["evaluations"]
        ]
    except (KeyError, TypeError) as error:
        raise MairlError(
            f"{path} lacks {error}: it is not what a run of this suite writes; delete "
            f"{path.parent} to run it again"
        ) from error
    kept = {name: result.get(name) for name in KEPT}
    demos = kept["demos"]
    if isinstance(demos, dict) and str(demos.get("source")).endswith(".npz"):
        # The folder differs from machine to machine.
        kept["demos"] = {**demos, "source": Path(demos["source"]).name}
    return {
        **{"task": task, "algorithm": algorithm, "seed": seed},
        "definition": _definition(cell, out),
        **kept,
        "evaluations": evaluations,
    }


def note_definition(cell: Cell, out: Path) -> None:
    """Write down what a cell is when it begins; see :func:`check_begun`."""
    cell.path(out).parent.mkdir(parents=True, exist_ok=True)
    _definition_file(cell, out).write_text(json.dumps(cell.definition) + "\n", encoding="utf-8")


def check_begun(cell: Cell, out: Path) -> None:
    """Refuse to go on with a run that was begun under another definition.

    Raises:
        MairlError: the suite has changed since.
    """
    if (cell.path(out) / "config.json").exists():
        _check_same(cell, _definition(cell, out), cell.path(out))


def progress(cell: Cell, out: Path) -> float:
    """The share of its budget that a running cell has done, as its metrics say."""
    try:
        with (cell.path(out) / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.path.getsize(file.name) - 8192))
            lines = file.read().decode(errors="replace").split("\n")[:-1]
        return json.loads(lines[-1])["env_steps"] / cell.definition["steps"]
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return 0.0


def _definition_file(cell: Cell, out: Path) -> Path:
    path = cell.path(out)
    return path.with_name(f"{path.name}.json")


def _definition(cell: Cell, out: Path) -> dict[str, Any]:
    path = _definition_file(cell, out)
    return read_json(path) if path.exists() else cell.definition


def _check_same(cell: Cell, found: dict[str, Any], path: Path) -> None:
    for name, wanted in cell.definition.items():
        if found.get(name) != wanted:
            raise MairlError(
                f"{cell}: the suite says {name} {wanted!r}, but what is there was made with "
                f"{found.get(name)!r}; choose another --out, or delete {path} and its record in "
                f"{FILE}"
            )


def _order(record: Record) -> tuple[Any, ...]:
    return record["task"], record["algorithm"], record["seed"]
