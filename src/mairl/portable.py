"""A learned reward in any program: read and computed with NumPy alone, without JAX.

>>> from mairl.portable import LearnedReward
>>> reward = LearnedReward.load("runs/hopper")  # doctest: +SKIP
>>> reward.g(obs, action)  # doctest: +SKIP

:class:`mairl.LearnedReward` is the same in JAX, with gradients.
"""

import abc
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from mairl.artifact import artifact_paths, load_artifact
from mairl.types import EnvSpec, MairlError

Component = Literal["g", "f"]
Kind = TypeVar("Kind", bound="RewardArtifact")
Layers = list[tuple[np.ndarray, np.ndarray]]
"""Weights ``[in, out]`` and biases ``[out]`` of a network."""

EQUATIONS = {
    "normalized": "x = clip((obs - normalizer.mean) / normalizer.std, -clip, clip)",
    "action": "a = clip(2 (action - low) / (high - low) - 1, -1, 1), or one-hot if discrete",
    "g": "network reward.reward of (x, a), or of x alone if state_only; tanh between layers",
    "h": "network reward.potential of x; zero if there is none",
    "f": "f = g + gamma * (1 - terminated) * h(next_obs) - h(obs)",
    "bounded": "r(f) = b tanh((f + live) / b), then w softplus(r / w) with w = softplus "
    "where that is not 0; where an episode terminates, gamma / (1 - gamma) * "
    "r(clip(f + ended, -b, b)), without live, is added for the time after; r(g) the same with g "
    "for the first f",
}
"""How the arrays of a reward artifact make numbers; written into its JSON."""

NO_REWARD = (
    "this run learned a policy alone (behavioral cloning has no reward): train with another "
    "--algo for a reward"
)


@dataclass(frozen=True)
class RewardForm:
    """The numbers that are not arrays; ``EQUATIONS`` says what they do.

    ``bound``, ``softplus``, ``live`` and ``ended`` say what the run's own policy was given:
    see ``rewards.airl.BoundedReward`` and ``end_logits``. ``bound`` is None where it was not
    given a bounded reward (exact maximum-entropy IRL).
    """

    gamma: float
    state_only: bool
    clip: float
    bound: float | None
    softplus: float
    live: float
    ended: float


class RewardArtifact(abc.ABC):
    """A learned reward in the environment's own units, NumPy in and out.

    All methods take one transition (``obs [obs]``, ``action [action]``, or a number if
    discrete) or ``n`` of them (``[n, ...]``) and give a number or ``[n]``, float32.
    Observations are flat, those of a Discrete space one-hot; actions are clipped to their
    bounds. The scale of a learned reward is arbitrary.
    """

    spec: EnvSpec
    form: RewardForm
    meta: dict[str, Any]
    """The artifact's JSON: demonstrations, configuration, versions of the run that made it."""
    shaped: bool
    """It has a potential; else f is g."""

    @classmethod
    def load(cls: type[Kind], path: str | Path) -> Kind:
        """The reward in a run directory, or that of ``<path>.safetensors`` and ``.json``.

        Raises:
            MairlError: it is missing, damaged (by its hash), of another version, or not a reward.
        """
        path = Path(path)
        where = path / "reward" if path.is_dir() else path
        if policy_alone(path):
            raise MairlError(f"there is no reward in {path}: {NO_REWARD}")
        if path.is_dir() and not any(part.exists() for part in artifact_paths(where)):
            raise MairlError(
                f"there is no reward in {path}: a run writes reward.safetensors and reward.json "
                "there at each evaluation; check the path, or let the run go on"
            )
        arrays, meta = load_artifact(where)
        try:
            spec = as_spec(meta["spec"])
            form = RewardForm(**meta["reward"])
            return cls(spec, form, _checked(arrays, spec, form), meta)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            made_by = meta["versions"].get("mairl")
            raise MairlError(
                f"{where} is not a reward that this mairl reads ({error}); load it with mairl "
                f"{made_by}, or hand it on again by evaluating its run"
            ) from error

    def __init__(
        self, spec: EnvSpec, form: RewardForm, arrays: dict[str, np.ndarray], meta: dict[str, Any]
    ):
        """Usually made by :meth:`load`."""
        self.spec, self.form, self.meta = spec, form, meta
        self._mean, self._std = arrays["normalizer.mean"], arrays["normalizer.std"]
        self.shaped = bool(layers(arrays, "reward.potential"))

    def g(self, obs: np.ndarray, action: Any) -> np.ndarray:
        """The reward alone, g(obs, action): what to carry over to other dynamics.

        Raises:
            MairlError: inputs of another size, or not finite.
        """
        rows, actions, single = self._inputs(obs, action)
        return _unbatched(self._g(rows, actions), single)

    def h(self, obs: np.ndarray) -> np.ndarray:
        """The potential of the shaping; zero where the reward was learned without.

        Raises:
            MairlError: observations of another size, or not finite.
        """
        rows, single = as_rows(obs, self.spec.obs_size, "obs", self.spec.env_id)
        return _unbatched(self._h(rows), single)

    def f(self, obs: np.ndarray, action: Any, next_obs: np.ndarray, terminated: Any) -> np.ndarray:
        """g shaped by the potential (Fu et al. 2018, eq. 4), as it was learned.

        ``terminated`` is true where the task itself ended; the potential after it is zero.

        Raises:
            MairlError: inputs of another size, not finite, or of different numbers of rows.
        """
        rows, actions, single = self._inputs(obs, action)
        next_rows, _ = as_rows(next_obs, self.spec.obs_size, "next_obs", self.spec.env_id)
        ends = np.asarray(terminated, np.float32).reshape(-1)
        if {len(next_rows), len(ends)} != {len(rows)}:
            raise MairlError(
                f"reward: obs, action, next_obs and terminated have {len(rows)}, {len(actions)}, "
                f"{len(next_rows)} and {len(ends)} rows; give one of each for every transition"
            )
        return _unbatched(self._f(rows, actions, next_rows, ends), single)

    def value(
        self,
        obs: np.ndarray,
        action: Any,
        next_obs: np.ndarray,
        terminated: Any,
        component: Component = "f",
    ) -> np.ndarray:
        """:meth:`g` or :meth:`f` of transitions, by name.

        Raises:
            MairlError: as they do; an unknown component.
        """
        check_component(component)
        # Through f in both cases, for its checks.
        shaped = self.f(obs, action, next_obs, terminated)
        return shaped if component == "f" else self.g(obs, action)

    def bounded(
        self,
        obs: np.ndarray,
        action: Any,
        next_obs: np.ndarray,
        terminated: Any,
        component: Component = "f",
    ) -> np.ndarray:
        """What the run's own policy climbed: the component bounded, and ends valued.

        Raw values are a discriminator's logits, whose sign says nothing about living longer: a
        learner given them ends episodes early where they are negative, and draws them out where
        they are positive. Here an end is worth what demonstrations say (``EQUATIONS``). Terms of
        the policy itself, such as AIRL's - log pi on PPO, are not in it.

        Raises:
            MairlError: as :meth:`value`; the run's own policy was given no bounded reward.
        """
        form = self.form
        if form.bound is None:
            raise MairlError(
                "this reward is exact, and was not bounded for its policy: ask for the raw values"
            )
        ends = np.asarray(terminated, np.float32)
        check_component(component)
        shaped = self.f(obs, action, next_obs, ends)
        raw = shaped if component == "f" else self.g(obs, action)
        # What kind of end it was f says, whose level at ends is in ``ended``; g is off by h there.
        after = self._bound(np.asarray(np.clip(shaped + form.ended, -form.bound, form.bound)))
        ends = ends.reshape(raw.shape) * (form.gamma / (1.0 - form.gamma))
        return np.asarray(self._bound(np.asarray(raw + form.live)) + ends * after, np.float32)

    def normalize(self, obs: np.ndarray) -> np.ndarray:
        """Observations ``[n, obs]`` as the networks see them."""
        return np.clip((obs - self._mean) / self._std, -self.form.clip, self.form.clip)

    def deviations(self, obs: np.ndarray) -> np.ndarray:
        """How far observations ``[n, obs]`` are from those learned on, in deviations, >= 0."""
        rows, _ = as_rows(obs, self.spec.obs_size, "obs", self.spec.env_id)
        return np.abs((rows - self._mean) / self._std)

    @abc.abstractmethod
    def _g(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """g ``[n]`` of observations ``[n, obs]`` and inside actions ``[n, action]``."""

    @abc.abstractmethod
    def _h(self, obs: np.ndarray) -> np.ndarray:
        """h ``[n]`` of observations ``[n, obs]``."""

    def _f(
        self, obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray, terminated: np.ndarray
    ) -> np.ndarray:
        future = np.float32(self.form.gamma) * (1.0 - terminated)
        return self._g(obs, action) + future * self._h(next_obs) - self._h(obs)

    def _bound(self, logit: np.ndarray) -> np.ndarray:
        bound = self.form.bound
        assert bound is not None
        bounded = bound * np.tanh(logit / bound)
        width = self.form.softplus
        return np.asarray(width * np.logaddexp(0.0, bounded / width) if width else bounded)

    def _inputs(self, obs: np.ndarray, action: Any) -> tuple[np.ndarray, np.ndarray, bool]:
        """Observations, inside actions, and whether it was a single one of each."""
        spec = self.spec
        rows, single = as_rows(obs, spec.obs_size, "obs", spec.env_id)
        if self.form.state_only:  # whatever they are
            return rows, np.zeros((len(rows), spec.action_size), np.float32), single
        if spec.discrete:
            actions = self._choices(action)
        else:
            actions, _ = as_rows(action, spec.action_size, "action", spec.env_id)
        if len(actions) != len(rows):
            raise MairlError(
                f"reward: obs and action have {len(rows)} and {len(actions)} rows; give one of "
                "each for every transition"
            )
        return rows, spec.encode_action(actions), single

    def _choices(self, action: Any) -> np.ndarray:
        choices = np.asarray(action).reshape(-1)
        first, last = self.spec.discrete_start, self.spec.discrete_start + self.spec.action_size - 1
        wrong = (choices < first) | (choices > last) | (choices != np.floor(choices))
        if wrong.any():
            raise MairlError(
                f"action {choices[wrong][0]} is none of {self.spec.env_id}'s choices, which are "
                f"{first} to {last}"
            )
        return choices


class LearnedReward(RewardArtifact):
    """A learned reward computed with NumPy."""

    def __init__(
        self, spec: EnvSpec, form: RewardForm, arrays: dict[str, np.ndarray], meta: dict[str, Any]
    ):
        """Usually made by :meth:`load`."""
        super().__init__(spec, form, arrays, meta)
        self._reward = layers(arrays, "reward.reward")
        self._potential = layers(arrays, "reward.potential")

    def _g(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        x = self.normalize(obs)
        return _network(self._reward, x if self.form.state_only else np.concatenate([x, action], 1))

    def _h(self, obs: np.ndarray) -> np.ndarray:
        if not self._potential:
            return np.zeros(len(obs), np.float32)
        return _network(self._potential, self.normalize(obs))


def policy_alone(run: Path) -> bool:
    """Whether a run has handed on a policy and no reward."""
    policy, reward = (
        any(p.exists() for p in artifact_paths(run / n)) for n in ("policy", "reward")
    )
    return policy and not reward


def as_spec(values: dict[str, Any]) -> EnvSpec:
    """The spec that JSON keeps. Raises TypeError where it is another version's."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return EnvSpec(**fields)


def check_component(name: str) -> None:
    """Raises MairlError where ``name`` is no component of a reward."""
    if name not in ("f", "g"):
        raise MairlError(f"reward component {name!r} is unknown; ask for 'f' or 'g'")


def as_rows(values: Any, size: int, name: str, env_id: str) -> tuple[np.ndarray, bool]:
    """Inputs as ``[n, size]`` float32, and whether it was a single one.

    Raises:
        MairlError: they are of another size, or not finite.
    """
    flatten = "mairl.envs.flatten_obs makes them of what an environment gives"
    hint = f"; {flatten}" if "obs" in name else ""
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise MairlError(
            f"{name} is a {type(values).__name__}; {env_id} has {size} numbers in one{hint}"
        ) from error
    batched = array.ndim > 1 and array.size == len(array) * size
    if array.size == 0 or (not batched and array.size != size):
        raise MairlError(
            f"{name} has shape {array.shape}; {env_id} has {size} numbers in one: "
            f"give [{size}], or [n, {size}] for n of them{hint}"
        )
    if not np.isfinite(array).all():
        raise MairlError(f"{name} holds NaN or infinity; look where it comes from")
    return array.reshape(-1, size), not batched


def layers(arrays: dict[str, np.ndarray], name: str) -> Layers:
    """The layers of the network called ``name``, first to last; none if there is no such one."""
    count = sum(key.startswith(f"{name}.layers.") for key in arrays) // 2
    prefixes = [f"{name}.layers.{i}" for i in range(count)]
    return [(arrays[f"{prefix}.weight"], arrays[f"{prefix}.bias"]) for prefix in prefixes]


def check_layers(found: Layers, name: str, in_size: int, out_size: int) -> None:
    """Raises ValueError where layers do not lead from ``in_size`` to ``out_size`` numbers."""
    size = in_size
    for weight, bias in found:
        if weight.ndim != 2 or bias.shape != weight.shape[1:] or len(weight) != size:
            raise ValueError(f"{name} has layers of shapes {[w.shape for w, _ in found]}")
        size = weight.shape[1]
    if not found or size != out_size:
        raise ValueError(f"{name} gives {size} numbers from {in_size}, expected {out_size}")


def check_scale(arrays: dict[str, np.ndarray], spec: EnvSpec) -> None:
    """Raises ValueError where an array is not finite or the normalizer is another's."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
    for name in ("normalizer.mean", "normalizer.std"):
        if arrays[name].shape != (spec.obs_size,):
            raise ValueError(f"{name} has shape {arrays[name].shape}")
    if not (arrays["normalizer.std"] > 0).all():
        raise ValueError("normalizer.std is not above zero")


def _checked(
    arrays: dict[str, np.ndarray], spec: EnvSpec, form: RewardForm
) -> dict[str, np.ndarray]:
    check_scale(arrays, spec)
    in_size = spec.obs_size + (0 if form.state_only else spec.action_size)
    check_layers(layers(arrays, "reward.reward"), "reward.reward", in_size, 1)
    if potential := layers(arrays, "reward.potential"):
        check_layers(potential, "reward.potential", spec.obs_size, 1)
    for field in dataclasses.fields(form):
        value = getattr(form, field.name)
        if (field.name, value) != ("bound", None) and not np.isfinite(value):
            raise ValueError(f"{field.name} is {value}")
    if not 0.0 < form.gamma < 1.0 or (form.bound is not None and form.bound <= 0.0):
        raise ValueError(f"gamma is {form.gamma} and bound {form.bound}")
    return arrays


def _network(found: Layers, x: np.ndarray) -> np.ndarray:
    for weight, bias in found[:-1]:
        x = np.tanh(x @ weight + bias)
    weight, bias = found[-1]
    return (x @ weight + bias)[:, 0]


def _unbatched(values: np.ndarray, single: bool) -> np.ndarray:
    return np.asarray(values[0] if single else values)
