"""The learning curve as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

LINES = (
    ("expert_return", "expert", "#222222", "-"),
    ("source_return_mean", "source's policy, carried over", "#dd8452", "-."),
    ("bc_return_mean", "cloning, same demonstrations", "#c44e52", "--"),
    ("random_return", "random actions", "#8c8c8c", ":"),
)
"""Result entry, label, colour, stroke."""


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write ``result``'s evaluations over environment steps to ``path`` (.png)."""
    # Here, not on top: it takes a second to load, and not every command draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    history = result["evaluations"]
    steps = [entry["env_steps"] for entry in history]
    means = [entry["return_mean"] for entry in history]
    spread = [entry["return_std"] for entry in history]
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, label, colour, stroke in LINES:
        if result.get(name) is not None:
            axes.axhline(result[name], color=colour, linestyle=stroke, linewidth=1.2, label=label)
    low = [m - s for m, s in zip(means, spread, strict=True)]
    high = [m + s for m, s in zip(means, spread, strict=True)]
    axes.fill_between(steps, low, high, color="#4c72b0", alpha=0.2, linewidth=0)
    axes.plot(steps, means, color="#4c72b0", marker="o", markersize=3.5, label="learned policy")
    axes.set_xlim(0, max(result["env_steps"], *steps, 1))
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return (mean ± deviation over episodes)")
    demos, kind = result["demos"], result["algorithm"]
    kind = kind if result["preset"] == "default" else f"{kind} ({result['preset']})"
    axes.set_title(
        f"{result['env_id']}, {kind}, seed {result['seed']}: "
        f"{demos['transitions']} transitions of {demos['episodes']} "
        f"episode{'s' if demos['episodes'] != 1 else ''}",
        fontsize=10,
    )
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
    figure.savefig(path, dpi=150)
