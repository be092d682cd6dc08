"""How good a policy is, beside random actions, the expert and cloning.

The one part of a run that sees true rewards; nothing of it goes back into learning.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mairl import envs
from mairl.algorithms import bc
from mairl.types import EnvSpec, Transition

FINAL_EPISODES = 20

Act = Callable[[np.ndarray, int], np.ndarray]


class Scores:
    """True returns of one run: of its policy over time, and what to measure it against.

    ``baselines``: expert_return (None where the demonstrations carry no rewards), random_return,
    bc_return_mean, bc_normalized_return; the last three once measured. ``history``: an entry
    for each evaluation. Both are plain values, which a checkpoint can hold.
    """

    def __init__(self, spec: EnvSpec, seed: int, expert_return: float | None):
        """Nothing is measured yet."""
        self._spec, self._seed = spec, seed
        self.baselines: dict[str, float | None] = {"expert_return": expert_return}
        self.history: list[dict[str, Any]] = []

    @property
    def measured(self) -> bool:
        """Random actions and cloning have been measured."""
        return "bc_return_mean" in self.baselines

    def measure_random(self) -> None:
        """The return of random actions: the zero of normalized returns."""
        self.baselines["random_return"] = envs.random_return(
            self._spec.env_id, self._spec, FINAL_EPISODES, self._seed
        )

    def measure_source(self, act: Act) -> None:
        """The return here of the policy that a transferred reward comes with."""
        found = self._returns(act, FINAL_EPISODES, "final").mean()
        self.baselines["source_return_mean"] = float(found)
        self.baselines["source_normalized_return"] = self.normalized(found)

    def measure_clone(self, expert: Transition, key: jax.Array) -> None:
        """The return of behavioral cloning on ``expert``, the same transitions."""
        state = bc.clone(bc.BCConfig(), self._spec, expert, key=key)
        exploit = jax.jit(bc.exploit)
        found = self._returns(
            lambda obs, _: np.asarray(exploit(state, obs)), FINAL_EPISODES, "final"
        ).mean()
        self.baselines["bc_return_mean"] = float(found)
        self.baselines["bc_normalized_return"] = self.normalized(found)

    def evaluate(self, act: Act, env_steps: int, episodes: int, final: bool) -> dict[str, Any]:
        """Evaluate a policy and add the entry to the history.

        Seeds of episodes are fixed, so that evaluations compare like with like, and never those
        of training; the final evaluation has its own.
        """
        returns = self._returns(act, episodes, "final" if final else "eval")
        entry = {
            "env_steps": env_steps,
            "episodes": episodes,
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "returns": [round(float(value), 2) for value in returns],
            "normalized_return": self.normalized(returns.mean()),
        }
        self.history.append(entry)
        return entry

    def normalized(self, value: float) -> float | None:
        """(value - random) / (expert - random); None where one of them is not known."""
        low, high = self.baselines.get("random_return"), self.baselines["expert_return"]
        if low is None or high is None or math.isclose(low, high):
            return None
        return float((value - low) / (high - low))

    def _returns(self, act: Act, episodes: int, stream: str) -> np.ndarray:
        return envs.evaluate_episodes(
            act, self._spec.env_id, self._spec, episodes, self._seed, stream=stream
        ).returns
