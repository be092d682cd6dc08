"""The demonstration sets that travel with the package (see README.md beside this file)."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path


def shipped() -> list[str]:
    """Names of the shipped sets, sorted; each is the id of the task it was recorded in."""
    # One folder for each namespace of ids.
    names = [entry.name for entry in files(__name__).iterdir()]
    names += [f"mairl/{entry.name}" for entry in (files(__name__) / "mairl").iterdir()]
    return sorted(name.removesuffix(".npz") for name in names if name.endswith(".npz"))


@contextmanager
def shipped_file(name: str) -> Iterator[Path]:
    """Lend the path of a shipped set's ``.npz`` file, also when the package is in a zip."""
    with as_file(files(__name__) / f"{name}.npz") as path:
        yield path
