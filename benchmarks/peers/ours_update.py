"""mairl's side of torch_update.py, which starts it: the same update on the same data.

    python benchmarks/peers/ours_update.py FOLDER

FOLDER holds ``job.json`` (sizes, iterations of a call, iterations to record) and ``tables.npz``,
the transitions. It leaves ``start.npz`` there, fresh parameters and scales, and ``check.npz``, the
recorded iterations from that start: every random draw, the metrics, the last parameters. Then it
says on standard output how fast products are here, and answers each line of standard input with
the seconds that a call of the compiled update took, by the clock and of the processor.
"""

import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from mairl import replay as replays
from mairl.algorithms import mairl as algorithm
from mairl.algorithms.config import PRESETS, MAIRLConfig, split
from mairl.types import EnvSpec, Transition

PARTS = ("dynamics", "reward", "value", "policy")
EXPERT_ENDED, POLICY_ENDED = 0.1, 0.2
SCAN = jax.lax.scan


def configure(job: dict[str, Any], spec: EnvSpec) -> MAIRLConfig:
    """The preset as it is settled for the task, at the sizes asked for."""
    config = PRESETS["default"].settled(spec, 1000, expert_ends=False)
    return replace(
        config,
        batch_size=job["batch"],
        dynamics=replace(config.dynamics, batch_size=job["batch"]),
        policy=replace(config.policy, horizon=job["horizon"]),
    )


def read(rows: np.ndarray, obs: int) -> Transition:
    """Transitions of a table with rows [obs, action, next_obs, terminated]."""
    return Transition(rows[:, :obs], rows[:, obs : -obs - 1], rows[:, -obs - 1 : -1], rows[:, -1])


def prepare(config: MAIRLConfig, spec: EnvSpec, tables: dict[str, np.ndarray]) -> tuple:
    """State, replay and demonstrations."""
    expert, replayed = (read(tables[kind], spec.obs_size) for kind in ("expert", "replay"))
    state = algorithm.initialize(
        config, spec, expert, replayed, EXPERT_ENDED, key=jax.random.key(0)
    )
    state = state._replace(policy_ended=jnp.float32(POLICY_ENDED))
    capacity = len(replayed.terminated)
    replay = replays.init(capacity, 1, spec.obs_size, spec.action_size)
    ring = jax.tree.map(lambda x: x[:, None], replayed)
    replay = replays.add(replay, ring, ring.terminated)
    return state, replay, jax.tree.map(jnp.asarray, expert)


def arrays(params: algorithm.Parameters) -> dict[str, jax.Array]:
    """Every part's arrays in the order of its layers, weight before bias."""
    return {
        f"{part}.{index:02}": leaf
        for part, tree in params._asdict().items()
        for index, leaf in enumerate(jax.tree.leaves(tree))
    }


class Recorded:
    """While it is entered, keeps what the functions of ``jax.random`` return."""

    NAMES = ("randint", "normal", "uniform", "permutation")

    def __enter__(self) -> "Recorded":
        self.draws: list[np.ndarray] = []
        self.original = {name: getattr(jax.random, name) for name in self.NAMES}
        for name, function in self.original.items():
            setattr(jax.random, name, partial(self._draw, function))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self.original.items():
            setattr(jax.random, name, function)

    def _draw(self, function: Any, *arguments: Any, **named: Any) -> jax.Array:
        drawn = function(*arguments, **named)
        if isinstance(drawn, jax.core.Tracer):  # Of a rollout without a step.
            return drawn
        if not (function is self.original["randint"] and arguments[3] == 1):
            self.draws.append(np.asarray(drawn))  # All but which of a single environment.
        return drawn


def scan(step: Any, first: Any, xs: Any, **named: Any) -> Any:
    """``jax.lax.scan``, which uncompiled cannot tell the shapes of what no step gives."""
    with jax.disable_jit(len(jax.tree.leaves(xs)[0]) > 0):
        return SCAN(step, first, xs, **named)


def record(step: algorithm.Step, state: algorithm.State, iterations: int) -> dict[str, Any]:
    """Iterations run uncompiled: their draws in order, their metrics and the last parameters."""
    learner = algorithm.Learner(state.params, state.target_value, state.optimizers)
    found: dict[str, Any] = {}
    with jax.disable_jit(), Recorded() as recorded, mock.patch("jax.lax.scan", scan):
        for i, key in enumerate(jax.random.split(jax.random.key(1), iterations)):
            for name, part_key in split(key, *PARTS).items():
                learner, metrics = getattr(step, name)(learner, part_key)
                found |= {f"metric/{i}/{name}": value for name, value in metrics.items()}
    found |= {f"draw/{i:04}": drawn for i, drawn in enumerate(recorded.draws)}
    return found | {f"end/{name}": leaf for name, leaf in arrays(learner.params).items()}


def product_rate(seconds: float = 0.5) -> float:
    """GFLOP per second of the processor in products of 128 x 128."""
    x, weight = jax.random.normal(jax.random.key(0), (2, 128, 128)) / 128**0.5
    chain = jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, x: x @ weight, x))
    chain(x).block_until_ready()
    count, until, start = 0, time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < until:
        chain(x).block_until_ready()
        count += 100
    return 2 * 128**3 * count / (time.process_time() - start) / 1e9


def main() -> None:
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    spec = EnvSpec("random data", job["obs"], job["action"], discrete=False)
    config = configure(job, spec)
    with np.load(folder / "tables.npz") as tables:
        state, replay, expert = prepare(config, spec, dict(tables))

    step = algorithm.Step(config, spec, state, replay, expert, jnp.float32(0.0))
    mean, std = state.normalizer.mean, state.normalizer.std
    kept = jnp.zeros(spec.action_size), jnp.zeros(1)  # Neither action nor end is normalized.
    scales = {
        "mean": jnp.concatenate([mean, kept[0], mean, kept[1]]),
        "std": jnp.concatenate([std, 1.0 + kept[0], std, 1.0 + kept[1]]),
        "delta_scale": state.delta_scale,
        "live": step.bounded.live,
        "ended": step.bounded.ended,
    }
    np.savez(folder / "start.npz", **arrays(state.params), **scales)  # pyright: ignore
    np.savez(folder / "check.npz", **record(step, state, job["checked"]))
    print(product_rate(), flush=True)

    # As the training loop compiles it.
    update = jax.jit(
        partial(algorithm.update, config, spec), static_argnames="iterations", donate_argnums=0
    )

    def call(state: algorithm.State, count: int) -> algorithm.State:
        key = jax.random.key(count)
        state, metrics = update(
            state, replay, expert, jnp.float32(0.0), iterations=job["iterations"], key=key
        )
        jax.device_get(metrics)
        return state

    for count, _ in enumerate(sys.stdin):
        start, cpu = time.perf_counter(), time.process_time()
        state = call(state, count)
        print(time.perf_counter() - start, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main()
