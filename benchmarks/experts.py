"""Train experts for the project's own tasks on the true reward, and record demonstrations.

    python benchmarks/experts.py [TASK ...] [--steps N] [--seed 0] [--out FOLDER]

GridWorld needs no learner: its expert is the maximum-entropy policy of exact soft value
iteration. The others are trained by Stable-Baselines3's SAC, for which this script wants an
environment of its own: ``pip install torch==2.13.0 stable-baselines3 sbx-rl 'gymnasium[mujoco]'``,
and the package's sources on ``PYTHONPATH`` (ants by SBX, the same learner in JAX, which takes
half the time). PointMaze's experts see velocities too, and look less
far ahead than by SAC's default: before, they came to rest leaning on the outer wall, centimetres
beyond the goal, which whoever learns from them must take for the goal. Recorded is what the task
shows. Actions are deterministic except GridWorld's, whose expert is stochastic by definition. OUT
defaults to the package's data.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import mairl.envs

DATA = Path(__file__).resolve().parents[1] / "src" / "mairl" / "demos" / "data"

SMALL: dict[str, Any] = {
    "learning_rate": lambda left: 1e-3 * left,  # falling, so that it settles
    "gamma": 0.95,  # with far-sighted critics the worth of the last centimetres is lost in noise
    "batch_size": 256,
    "learning_starts": 1000,
    "policy_kwargs": {"net_arch": [128, 128]},
}
"""Settings for a few observed numbers: minutes on one core."""

ANT: dict[str, Any] = {
    "learning_starts": 5000,
    "policy_kwargs": {"layer_norm": True},
    "train_freq": 50,  # fifty updates in one call
    "gradient_steps": 50,
}
"""Settings for the ants; critics with layer norm learn sooner."""

TASKS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "mairl/GridWorld-v0": (0, 50, {}),
    "mairl/PointMazeLeft-v0": (20_000, 20, SMALL),
    "mairl/PointMazeRight-v0": (20_000, 20, SMALL),
    "mairl/CustomAnt-v0": (80_000, 5, ANT),
    "mairl/DisabledAnt-v0": (80_000, 5, ANT),
}
"""Task to steps of training, episodes to record and settings of SAC other than its defaults."""

SEEN: dict[str, dict[str, Any]] = {
    "mairl/PointMazeLeft-v0": {"velocity": True},
    "mairl/PointMazeRight-v0": {"velocity": True},
}
"""Arguments of the task that its expert acts in; the task's own observation comes first there."""

MEASURED = 25
"""Episodes that the expert's return is measured over."""

GAMMA, TEMPERATURE = 0.95, 0.25
"""Of GridWorld's expert."""

Act = Callable[[Any], Any]


def soft_values(
    transitions: np.ndarray, reward: np.ndarray, gamma: float, temperature: float
) -> np.ndarray:
    """Q of the maximum-entropy policy, ``[cells, actions]``, to rounding error.

    Q(s, a) = r(s) + gamma E V(s'), V(s) = temperature * logsumexp(Q(s, .) / temperature)
    (Ziebart 2010). ``transitions`` is ``[cells, actions, cells]``, ``reward`` ``[cells]``.
    """
    value, q = np.zeros(len(reward)), np.zeros(0)
    for _ in range(100_000):
        q = reward[:, None] + gamma * transitions @ value
        new = temperature * np.logaddexp.reduce(q / temperature, axis=1)
        if np.max(np.abs(new - value)) < 1e-12:
            break
        value = new
    return q


def grid_expert(seed: int) -> Act:
    """Draws from exp(Q / temperature)."""
    env: Any = gym.make("mairl/GridWorld-v0").unwrapped
    q = soft_values(env.transition_matrix, env.reward_table, GAMMA, TEMPERATURE)
    policy = np.exp((q - q.max(1, keepdims=True)) / TEMPERATURE)
    policy /= policy.sum(1, keepdims=True)
    rng = np.random.default_rng(seed)
    return lambda obs: int(rng.choice(len(policy[obs]), p=policy[obs]))


def trained_expert(task: str, steps: int, seed: int, settings: dict[str, Any]) -> Act:
    """Deterministic actions of Stable-Baselines3's SAC after ``steps``; SBX's for ants."""
    if settings is ANT:
        from sbx import SAC  # pyright: ignore[reportMissingImports]
    else:
        from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports]

    env = gym.make(task, **SEEN.get(task, {}))
    learner = SAC("MlpPolicy", env, seed=seed, device="cpu", verbose=1, **settings)
    learner.learn(steps, log_interval=50)
    return lambda obs: learner.predict(obs, deterministic=True)[0]


def record(
    task: str,
    act: Act,
    episodes: int,
    path: Path,
    seed: int = 0,
    reset_seeds: Sequence[int] | None = None,
    length: int | None = None,
) -> None:
    """Write the first ``episodes`` of MEASURED episodes, in their order, with no choosing.

    ``reset_seeds`` are those of the episodes; by default they follow from ``seed``. They are cut
    off after ``length`` steps (None: the task's own limit). An ``act`` that remembers has a method
    ``reset``, which is called where an episode starts.
    """
    shown = mairl.envs.make_spec(task).obs_size
    rows: dict[str, list[Any]] = {
        name: [] for name in ("observations", "actions", "rewards", "terminations", "truncations")
    }
    lengths, returns, seeds, flat = [], [], [], mairl.envs.flatten_obs
    for episode in range(max(MEASURED, episodes)):
        seeds.append(
            reset_seeds[episode]
            if reset_seeds
            else mairl.envs.episode_seed(seed, "record", 0, episode)
        )
        # A new one each time: what Box2D computes depends on the episodes before.
        env = gym.make(task, max_episode_steps=length, **SEEN.get(task, {}))
        obs, _ = env.reset(seed=seeds[-1])
        getattr(act, "reset", lambda: None)()
        steps, total, over = 0, 0.0, False
        kept = rows if episode < episodes else {name: [] for name in rows}
        kept["observations"].append(flat(env.observation_space, obs)[:shown])
        while not over:
            action = act(obs)
            obs, reward, terminated, truncated, _ = env.step(action)
            kept["observations"].append(flat(env.observation_space, obs)[:shown])
            for name, value in zip(
                ("actions", "rewards", "terminations", "truncations"),
                (action, reward, terminated, truncated),
                strict=True,
            ):
                kept[name].append(value)
            steps, total, over = steps + 1, total + float(reward), terminated or truncated
        lengths.append(steps)
        returns.append(total)
        env.close()
    discrete = np.ndim(rows["actions"][0]) == 0
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        observations=np.array(rows["observations"], np.float32),
        actions=np.array(rows["actions"], np.int64 if discrete else np.float32),
        rewards=np.array(rows["rewards"], np.float32),
        terminations=np.array(rows["terminations"], bool),
        truncations=np.array(rows["truncations"], bool),
        episode_lengths=np.array(lengths[:episodes], np.int32),
        episode_returns=np.array(returns[:episodes]),
        expert_return=np.array(np.mean(returns)),
        seeds=np.array(seeds[:episodes], np.int64),
        env_id=np.array(task),
    )
    print(
        f"{task}: return {np.mean(returns):.3f} ± {np.std(returns):.3f} over {len(returns)} "
        f"episodes; {episodes} of them, {sum(lengths[:episodes])} transitions, "
        f"{os.path.getsize(path)} bytes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tasks", nargs="*", help=f"of {list(TASKS)}; all by default")
    parser.add_argument("--steps", type=int, help="of training, instead of the task's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    for task in options.tasks or TASKS:
        steps, episodes, settings = TASKS[task]
        if task == "mairl/GridWorld-v0":
            act = grid_expert(options.seed)
        else:
            act = trained_expert(task, options.steps or steps, options.seed, settings)
        record(task, act, episodes, options.out / f"{task}.npz")


if __name__ == "__main__":
    main()
