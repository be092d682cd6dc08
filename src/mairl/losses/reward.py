"""The discriminator's loss: expert transitions against the policy's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.rewards import AIRLReward
from mairl.types import Metrics, Transition


def reward_loss(
    reward: AIRLReward,
    expert: Transition,
    negative: Transition,
    expert_log_prob: Float[Array, " batch"],
    negative_log_prob: Float[Array, " negatives"],
    negative_weight: Float[Array, " negatives"],
    *,
    gradient_penalty: float,
    slope: float,
    expert_weight: float = 0.5,
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:
    """Binary cross-entropy with expert = 1 on logits f - log pi, plus a gradient penalty.

    AIRL's discriminator D = exp f / (exp f + pi) has the logit f - log pi (Fu et al. 2018); the
    log-probabilities are given (zeros leave the logit at f). The two classes count the same
    whatever their sizes unless ``expert_weight`` says otherwise; ``negative_weight`` weighs inside
    the negative class.
    """
    expert_key, negative_key, mix_key, pick_key = jax.random.split(key, 4)
    expert_logits = reward.f(expert, key=expert_key) - expert_log_prob
    negative_logits = reward.f(negative, key=negative_key) - negative_log_prob
    weight = negative_weight / jnp.maximum(jnp.sum(negative_weight), 1e-6)
    expert_loss = jnp.mean(jax.nn.softplus(-expert_logits))
    negative_loss = jnp.sum(weight * jax.nn.softplus(negative_logits))
    penalty = jnp.float32(0.0)
    if gradient_penalty:
        picked = jax.random.permutation(pick_key, negative_weight.shape[0])
        picked = picked[: expert.terminated.shape[0]]
        other = jax.tree.map(lambda x: x[picked], negative)
        penalty = slope_penalty(reward, expert, other, slope, key=mix_key)
    loss = 2.0 * (expert_weight * expert_loss + (1.0 - expert_weight) * negative_loss)
    loss = loss + gradient_penalty * penalty
    metrics = {
        "reward/loss": expert_loss + negative_loss,
        "reward/gradient_penalty": penalty,
        "reward/accuracy_expert": jnp.mean(expert_logits > 0),
        "reward/accuracy_policy": jnp.sum(weight * (negative_logits < 0)),
        "reward/expert_mean": jnp.mean(expert_logits),
        "reward/policy_mean": jnp.sum(weight * negative_logits),
    }
    return loss, metrics


def slope_penalty(
    reward: AIRLReward,
    expert: Transition,
    negative: Transition,
    slope: float,
    *,
    key: Key[Array, ""],
) -> Float[Array, ""]:
    """E (|grad f| - slope)^2 on points between expert and policy.

    It bounds how steep f can be, hence how sure it can be of the expert near the data: the one
    regularizer off-policy adversarial imitation does not do without (Blonde et al. 2022). A slope
    of 1 is Gulrajani et al.'s (2017, eq. 3). With 0 the game has a point of rest where both sides
    do the same; with 1 f must slope even there, and goes round it (Mescheder et al. 2018).
    """
    mix = jax.random.uniform(key, expert.terminated.shape)

    def between(e, n):
        m = mix.reshape(mix.shape + (1,) * (e.ndim - 1))
        return m * e + (1.0 - m) * n

    points = jax.tree.map(between, expert, negative)
    gradients = jax.grad(lambda p: jnp.sum(reward.f(p)))(points)
    square = sum(jnp.sum(x**2, -1) for x in (gradients.obs, gradients.action, gradients.next_obs))
    return jnp.mean((jnp.sqrt(square + 1e-8) - slope) ** 2)
