"""Record demonstrations of hand-written controllers, for tasks that no set is shipped for.

    pip install 'gymnasium[box2d]'
    python benchmarks/controllers.py [--out FOLDER]
    mairl bench benchmarks/controllers.toml --out runs/controllers

LunarLander's controllers are Gymnasium's own (``gymnasium.envs.box2d.lunar_lander.heuristic``):
experts and failures both end their episodes there. MountainCarContinuous is pushed the way it is
moving, Reacher's fingertip is pulled to the target, whose place is another one in each episode, and
InvertedDoublePendulum is held by the linear-quadratic regulator of the task about the upright
position. BipedalWalker's is Gymnasium's own too: it remembers what phase of the stride it is in,
which is not observed, and mostly falls or gets stuck; episodes that Gymnasium calls solved (a
return of 300) are kept. Where states are numbered (Taxi, FrozenLake, CliffWalking), it is the plan
of the task's table. Files go where ``controllers.toml`` looks for them, ``benchmarks/demos``, by
default.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import scipy.linalg
from experts import MEASURED, Act, record

FIRST_SEED = 1000


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


def reach(_: str) -> Act:
    """A spring from fingertip to target, by the arm's Jacobian, and damped joints."""

    def act(obs: np.ndarray) -> np.ndarray:
        (c1, c2, s1, s2), speed, away = obs[:4], obs[6:8], obs[8:10]
        c12, s12 = c1 * c2 - s1 * s2, s1 * c2 + c1 * s2
        jacobian = np.array(
            [[-0.1 * s1 - 0.11 * s12, -0.11 * s12], [0.1 * c1 + 0.11 * c12, 0.11 * c12]]
        )
        return np.clip(-20.0 * jacobian.T @ away - 0.08 * speed, -1.0, 1.0).astype(np.float32)

    return act


def balance(env_id: str) -> Act:
    """The regulator of the task's linearization (central differences) at rest, upright."""
    env: Any = gym.make(env_id).unwrapped
    env.reset(seed=0)

    def step(state: np.ndarray, action: float) -> np.ndarray:
        env.set_state(*np.split(state, 2))
        env.do_simulation(np.array([action]), env.frame_skip)
        return np.concatenate([env.data.qpos, env.data.qvel])

    rest, tiny = np.zeros(6), 1e-4
    a = np.stack([(step(e, 0.0) - step(-e, 0.0)) / (2 * tiny) for e in tiny * np.eye(6)], 1)
    b = ((step(rest, tiny) - step(rest, -tiny)) / (2 * tiny))[:, None]
    price = np.eye(1) * 0.1
    value = scipy.linalg.solve_discrete_are(a, b, np.diag([1.0, 1.0, 1.0, 0.1, 0.1, 0.1]), price)
    gain = np.linalg.solve(price + b.T @ value @ b, b.T @ value @ a)
    limit = env.action_space.high

    def act(obs: np.ndarray) -> np.ndarray:
        x, s1, s2, c1, c2, *speeds = obs[:8]
        state = np.array([x, np.arctan2(s1, c1), np.arctan2(s2, c2), *speeds])
        return np.clip(-gain @ state, -limit, limit).astype(np.float32)

    return act


class Stride:
    """Gymnasium's controller, which has a memory."""

    def __init__(self, _: str):
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        from gymnasium.envs.box2d.bipedal_walker import BipedalWalkerHeuristics

        self.memory = BipedalWalkerHeuristics()

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        return self.memory.step_heuristic(obs).astype(np.float32)


def reset_seeds(env_id: str, act: Act) -> list[int]:
    """Those to record: the first from which a ``Stride`` solves the task; for others, the first."""
    if not isinstance(act, Stride):
        return list(range(FIRST_SEED, FIRST_SEED + MEASURED))
    seeds: list[int] = []
    for seed in itertools.count(FIRST_SEED):
        env: Any = gym.make(env_id)
        obs, _ = env.reset(seed=seed)
        act.reset()
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(act(obs))
            total, over = total + reward, terminated or truncated
        if total >= env.spec.reward_threshold:
            seeds.append(seed)
        if len(seeds) == MEASURED:
            break
    return seeds


def plan(env_id: str) -> Act:
    """The best action by value iteration on the task's own table ``P``; ties go to the first."""
    env: Any = gym.make(env_id).unwrapped
    states, actions, discount = env.observation_space.n, env.action_space.n, 0.999
    moves, reward = np.zeros((states, actions, states)), np.zeros((states, actions))
    for s, a in np.ndindex(states, actions):
        for chance, after, paid, ends in env.P[s][a]:
            moves[s, a, after] += 0.0 if ends else chance
            reward[s, a] += chance * paid
    value, change = np.zeros(states), 1.0
    while change > 1e-9:
        best = (reward + discount * moves @ value).max(1)
        value, change = best, np.abs(best - value).max()
    choice = (reward + discount * moves @ value).round(6).argmax(1)
    return lambda obs: choice[obs]


TASKS: dict[str, Callable[[str], Act]] = {
    "LunarLander-v3": lander,
    "LunarLanderContinuous-v3": lander,
    "MountainCarContinuous-v0": swing,
    "Reacher-v5": reach,
    "InvertedDoublePendulum-v5": balance,
    "BipedalWalker-v3": Stride,
    "Taxi-v4": plan,
    "FrozenLake8x8-v1": plan,
    "CliffWalking-v1": plan,
}


def main() -> None:
    """Write a file for each task."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demos")
    out: Any = parser.parse_args().out
    for env_id, controller in TASKS.items():
        act, path = controller(env_id), out / f"{env_id}.npz"
        record(env_id, act, MEASURED, path, reset_seeds=reset_seeds(env_id, act))


if __name__ == "__main__":
    main()
