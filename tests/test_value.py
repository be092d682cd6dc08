"""Values and returns: hand-computed targets, ends against cut-offs, the rollout's objective."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mairl.losses.returns import returns
from mairl.losses.value import surprising, temporal_difference, value_loss
from mairl.policies import Policy
from mairl.rollout import Rollout, mean_objective, objective
from mairl.types import Transition
from mairl.value import ActionValue, polyak

GAMMA = 0.9
KEY = 0


@functools.cache
def any_value(members):
    return ActionValue(1, 1, (), members, key=jax.random.key(0))


def linear_value(*weights):
    """One member per row (w_s, w_a): Q = w_s s + w_a a."""
    value = any_value(len(weights))
    kernel = jnp.float32(weights)[..., None]
    return eqx.tree_at(lambda v: v.members.layers[0].weight, value, kernel)


class Fixed(Policy):
    """a = 0.5 s with an entropy of 2, whatever the key."""

    slope: jax.Array

    def mode(self, obs):
        return self.slope * obs

    def sample(self, obs, key):
        return self.mode(obs), jnp.full(obs.shape[:-1], 2.0)

    def log_prob(self, obs, action):
        return jnp.full(obs.shape[:-1], -2.0)

    def reproduce(self, obs, action, key):
        return action, jnp.full(obs.shape[:-1], 2.0)

    def cloning_loss(self, obs, action):
        return jnp.zeros(())


def future_of(target, obs, horizon=0, terminated=0.0):
    """From ``obs`` on, a step through the model adding 1 to it and earning its action."""
    obs = jnp.stack([obs + t for t in range(horizon + 1)])
    policy, rows = Fixed(jnp.float32(0.5)), obs.shape[1]
    action, entropy = policy.sample(obs[:-1], jax.random.key(KEY))
    ends = jnp.full((horizon, rows), terminated)
    alive = jnp.stack([jnp.full(rows, (1.0 - terminated) ** t) for t in range(horizon + 1)])
    steps = Rollout(
        Transition(obs[:-1], action, obs[1:], ends), entropy, alive[:-1], obs[-1], alive[-1]
    )
    return returns(
        policy,
        steps,
        target,
        lambda transition: transition.action[..., 0],
        jnp.float32(0.1),
        1.5,
        lambda transition: jnp.full(transition.terminated.shape, 3.0),
        GAMMA,
        key=jax.random.key(KEY),
    )[0]


def loss_of(batch, rewards, value, target, end_value=7.0):
    error, metrics = temporal_difference(
        value,
        batch,
        jnp.float32(rewards),
        future_of(target, batch.next_obs),
        jnp.full(batch.terminated.shape, end_value),
        gamma=GAMMA,
    )
    return value_loss(error), metrics


def step(s, a, s2, terminated):
    column = lambda x: jnp.float32([[x]])  # noqa: E731
    return Transition(column(s), column(a), column(s2), jnp.float32([terminated]))


def test_members_are_values_of_their_own_and_lower_is_their_minimum():
    value = linear_value((1.0, 0.0), (0.0, 2.0))
    obs, action = jnp.float32([[3.0], [1.0]]), jnp.float32([[1.0], [1.0]])
    np.testing.assert_allclose(value(obs, action), [[3.0, 1.0], [2.0, 2.0]])
    np.testing.assert_allclose(value.lower(obs, action), [2.0, 1.0])
    np.testing.assert_allclose(value(obs[0], action[0]), [3.0, 2.0])


def test_layer_norm_bounds_the_value_of_unseen_actions():
    value = ActionValue(3, 2, (16, 16), 2, key=jax.random.key(0))
    near = value(jnp.ones(3), jnp.ones(2))
    far = value(jnp.ones(3), 1e6 * jnp.ones(2))
    assert jnp.all(jnp.abs(far) < 100.0)
    assert jnp.all(near != far)


def test_target_of_a_step_that_goes_on_by_hand():
    """Truncated or not: a step that did not terminate bootstraps."""
    target = linear_value((1.0, 1.0), (3.0, 0.0))
    value = linear_value((2.0, 0.0), (0.0, 1.0))
    batch = step(1.0, 0.5, 4.0, 0.0)
    # a' = 2; members 1*4 + 1*2 = 6 and 3*4 = 12, the lower is 6;
    # y = 1.5 + 0.9 * (6 + 0.1 * (2 - 1.5)) = 6.945; q = 2 and 0.5;
    # loss = [(2 - 6.945)^2 + (0.5 - 6.945)^2] / 2 = (24.453025 + 41.538025) / 2
    loss, metrics = loss_of(batch, [1.5], value, target)
    np.testing.assert_allclose(metrics["value/target"], 6.945, rtol=1e-6)
    np.testing.assert_allclose(loss, 32.995525, rtol=1e-6)
    np.testing.assert_allclose(metrics["value/mean"], 1.25, rtol=1e-6)


def test_what_follows_is_the_mean_over_horizons_by_hand():
    """Of Q alone, of one step and Q: what a critic's target is made of with ``value.horizon``."""
    target = linear_value((1.0, 1.0), (3.0, 0.0))
    obs = jnp.float32([[4.0]])
    # V(s) = min(1.5 s, 3 s) + 0.1 * (2 - 1.5): 6.05 at s = 4, 7.55 at 5.
    np.testing.assert_allclose(future_of(target, obs), [6.05], rtol=1e-6)
    # One step earns 2 and its entropy .05: 2.05 + 0.9 * 7.55 = 8.845; the mean with 6.05.
    np.testing.assert_allclose(future_of(target, obs, 1), [7.4475], rtol=1e-6)
    # It ends with a chance of a half, which is worth 3: 2.05 + 0.45 * 3 + 0.45 * 7.55 = 6.7975.
    np.testing.assert_allclose(future_of(target, obs, 1, 0.5), [6.42375], rtol=1e-6)


@pytest.mark.parametrize("end_value", [0.0, 7.0, -3.0])
def test_target_of_a_terminated_step_is_the_ends_value(end_value):
    target, value = linear_value((1.0, 1.0), (3.0, 0.0)), linear_value((2.0, 0.0), (0.0, 1.0))
    # Nothing of s' counts: y = 1.5 + 0.9 * end_value.
    y = 1.5 + 0.9 * end_value
    for s2 in (4.0, -100.0):
        _, metrics = loss_of(step(1.0, 0.5, s2, 1.0), [1.5], value, target, end_value)
        np.testing.assert_allclose(metrics["value/target"], y, rtol=1e-6, atol=1e-6)


def test_loss_is_a_mean_over_the_batch_and_a_sum_over_members():
    target, value = linear_value((0.0, 0.0), (0.0, 0.0)), linear_value((1.0, 0.0), (2.0, 0.0))
    batch = jax.tree.map(lambda *x: jnp.concatenate(x), *[step(s, 0, 0, 1.0) for s in (1.0, 3.0)])
    # y = 0: members' squares 1 + 4 and 9 + 36, halves of 5 and 45, mean 12.5.
    loss, _ = loss_of(batch, [0.0, 0.0], value, target, 0.0)
    np.testing.assert_allclose(loss, 12.5, rtol=1e-6)


def test_weights_scale_the_rows_of_the_loss():
    error = jnp.float32([[1.0, 3.0], [2.0, 0.0]])
    # Rows 1 + 4 and 9 + 0, weighted 2 and 0.5, halved, averaged.
    np.testing.assert_allclose(value_loss(error, jnp.float32([2.0, 0.5])), 3.625, rtol=1e-6)


def test_surprising_rows_come_in_proportion_to_their_error():
    """One of three rows: the shares are the errors'. Weights then are all of one row: 1."""
    error = jnp.float32([1.0, 2.0, 5.0])
    keys = jax.random.split(jax.random.key(0), 4000)
    rows, weight = jax.vmap(lambda key: surprising(key, error, 1))(keys)
    np.testing.assert_allclose(np.bincount(rows[:, 0]) / 4000, [0.125, 0.25, 0.625], atol=0.03)
    np.testing.assert_allclose(weight, 1.0)


def test_surprising_rows_differ_and_their_weights_make_up_for_half_of_the_preference():
    error = jnp.float32([0.0, 4.0, 1.0, 16.0])
    rows, weight = surprising(jax.random.key(1), error, 4)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]
    np.testing.assert_allclose(weight.mean(), 1.0, rtol=1e-6)
    by_row = dict(zip(rows.tolist(), weight.tolist(), strict=True))
    # 1 / sqrt(error): 16 against 4 against 1.
    np.testing.assert_allclose(by_row[1] / by_row[3], 2.0, rtol=1e-3)
    np.testing.assert_allclose(by_row[2] / by_row[1], 2.0, rtol=1e-3)


def test_polyak_moves_by_tau():
    old, new = linear_value((0.0, 4.0)), linear_value((10.0, 4.0))
    moved = polyak(old, new, 0.1)
    np.testing.assert_allclose(moved.members.layers[0].weight[0, :, 0], [1.0, 4.0], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, polyak(old, new, 1.0), new)


def rollout_of(entropy, terminated, alive, final_alive):
    horizon = len(entropy)
    empty = jnp.zeros((horizon, 1, 1))
    column = lambda x: jnp.float32(x).reshape(horizon, 1)  # noqa: E731
    return Rollout(
        Transition(empty, empty, empty, column(terminated)),
        column(entropy),
        column(alive),
        jnp.zeros((1, 1)),
        jnp.float32([final_alive]),
    )


def value_of(rollout, rewards, end_value, final_value, temperature=0.5):
    return objective(
        rollout,
        jnp.float32(rewards).reshape(-1, 1),
        jnp.float32(temperature),
        jnp.full((len(rewards), 1), end_value),
        jnp.float32([final_value]),
        GAMMA,
    )


def test_objective_by_hand():
    rollout = rollout_of([2.0, 4.0], [0.0, 0.0], [1.0, 1.0], 1.0)
    # (1 + 0.5 * 2) + 0.9 (3 + 0.5 * 4) + 0.81 * 10 = 2 + 4.5 + 8.1
    np.testing.assert_allclose(value_of(rollout, [1.0, 3.0], 100.0, 10.0), [14.6], rtol=1e-6)


def test_mean_objective_is_the_mean_over_horizons():
    rollout = rollout_of([2.0, 4.0], [0.0, 0.5], [1.0, 1.0], 0.5)
    rewards, values = jnp.float32([[1.0], [3.0]]), jnp.float32([[7.0], [8.0], [10.0]])
    found = mean_objective(
        rollout, rewards, jnp.float32(0.5), jnp.full((2, 1), 100.0), values, GAMMA
    )
    whole = value_of(rollout, [1.0, 3.0], 100.0, 10.0)
    # 7; then (1 + 0.5 * 2) + 0.9 * 8; then all of it
    np.testing.assert_allclose(found, (7.0 + 9.2 + whole) / 3, rtol=1e-6)


def test_mean_objective_without_steps_is_the_value():
    empty = jnp.zeros((0, 1))
    rollout = rollout_of([], [], [], 1.0)
    found = mean_objective(rollout, empty, jnp.float32(0.5), empty, jnp.float32([[7.0]]), GAMMA)
    np.testing.assert_allclose(found, [7.0])


def test_objective_after_a_termination_is_the_ends_value():
    rollout = rollout_of([0.0, 0.0], [1.0, 0.0], [1.0, 0.0], 0.0)
    # 1 + 0.9 * 100; neither the second step nor the final value counts.
    np.testing.assert_allclose(value_of(rollout, [1.0, 3.0], 100.0, 10.0), [91.0], rtol=1e-6)


def test_objective_weighs_a_chance_of_an_end():
    # Ends with chance 1/4 after the first step, 1/2 after the second.
    rollout = rollout_of([0.0, 0.0], [0.25, 0.5], [1.0, 0.75], 0.375)
    # 1 + 0.9 * 0.25 * 100 + 0.9 * 0.75 * (3 + 0.9 * 0.5 * 100) + 0.81 * 0.375 * 10
    # = 1 + 22.5 + 32.4 + 3.0375
    np.testing.assert_allclose(value_of(rollout, [1.0, 3.0], 100.0, 10.0), [58.9375], rtol=1e-6)


def test_objective_at_horizon_zero_is_the_final_value():
    rollout = rollout_of([], [], [], 1.0)
    np.testing.assert_allclose(value_of(rollout, [], 100.0, 10.0), [10.0], rtol=1e-6)
