"""A training run: collect, update, evaluate, checkpoint, log.

    check everything a user can get wrong
    begin (random steps, fresh networks) or resume (the newest checkpoint)
    repeat until the environment steps are used up:
        update      many gradient steps, one compiled program
        collect     a few environment steps with the policy just updated
        report, evaluate, save, where due
    final evaluation, result.json, the policy and the reward to hand on

What is learned depends on the configuration alone: keys come from (seed, stream, count), the
number of updates from the number of environment steps, nothing from the clock. A resumed run
therefore equals an uninterrupted one bit for bit, wherever the environment can be played back
to where it was (see ``Collector.restore``).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from mairl import demos as demonstrations
from mairl import envs
from mairl.algorithms.mairl import PRESETS, MAIRLConfig
from mairl.compilation import use_compilation_cache
from mairl.interrupts import Interrupted, Interrupts
from mairl.learner import Diverged, Learner
from mairl.report.progress import Progress
from mairl.rundir import RunDirectory, command, describe, read_json
from mairl.types import EnvSpec, MairlError

__all__ = ["Diverged", "Interrupted", "Run", "TrainConfig", "train"]
