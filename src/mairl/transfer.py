"""``mairl transfer``: what a run has learned to want, pursued in another environment.

The reward's g is read from the run and frozen; the target's dynamics, critics and policy are
learned afresh by the same machinery, in the same kind of run directory (``training``).
"""

import dataclasses
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import jax
import numpy as np
import tyro
from rich.console import Console

from mairl import demos as demonstrations
from mairl import envs, independent, rundir
from mairl.algorithms import Settings, find
from mairl.algorithms.config import MAIRLConfig, RewardConfig
from mairl.algorithms.transfer import PRESETS, Transfer, TransferSettings, WarmStart
from mairl.compilation import use_compilation_cache
from mairl.demos import Demonstrations, ExpertData
from mairl.demos.data import shipped
from mairl.job import Job, Source, check_counts, check_settings, claim
from mairl.learned_reward import LearnedReward
from mairl.learner import Learner, stream_key
from mairl.model import from_dict, read_parts, read_state
from mairl.rundir import RunDirectory
from mairl.training import Run, run
from mairl.types import EnvSpec, MairlError

DEFAULT = PRESETS["default"]


@dataclass(frozen=True)
class TransferConfig:
    """What a transfer does."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory whose reward is used."""
    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID")]
    """The target: a Gymnasium id, of the same observations and kind of actions."""
    learner: Literal["mairl", "sb3"] = "mairl"
    """Who learns the new policy: this library, or Stable-Baselines3's SAC (DQN where actions are
    discrete) at settings of its own, for which `pip install 'mairl[sb3]'` is needed."""
    warm_start: bool = False
    """Go on with the run's policy, critics and model, and with its settings where they are left
    at their defaults, instead of beginning afresh; the policy takes the first steps."""
    steps: int = 30_000
    """Environment steps to take, random ones at the start included."""
    seed: int = 0
    """Everything random follows from it."""
    out: str | None = None
    """Run directory; None: runs/<environment>-transfer-s<seed>."""
    resume: bool = False
    """Go on with the run in the run directory."""
    evaluations: int = 20
    """How often to evaluate, evenly over the steps."""
    eval_episodes: int = 5
    """Episodes of an evaluation; the final one has 20."""
    algo: Annotated[TransferSettings, tyro.conf.arg(name="")] = DEFAULT
    """The algorithm's settings. What the reward is and how it is bounded is the run's; so are the
    discount and the policy's horizon where they are None, and, with --warm-start, all that is left
    at its default."""

    verb: ClassVar[str] = "transfer"
    algorithm: ClassVar[str] = "transfer"
    preset: ClassVar[str] = "default"

    @property
    def path(self) -> Path:
        """The run directory."""
        name = re.sub(r"[/:?]", "-", self.env_id)
        return Path(self.out or f"runs/{name}-transfer-s{self.seed}")


def transfer(
    config: TransferConfig, *, console: Console | None = None, started: float | None = None
) -> Run:
    """Learn a policy in ``config.env_id`` by the reward of ``config.run``.

    ``console`` and ``started`` are as for :func:`mairl.train`.

    Raises:
        MairlError, Diverged, Interrupted: as :func:`mairl.train`; also a run that is not there,
            unfit, or of other spaces than the target's.
    """
    started = time.perf_counter() if started is None else started
    console = console or Console()
    use_compilation_cache()
    job = check(config)
    assert job.source is not None
    for warning in job.source.description["warnings"]:
        console.print(f"! {warning}")
    return (run if config.learner == "mairl" else independent.run)(job, console, started)


def check(config: TransferConfig) -> Job:
    """Load and check all that a transfer needs, and claim its directory.

    Raises:
        MairlError: whatever a user can have got wrong, with the remedy.
    """
    if config.learner == "sb3":
        _check_independent(config)
    if config.algo.reward != DEFAULT.reward:
        raise MairlError("the reward of a transfer is the run's: leave out --reward.*")
    if config.algo.patience:
        raise MairlError("a transfer leaves no episode early: leave out --patience")
    if config.algo.policy.cloning:
        raise MairlError("there is nothing to clone in a transfer: leave out --policy.cloning")
    directory = RunDirectory(config.run)
    origin = origin_of(directory)
    reward = LearnedReward.load(directory.path)
    spec, module = reward.spec, reward.module
    parts = read_parts(directory.policy, "policy", "normalizer").parts
    target = envs.make_spec(config.env_id)
    _check_spaces(spec, target, config.run)
    demos, expert = _demonstrations(origin, spec)
    algo: Any = dataclasses.replace(config.algo, reward=_reward_settings(reward, config))
    algo = _as_learned(algo, reward.form.gamma, origin)
    warm = first = None
    if config.warm_start:
        source = _source_settings(origin, config.run)
        algo = _warm_settings(algo, source)
        if not directory.checkpoints.is_dir():
            raise MairlError(
                "--warm-start goes on from the run's newest checkpoint, and "
                f"{directory.checkpoints} is not there: copy the whole run directory, or leave "
                "the option out"
            )
        by = find(origin.get("algorithm", "mairl"))
        learned, _ = read_state(directory.checkpoints, by, cast(Settings, source), spec)
        warm = WarmStart(learned.params, learned.target_value, learned.delta_scale)
        # Random steps would have all of it learn about falling first.
        first = _explorer(parts, config.seed)
    settings: Any = dataclasses.replace(config, algo=algo)
    learner: Any
    if config.learner == "sb3":
        learner = independent.Independent(directory.path, target, config.steps, config.seed)
    else:
        check_settings(settings)
        algo.check()
        method: Any = Transfer(module, reward.normalizer, warm)
        learner = Learner(method, algo, target, expert, config.steps, config.seed, first)
    description = {
        "run": config.run,
        "env_id": spec.env_id,
        "env_steps": origin["steps"],
        "seed": origin["seed"],
        "state_only": module.state_only,
        "warm_start": config.warm_start,
        "warnings": _warnings(module.state_only, config.run),
    }
    # The run may be moved, its reward may not change: by its hash, not by its name.
    document = rundir.describe(
        settings,
        {
            "source": demos.source,
            "sha256": demos.sha256,
            "reward_sha256": reward.meta["sha256"],
        },
    )
    document["config"].pop("run")
    if config.learner == "sb3":
        document["config"]["algo"] = learner.settings
    document["command"] = rundir.command(config)
    demos = dataclasses.replace(demos, expert_return=_expert_return(target))
    source = Source(_policy(parts), description)
    out = RunDirectory(config.path)
    return claim(Job(settings, target, demos, expert, learner, out, document, source))


def _check_independent(config: TransferConfig) -> None:
    """What holds of ``--learner sb3``."""
    check_counts(config)
    for wrong, what, remedy in (
        (config.algo != DEFAULT, "has settings of its own", "leave out the algorithm's"),
        (config.warm_start, "begins with fresh networks", "leave out --warm-start"),
        (config.resume, "cannot go on with a run", "leave out --resume, and give another --out"),
    ):
        if wrong:
            raise MairlError(f"--learner sb3 {what}: {remedy}, or take --learner mairl")
    independent.check_installed()


def origin_of(directory: RunDirectory) -> dict[str, Any]:
    """The settings of a run that has learned a reward.

    Raises:
        MairlError: it is not there, or not a run of ``mairl train``.
    """
    if not directory.path.is_dir():
        raise MairlError(f"there is no run directory {directory.path}; check the path")
    origin = rundir.read_json(directory.config).get("config", {})
    if not {"env_id", "demos", "episodes", "every", "seed", "steps", "algo"} <= set(origin):
        raise MairlError(
            f"{directory.config} is not that of a run of mairl train; give the run that learned "
            "the reward"
        )
    return origin


def _check_spaces(source: EnvSpec, target: EnvSpec, run: str) -> None:
    for name, what in (
        ("obs_size", "observation size"),
        ("action_size", "action size"),
        ("discrete", "discrete actions"),
    ):
        there, here = getattr(source, name), getattr(target, name)
        if there != here:
            raise MairlError(
                f"the reward of {run} was learned in {source.env_id} ({what}: {there}), but "
                f"{target.env_id} has {here}; choose a target with the same observations and "
                "actions"
            )


def _demonstrations(origin: dict[str, Any], spec: EnvSpec) -> tuple[Demonstrations, ExpertData]:
    """What the source learned from: to clone for comparison, and how its expert's episodes end."""
    demos = demonstrations.find_demonstrations(origin["demos"], spec)
    return demos, demonstrations.subsample(
        demos, origin["episodes"], origin["every"], origin["seed"]
    )


def _reward_settings(reward: LearnedReward, config: TransferConfig) -> RewardConfig:
    """What the reward is and how its own policy was given it."""
    form = reward.form
    if form.bound is None:
        raise MairlError(
            f"the reward of {config.run} is exact, with a worth of its own for every end, which a "
            "transfer does not know; take a run of another --algo"
        )
    return dataclasses.replace(
        DEFAULT.reward,
        hidden=tuple(layer.bias.shape[0] for layer in reward.module.reward.layers[:-1]),
        state_only=form.state_only,
        shaping=False,
        bound=form.bound,
        softplus=form.softplus,
    )


def _as_learned(algo: MAIRLConfig, gamma: float, origin: dict[str, Any]) -> MAIRLConfig:
    """With the source's discount and horizon for what is None.

    No steps through the model where the source had none, or no critics at their end.
    """
    horizon = algo.policy.horizon
    if horizon is None:
        source = origin["algo"]
        critics = source.get("value", {}).get("steps", 0)
        horizon = source.get("policy", {}).get("horizon", 0) if critics else 0
    policy = dataclasses.replace(algo.policy, horizon=horizon)
    return dataclasses.replace(algo, gamma=algo.gamma or gamma, policy=policy)


def _source_settings(origin: dict[str, Any], run: str) -> MAIRLConfig:
    """Those of a source that has learned a model and critics."""
    name = origin.get("algorithm", "mairl")
    source = from_dict(type(find(name).PRESETS["default"]), origin["algo"])
    if not isinstance(source, MAIRLConfig) or not source.value.steps:
        raise MairlError(
            f"--warm-start goes on with the run's model and critics, and {run} (--algo {name}) has "
            "learned none: leave it out"
        )
    return source


def _warm_settings(algo: MAIRLConfig, source: MAIRLConfig) -> MAIRLConfig:
    """What is left at its default is as the source had it, so that learning goes on as it was.

    But the reward, and what belongs to demonstrations.
    """
    merged = _merge(algo, DEFAULT, source)
    return dataclasses.replace(
        merged,
        patience=algo.patience,
        reward=algo.reward,
        policy=dataclasses.replace(merged.policy, cloning=0.0),
    )


def _merge(chosen: Any, default: Any, source: Any) -> Any:
    """Each (nested) setting as it was chosen, or where that is the default the source's."""
    if not dataclasses.is_dataclass(chosen):
        return source if chosen == default else chosen
    names = [field.name for field in dataclasses.fields(chosen)]
    merged = {n: _merge(*(getattr(x, n) for x in (chosen, default, source))) for n in names}
    return dataclasses.replace(chosen, **merged)  # pyright: ignore[reportArgumentType]


def _expert_return(target: EnvSpec) -> float | None:
    """That of the target's own expert, where demonstrations of it are shipped."""
    if target.env_id.rpartition(":")[2] not in shipped():
        return None
    return demonstrations.find_demonstrations(None, target).expert_return


def _policy(parts: dict[str, Any]) -> Any:
    mode = jax.jit(lambda obs: parts["policy"].mode(parts["normalizer"].normalize(obs)))
    return lambda obs, _: np.asarray(mode(obs))


def _explorer(parts: dict[str, Any], seed: int) -> Any:
    sample = jax.jit(
        lambda obs, key: parts["policy"].sample(parts["normalizer"].normalize(obs), key)[0]
    )
    return lambda obs, count: np.asarray(sample(obs, stream_key(seed, "first", count)))


def _warnings(state_only: bool, run: str) -> list[str]:
    if state_only:
        return []
    return [
        f"The reward of {run} sees actions too, so it may hold on to how the source's dynamics "
        "had to be steered. A reward made to be transferred comes from mairl train ... "
        "--preset transferable."
    ]
