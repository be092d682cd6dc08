"""What a learner reaches on the true reward: the reference of transfers, and never a method.

    python benchmarks/true_reward.py ENV_ID --learner sb3 --steps 12000 --seed 0 --out DIR
    python benchmarks/true_reward.py mairl/PointMazeRight-v0 --learner mairl --run RUN ... --out DIR

``sb3`` is the learner of ``mairl transfer --learner sb3``, at the same settings, and needs
Stable-Baselines3. ``mairl`` is the learner of ``mairl transfer``, with the scales of RUN's
observations and RUN's g replaced by the true reward: the maze's, or a running robot's, as a
function of a transition (but for the small costs of contact, and with the velocity that has been
reached for the mean one of a step). No learner of the library is given a true reward by the
library itself: this file does it, for these tasks alone.
"""

import argparse
import dataclasses
import json
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import mairl
from mairl import demos, envs, independent
from mairl.algorithms import mairl as algorithm
from mairl.algorithms.config import DynamicsConfig
from mairl.algorithms.transfer import PRESETS, Transfer, TransferStep
from mairl.envs import pointmaze
from mairl.evaluate import FINAL_EPISODES, Act
from mairl.learner import Learner
from mairl.normalizer import Normalizer
from mairl.types import Transition

SETTINGS = PRESETS["default"]
EVALUATIONS = 20
MAZE = DynamicsConfig(width=64, members=2)
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


class RunningReward(eqx.Module):
    """That of Gymnasium's running robots, version 5, and of the ants that never terminate."""

    normalizer: Normalizer
    velocity: int = eqx.field(static=True)
    """Where in the observation the forward velocity is."""
    alive: float = eqx.field(static=True)
    effort: float = eqx.field(static=True)
    flipped: float = eqx.field(static=True, default=0.0)
    """Price of a step with the torso, whose height is observed first, below 0.2 m."""
    potential: None = None

    def f(self, transition: Transition, *, key: Any = None):
        """alive + forward velocity after the step - effort |a|^2 - flipped."""
        obs = self.normalizer.denormalize(transition.next_obs)
        reward = self.alive + obs[..., self.velocity]
        reward -= self.effort * jnp.sum(transition.action**2, -1)
        return reward - self.flipped * (obs[..., 0] < 0.2)


RUNNING = {
    "Hopper": (5, 1.0, 1e-3),
    "Walker2d": (8, 1.0, 1e-3),
    "HalfCheetah": (8, 0.0, 0.1),
    "Ant": (13, 1.0, 0.5),
    "CustomAnt": (13, 0.0, 0.01, 1.0),
    "DisabledAnt": (13, 0.0, 0.01, 1.0),
}
"""Index of the forward velocity, reward of living, price of effort, price of lying flipped."""


class TrueStep(TransferStep):
    """The reward as it is, and nothing for the time after an end."""

    def __init__(self, *arguments: Any):
        """As MAIRL's."""
        super().__init__(*arguments)
        self.bounded: Any = lambda reward, transition: reward.f(transition)

    def end_value(self, reward: Any, transition: Transition):
        """Nothing."""
        return jnp.zeros(transition.terminated.shape)


class TrueTransfer(Transfer):
    """A transfer of the true reward."""

    update = staticmethod(partial(algorithm.update, steps=TrueStep))


def own(env_id: str, run: Path, steps: int, gamma: float, horizon: int, seed: int):
    """The policy of ``mairl transfer``'s learner, and its returns on the way."""
    spec = envs.make_spec(env_id)
    source = mairl.load(run)
    expert = demos.subsample(demos.find_demonstrations(None, source.spec), None, 1, seed)
    scales = source.learned_reward.normalizer
    mine = jax.tree.map(jnp.copy, scales)  # the update takes each buffer once
    robot = re.split(r"[-/]", env_id.removeprefix("mairl/"))[0]
    maze = robot.startswith("PointMaze")
    if not maze and robot not in RUNNING:
        raise SystemExit(f"the true reward of {env_id} is not known here; known: {list(RUNNING)}")
    reward: Any = MazeReward(mine) if maze else RunningReward(mine, *RUNNING[robot])
    settings: Any = dataclasses.replace(
        SETTINGS,
        gamma=gamma,
        dynamics=MAZE if maze else SETTINGS.dynamics,
        policy=dataclasses.replace(SETTINGS.policy, horizon=horizon),
    )
    method: Any = TrueTransfer(reward, scales)
    learner = Learner(method, settings, spec, expert, steps, seed)
    evaluations: list[tuple[int, float]] = []
    done = 0
    with envs.Collector(env_id, spec, seed, settings.num_envs) as collector:
        learner.begin(collector)
        while not learner.done:
            learner.update()
            learner.collect()
            due = learner.env_steps * EVALUATIONS // steps
            if due > done:
                done = due
                found = envs.evaluate_episodes(learner.exploit(), env_id, spec, 5, seed)
                evaluations.append((learner.env_steps, float(found.returns.mean())))
                print(*evaluations[-1], flush=True)
    return learner.exploit(), evaluations


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
    parser.add_argument("--gamma", type=float, default=0.99, help="of --learner mairl: discount")
    parser.add_argument(
        "--horizon", type=int, default=0, help="of --learner mairl: --policy.horizon"
    )
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    start, (env_id, steps, seed) = (
        time.perf_counter(),
        (options.env_id, options.steps, options.seed),
    )
    if options.learner == "mairl":
        horizon = options.horizon
        policy, evaluations = own(env_id, options.run, steps, options.gamma, horizon, seed)
    else:
        policy, evaluations = independent_learner(env_id, steps, seed), []
    wall, spec = time.perf_counter() - start, envs.make_spec(env_id)
    # On the very episodes of the transfers' final evaluations.
    found = envs.evaluate_episodes(policy, env_id, spec, FINAL_EPISODES, seed, stream="final")
    result = {
        "env_id": env_id,
        "seed": seed,
        "env_steps": steps,
        "return_mean": float(found.returns.mean()),
        "wall_seconds": round(wall, 2),
        "evaluations": evaluations,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{env_id}, {options.learner}, true reward: return {result['return_mean']:.2f}")


if __name__ == "__main__":
    main()
