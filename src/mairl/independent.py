"""``mairl transfer --learner sb3``: the frozen reward under a learner of Stable-Baselines3.

An independent learner: of this library it gets the reward and nothing else, so that what it
learns speaks of the reward alone. True returns are measured outside of it, as in any run.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console

from mairl import envs, rundir
from mairl.evaluate import FINAL_EPISODES, Act, Scores
from mairl.job import Job
from mairl.portable import LearnedReward
from mairl.report.curve import draw
from mairl.report.progress import Progress
from mairl.report.summary import summarize
from mairl.training import Run, measure_baselines, report
from mairl.types import EnvSpec, MairlError

SETTINGS: dict[str, dict[str, Any]] = {
    "SAC": {},
    # Its defaults are for Atari: a target renewed every 10 000 steps, a gradient step every fourth.
    "DQN": {"target_update_interval": 500, "train_freq": 1, "exploration_fraction": 0.3},
}
"""Learner to what differs from the library's defaults."""


def check_installed() -> None:
    """Check that Stable-Baselines3 can be imported.

    Raises:
        MairlError: it cannot.
    """
    try:
        import stable_baselines3  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MairlError(
            f"--learner sb3 needs Stable-Baselines3 ({error}): pip install 'mairl[sb3]', which "
            "brings PyTorch, or leave it out"
        ) from error


def make_learner(venv: Any, spec: EnvSpec, gamma: float, seed: int) -> Any:
    """SAC, or DQN where actions are discrete, on a ``VecEnv``; on the processor, reproducibly."""
    import stable_baselines3  # pyright: ignore[reportMissingImports]

    name = learner_name(spec)
    return getattr(stable_baselines3, name)(
        "MlpPolicy", venv, gamma=gamma, seed=seed, device="cpu", **SETTINGS[name]
    )


def blind(env_id: str) -> gym.Env:
    """An environment with flat observations that pays nothing, whatever its own reward."""
    env = gym.wrappers.TransformReward(envs.make(env_id), lambda _: 0.0)
    return gym.wrappers.FlattenObservation(env)


def learner_name(spec: EnvSpec) -> str:
    """Which of SETTINGS learns in an environment."""
    return "DQN" if spec.discrete else "SAC"


def act(learner: Any, spec: EnvSpec) -> Act:
    """A learner's deterministic policy, in inside actions."""

    def mode(obs: np.ndarray, _: int) -> np.ndarray:
        actions = np.asarray(learner.predict(obs, deterministic=True)[0])
        return spec.encode_action(actions if spec.discrete else actions.reshape(len(obs), -1))

    return mode


def learn(learner: Any, steps: int, every: int, look: Callable[[int], None]) -> None:
    """``steps`` environment steps; ``look(steps so far)`` every so many, the last excluded."""
    from stable_baselines3.common.callbacks import (  # pyright: ignore[reportMissingImports]
        BaseCallback,
    )

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % every == 0 and self.num_timesteps < steps:
                look(self.num_timesteps)
            return True

    learner.learn(steps, callback=Look())


class Independent:
    """Learns in one environment from the reward in ``run`` alone.

    ``settings`` are the learner's, for config.json.
    """

    def __init__(self, run: Path, spec: EnvSpec, steps: int, seed: int):
        """Check that the reward can be paid there.

        Raises:
            MairlError: a reward of other spaces, or choices that do not begin with 0.
        """
        from stable_baselines3.common.vec_env import (  # pyright: ignore[reportMissingImports]
            DummyVecEnv,
        )

        from mairl.sb3 import LearnedRewardVecEnv

        if spec.discrete_start:
            raise MairlError(
                f"--learner sb3 takes choices that begin with 0, those of {spec.env_id} with "
                f"{spec.discrete_start}: take --learner mairl"
            )
        reward = LearnedReward.load(run)
        name, gamma = learner_name(spec), reward.form.gamma
        self.settings = {"learner": name, "gamma": gamma, **SETTINGS[name]}

        self.spec, self.steps = spec, steps
        self._venv = LearnedRewardVecEnv(DummyVecEnv([lambda: blind(spec.env_id)]), reward)
        # Its first episode is of a stream that no evaluation has.
        self._learner = make_learner(
            self._venv, spec, gamma, envs.episode_seed(seed, "transfer", 0, 0)
        )

    def learn(self, every: int, look: Callable[[int], None]) -> None:
        """As the function :func:`learn`."""
        learn(self._learner, self.steps, every, look)
        self._venv.close()

    def exploit(self) -> Act:
        """Today's deterministic policy."""
        return act(self._learner, self.spec)

    def save(self, path: Path) -> None:
        """Write Stable-Baselines3's own file."""
        self._learner.save(path)


def run(job: Job, console: Console, started: float) -> Run:
    """Do a checked job whose learner is an :class:`Independent`: as ``training.run``."""
    config, learner, directory = job.config, job.learner, job.directory
    scores = Scores(job.spec, config.seed, job.demos.expert_return)
    with Progress(console, config.env_id, config.steps) as progress:
        measure_baselines(job, scores, progress)

        def look(steps: int, episodes: int = config.eval_episodes, final: bool = False) -> Any:
            progress.learning(steps, {})
            entry = scores.evaluate(learner.exploit(), steps, episodes, final)
            entry["wall_seconds"] = round(time.perf_counter() - started, 2)
            progress.evaluated(entry)
            return entry

        progress.say("Learning")
        learner.learn(max(1, config.steps // config.evaluations), look)
        entry = look(config.steps, FINAL_EPISODES, final=True)
        learner.save(directory.independent)
        result = report(job, scores, entry, time.perf_counter() - started)
        draw(result, directory.curve)
        text = summarize(result, directory.path)
        directory.summary.write_text(text + "\n", encoding="utf-8")
        rundir.write_json(directory.result, result)
        progress.stop()
        progress.note(text)
    return Run(directory.path, result)
