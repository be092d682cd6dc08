"""The run directory: what is in it, who may write to it, and how a run is gone on with."""

import contextlib
import dataclasses
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from mairl.checkpoint import check_config
from mairl.types import MairlError

PACKAGES = (
    *("mairl", "jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "mujoco", "minari"),
    *("stable-baselines3", "torch"),  # where there: --learner sb3
)


class RunDirectory:
    """Names of the files of one run."""

    def __init__(self, path: str | Path):
        """Touch nothing."""
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.policy = self.path / "policy"  # .safetensors and .json, both
        self.reward = self.path / "reward"
        self.dynamics = self.path / "dynamics"
        self.independent = self.path / "policy.zip"  # Stable-Baselines3's, of --learner sb3
        self.snapshots = self.path / "snapshots"  # of the reward, one for each evaluation
        self.result = self.path / "result.json"
        self.reward_scores = self.path / "reward_scores.json"
        self.variance = self.path / "variance"  # of the policy gradient, by environment step
        self.curve = self.path / "curve.png"
        self.summary = self.path / "summary.txt"

    def begin(self, document: dict[str, Any], again: str | None) -> None:
        """Make the directory and write config.json; ``again`` is the command that resumes, if any.

        Raises:
            MairlError: it holds something already, or cannot be written.
        """
        try:
            self.check_new(again)
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.config, document)
        except OSError as error:
            raise self._unwritable(error) from error

    def check_new(self, again: str | None = None) -> None:
        """Raises MairlError if the directory holds something already; ``again`` as in begin."""
        try:
            entries = self._entries()
        except OSError as error:
            raise self._unwritable(error) from error
        # Hidden files are leftovers of an atomic write that a kill cut short.
        if any(not entry.name.startswith(".") for entry in entries):
            more = f"go on with: {again}" if again and self.config.exists() else "empty it"
            raise MairlError(
                f"run directory {self.path} is not empty; choose another --out, or {more}"
            )

    def resume(self, document: dict[str, Any]) -> None:
        """Check that config.json is that of the run described by ``document``.

        Raises:
            MairlError: nothing to resume, a file that cannot be read, or other settings or
                demonstrations (each difference is named).
        """
        if not self.config.exists():
            raise MairlError(
                f"nothing to resume: there is no run in {self.path}; check --out, or leave "
                "--resume out to begin one"
            )
        saved = read_json(self.config)
        for part in ("config", "demos"):
            if not isinstance(saved.get(part), dict):
                raise MairlError(
                    f"{self.config} lacks {part!r}; restore it from a copy, or begin a new run"
                )
        steps = saved["config"].get("steps"), document["config"]["steps"]
        if steps[0] != steps[1]:
            raise MairlError(
                f"{self.path} was begun with --steps {steps[0]}, not {steps[1]}: learning rates "
                "fall with the share of the steps done, so another number makes it another run; "
                f"resume with --steps {steps[0]}, or begin a new one"
            )
        check_config(*({p: d[p] for p in ("config", "demos")} for d in (saved, document)))
        try:
            write_json(self.path / ".writable", {})
            (self.path / ".writable").unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else runs in it meanwhile, in this process or another.

        Raises:
            MairlError: somebody does.
        """
        with self.config.open("ab") as lock:  # Nothing is appended; closing unlocks.
            if not lock_file(lock, wait=False):
                raise MairlError(
                    f"another process is running in {self.path}: wait for it, stop it, or choose "
                    "another --out"
                )
            yield

    def _entries(self) -> list[Path]:
        return list(self.path.iterdir()) if self.path.exists() else []

    def _unwritable(self, error: OSError) -> MairlError:
        return MairlError(
            f"run directory {self.path} cannot be used: {error.strerror or error}; choose "
            "another --out"
        )


def describe(config: Any, demos: dict[str, Any]) -> dict[str, Any]:
    """What config.json holds: settings, demonstrations, command, versions, machine.

    ``out`` and ``resume`` say where and how, not what: a run may be moved.
    """
    settings = dataclasses.asdict(config)
    settings = {k: v for k, v in settings.items() if k not in ("out", "resume")}
    return {
        "config": json.loads(json.dumps(settings)),
        "demos": demos,
        "command": command(config),
        "versions": versions(),
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def command(config: Any) -> str:
    """The command of this configuration; of options only what differs from defaults."""
    positional = [
        getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    names = {field.name for field in dataclasses.fields(config)}
    decided = {name: getattr(config, name) for name in _DECIDE_DEFAULTS if name in names}
    plain = type(config)(*positional, **decided)
    return shlex.join(["mairl", config.verb, *positional, *_options(config, plain, "")])


_DECIDE_DEFAULTS = {"algorithm": ("--algo", "mairl"), "preset": ("--preset", "default")}


def _options(config: Any, plain: Any, prefix: str) -> list[str]:
    options: list[str] = []
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), getattr(plain, field.name)
        name = f"{prefix}{field.name}".replace("_", "-")
        if dataclasses.is_dataclass(value):
            inner = "" if field.name == "algo" else f"{name}."
            options += _options(value, default, inner)
        elif field.name in _DECIDE_DEFAULTS:
            option, usual = _DECIDE_DEFAULTS[field.name]
            options += [option, value] if value != usual else []
        elif value == default:
            continue
        elif isinstance(value, bool):
            options.append(f"--{name}" if value else f"--{prefix}no-{name.removeprefix(prefix)}")
        elif isinstance(value, tuple):
            options += [f"--{name}", *map(str, value)]
        else:
            options += [f"--{name}", str(value)]
    return options


def lock_file(file: IO[bytes], *, wait: bool) -> bool:
    """Lock an open file until it is closed everywhere; False if somebody else has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def write_json(path: Path, document: Any) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        MairlError: it cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise MairlError(
            f"{path} cannot be read: {error}; restore it from a copy, or begin a new run"
        ) from error
    return document


def peak_memory_bytes() -> int | None:
    """The most memory this process has held, where the system tells."""
    try:
        # Not getrusage where this is: that keeps what the program which started this one held.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
