"""A learned policy and reward, loaded from a run's safetensors and JSON."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mairl import checkpoint
from mairl.algorithms import Algorithm, Settings, find
from mairl.artifact import load_artifact
from mairl.compilation import use_compilation_cache
from mairl.envs import Evaluation, evaluate_episodes
from mairl.learned_reward import LearnedReward
from mairl.normalizer import Normalizer
from mairl.policies import Policy
from mairl.portable import NO_REWARD, as_rows
from mairl.rundir import RunDirectory
from mairl.types import EnvSpec, MairlError, Transition


def load(path: str | Path) -> "Model":
    """The policy and the reward of the run in ``path``, as last saved.

    Raises:
        MairlError: there is none yet, a file is damaged, or of another version.
    """
    directory = RunDirectory(path)
    if not directory.path.is_dir():
        raise MairlError(f"there is no run directory {path}; check the path")
    if directory.independent.exists():
        raise MairlError(
            f"the policy of {path} is Stable-Baselines3's: load {directory.independent} with it"
        )
    if not directory.policy.with_suffix(".json").exists() and directory.config.exists():
        raise MairlError(
            f"the run in {path} has no policy yet: it is saved at each evaluation; let it go on"
        )
    use_compilation_cache()
    found = read_parts(directory.policy, "policy", "normalizer")
    reward = LearnedReward.load(directory.path) if found.learns_reward else None
    policy, normalizer = found.parts["policy"], found.parts["normalizer"]
    return Model(policy, normalizer, found.spec, found.seed, reward)


class Model:
    """Acts and judges in the environment's own units, with NumPy arrays in and out."""

    def __init__(
        self,
        policy: Policy,
        normalizer: Normalizer,
        spec: EnvSpec,
        seed: int,
        reward: LearnedReward | None,
    ):
        """Usually made by :func:`load`; no reward where the algorithm learns none."""
        self.spec, self.seed = spec, seed
        self._policy, self._normalizer, self._reward = policy, normalizer, reward
        self._key, self._count = jax.random.key(seed), 0

    @property
    def learned_reward(self) -> LearnedReward:
        """The reward, with all that can be asked of it.

        Raises:
            MairlError: the algorithm learns none.
        """
        if self._reward is None:
            raise MairlError(NO_REWARD)
        return self._reward

    def predict(
        self,
        obs: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Actions for one observation or a batch of them: choices, or flat float32 in its units.

        The signature is Stable-Baselines3's; ``state`` is passed through (the policy has no
        memory), ``episode_start`` ignored. Observations of other spaces than a Box are flat
        (``mairl.envs.flatten_obs``): those of a Discrete space one-hot.

        Raises:
            MairlError: observations of another size, or not finite.
        """
        rows, single = as_rows(obs, self.spec.obs_size, "obs", self.spec.env_id)
        if deterministic:
            inside = _mode(self._policy, self._normalizer, rows)
        else:
            key = jax.random.fold_in(self._key, self._count)
            self._count += 1
            inside = _sample(self._policy, self._normalizer, rows, key)
        actions = self.spec.decode_action(np.asarray(inside))
        return (np.asarray(actions[0]) if single else actions), state

    def reward(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        next_obs: np.ndarray,
        terminated: Any,
        component: Literal["f", "g"] = "f",
    ) -> np.ndarray:
        """The learned reward of transitions, single or batched; its scale is arbitrary.

        ``f`` is g shaped by a potential, as it was learned; ``g`` is the reward alone, the part
        to carry over to other dynamics (Fu et al. 2018). ``learned_reward`` has more.

        Raises:
            MairlError: inputs of another size, not finite, or an unknown component; or the
                algorithm learns no reward.
        """
        return self.learned_reward.value(obs, action, next_obs, terminated, component)

    def evaluate(self, episodes: int = 20, seed: int | None = None) -> Evaluation:
        """True returns of whole episodes with deterministic actions.

        By default on the episodes of the run's own final evaluation; another ``seed`` gives
        others.

        Raises:
            MairlError: the environment is not there, or fails.
        """

        def act(obs: np.ndarray, _: int) -> np.ndarray:
            return np.asarray(_mode(self._policy, self._normalizer, obs))

        seed = self.seed if seed is None else seed
        return evaluate_episodes(act, self.spec.env_id, self.spec, episodes, seed, stream="final")


@jax.jit
def _mode(policy: Policy, normalizer: Normalizer, obs: jax.Array) -> jax.Array:
    return policy.mode(normalizer.normalize(obs))


@jax.jit
def _sample(policy: Policy, normalizer: Normalizer, obs: jax.Array, key: jax.Array) -> jax.Array:
    return policy.sample(normalizer.normalize(obs), key)[0]


class Parts(NamedTuple):
    """Parts of a state by name, with the spec and seed of the run that handed them on."""

    parts: dict[str, Any]
    spec: EnvSpec
    seed: int
    learns_reward: bool


def read_parts(path: Path, *names: str) -> Parts:
    """The named parts that make up one artifact.

    Raises:
        MairlError: as ``artifact.load_artifact``, or the artifact is of another version.
    """
    arrays, meta = load_artifact(path)
    try:
        spec = from_dict(EnvSpec, meta["spec"])
        # What a transfer learns has the form of what MAIRL does.
        name = meta["algorithm"]
        algorithm = find("mairl" if name == "transfer" else name)
        config = from_dict(type(algorithm.PRESETS["default"]), meta["config"])
        seed = int(meta["seed"])
        state = _structure(algorithm, config, spec)
        like = {**state._asdict(), **state.params._asdict()}
        parts = _fill({name: like[name] for name in names}, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MairlError(
            f"{path}.json does not describe a {names[0]} of this version ({error}); load it with "
            f"mairl {meta['versions'].get('mairl')}, or copy both files again"
        ) from error
    return Parts(parts, spec, seed, hasattr(state.params, "reward"))


def read_state(checkpoints: Path, algorithm: Algorithm, config: Settings, spec: EnvSpec) -> Any:
    """All that a run had learned at its newest checkpoint, and the checkpoint's meta.

    Raises:
        MairlError: as ``checkpoint.load_latest``.
    """
    return checkpoint.load_part(checkpoints, "state", _structure(algorithm, config, spec))


def _structure(algorithm: Algorithm, config: Settings, spec: EnvSpec) -> Any:
    """The state as the algorithm would build it, without computing."""
    nothing = Transition(
        np.zeros((1, spec.obs_size), np.float32),
        np.zeros((1, spec.action_size), np.float32),
        np.zeros((1, spec.obs_size), np.float32),
        np.zeros(1, np.float32),
    )

    def build(key: jax.Array) -> Any:
        return algorithm.initialize(config, spec, nothing, nothing, 0.0, key=key)

    return jax.eval_shape(build, jax.random.key(0))


def _fill(like: Any, arrays: dict[str, np.ndarray]) -> Any:
    """``like`` with the arrays of the same names."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    if set(names) != set(arrays):
        raise ValueError(f"entries differ: {sorted(set(names) ^ set(arrays))[:3]}")
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if arrays[name].shape != leaf.shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}, expected {leaf.shape}")
    return structure.unflatten([jnp.asarray(arrays[name]) for name in names])


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """A (nested) dataclass from what JSON keeps of it."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if set(values) - set(fields):
        raise ValueError(f"unknown settings {sorted(set(values) - set(fields))}")

    def value(name: str, raw: Any) -> Any:
        make = fields[name].default_factory
        if make is not dataclasses.MISSING and isinstance(raw, dict):
            return from_dict(type(make()), raw)
        return tuple(raw) if isinstance(raw, list) else raw

    return kind(**{name: value(name, raw) for name, raw in values.items()})
