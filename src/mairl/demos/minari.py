"""Read Minari datasets that are on this machine.

Minari keeps T + 1 observations an episode and the environment's own units, as the ``.npz``
layout of :mod:`mairl.demos.formats` does, so both go through the same checks.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mairl.demos.checks import (
    as_actions,
    as_flags,
    as_observations,
    check_env_id,
    problem,
    to_trajectory,
)
from mairl.demos.formats import Demonstrations
from mairl.types import EnvSpec, MairlError

MINARI_ID = re.compile(r"[-\w]+(/[-\w]+)*-v\d+")


def minari_folder(dataset_id: str) -> Path:
    """Return where Minari keeps a dataset on this machine, whether or not it is there."""
    # Minari's own function creates the root folder; asking must not leave anything behind.
    root = os.environ.get("MINARI_DATASETS_PATH")
    base = Path(root) if root is not None else Path.home() / ".minari" / "datasets"
    return base / dataset_id


def load_minari(dataset_id: str, spec: EnvSpec) -> Demonstrations:
    """Read a Minari dataset that is on this machine and check it against ``spec``.

    Observations are flattened as the environment's are (:mod:`mairl.envs.flattening`).

    Raises:
        MairlError: the dataset is not here, cannot be read, or does not fit the environment.
    """
    with _opened(dataset_id) as dataset:
        env_id = _env_id(dataset)
        remedy = (
            f"Give a dataset of {spec.env_id} or train in {env_id}; if the two are the same task, "
            "save its episodes as an .npz file"
        )
        check_env_id(f"Minari dataset {dataset_id}", env_id, spec, remedy)
        episodes = list(dataset.iterate_episodes())
        space = dataset.observation_space
    return from_episodes(dataset_id, env_id, episodes, space, spec)


def minari_env_id(dataset_id: str) -> str | None:
    """The environment that a Minari dataset on this machine was recorded in, if it says so.

    Raises:
        MairlError: the dataset is not here, or cannot be read.
    """
    with _opened(dataset_id) as dataset:
        return _env_id(dataset)


def _env_id(dataset: Any) -> str | None:
    recorded_in = dataset.spec.env_spec
    return recorded_in.id if recorded_in is not None else None


@contextlib.contextmanager
def _opened(dataset_id: str) -> Iterator[Any]:
    """A dataset that is on this machine; what goes wrong with it becomes a MairlError."""
    where = f"Minari dataset {dataset_id}"
    if not (minari_folder(dataset_id) / "data").exists():
        found = f"is not on this machine (looked in {minari_folder(dataset_id)})"
        remedy = (
            f"Get it with: minari download {dataset_id} "
            "(or set MINARI_DATASETS_PATH to where it is)"
        )
        raise problem(where, "the dataset", found, remedy)
    try:
        import minari  # slow to import, and needed here only

        yield minari.load_dataset(dataset_id)
    except MairlError:
        raise
    except ImportError as error:
        remedy = 'Install it: pip install "minari[hdf5]"'
        raise problem(where, "the dataset", f"needs more software ({error})", remedy) from error
    except Exception as error:  # a damaged dataset fails in many ways inside Minari and HDF5
        found = f"cannot be read ({type(error).__name__}: {error})"
        remedy = f"Get it again: minari delete {dataset_id}, then minari download {dataset_id}"
        raise problem(where, "the dataset", found, remedy) from error


def from_episodes(
    dataset_id: str, env_id: str | None, episodes: list[Any], space: Any, spec: EnvSpec
) -> Demonstrations:
    """Demonstrations from Minari ``EpisodeData`` of observation space ``space``.

    Raises:
        MairlError: no episode, or one that does not fit the environment.
    """
    where = f"Minari dataset {dataset_id}"
    if not episodes:
        raise problem(where, "the dataset", "has no episode", "Choose another dataset")
    digest = hashlib.sha256()
    trajectories, returns, rewards = [], [], []
    for episode in episodes:
        here = f"{where}, episode {episode.id}"
        observations = as_observations(_flatten(episode.observations, space, here), here, spec)
        actions = as_actions(episode.actions, here, spec)
        terminations = as_flags(episode.terminations, here, "terminations")
        truncations = as_flags(episode.truncations, here, "truncations")
        trajectories.append(
            to_trajectory(here, spec, observations, actions, terminations, truncations)
        )
        rewards.append(np.asarray(episode.rewards, np.float64).reshape(-1))
        returns.append(float(np.sum(rewards[-1])))
        if not np.isfinite(returns[-1]):
            raise problem(here, "rewards", f"sum to {returns[-1]}", "Leave this episode out")
        for array in (observations, actions, terminations, truncations):
            digest.update(np.ascontiguousarray(array).tobytes())
    return Demonstrations(
        source=dataset_id,
        env_id=env_id,
        trajectories=tuple(trajectories),
        episode_returns=tuple(returns),
        expert_return=float(np.mean(returns)),
        sha256=digest.hexdigest(),
        env_rewards=tuple(rewards),
    )


def _flatten(raw: Any, space: Any, where: str) -> Any:
    """Observations of ``space`` as rows of numbers; those of a Box as they are."""
    from gymnasium import spaces

    from mairl.envs import flatten_batch

    if isinstance(space, spaces.Box):
        return raw  # Checked as those of a file are.
    try:
        return flatten_batch(space, raw)
    except (TypeError, ValueError) as error:
        remedy = "Record the dataset again, through gymnasium.wrappers.FlattenObservation"
        raise problem(where, "observations", f"cannot be read ({error})", remedy) from error
