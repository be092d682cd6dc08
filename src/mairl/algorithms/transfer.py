"""A frozen reward in another environment: MAIRL with the reward step left out.

    dynamics   fit F(s, a) to the target's replay alone
    value      Q of the frozen g, on replay
    policy     climb that reward through rollouts and Q, as ``algorithms.mairl`` does

The source's demonstrations take no part: their next observations are those of other dynamics,
which would spoil model and value, and their actions are what the changed body or maze makes
wrong. What the source knew enters through g alone, and through warm starts where asked for.

Observations keep the source's scales, since those are what g was learned on.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import tyro
from jaxtyping import Array, Float, Key

from mairl import replay as replays
from mairl.algorithms import mairl
from mairl.algorithms.config import MAIRLConfig, PolicyConfig, RewardConfig, ValueConfig
from mairl.algorithms.mairl import Candidates, Learner, Parameters, State
from mairl.normalizer import Normalizer
from mairl.rewards import AIRLReward
from mairl.types import EnvSpec, Metrics, Transition
from mairl.value import ActionValue


@dataclass(frozen=True)
class TransferPolicyConfig(PolicyConfig):
    """The policy and how it climbs."""

    horizon: int | None = None
    """Steps through the model that the gradient takes. None: as in the run whose reward it is, but
    0 if that had no critics."""
    cloning: tyro.conf.Suppress[float] = 0.0
    """There is nothing to clone."""


@dataclass(frozen=True)
class TransferSettings(MAIRLConfig):
    """All settings of a transfer."""

    gamma: float | None = None
    """Discount of one step. None: as in the run whose reward it is."""
    batch_size: int = 128
    """All of them replayed transitions."""
    demonstrated: tyro.conf.Suppress[float] = 0.5
    """There are no demonstrations."""
    iterations: float = 2.0
    """Iterations per environment step."""
    exploration_noise: float = 0.0
    """Deviation of the noise that is added to continuous actions while collecting, where actions
    go from -1 to 1. The temperature has the policy explore already."""
    patience: tyro.conf.Suppress[int] = 0
    """A frozen reward is no judge of when an episode is lost."""
    reward: tyro.conf.Suppress[RewardConfig] = field(default_factory=RewardConfig)
    """That of the run."""
    policy: TransferPolicyConfig = field(default_factory=TransferPolicyConfig)


PRESETS = {
    "default": TransferSettings(
        warmup_steps=4000,
        warmup_hold=10,
        policy=TransferPolicyConfig(learning_rate=3e-4, temperature=1.0, target_entropy=-1.0),
        value=ValueConfig(learning_rate=1e-3),
    )
}
"""There is nothing to clone. Nor do demonstrations show where to go: many first steps are random,
each action held for a while, so that it gets somewhere. The reward is in units of the temperature
it was learned at, which is where the policy's begins; as it does not move, policy and critics may
learn faster than in an adversarial game."""


class WarmStart(NamedTuple):
    """All that the source had learned; ``delta_scale`` is the model's unit.

    Model and policy are not enough: critics that know nothing yet, and a price of entropy that
    begins high, make the policy forget within a few hundred steps.
    """

    params: Parameters
    target_value: ActionValue
    delta_scale: Float[Array, " obs"]


class TransferStep(mairl.Step):
    """MAIRL's steps without the reward's, on replay alone."""

    def reward(self, learner: Learner, key: Key[Array, ""]) -> tuple[Learner, Metrics]:
        """The reward stays as it is."""
        return learner, {}

    def value(
        self, learner: Learner, key: Key[Array, ""], drawn: Candidates | None = None
    ) -> tuple[Learner, Metrics]:
        """As in MAIRL; there is no expert to report the reward of."""
        learner, metrics = super().value(learner, key, drawn)
        metrics.pop("reward/mean_expert", None)
        return learner, metrics

    def _expert(self, key: Key[Array, ""], n: int) -> Transition:
        return self._replay(key, n)

    def _segments(self, key, n: int, length: int):
        return replays.sample_segments(self.replay, key, n, length)


class Transfer:
    """The algorithm, for one source; ``explore`` and ``exploit`` are MAIRL's."""

    PRESETS = PRESETS
    explore = staticmethod(mairl.explore)
    exploit = staticmethod(mairl.exploit)
    update = staticmethod(partial(mairl.update, steps=TransferStep))

    def __init__(self, reward: AIRLReward, normalizer: Normalizer, warm: WarmStart | None = None):
        """Keep g of ``reward``: its potential spoke of the source's dynamics."""
        shaped = reward.potential is not None
        self._reward = eqx.tree_at(lambda r: r.potential, reward, None) if shaped else reward
        self._normalizer, self._warm = normalizer, warm

    def initialize(
        self,
        config: MAIRLConfig,
        spec: EnvSpec,
        expert: Transition,
        random: Transition,
        expert_ended: float,
        *,
        key: Key[Array, ""],
    ) -> State:
        """The source's reward and scales; fresh networks, or the source's where warm.

        ``expert_ended`` is that of the source's demonstrations: an end counts as it did there.
        """
        state = mairl.initialize(
            config, spec, random, random, expert_ended, normalizer=self._normalizer, key=key
        )
        if self._warm is not None:
            state = state._replace(**self._warm._asdict())
        state = state._replace(params=state.params._replace(reward=self._reward))
        # An update takes its buffers away; the source's policy is still to be measured.
        return jax.tree.map(jnp.copy, state)
