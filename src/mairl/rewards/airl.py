"""The adversarial reward f = g + gamma * h(next_obs) - h(obs), and how an end counts.

This is the only file that knows the shape of f and what happens after termination.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.nets.mlp import MLP, NARROW
from mairl.types import Transition


class AIRLReward(eqx.Module):
    """f(s, a, s') = g(s, a) + gamma * (1 - terminated) * h(s') - h(s) (Fu et al. 2018, eq. 4).

    On normalized observations and inside actions. ``state_only`` makes g a function of the
    observation alone, which is what transfers to other dynamics; ``shaping`` can be switched
    off, then f = g.
    """

    reward: MLP
    potential: MLP | None
    gamma: float = eqx.field(static=True)
    state_only: bool = eqx.field(static=True)

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        hidden: Sequence[int],
        *,
        gamma: float,
        state_only: bool,
        shaping: bool,
        dropout: float = 0.0,
        key: Key[Array, ""],
    ):
        """Two networks, g and h, of the same hidden sizes."""
        g_key, h_key = jax.random.split(key)
        in_size = obs_size if state_only else obs_size + action_size
        make = partial(MLP, activation=jax.nn.tanh, dropout=dropout, scale=NARROW, out_scale=NARROW)
        self.reward = make(in_size, hidden, 1, key=g_key)
        self.potential = make(obs_size, hidden, 1, key=h_key) if shaping else None
        self.gamma = gamma
        self.state_only = state_only

    def g(
        self,
        obs: Float[Array, "*batch obs"],
        action: Float[Array, "*batch action"],
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "*batch"]:
        """The reward proper, free of shaping."""
        x = obs if self.state_only else jnp.concatenate([obs, action], -1)
        return self.reward(x, key=key)[..., 0]

    def h(
        self, obs: Float[Array, "*batch obs"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "*batch"]:
        """The potential; zero without shaping."""
        if self.potential is None:
            return jnp.zeros(obs.shape[:-1])
        return self.potential(obs, key=key)[..., 0]

    def f(
        self, transition: Transition, *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "*batch"]:
        """The shaped reward; the potential after a termination is zero."""
        g_key, h_key, next_key = (None, None, None) if key is None else jax.random.split(key, 3)
        value = self.g(transition.obs, transition.action, key=g_key)
        if self.potential is None:
            return value
        future = self.gamma * (1.0 - transition.terminated)
        next_h = self.h(transition.next_obs, key=next_key)
        return value + future * next_h - self.h(transition.obs, key=h_key)


NEVER = -1e6
"""The log-ratio of an end that no demonstration has: below any bound."""


ENDS = 64
"""How many of the policy's newest ends say what level f has there (``end_level``)."""


class BoundedReward(NamedTuple):
    """What the policy sees of f: bounded, since an adversary's logits are not.

    r = b tanh((f + live) / b), then w softplus(r / w) of it with the width w = ``softplus``; a
    width of 0 leaves it as it is. So r is log D - log(1 - D) without a width, -log(1 - D) with a
    width of 1, and wider ones keep more of a slope where f is low. ``live`` is the log-ratio of
    not having ended yet, ``ended`` that of having ended, for an end by a step of f = 0
    (``end_logits``).

    A constant added to r changes no best policy, since the time after an end gets it too, but it
    changes learning: critics start at zero, and where rewards are positive that is low for what
    was never tried (Sun et al. 2022). Centred on zero, HalfCheetah loses its gallop again.
    """

    bound: float
    softplus: float
    live: Float[Array, ""]
    ended: Float[Array, ""]

    def __call__(self, reward: AIRLReward, transition: Transition) -> Float[Array, "*batch"]:
        """The bounded reward of transitions."""
        return self.transform(reward.f(transition) + self.live)

    def after(self, logit: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The reward of each step of the time after an end, by f of the step that led there.

        Ends are not all alike: a lander that has landed and one that has crashed both have ended.
        """
        return self.transform(jnp.clip(self.ended + logit, -self.bound, self.bound))

    def transform(self, logit: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The bounded reward of a logit."""
        bounded = self.bound * jnp.tanh(logit / self.bound)
        width = self.softplus
        return width * jax.nn.softplus(bounded / width) if width else bounded


def end_logits(
    expert_ended: Float[Array, ""],
    policy_ended: Float[Array, ""],
    level: Float[Array, ""],
    bound: float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Log-ratios (expert : policy) of being past an end by a step of f = 0, and before any end.

    An episode that terminates at step T spends a share gamma^T of its discounted time in an
    absorbing state. ``expert_ended`` and ``policy_ended`` are the means of that share. The
    optimal discriminator's logit of the absorbing state is then known in closed form, and needs
    no network: log(expert_ended / policy_ended). Before the end, it adds
    log((1 - expert_ended) / (1 - policy_ended)) to the discriminator of live steps.

    An absorbing state for each kind of end has the ratio of that kind's share of the ends on top,
    which f of the last step tells but for a constant: exp(f - level), with the ``level`` at which
    it is one on average over the policy's ends (:func:`end_level`). What is returned is for f = 0.

    Where the expert never ends, an end counts as the worst there is, ``NEVER``.
    """
    expert, policy = jnp.float32(expert_ended), jnp.float32(policy_ended)
    tiny = jnp.exp(-2.0 * bound)
    ended = jnp.log(expert + tiny) - jnp.log(policy + tiny) - level
    live = jnp.log(1.0 - expert + tiny) - jnp.log(1.0 - policy + tiny)
    return jnp.where(expert > 0, ended, NEVER), jnp.clip(live, -bound, bound)


def end_level(logits: Float[Array, " n"], weights: Float[Array, " n"]) -> Float[Array, ""]:
    """log of the mean of exp(f) over steps that the policy's episodes ended with; 0 without any.

    ``weights`` are gamma^T, an end's share of its episode's discounted time, and 0 for rows that
    do not count.
    """
    total = jnp.sum(weights)
    level = jax.nn.logsumexp(logits, b=weights) - jnp.log(jnp.where(total > 0, total, 1.0))
    return jnp.where(total > 0, level, 0.0)


def ended_share(lengths: Sequence[int], terminated: Sequence[bool], gamma: float) -> float:
    """Mean over episodes of gamma^T where they terminated, else 0 (see ``end_logits``)."""
    if not lengths:
        return 0.0
    return sum(gamma**n if t else 0.0 for n, t in zip(lengths, terminated, strict=True)) / len(
        lengths
    )
