"""What a run learns with: networks, replay and environments, and one round of learning."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from mairl import checkpoint, replay
from mairl.algorithms import Algorithm, Patient, Settings
from mairl.algorithms.config import settled
from mairl.demos import ExpertData
from mairl.envs import Collector, EpisodeEnd, sample_random
from mairl.rewards import ended_share
from mairl.types import EnvSpec, MairlError, Transition

STREAMS = ("initialize", "update", "explore", "clone", "first")
"""What a key is for."""

RECENT = 10
"""Training episodes that say how the policy's episodes end now."""

END_STEPS, LARGEST = 2_000, 5.0
"""Steps without an end that the expert makes after which it is e times as dear; the log of how dear
it gets, where bounded rewards are flat."""


def stream_key(seed: int, stream: str, count: int) -> jax.Array:
    """The key of (seed, stream, count); ``stream`` is one of STREAMS."""
    return jax.random.fold_in(
        jax.random.fold_in(jax.random.key(seed), STREAMS.index(stream)), count
    )


class Diverged(MairlError):
    """Learning met NaN or infinity; the last checkpoint is from before."""

    exit_code = 1


def policy_ended(ends: Sequence[EpisodeEnd], gamma: float, expert_ended: float = 0.0) -> float:
    """How much of discounted time the policy is charged with spending after an end, 0 to 1.

    Where no demonstration ends by itself (``expert_ended`` = 0): the smaller of all episodes' share
    and the newest ``RECENT``'s, or early falls would count for good.

    Where some do, the log-ratio log(expert_ended / it) is the multiplier of the constraint that
    the policy's share be the expert's, and rises and falls with each episode's miss (dual ascent):
    by length / ``END_STEPS`` times 1 - share / expert_ended. Of measured shares, an end would be
    worth no more than going on as soon as it is done right, and how to get there is forgotten.
    """
    if not expert_ended:
        return min(
            ended_share([end.length for end in some], [end.terminated for end in some], gamma)
            for some in (ends, ends[-RECENT:])
        )
    # At most half way from the expert's share to all of the time.
    least, ratio = math.log(2.0 * expert_ended / (1.0 + expert_ended)), 0.0
    for end in ends:
        share = gamma**end.length if end.terminated else 0.0
        ratio += end.length / END_STEPS * (1.0 - share / expert_ended)
        ratio = min(max(ratio, least), LARGEST)
    return expert_ended * math.exp(-ratio)


class Learner:
    """Learns in rounds: :meth:`update`, then :meth:`collect`, until ``done``.

    ``env_steps``, ``rounds`` and ``updates`` count what was done, over all processes of the run.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        config: Settings,
        spec: EnvSpec,
        expert: ExpertData,
        steps: int,
        seed: int,
        first: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ):
        """Call :meth:`begin` or :meth:`resume` next.

        ``algorithm`` has the functions initialize, update, explore and exploit of
        ``algorithms.mairl``. ``first(obs, count)`` acts before anything is learned, None: at
        random.

        Raises:
            MairlError: settings with which no networks can be built.
        """
        self._algorithm, self._config, self._spec = algorithm, config, spec
        self._steps, self._seed, self._first = steps, seed, first
        self._ended = ended_share(expert.episode_lengths, expert.terminated, config.gamma)
        self._data = expert.transition
        self._update = jax.jit(
            partial(algorithm.update, config, spec),
            static_argnames="iterations",
            donate_argnums=0,
        )
        self._add = jax.jit(replay.add, donate_argnums=0)
        self._lost = None
        if config.patience:
            self._lost = jax.jit(partial(cast(Patient, algorithm).lost, config))
        self.env_steps = self.rounds = self.updates = 0
        random = config.warmup_steps
        self._warmup = max(1, random // config.num_envs) if random else 0
        self._shapes = self._trace()
        self.ends: list[EpisodeEnd] = []

    def key(self, stream: str, count: int) -> jax.Array:
        """The key of (seed, stream, count)."""
        return stream_key(self._seed, stream, count)

    def begin(self, collector: Collector) -> None:
        """The first steps, then networks scaled to them and to the demonstrations."""
        self._attach(collector)
        self.replay = self._empty_replay()

        def act(obs: np.ndarray, count: int) -> np.ndarray:
            rng = np.random.default_rng([self._seed, count // self._config.warmup_hold])
            return sample_random(rng, len(obs), self._spec)

        # Nothing tells yet where random steps get lost: each episode is as long as patience.
        # (What they reach sets the scales of observations: on its back, a robot's angle would be
        # scaled as if it did not matter.)
        parts, most = [], self._config.patience or max(1, self._warmup)
        for start in range(0, max(1, self._warmup), most):
            parts.append(self._take(self._first or act, min(most, self._warmup - start)))
            if self._config.patience:
                self._leave(np.ones(self._config.num_envs, bool))
        random = jax.tree.map(lambda *xs: np.concatenate(xs).reshape(-1, *xs[0].shape[2:]), *parts)
        state = self._initialize(random, self.key("initialize", 0))
        # Python scalars leave weakly typed arrays, with which the update would compile twice.
        self.state: Any = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)

    def resume(self, collector: Collector, checkpoints: Path) -> dict[str, Any]:
        """Go back to the newest checkpoint; returns what :meth:`save` was given.

        To the answer are added ``exact``, whether the environments could be put back where they
        were, and ``warnings`` (see ``checkpoint.load_latest``).

        Raises:
            MairlError: as ``checkpoint.load_latest`` and ``Collector.restore``.
        """
        self._attach(collector)
        like = {"state": self._shapes, "replay": jax.eval_shape(self._empty_replay)}
        tree, meta = checkpoint.load_latest(checkpoints, like)
        self.state, self.replay = tree["state"], tree["replay"]
        mine = meta["learner"]
        self.env_steps, self.rounds, self.updates = (
            mine[name] for name in ("env_steps", "rounds", "updates")
        )
        self.ends = [EpisodeEnd(*end) for end in mine["ends"]]
        exact = collector.restore({k: _from_text(v) for k, v in mine["collector"].items()})
        if not exact:
            self.replay = replay.break_stream(self.replay)
        return {**meta, "exact": exact}

    def save(self, checkpoints: Path, meta: Mapping[str, Any]) -> None:
        """Write a checkpoint of everything, ``meta`` included.

        Raises:
            Diverged: a parameter is not finite; nothing is written.
            MairlError: it cannot be written.
        """
        if not _all_finite(self.state):
            raise Diverged(f"a parameter is not finite at environment step {self.env_steps}")
        mine = {
            "env_steps": self.env_steps,
            "rounds": self.rounds,
            "updates": self.updates,
            "ends": self.ends,
            "collector": {k: _to_text(v) for k, v in self._collector.snapshot().items()},
        }
        tree = {"state": self.state, "replay": self.replay}
        checkpoint.save(checkpoints, f"step-{self.env_steps}", tree, {**meta, "learner": mine})

    @property
    def done(self) -> bool:
        """No environment step is left, and no update waits."""
        return not self._rows_left and self.updates >= self._due(self.rounds)

    @property
    def collecting(self) -> bool:
        """Environment steps are left."""
        return self._rows_left > 0

    @property
    def collected(self) -> int:
        """Environment steps taken with the policy."""
        return self.env_steps - self._warmup * self._config.num_envs

    def update(self) -> dict[str, float]:
        """The gradient steps that are due, one compiled program; their mean metrics.

        Where ``iterations`` per environment step is a fraction, rounds may have none to do.

        Raises:
            Diverged: a metric is not finite.
        """
        due = self._due(self.rounds)
        iterations = due - self.updates
        if not iterations:
            return {}
        self.state, metrics = self._update(
            self.state._replace(
                policy_ended=jnp.float32(
                    policy_ended(
                        self.ends,
                        self._config.gamma,
                        # Of on-policy learners' episodes only the newest are kept.
                        0.0 if self._config.on_policy else self._ended,
                    )
                )
            ),
            self.replay,
            self._expert,
            jnp.float32(self.env_steps / self._steps),
            iterations=iterations,
            key=self.key("update", self.rounds),
        )
        self.updates = due
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise Diverged(
                f"{' and '.join(bad[:3])} became {values[bad[0]]} at environment step "
                f"{self.env_steps} (update {self.updates}): learning has diverged"
            )
        return values

    def collect(self) -> list[EpisodeEnd]:
        """A few steps with the policy, as far as any are left; the episodes that ended.

        Raises:
            MairlError: as ``Collector.collect``.
        """
        if not self._rows_left:
            return []
        # The keys of a round at once, as plain words: making one per step would cost more than
        # the policy.
        words = self._explore_words(self.rounds)
        leaves, first = self._explore.pick(self.state), self.env_steps // self._config.num_envs

        def act(obs: np.ndarray, count: int) -> np.ndarray:
            return np.asarray(self._explore(leaves, obs, words[count - first]))

        before = len(self.ends)
        self._take(act, min(self._config.collect_steps, self._rows_left))
        if self._lost:
            self._leave(np.asarray(self._lost(self.state, self.replay)))
        new = self.ends[before:]
        if self._config.on_policy:
            self.ends = self.ends[-RECENT:]
        self.rounds += 1
        return new

    def exploit(self) -> Callable[[np.ndarray, int], np.ndarray]:
        """Today's deterministic policy."""
        leaves = self._exploit.pick(self.state)
        return lambda obs, _: np.asarray(self._exploit(leaves, obs))

    @property
    def _rows_left(self) -> int:
        """Steps of each environment that are still to be taken."""
        whole = self._config.collect_steps
        left = (self._steps - self.env_steps) // self._config.num_envs
        if not whole:
            return 0
        return left // whole * whole if self._config.on_policy else left

    def _trace(self) -> Any:
        """The state's shapes. Traces all, computes nothing: wrong settings show before a run."""
        key = self.key("update", 0)
        try:
            made = jax.eval_shape(partial(self._initialize, self._data), key)
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), made)
            memory = jax.eval_shape(self._empty_replay)
            update = partial(self._update, iterations=max(1, self._due(0)), key=key)
            jax.eval_shape(update, shapes, memory, self._data, jnp.float32(0.0))
        except (TypeError, ValueError, ZeroDivisionError, AssertionError) as error:
            raise MairlError(
                f"no update can be built with these settings: {error}; go back to the defaults "
                "(mairl train --help shows them) and change one at a time"
            ) from error
        return shapes

    def _due(self, rounds: int) -> int:
        """Iterations of the update that are due before the steps of a round are taken."""
        config = self._config
        if not config.collect_steps:
            return int(settled(config.iterations))
        # On-policy, for the rounds taken; else also for the one to come.
        ahead = 0 if config.on_policy or not self._rows_left else 1
        steps = (rounds + ahead) * config.collect_steps * config.num_envs
        return math.floor(steps * settled(config.iterations) + 1e-9)

    def _attach(self, collector: Collector) -> None:
        self._collector = collector
        self._expert = jax.tree.map(jnp.asarray, self._data)
        obs = np.zeros((collector.num_envs, self._spec.obs_size), np.float32)
        self._explore = _Lean(
            lambda state, obs, words: self._algorithm.explore(
                self._config, self._spec, state, obs, key=jax.random.wrap_key_data(words)
            ),
            (self._shapes, obs, self._explore_words(0)[0]),
        )
        self._exploit = _Lean(self._algorithm.exploit, (self._shapes, obs))

    def _explore_words(self, count: int) -> np.ndarray:
        keys = jax.random.split(self.key("explore", count), max(1, self._config.collect_steps))
        return np.asarray(jax.random.key_data(keys))

    def _initialize(self, random: Transition, key: jax.Array) -> Any:
        return self._algorithm.initialize(
            self._config, self._spec, self._data, random, self._ended, key=key
        )

    def _empty_replay(self) -> replay.Replay:
        num_envs = self._config.num_envs
        rows = -(-min(self._config.replay_size, self._steps) // num_envs)
        return replay.init(rows, num_envs, self._spec.obs_size, self._spec.action_size)

    def _leave(self, lost: np.ndarray) -> None:
        """Begin new episodes in the environments that are lost."""
        if lost.any():
            self.ends += self._collector.restart(np.flatnonzero(lost).tolist())
            self.replay = replay.break_stream(self.replay, lost)

    def _take(self, act: Callable[[np.ndarray, int], np.ndarray], rows: int) -> Transition:
        batch, ends = self._collector.collect(act, rows)
        self.replay = self._add(self.replay, batch.data, batch.last)
        self.ends += ends
        self.env_steps = self._collector.env_steps
        return batch.data


class _Lean:
    """A compiled function of (state, ...) that is handed only the leaves of state it reads.

    For a small network, passing all the others would cost more than the network.
    """

    def __init__(self, function: Callable[..., Any], example: tuple[Any, ...]):
        state, *rest = example
        leaves, self._structure = jax.tree.flatten(state)
        whole = jax.make_jaxpr(
            lambda leaves, *rest: function(self._structure.unflatten(leaves), *rest)
        )(leaves, *rest).jaxpr
        read = {id(variable) for equation in whole.eqns for variable in equation.invars}
        self._kept = [i for i in range(len(leaves)) if id(whole.invars[i]) in read]

        def lean(kept: list[Any], *rest: Any) -> Any:
            all_leaves: list[Any] = [None] * len(leaves)
            for i, leaf in zip(self._kept, kept, strict=True):
                all_leaves[i] = leaf
            return function(self._structure.unflatten(all_leaves), *rest)

        self._compiled = jax.jit(lean)

    def pick(self, state: Any) -> list[Any]:
        """The leaves to call with."""
        leaves = jax.tree.leaves(state)
        return [leaves[i] for i in self._kept]

    def __call__(self, picked: list[Any], *rest: Any) -> Any:
        return self._compiled(picked, *rest)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    numbers = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in numbers]))


def _to_text(array: np.ndarray) -> dict[str, Any]:
    # Not in the checkpoint's arrays: those have fixed shapes, an episode's actions do not.
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": array.shape, "base64": data}


def _from_text(text: Mapping[str, Any]) -> np.ndarray:
    data = base64.b64decode(text["base64"])
    return np.frombuffer(data, text["dtype"]).reshape(text["shape"]).copy()
