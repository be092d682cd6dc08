"""Experience in a ring of fixed size, as a pytree of arrays: init, add, sample.

Time runs along the first axis, one column per environment, so that the rows of a column are
one environment's stream, in order. ``last`` marks the rows at which an episode ended for any
reason; it is kept apart from ``terminated`` because a time limit ends a segment but not the
future.

All functions are pure and run under ``jax.jit``; capacity and batch sizes are static. There
is no true reward here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mairl.types import MairlError, Transition


class Replay(NamedTuple):
    """A ring of transitions.

    data: :class:`~mairl.types.Transition` with leading axes ``[capacity, num_envs]``.
    last: 1 where the episode ended, by termination or by truncation.
    position: the row written next.
    filled: the number of rows that hold experience, at most ``capacity``.
    """

    data: Transition
    last: Float[Array, "*batch capacity num_envs"]
    position: Int[Array, "*batch"]
    filled: Int[Array, "*batch"]

    @property
    def capacity(self) -> int:
        """Rows the ring can hold (static)."""
        return self.last.shape[-2]

    @property
    def num_envs(self) -> int:
        """Columns of the ring (static)."""
        return self.last.shape[-1]


def init(capacity: int, num_envs: int, obs_size: int, action_size: int) -> Replay:
    """An empty ring of ``capacity`` rows, ``capacity * num_envs`` transitions in all.

    Raises:
        MairlError: a size is below one.
    """
    sizes = {
        "capacity": capacity,
        "num_envs": num_envs,
        "obs_size": obs_size,
        "action_size": action_size,
    }
    for name, size in sizes.items():
        if size < 1:
            raise MairlError(f"replay: {name} is {size}; it must be at least 1")
    rows = (capacity, num_envs)
    data = Transition(
        obs=jnp.zeros((*rows, obs_size), jnp.float32),
        action=jnp.zeros((*rows, action_size), jnp.float32),
        next_obs=jnp.zeros((*rows, obs_size), jnp.float32),
        terminated=jnp.zeros(rows, jnp.float32),
    )
    # Two separate zeros: one array in two places could not be donated to a compiled update.
    return Replay(
        data, jnp.zeros(rows, jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    )


def add(
    replay: Replay, batch: Transition, last: Float[Array | np.ndarray, "steps num_envs"]
) -> Replay:
    """Write ``batch`` (leading axes ``[steps, num_envs]``) over the oldest rows.

    The rows must follow, in each column, the rows written before; where they do not (a stream
    was broken off), call :func:`break_stream` first. Of a batch longer than the ring only the
    newest ``capacity`` rows are kept.
    """
    steps, capacity = last.shape[0], replay.capacity
    keep = min(steps, capacity)
    # Rows dropped from an overlong batch still advance the position, as if written one by one.
    rows = (replay.position + (steps - keep) + jnp.arange(keep, dtype=jnp.int32)) % capacity

    def write(ring: Array, new: Array | np.ndarray) -> Array:
        return ring.at[rows].set(jnp.asarray(new, ring.dtype)[steps - keep :])

    return Replay(
        data=jax.tree.map(write, replay.data, batch),
        last=write(replay.last, last),
        position=(replay.position + steps) % capacity,
        filled=jnp.minimum(replay.filled + steps, capacity),
    )


def break_stream(
    replay: Replay, where: Bool[Array | np.ndarray, " num_envs"] | bool = True
) -> Replay:
    """Mark the newest row of the columns ``where`` (by default all) as an episode's last.

    For the case that what is added next does not continue it (an environment could not be put
    back where it was, or was made to begin anew). An empty ring stays as it is.
    """
    newest = (replay.position - 1) % replay.capacity
    row = jnp.where(jnp.asarray(where), jnp.ones_like(replay.last[0]), replay.last[newest])
    marked = replay.last.at[newest].set(row)
    return replay._replace(last=jnp.where(replay.filled > 0, marked, replay.last))


def sample(replay: Replay, key: Key[Array, ""], n: int) -> Transition:
    """``n`` transitions ``[n, ...]``, uniformly and with replacement from the filled rows.

    An empty ring yields zeros: the caller fills it first.
    """
    row_key, env_key = jax.random.split(key)
    ages = jax.random.randint(row_key, (n,), 0, jnp.maximum(replay.filled, 1))
    envs = jax.random.randint(env_key, (n,), 0, replay.num_envs)
    rows = _row(replay, ages)
    return jax.tree.map(lambda ring: ring[rows, envs], replay.data)


def sample_segments(
    replay: Replay, key: Key[Array, ""], n: int, length: int
) -> tuple[Transition, Float[Array, "n length"]]:
    """``n`` runs of ``length`` successive steps of one environment, and which steps count.

    Returns transitions ``[n, length, ...]`` and a mask that is 1 up to and including the first
    ``last`` of the segment, 0 after it (those steps belong to the next episode). Starts are
    uniform over all rows from which ``length`` rows follow, so that no segment runs over the
    write head from the newest row into the oldest. While fewer than ``length`` rows are filled,
    segments begin at the oldest one and the rows not yet filled are masked.

    Raises:
        MairlError: ``length`` is below one or above the ring's capacity.
    """
    if not 1 <= length <= replay.capacity:
        raise MairlError(
            f"replay: segments of {length} steps do not fit a replay of {replay.capacity} rows "
            "per environment; shorten the segments or enlarge the replay"
        )
    start_key, env_key = jax.random.split(key)
    starts = jax.random.randint(start_key, (n,), 0, jnp.maximum(replay.filled - length + 1, 1))
    envs = jax.random.randint(env_key, (n,), 0, replay.num_envs)
    times = starts[:, None] + jnp.arange(length, dtype=jnp.int32)[None, :]
    rows, columns = _row(replay, times), jnp.broadcast_to(envs[:, None], times.shape)
    segments = jax.tree.map(lambda ring: ring[rows, columns], replay.data)
    going_on = jnp.cumprod(1.0 - replay.last[rows, columns], axis=1)
    # Shifted by one: the step that ends the episode is itself a valid step.
    same_episode = jnp.concatenate([jnp.ones((n, 1)), going_on[:, :-1]], axis=1)
    return segments, same_episode * (times < replay.filled).astype(jnp.float32)


def newest(replay: Replay, length: int) -> tuple[Transition, Float[Array, "length num_envs"]]:
    """The newest ``length`` rows of every environment, oldest first, and which steps count.

    The mask is 1 up to and including the first ``last``, as in :func:`sample_segments`, and 0 for
    rows that are not filled yet.
    """
    data, last = rollout(replay, length)
    going_on = jnp.cumprod(1.0 - last, axis=0)
    mask = jnp.concatenate([jnp.ones((1, replay.num_envs)), going_on[:-1]])
    there = jnp.arange(length) >= length - replay.filled
    return data, mask * there[:, None]


def rollout(replay: Replay, length: int) -> tuple[Transition, Float[Array, "length num_envs"]]:
    """The newest ``length`` rows of every environment, oldest first, and where episodes ended."""
    rows = (replay.position - length + jnp.arange(length, dtype=jnp.int32)) % replay.capacity
    return jax.tree.map(lambda ring: ring[rows], replay.data), replay.last[rows]


def newest_ends(replay: Replay, n: int) -> tuple[Transition, Int[Array, " n"], Float[Array, " n"]]:
    """The newest ``n`` steps that terminated an episode ``[n, ...]``, its length, which rows count.

    Where there are fewer, the other rows are any transitions, marked 0. An episode whose beginning
    has been overwritten is as long as what is kept of it.
    """
    capacity = replay.capacity
    times = jnp.arange(capacity, dtype=jnp.int32)
    rows = _row(replay, times)
    last, kept = replay.last[rows] > 0, (times < replay.filled)[:, None]
    # The step after the newest last one of before; newest rows come first from here on.
    begin = jnp.where(last, times[:, None] + 1, 0)
    begin = jnp.concatenate([jnp.zeros_like(begin[:1]), jax.lax.cummax(begin, 0)[:-1]])
    ends = ((replay.data.terminated[rows] > 0) & kept)[::-1]
    which, columns = jnp.nonzero(ends, size=n, fill_value=0)
    time = capacity - 1 - which
    data = jax.tree.map(lambda ring: ring[rows[time], columns], replay.data)
    lengths = time + 1 - begin[time, columns]
    return data, lengths, (jnp.arange(n) < jnp.sum(ends)).astype(jnp.float32)


def _row(replay: Replay, time: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Row of a time counted from the oldest row kept."""
    return (replay.position - replay.filled + time) % replay.capacity
