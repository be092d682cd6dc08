"""The update of mairl's default preset in PyTorch, eager and compiled, beside mairl's own.

    benchmarks/peers/setup pytorch                                              # once
    python=benchmarks/peers/pytorch/.venv/bin/python
    $python benchmarks/peers/torch_update.py --ours .venv/bin/python --check    # the same numbers
    $python benchmarks/peers/torch_update.py --ours .venv/bin/python            # how fast

Random data of Hopper-v5's sizes. In turn, round by round, for ``--seconds`` each: mairl's compiled
update, 100 iterations a call as in a run; the iteration in eager PyTorch (pytorch/learner.py);
the same after ``torch.compile``, as a single graph. An update is an iteration of all four steps.
Rates are medians of the rounds and ratios medians of each round's, by the clock and by processor
time, which says more on a machine that has other things to do. All of it, compilation included,
is bound to ``--threads`` processors; no compiled program is kept from an earlier run.

PyTorch's MKL leaves AVX-512 unused on processors that are not Intel's, which halves the rate of
its products; the result has that rate for both sides. ``--intel`` tells MKL that the processor is
one of Intel's (with a C compiler; ``torch.compile`` needs one of C++).

With ``--check`` nothing is timed: PyTorch takes mairl's parameters through two iterations with
mairl's random draws, and has to find the same losses, gradient norms and parameters.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from pytorch.learner import Draws, Learner, Sizes, initial

HERE = Path(__file__).parent
ITERATIONS = 100
"""Of ours in one call: collect_steps times iterations of the preset."""
CHECKED, TOLERANCE = 2, 1e-4

Call = Callable[[], np.ndarray]
"""Updates; answers with seconds of the clock and of the processor, for one."""


def make_tables(sizes: Sizes) -> dict[str, np.ndarray]:
    """A demonstrated episode and a run's replay: rows [obs, action, next_obs, terminated]."""
    rng = np.random.default_rng(0)

    def table(rows: int) -> np.ndarray:
        obs = rng.normal(size=(rows, sizes.obs))
        action = rng.uniform(-1.0, 1.0, (rows, sizes.action))
        next_obs = obs + 0.1 * rng.normal(size=obs.shape)
        terminated = rng.random((rows, 1)) < 0.005
        return np.hstack([obs, action, next_obs, terminated]).astype(np.float32)

    return {"expert": table(1000), "replay": table(20_000)}


def make_start(sizes: Sizes) -> dict[str, Any]:
    """Parameters and scales as mairl's side leaves them, for a run without it."""
    width = 2 * sizes.obs + sizes.action + 1
    start: dict[str, Any] = {"mean": torch.zeros(width), "std": torch.ones(width)}
    start |= {"delta_scale": torch.full((sizes.obs,), 0.1)}
    start |= {"live": torch.tensor(0.0), "ended": torch.tensor(-1.0)}
    for part, arrays in initial(sizes).items():
        start |= {f"{part}.{i:02}": array for i, array in enumerate(arrays)}
    return start


def make_learner(sizes: Sizes, tables: dict[str, np.ndarray], start: dict[str, Any]) -> Learner:
    """A learner of these parameters and scales, which must have the shapes of fresh ones."""
    fresh, parameters = initial(sizes), {}
    for part, arrays in fresh.items():
        parameters[part] = [start[name] for name in sorted(start) if name.startswith(f"{part}.")]
        shapes = [[tuple(a.shape) for a in those] for those in (arrays, parameters[part])]
        if shapes[0] != shapes[1]:
            sys.exit(f"{part}: {shapes[0]} in PyTorch, {shapes[1]} in mairl")
    return Learner(sizes, tables | start, parameters)


def product_rate(seconds: float = 0.5) -> float:
    """GFLOP per second of the processor in products of 128 x 128, as ours_update measures it."""
    x, weight = torch.randn(128, 128), torch.randn(128, 128) / 128**0.5
    count, until, start = 0, time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < until:
        y = x
        for _ in range(100):
            y = y @ weight
        count += 100
    return 2 * 128**3 * count / (time.process_time() - start) / 1e9


class Ours:
    """mairl in a process of its own, by its own interpreter (ours_update.py)."""

    def __init__(self, python: str, folder: Path, job: dict[str, int], threads: int):
        """Start it and wait for its parameters."""
        (folder / "job.json").write_text(json.dumps(job))
        self.iterations = job["iterations"]
        self.process = subprocess.Popen(
            [python, str(HERE / "ours_update.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({"NPROC": "1"} if threads == 1 else {}),
        )
        self.product_rate = float(self._read())
        self.start = _load(folder / "start.npz")

    def __call__(self) -> np.ndarray:
        """A call of its update."""
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        return np.array(self._read().split(), float) / self.iterations

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()

    def _read(self) -> str:
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            sys.exit("mairl's side failed; its message is above")
        return line


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def clocked(iterate: Callable[[Draws], Any]) -> Call:
    """One iteration and its seconds."""
    draws = Draws()

    def call() -> np.ndarray:
        start, cpu = time.perf_counter(), time.process_time()
        iterate(draws)
        return np.array([time.perf_counter() - start, time.process_time() - cpu])

    return call


def measure(calls: dict[str, Call], rounds: int, seconds: float) -> dict[str, Any]:
    """What compilation took (the first call), then rates and ratios."""
    first = {name: _first(call) for name, call in calls.items()}
    found: dict[str, Any] = {"compile_seconds": first | {"eager": 0.0}}
    times = [{name: _mean(call, seconds) for name, call in calls.items()} for _ in range(rounds)]
    for of, kind in enumerate(("clock", "processor")):
        every = {name: [float(time[name][of]) for time in times] for name in calls}
        found[kind] = {
            "updates_per_second": {n: 1.0 / statistics.median(t) for n, t in every.items()},
            "seconds_per_update": every,
        }
        if "ours" in calls:
            found[kind]["times_as_long_as_ours"] = {
                name: statistics.median(np.divide(each, every["ours"]).tolist())
                for name, each in every.items()
            }
    return found


def _first(call: Call) -> float:
    """Seconds of the first call; one more goes before anything is timed."""
    start = time.perf_counter()
    call()
    after = time.perf_counter()
    call()
    return after - start


def _mean(call: Call, seconds: float) -> np.ndarray:
    """Seconds of an update, on average over so many seconds of calls."""
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        times.append(call())
    return np.mean(times, 0)


class Recorded(Draws):
    """mairl's random numbers, in the order in which it drew them."""

    def __init__(self, draws: list[np.ndarray]):
        self.left = [torch.as_tensor(draw) for draw in draws]

    def rows(self, count: int, among: int) -> Any:
        return self._next(count).long()

    def normal(self, *shape: int) -> Any:
        return self._next(*shape)

    def uniform(self, count: int) -> Any:
        return self._next(count)

    def permutation(self, count: int) -> Any:
        return self._next(count).long()

    def _next(self, *shape: int) -> Any:
        return self.left.pop(0).reshape(shape)


def check(learner: Learner, start: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
    """Print how far PyTorch's numbers are from mairl's; exit if too far."""
    draws = Recorded([theirs[name] for name in sorted(theirs) if name.startswith("draw/")])
    apart: dict[str, float] = {}
    for i in range(CHECKED):
        for name, value in learner.iterate(draws).items():
            their = float(theirs[f"metric/{i}/{name}"])
            apart[f"{i}: {name}"] = abs(float(value) - their) / max(abs(their), 1e-6)
    for part, arrays in learner.params.items():
        names = [f"{part}.{i:02}" for i in range(len(arrays))]
        end = np.concatenate([theirs[f"end/{name}"].ravel() for name in names])
        moved = end - np.concatenate([np.ravel(start[name]) for name in names])
        mine = np.concatenate([a.detach().numpy().ravel() for a in arrays])
        apart[f"change of {part}'s {mine.size} parameters"] = float(
            np.linalg.norm(mine - end) / np.linalg.norm(moved)
        )
    for name, value in apart.items():
        print(f"{name:50} {value:.1e}")
    far = [name for name, value in apart.items() if not value <= TOLERANCE]
    if draws.left or far:
        sys.exit(f"{len(draws.left)} draws left; apart by more than {TOLERANCE}: {far}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, value in asdict(Sizes()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each in a round")
    parser.add_argument("--ours", metavar="PYTHON", help="an interpreter that has mairl")
    parser.add_argument("--check", action="store_true", help="compare numbers instead of speed")
    parser.add_argument("--intel", action="store_true", help="tell MKL so of the processor")
    parser.add_argument("--version", action="version", version=f"torch {torch.__version__}")
    parser.add_argument("--out", type=Path, help="the numbers as JSON")
    options = parser.parse_args()
    if options.check and not options.ours:
        parser.error("--check needs --ours")
    if options.horizon < 1 or options.batch % 8:
        parser.error("the horizon is 1 or more, the batch a multiple of 8")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # As XLA does.
    with tempfile.TemporaryDirectory() as folder:
        if options.intel and "intel.so" not in os.environ.get("LD_PRELOAD", ""):
            sys.exit(run_as_intel(Path(folder)))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        run(options, Path(folder))


def run_as_intel(folder: Path) -> int:
    """This command anew, with the answer to MKL's question replaced; its exit code."""
    source, library = folder / "intel.c", folder / "intel.so"
    source.write_text("int mkl_serv_intel_cpu_true(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    command = [sys.executable, *sys.argv]
    return subprocess.run(command, env=os.environ | {"LD_PRELOAD": str(library)}).returncode


def run(options: argparse.Namespace, folder: Path) -> None:
    sizes = Sizes(options.obs, options.action, options.horizon, options.batch)
    tables = make_tables(sizes)
    np.savez(folder / "tables.npz", **tables)  # pyright: ignore[reportArgumentType]
    ours = None
    if options.ours:
        job = asdict(sizes) | {"iterations": ITERATIONS, "checked": CHECKED * options.check}
        ours = Ours(options.ours, folder, job, options.threads)
    start = ours.start if ours else make_start(sizes)
    if ours and options.check:
        ours.close()
        return check(make_learner(sizes, tables, start), start, _load(folder / "check.npz"))
    eager, learner = (make_learner(sizes, tables, start) for _ in range(2))
    calls: dict[str, Call] = {"ours": ours} if ours else {}
    calls["eager"] = clocked(eager.iterate)
    calls["compiled"] = clocked(torch.compile(learner.iterate, fullgraph=True))
    result = {"torch": torch.__version__, "threads": options.threads, "intel": options.intel}
    result |= {"sizes": asdict(sizes)} | measure(calls, options.rounds, options.seconds)
    result["gflops_of_products"] = {"torch": product_rate()}
    if ours:
        result["gflops_of_products"]["ours"] = ours.product_rate
        ours.close()
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
