"""The transition table of a finite task, where the environment shows one."""

from typing import Any

import numpy as np
from gymnasium import spaces

from mairl.envs.gymnasium import make
from mairl.types import MairlError


def transition_table(env_id: str) -> np.ndarray:
    """P(next state | state, action) as ``[states, actions, states]`` float64; no rewards.

    Read from ``env.unwrapped.P``, which Gymnasium's toy-text tasks have: lists of (probability,
    next state, reward, terminated) by state and action. States in which an episode terminates
    are absorbing: every action stays.

    Raises:
        MairlError: spaces that are not Discrete, or no such table.
    """
    env = make(env_id)
    try:
        obs, action = env.observation_space, env.action_space
        outcomes: Any = getattr(env.unwrapped, "P", None)
    finally:
        env.close()
    if not isinstance(obs, spaces.Discrete) or not isinstance(action, spaces.Discrete):
        raise MairlError(
            f"{env_id} is no finite task: its spaces are {type(obs).__name__} and "
            f"{type(action).__name__}, a table of transitions takes Discrete ones; choose another "
            "--algo"
        )
    states, actions = int(obs.n), int(action.n)
    table, ends = np.zeros((states, actions, states)), np.zeros(states, bool)
    try:
        for s in range(states):
            for a in range(actions):
                for probability, after, _, terminated in outcomes[s][a]:
                    table[s, a, int(after)] += probability
                    ends[int(after)] |= bool(terminated)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise MairlError(
            f"{env_id} shows no transition table (env.unwrapped.P, as FrozenLake-v1 has); choose "
            "another --algo"
        ) from error
    table[ends] = np.eye(states)[ends][:, None]
    if not np.allclose(table.sum(-1), 1.0):
        raise MairlError(
            f"{env_id}: the probabilities in env.unwrapped.P do not add up to 1; correct them in "
            "the environment"
        )
    return table
