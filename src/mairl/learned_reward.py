"""A learned reward in JAX: its module and normalizer to build on, its gradient."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mairl.normalizer import Normalizer
from mairl.portable import RewardArtifact, RewardForm, layers
from mairl.rewards import AIRLReward
from mairl.types import EnvSpec, Transition


class LearnedReward(RewardArtifact):
    """A learned reward computed with JAX, one compiled program per number of rows.

    ``module`` (on normalized observations and inside actions) and ``normalizer`` are what to
    use inside JAX programs.
    """

    def __init__(
        self, spec: EnvSpec, form: RewardForm, arrays: dict[str, np.ndarray], meta: dict[str, Any]
    ):
        """Usually made by :meth:`load`."""
        super().__init__(spec, form, arrays, meta)
        self.module = _module(spec, form, arrays)
        self.normalizer = Normalizer(jnp.asarray(self._mean), jnp.asarray(self._std))

    def sensitivity(self, obs: np.ndarray, action: Any) -> np.ndarray:
        """The gradient of g, ``[obs + action]`` or ``[n, obs + action]``.

        By observations in their deviations (so that dimensions compare) and by inside actions
        (zero if ``state_only``).

        Raises:
            MairlError: as :meth:`g`.
        """
        rows, actions, single = self._inputs(obs, action)
        slopes = np.asarray(_slopes(self.module, self.normalizer, rows, actions))
        return slopes[0] if single else slopes

    def _g(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.asarray(_g(self.module, self.normalizer, obs, action))

    def _h(self, obs: np.ndarray) -> np.ndarray:
        return np.asarray(_h(self.module, self.normalizer, obs))

    def _f(
        self, obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray, terminated: np.ndarray
    ) -> np.ndarray:
        batch = Transition(obs, action, next_obs, terminated)
        return np.asarray(_f(self.module, self.normalizer, batch))


def _module(spec: EnvSpec, form: RewardForm, arrays: dict[str, np.ndarray]) -> AIRLReward:
    """The networks with the artifact's arrays in them."""
    found = layers(arrays, "reward.reward")
    build = partial(
        AIRLReward,
        spec.obs_size,
        spec.action_size,
        tuple(weight.shape[1] for weight, _ in found[:-1]),
        gamma=form.gamma,
        state_only=form.state_only,
        shaping="reward.potential.layers.0.weight" in arrays,
    )
    like = jax.eval_shape(lambda key: build(key=key), jax.random.key(0))
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return structure.unflatten([jnp.asarray(arrays[f"reward.{name}"]) for name in names])


@jax.jit
def _g(module: AIRLReward, normalizer: Normalizer, obs: jax.Array, action: jax.Array) -> jax.Array:
    return module.g(normalizer.normalize(obs), action)


@jax.jit
def _h(module: AIRLReward, normalizer: Normalizer, obs: jax.Array) -> jax.Array:
    return module.h(normalizer.normalize(obs))


@jax.jit
def _f(module: AIRLReward, normalizer: Normalizer, batch: Transition) -> jax.Array:
    obs, next_obs = normalizer.normalize(batch.obs), normalizer.normalize(batch.next_obs)
    return module.f(batch._replace(obs=obs, next_obs=next_obs))


@jax.jit
def _slopes(
    module: AIRLReward, normalizer: Normalizer, obs: jax.Array, action: jax.Array
) -> jax.Array:
    x = normalizer.normalize(obs)
    slopes = jax.grad(lambda x, a: jnp.sum(module.g(x, a)), argnums=(0, 1))(x, action)
    return jnp.concatenate(slopes, -1)
