"""Learned dynamics: predict the change of the observation and the chance of an end.

A new kind is one file and one line of :data:`DYNAMICS`; registering it puts it under the
contract tests.
"""

from collections.abc import Callable

from jaxtyping import Array, Key

from mairl.dynamics.attention import ReleasedDynamics, TokenAttentionDynamics
from mairl.dynamics.base import Carry, Dynamics, MarkovDynamics, Prediction
from mairl.dynamics.ensemble import Ensemble, mean
from mairl.dynamics.gru import GRUDynamics
from mairl.dynamics.mlp import MLPDynamics
from mairl.dynamics.window import WindowDynamics
from mairl.types import MairlError

NUM_TOKENS = 2  # few, wide tokens are faster, and on Hopper better: docs/dynamics.md
HEADS = 4


def _up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


def _mlp(obs_size: int, action_size: int, width: int, depth: int, *, key: Key[Array, ""]):
    return MLPDynamics(obs_size, action_size, (width,) * depth, key=key)


def _tokens(obs_size: int, action_size: int, width: int, depth: int, *, key: Key[Array, ""]):
    return TokenAttentionDynamics(
        obs_size,
        action_size,
        num_tokens=NUM_TOKENS,
        width=_up(width, NUM_TOKENS * HEADS) // NUM_TOKENS,
        layers=depth,
        heads=HEADS,
        key=key,
    )


def _window(obs_size: int, action_size: int, width: int, depth: int, *, key: Key[Array, ""]):
    return WindowDynamics(
        obs_size, action_size, width=_up(width, HEADS), layers=depth, heads=HEADS, key=key
    )


def _released(obs_size: int, action_size: int, width: int, depth: int, *, key: Key[Array, ""]):
    return ReleasedDynamics(obs_size, action_size, _up(width, HEADS), depth, heads=HEADS, key=key)


def _gru(obs_size: int, action_size: int, width: int, depth: int, *, key: Key[Array, ""]):
    return GRUDynamics(obs_size, action_size, width, depth, key=key)


DYNAMICS: dict[str, Callable[..., Dynamics]] = {
    "tokens": _tokens,
    "window": _window,
    "released": _released,
    "mlp": _mlp,
    "gru": _gru,
}
"""Kind to builder ``(obs_size, action_size, width, depth, *, key)``."""


def make_dynamics(
    kind: str, obs_size: int, action_size: int, width: int, depth: int, *, key: Key[Array, ""]
) -> Dynamics:
    """Build a model of a registered kind.

    ``width`` is the size of the features that pass between layers, ``depth`` the number of layers:

    - ``mlp``: ``depth`` hidden layers of ``width``;
    - ``tokens``: ``depth`` attention blocks over 2 tokens of ``width / 2`` each (side by side they
      are ``width`` wide), 4 heads;
    - ``window``: ``depth`` attention blocks of ``width`` over the last 8 steps, 4 heads;
    - ``released``: embeddings of ``width``, ``depth`` hidden layers in the decoder, 4 heads;
    - ``gru``: hidden vector of ``width``, ``depth`` layers in the head.

    Attention rounds ``width`` up to what its heads divide.

    Raises:
        MairlError: for an unknown kind; the message lists the known ones.
    """
    if kind not in DYNAMICS:
        raise MairlError(f"unknown dynamics {kind!r}; choose one of {', '.join(DYNAMICS)}")
    return DYNAMICS[kind](obs_size, action_size, width, depth, key=key)


__all__ = [
    "DYNAMICS",
    "Carry",
    "Dynamics",
    "Ensemble",
    "GRUDynamics",
    "MLPDynamics",
    "MarkovDynamics",
    "Prediction",
    "ReleasedDynamics",
    "TokenAttentionDynamics",
    "WindowDynamics",
    "make_dynamics",
    "mean",
]
