"""Variance, bias and direction of policy-gradient estimators, at a checkpoint of a run.

Every estimator of ``estimators`` is computed from the same start states in batches of independent
trajectories. All figures follow from inner products of the batches' gradients; squared norms of
means leave out products of a batch with itself, which makes them unbiased: noise is not taken
for bias. Errors are standard errors, by the jackknife over the batches.

The reference is the likelihood-ratio gradient in the true environment, from many more
trajectories of their own. To have less noise they start several times in every start state, and
have Q, and each other, as baselines (``estimators.same_start``). Where the environment cannot be
put back to a state, it is that of the learned model; bias against the environment is then not
measured.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mairl import envs, rundir
from mairl import estimators as e
from mairl.algorithms import find
from mairl.algorithms import mairl as algorithm
from mairl.compilation import use_compilation_cache
from mairl.envs.restoring import Simulator, State
from mairl.estimators import Problem, Sample, SeenReward
from mairl.model import from_dict, read_state
from mairl.moments import compare, norm_of, relate
from mairl.normalizer import Normalizer
from mairl.policies import Policy
from mairl.rundir import RunDirectory
from mairl.types import EnvSpec, MairlError


@dataclass(frozen=True)
class Effort:
    """How much is sampled: trajectories of each estimator and of the reference, in batches."""

    horizons: tuple[int, ...] = (1, 3, 5, 10)
    """Steps before the value; 0 is there too, where the run has a value."""
    trajectories: int = 2048
    """Trajectories for each estimator."""
    reference: int = 16384
    """Trajectories for the reference."""
    batch_size: int = 64
    """Trajectories of one gradient."""
    starts: int = 256
    """Start states, drawn from those that the policy visits."""
    seed: int = 0

    @property
    def batches(self) -> int:
        """Gradients of each estimator."""
        return -(-self.trajectories // self.batch_size)

    @property
    def sweeps(self) -> int:
        """Passes of the reference over all start states."""
        return -(-self.reference // (SAME_START * self.starts))

    def check(self, members: int) -> None:
        """Raise a MairlError for what cannot be, given the number of models."""
        if not self.horizons or min(self.horizons) < 1:
            raise MairlError(f"--horizons {self.horizons}: give one or more, of 1 or more steps")
        size, sweep = self.batch_size, self.batch_size // SAME_START
        if size < 2 * SAME_START or size % SAME_START or size % members:
            raise MairlError(
                f"--batch-size is {size}; give {2 * SAME_START} or more, a multiple of {SAME_START}"
                f" and of the {members} models, which share each batch"
            )
        if self.starts < sweep or self.starts % sweep:
            raise MairlError(
                f"--starts is {self.starts}; give a multiple of {sweep}, a part of --batch-size"
            )
        least = {"trajectories": 8 * size, "reference": 8 * SAME_START * self.starts}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise MairlError(
                    f"--{name} is {getattr(self, name)}; to tell a variance takes 8 independent "
                    f"gradients, {number} trajectories, or a smaller --batch-size or --starts"
                )


SAME_START = 4
"""Trajectories of the reference that start in one state and are each other's baselines."""


class Snapshot(NamedTuple):
    """A run as its newest checkpoint has it. ``act(obs, key)``: the policy's inside actions."""

    spec: EnvSpec
    policy: Policy
    problem: Problem
    normalizer: Normalizer
    act: Callable[[np.ndarray, Any], np.ndarray]
    about: dict[str, Any]


def load_snapshot(run: str | Path) -> Snapshot:
    """What is measured: the newest checkpoint of a run of ``mairl train``.

    Raises:
        MairlError: there is none, or its algorithm learns no model.
    """
    directory = RunDirectory(run)
    if not directory.config.exists():
        raise MairlError(f"there is no run in {run}; check the path")
    saved = rundir.read_json(directory.config)
    settings = saved.get("config", {})
    name, env_id = settings.get("algorithm"), settings.get("env_id")
    if name is None:
        raise MairlError(f"{run} is not a run of mairl train; give one of those")
    found = find(name)
    if not isinstance(found.PRESETS["default"], algorithm.MAIRLConfig):
        raise MairlError(
            f"{run} was learned by --algo {name}, without a model to differentiate through; give "
            "a run of --algo mairl or mgail"
        )
    use_compilation_cache()
    spec = envs.make_spec(env_id)
    try:
        config = from_dict(type(found.PRESETS["default"]), settings["algo"])
    except (KeyError, TypeError, ValueError) as error:
        raise MairlError(
            f"{directory.config} does not describe a run of this version ({error})"
        ) from error
    state, meta = read_state(directory.checkpoints, found, config, spec)
    about = {
        **{k: settings[k] for k in ("env_id", "algorithm", "preset", "seed")},
        "env_steps": meta["learner"]["env_steps"],
    }
    return _snapshot(config, spec, state, about)


def _snapshot(config: Any, spec: EnvSpec, state: algorithm.State, about: Any) -> Snapshot:
    # For what an end is worth, and the reward as the policy's loss sees it.
    step = algorithm.Step(config, spec, state, None, None, 0.0)
    params = state.params
    bound, softplus, live, ended = step.bounded
    problem = Problem(
        reward=SeenReward(params.reward, live, ended, bound, softplus, config.gamma),
        value=state.target_value if config.value.steps else None,
        dynamics=params.dynamics,
        delta_scale=state.delta_scale,
        gamma=config.gamma,
    )
    act = jax.jit(lambda p, n, obs, key: p.scored(n.normalize(obs), key)[0])
    return Snapshot(
        spec,
        params.policy,
        problem,
        state.normalizer,
        lambda obs, key: np.asarray(act(params.policy, state.normalizer, obs, key)),
        about,
    )


def measure(
    snapshot: Snapshot, effort: Effort, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Compare the estimators; the answer is ready for JSON, ``docs/variance.md`` explains it.

    Raises:
        MairlError: settings that cannot be, or an environment that fails.
    """
    effort.check(snapshot.problem.dynamics.num_members)
    keys = algorithm.split(jax.random.key(effort.seed), "visit", "estimators", "reference")
    rng = np.random.default_rng(effort.seed)
    with Simulator(snapshot.spec, effort.batch_size) as simulator:
        say("Visiting start states")
        visits = simulator.visit(_acting(snapshot, keys["visit"]), 4 * effort.starts, effort.seed)
        chosen = rng.choice(len(visits), effort.starts, replace=False)
        starts = [visits[i] for i in chosen]
        real = simulator.restorable(starts)
        if not real:
            say("The environment cannot be put back to a state: measuring in the model alone")
        source = _Source(snapshot, simulator if real else None, max(effort.horizons))
        snapshots = [visit.snapshot for visit in starts]
        batches, sweeps = effort.batches, effort.sweeps
        drawn = [rng.integers(len(starts), size=effort.batch_size) for _ in range(batches)]
        each = np.repeat(np.arange(len(starts)), SAME_START).reshape(-1, effort.batch_size)
        say("Following the policy from them")
        estimated = source.batches(snapshots, drawn, keys["estimators"])
        say("The same for the reference")
        referred = source.batches(snapshots, [*each] * sweeps, keys["reference"])
    horizons = []
    # Without a value nothing is asked at horizon 0.
    first = (0,) if snapshot.problem.value is not None else ()
    for horizon in (*first, *sorted(set(effort.horizons))):
        say(f"Horizon {horizon}: gradients")
        horizons.append(_at(snapshot, horizon, estimated, referred, source, sweeps))
    return {
        **snapshot.about,
        "reference_dynamics": "environment" if real else "model",
        "policy_parameters": ravel_pytree(snapshot.policy)[0].size,
        "gamma": snapshot.problem.gamma,
        "trajectories": batches * effort.batch_size,
        "reference_trajectories": sweeps * SAME_START * effort.starts,
        "batch_size": effort.batch_size,
        "starts": effort.starts,
        "measured_with_seed": effort.seed,
        "seconds_per_env_step": source.seconds_per_step,
        "horizons": horizons,
        "versions": rundir.versions(),
    }


class Batch(NamedTuple):
    """Start observations ``[batch, obs]``, what follows them (None: not restorable), a key."""

    obs: jax.Array
    real: Sample | None
    imagined: Sample
    key: jax.Array


class _Source:
    """Makes batches, and counts what the environment costs in CPU seconds."""

    def __init__(self, snapshot: Snapshot, simulator: Simulator | None, horizon: int):
        self._snapshot, self._simulator, self._horizon = snapshot, simulator, horizon
        self._seconds, self._steps = 0.0, 0
        self._imagine = jax.jit(partial(e.sample_imagined, horizon=horizon))

    @property
    def real(self) -> bool:
        """The environment can be put back."""
        return self._simulator is not None

    @property
    def seconds_per_step(self) -> float:
        """CPU seconds of one environment step, the policy's action included."""
        return self._seconds / max(self._steps, 1)

    def batches(self, starts: list[State], drawn: list[np.ndarray], key: jax.Array) -> list[Batch]:
        """A batch from the starts of each of the lists of numbers."""
        keys = jax.random.split(key, len(drawn))
        return [self._batch([starts[i] for i in d], k) for d, k in zip(drawn, keys, strict=True)]

    def _batch(self, starts: list[State], key: jax.Array) -> Batch:
        keys = algorithm.split(key, "real", "imagined", "estimate")
        obs = self._snapshot.normalizer.normalize(jnp.asarray(np.stack([s.obs for s in starts])))
        real = self._follow(self._simulator, starts, keys["real"]) if self._simulator else None
        policy, problem = self._snapshot.policy, self._snapshot.problem
        imagined = self._imagine(policy, problem, obs, key=keys["imagined"])
        return Batch(obs, real, imagined, keys["estimate"])

    def _follow(self, simulator: Simulator, starts: list[State], key: jax.Array) -> Sample:
        keys = jax.random.split(key, self._horizon)
        act = lambda obs, t: self._snapshot.act(obs, jax.random.clone(keys[t]))  # noqa: E731
        begun = time.process_time()
        steps, mask = simulator.branch(act, starts, self._horizon)
        self._seconds += time.process_time() - begun
        self._steps += int(mask.sum())
        steps = self._snapshot.normalizer.transition(jax.tree.map(jnp.asarray, steps))
        return e.sample_real(steps, jnp.asarray(mask), keys)


def _acting(snapshot: Snapshot, key: jax.Array) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda obs, count: snapshot.act(obs, jax.random.fold_in(key, count))


Surrogate = Callable[[Policy, Problem, Batch], jax.Array]


def _surrogates(horizon: int, critic: bool, real: bool) -> dict[str, Surrogate]:
    """The estimators at a horizon by name; "reference" is what the others are held against."""

    def ratio(baseline: e.Baseline, real: bool) -> Surrogate:
        def surrogate(policy: Policy, problem: Problem, batch: Batch) -> jax.Array:
            sample = batch.real if real and batch.real is not None else batch.imagined
            key = jax.random.clone(batch.key)
            return e.likelihood_ratio(policy, problem, e.cut(sample, horizon), baseline, key)

        return surrogate

    def path(steps: int) -> Surrogate:
        return lambda policy, problem, batch: e.imagined_path(
            policy, problem, batch.obs, steps, jax.random.clone(batch.key)
        )

    def anchored(policy: Policy, problem: Problem, batch: Batch) -> jax.Array:
        assert batch.real is not None
        sample = e.cut(batch.real, horizon)
        return e.anchored_path(policy, problem, sample, jax.random.clone(batch.key))

    found = {
        "likelihood_ratio": ratio(e.no_baseline, real),
        "leave_one_out": ratio(e.leave_one_out, real),
    }
    if critic:
        found["value_baseline"] = ratio(e.value_baseline, real)
        found["action_value_baseline"] = ratio(e.action_value_baseline, real)
    if horizon and real:
        best = e.value_baseline if critic else e.leave_one_out
        found |= {"in_the_model": ratio(best, False), "anchored": anchored}
    if horizon:
        found["imagined"] = path(horizon)
    if critic:
        found["value"] = path(0)
    return found | {"reference": ratio(e.same_start(SAME_START), real)}


REAL_STEPS = (
    *("likelihood_ratio", "leave_one_out", "value_baseline", "action_value_baseline"),
    "anchored",
)
"""Estimators that take steps of the environment, where it can be put back."""


def _at(
    snapshot: Snapshot,
    horizon: int,
    estimated: list[Batch],
    referred: list[Batch],
    source: _Source,
    sweeps: int,
) -> dict[str, Any]:
    """All figures at one horizon."""
    critic, size = snapshot.problem.value is not None, len(estimated[0].obs)
    surrogates = _surrogates(horizon, critic, source.real)
    reference, _ = gradients(surrogates.pop("reference"), snapshot, referred)
    # Only whole sweeps over the start states are alike.
    reference = reference.reshape(sweeps, -1, reference.shape[-1]).mean(1)
    env_steps = _steps_taken(estimated, horizon) / size
    found: dict[str, Any] = {}
    for name, surrogate in surrogates.items():
        rows, seconds = gradients(surrogate, snapshot, estimated)
        steps = env_steps if name in REAL_STEPS else 0.0
        found[name] = {
            **compare(rows, reference, size),
            "env_steps_per_trajectory": steps,
            "gradient_seconds_per_trajectory": seconds / size,
            "seconds_per_trajectory": seconds / size + steps * source.seconds_per_step,
        }
    relate(found, "imagined" if horizon else "value")
    return {"horizon": horizon, "reference": norm_of(reference), "estimators": found}


def _steps_taken(batches: list[Batch], horizon: int) -> float:
    """Mean number of environment steps of a batch."""
    masks = [np.asarray(b.real.rollout.alive)[:horizon] for b in batches if b.real is not None]
    return float(np.mean([mask.sum() for mask in masks])) if masks else 0.0


def gradients(
    surrogate: Surrogate, snapshot: Snapshot, batches: list[Batch]
) -> tuple[np.ndarray, float]:
    """Each batch's gradient ``[batches, parameters]``, and the CPU seconds of one."""
    gradient = jax.jit(lambda *arguments: ravel_pytree(jax.grad(surrogate)(*arguments))[0])
    policy, problem = snapshot.policy, snapshot.problem
    np.asarray(gradient(policy, problem, batches[0]))  # Compiles.
    begun = time.process_time()
    rows = [np.asarray(gradient(policy, problem, batch)) for batch in batches]
    return np.stack(rows), (time.process_time() - begun) / len(batches)
