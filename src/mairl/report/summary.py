"""The end of a run in words."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

REACHED = 0.95
"""Of the way from random to expert: called the expert's level."""


def summarize(result: Mapping[str, Any], path: Path, alarms: Sequence[str] = ()) -> str:
    """What was learned, how good it is, where it lies, and what to do next."""
    demos = result["demos"]
    episodes = f"{demos['episodes']} episode{'s' if demos['episodes'] != 1 else ''}"
    kept = "" if demos["every"] == 1 else f", every {demos['every']}th"
    data = f"{demos['transitions']} transitions of {episodes}{kept} ({demos['source']})"
    origin = data
    if (source := result.get("source")) is not None:
        origin = f"the reward of {source['run']} ({source['env_id']}, {data})"
    lines = [
        f"Learned {result['env_id']} from {origin}, in {result['env_steps']} environment steps "
        f"and {_duration(result['wall_seconds'])}.",
        "",
        f"  this policy     {result['return_mean']:10.1f} ± {result['return_std']:.1f}"
        f"{_share(result['normalized_return'])}   20 new episodes, deterministic actions",
    ]
    for label, name, share in (
        ("expert", "expert_return", None),
        ("source's policy", "source_return_mean", result.get("source_normalized_return")),
        ("cloning", "bc_return_mean", result.get("bc_normalized_return")),
        ("random actions", "random_return", None),
    ):
        if result.get(name) is not None:
            lines.append(f"  {label:15s} {result[name]:10.1f}{_share(share)}")
    if failed := _failed(result):
        lines += ["", failed]
    lines += ["", _verdict(result)]
    if alarms:
        lines += ["", "Not healthy at the end:", *(f"  ! {text}" for text in alarms)]
    run = shlex.quote(str(path))
    if (path / "policy.zip").exists():
        return "\n".join([*lines, "", f"In {path}: policy.zip, result.json, curve.png."])
    reward = " and reward.safetensors" if (path / "reward.json").exists() else ""
    lines += [
        "",
        f"In {path}: policy.safetensors{reward} (with .json), result.json, "
        "curve.png, metrics.jsonl, tensorboard/.",
        "Next:",
        f"  mairl evaluate {run}",
        f"  tensorboard --logdir {run}",
        f'  python -c "import mairl; model = mairl.load({str(path)!r})"',
    ]
    return "\n".join(lines)


def _failed(result: Mapping[str, Any]) -> str | None:
    """How many episodes go wrong where most go well: a mean would hide it."""
    returns, low = result.get("returns"), result.get("random_return")
    if not returns or low is None:
        return None
    middle = median(returns)
    wrong = sum(value - low < 0.5 * (middle - low) for value in returns)
    if not wrong or middle <= low:
        return None
    return (
        f"{wrong} of {len(returns)} episodes {'is' if wrong == 1 else 'are'} less than half as far "
        f"above random actions as the middle one ({middle:.1f})."
    )


def _verdict(result: Mapping[str, Any]) -> str:
    """Honest: what the numbers say, and no more."""
    share, clone = result["normalized_return"], result.get("bc_normalized_return")
    if share is None and result.get("source") is not None:
        return (
            "No expert's return is known here, so how near this is to one cannot be said"
            + _beside_source(result["return_mean"], result["source_return_mean"])
        )
    if share is None:
        return (
            "The demonstrations carry no rewards, so how near this is to the expert cannot be "
            "said" + _beside_clone(result["return_mean"], result.get("bc_return_mean"))
        )
    if share >= REACHED:
        text = "The policy is at the expert's level"
    elif share >= 0.5:
        text = f"The policy is not at the expert's level: it goes {share:.0%} of the way"
    else:
        text = (
            f"The policy is far from the expert's level: it goes {max(share, 0.0):.0%} of the way"
        )
    if clone is None:
        return text + "."
    if share < REACHED:
        text += " from random actions"
    text += _beside_clone(share, clone, close=0.02)
    if share < REACHED:
        text += " More --steps or more demonstrated --episodes may help."
    return text


def _beside_source(value: float, source: float) -> str:
    better = "better" if value > source else "no better"
    return f"; it is {better} than the source's policy."


def _beside_clone(value: float, clone: float | None, close: float = 0.0) -> str:
    if clone is None:
        return "."
    if abs(value - clone) <= close:
        return "; cloning the same demonstrations is as good."
    if value > clone:
        return ", and better than cloning the same demonstrations."
    return "; cloning the same demonstrations is better."


def _share(share: float | None) -> str:
    return "" if share is None else f"  ({share:.2f})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
