"""Choose episodes and keep every k-th transition: the scarce data a learner is given."""

from dataclasses import dataclass

import numpy as np

from mairl.demos.formats import Demonstrations
from mairl.types import MairlError, Trajectory, Transition


@dataclass(frozen=True)
class ExpertData:
    """The demonstrations a learner sees.

    transition: NumPy ``[N, ...]`` float32, episode after episode, in time order.
    episodes: how many were chosen. every: one transition of each ``every`` was kept.
    episode_lengths: full lengths of the chosen episodes, in steps. terminated: how each ended.
    """

    transition: Transition
    episodes: int
    every: int
    episode_lengths: tuple[int, ...]
    terminated: tuple[bool, ...]

    @property
    def ends(self) -> bool:
        """Whether most of the episodes ended by themselves, not by time."""
        return 2 * sum(self.terminated) > len(self.terminated)


def subsample(demos: Demonstrations, episodes: int | None, every: int, seed: int) -> ExpertData:
    """Draw ``episodes`` episodes (None: all) and keep every ``every``-th transition of each.

    The first kept step is uniform in ``[0, min(every, T))``, so each episode gives at least
    one. With one seed, a smaller number of episodes is a subset of a larger one, and an
    episode keeps the same transitions: learning curves over it compare like with like.

    Raises:
        MairlError: fewer than one episode or more than there are, or ``every`` below one.
    """
    available = len(demos.trajectories)
    wanted = available if episodes is None else episodes
    if not 1 <= wanted <= available:
        raise MairlError(
            f"{demos.source}: {wanted} episodes asked for, but it has {available}. "
            f"Ask for 1 to {available}."
        )
    if every < 1:
        raise MairlError(
            f"cannot keep every {every}-th transition. Ask for 1 (all of them) or more."
        )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(available)[:wanted])
    lengths = np.array([len(trajectory) for trajectory in demos.trajectories])
    offsets = rng.integers(0, np.minimum(every, lengths))
    parts = [_every(demos.trajectories[i], int(offsets[i]), every) for i in chosen]
    return ExpertData(
        transition=Transition(*(np.concatenate(field) for field in zip(*parts, strict=True))),
        episodes=wanted,
        every=every,
        episode_lengths=tuple(int(lengths[i]) for i in chosen),
        terminated=tuple(demos.trajectories[i].terminated for i in chosen),
    )


def _every(trajectory: Trajectory, offset: int, every: int) -> Transition:
    kept = np.arange(offset, len(trajectory), every)
    last = kept == len(trajectory) - 1
    return Transition(
        obs=trajectory.observations[kept],
        action=trajectory.actions[kept],
        next_obs=trajectory.observations[kept + 1],
        terminated=(last & trajectory.terminated).astype(np.float32),
    )
