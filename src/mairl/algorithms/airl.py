"""AIRL: logit f - log pi with f = g + gamma h' - h, a policy by PPO (Fu et al. 2018).

The reward is log D - log(1 - D) = f - log pi: f with an entropy bonus of weight one.
"""

from dataclasses import dataclass, field

from mairl.algorithms import gail
from mairl.algorithms.onpolicy import OnPolicyConfig, RewardConfig


@dataclass(frozen=True)
class AIRLConfig(OnPolicyConfig):
    """All settings."""

    reward: RewardConfig = field(default_factory=lambda: RewardConfig(shaping=True, log_prob=True))


PRESETS = {"default": AIRLConfig()}
initialize, explore, exploit, update = gail.initialize, gail.explore, gail.exploit, gail.update
