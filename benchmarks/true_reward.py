"""What a learner reaches on the true reward: the reference of transfers, and never a method.

    python benchmarks/true_reward.py ENV_ID --learner sb3 --steps 12000 --seed 0 --out DIR
    python benchmarks/true_reward.py mairl/PointMazeRight-v0 --learner mairl --run RUN ... --out DIR

``sb3`` is the learner of ``mairl transfer --learner sb3``, at the same settings, and needs
Stable-Baselines3. ``mairl`` is the learner of ``mairl transfer``, with the scales of RUN's
observations and RUN's g replaced by the maze's true reward, at SAC's temperature and entropy,
since a true reward is not in units of any temperature. No learner of the library is given a true
reward by the library itself: this file does it, for the point mazes alone.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import mairl
from mairl import demos, envs, independent
from mairl.algorithms.config import DynamicsConfig, MAIRLConfig
from mairl.algorithms.transfer import PRESETS, Transfer
from mairl.envs import pointmaze
from mairl.evaluate import FINAL_EPISODES, Act
from mairl.learner import Learner
from mairl.normalizer import Normalizer
from mairl.types import Transition

SETTINGS: MAIRLConfig = dataclasses.replace(
    PRESETS["default"],
    gamma=0.99,
    dynamics=DynamicsConfig(width=64, members=2),
    policy=dataclasses.replace(PRESETS["default"].policy, horizon=0),
)
"""``mairl transfer``'s in ``benchmarks/transfer.py``."""


class MazeReward(eqx.Module):
    """The point maze's reward of normalized observations and inside actions, as a frozen g."""

    normalizer: Normalizer
    potential: None = None

    def f(self, transition: Transition, *, key: Any = None):
        """-distance - 0.001 |a|^2, of the position before the step."""
        away = self.normalizer.denormalize(transition.obs)[..., :2] - jnp.array(pointmaze.TARGET)
        effort = jnp.sum(transition.action**2, -1)
        return -jnp.sqrt(jnp.sum(away**2, -1) + 1e-12) - 0.001 * effort


def own(env_id: str, run: Path, steps: int, seed: int) -> Act:
    """The policy of ``mairl transfer``'s learner."""
    spec = envs.make_spec(env_id)
    expert = demos.subsample(demos.find_demonstrations(None, spec), None, 1, seed)
    scales = mairl.load(run).learned_reward.normalizer
    reward: Any = MazeReward(jax.tree.map(jnp.copy, scales))  # the update takes each buffer once
    method: Any = Transfer(reward, scales)
    settings: Any = SETTINGS
    learner = Learner(method, settings, spec, expert, steps, seed)
    with envs.Collector(env_id, spec, seed, settings.num_envs) as collector:
        learner.begin(collector)
        while not learner.done:
            learner.update()
            learner.collect()
    return learner.exploit()


def independent_learner(env_id: str, steps: int, seed: int) -> Act:
    """The policy of Stable-Baselines3's."""
    from stable_baselines3.common.vec_env import (  # pyright: ignore[reportMissingImports]
        DummyVecEnv,
    )

    spec = envs.make_spec(env_id)
    venv = DummyVecEnv([lambda: envs.make(env_id)])
    learner = independent.make_learner(venv, spec, 0.99, envs.episode_seed(seed, "transfer", 0, 0))
    learner.learn(steps)
    return independent.act(learner, spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("env_id")
    parser.add_argument("--learner", choices=["mairl", "sb3"], required=True)
    parser.add_argument("--run", type=Path, help="of --learner mairl: whose scales")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    start, (env_id, steps, seed) = (
        time.perf_counter(),
        (options.env_id, options.steps, options.seed),
    )
    if options.learner == "mairl":
        policy = own(env_id, options.run, steps, seed)
    else:
        policy = independent_learner(env_id, steps, seed)
    wall, spec = time.perf_counter() - start, envs.make_spec(env_id)
    # On the very episodes of the transfers' final evaluations.
    found = envs.evaluate_episodes(policy, env_id, spec, FINAL_EPISODES, seed, stream="final")
    result = {
        "env_id": env_id,
        "seed": seed,
        "env_steps": steps,
        "return_mean": float(found.returns.mean()),
        "wall_seconds": round(wall, 2),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{env_id}, {options.learner}, true reward: return {result['return_mean']:.2f}")


if __name__ == "__main__":
    main()
