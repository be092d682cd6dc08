"""What a policy earns along rollouts: what its own loss climbs and what critics learn."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.policies import Policy
from mairl.rollout import Rollout, mean_objective, objective
from mairl.types import Transition
from mairl.value import ActionValue


def returns(
    policy: Policy,
    steps: Rollout,
    value: ActionValue | None,
    reward: Callable[[Transition], Float[Array, "horizon batch"]],
    temperature: Float[Array, ""],
    target_entropy: float,
    end_value: Callable[[Transition], Float[Array, "horizon batch"]],
    gamma: float,
    *,
    key: Key[Array, ""],
) -> tuple[Float[Array, " batch"], Float[Array, "states batch"]]:
    """The mean over h = 0 ... H of sum_{t<h} gamma^t [r_t + temperature * entropy_t]
    + gamma^h V(s_h), and the policy's entropy at the states.

    V(s) = min over members of Q(s, a) + temperature * entropy, a ~ pi(s); without a value only the
    whole horizon counts and the return stops there, as in the paper; an end by a transition is
    worth its ``end_value``. Entropies count from ``target_entropy``: what is held on average is
    worth nothing, so living on earns no more by it than an end.

    Differentiable through all of it: actions, rewards, the model, ends and Q.
    """
    entropy = steps.entropy
    steps = steps._replace(entropy=entropy - target_entropy)
    rewards, end_values = reward(steps.transition), end_value(steps.transition)
    if value is None:
        last = jnp.zeros(steps.final_alive.shape)
        return objective(steps, rewards, temperature, end_values, last, gamma), entropy
    obs = jnp.concatenate([steps.transition.obs, steps.final_obs[None]])
    values, entropy = policy.expect(obs, value.lower, key)
    values = values + temperature * (entropy - target_entropy)
    return mean_objective(steps, rewards, temperature, end_values, values, gamma), entropy
