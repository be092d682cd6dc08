"""Whole episodes with their true rewards, for evaluation and pictures only."""

from typing import NamedTuple

import numpy as np

from mairl.envs.gymnasium import MAX_STEPS, Act, _call, _Env, episode_seed
from mairl.types import EnvSpec, Transition


class Episode(NamedTuple):
    """One recorded episode of T steps.

    observations: ``[T + 1, obs]`` float32; actions: ``[T, action]``, inside units; env_reward:
    ``[T]`` float64, the true reward; terminated: the task itself ended.
    """

    observations: np.ndarray
    actions: np.ndarray
    env_reward: np.ndarray
    terminated: bool

    @property
    def transitions(self) -> Transition:
        """Its steps ``[T, ...]``, without rewards."""
        ends = np.zeros(len(self.actions), np.float32)
        ends[-1] = self.terminated
        return Transition(self.observations[:-1], self.actions, self.observations[1:], ends)


def record(act: Act, spec: EnvSpec, steps: int, seed: int) -> list[Episode]:
    """Episodes one after another, until they have ``steps`` steps together, or more.

    Raises:
        MairlError: the environment or the policy fails, as in ``evaluate_episodes``.
    """
    env = _Env(spec.env_id, spec, None)
    episodes: list[Episode] = []
    count = 0
    try:
        while count < steps:
            episodes.append(_episode(env, act, spec, seed, len(episodes), count))
            count += len(episodes[-1].actions)
    finally:
        env.close()
    return episodes


def _episode(env: _Env, act: Act, spec: EnvSpec, seed: int, number: int, count: int) -> Episode:
    observations = [env.reset(episode_seed(seed, "record", 0, number), 0, number)]
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    ended = truncated = False
    while not (ended or truncated or len(actions) == MAX_STEPS):
        action = _call(act, observations[-1][None], count + len(actions), spec)
        obs, reward, ended, truncated = env.step(spec.decode_action(action)[0])
        observations.append(obs)
        actions.append(action[0])
        rewards.append(reward)
    return Episode(np.stack(observations), np.stack(actions), np.array(rewards), ended)
