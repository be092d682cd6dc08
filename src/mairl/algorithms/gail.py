"""GAIL: a discriminator of (s, a), its log-odds as reward, a policy by PPO (Ho & Ermon 2016).

The reward is -log(1 - D), the softplus of the logit. What is as published and what is not:
docs/algorithms.md.
"""

from dataclasses import dataclass, field
from functools import partial

import jax.numpy as jnp

from mairl.algorithms import onpolicy
from mairl.algorithms.onpolicy import OnPolicyConfig, RewardBatch, RewardConfig
from mairl.losses.reward import reward_loss
from mairl.rewards import AIRLReward


@dataclass(frozen=True)
class GAILConfig(OnPolicyConfig):
    """All settings."""

    reward: RewardConfig = field(default_factory=lambda: RewardConfig(softplus=1.0))


PRESETS = {"default": GAILConfig()}


def discriminator_loss(c: RewardConfig, reward: AIRLReward, batch: RewardBatch, key):
    """Binary cross-entropy on the logit f, or f - log pi if ``log_prob``; see ``reward_loss``."""
    share = float(c.log_prob)
    return reward_loss(
        reward,
        batch.expert,
        batch.policy,
        share * batch.expert_log_prob,
        share * batch.policy_log_prob,
        jnp.ones(batch.policy_log_prob.shape),
        gradient_penalty=c.gradient_penalty,
        slope=1.0,
        key=key,
    )


initialize, explore, exploit = onpolicy.initialize, onpolicy.explore, onpolicy.exploit
update = partial(onpolicy.update, loss=discriminator_loss)
