"""``mairl bench``: run a suite, or go on with it, and report."""

import os
from pathlib import Path

from rich.console import Console

from mairl.bench import cells, report, results, schedule
from mairl.bench.suite import Suite, load, shipped_suites
from mairl.types import MairlError


class CellsFailed(MairlError):
    """Some cells ended with an error; the others are done and reported."""

    exit_code = 1


def bench(
    name: str,
    out: Path,
    *,
    jobs: int | None = None,
    seeds: int | None = None,
    only: str | None = None,
    report_only: bool = False,
    console: Console | None = None,
) -> str:
    """Run the cells of suite ``name`` that ``out`` lacks, and report; returns the report.

    ``jobs`` processes at a time (None: as many as cores), ``seeds`` instead of the suite's,
    ``only`` those rows whose task:algorithm fits a pattern.

    Raises:
        MairlError: whatever is wrong with the suite or what is in ``out``, before computing.
        CellsFailed: some runs ended with an error.
        Interrupted: Ctrl-C; all runs were saved.
    """
    console = console or Console()
    suite = load(name)
    if report_only:
        return _report(suite, out, console)
    if jobs is not None and jobs < 1:
        raise MairlError(f"--jobs is {jobs}; give 1 or more")
    chosen = cells.select(suite, seeds, only)
    board = schedule.Board(chosen, results.by_key(results.gather(out, chosen)))
    for cell in board.waiting():
        results.check_begun(cell, out)
    console.print(f"{len(board.waiting())} of {len(chosen)} cells of {suite.name} to run")
    cells.check(suite, board.waiting(), out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MairlError(f"--out {out} cannot be used: {error.strerror}; choose another") from error
    schedule.run(suite, board, out, jobs or _cores(), console)
    done = any(cell.key in board.records for cell in chosen)
    text = _report(suite, out, console) if done else ""
    if board.failed:
        logs = ", ".join(f"{cell.path(out)}.log" for cell in board.failed)
        raise CellsFailed(
            f"{len(board.failed)} cells failed (see {logs}); the same command retries"
        )
    return text


def _report(suite: Suite, out: Path, console: Console) -> str:
    records = results.gather(out, cells.begun(suite, out))
    known = {task.name for task in suite.tasks}, {a.name for a in suite.algorithms}
    if not any(r["task"] in known[0] and r["algorithm"] in known[1] for r in records):
        raise MairlError(
            f"there is no finished cell of {suite.name} in {out}; check --out, or run the suite "
            "without --report"
        )
    results.write(out, records)
    text = report.write(suite, records, out)
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    console.print(f"In {out}: {results.FILE}, {report.FILE} and its figures.", highlight=False)
    return text


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def render_list() -> str:
    """The shipped suites, a line each."""
    suites = [load(name) for name in shipped_suites()]
    width = max(len(suite.name) for suite in suites)
    lines = [f"{suite.name:{width}}  {suite.description}" for suite in suites]
    return "\n".join([*lines, "Your own: the path of a .toml file (see docs/bench.md)."])
