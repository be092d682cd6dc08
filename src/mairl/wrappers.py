"""Environments that pay a learned reward, for any learner. Without JAX.

>>> env = LearnedRewardEnv(gymnasium.make("Hopper-v5"), "runs/hopper")  # doctest: +SKIP

The true reward is in ``info["env_reward"]``. :mod:`mairl.sb3` has the twin for
Stable-Baselines3's own vector environments.
"""

import os
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from mairl.envs import flat_size, flatten_batch, flatten_obs
from mairl.portable import Component, LearnedReward, RewardArtifact, check_component
from mairl.types import EnvSpec, MairlError

FAR = 10.0
"""Deviations from the demonstrations' mean beyond which an observation is strange."""


class LearnedRewardEnv(gym.Wrapper):
    """Pays the learned reward of each step in place of the environment's own.

    ``reward`` is a loaded one, a run directory or an artifact's path; ``component`` is "g" (the
    reward alone, to carry over to other dynamics) or "f" (as shaped).

    Terminations: with ``bounded`` (the default) a step pays what the run's own policy was
    given, in which the step that terminates an episode also pays for all the time after
    (``RewardArtifact.bounded``), so that living longer is good or bad as the demonstrations
    have it. Without, a step pays the raw logit and nothing follows an end. A time limit
    (``truncated``) pays nothing either way: a learner should bootstrap through it.
    """

    def __init__(
        self,
        env: gym.Env,
        reward: RewardArtifact | str | os.PathLike[str],
        component: Component = "g",
        bounded: bool = True,
    ):
        """Check that reward and environment belong together.

        Raises:
            MairlError: no sound reward there; spaces of other sizes or bounds than it has.
        """
        super().__init__(env)
        name = str(env.spec.id if env.spec else env)
        self._payer = Payer(
            reward, component, bounded, env.observation_space, env.action_space, name
        )
        self._obs = np.zeros(0, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As the environment's own."""
        raw, info = self.env.reset(seed=seed, options=options)
        self._obs = flatten_obs(self.env.observation_space, raw)
        self._payer.look(self._obs[None])
        return raw, info

    def step(self, action: Any) -> Any:
        """As the environment's own, but for the reward."""
        raw, env_reward, terminated, truncated, info = self.env.step(action)
        next_obs = flatten_obs(self.env.observation_space, raw)
        reward = self._payer.pay(self._obs, np.asarray(action), next_obs, terminated)
        self._obs = next_obs
        return raw, float(reward), terminated, truncated, {**info, "env_reward": env_reward}


class LearnedRewardVectorEnv(VectorWrapper):
    """:class:`LearnedRewardEnv` for Gymnasium's vector environments, in any autoreset mode.

    ``info["env_reward"]`` is an array ``[num_envs]``. The step on which an environment was only
    reset (mode NEXT_STEP) pays 0.
    """

    def __init__(
        self,
        env: VectorEnv,
        reward: RewardArtifact | str | os.PathLike[str],
        component: Component = "g",
        bounded: bool = True,
    ):
        """Check that reward and environments belong together.

        Raises:
            MairlError: as :class:`LearnedRewardEnv`.
        """
        super().__init__(env)
        self._payer = Payer(
            reward,
            component,
            bounded,
            env.single_observation_space,
            env.single_action_space,
            str(env.spec.id if env.spec else env),
        )
        self._mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._obs = np.zeros((env.num_envs, 0), np.float32)
        self._ended = np.zeros(env.num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """As the environments' own."""
        raw, info = self.env.reset(seed=seed, options=options)
        self._obs = flatten_batch(self.single_observation_space, raw)
        self._payer.look(self._obs)
        self._ended[:] = False
        return raw, info

    def step(self, actions: Any) -> Any:
        """As the environments' own, but for the reward."""
        raw, env_reward, terminated, truncated, info = self.env.step(actions)
        now = flatten_batch(self.single_observation_space, raw)
        next_obs = now.copy()
        if self._mode == AutoresetMode.SAME_STEP:
            for i in np.flatnonzero(info.get("_final_obs", ())):
                next_obs[i] = flatten_obs(self.single_observation_space, info["final_obs"][i])
        reward = self._payer.pay(self._obs, np.asarray(actions), next_obs, terminated)
        if self._mode == AutoresetMode.NEXT_STEP:
            reward = np.where(self._ended, 0.0, reward)
        self._obs, self._ended = now, terminated | truncated
        info = {**info, "env_reward": env_reward}
        return raw, reward.astype(np.float64), terminated, truncated, info


class Payer:
    """A reward fitted to one environment's spaces: what all the wrappers share."""

    def __init__(
        self,
        reward: RewardArtifact | str | os.PathLike[str],
        component: Component,
        bounded: bool,
        obs_space: spaces.Space,
        action_space: spaces.Space,
        name: str,
    ):
        """Load the reward where a path is given, and compare its spaces with the environment's.

        Raises:
            MairlError: as :class:`LearnedRewardEnv`.
        """
        check_component(component)
        if not isinstance(reward, RewardArtifact):
            reward = LearnedReward.load(os.fspath(reward))
        check_spaces(reward, obs_space, action_space, name)
        if bounded and reward.form.bound is None:
            raise MairlError(f"{name}: this reward is exact, and has no bound; give bounded=False")
        self._reward = reward
        self._component: Component = component
        self._judge = reward.bounded if bounded else reward.value
        self._name, self._warned = name, False

    def pay(
        self, obs: np.ndarray, action: Any, next_obs: np.ndarray, terminated: Any
    ) -> np.ndarray:
        """The reward of one step, or ``[n]`` of n."""
        return self._judge(obs, action, next_obs, terminated, self._component)

    def look(self, obs: np.ndarray) -> None:
        """Warn, once, where observations ``[n, obs]`` are nothing like those it was learned on."""
        far = self._reward.deviations(obs).max(0)
        if not self._warned and far.max() > FAR:
            self._warned = True
            at = int(far.argmax())
            warnings.warn(
                f"{self._name}: observation[{at}] starts {far[at]:.0f} deviations away from what "
                f"the reward of {self._reward.spec.env_id} was learned on; is it the same "
                "quantity, in the same unit?",
                stacklevel=3,
            )


def check_spaces(
    reward: RewardArtifact, obs_space: spaces.Space, action_space: spaces.Space, name: str
) -> None:
    """Check that a reward can judge the transitions of an environment called ``name``.

    Actions do not matter where the reward is a function of the observation alone.

    Raises:
        MairlError: with the first difference.
    """
    spec = reward.spec
    wrong = None
    size = _size(obs_space)
    if size != spec.obs_size:
        wrong = f"observations of {spec.obs_size} numbers, {name} has {size or obs_space}"
    elif not reward.form.state_only:
        wrong = _other_actions(spec, action_space, name)
    if wrong:
        raise MairlError(
            f"the reward was learned in {spec.env_id} and takes {wrong}; use it in an "
            "environment with the same observations and actions, or wrap this one to have them"
        )


def _other_actions(spec: EnvSpec, space: spaces.Space, name: str) -> str | None:
    if spec.discrete:
        first, last = spec.discrete_start, spec.discrete_start + spec.action_size - 1
        if isinstance(space, spaces.Discrete) and (space.start, space.n) == (
            spec.discrete_start,
            spec.action_size,
        ):
            return None
        return f"the choices {first} to {last} as actions, {name} takes {space}"
    if not isinstance(space, spaces.Box) or _size(space) != spec.action_size:
        return f"actions of {spec.action_size} numbers, {name} takes {space}"
    bounds = [np.asarray(b, np.float64).reshape(-1) for b in (space.low, space.high)]
    if not np.allclose(bounds, [spec.action_low, spec.action_high], rtol=1e-6):
        return (
            f"actions between {list(spec.action_low)} and {list(spec.action_high)}, those of "
            f"{name} are between {bounds[0].tolist()} and {bounds[1].tolist()}"
        )
    return None


def _size(space: spaces.Space) -> int:
    """Numbers in one flat observation or action; 0 for a space that cannot be."""
    try:
        return flat_size(space)
    except ValueError:
        return 0
