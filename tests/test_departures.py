"""docs/departures.md names tests: they must be there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "departures.md").read_text()


def names(body, prefix=""):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from names(node.body, f"{prefix}{node.name}::")


def test_every_test_named_in_the_departures_exists():
    cited = re.findall(r"`(test_\w+\.py)::([\w:]+)`", TEXT)
    known = {file: set(names(ast.parse((TESTS / file).read_text()).body)) for file, _ in cited}
    assert len(cited) > 30
    assert [f"{file}::{name}" for file, name in cited if name not in known[file]] == []


def test_every_departure_names_a_test():
    entries = re.split(r"\n\n(?=\*\*)", TEXT.split("## Ours alone")[0])[1:]
    assert len(entries) > 20
    assert [
        entry.splitlines()[0]
        for entry in entries
        if "::test_" not in entry and "::Test" not in entry
    ] == []
