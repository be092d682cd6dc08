"""The only place that sees Gymnasium: its 5-tuples, spaces, seeds and true rewards.

Learning sees :class:`Collector`, which steps environments and hands over transitions without
rewards. Evaluation is the one user of the true reward (:func:`evaluate_episodes`).

Every episode starts from an explicit seed made from (run seed, stream, environment, episode),
so that it does not depend on what happened before; the streams' seeds never meet, so nothing
is evaluated on an episode it was trained on.

Wherever an id is asked for, arguments of ``gymnasium.make`` may follow it:
``mairl/Hopper-v0?gravity=0.5,mass=2``. They are part of the task's name from then on.
"""

import ast
import contextlib
import difflib
import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mairl.envs.flattening import flat_size, flatten_obs, parts
from mairl.types import EnvSpec, MairlError, Transition

Act = Callable[[np.ndarray, int], np.ndarray]
"""``act(obs[num_envs, obs], count) -> [num_envs, action]``: inside actions; ``count`` is the
number of calls before this one (fold it into the PRNG key)."""

STREAMS = ("train", "eval", "random", "final", "record", "transfer", "check", "other")
"""What an episode is for. The seeds of two streams are never equal."""


MAX_STEPS = 10_000
"""Where whole episodes of an environment without a time limit of its own are cut off."""


class Batch(NamedTuple):
    """Steps in the order they were taken.

    data: transitions with leading axes ``[steps, num_envs]``, numpy; ``next_obs`` is the true
        last observation at an episode's end, never the next episode's first.
    last: ``[steps, num_envs]`` float32, 1 where the episode ended for any reason.
    """

    data: Transition
    last: np.ndarray


class EpisodeEnd(NamedTuple):
    """An episode that ended: its steps, and whether it was terminated (else truncated)."""

    length: int
    terminated: bool


class Evaluation(NamedTuple):
    """Episodes in order of their number: ``[episodes]`` each.

    returns: sums of true rewards, undiscounted, float64; lengths: steps, int64;
    terminated: bool, False where time ran out.
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray


def episode_seed(seed: int, stream: str, env: int, episode: int) -> int:
    """The 31-bit reset seed of one episode.

    The lowest three bits are the stream's number, the others a hash of all four, so seeds of
    different streams differ whatever the rest.

    Raises:
        MairlError: a negative seed. ValueError: an unknown stream.
    """
    if seed < 0:
        raise MairlError(f"seed is {seed}; give an integer of 0 or more")
    number = STREAMS.index(stream)
    word = np.random.SeedSequence([seed, number, env, episode]).generate_state(1, np.uint32)[0]
    return (int(word) >> 4 << 3) | number


def make_spec(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> EnvSpec:
    """Make the environment once and describe it: sizes, action bounds, time limit.

    ``env_kwargs`` go to ``gymnasium.make``. An id without version comes back with the one in
    use. Observations are flattened: a Box of any shape row by row, a Discrete one-hot.

    Raises:
        MairlError: an unknown id (near ones are named), a package that is missing, arguments
            the environment refuses, or spaces this library does not handle (with the remedy).
    """
    env = make(env_id, env_kwargs)
    try:
        return _describe(env, env_id)
    finally:
        env.close()


def sample_random(rng: np.random.Generator, num_envs: int, spec: EnvSpec) -> np.ndarray:
    """Uniform inside actions ``[num_envs, action]`` float32: in [-1, 1], or one-hot."""
    if spec.discrete:
        return np.eye(spec.action_size, dtype=np.float32)[
            rng.integers(spec.action_size, size=num_envs)
        ]
    return rng.uniform(-1.0, 1.0, (num_envs, spec.action_size)).astype(np.float32)


class Collector:
    """Steps ``num_envs`` environments, one after the other, for learning; never tells rewards.

    Environments that finish are reset at once, with the next episode's seed of their own, so
    results depend on (seed, actions) alone. ``env_steps`` counts single steps of all
    environments together.
    """

    def __init__(
        self,
        env_id: str,
        spec: EnvSpec,
        seed: int,
        num_envs: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
    ):
        """Make the environments and reset each to its episode 0.

        Raises:
            MairlError: as :func:`make_spec`, or ``spec`` is another environment's.
        """
        if num_envs < 1:
            raise MairlError(f"num_envs is {num_envs}; it must be at least 1")
        self.spec = spec
        self.num_envs = num_envs
        self._seed = seed
        self._count = 0
        self._envs = [_Env(env_id, spec, env_kwargs) for _ in range(num_envs)]
        self._episodes = [0] * num_envs
        self._actions: list[list[np.ndarray]] = [[] for _ in range(num_envs)]
        self._obs = np.stack([self._reset(i) for i in range(num_envs)])

    @property
    def env_steps(self) -> int:
        """Steps taken since the run began, over all environments."""
        return self._count * self.num_envs

    def collect(self, act: Act, steps: int) -> tuple[Batch, list[EpisodeEnd]]:
        """Take ``steps`` steps in every environment; also the episodes that ended, in order.

        Raises:
            MairlError: the environment raised, or gave an observation of a wrong shape or with
                NaN or infinity; or ``act`` gave such actions.
        """
        rows = (steps, self.num_envs)
        obs = np.empty((*rows, self.spec.obs_size), np.float32)
        action = np.empty((*rows, self.spec.action_size), np.float32)
        next_obs = np.empty_like(obs)
        terminated, last = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
        ends: list[EpisodeEnd] = []
        for t in range(steps):
            obs[t] = self._obs
            # The row of the batch, not self._obs: a compiled policy may keep the buffer.
            action[t] = _call(act, obs[t], self._count, self.spec)
            sent = self.spec.decode_action(action[t])
            for i, env in enumerate(self._envs):
                next_obs[t, i], _, ended, truncated = env.step(sent[i])
                self._actions[i].append(action[t, i])
                if ended or truncated:
                    terminated[t, i], last[t, i] = ended, 1.0
                    ends.append(EpisodeEnd(len(self._actions[i]), ended))
                    self._episodes[i] += 1
                    self._obs[i] = self._reset(i)
                else:
                    self._obs[i] = next_obs[t, i]
            self._count += 1
        return Batch(Transition(obs, action, next_obs, terminated), last), ends

    def restart(self, which: Iterable[int]) -> list[EpisodeEnd]:
        """Leave the running episodes of these environments, as if truncated, for new ones.

        Those that have just begun stay. Say so to the replay
        (:func:`mairl.replay.break_stream`) before adding what follows.
        """
        ends = []
        for i in which:
            if not self._actions[i]:
                continue
            ends.append(EpisodeEnd(len(self._actions[i]), False))
            self._episodes[i] += 1
            self._obs[i] = self._reset(i)
        return ends

    def snapshot(self) -> dict[str, np.ndarray]:
        """What :meth:`restore` needs, as arrays: counters, the running episodes' actions."""
        lengths = [len(actions) for actions in self._actions]
        taken = [action for actions in self._actions for action in actions]
        return {
            "seed": np.asarray(self._seed, np.int64),
            "count": np.asarray(self._count, np.int64),
            "episodes": np.asarray(self._episodes, np.int64),
            "lengths": np.asarray(lengths, np.int64),
            "actions": np.asarray(taken, np.float32).reshape(-1, self.spec.action_size),
            "obs": self._obs.copy(),
        }

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> bool:
        """Go back to where a snapshot was taken, by playing its actions again.

        True if every environment arrived at the saved observation, bit for bit: then the run
        continues exactly. Otherwise the environments that did not begin a new episode and the
        answer is False; call :func:`mairl.replay.break_stream` before adding what follows.

        Exact for environments that are a function of (reset seed, actions), as Gymnasium's
        are. Not for those that draw randomness from elsewhere, depend on the clock or on
        hardware, or carry something from one episode to the next; nor is a difference noticed
        that the last observation does not show. Takes as long as the running episodes took.

        Raises:
            MairlError: the snapshot is of another seed, environment or number of environments.
        """
        expected = {name: value.shape for name, value in self.snapshot().items()}
        expected["actions"] = (int(np.sum(snapshot.get("lengths", 0))), self.spec.action_size)
        for name, shape in expected.items():
            if name not in snapshot or np.shape(snapshot[name]) != shape:
                raise MairlError(
                    f"environment snapshot: {name!r} is "
                    f"{np.shape(snapshot[name]) if name in snapshot else 'missing'}, this run "
                    f"needs {shape}; resume with the environment and num_envs it began with"
                )
        if int(snapshot["seed"]) != self._seed:
            raise MairlError(
                f"environment snapshot: seed is {int(snapshot['seed'])}, this run's is "
                f"{self._seed}; resume with the seed it began with"
            )
        self._count = int(snapshot["count"])
        stops = np.cumsum(snapshot["lengths"])
        exact = True
        for i, stop in enumerate(stops):
            actions = np.array(snapshot["actions"][stop - snapshot["lengths"][i] : stop])
            self._episodes[i] = int(snapshot["episodes"][i])
            obs = self._replay(i, actions)
            if obs is not None and obs.tobytes() == snapshot["obs"][i].tobytes():
                self._obs[i], self._actions[i] = obs, list(actions)
            else:
                exact = False
                self._episodes[i] += 1
                self._obs[i] = self._reset(i)
        return exact

    def close(self) -> None:
        """Release the environments."""
        for env in self._envs:
            env.close()

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reset(self, i: int) -> np.ndarray:
        self._actions[i] = []
        episode = self._episodes[i]
        return self._envs[i].reset(episode_seed(self._seed, "train", i, episode), i, episode)

    def _replay(self, i: int, actions: np.ndarray) -> np.ndarray | None:
        """The observation that ``actions`` lead to, None if the episode ends or fails there."""
        try:
            obs = self._reset(i)
            for sent in self.spec.decode_action(actions):
                obs, _, ended, truncated = self._envs[i].step(sent)
                if ended or truncated:
                    return None
        except MairlError:
            return None
        return obs


def evaluate_episodes(
    act: Act,
    env_id: str,
    spec: EnvSpec,
    episodes: int,
    seed: int,
    env_kwargs: Mapping[str, Any] | None = None,
    num_envs: int | None = None,
    stream: str = "eval",
    max_steps: int = MAX_STEPS,
) -> Evaluation:
    """True returns of ``episodes`` whole episodes.

    Up to ``num_envs`` run side by side (by default all, at most 32). ``act`` always gets
    ``[num_envs, obs]``, so a compiled policy compiles once; rows that have finished are zeros.
    Episode k starts from the same seed whatever ``num_envs`` is.

    An environment without a time limit of its own is cut off, as truncated, after
    ``max_steps``.

    Raises:
        MairlError: as :meth:`Collector.collect`; no episodes; a reward that is not finite.
    """
    if episodes < 1:
        raise MairlError(f"evaluation over {episodes} episodes; ask for at least 1")
    width = min(episodes, 32) if num_envs is None else num_envs
    if width < 1:
        raise MairlError(f"num_envs is {width}; it must be at least 1")
    limit = max_steps if spec.max_episode_steps is None else None
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    terminated = np.zeros(episodes, bool)
    obs = np.zeros((width, spec.obs_size), np.float32)
    pending = iter(range(episodes))
    running: dict[int, int] = {}

    with contextlib.ExitStack() as stack:
        envs = [_Env(env_id, spec, env_kwargs) for _ in range(min(width, episodes))]
        for env in envs:
            stack.callback(env.close)

        def begin(slot: int) -> None:
            obs[slot] = 0.0
            running.pop(slot, None)
            if (k := next(pending, None)) is not None:
                running[slot] = k
                obs[slot] = envs[slot].reset(episode_seed(seed, stream, 0, k), slot, k)

        for slot in range(len(envs)):
            begin(slot)
        count = 0
        while running:
            # A copy: a compiled policy may keep the buffer, and rows change below.
            sent = spec.decode_action(_call(act, obs.copy(), count, spec))
            for slot, k in list(running.items()):
                obs[slot], reward, ended, truncated = envs[slot].step(sent[slot])
                returns[k] += reward
                lengths[k] += 1
                if ended or truncated or lengths[k] == limit:
                    terminated[k] = ended
                    begin(slot)
            count += 1
    return Evaluation(returns, lengths, terminated)


def random_return(
    env_id: str,
    spec: EnvSpec,
    episodes: int = 20,
    seed: int = 0,
    env_kwargs: Mapping[str, Any] | None = None,
) -> float:
    """Mean true return of uniformly random actions (the zero of a normalized score)."""

    def act(obs: np.ndarray, count: int) -> np.ndarray:
        return sample_random(np.random.default_rng([seed, count]), len(obs), spec)

    result = evaluate_episodes(act, env_id, spec, episodes, seed, env_kwargs, stream="random")
    return float(result.returns.mean())


class _Env:
    """One environment: flat float32 observations, errors that say where they happened."""

    def __init__(self, env_id: str, spec: EnvSpec, env_kwargs: Mapping[str, Any] | None):
        self._env = make(env_id, env_kwargs)
        self._id = env_id
        self._space = self._env.action_space
        actual = _describe(self._env, env_id)
        for name in ("obs_size", "action_size", "discrete", "action_low", "action_high"):
            if getattr(actual, name) != getattr(spec, name):
                raise MairlError(
                    f"{env_id}: {name} is {getattr(actual, name)}, expected "
                    f"{getattr(spec, name)}; use the same environment and arguments throughout"
                )
        self._seed = self._index = self._episode = self._steps = 0
        self.begun = False

    @property
    def unwrapped(self) -> Any:
        """The environment itself."""
        return self._env.unwrapped

    def reset(self, seed: int, index: int, episode: int) -> np.ndarray:
        """Start an episode; ``index`` and ``episode`` are for messages."""
        self._seed, self._index, self._episode, self._steps = seed, index, episode, 0
        try:
            raw, _ = self._env.reset(seed=seed)
        except Exception as error:
            raise self._failure("reset", None, f"{type(error).__name__}: {error}") from error
        self.begun = True
        return self._observe(raw, "reset", None)

    def step(self, sent: Any) -> tuple[np.ndarray, float, bool, bool]:
        """Observation, true reward, terminated, truncated after an action in its own units."""
        if isinstance(self._space, spaces.Box):
            sent = sent.astype(self._space.dtype).reshape(self._space.shape)
            if self._space.dtype != np.float32:  # Their bounds do not survive the rounding.
                sent = np.clip(sent, self._space.low, self._space.high)
        self._steps += 1
        try:
            raw, reward, terminated, truncated, _ = self._env.step(sent)
            reward = float(reward)  # pyright: ignore[reportArgumentType]
        except Exception as error:
            raise self._failure("step", sent, f"{type(error).__name__}: {error}") from error
        if not np.isfinite(reward):
            raise self._failure("step", sent, f"the reward is {reward}")
        return self._observe(raw, "step", sent), reward, bool(terminated), bool(truncated)

    def close(self) -> None:
        self._env.close()

    def _observe(self, raw: Any, call: str, sent: Any) -> np.ndarray:
        try:
            obs = flatten_obs(self._env.observation_space, raw)
        except (TypeError, ValueError) as error:
            raise self._failure(call, sent, str(error)) from error
        if not np.isfinite(obs).all():
            at = int(np.flatnonzero(~np.isfinite(obs))[0])
            raise self._failure(call, sent, f"observation[{at}] is {obs[at]}")
        return obs

    def _failure(self, call: str, sent: Any, cause: str) -> MairlError:
        where = f"step {self._steps} of episode" if call == "step" else "reset of episode"
        with_action = "" if sent is None else f" with action {np.asarray(sent).tolist()}"
        return MairlError(
            f"{self._id}: {where} {self._episode} (environment {self._index}, reset seed "
            f"{self._seed}) failed{with_action}: {cause}. The fault is in the environment: "
            "reset it with that seed to reproduce it"
        )


def _call(act: Act, obs: np.ndarray, count: int, spec: EnvSpec) -> np.ndarray:
    actions = np.asarray(act(obs, count), np.float32)
    if actions.shape != (len(obs), spec.action_size):
        raise MairlError(
            f"{spec.env_id}: the policy's actions have shape {actions.shape}, expected "
            f"{(len(obs), spec.action_size)}; is it a policy for another environment?"
        )
    if not np.isfinite(actions).all():
        raise MairlError(
            f"{spec.env_id}: the policy's actions are not finite (call {count}): learning has "
            "diverged; lower the learning rates or resume from an earlier checkpoint"
        )
    return actions


def _is_image(space: spaces.Space) -> bool:
    """Whether it holds a picture, not a small grid of numbers, which is learned as a vector."""
    return any(map(_is_image, parts(space) or ())) or (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and sorted(space.shape)[1] >= 32
    )


def _describe(env: gym.Env, env_id: str) -> EnvSpec:
    obs_space, action_space = env.observation_space, env.action_space
    wrap = (
        "register an id whose entry point returns gymnasium.wrappers.{}(gymnasium.make(...)) "
        "and use that"
    )
    try:
        obs_size = flat_size(obs_space)
    except ValueError as error:
        raise MairlError(
            f"{env_id}: {error}, only Box, Discrete, MultiDiscrete and MultiBinary, and Dict and "
            f"Tuple of them; {wrap.format('TransformObservation')}, for one of these"
        ) from error
    if not isinstance(action_space, (spaces.Box, spaces.Discrete)):
        raise MairlError(
            f"{env_id}: action space {type(action_space).__name__} is not supported, only Box "
            f"and Discrete; {wrap.format('TransformAction')}, for one Box or Discrete"
        )
    if _is_image(obs_space):
        raise MairlError(
            f"{env_id}: observations are images, {obs_space}; learning from pixels is not "
            f"supported; {wrap.format('TransformObservation')}, with an encoder that makes a "
            "vector of an image"
        )
    obs_start = int(obs_space.start) if isinstance(obs_space, spaces.Discrete) else None
    action_size = flat_size(action_space)
    for name, size in (("observation", obs_size), ("action", action_size)):
        if not size:
            raise MairlError(f"{env_id}: the {name} space is empty; there is nothing to learn")
    made = env.spec
    # Keeps the "module:" in front, which a later process needs to find the id again.
    bare, mark, arguments = env_id.partition("?")
    module = bare.rpartition(":")[0]
    name = bare if made is None else f"{module}:{made.id}" if module else made.id
    name += mark + arguments
    limit = None if made is None else made.max_episode_steps
    limit = limit if limit and limit > 0 else None
    if isinstance(action_space, spaces.Discrete):
        return EnvSpec(
            env_id=name,
            obs_size=obs_size,
            action_size=action_size,
            discrete=True,
            discrete_start=int(action_space.start),
            obs_start=obs_start,
            max_episode_steps=limit,
        )
    if not np.issubdtype(action_space.dtype, np.floating):
        raise MairlError(
            f"{env_id}: actions are {action_space.dtype}; only floating-point Box actions are "
            f"supported; {wrap.format('TransformAction')}, over a floating-point Box"
        )
    low, high = (
        np.asarray(bound, np.float64).reshape(-1) for bound in (action_space.low, action_space.high)
    )
    bad = ~(np.isfinite(low) & np.isfinite(high) & (low < high))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise MairlError(
            f"{env_id}: action dimension {at} has bounds [{low[at]}, {high[at]}]; they must be "
            f"finite, low below high; {wrap.format('TransformAction')}, over a bounded Box"
        )
    return EnvSpec(
        env_id=name,
        obs_size=obs_size,
        action_size=action_size,
        discrete=False,
        action_low=tuple(low.tolist()),
        action_high=tuple(high.tolist()),
        obs_start=obs_start,
        max_episode_steps=limit,
    )


def make(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> gym.Env:
    """``gymnasium.make`` of an id as the command takes it, arguments included.

    Raises:
        MairlError: as :func:`make_spec`.
    """
    env_id, asked = _split_id(env_id)
    kwargs = {**asked, **(env_kwargs or {})}
    try:
        with _quiet_mujoco(env_id):
            # The checker looks at every observation again, in Python; _Env checks what matters.
            return gym.make(env_id, **{"disable_env_checker": True, **kwargs})
    except ImportError as error:
        raise MairlError(
            f"environment {env_id!r} cannot be imported: {str(error).rstrip('.')}. Install the "
            f"package it comes from{_near(env_id, ', or use ')}"
        ) from error
    except gym.error.DependencyNotInstalled as error:
        raise MairlError(f"environment {env_id!r} lacks a package: {error}") from error
    except gym.error.Error as error:
        if env_id.rpartition(":")[2] in gym.registry:
            raise MairlError(f"environment {env_id!r} could not be made: {error}") from error
        raise MairlError(
            f"environment {env_id!r} is not registered{_near(env_id, '; nearest: ')}. If a "
            "package of its own provides it, install that and write 'package:Name-v0'"
        ) from error
    except Exception as error:
        raise MairlError(
            f"environment {env_id!r} could not be made with arguments {kwargs}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _split_id(env_id: str) -> tuple[str, dict[str, Any]]:
    """``id?name=value,name=value`` as the id and its arguments: Python literals, or words."""
    name, _, query = env_id.partition("?")
    arguments: dict[str, Any] = {}
    for part in filter(None, _split_outside_brackets(query)):
        key, equals, text = part.partition("=")
        if not (equals and key.isidentifier() and text):
            raise MairlError(
                f"environment {env_id!r}: {part!r} is not an argument; write 'id?name=value', "
                "and commas between several"
            )
        try:
            arguments[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            arguments[key] = text
    return name, arguments


def _split_outside_brackets(query: str) -> list[str]:
    """``query`` split at the commas that are in no bracket."""
    parts, depth = [""], 0
    for letter in query:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _near(env_id: str, prefix: str) -> str:
    """``prefix`` and registered ids like this one (newest versions), or nothing."""
    newest: dict[str, tuple[int, str]] = {}
    for spec in gym.registry.values():
        full = f"{spec.namespace}/{spec.name}" if spec.namespace else spec.name
        # By full name, and by bare name for those who left the namespace out.
        for name in {full.lower(), spec.name.lower()}:
            newest[name] = max(newest.get(name, (-1, "")), (int(spec.version or 0), spec.id))
    wanted = env_id.rpartition(":")[2].lower()
    stem, dash, version = wanted.rpartition("-v")
    wanted = stem if dash and version.isdigit() else wanted
    names = [wanted] if wanted in newest else difflib.get_close_matches(wanted, newest, 3, 0.7)
    if not names:  # Perhaps only the namespace is wrong.
        names = difflib.get_close_matches(wanted.rpartition("/")[2], newest, 3, 0.7)
    ids = dict.fromkeys(newest[name][1] for name in names if newest[name][1] != env_id)
    return prefix + " or ".join(repr(found) for found in ids) if ids else ""


@contextlib.contextmanager
def _quiet_mujoco(env_id: str) -> Iterator[None]:
    """Turn MuJoCo's warnings while a model loads into Python's, dropping known harmless ones.

    MuJoCo prints from C and leaves a MUJOCO_LOG.TXT in the working directory.
    """
    spec = gym.registry.get(env_id.rpartition(":")[2])
    try:
        entry_point = str(spec and spec.entry_point).lower()
        if not ("mujoco" in entry_point or "mairl.envs." in entry_point):
            raise ImportError
        mujoco: Any = importlib.import_module("mujoco")
        previous = mujoco.get_mju_user_warning()
    except (ImportError, AttributeError):
        yield
        return
    messages: list[str] = []
    mujoco.set_mju_user_warning(messages.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
    for message in messages:
        if "settotalmass" not in message:  # Gymnasium's own HalfCheetah model.
            warnings.warn(f"MuJoCo: {message}", stacklevel=2)
