"""Environments: what learning and evaluation see of them."""

from mairl.envs.flattening import flat_size, flatten_batch, flatten_obs
from mairl.envs.gymnasium import (
    MAX_STEPS,
    Act,
    Batch,
    Collector,
    EpisodeEnd,
    Evaluation,
    episode_seed,
    evaluate_episodes,
    make,
    make_spec,
    random_return,
    sample_random,
)
from mairl.envs.table import transition_table
from mairl.envs.tasks import register_tasks

__all__ = [
    "MAX_STEPS",
    "Act",
    "Batch",
    "Collector",
    "EpisodeEnd",
    "Evaluation",
    "episode_seed",
    "evaluate_episodes",
    "flat_size",
    "flatten_batch",
    "flatten_obs",
    "make",
    "make_spec",
    "random_return",
    "sample_random",
    "transition_table",
]

register_tasks()
