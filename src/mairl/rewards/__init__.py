"""Learned rewards."""

from mairl.rewards.airl import AIRLReward, end_logits, ended_share

__all__ = ["AIRLReward", "end_logits", "ended_share"]
