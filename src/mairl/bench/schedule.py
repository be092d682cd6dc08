"""Run cells, several processes at a time, and show how far they are."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from mairl.bench import results
from mairl.bench.cells import Cell
from mairl.bench.results import Record
from mairl.bench.statistics import iqm
from mairl.bench.suite import Suite
from mairl.interrupts import Interrupted, Interrupts
from mairl.rundir import lock_file
from mairl.types import MairlError

ONE_THREAD = dict.fromkeys(
    ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""XLA makes as many threads as NPROC says; its own flags leave two, which take turns."""
POLL_SECONDS = 0.1
DRAW_SECONDS = 1.0
STOP_SECONDS = 120.0
"""How long a stopped run may take to save."""


@dataclass
class Board:
    """Where each cell stands."""

    cells: Sequence[Cell]
    records: dict[tuple[str, str, int], Record]
    running: dict[Cell, subprocess.Popen[bytes]] = field(default_factory=dict)
    failed: dict[Cell, int] = field(default_factory=dict)
    """Exit codes."""
    elsewhere: set[Cell] = field(default_factory=set)
    """Cells that another process is running."""

    def waiting(self) -> list[Cell]:
        """Those to start, in order; those that run elsewhere are looked at again."""
        return [
            c
            for c in self.cells
            if c.key not in self.records and c not in self.running and c not in self.failed
        ]


def run(suite: Suite, board: Board, out: Path, jobs: int, console: Console) -> None:
    """Run what is missing; ``board`` then says what is done and what has failed.

    Each cell is a process on one thread, its output in a log beside its run directory. A cell
    that was stopped or killed is gone on with. ``out/results.json`` is renewed whenever one ends.

    Raises:
        Interrupted: Ctrl-C; every run was told to save.
    """
    with Interrupts() as interrupts, _shown(board, out, console) as draw:
        try:
            while board.running or board.waiting():
                if interrupts.received is not None:
                    raise Interrupted(_stop(board), interrupts.received)
                _start(suite, board, out, jobs)
                for cell in [c for c, p in board.running.items() if p.poll() is not None]:
                    _end(board, cell, out, console)
                draw()
                time.sleep(POLL_SECONDS)
        finally:
            for process in board.running.values():  # Nothing is left running behind.
                _signal(process, SIGKILL)


def _start(suite: Suite, board: Board, out: Path, jobs: int) -> None:
    for cell in board.waiting():
        if len(board.running) >= jobs:
            return
        path = cell.path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.log").open("ab") as log:
            # The process that runs it inherits the claim: it holds even if we are killed.
            if not lock_file(log, wait=False):
                board.elsewhere.add(cell)
                continue
            board.elsewhere.discard(cell)
            if (path / "result.json").exists():  # Another process has just finished it.
                try:
                    board.records[cell.key] = results.record(cell, out)
                except MairlError:
                    board.failed[cell] = 0
                continue
            results.check_begun(cell, out)
            results.note_definition(cell, out)
            board.running[cell] = subprocess.Popen(
                cell.command(suite, out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **ONE_THREAD},
                # Ctrl-C reaches us alone; what we start is told by us, once.
                start_new_session=True,
            )


def _end(board: Board, cell: Cell, out: Path, console: Console) -> None:
    code = board.running.pop(cell).returncode
    path = cell.path(out)
    if code == 0 and (path / "result.json").exists():
        try:
            record = results.record(cell, out)
        except MairlError as error:  # The others go on.
            board.failed[cell], text = code, f"failed: {error}"
        else:
            board.records[cell.key] = record
            results.add(out, record)
            text = f"{record['normalized_return']:.3f} after {record['wall_seconds']:.0f} s"
    else:
        board.failed[cell] = code
        text = f"failed with exit code {code}, see {path.with_name(path.name + '.log')}"
    if not console.is_terminal or cell in board.failed:
        console.print(f"{cell}: {text}", highlight=False, markup=False, soft_wrap=True)


def _stop(board: Board) -> str:
    for process in board.running.values():
        _signal(process, SIGTERM)
    last = time.monotonic() + STOP_SECONDS
    for process in board.running.values():
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, last - time.monotonic()))
    done = sum(cell.key in board.records for cell in board.cells)
    return f"Stopped with {done} of {len(board.cells)} cells done. The same command goes on."


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, number)


@contextmanager
def _shown(board: Board, out: Path, console: Console) -> Iterator[Any]:
    if not console.is_terminal:
        yield lambda: None
        return
    started = drawn = time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def draw() -> None:
            nonlocal drawn
            if time.monotonic() - drawn >= DRAW_SECONDS:
                drawn = time.monotonic()
                live.update(picture(board, out, drawn - started), refresh=True)

        live.update(picture(board, out, 0.0), refresh=True)
        yield draw


def picture(board: Board, out: Path, seconds: float) -> Table:
    """The live table: a row for each task and algorithm."""
    done = sum(cell.key in board.records for cell in board.cells)
    minutes, rest = divmod(round(seconds), 60)
    table = Table(
        title=f"{done} of {len(board.cells)} cells done, {minutes} min {rest} s",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for name in ("task", "algorithm"):
        table.add_column(name, no_wrap=True)
    table.add_column("done", justify="right")
    table.add_column("IQM", justify="right", style="bold green")
    table.add_column("now")
    for task, algorithm in dict.fromkeys((c.task, c.algorithm.name) for c in board.cells):
        mine = [c for c in board.cells if (c.task, c.algorithm.name) == (task, algorithm)]
        ended = [board.records[c.key] for c in mine if c.key in board.records]
        scores = np.array([r["normalized_return"] for r in ended])
        now = [f"seed {c.seed}: {results.progress(c, out):.0%}" for c in mine if c in board.running]
        now += [
            f"seed {c.seed}: [red]exit code {board.failed[c]}[/]" for c in mine if c in board.failed
        ]
        now += [f"seed {c.seed}: in another process" for c in mine if c in board.elsewhere]
        table.add_row(
            task.name,
            algorithm,
            f"{len(ended)}/{len(mine)}",
            f"{iqm([scores]):.3f}" if ended else "",
            ", ".join(now),
        )
    return table
