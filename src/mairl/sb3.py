"""A learned reward in Stable-Baselines3's vector environments. Needs ``pip install mairl[sb3]``.

>>> from stable_baselines3 import PPO  # doctest: +SKIP
>>> env = LearnedRewardVecEnv(make_vec_env("Hopper-v5", 4), "runs/hopper")  # doctest: +SKIP
>>> PPO("MlpPolicy", env).learn(100_000)  # doctest: +SKIP
"""

import os
from typing import Any

import numpy as np

from mairl.envs import flatten_batch, flatten_obs
from mairl.portable import Component, RewardArtifact
from mairl.wrappers import Payer

try:
    from stable_baselines3.common.vec_env import (  # pyright: ignore[reportMissingImports]
        VecEnv,
        VecEnvWrapper,
    )
except ImportError as error:
    raise ImportError(
        "mairl.sb3 needs Stable-Baselines3: pip install 'mairl[sb3]', or use "
        "mairl.wrappers.LearnedRewardEnv, which does not"
    ) from error


class LearnedRewardVecEnv(VecEnvWrapper):
    """:class:`mairl.wrappers.LearnedRewardEnv` around a ``VecEnv``.

    The true reward of environment i is in ``infos[i]["env_reward"]``. A ``VecMonitor`` or
    ``Monitor`` inside reports true returns, one outside learned ones.
    """

    def __init__(
        self,
        venv: VecEnv,
        reward: RewardArtifact | str | os.PathLike[str],
        component: Component = "g",
        bounded: bool = True,
    ):
        """Check that reward and environments belong together.

        Raises:
            MairlError: as :class:`mairl.wrappers.LearnedRewardEnv`.
        """
        super().__init__(venv)
        self._payer = Payer(
            reward, component, bounded, venv.observation_space, venv.action_space, str(venv)
        )
        self._obs = np.zeros((venv.num_envs, 0), np.float32)
        self._actions = np.zeros(0)

    def reset(self) -> Any:
        """As the environments' own."""
        raw = self.venv.reset()
        self._obs = flatten_batch(self.observation_space, raw)
        self._payer.look(self._obs)
        return raw

    def step_async(self, actions: np.ndarray) -> None:
        """As the environments' own; keeps what was done."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """As the environments' own, but for the reward."""
        raw, env_rewards, dones, infos = self.venv.step_wait()
        now = flatten_batch(self.observation_space, raw)
        next_obs, terminated = now.copy(), np.zeros(len(now), np.float32)
        for i in np.flatnonzero(dones):
            # The observation returned is the next episode's first already.
            last = infos[i]["terminal_observation"]
            next_obs[i] = flatten_obs(self.observation_space, last)
            terminated[i] = not infos[i].get("TimeLimit.truncated", False)
        for info, env_reward in zip(infos, env_rewards, strict=True):
            info["env_reward"] = float(env_reward)
        reward = self._payer.pay(self._obs, self._actions, next_obs, terminated)
        self._obs = now
        return raw, reward, dones, infos
