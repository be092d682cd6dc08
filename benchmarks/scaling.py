"""How an iteration's time grows: makes results/scaling.json.

    python benchmarks/scaling.py [--rounds 5] [--out FILE]

One iteration of all four parts of the preset ``default`` on Hopper-v5, with one thing changed at a
time: batch, horizon, models in the ensemble, units of their layers, the task (its observations and
actions), and how many seeds learn side by side in one program (``vmap``). Each is timed by turns
with the unchanged iteration, in one process, and given as a multiple of it: the median over rounds
of the two times' ratio. Some six minutes on two cores; leave the machine alone meanwhile.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from speed import PARTS, RESULTS, iteration, processor

from mairl.algorithms.config import PRESETS, MAIRLConfig
from mairl.envs import Collector
from mairl.job import TrainConfig, check
from mairl.rundir import versions

TASK, ITERATIONS = "Hopper-v5", 50
BASE = PRESETS["default"]
BASE = replace(BASE, policy=replace(BASE.policy, horizon=3))
"""Hopper's horizon, whatever the task's size would have."""


def variants() -> Iterator[tuple[str, int, str, MAIRLConfig, int]]:
    """What is changed, its size, the task, the settings and the seeds in one program."""
    for size in (64, 128, 256, 512, 1024):
        model = replace(BASE.dynamics, batch_size=size)  # Of each model, as by default.
        yield "batch", size, TASK, replace(BASE, batch_size=size, dynamics=model), 1
    for horizon in (0, 1, 3, 5, 10):
        policy = replace(BASE.policy, horizon=horizon)
        yield "horizon", horizon, TASK, replace(BASE, policy=policy), 1
    for members in (1, 2, 4, 8):
        model = replace(BASE.dynamics, members=members)
        yield "models", members, TASK, replace(BASE, dynamics=model), 1
    for width in (128, 256, 512):
        yield "units", width, TASK, replace(BASE, dynamics=replace(BASE.dynamics, width=width)), 1
    for task, size in (
        ("Pendulum-v1", 3),
        ("HalfCheetah-v5", 17),
        ("Ant-v5", 105),
        ("Humanoid-v5", 348),
    ):
        yield f"observed numbers ({task})", size, task, BASE, 1
    for seeds in (2, 4, 8):
        yield "seeds", seeds, TASK, BASE, seeds


def prepared(task: str, settings: MAIRLConfig, seeds: int, folder: str) -> Callable[[], Any]:
    """A compiled call of ITERATIONS iterations, on random steps and demonstrations."""
    out = tempfile.mkdtemp(dir=folder) + "/run"
    job = check(TrainConfig(task, episodes=1, out=out, algo=settings))
    config = job.config.algo
    with Collector(task, job.spec, 0, config.num_envs) as collector:
        job.learner.begin(collector)
    run, (data, carry) = iteration(config, job.learner, PARTS)

    def many(data: Any, carry: Any, key: jax.Array) -> Any:
        return jax.lax.scan(partial(run, data), carry, jax.random.split(key, ITERATIONS))

    keys = jax.random.key(0)
    if seeds > 1:
        many = jax.vmap(many, in_axes=(None, 0, 0))
        carry = jax.tree.map(lambda x: jnp.stack([x] * seeds), carry)
        keys = jax.random.split(keys, seeds)
    program = jax.jit(many).lower(data, carry, keys).compile()
    return lambda: jax.block_until_ready(program(data, carry, keys))


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) / ITERATIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS.with_name("scaling.json"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        base = prepared(TASK, BASE, 1, folder)
        for name, size, task, settings, seeds in variants():
            call = prepared(task, settings, seeds, folder)
            seconds(base)
            seconds(call)
            pairs = [(seconds(base), seconds(call)) for _ in range(options.rounds)]
            row = {
                "changed": name,
                "size": size,
                "ms": 1e3 * statistics.median(changed for _, changed in pairs),
                "times_as_long": statistics.median(changed / same for same, changed in pairs),
            }
            rows.append(row)
            print(
                f"{name} {size}: {row['ms']:.2f} ms, {row['times_as_long']:.2f} times", flush=True
            )
    result = {
        "task": TASK,
        "cpus": os.cpu_count(),
        "processor": processor(),
        "versions": versions(),
        "rounds": options.rounds,
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
