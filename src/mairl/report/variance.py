"""Table and picture of what ``mairl variance`` measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LABELS = {
    "likelihood_ratio": "likelihood ratio, no baseline",
    "leave_one_out": "likelihood ratio, leave-one-out",
    "value_baseline": "likelihood ratio, value",
    "action_value_baseline": "likelihood ratio, action value",
    "in_the_model": "likelihood ratio in the model",
    "anchored": "pathwise, anchored",
    "imagined": "pathwise, imagined",
    "value": "through the value only",
}
"""Estimators by name, in the order of rows and curves."""

COLOURS = ("#8c510a", "#bf812d", "#dfa04e", "#8c8c8c", "#7b3294", "#2c7fb8", "#08306b", "#31a354")

UNTOLD = 0.25
"""A direction with a larger standard error than this is not shown: it is not known."""


def table(document: Mapping[str, Any]) -> str:
    """A Markdown table of one measurement."""
    lines = [
        "| H | estimator | variance | ÷ pathwise, imagined | the same, equal compute | bias | "
        "cosine of mean | cosine of one gradient | environment steps | CPU µs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for at in document["horizons"]:
        for name, label in LABELS.items():
            if name in at["estimators"]:
                lines.append(_row(at["horizon"], label, at["estimators"][name]))
    return "\n".join(lines)


def describe(document: Mapping[str, Any]) -> str:
    """What was measured, in words and the table, as Markdown."""
    d = document
    real = d["reference_dynamics"] == "environment"
    where = (
        "in the environment's own dynamics"
        if real
        else "in the learned model, since the environment cannot be put back to a state: bias "
        "against the environment is NOT measured"
    )
    errors = ", ".join(
        f"{at['reference']['relative_error']:.2f} at H = {at['horizon']}"
        if at["reference"]["relative_error"] is not None
        else f"larger than the gradient itself at H = {at['horizon']}"
        for at in d["horizons"]
    )
    return (
        f"# {d['env_id']}, {d['algorithm']} ({d['preset']}), seed {d['seed']}, after "
        f"{d['env_steps']} environment steps\n\n"
        f"Reference: likelihood ratio {where}, {d['reference_trajectories']} trajectories from "
        f"{d['starts']} start states; its relative standard error is {errors}. Estimators: "
        f"{d['trajectories']} trajectories, in gradients of {d['batch_size']}. Variance (trace of "
        "the covariance, of one trajectory's estimate) in units of the reference's squared norm, "
        "bias in units of its norm; intervals are 95 %; –: noise hides it.\n\n"
        f"{table(d)}\n"
    )


def draw(documents: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Variance, bias and cosine over the horizon, a row for each measurement (.png)."""
    # Here, not on top: it takes a second to load, and not every command draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(documents)
    figure = Figure(figsize=(13.0, 2.9 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 4, squeeze=False)
    for line, document in zip(axes, documents, strict=True):
        _draw_row(line, document)
    titles = (
        "variance of one trajectory's\nestimate, ÷ pathwise imagined",
        "the same at equal compute",
        "bias ÷ norm of the reference\n(95 % interval)",
        f"cosine of one gradient\n({documents[0]['batch_size']} trajectories) to the reference",
    )
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("horizon H")
    handles, labels = max(
        (ax.get_legend_handles_labels() for ax in axes[:, 0]), key=lambda x: len(x[1])
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _draw_row(axes: Any, document: Mapping[str, Any]) -> None:
    horizons = [at["horizon"] for at in document["horizons"]]
    place = {horizon: i for i, horizon in enumerate(horizons)}
    for index, (name, label) in enumerate(LABELS.items()):
        found = {
            place[at["horizon"]]: at["estimators"][name]
            for at in document["horizons"]
            if name in at["estimators"]
        }
        if not found:
            continue
        style = {"color": COLOURS[index], "marker": "o", "markersize": 3.5, "linewidth": 1.2}
        for ax, entry in ((axes[0], "trace_ratio"), (axes[1], "trace_ratio_equal_compute")):
            ax.plot(list(found), [each[entry] for each in found.values()], label=label, **style)
        told = {x: each for x, each in found.items() if _bias_told(each)}
        shift = 0.07 * (index - len(LABELS) / 2)
        if told:
            bias = [each["bias"] for each in told.values()]
            ends = [each["bias_interval"] for each in told.values()]
            below = [max(b - low, 0.0) for b, (low, _) in zip(bias, ends, strict=True)]
            above = [max(high - b, 0.0) for b, (_, high) in zip(bias, ends, strict=True)]
            at = [x + shift for x in told]
            axes[2].errorbar(at, bias, (below, above), **{**style, "linestyle": "none"})
        told = {x: each for x, each in found.items() if each["cosine_of_batch"] is not None}
        axes[3].plot(list(told), [each["cosine_of_batch"] for each in told.values()], **style)
    for ax in axes:
        ax.set_xticks(range(len(horizons)), [str(horizon) for horizon in horizons])
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    for ax in axes[:2]:
        ax.set_yscale("log")
        ax.axhline(1.0, color="#222222", linewidth=0.6)
    axes[2].axhline(0.0, color="#222222", linewidth=0.6)
    axes[3].axhline(0.0, color="#222222", linewidth=0.6)
    axes[3].set_ylim(-0.3, 1.1)
    axes[0].set_ylabel(f"{document['env_id']}\nafter {document['env_steps']} steps", fontsize=9)


def _bias_told(each: Mapping[str, Any]) -> bool:
    """Its square is known to about the gradient's own."""
    error = each["bias_squared_error"]
    return error is not None and error < 0.5


def _row(horizon: int, label: str, each: Mapping[str, Any]) -> str:
    low, high = each["bias_interval"]
    bias = f"{each['bias']:.2f} [{low:.2f}, {high:.2f}]" if _bias_told(each) else "–"
    cells = (
        str(horizon),
        label,
        _number(each["variance"]),
        _number(each["trace_ratio"]),
        _number(each["trace_ratio_equal_compute"]),
        bias,
        _direction(each["cosine"], each["cosine_error"]),
        _direction(each["cosine_of_batch"], each["cosine_of_batch_error"]),
        f"{each['env_steps_per_trajectory']:.1f}",
        f"{1e6 * each['seconds_per_trajectory']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _direction(value: float | None, error: float | None) -> str:
    if value is None or error is None or error > UNTOLD:
        return "–"
    return f"{value:.2f} ± {1.96 * error:.2f}"


def _number(value: float | None) -> str:
    """Two digits that count, without powers of ten."""
    if value is None:
        return "–"
    return f"{float(f'{value:.2g}'):,.15g}".replace(",", " ")
