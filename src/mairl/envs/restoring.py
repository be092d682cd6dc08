"""Environments put back to states they have been in: what follows a state, again and again."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mairl.envs.gymnasium import _call, _Env, episode_seed
from mairl.types import EnvSpec, Transition

MAX_STEPS = 1000
"""Where episodes of an environment without a time limit are cut off."""

CHECKED, CHECKED_STEPS = 16, 5
"""States from which it is checked that a restored environment does the same, for how long."""


class State(NamedTuple):
    """Where an environment was.

    obs: ``[obs]``; plain: its variables that are numbers, arrays, tuples or lists; physics:
    MuJoCo's integration state, if it is MuJoCo's; generator: the state of its random numbers.
    """

    obs: np.ndarray
    plain: dict[str, Any]
    physics: np.ndarray | None
    generator: dict[str, Any]


class Visit(NamedTuple):
    """A state that an episode passed, and the ``actions`` ``[n, action]`` and observations
    ``next_obs`` ``[n, obs]`` of the few steps after it.
    """

    snapshot: State
    actions: np.ndarray
    next_obs: np.ndarray


class Simulator:
    """``num_envs`` copies of an environment, without time limit, that can be put back."""

    def __init__(self, spec: EnvSpec, num_envs: int):
        """Make the environments.

        Raises:
            MairlError: as ``make_spec``.
        """
        self.spec, self.num_envs = spec, num_envs
        self._envs = [_Env(spec.env_id, spec, {"max_episode_steps": -1}) for _ in range(num_envs)]

    def visit(
        self, act: Callable[[np.ndarray, int], np.ndarray], steps: int, seed: int
    ) -> list[Visit]:
        """The states of whole episodes, one after another until there are ``steps`` or more.

        ``act`` gets ``[1, obs]`` and the number of steps before. States at which an episode
        ended are left out. Episodes are cut off at the environment's time limit.

        Raises:
            MairlError: the environment or the policy fails, as in ``evaluate_episodes``.
        """
        env, visits, number = self._envs[0], [], 0
        while len(visits) < steps:
            obs = env.reset(episode_seed(seed, "other", 0, number), 0, number)
            snapshots, actions, seen, ended = [], [], [], False
            while not ended and len(actions) < (self.spec.max_episode_steps or MAX_STEPS):
                snapshots.append(_snapshot(env, obs))
                count = len(visits) + len(actions)
                action = _call(act, obs[None], count, self.spec)
                obs, _, ended, cut_off = env.step(self.spec.decode_action(action)[0])
                ended = ended or cut_off
                actions.append(action[0])
                seen.append(obs)
            number += 1
            for t, snapshot in enumerate(snapshots):
                few = slice(t, t + CHECKED_STEPS)
                visits.append(Visit(snapshot, np.stack(actions[few]), np.stack(seen[few])))
        return visits

    def restorable(self, visits: Sequence[Visit]) -> bool:
        """Whether an environment put back does what it did, bit for bit, in a few steps.

        Tried on ``CHECKED`` of the visits, random numbers put back too. What the observations do
        not show stays unnoticed.
        """
        chosen = np.unique(np.linspace(0, len(visits) - 1, CHECKED).astype(int))
        # From last to first and in other copies: nothing must be left over from before.
        for i, index in enumerate(reversed(chosen)):
            visit, env = visits[index], self._envs[-1 - i % self.num_envs]
            self._begin(env)
            _restore(env, visit.snapshot, generator=True)
            for sent, obs in zip(
                self.spec.decode_action(visit.actions), visit.next_obs, strict=True
            ):
                if env.step(sent)[0].tobytes() != obs.tobytes():
                    return False
        return True

    def branch(
        self,
        act: Callable[[np.ndarray, int], np.ndarray],
        starts: Sequence[State],
        horizon: int,
    ) -> tuple[Transition, np.ndarray]:
        """``horizon`` steps from each of ``num_envs`` starts, random numbers fresh.

        ``act`` gets all observations ``[num_envs, obs]`` and the step. Returns transitions
        ``[horizon, num_envs, ...]`` and a mask ``[horizon, num_envs]``, float32: 1 up to and
        including the step that ends the episode; what follows is zeros.

        Raises:
            MairlError: the environment or the policy fails, as in ``evaluate_episodes``.
        """
        rows = (horizon, self.num_envs)
        obs = np.zeros((*rows, self.spec.obs_size), np.float32)
        action = np.zeros((*rows, self.spec.action_size), np.float32)
        next_obs = np.zeros_like(obs)
        terminated, mask = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
        for env, start in zip(self._envs, starts, strict=True):
            self._begin(env)
            _restore(env, start, generator=False)
        now = np.stack([start.obs for start in starts])
        alive = np.ones(self.num_envs, bool)
        for t in range(horizon):
            chosen = _call(act, now.copy(), t, self.spec)
            sent = self.spec.decode_action(chosen)
            for i in np.flatnonzero(alive):
                after, _, ended, _ = self._envs[i].step(sent[i])
                obs[t, i], action[t, i], next_obs[t, i] = now[i], chosen[i], after
                terminated[t, i], mask[t, i] = ended, 1.0
                now[i], alive[i] = after, not ended
        return Transition(obs, action, next_obs, terminated), mask

    def close(self) -> None:
        """Release the environments."""
        for env in self._envs:
            env.close()

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _begin(env: _Env) -> None:
        """Gymnasium wants an episode begun before the first step."""
        if not env.begun:
            env.reset(0, 0, 0)


def _snapshot(env: _Env, obs: np.ndarray) -> State:
    inner = env.unwrapped
    plain = {name: _copy(value) for name, value in vars(inner).items() if _is_plain(value)}
    return State(obs, plain, _physics(inner), inner.np_random.bit_generator.state)


def _restore(env: _Env, snapshot: State, generator: bool) -> None:
    inner = env.unwrapped
    for name, value in snapshot.plain.items():
        setattr(inner, name, _copy(value))
    if snapshot.physics is not None:
        mujoco: Any = importlib.import_module("mujoco")
        spec = mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(inner.model, inner.data, snapshot.physics, spec)
    if generator:
        inner.np_random.bit_generator.state = snapshot.generator


def _physics(inner: Any) -> np.ndarray | None:
    """All that MuJoCo's next step depends on; None where it is another engine's."""
    model, data = getattr(inner, "model", None), getattr(inner, "data", None)
    if (type(model).__name__, type(data).__name__) != ("MjModel", "MjData"):
        return None
    mujoco: Any = importlib.import_module("mujoco")
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, data, state, spec)
    return state


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(
        value, (bool, int, float, np.generic, np.ndarray, tuple, list)
    )


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, (np.ndarray, list)) else value
