"""Guided cost learning: maximum-entropy IRL, its partition function sampled by the policy.

The cost is -f. Its loss is the demonstrations' negative log-likelihood under p ~ exp(f), with
log Z = log mean exp(f - log pi) over what the policy, the proposal distribution, has done (Finn
et al. 2016); the policy climbs f - log Z - log pi by PPO, so that it becomes the better proposal.
Single state-action pairs are weighed, not whole trajectories, whose weights would be all but one
zero after some dozen steps (Fu et al. 2018, section 4, say why).
"""

from dataclasses import dataclass, field
from functools import partial

from mairl.algorithms import onpolicy
from mairl.algorithms.onpolicy import OnPolicyConfig, RewardBatch, RewardConfig
from mairl.losses.partition import log_partition, partition_loss
from mairl.losses.reward import slope_penalty
from mairl.rewards import AIRLReward


@dataclass(frozen=True)
class GCLConfig(OnPolicyConfig):
    """All settings."""

    reward: RewardConfig = field(default_factory=lambda: RewardConfig(log_prob=True))


PRESETS = {"default": GCLConfig()}


def likelihood_loss(c: RewardConfig, reward: AIRLReward, batch: RewardBatch, key):
    """:func:`partition_loss` of f, and the gradient penalty that keeps f finite where only the
    demonstrations go.
    """
    loss, metrics = partition_loss(
        reward.f(batch.expert), reward.f(batch.policy), batch.policy_log_prob
    )
    penalty = slope_penalty(reward, batch.expert, batch.policy, 1.0, key=key)
    metrics["reward/gradient_penalty"] = penalty
    return loss + c.gradient_penalty * penalty, metrics


def normalization(f, log_prob):
    """-log Z: a likelihood leaves a constant in f open, and f - log Z is the expert's log-odds."""
    return -log_partition(f, log_prob)[0]


initialize, explore, exploit = onpolicy.initialize, onpolicy.explore, onpolicy.exploit
update = partial(onpolicy.update, loss=likelihood_loss, offset=normalization)
