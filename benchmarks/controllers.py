"""Record demonstrations of hand-written controllers, for tasks that no set is shipped for.

    pip install 'gymnasium[box2d]'
    python benchmarks/controllers.py
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

Act = Callable[[gym.Env, np.ndarray], Any]

FIRST_SEED = 1000


def land(env: gym.Env, obs: np.ndarray) -> Any:
    """Gymnasium's controller, discrete or continuous as the task is."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    return heuristic(env.unwrapped, obs)


def swing(_: gym.Env, obs: np.ndarray) -> np.ndarray:
    """Full force the way it moves."""
    return np.asarray([1.0 if obs[1] >= 0 else -1.0], np.float32)


TASKS: dict[str, Act] = {
    "LunarLander-v3": land,
    "LunarLanderContinuous-v3": land,
    "MountainCarContinuous-v0": swing,
}


def record(env_id: str, act: Act, episodes: int) -> dict[str, Any]:
    """The arrays of a demonstration file."""
    env = gym.make(env_id)
    observations, actions, terminations, rewards, lengths, returns = [], [], [], [], [], []
    box = env.action_space if isinstance(env.action_space, gym.spaces.Box) else None
    for seed in range(FIRST_SEED, FIRST_SEED + episodes):
        obs, _ = env.reset(seed=seed)
        observations.append(obs)
        done, begin = False, len(rewards)
        while not done:
            action = act(env, obs)
            if box is not None:
                action = np.clip(np.asarray(action, np.float32), box.low, box.high)
            obs, reward, terminated, truncated, _ = env.step(action)
            observations.append(obs)
            actions.append(action)
            terminations.append(terminated)
            rewards.append(reward)
            done = terminated or truncated
        lengths.append(len(rewards) - begin)
        returns.append(sum(rewards[begin:]))
    env.close()
    return {
        "observations": np.asarray(observations, np.float32),
        "actions": np.asarray(actions),
        "terminations": np.asarray(terminations),
        "rewards": np.asarray(rewards, np.float32),
        "episode_lengths": np.asarray(lengths, np.int32),
        "episode_returns": np.asarray(returns, np.float64),
        "expert_return": np.mean(returns),
        "env_id": np.asarray(env_id),
    }


def main() -> None:
    """Write a file for each task."""
    parser = argparse.ArgumentParser(description="Record hand-written controllers.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demos")
    parser.add_argument("--episodes", type=int, default=25)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for env_id, act in TASKS.items():
        arrays = record(env_id, act, options.episodes)
        path = options.out / f"{env_id}.npz"
        np.savez_compressed(path, **arrays)
        print(
            f"{path}: {options.episodes} episodes, return {arrays['expert_return']:.1f}, "
            f"length {arrays['episode_lengths'].mean():.0f}"
        )


if __name__ == "__main__":
    main()
