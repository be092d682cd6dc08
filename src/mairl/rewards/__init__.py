"""Learned rewards."""

from mairl.rewards.airl import AIRLReward, BoundedReward, end_level, end_logits, ended_share

__all__ = ["AIRLReward", "BoundedReward", "end_level", "end_logits", "ended_share"]
