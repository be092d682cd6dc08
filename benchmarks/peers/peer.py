"""What a peer's training script needs to know of its job; run in the peer's own environment.

``run.py`` leaves in a run directory ``job.json`` (env_id, steps, seed, evaluate_at, eval_seeds,
final_seeds) and ``expert.npz``: the demonstrated transitions obs ``[N, obs]``, action in the
environment's units, next_obs, terminated. A peer leaves ``metrics.jsonl``: a line for each
evaluation, with env_steps, wall_seconds and the true return of each episode.
"""

import json
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np


class Job:
    """A run directory as a peer sees it."""

    def __init__(self, path):
        """Read what to do."""
        self.path = Path(path)
        self.started = time.perf_counter()
        task = json.loads((self.path / "job.json").read_text())
        self.env_id, self.steps, self.seed = task["env_id"], task["steps"], task["seed"]
        self.kind = task["kind"]
        self._due, self._seeds = task["evaluate_at"], task["eval_seeds"]
        self._final_seeds = task["final_seeds"]
        with np.load(self.path / "expert.npz") as arrays:
            self.expert = dict(arrays)

    def evaluate(self, predict, env_steps):
        """Evaluate where one is due; ``predict`` gives the deterministic action of one obs."""
        if self._due and env_steps >= self._due[0] and env_steps < self.steps:
            self._due = [step for step in self._due if step > env_steps]
            self._write(predict, env_steps, self._seeds)

    def finish(self, predict, env_steps):
        """The final evaluation."""
        self._write(predict, env_steps, self._final_seeds)

    def _write(self, predict, env_steps, seeds):
        returns = episode_returns(self.env_id, predict, seeds)
        seconds = time.perf_counter() - self.started
        line = {"env_steps": env_steps, "wall_seconds": round(seconds, 2), "returns": returns}
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"step {env_steps}: return {np.mean(returns):.1f}", flush=True)


def episode_returns(env_id, predict, seeds):
    """True return of one episode for each reset seed."""
    env, returns = gym.make(env_id), []
    for seed in seeds:
        obs, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(predict(obs))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return returns


def main(train):
    """Run ``train(job)`` on the run directory named on the command line."""
    if sys.argv[1:] == ["--check"]:  # What is imported is there.
        print("ready")
    else:
        train(Job(sys.argv[1]))
