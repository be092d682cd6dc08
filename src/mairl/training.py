"""A training run: collect, update, evaluate, checkpoint, log.

    check everything a user can get wrong
    begin (random steps, fresh networks) or resume (the newest checkpoint)
    repeat until the environment steps are used up:
        update      many gradient steps, one compiled program
        collect     a few environment steps with the policy just updated
        log, evaluate, save, where due
    final evaluation, result.json, the policy and the reward to hand on

What is learned depends on the configuration alone: keys come from (seed, stream, count), the
number of updates from the number of environment steps, nothing from the clock. A resumed run
therefore equals an uninterrupted one bit for bit, wherever the environment can be played back
to where it was (see ``Collector.restore``).

Collecting waits for the update: it takes a few percent of the time, so that stepping beside
the update would gain next to nothing and act with an older policy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.console import Console

from mairl import envs, metrics, rundir
from mairl.compilation import use_compilation_cache
from mairl.evaluate import FINAL_EPISODES, Scores
from mairl.handover import hand_on
from mairl.interrupts import Interrupted, Interrupts
from mairl.job import Job, TrainConfig, check
from mairl.learner import Diverged, Learner, stream_key
from mairl.report.alarms import alarms
from mairl.report.curve import draw
from mairl.report.progress import Progress
from mairl.report.summary import summarize
from mairl.types import MairlError

if TYPE_CHECKING:
    from mairl.model import Model

__all__ = ["Diverged", "Interrupted", "Run", "TrainConfig", "train"]

LOG_LINES = 200
SAVE_SECONDS = 30.0
TIMED = ("update", "collect", "evaluate", "save")


@dataclass(frozen=True)
class Run:
    """A finished run: its directory and what result.json says."""

    path: Path
    result: dict[str, Any]

    @cached_property
    def model(self) -> "Model":
        """The policy and the reward, as :func:`mairl.load` gives them."""
        from mairl.model import load

        return load(self.path)


def train(
    config: TrainConfig, *, console: Console | None = None, started: float | None = None
) -> Run:
    """Learn a policy and a reward from demonstrations; see :class:`TrainConfig`.

    ``console`` shows progress (standard output by default). ``started`` is the
    ``time.perf_counter()`` that start-up is counted from.

    Raises:
        MairlError: a problem the user can fix, nearly always before anything is computed.
        Diverged: NaN or infinity in learning; the last checkpoint is kept.
        Interrupted: Ctrl-C; the run was saved, and the message says how to go on.
    """
    started = time.perf_counter() if started is None else started
    use_compilation_cache()
    return run(check(config), console or Console(), started)


def run(job: Job, console: Console, started: float) -> Run:
    """Do a checked job, from its beginning or its last checkpoint (see :func:`train`)."""
    config, directory = job.config, job.directory
    if directory.result.exists():
        console.print(f"The run in {directory.path} is finished: {directory.result} says how.")
        return Run(directory.path, rundir.read_json(directory.result))
    with (
        directory.held(),
        Interrupts() as interrupts,
        envs.Collector(config.env_id, job.spec, config.seed, config.algo.num_envs) as collector,
        Progress(console, config.env_id, config.steps) as progress,
    ):
        training = _Training(job, progress, started)
        try:
            training.prepare(collector)
            while not job.learner.done:
                training.round()
                if interrupts.received is not None:
                    training.save()
                    raise Interrupted(training.stopped(), interrupts.received)
            return training.finish()
        except MairlError as error:
            again = "" if isinstance(error, Diverged) else training.stopped()
            raise type(error)(f"{error}\n{training.kept()}{again}") from error
        except KeyboardInterrupt as stop:  # The second Ctrl-C, which does not wait for a save.
            if isinstance(stop, Interrupted):
                raise
            raise Interrupted(f"{training.kept()}{training.stopped()}") from None
        finally:
            training.close()


def measure_baselines(job: Job, scores: Scores, progress: Progress) -> None:
    """Measure what the policy is shown beside."""
    progress.say("Measuring random actions")
    scores.measure_random()
    if job.source is not None:
        progress.say("Measuring the source's policy here")
        scores.measure_source(job.source.act)
    progress.say("Cloning the same demonstrations, for comparison")
    scores.measure_clone(job.expert.transition, stream_key(job.config.seed, "clone", 0))
    progress.baselines(scores.baselines)


def report(job: Job, scores: Scores, entry: dict[str, Any], wall: float) -> dict[str, Any]:
    """What result.json says whoever learns; ``entry`` is the final evaluation."""
    expert = job.expert
    return {
        "env_id": job.config.env_id,
        "algorithm": job.config.algorithm,
        "preset": job.config.preset,
        "seed": job.config.seed,
        "demos": {
            "source": job.demos.source,
            "episodes": expert.episodes,
            "every": expert.every,
            "transitions": len(expert.transition.obs),
        },
        **({} if job.source is None else {"source": job.source.description}),
        "env_steps": entry["env_steps"],
        "wall_seconds": round(wall, 2),
        **{
            name: entry[name]
            for name in ("return_mean", "return_std", "normalized_return", "returns")
        },
        **scores.baselines,
        "peak_memory_bytes": rundir.peak_memory_bytes(),
        "evaluations": scores.history,
        "versions": job.document["versions"],
        "config": job.document["config"],
        "command": job.document["command"],
    }


class _Training:
    """One process's part of a run."""

    def __init__(self, job: Job, progress: Progress, started: float):
        self._job, self._directory = job, job.directory
        self._learner: Learner = job.learner
        self._progress, self._started = progress, started
        self._scores = Scores(job.spec, job.config.seed, job.demos.expert_return)
        self._means = metrics.Means()
        self._writer: metrics.MetricsWriter | None = None
        self._lines: list[dict[str, Any]] = []
        # Of this process and those before it. "before": what they took in all.
        self._seconds: dict[str, float] = dict.fromkeys((*TIMED, "before"), 0.0)
        self._first_update: float | None = None
        self._saved: tuple[int, int] | None = None
        """Environment steps and updates of the newest checkpoint."""
        self._saved_at, self._save_took = time.perf_counter(), 0.0

    def prepare(self, collector: envs.Collector) -> None:
        """Begin, or resume where there is a checkpoint (a kill may have come before the first)."""
        env_id = self._job.config.env_id
        if self._job.spec.max_episode_steps is None:
            given = f"{env_id}{',' if '?' in env_id else '?'}max_episode_steps=1000"
            self._progress.note(
                f"{env_id} has no time limit that Gymnasium knows of: episodes that do not end by "
                f"themselves are cut off after {envs.MAX_STEPS} steps in evaluations, in training "
                f"they go on. '{given}' sets one."
            )
        lines = 0
        if self._job.config.resume and any(self._directory.checkpoints.glob("checkpoint-*")):
            self._progress.say("Going back to the last checkpoint")
            lines = self._resume(collector)
        else:
            self._progress.say("Taking the first steps, making networks")
            self._learner.begin(collector)
        self._writer = metrics.MetricsWriter(
            self._directory.metrics, self._directory.tensorboard, lines, self._learner.env_steps
        )
        self._lines = metrics.read(self._directory.metrics)
        self._progress.baselines(self._scores.baselines)
        self._progress.say("Compiling the update (kept for the next run)")

    def round(self) -> None:
        """Update, collect, and what is due after."""
        learner, config = self._learner, self._job.config
        before = learner.env_steps
        scalars = self._timed("update", learner.update)
        if self._first_update is None and learner.updates:
            self._first_update = time.perf_counter() - self._started
        ends = self._timed("collect", learner.collect)
        for each in (scalars, *({"rollout/ep_len_mean": float(end.length)} for end in ends)):
            self._means.add(each)
            self._progress.learning(learner.env_steps, each)

        def passed(times: int) -> bool:
            done, budget = learner.env_steps * times, config.steps
            return done // budget > before * times // budget

        if passed(LOG_LINES) or learner.done:
            self._log()
        # The last policy has its own evaluation, after the last update.
        evaluate = passed(config.evaluations) and learner.collecting
        if evaluate:
            self._evaluate(config.eval_episodes, final=False)
        waited = time.perf_counter() - self._saved_at
        # A large replay takes long to write: at most a twentieth of the time goes into it.
        if evaluate or learner.done or waited > max(SAVE_SECONDS, 20 * self._save_took):
            self.save()

    def finish(self) -> Run:
        """The final evaluation and everything that is handed on; result.json comes last."""
        result = self._result(self._evaluate(FINAL_EPISODES, final=True))
        draw(result, self._directory.curve)
        text = summarize(result, self._directory.path, self._alarms())
        self._directory.summary.write_text(text + "\n", encoding="utf-8")
        rundir.write_json(self._directory.result, result)
        self._progress.stop()
        self._progress.note(text)
        return Run(self._directory.path, result)

    def save(self) -> None:
        """Write a checkpoint, unless there is one of this very moment."""
        now = self._learner.env_steps, self._learner.updates
        if self._saved == now:
            return
        start = time.perf_counter()
        meta = {
            "seconds": {**self._seconds, "before": self._wall()},
            "baselines": self._scores.baselines,
            "history": self._scores.history,
            "means": self._means.sums,
            "first_update": self._first_update,
            "lines": self._writer.lines if self._writer else 0,
        }
        self._timed("save", lambda: self._learner.save(self._directory.checkpoints, meta))
        self._saved = now
        self._saved_at = time.perf_counter()
        self._save_took = self._saved_at - start

    def stopped(self) -> str:
        """How to go on from here."""
        at = f"Stopped at environment step {self._learner.env_steps} of {self._job.config.steps}"
        return f"{at}. Go on with:\n  {self._job.again}"

    def kept(self) -> str:
        """What an error leaves behind."""
        if self._saved is None:
            return "There was no checkpoint yet.\n"
        folder = self._directory.checkpoints
        return f"The checkpoint of environment step {self._saved[0]} is kept in {folder}.\n"

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            self._writer.close()

    def _resume(self, collector: envs.Collector) -> int:
        """Go back to the newest checkpoint; the lines of metrics.jsonl that it knew of."""
        meta = self._learner.resume(collector, self._directory.checkpoints)
        self._seconds, self._first_update = meta["seconds"], meta["first_update"]
        self._scores.baselines, self._scores.history = meta["baselines"], meta["history"]
        self._means = metrics.Means(meta["means"])
        self._saved = self._learner.env_steps, self._learner.updates
        notes = [*meta["warnings"], f"Resumed at environment step {self._learner.env_steps}."]
        if not meta["exact"]:
            notes.append(
                "The environment could not be put back where it was: it starts a new episode "
                "here, so results will differ from an uninterrupted run's."
            )
        if meta["versions"]["jax"] != jax.__version__:
            notes.append(
                f"Saved with jax {meta['versions']['jax']}, resumed with {jax.__version__}: "
                "results may differ from an uninterrupted run's."
            )
        for note in notes:
            self._progress.note(note)
        for entry in self._scores.history[-1:]:
            self._progress.evaluated(entry)
        return meta["lines"]

    def _log(self) -> None:
        scalars = self._means.take()
        self._lines.append({"env_steps": self._learner.env_steps, **scalars})
        self._write({**scalars, "time/fps": self._learner.env_steps / self._wall()})
        self._progress.alarms(self._alarms())

    def _write(self, scalars: dict[str, float]) -> None:
        assert self._writer is not None
        self._writer.write(self._learner.env_steps, self._wall(), scalars)

    def _alarms(self) -> list[str]:
        return alarms(self._lines, float(np.mean(self._job.expert.episode_lengths)))

    def _evaluate(self, episodes: int, final: bool) -> dict[str, Any]:
        """Evaluate, show, write down, and hand on policy and reward as they are now."""
        if not self._scores.measured:
            self._timed("evaluate", self._measure_baselines)
        self._progress.say("Evaluating")
        entry = self._timed(
            "evaluate",
            lambda: self._scores.evaluate(
                self._learner.exploit(), self._learner.env_steps, episodes, final
            ),
        )
        entry["wall_seconds"] = round(self._wall(), 2)
        scalars = {"eval/mean_reward": entry["return_mean"], "eval/return_std": entry["return_std"]}
        if entry["normalized_return"] is not None:
            scalars["eval/normalized_return"] = entry["normalized_return"]
        self._write(scalars)
        self._progress.evaluated(entry)
        hand_on(self._job, self._learner.state, self._learner.env_steps)
        return entry

    def _measure_baselines(self) -> None:
        # At the first evaluation, not before the first update: that is what a user waits for.
        measure_baselines(self._job, self._scores, self._progress)

    def _result(self, entry: dict[str, Any]) -> dict[str, Any]:
        learner, wall, seconds = self._learner, self._wall(), self._seconds
        shares = {name: seconds[name] / wall for name in TIMED}
        return report(self._job, self._scores, entry, wall) | {
            "updates": learner.updates,
            "first_update_seconds": self._first_update,
            "env_steps_per_second": learner.collected / max(seconds["collect"], 1e-9),
            "updates_per_second": learner.updates / max(seconds["update"], 1e-9),
            "time_shares": {**shares, "other": 1.0 - sum(shares.values())},
        }

    def _wall(self) -> float:
        return self._seconds["before"] + time.perf_counter() - self._started

    def _timed(self, part: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return work()
        finally:
            self._seconds[part] += time.perf_counter() - start
