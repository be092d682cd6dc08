"""Draw demonstration reports and the list of shipped sets for the terminal."""

from collections.abc import Iterator

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from mairl.demos.data import shipped, shipped_file
from mairl.demos.inspect import DemoReport, listed

ROWS_SHOWN = 24


def render(report: DemoReport) -> RenderableType:
    """Draw a report: summary, actions, observations, warnings."""
    title = f"{report.source}: demonstrations for {report.env_id}"
    summary = Table(title=escape(title), show_header=False)
    for label, value in _summary(report):
        summary.add_row(label, value)
    parts: list[RenderableType] = [summary, _action_table(report), _obs_table(report)]
    parts += [f"[yellow]![/] {escape(text)}" for text in report.warnings]
    if not report.warnings:
        parts.append("[green]Nothing suspicious found.[/]")
    return Group(*parts)


def render_list() -> Table:
    """Draw the shipped sets: task, episodes, transitions, expert return."""
    table = Table(title="Shipped demonstrations")
    table.add_column("task")
    for heading in ("episodes", "transitions", "expert return"):
        table.add_column(heading, justify="right")
    for name in shipped():
        with shipped_file(name) as path, np.load(path, allow_pickle=False) as archive:
            lengths = archive["episode_lengths"]
            expert_return = float(archive["expert_return"])
        table.add_row(name, str(len(lengths)), str(int(lengths.sum())), f"{expert_return:.1f}")
    return table


def _summary(report: DemoReport) -> Iterator[tuple[str, str]]:
    yield "episodes", str(report.episodes)
    yield "transitions", str(report.transitions)
    lengths = f"{report.length_min} / {report.length_mean:.1f} / {report.length_max}"
    yield "length min / mean / max", lengths
    yield "ends", f"{report.ended_terminated} terminated, {report.ended_cut_off} cut off"
    if report.episode_returns:
        returns = np.array(report.episode_returns)
        yield "return (evaluation only)", f"{returns.mean():.1f} ± {returns.std():.1f}"
    if report.expert_return is not None:
        yield "expert return, whole set", f"{report.expert_return:.1f}"
    yield "duplicate transitions", str(report.duplicate_transitions)
    yield "duplicate episodes", str(report.duplicate_episodes)
    if report.state_counts is not None:
        visited = sum(count > 0 for count in report.state_counts)
        yield "states visited", f"{visited} of {len(report.state_counts)}"
    elif report.constant_obs:
        yield "constant observations", listed(report.constant_obs)


def _action_table(report: DemoReport) -> Table:
    if report.action_counts is not None:
        table = Table("choice", "steps", "share", title="Actions")
        for choice, count in enumerate(report.action_counts, report.first_choice):
            table.add_row(str(choice), str(count), f"{count / report.transitions:.1%}")
        return table
    table = Table("dimension", "at its bounds", title="Actions")
    for dim, share in enumerate(report.action_saturation or ()):
        table.add_row(str(dim), f"{share:.1%}")
    return table


def _obs_table(report: DemoReport) -> Table:
    if report.state_counts is not None:
        return _state_table(report.state_counts, report.first_state)
    table = Table("dimension", "mean", "std", "min", "max", title="Observations")
    rows = zip(report.obs_mean, report.obs_std, report.obs_min, report.obs_max, strict=True)
    for dim, row in list(enumerate(rows))[:ROWS_SHOWN]:
        table.add_row(str(dim), *(f"{value:.4g}" for value in row))
    if len(report.obs_mean) > ROWS_SHOWN:
        table.caption = f"and {len(report.obs_mean) - ROWS_SHOWN} more dimensions"
    return table


def _state_table(counts: tuple[int, ...], first: int) -> Table:
    table = Table("state", "visits", "share", title="Most visited")
    most = np.argsort(counts, kind="stable")[::-1][:ROWS_SHOWN]
    for state in most[np.take(counts, most) > 0]:
        share = counts[state] / sum(counts)
        table.add_row(str(first + int(state)), str(counts[state]), f"{share:.1%}")
    if (others := sum(count > 0 for count in counts) - table.row_count) > 0:
        table.caption = f"and {others} more states"
    return table
