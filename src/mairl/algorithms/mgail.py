"""MGAIL: an unstructured discriminator, climbed through a learned model (Baram et al. 2017).

A composition of ``mairl``'s parts: a GRU as model, rollouts anchored to the newest real steps, no
value, no shaping, no log pi in the discriminator.
"""

from dataclasses import dataclass, field

from mairl.algorithms import mairl
from mairl.algorithms.config import (
    DynamicsConfig,
    MAIRLConfig,
    PolicyConfig,
    RewardConfig,
    ValueConfig,
)


@dataclass(frozen=True)
class MGAILConfig(MAIRLConfig):
    """All settings."""

    gamma: float | None = 0.99
    batch_size: int = 256
    iterations: float = 1 / 16
    num_envs: int = 8
    collect_steps: int = 10
    replay_size: int = 50_000
    patience: int = 0
    exploration_noise: float = 0.0
    dynamics: DynamicsConfig = field(
        default_factory=lambda: DynamicsConfig(kind="gru", width=64, depth=1, members=1, steps=2)
    )
    reward: RewardConfig = field(
        default_factory=lambda: RewardConfig(
            hidden=(200, 100), learning_rate=1e-3, imagined=0.0, bound=10.0, softplus=1.0
        )
    )
    policy: PolicyConfig = field(
        default_factory=lambda: PolicyConfig(
            hidden=(100, 50),
            horizon=10,
            anchored=True,
            learning_rate=1e-3,
            temperature=0.01,
            temperature_rate=0.0,
            cloning=0.0,
        )
    )
    value: ValueConfig = field(default_factory=lambda: ValueConfig(steps=0))


PRESETS = {"default": MGAILConfig()}
initialize, explore, exploit, update = mairl.initialize, mairl.explore, mairl.exploit, mairl.update
lost = mairl.lost
