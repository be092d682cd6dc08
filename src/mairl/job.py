"""What a run is asked to do, and every check of it that can be made before computing."""

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
import tyro

from mairl import demos as demonstrations
from mairl import envs, rundir
from mairl.algorithms import find
from mairl.algorithms.config import PRESETS, MAIRLConfig
from mairl.demos import Demonstrations, ExpertData
from mairl.learner import Learner
from mairl.rundir import RunDirectory
from mairl.types import EnvSpec, MairlError

AnySettings = TypeVar("AnySettings")


@dataclass(frozen=True)
class TrainConfig(Generic[AnySettings]):
    """What a run does."""

    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID")]
    """A registered Gymnasium id, such as Hopper-v5 or 'mairl/Hopper-v0?gravity=0.5'."""
    demos: str | None = None
    """Demonstrations: a shipped name, a Minari id or the path of an .npz file; None: those
    shipped for the environment."""
    episodes: int | None = None
    """Demonstrated episodes to learn from, drawn by the seed; None: all there are."""
    every: int = 1
    """Keep every k-th transition of each episode, from a random offset."""
    steps: int = 30_000
    """Environment steps to take, random ones at the start included."""
    seed: int = 0
    """Everything random follows from it."""
    out: str | None = None
    """Run directory; None: runs/<environment>-<algorithm or preset>-s<seed>."""
    resume: bool = False
    """Go on with the run in the run directory."""
    algorithm: Annotated[str, tyro.conf.arg(name="algo")] = "mairl"
    """What learns: mairl, bc, gail, airl, gcl, mgail or maxent. Says which settings follow."""
    preset: str = "default"
    """Whose settings. Of mairl there are default, what learns best here; transferable, what
    learns a reward to carry elsewhere; and paper, the paper's. The others have default."""
    evaluations: int = 20
    """How often to evaluate, evenly over the steps."""
    eval_episodes: int = 5
    """Episodes of an evaluation; the final one has 20."""
    algo: Annotated[AnySettings, tyro.conf.arg(name="")] = PRESETS["default"]  # pyright: ignore[reportAssignmentType]
    """The algorithm's settings; left alone, they are the preset's."""

    def __post_init__(self):
        # The very object: settings that only equal the default's were asked for.
        if self.algo is PRESETS["default"]:
            presets = find(self.algorithm).PRESETS
            object.__setattr__(self, "algo", presets.get(self.preset, presets["default"]))

    verb: ClassVar[str] = "train"

    @property
    def path(self) -> Path:
        """The run directory."""
        name = re.sub(r"[/:?]", "-", self.env_id)
        kind = self.preset if self.algorithm == "mairl" else self.algorithm
        return Path(self.out or f"runs/{name}-{kind}-s{self.seed}")


@dataclass(frozen=True)
class Source:
    """Where a transferred reward comes from.

    ``act`` is the source's policy on observations in the environment's units; ``description``
    goes into result.json.
    """

    act: Callable[[np.ndarray, int], np.ndarray]
    description: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A checked configuration (of a verb that runs), with what was loaded to check it.

    ``learner`` is a :class:`mairl.learner.Learner`, or ``independent.Independent``, which cannot
    go on with a run.
    """

    config: Any
    spec: EnvSpec
    demos: Demonstrations
    expert: ExpertData
    learner: Any
    directory: RunDirectory
    document: dict[str, Any]
    source: "Source | None" = None

    @property
    def again(self) -> str | None:
        """The command that goes on with the run; None where nothing can."""
        if not isinstance(self.learner, Learner):
            return None
        begun = self.document["command"]
        return begun if self.config.resume else f"{begun} --resume"


def check(config: TrainConfig) -> Job:
    """Load and check all that a run needs, and claim its directory.

    Raises:
        MairlError: whatever a user can have got wrong, with the remedy.
    """
    _check_algorithm(config)
    check_settings(config)
    spec = envs.make_spec(config.env_id)
    demos = demonstrations.find_demonstrations(config.demos, spec)
    expert = demonstrations.subsample(demos, config.episodes, config.every, config.seed)
    algo: Any = config.algo
    if isinstance(algo, MAIRLConfig):
        algo = algo.settled(spec, len(expert.transition.obs), expert.ends)
    algo.check()
    settings = dataclasses.replace(config, algo=algo)
    learner = Learner(find(config.algorithm), algo, spec, expert, config.steps, config.seed)
    document = rundir.describe(settings, {"source": demos.source, "sha256": demos.sha256})
    document["command"] = rundir.command(config)
    directory = RunDirectory(config.path)
    return claim(Job(settings, spec, demos, expert, learner, directory, document))


def claim(job: Job) -> Job:
    """Take the run directory, new or resumed.

    Raises:
        MairlError: as ``RunDirectory.begin`` and ``RunDirectory.resume``.
    """
    if job.config.resume:
        job.directory.resume(job.document)
    else:
        job.directory.begin(job.document, job.again)
    return job


def _check_algorithm(config: TrainConfig) -> None:
    presets = find(config.algorithm).PRESETS
    if config.preset not in presets:
        raise MairlError(
            f"--preset {config.preset} is not one of {config.algorithm}'s; choose "
            f"{' or '.join(presets)}"
        )
    if type(config.algo) is not type(presets["default"]):
        raise MairlError(
            f"the settings are {type(config.algo).__name__}, but {config.algorithm} takes "
            f"{type(presets['default']).__name__}: give that, or another algorithm"
        )


def check_settings(config: Any) -> None:
    """Check seed, steps, evaluations and the algorithm's settings of a configuration.

    Raises:
        MairlError: a number that cannot be.
    """
    algo = config.algo
    _check_settings(algo)
    check_counts(config)
    random, once = algo.warmup_steps, algo.num_envs
    if algo.on_policy and config.steps < random + algo.collect_steps * once:
        raise MairlError(
            f"--steps is {config.steps}, too few for {random} random ones (--warmup-steps) and a "
            f"rollout of {algo.collect_steps} (--collect-steps) in each of {once} environments "
            "(--num-envs): raise --steps or lower those"
        )
    if config.steps < random + once:
        raise MairlError(
            f"--steps is {config.steps}, but the first {random} are random (--warmup-steps): "
            "raise --steps or lower --warmup-steps"
        )


def check_counts(config: Any) -> None:
    """Check seed and evaluations of a configuration.

    Raises:
        MairlError: a number that cannot be.
    """
    for name, least in {"seed": 0, "evaluations": 1, "eval_episodes": 1}.items():
        _check_least(f"--{name.replace('_', '-')}", getattr(config, name), least)


def _check_settings(settings: Any, prefix: str = "--") -> None:
    """What holds of any algorithm: finite numbers, sizes of at least one, nothing negative."""
    for field in dataclasses.fields(settings):
        name = f"{prefix}{field.name.replace('_', '-')}"
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            _check_settings(value, f"{name}.")
        elif isinstance(value, tuple):
            for size in value:
                _check_least(name, size, 1)
        elif value is None or isinstance(value, bool | str):
            continue
        elif not math.isfinite(value):
            raise MairlError(f"{name} is {value}; give a finite number")
        elif field.name == "gamma" and not 0.0 < value < 1.0:
            raise MairlError(f"{name} is {value}; give a number between 0 and 1")
        elif field.name == "dropout" and not 0.0 <= value < 1.0:
            raise MairlError(f"{name} is {value}; give a share below 1")
        elif field.name in _ABOVE_ZERO and value <= 0.0:
            raise MairlError(f"{name} is {value}; give a number above 0")
        elif field.name in _SHARES and not 0.0 <= value <= 1.0:
            raise MairlError(f"{name} is {value}; give a share, 0 to 1")
        elif field.name in _AT_LEAST_ONE:
            _check_least(name, value, 1)
        elif field.name != "target_entropy":
            _check_least(name, value, 0)


_AT_LEAST_ONE = (
    *("num_envs", "collect_steps", "warmup_steps", "warmup_hold", "replay_size", "batch_size"),
    *("width", "depth", "members", "candidates", "epochs", "minibatches"),
)
_ABOVE_ZERO = ("iterations", "learning_rate", "bound", "temperature")
_SHARES = ("expert_weight", "imagined", "demonstrated", "tau", "decay", "final_rate", "gae_lambda")


def _check_least(name: str, value: int | float, least: int) -> None:
    if value < least:
        raise MairlError(f"{name} is {value}; give {least} or more")
