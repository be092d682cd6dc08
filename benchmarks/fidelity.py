"""Learned rewards beside the true ones, over runs: makes results/fidelity.json.

    python benchmarks/fidelity.py RUN [RUN ...] [--out benchmarks/results/fidelity.json]

Asks ``mairl evaluate RUN --reward`` where a run has no ``reward_scores.json`` yet (half a minute
each), gathers the scores and prints a table: a row for each task, means over its runs, and another
for rewards by ranking (directories that ``mairl rank`` wrote, beside the runs they were made of).
Rows that the file holds of other runs are kept.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS = ("env_id", "algorithm", "preset", "episodes", "every", "seed")
KINDS = ("expert", "agent", "random", "all")
RESULTS = Path(__file__).parent / "results" / "fidelity.json"


def scores(run: Path) -> dict[str, Any]:
    """A row: which run it was, and how its reward compares with the true one."""
    path = run / "reward_scores.json"
    if not path.exists():
        subprocess.run(
            [sys.executable, "-m", "mairl", "evaluate", str(run), "--reward"], check=True
        )
    found = json.loads(path.read_text())
    about = json.loads((run / "config.json").read_text())
    ranked = about.get("ranked")
    # A ranked reward's directory has the policy of the run that it was made of, and no result.
    learned = Path(ranked["run"]) if ranked else run
    if not learned.exists():  # both were moved
        learned = run.parent / learned.name
    result = json.loads((learned / "result.json").read_text())
    row: dict[str, Any] = {name: about["config"][name] for name in SETTINGS}
    row |= {"env_steps": result["env_steps"], "normalized_return": result["normalized_return"]}
    row["bc_normalized_return"] = result["bc_normalized_return"]
    alone = about["config"]["algo"].get("reward", {}).get("state_only", False)
    # Not where it lies on this machine.
    short = ranked and {**ranked, "run": learned.name}
    return row | {"state_only": alone, "ranked": short, "scores": found}


def name(row: dict[str, Any]) -> str:
    """The task, and what was demonstrated of it."""
    every = f", every {row['every']}th" if row["every"] > 1 else ""
    alone = ", states alone" if row.get("state_only") and not row.get("ranked") else ""
    how = [row["algorithm"]] if row["algorithm"] != "mairl" else []
    how += [row["preset"]] if row["preset"] != "default" else []
    alone += "".join(f", {word}" for word in how)
    return f"{row['env_id']}, {row['episodes']} episode{'s' * (row['episodes'] != 1)}{every}{alone}"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: Pearson of g on each kind of steps, distances; and means over tasks."""
    head = "| task | seeds | return [cloning] | g: expert | policy | random | all | EPIC | DARD |"
    lines, means = [head, "| --- " * 9 + "|"], []
    for task in dict.fromkeys(map(name, rows)):
        mine = [row for row in rows if name(row) == task]
        numbers = [
            _mean(row["scores"][kind] and row["scores"][kind]["pearson_g"] for row in mine)
            for kind in KINDS
        ]
        numbers += [_mean(row["scores"][f"{kind}_g"] for row in mine) for kind in ("epic", "dard")]
        means.append(numbers)
        back, cloned = (
            _text(_mean(row.get(f"{kind}normalized_return") for row in mine))
            for kind in ("", "bc_")
        )
        lines.append(_line([task, str(len(mine)), f"{back} [{cloned}]", *map(_text, numbers)]))
    columns = [_mean(column) for column in zip(*means, strict=True)]
    lines.append(_line(["mean of the tasks", "", "", *map(_text, columns)]))
    return "\n".join(lines)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    found = [*rows, *map(scores, options.runs)]
    kept = {(name(row), bool(row.get("ranked")), row["seed"]): row for row in found}
    rows = [kept[key] for key in sorted(kept)]
    options.out.write_text(json.dumps(rows, indent=1) + "\n")
    for title, ranked in (("learned with the policy", False), ("by ranking", True)):
        mine = [row for row in rows if bool(row.get("ranked")) == ranked]
        if mine:
            print(f"Rewards {title}\n\n{table(mine)}\n")


if __name__ == "__main__":
    main()
