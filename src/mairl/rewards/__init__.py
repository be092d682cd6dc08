"""Learned rewards."""

from mairl.rewards.airl import ENDS, AIRLReward, BoundedReward, end_level, end_logits, ended_share

__all__ = ["ENDS", "AIRLReward", "BoundedReward", "end_level", "end_logits", "ended_share"]
