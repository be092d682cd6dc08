"""A suite: which algorithms on which tasks with how many seeds, from one TOML file.

description = "What it is for"
seeds = 5

[[tasks]]
name = "hopper-full"        # a folder's and a row's name
env = "Hopper-v5"
episodes = 1                # demonstrated episodes; left out: all
every = 1                   # keep every k-th transition
steps = 30_000              # budget of environment steps
demos = "own.npz"           # left out: those shipped for env; a path is relative to this file

[[algorithms]]
name = "no-model"
flags = ["--reward.imagined", "0"]      # options of `mairl train`
tasks = ["hopper-*"]                    # left out: all
steps = { hopper-full = 60_000 }        # another budget than the task's
program = "peers/run.py"                # a Python program with the options of `mairl train`

"""

import dataclasses
import difflib
import fnmatch
import re
import tomllib
import typing
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from mairl.types import MairlError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Task:
    """An environment, the demonstrations to learn from, and a budget."""

    name: str
    env: str
    steps: int
    """Environment steps."""
    episodes: int | None = None
    every: int = 1
    demos: str | None = None


@dataclass(frozen=True)
class Algorithm:
    """One row of the comparison: `mairl train`, or ``program``, with some flags."""

    name: str
    flags: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("*",)
    """Patterns of names of tasks it runs on."""
    steps: dict[str, int] = field(default_factory=dict, hash=False)
    """Other budgets than the task's, by the task's name."""
    program: str | None = None
    """A Python file that takes the options of `mairl train` and writes the same result.json."""

    def runs_on(self, task: Task) -> bool:
        """Whether the suite asks for it on ``task``."""
        return any(fnmatch.fnmatchcase(task.name, pattern) for pattern in self.tasks)

    def budget(self, task: Task) -> int:
        """Environment steps on ``task``."""
        return self.steps.get(task.name, task.steps)


@dataclass(frozen=True)
class Suite:
    """Tasks and algorithms in the order of the file; each pair runs with seeds 0, 1, ..."""

    name: str
    tasks: tuple[Task, ...]
    algorithms: tuple[Algorithm, ...]
    description: str = ""
    seeds: int = 5
    evaluations: int = 20
    """Of a run, evenly over its budget."""
    eval_episodes: int = 5
    """Of an evaluation on the way."""


def shipped_suites() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    folder = files("mairl.bench") / "suites"
    found = {entry.name: Path(str(entry)) for entry in folder.iterdir()}
    return {name.removesuffix(".toml"): found[name] for name in sorted(found) if ".toml" in name}


def load(name: str) -> Suite:
    """Read a shipped suite by its name, or a suite file by its path.

    Raises:
        MairlError: there is none of that name; it is not TOML; an unknown key, a wrong type, a
            missing entry, a name twice. The message names the entry and the remedy.
    """
    path = shipped_suites().get(name, Path(name))
    if not path.is_file():
        near = difflib.get_close_matches(name, shipped_suites(), 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise MairlError(
            f"no suite called {name!r}{hint} (shipped: {', '.join(shipped_suites())}); give one "
            "of these, or the path of a .toml file"
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MairlError(f"suite {path} cannot be read: {error}; correct the file") from error
    where = f"suite {path}"
    for part in ("tasks", "algorithms"):
        rows = document.get(part)
        if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
            raise MairlError(f"{where}: {part} are missing; add at least one [[{part}]]")
    tasks = [_build(Task, f"{where}, tasks[{i}]", t) for i, t in enumerate(document["tasks"])]
    algorithms = [
        _build(Algorithm, f"{where}, algorithms[{i}]", a)
        for i, a in enumerate(document["algorithms"])
    ]
    rest = {k: v for k, v in document.items() if k not in ("tasks", "algorithms")}
    parts = {"name": path.stem, "tasks": tasks, "algorithms": algorithms}
    suite = _build(Suite, where, rest, **parts)
    _check_names(suite, where)
    return _with_paths(suite, path.parent)


def _build(cls: type, where: str, given: dict[str, Any], **parts: Any) -> Any:
    """``cls`` from a table of the file, each entry checked against the annotation."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in parts}
    kinds = typing.get_type_hints(cls)
    if isinstance(given.get("name"), str):
        where += f" ({given['name']!r})"
    for name, value in given.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1, 0.6)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise MairlError(f"{where}: unknown key {name!r}; {hint}keys: {', '.join(fields)}")
        if (wanted := _mismatch(kinds[name], value)) is not None:
            raise MairlError(f"{where}: {name} is {value!r}; give {wanted}")
    for name, entry in fields.items():
        required = entry.default is entry.default_factory is dataclasses.MISSING
        if required and name not in given:
            raise MairlError(f"{where}: {name!r} is missing; add it")
    frozen: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in (given | parts).items()
    }
    return cls(**frozen)


def _mismatch(kind: Any, value: Any) -> str | None:
    """What should be there instead of ``value``; None where it fits."""
    text, count = isinstance(value, str), type(value) is int and value >= 1
    if kind in (str, str | None):
        return None if text and value else "text in quotes"
    if kind in (int, int | None):
        return None if count else "a whole number, 1 or more"
    if kind == tuple[str, ...]:
        fits = isinstance(value, list) and all(isinstance(x, str) for x in value)
        return None if fits else 'a list of texts, such as ["--gamma", "0.9"]'
    fits = isinstance(value, dict) and all(type(x) is int and x >= 1 for x in value.values())
    return None if fits else "whole numbers by task, such as { hopper-full = 60_000 }"


def _check_names(suite: Suite, where: str) -> None:
    for part in (suite.tasks, suite.algorithms):
        names = [entry.name for entry in part]
        for name in names:
            if not NAME.fullmatch(name):
                raise MairlError(
                    f"{where}: the name {name!r} cannot be a folder's; use letters, digits, "
                    "'.', '_' and '-'"
                )
            if names.count(name) > 1:
                raise MairlError(f"{where}: the name {name!r} is there twice; rename one")
    tasks = [task.name for task in suite.tasks]
    for algorithm in suite.algorithms:
        for pattern in algorithm.tasks:
            if not fnmatch.filter(tasks, pattern):
                raise MairlError(
                    f"{where}, algorithm {algorithm.name!r}: tasks has {pattern!r}, which is "
                    f"none of the tasks ({', '.join(tasks)}); correct it"
                )
        for name in algorithm.steps:
            if name not in tasks:
                raise MairlError(
                    f"{where}, algorithm {algorithm.name!r}: steps has {name!r}, which is none "
                    f"of the tasks ({', '.join(tasks)}); correct it"
                )
    if not any(a.runs_on(t) for a in suite.algorithms for t in suite.tasks):
        raise MairlError(f"{where}: no algorithm runs on any task; add patterns to tasks")


def _with_paths(suite: Suite, folder: Path) -> Suite:
    """Paths in the file are relative to it; names of demonstrations stay as they are."""

    def task(entry: Task) -> Task:
        if entry.demos is None or not (folder / entry.demos).is_file():
            return entry
        return dataclasses.replace(entry, demos=str(folder / entry.demos))

    def algorithm(entry: Algorithm) -> Algorithm:
        if entry.program is None:
            return entry
        program = folder / entry.program
        if not program.is_file():
            raise MairlError(
                f"algorithm {entry.name!r}: there is no program {program}; give a path relative "
                "to the suite file"
            )
        return dataclasses.replace(entry, program=str(program))

    return dataclasses.replace(
        suite,
        tasks=tuple(map(task, suite.tasks)),
        algorithms=tuple(map(algorithm, suite.algorithms)),
    )
