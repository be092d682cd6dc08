"""Policies: reparameterized, so that gradients pass through their samples."""

from collections.abc import Sequence

from jaxtyping import Array, Key

from mairl.policies.base import Policy
from mairl.policies.categorical import CategoricalPolicy
from mairl.policies.diagonal import DiagonalGaussianPolicy
from mairl.policies.gaussian import GaussianPolicy

__all__ = ["CategoricalPolicy", "DiagonalGaussianPolicy", "GaussianPolicy", "Policy", "make_policy"]


def make_policy(
    obs_size: int,
    action_size: int,
    discrete: bool,
    hidden: Sequence[int],
    *,
    dropout: float = 0.0,
    key: Key[Array, ""],
) -> Policy:
    """The policy that fits the action space."""
    kind = CategoricalPolicy if discrete else GaussianPolicy
    return kind(obs_size, action_size, hidden, dropout=dropout, key=key)
