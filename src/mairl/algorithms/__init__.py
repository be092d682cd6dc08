"""Learning algorithms: each composes the parts below it, in a file of its own.

A new one is a module with what :class:`Algorithm` lists, and one line of :data:`ALGORITHMS`.
"""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast, runtime_checkable

from mairl.types import MairlError

ALGORITHMS = {
    "mairl": "adversarial IRL through a learned model",
    "bc": "behavioral cloning",
    "gail": "generative adversarial imitation, PPO",
    "airl": "adversarial IRL, PPO",
    "gcl": "guided cost learning, PPO",
    "mgail": "GAIL by the gradient through a learned model",
    "maxent": "maximum-entropy IRL, exact, for tasks with a table of transitions",
}
"""Name (of the module in this package) to what it is."""


@runtime_checkable
class Settings(Protocol):
    """What every algorithm's settings tell the training loop; fields, or constants."""

    @property
    def gamma(self) -> float:
        """Discount of one step."""
        ...

    @property
    def num_envs(self) -> int:
        """Environments that are stepped in turn."""
        ...

    @property
    def warmup_steps(self) -> int:
        """Random steps before learning."""
        ...

    @property
    def warmup_hold(self) -> int:
        """Steps for which each of them is held."""
        ...

    @property
    def patience(self) -> int:
        """Steps after which an episode may be left early (see ``Patient``); 0 for never."""
        ...

    @property
    def collect_steps(self) -> int:
        """Steps of each environment between two updates; 0 where nothing is collected."""
        ...

    @property
    def on_policy(self) -> bool:
        """An update learns from the ``collect_steps`` just taken, which are always whole.

        Otherwise it comes before the steps it is due for, and learns from all there are.
        """
        ...

    @property
    def iterations(self) -> float | None:
        """Iterations per environment step; where nothing is collected, those of the one update.

        None where the task decides; no longer so in the settings of a run.
        """
        ...

    @property
    def replay_size(self) -> int:
        """Transitions that are kept."""
        ...

    def check(self) -> None:
        """Raise MairlError where settings cannot work with one another."""
        ...


@runtime_checkable
class Algorithm(Protocol):
    """What a module of this package offers; ``mairl.py`` shows and explains each.

    A state is a NamedTuple that has ``params`` (with ``policy`` and, if one is learned,
    ``reward``), ``normalizer`` and ``policy_ended`` (set by the loop before each update).
    """

    PRESETS: Mapping[str, Any]
    """Settings by name; all of one frozen dataclass that satisfies :class:`Settings`."""
    initialize: Callable[..., Any]
    """(settings, spec, expert, random, expert_ended, *, key) -> state."""
    explore: Callable[..., Any]
    """(settings, spec, state, obs, *, key) -> inside actions, to collect with."""
    exploit: Callable[..., Any]
    """(state, obs) -> inside actions, to evaluate with."""
    update: Callable[..., Any]
    """(settings, spec, state, replay, expert, progress, *, iterations, key) -> state, metrics."""


class Patient(Algorithm, Protocol):
    """An algorithm whose settings may have a ``patience`` that is not 0."""

    lost: Callable[..., Any]
    """(settings, state, replay) -> [num_envs] bool: whose episodes to leave."""


def find(name: str) -> Algorithm:
    """The algorithm of a registered name.

    Raises:
        MairlError: there is none; near ones are named.
    """
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, ALGORITHMS, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise MairlError(f"--algo {name} is unknown{hint} (there are: {', '.join(ALGORITHMS)})")
    return cast(Algorithm, importlib.import_module(f"{__name__}.{name}"))
