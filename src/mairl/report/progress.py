"""A run as it happens: a live table in a terminal, a line per evaluation elsewhere."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

REFRESH_SECONDS = 0.25
SHOWN = (
    ("model error", "dynamics/squared_error", "of a change's variance"),
    ("reward model right on expert", "reward/accuracy_expert", ""),
    ("reward model right on policy", "reward/accuracy_policy", ""),
    ("entropy of actions", "policy/entropy", "nats"),
    ("length of a training episode", "rollout/ep_len_mean", "steps"),
)
"""Label, metric, unit."""


class Progress:
    """Shows what it is told; keeps nothing that a run depends on."""

    def __init__(self, console: Console, title: str, steps: int):
        """Show ``steps`` environment steps of ``title`` on ``console``."""
        self.console = console
        self._title, self._steps = title, steps
        self._live: Live | None = None
        self._doing = ""
        self._env_steps = 0
        self._started: tuple[float, int] | None = None
        self._scalars: dict[str, float] = {}
        self._baselines: dict[str, float | None] = {}
        self._best: float | None = None
        self._entry: Mapping[str, Any] | None = None
        self._alarms: list[str] = []
        self._drawn = 0.0

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            # Drawn between rounds: a thread of its own would take time from learning.
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the display away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Say what is being done now."""
        self._doing = text
        if self._live is None and not self._env_steps:
            self._line(f"{text} ...")
        self._draw(force=True)

    def note(self, text: str) -> None:
        """Leave a line that stays."""
        self._line(text)

    def baselines(self, returns: Mapping[str, float | None]) -> None:
        """Set the returns that the policy's is shown beside."""
        self._baselines = dict(returns)
        self._started = None  # Measuring them took time that learning does not.

    def learning(self, env_steps: int, scalars: Mapping[str, float]) -> None:
        """Show a round of learning."""
        if self._started is None:
            self._started = time.perf_counter(), env_steps
        self._env_steps = env_steps
        self._scalars |= scalars
        self._doing = "Learning"
        self._draw()

    def evaluated(self, entry: Mapping[str, Any]) -> None:
        """Show an evaluation."""
        self._entry = entry
        value = entry["return_mean"]
        self._best = value if self._best is None else max(self._best, value)
        if self._live is None:
            self._line(self._evaluation_line(entry))
        self._doing = "Learning"
        self._draw(force=True)

    def alarms(self, texts: Sequence[str]) -> None:
        """Show what looks wrong; an alarm that ends disappears."""
        if self._live is None:
            for text in texts:
                if _wording(text) not in {_wording(old) for old in self._alarms}:
                    self._line(f"! {text}")
        self._alarms = list(texts)

    def _evaluation_line(self, entry: Mapping[str, Any]) -> str:
        parts = [
            f"step {entry['env_steps']:>7} of {self._steps}",
            f"return {entry['return_mean']:.1f} ± {entry['return_std']:.1f}{_share(entry)}",
        ]
        for label, name in (("expert", "expert_return"), ("cloning", "bc_return_mean")):
            if (value := self._baselines.get(name)) is not None:
                parts.append(f"{label} {value:.1f}")
        if (left := self._time_left()) is not None:
            parts.append(f"{_duration(left)} left")
        return " · ".join(parts)

    def _time_left(self) -> float | None:
        if self._started is None or self._env_steps <= self._started[1]:
            return None
        since, first = self._started
        rate = (self._env_steps - first) / (time.perf_counter() - since)
        return (self._steps - self._env_steps) / rate

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _draw(self, force: bool = False) -> None:
        now = time.perf_counter()
        if self._live is not None and (force or now - self._drawn > REFRESH_SECONDS):
            self._drawn = now
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        left = self._time_left()
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self._title, style="bold"),
            ProgressBar(self._steps, self._env_steps, width=24),
            f"{self._env_steps} of {self._steps} steps",
            "" if left is None else f"{_duration(left)} left",
        )
        table = Table.grid(padding=(0, 2))
        for _ in range(3):
            table.add_column(no_wrap=True)
        if self._entry is not None:
            text = f"{self._entry['return_mean']:.1f}{_share(self._entry)}"
            table.add_row(
                "return, this policy",
                Text(text, style="bold green"),
                Text("last evaluation", style="dim"),
            )
        for label, name in (
            ("expert", "expert_return"),
            ("cloning, same data", "bc_return_mean"),
            ("random", "random_return"),
        ):
            if (value := self._baselines.get(name)) is not None:
                table.add_row(f"return, {label}", f"{value:.1f}", "")
        for label, name, unit in SHOWN:
            if name in self._scalars:
                table.add_row(label, f"{self._scalars[name]:.3g}", Text(unit, style="dim"))
        doing = Text(self._doing, style="dim")
        return Group(head, table, doing, *(f"[yellow]![/] {escape(text)}" for text in self._alarms))


def _wording(alarm: str) -> str:
    """An alarm without its numbers, which change while it is the same alarm."""
    return re.sub(r"[-\d.]+", "", alarm)


def _share(entry: Mapping[str, Any]) -> str:
    share = entry["normalized_return"]
    return "" if share is None else f" ({share:.2f} of expert)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
