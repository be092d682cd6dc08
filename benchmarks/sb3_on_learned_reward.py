"""Train a learner of Stable-Baselines3 on the reward that a run learned, and on the true one.

    python benchmarks/sb3_on_learned_reward.py RUN [--steps 30000] [--algo PPO] [--component g]
        [--raw] [--num-envs 4] [--seed 0] [--out FILE]

In an environment of its own, since Stable-Baselines3 brings PyTorch:

    python -m venv sb3 && sb3/bin/pip install '.[sb3]'

Both learners get the same steps, the library's default settings;
returns are true ones, of deterministic actions.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.env_util import (  # pyright: ignore[reportMissingImports]
    make_vec_env,
)
from stable_baselines3.common.evaluation import (  # pyright: ignore[reportMissingImports]
    evaluate_policy,
)

from mairl.portable import LearnedReward
from mairl.sb3 import LearnedRewardVecEnv

EPISODES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--algo", default="PPO", choices=["PPO", "A2C", "SAC", "TD3", "DQN"])
    parser.add_argument("--component", default="g", choices=["g", "f"])
    parser.add_argument("--raw", action="store_true", help="logits, without bound and ends")
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    reward = LearnedReward.load(options.run)
    env_id = reward.spec.env_id
    returns: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for name in ("untrained", "learned reward", "true reward"):
        env: Any = make_vec_env(env_id, options.num_envs, seed=options.seed)
        if name == "learned reward":
            env = LearnedRewardVecEnv(env, reward, options.component, bounded=not options.raw)
        learner = getattr(stable_baselines3, options.algo)(
            "MlpPolicy", env, seed=options.seed, device="cpu"
        )
        start = time.perf_counter()
        if name != "untrained":
            learner.learn(options.steps)
        seconds[name] = round(time.perf_counter() - start, 1)
        held_out = make_vec_env(env_id, 1, seed=options.seed + 1000)
        found, _ = evaluate_policy(
            learner, held_out, EPISODES, deterministic=True, return_episode_rewards=True
        )
        returns[name] = [float(value) for value in found]
        print(
            f"{options.algo}, {name}: return {np.mean(found):.1f} ± {np.std(found):.1f} over "
            f"{EPISODES} episodes, {seconds[name]:.0f} s",
            flush=True,
        )
    if options.out:
        document = {
            "env_id": env_id,
            **{
                k: getattr(options, k)
                for k in ("algo", "steps", "num_envs", "component", "raw", "seed")
            },
            "returns": returns,
            "seconds": seconds,
            "stable_baselines3": stable_baselines3.__version__,
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
