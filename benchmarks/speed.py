"""The speed benchmark: how fast a run starts, learns and steps, and what limits the update.

    python benchmarks/speed.py [--preset default] [--seconds 4] [--out FILE]

Hopper-v5 from one shipped episode, in processes of their own: two that stop after the first update
(an empty compilation cache, then the same one filled), one that measures on all cores and one on
one thread. Takes some three minutes on two cores; leave the machine alone meanwhile.

The FLOPs of an iteration are those of its matrix products, counted in its jaxpr (loops times their
length); ``xla_flops`` is the compiler's own figure, for comparison. The machine's rate is that of
square float32 products, chained in one program, measured in the same process.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

PARTS = ("dynamics", "reward", "value", "policy")
SIZES = (128, 256, 512, 1024)
RESULTS = Path(__file__).parent / "results" / "speed.json"


def first_update(preset: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Everything a run does up to the end of its first update, imports included."""
    from mairl.cli import main  # noqa: F401 - as the command does

    _, learner, collector = _begin(preset, folder)
    with collector:
        _until_updated(learner)
    return {"at": time.time()}


def measure(preset: str, seconds: float, folder: Path, parts: bool = True) -> dict[str, Any]:
    """Rates of a run's own loop, of the update's parts, and of matrix multiplication."""
    import jax
    import numpy as np

    from mairl.envs import sample_random
    from mairl.rundir import peak_memory_bytes

    spent = {"update": 0.0, "collect": 0.0}
    config, learner, collector = _begin(preset, folder)
    with collector:
        _until_updated(learner)
        learner.collect()  # Now both are compiled.
        updates, steps, cpu = learner.updates, learner.env_steps, 0.0
        while sum(spent.values()) < 2 * seconds and not learner.done:
            used, start = time.process_time(), time.perf_counter()
            learner.update()
            middle = time.perf_counter()
            cpu += time.process_time() - used
            learner.collect()
            spent["update"] += middle - start
            spent["collect"] += time.perf_counter() - middle
        found: dict[str, Any] = {
            "updates_per_second": (learner.updates - updates) / spent["update"],
            "env_steps_per_second_of_the_run": (learner.env_steps - steps) / sum(spent.values()),
            "env_steps_per_second_with_policy": (learner.env_steps - steps) / spent["collect"],
            "cores_busy_in_update": cpu / spent["update"],
        }
        rng = np.random.default_rng(0)
        start, before = time.perf_counter(), collector.env_steps
        while time.perf_counter() - start < seconds / 2:
            collector.collect(lambda obs, _: sample_random(rng, len(obs), collector.spec), 100)
        stepped = collector.env_steps - before
        found["env_steps_per_second_alone"] = stepped / (time.perf_counter() - start)

    found["matmul_gflops"] = {str(n): matmul_rate(n, seconds / 8) / 1e9 for n in SIZES}
    found["peak_memory_mb"] = (peak_memory_bytes() or 0) / 2**20  # Before the extra programs below.
    found |= _flops(config, learner, parts)
    rate = found["flops_per_iteration"] * found["updates_per_second"] / 1e9
    best = max(found["matmul_gflops"].values())
    found |= {"update_gflops": rate, "share_of_best_matmul": rate / best}
    if parts:
        each = {name: _time_of(config, learner, (name,), seconds / 2) for name in PARTS}
        total = sum(each.values())
        found["ms_per_iteration"] = {name: 1e3 * s for name, s in each.items()}
        found["share"] = {name: s / total for name, s in each.items()}
        found["parts_over_whole"] = total * found["updates_per_second"]
        found["time_at_twice_the_batch"] = _twice_the_batch(config, learner, seconds)
    found["device"] = jax.devices()[0].device_kind
    return found


def matmul_rate(n: int, seconds: float) -> float:
    """FLOP per second of n x n float32 products, each needing the one before."""
    import jax
    import jax.numpy as jnp

    chain = max(1, round(2e8 / (2 * n**3)))
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (n, n)) / math.sqrt(n) for key in keys)
    multiply = jax.jit(lambda a, b: jax.lax.fori_loop(0, chain, lambda _, x: jnp.dot(x, b), a))
    return 2 * n**3 * chain / _seconds(lambda: multiply(a, b), seconds)


def matmul_flops(jaxpr: Any) -> float:
    """FLOPs of the matrix products in a jaxpr, loops times their length."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            contracted, _ = equation.params["dimension_numbers"][0]
            shape = equation.invars[0].aval.shape
            total += (
                2.0
                * math.prod(equation.outvars[0].aval.shape)
                * math.prod(shape[axis] for axis in contracted)
            )
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(matmul_flops(inner) for inner in _inner(equation.params.values()))
    return total


def _inner(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _inner(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr


def _begin(preset: str, folder: Path) -> tuple[Any, Any, Any]:
    from mairl.compilation import use_compilation_cache
    from mairl.envs import Collector
    from mairl.job import TrainConfig, check

    use_compilation_cache()
    out = str(folder / f"run-{os.getpid()}")
    job = check(TrainConfig("Hopper-v5", episodes=1, preset=preset, out=out))  # pyright: ignore
    algo = job.config.algo
    collector = Collector("Hopper-v5", job.spec, job.config.seed, algo.num_envs)
    job.learner.begin(collector)
    return algo, job.learner, collector


def _until_updated(learner: Any) -> None:
    while not learner.updates:  # Where iterations per step are a fraction, not in every round.
        learner.update()
        if not learner.updates:
            learner.collect()


def iteration(config: Any, learner: Any, names: tuple[str, ...]) -> tuple[Callable, tuple]:
    """One iteration of some parts: a function of its arguments, ``(carry, key) -> (carry, sum)``.

    Reaches into the algorithm on purpose: nobody else needs its parts one by one.
    """
    import jax
    import jax.numpy as jnp

    from mairl.algorithms import mairl as algorithm

    spec, start = learner._spec, learner.state
    data = start, learner.replay, learner._expert

    def run(data: Any, carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state, replay, expert = data
        step = algorithm.Step(config, spec, state, replay, expert, jnp.float32(0.0))
        total = jnp.float32(0.0)
        for name, name_key in zip(names, jax.random.split(key, len(names)), strict=True):
            carry, metrics = getattr(step, name)(carry, name_key)
            total += sum(jnp.sum(value) for value in metrics.values())
        return carry, total

    carry = algorithm.Learner(start.params, start.target_value, start.optimizers)
    return run, (data, carry)


def _time_of(config: Any, learner: Any, names: tuple[str, ...], seconds: float) -> float:
    """Seconds of an iteration of only these parts, many in one program as in a run."""
    import jax

    run, (data, carry) = iteration(config, learner, names)
    count = 50

    @jax.jit
    def many(data: Any, carry: Any, key: jax.Array) -> Any:
        return jax.lax.scan(partial(run, data), carry, jax.random.split(key, count))

    return _seconds(lambda: many(data, carry, jax.random.key(0)), seconds) / count


def _flops(config: Any, learner: Any, compiled: bool) -> dict[str, Any]:
    import jax

    run, (data, carry) = iteration(config, learner, PARTS)
    arguments = data, carry, jax.random.key(0)
    found: dict[str, Any] = {
        "flops_per_iteration": matmul_flops(jax.make_jaxpr(run)(*arguments).jaxpr)
    }
    if compiled:
        program = jax.jit(run, donate_argnums=1).lower(*arguments).compile()
        costs: Any = program.cost_analysis() or {}
        found["xla_flops"] = costs.get("flops") if isinstance(costs, dict) else costs[0]["flops"]
        found["kernels_per_iteration"] = _kernels(program.as_text() or "")
    return found


def _kernels(hlo: str) -> int:
    """Instructions of the main computation that run as something of their own."""
    main = hlo[hlo.index("\nENTRY ") :].splitlines()
    free = ("parameter(", "constant(", "tuple(", "get-tuple-element(", "bitcast(")
    return sum(" = " in line and not any(f" {name}" in line for name in free) for line in main)


def _twice_the_batch(config: Any, learner: Any, seconds: float) -> float:
    """Time of an iteration at twice the batch over that at the batch: 1 if overhead, 2 if work."""
    from dataclasses import replace

    double = replace(
        config,
        batch_size=2 * config.batch_size,
        dynamics=replace(config.dynamics, batch_size=2 * config.dynamics.batch_size),
    )
    single, twice = (_time_of(c, learner, PARTS, seconds / 2) for c in (config, double))
    return twice / single


def _seconds(call: Callable[[], Any], least: float) -> float:
    """Median time of a call, after one that compiles."""
    import jax

    jax.block_until_ready(call())
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def limit(found: dict[str, Any]) -> str:
    """What limits the update, in a sentence or two, from the numbers."""
    multiply = {int(n): rate for n, rate in found["matmul_gflops"].items()}
    small, best = multiply[min(multiply)], max(multiply.values())
    arithmetic = found["update_gflops"] / small
    microseconds = 1e6 / found["updates_per_second"]
    twice, kernels = found["time_at_twice_the_batch"], found["kernels_per_iteration"]
    says = (
        f"The update runs at {found['update_gflops']:.1f} GFLOP/s, "
        f"{found['share_of_best_matmul']:.0%} of this machine's best matrix multiplication "
        f"({best:.0f}) and {arithmetic:.0%} of the one at its own size of {min(multiply)} "
        f"({small:.0f}). "
    )
    if arithmetic > 0.5:
        return says + "Matrix multiplication is what limits it."
    rest = (
        f"the {kernels} kernels of an iteration, {microseconds / kernels:.0f} µs each: their fixed "
        "costs, element-wise work (Adam, noise, activations) and memory traffic"
    )
    if twice > 1.6:
        return says + (
            f"Twice the batch takes {twice:.2f} times as long: work that grows with the batch "
            f"limits it, but less the products than {rest}."
        )
    return says + (
        f"Twice the batch takes only {twice:.2f} times as long: what limits it is not arithmetic "
        f"but {rest}."
    )


def _child(what: str, options: argparse.Namespace, folder: Path, **variables: str) -> Any:
    command = [sys.executable, __file__, "--child", what, "--folder", str(folder)]
    command += ["--preset", options.preset, "--seconds", str(options.seconds)]
    variables["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
    )
    if done.returncode:
        sys.exit(f"{what} failed")
    return json.loads(done.stdout.splitlines()[-1])


def _until_first_update(options: argparse.Namespace, folder: Path) -> float:
    start = time.time()
    return _child("first_update", options, folder)["at"] - start


def processor() -> str:
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        for line in lines.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show(result: dict[str, Any]) -> None:
    """Print the numbers as Markdown."""
    first, both = result["first_update_seconds"], [result["all_cores"], result["one_thread"]]
    every = both[0]
    print(f"\n| {result['preset']} on {result['cpus']} cores, {result['processor']} | |\n|---|---|")
    print(f"| first update after start, cold | {first['cold']:.1f} s |")
    print(f"| first update after start, warm compilation cache | {first['warm']:.1f} s |")
    print(f"| peak memory | {every['peak_memory_mb']:.0f} MB |")
    print(f"| FLOPs of an iteration | {every['flops_per_iteration'] / 1e6:.0f} M |")
    for name in PARTS:
        print(f"| {name} | {every['share'][name]:.0%}, {every['ms_per_iteration'][name]:.2f} ms |")
    print("\n| | all cores | one thread |\n|---|---|---|")
    rows = {
        "updates per second": "updates_per_second",
        "cores busy meanwhile": "cores_busy_in_update",
        "environment steps per second of a run": "env_steps_per_second_of_the_run",
        "environment steps per second, collecting": "env_steps_per_second_with_policy",
        "environment steps per second, random actions": "env_steps_per_second_alone",
        "GFLOP/s of the update": "update_gflops",
    }
    for label, name in rows.items():
        print(f"| {label} | {both[0][name]:.1f} | {both[1][name]:.1f} |")
    for n in SIZES:
        rates = [found["matmul_gflops"][str(n)] for found in both]
        print(f"| GFLOP/s of a {n} x {n} product | {rates[0]:.1f} | {rates[1]:.1f} |")
    print(f"\n{result['limit']}")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast a run starts, learns and steps.")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kinds = {
            "first_update": first_update,
            "all_cores": measure,
            "one_thread": partial(measure, parts=False),
        }
        found = kinds[options.child](options.preset, options.seconds, options.folder)
        return print(json.dumps(found))

    from mairl.rundir import versions

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        first = {when: _until_first_update(options, folder) for when in ("cold", "warm")}
        result: dict[str, Any] = {
            "preset": options.preset,
            "cpus": os.cpu_count(),
            "processor": processor(),
            "versions": versions(),
            "first_update_seconds": first,
            "all_cores": _child("all_cores", options, folder),
            "one_thread": _child("one_thread", options, folder, NPROC="1"),
        }
    result["limit"] = limit(result["all_cores"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    return show(result)


if __name__ == "__main__":
    main()
