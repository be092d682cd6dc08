"""Scalars over environment steps: ``metrics.jsonl`` and TensorBoard events."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mairl.types import MairlError


class MetricsWriter:
    """Appends lines to ``metrics.jsonl``, and the same scalars to TensorBoard.

    A line holds ``env_steps``, ``wall_seconds`` and scalars called ``group/name``. ``lines``
    counts those written; opened with the number that the last checkpoint knew of, it forgets
    what an interrupted run wrote after it.
    """

    def __init__(self, jsonl: Path, tensorboard: Path, lines: int, env_steps: int):
        """Keep the first ``lines``, and in TensorBoard what is not after ``env_steps``.

        Raises:
            MairlError: they cannot be written.
        """
        # Here, not on top: reading metrics must not load TensorBoard.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # Generated modules, opaque to type checkers.
        self._event: Any = vars(event_pb2)["Event"]
        self._summary: Any = vars(summary_pb2)["Summary"]
        session_log: Any = vars(event_pb2)["SessionLog"]

        try:
            self.lines = truncate(jsonl, lines)
            self._file = jsonl.open("a", encoding="utf-8")
            self._events = EventFileWriter(str(tensorboard))
        except OSError as error:
            raise MairlError(
                f"metrics cannot be written to {jsonl.parent}: {error}; make room or choose "
                "another --out"
            ) from error
        # TensorBoard drops what earlier files hold from this step on.
        start = session_log(status=session_log.SessionStatus.START)
        self._events.add_event(self._event(step=env_steps + 1, session_log=start))

    def write(self, env_steps: int, wall_seconds: float, scalars: Mapping[str, float]) -> None:
        """Add one line; NaN and infinity, which JSON lacks, become null."""
        line = {"env_steps": env_steps, "wall_seconds": round(wall_seconds, 3)}
        line |= {k: v if math.isfinite(v) else None for k, v in scalars.items()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self.lines += 1
        values = [self._summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        self._events.add_event(self._event(step=env_steps, summary=self._summary(value=values)))

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()
        self._events.close()


def read(jsonl: Path) -> list[dict[str, Any]]:
    """The lines written so far; a torn last line (the process was killed) is left out."""
    if not jsonl.exists():
        return []
    lines = []
    for text in jsonl.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def truncate(jsonl: Path, lines: int) -> int:
    """Keep the first ``lines``; returns how many there are then."""
    kept = read(jsonl)[:lines]
    temporary = jsonl.with_name(f".{jsonl.name}")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    temporary.replace(jsonl)
    return len(kept)


class Means:
    """Running means of scalars between two lines; plain numbers, so a checkpoint can hold them."""

    def __init__(self, sums: Mapping[str, list[float]] | None = None):
        """Go on from ``sums``, what :attr:`sums` was."""
        self.sums: dict[str, list[float]] = {k: list(v) for k, v in (sums or {}).items()}

    def add(self, scalars: Mapping[str, float]) -> None:
        """Count each scalar once more."""
        for name, value in scalars.items():
            total = self.sums.setdefault(name, [0.0, 0.0])
            total[0] += value
            total[1] += 1.0

    def take(self) -> dict[str, float]:
        """The means; counting starts anew."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means
