"""Record demonstrations of hand-written controllers, for tasks that no set is shipped for.

    pip install 'gymnasium[box2d]'
    python benchmarks/controllers.py [--out FOLDER]
    mairl bench benchmarks/controllers.toml --out runs/controllers

LunarLander's controllers are Gymnasium's own (``gymnasium.envs.box2d.lunar_lander.heuristic``):
experts and failures both end their episodes there. MountainCarContinuous is pushed the way it is
moving. Files go where ``controllers.toml`` looks for them, ``benchmarks/demos``, by default.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from experts import MEASURED, Act, record

RESET_SEEDS = range(1000, 1000 + MEASURED)


def lander(env_id: str) -> Act:
    """Gymnasium's controller, discrete or continuous as the task is."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    env = gym.make(env_id)
    if isinstance(env.action_space, gym.spaces.Discrete):
        return lambda obs: heuristic(env, obs)
    low, high = env.action_space.low, env.action_space.high  # pyright: ignore[reportAttributeAccessIssue]
    return lambda obs: np.clip(np.float32(heuristic(env, obs)), low, high)


def swing(_: str) -> Act:
    """Full force the way it moves."""
    return lambda obs: np.full(1, 1.0 if obs[1] >= 0 else -1.0, np.float32)


TASKS: dict[str, Callable[[str], Act]] = {
    "LunarLander-v3": lander,
    "LunarLanderContinuous-v3": lander,
    "MountainCarContinuous-v0": swing,
}


def main() -> None:
    """Write a file for each task."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demos")
    out: Any = parser.parse_args().out
    for env_id, controller in TASKS.items():
        path = out / f"{env_id}.npz"
        record(env_id, controller(env_id), MEASURED, path, reset_seeds=RESET_SEEDS)


if __name__ == "__main__":
    main()
