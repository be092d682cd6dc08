"""The command ``mairl``."""

import difflib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mairl.types import MairlError

if TYPE_CHECKING:
    from mairl.job import TrainConfig

# What the first update's waiting time is counted from. Before the heavy imports, on purpose:
# each verb imports what it needs, so that help comes at once.
_STARTED = time.perf_counter()

HELP = """\
usage: mairl VERB ...

Learn a policy and a reward from expert demonstrations, through a learned model.

  mairl train ENV_ID      learn from demonstrations; writes a run directory
  mairl transfer RUN ENV  learn ENV by the reward that a run has learned
  mairl rank RUN          a simpler reward to transfer: why the policy beats random actions
  mairl evaluate RUN      true returns of the policy in a run directory
  mairl reward RUN        pictures of the learned reward
  mairl variance RUN      variance and bias of the policy gradient's estimators
  mairl export RUN        policy and reward as ONNX graphs
  mairl demos [NAME]      list the shipped demonstrations, or inspect some
  mairl bench [SUITE]     compare algorithms over tasks and seeds, or list the suites
  mairl --version

`mairl VERB --help` shows every option with its default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.

    0 done, 1 learning diverged, 2 a mistake the user can mend, 130 Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments, _STARTED if argv is None else time.perf_counter())
    except MairlError as error:
        print(f"mairl: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt as stop:
        print(str(stop) or "Stopped.", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    except BrokenPipeError:  # The reader of our output (head, less) has gone.
        sys.stderr.close()
        return 0
    except SystemExit as stop:  # tyro, after --help or a message of its own
        return stop.code if isinstance(stop.code, int) else 2


def _dispatch(arguments: list[str], started: float) -> int:
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(HELP)
    elif verb == "--version":
        from importlib.metadata import version

        print(f"mairl {version('mairl')}")
    elif verb in VERBS:
        VERBS[verb](rest, started)
    else:
        near = difflib.get_close_matches(verb, VERBS, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise MairlError(f"there is no verb {verb!r}{hint} (there are: {', '.join(VERBS)})")
    return 0


def _train(arguments: list[str], started: float) -> None:
    config = parse_train(arguments)
    from mairl.training import train

    train(config, started=started)


def parse_train(arguments: Sequence[str]) -> "TrainConfig":
    """The configuration that the words after ``mairl train`` mean."""
    import tyro

    from mairl.job import TrainConfig

    # These two decide which settings there are and the defaults that --help shows.
    preset, algorithm = _option(arguments, "--preset"), _option(arguments, "--algo")
    default = TrainConfig("", algorithm=algorithm or "mairl", preset=preset or "default")
    # No default for this one, which its type does not allow to say.
    object.__setattr__(default, "env_id", tyro.MISSING)
    return tyro.cli(
        TrainConfig[type(default.algo)],  # pyright: ignore[reportInvalidTypeArguments]
        args=arguments,
        default=default,
        prog="mairl train",
        description="Learn a policy and a reward from demonstrations.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _transfer(arguments: list[str], started: float) -> None:
    import tyro

    from mairl.transfer import TransferConfig, transfer

    config = tyro.cli(
        TransferConfig,
        args=arguments,
        prog="mairl transfer",
        description="Learn a policy in another environment by the reward of a run, kept as it is.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    transfer(config, started=started)


def _rank(arguments: list[str], _: float) -> None:
    import tyro

    from mairl.ranking import RankConfig, rank, table

    config = tyro.cli(
        RankConfig,
        args=arguments,
        prog="mairl rank",
        description="A reward to carry elsewhere, from how a run's policy gets worse by random "
        "actions: linear in the observation, and sparse.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    print(f"Playing the policy of {config.run} with ever more random actions ...", flush=True)
    print(table(rank(config)))
    print(config.path)


def _evaluate(arguments: list[str], _: float) -> None:
    import tyro

    def evaluate(
        run: Annotated[Path, tyro.conf.Positional],
        episodes: int = 20,
        seed: int | None = None,
        reward: bool = False,
        demos: str | None = None,
    ) -> None:
        """True returns of a run's policy, deterministic actions.

        Args:
            run: Run directory.
            episodes: How many episodes.
            seed: Which episodes; by default those of the run's own final evaluation.
            reward: Compare the learned reward with the true one instead.
            demos: The expert's, for that; by default what the run learned from (of a transfer:
                what is shipped for the target).
        """
        from mairl.model import load
        from mairl.rundir import RunDirectory, read_json, write_json

        model = load(run)
        if reward:
            from mairl import judge

            seed = model.seed if seed is None else seed
            scores = judge.judge(model, demos or _demos_of(run), judge.TRANSITIONS, seed)
            write_json(RunDirectory(run).reward_scores, scores)
            print(judge.table(scores))
            return
        found = model.evaluate(episodes, seed)
        mean, deviation = found.returns.mean(), found.returns.std()
        text = f"return {mean:.1f} ± {deviation:.1f} over {episodes} episodes"
        text += f", {found.lengths.mean():.0f} steps each, {found.terminated.sum()} terminated"
        result = RunDirectory(run).result
        known = read_json(result) if result.exists() else {}
        low, high = known.get("random_return"), known.get("expert_return")
        if low is not None and high is not None and low != high:
            text += f"; normalized {(mean - low) / (high - low):.3f} (random 0, expert 1)"
        print(text)

    tyro.cli(
        evaluate, args=arguments, prog="mairl evaluate", config=(tyro.conf.FlagCreatePairsOff,)
    )


def _reward(arguments: list[str], _: float) -> None:
    import tyro

    def reward(
        run: Annotated[Path, tyro.conf.Positional],
        dims: tuple[int, int] | None = None,
        demos: str | None = None,
    ) -> None:
        """Pictures of a run's learned reward, into its directory.

        Args:
            run: Run directory.
            dims: Observation dimensions of the map; by default the two that g is steepest in.
            demos: The expert's, to draw beside the policy; by default what the run learned from
                (of a transfer: what is shipped for the target).
        """
        from mairl.model import load
        from mairl.report.reward import draw_reward

        for path in draw_reward(load(run), demos or _demos_of(run), run, dims):
            print(path)

    tyro.cli(reward, args=arguments, prog="mairl reward")


def _demos_of(run: Path) -> str | None:
    """The demonstrations that a run was asked to learn from; None: those shipped for its task."""
    from mairl.rundir import RunDirectory, read_json

    return read_json(RunDirectory(run).config).get("config", {}).get("demos")


def _variance(arguments: list[str], _: float) -> None:
    import tyro

    from mairl.variance import Effort

    def variance(
        run: Annotated[Path, tyro.conf.Positional],
        effort: Annotated[Effort, tyro.conf.arg(name="")] = Effort(),  # noqa: B008
    ) -> None:
        """Compare estimators of the policy gradient at a run's newest checkpoint.

        Args:
            run: Run directory of mairl train; stop it anywhere, measure, and resume it.
            effort: How much is sampled.
        """
        from rich.console import Console

        from mairl.report.variance import describe, draw
        from mairl.rundir import RunDirectory, write_json
        from mairl.variance import load_snapshot, measure

        snapshot = load_snapshot(run)
        found = measure(snapshot, effort, lambda text: Console(stderr=True).print(f"{text} ..."))
        folder = RunDirectory(run).variance
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{found['env_steps']:08d}.json"
        write_json(path, found)
        path.with_suffix(".md").write_text(describe(found), encoding="utf-8")
        draw([found], path.with_suffix(".png"))
        print(describe(found))
        for ending in (".json", ".md", ".png"):
            print(path.with_suffix(ending))

    tyro.cli(
        variance, args=arguments, prog="mairl variance", config=(tyro.conf.FlagCreatePairsOff,)
    )


def _export(arguments: list[str], _: float) -> None:
    import tyro

    def export(run: Annotated[Path, tyro.conf.Positional], onnx: Path) -> None:
        """Policy and reward as ONNX graphs, which take observations in their own units.

        Args:
            run: Run directory.
            onnx: Folder to write policy.onnx and, if one was learned, reward.onnx into.
        """
        from mairl.onnx_export import export as export_onnx

        for path in export_onnx(run, onnx):
            print(path)

    tyro.cli(export, args=arguments, prog="mairl export")


def _demos(arguments: list[str], _: float) -> None:
    import tyro

    def demos(
        name: Annotated[str | None, tyro.conf.Positional] = None, env: str | None = None
    ) -> None:
        """List the shipped demonstrations, or inspect one set.

        Args:
            name: A shipped name, a Minari id or the path of an .npz file.
            env: The environment they are for; by default the one they were recorded in.
        """
        from rich.console import Console

        from mairl.demos import find_demonstrations, inspect, recorded_in, render, render_list
        from mairl.envs import make_spec

        console = Console()
        if name is None and env is None:
            console.print(render_list())
            return
        env_id = env or recorded_in(str(name))
        spec = make_spec(env_id)
        console.print(render(inspect(find_demonstrations(name, spec), spec)))

    tyro.cli(demos, args=arguments, prog="mairl demos")


def _bench(arguments: list[str], _: float) -> None:
    import tyro

    def bench(
        suite: Annotated[str | None, tyro.conf.Positional] = None,
        out: Path | None = None,
        jobs: int | None = None,
        seeds: int | None = None,
        only: str | None = None,
        report: bool = False,
    ) -> None:
        """Compare algorithms over tasks and seeds; the same command goes on where it stopped.

        Args:
            suite: A shipped suite, or the path of a suite file; without one, list those shipped.
            out: Where runs, raw numbers, tables and figures go; by default runs/SUITE.
            jobs: Runs at a time, one thread each; by default as many as there are cores.
            seeds: How many seeds, instead of the suite's number.
            only: Only what fits this pattern of task:algorithm, or of one of the two.
            report: Run nothing; tables and figures from what is there.
        """
        from mairl.bench.command import bench, render_list

        if suite is None:
            print(render_list())
        else:
            folder = out or Path("runs") / Path(suite).stem
            bench(suite, folder, jobs=jobs, seeds=seeds, only=only, report_only=report)

    tyro.cli(bench, args=arguments, prog="mairl bench", config=(tyro.conf.FlagCreatePairsOff,))


def _option(arguments: Sequence[str], name: str) -> str | None:
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


VERBS: dict[str, Callable[[list[str], float], None]] = {
    "train": _train,
    "transfer": _transfer,
    "rank": _rank,
    "evaluate": _evaluate,
    "reward": _reward,
    "variance": _variance,
    "export": _export,
    "demos": _demos,
    "bench": _bench,
}


if __name__ == "__main__":
    sys.exit(main())
