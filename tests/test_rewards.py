"""The adversarial reward: its shape, its bounds, its loss, and what an end is worth."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mairl.envs import EpisodeEnd
from mairl.learner import END_STEPS, LARGEST, policy_ended
from mairl.losses.reward import reward_loss, slope_penalty
from mairl.rewards import AIRLReward, BoundedReward, end_level, end_logits, ended_share
from mairl.rewards.airl import NEVER
from mairl.types import Transition

GAMMA = 0.9
BOUND = 5.0


@functools.cache
def any_reward(state_only, shaping):
    return AIRLReward(
        1, 1, (), gamma=GAMMA, state_only=state_only, shaping=shaping, key=jax.random.key(0)
    )


def linear_reward(g_weight, h_weight=None, state_only=False):
    """g = g_weight . [s, a], h = h_weight . s, for one observation and one action dimension."""
    reward = any_reward(state_only, h_weight is not None)
    weight = lambda r: r.reward.layers[0].weight  # noqa: E731
    reward = eqx.tree_at(weight, reward, jnp.float32(g_weight)[:, None])
    if h_weight is not None:
        weight = lambda r: r.potential.layers[0].weight  # noqa: E731
        reward = eqx.tree_at(weight, reward, jnp.float32([[h_weight]]))
    return reward


def steps(*rows):
    """Transitions from rows (s, a, s', terminated)."""
    s, a, s2, end = np.float32(rows).T
    return Transition(*(jnp.asarray(x) for x in (s[:, None], a[:, None], s2[:, None], end)))


def bounded(logit, softplus):
    seen = BoundedReward(BOUND, float(softplus), jnp.float32(0.0), jnp.float32(0.0))
    return np.asarray(seen.transform(jnp.float32(logit)))


# --- f = g + gamma (1 - terminated) h' - h ----------------------------------------------------


def test_f_by_hand():
    # g = 2 s + 3 a, h = 10 s, gamma = 0.9.
    reward = linear_reward([2.0, 3.0], 10.0)
    batch = steps((1.0, 1.0, 2.0, 0.0), (1.0, 1.0, 2.0, 1.0), (0.5, -1.0, 0.0, 0.0))
    np.testing.assert_allclose(reward.g(batch.obs, batch.action), [5.0, 5.0, -2.0])
    np.testing.assert_allclose(reward.h(batch.obs), [10.0, 10.0, 5.0])
    # 5 + 0.9 * 20 - 10 = 13; after a termination nothing follows: 5 - 10; -2 + 0 - 5.
    np.testing.assert_allclose(reward.f(batch), [13.0, -5.0, -7.0], rtol=1e-6)


def test_a_likely_termination_counts_the_potential_in_part():
    # 0 + 0.9 * (1 - 0.25) * 20 - 10
    np.testing.assert_allclose(
        linear_reward([0.0, 0.0], 10.0).f(steps((1.0, 0.0, 2.0, 0.25))), [3.5], rtol=1e-6
    )


def test_without_shaping_f_is_g():
    reward = linear_reward([2.0, 3.0])
    batch = steps((1.0, 1.0, 2.0, 0.0), (1.0, 1.0, 2.0, 1.0))
    np.testing.assert_array_equal(reward.f(batch), reward.g(batch.obs, batch.action))
    np.testing.assert_array_equal(reward.h(batch.obs), [0.0, 0.0])
    assert len(jax.tree.leaves(reward)) == 2


@pytest.mark.parametrize("state_only", [False, True])
def test_state_only_ignores_the_action(state_only):
    reward = AIRLReward(
        3, 2, (16, 16), gamma=GAMMA, state_only=state_only, shaping=True, key=jax.random.key(1)
    )
    obs = jnp.ones(3)
    slope = jax.grad(reward.g, argnums=1)(obs, jnp.zeros(2))
    assert bool(jnp.all(slope == 0)) == state_only
    assert jnp.any(jax.grad(reward.g)(obs, jnp.zeros(2)) != 0)


@pytest.mark.parametrize("terminated", [False, True])
def test_shaping_telescopes_along_a_trajectory(terminated):
    """sum_t gamma^t f = sum_t gamma^t g - h(s_0) + gamma^T h(s_T), the last not after an end."""
    reward = AIRLReward(
        3, 2, (16, 16), gamma=GAMMA, state_only=False, shaping=True, key=jax.random.key(1)
    )
    rng = np.random.default_rng(0)
    length = 7
    path = jnp.asarray(rng.normal(size=(length + 1, 3)), jnp.float32)
    action = jnp.asarray(rng.normal(size=(length, 2)), jnp.float32)
    end = jnp.zeros(length).at[-1].set(float(terminated))
    discount = GAMMA ** jnp.arange(length)
    total_f = jnp.sum(discount * reward.f(Transition(path[:-1], action, path[1:], end)))
    total_g = jnp.sum(discount * reward.g(path[:-1], action))
    future = 0.0 if terminated else GAMMA**length * reward.h(path[-1])
    np.testing.assert_allclose(total_f, total_g - reward.h(path[0]) + future, rtol=1e-4)
    assert abs(reward.h(path[-1])) > 0.01


# --- What the policy sees ----------------------------------------------------------------------


def test_bounded_reward_by_hand():
    # 5 tanh(1) = 3.80797; softplus(3.80797) = 3.80797 + log(1 + e^-3.80797) = 3.82991
    np.testing.assert_allclose(bounded(5.0, False), 3.80797, rtol=1e-5)
    np.testing.assert_allclose(bounded(5.0, True), 3.82991, rtol=1e-5)
    # Near zero nothing is bounded: log D - log(1 - D) is the logit, -log(1 - D) its softplus.
    np.testing.assert_allclose(bounded(0.01, False), 0.01, rtol=1e-5)
    np.testing.assert_allclose(bounded(0.0, True), np.log(2.0), rtol=1e-6)
    np.testing.assert_allclose(bounded(0.0, 2.5), 2.5 * np.log(2.0), rtol=1e-6)


def test_bounded_reward_stays_in_its_bounds_and_keeps_the_order():
    logits = np.linspace(-14.0, 14.0, 57)
    plain, positive, wide = (bounded(logits, width) for width in (0.0, 1.0, 2.5))
    assert np.all(np.abs(plain) <= BOUND)
    assert np.all(np.diff(plain) > 0)
    assert np.all(np.diff(positive) > 0)
    # Wider: more of the slope is left where the logit is low, and nothing is negative.
    assert np.all(wide > 0)
    low = slice(12, 24)
    assert np.all(np.diff(wide)[low] > np.diff(positive)[low])
    extremes = bounded([-1e6, 1e6], False)
    np.testing.assert_allclose(extremes, [-5.0, 5.0])
    # softplus(-5) = 0.00671535, softplus(5) = 5.00671535
    np.testing.assert_allclose(bounded([-1e6, 1e6], True), [0.00671535, 5.00671535], rtol=1e-5)


def test_bounded_reward_of_transitions_adds_the_logit_of_being_alive():
    reward, batch = linear_reward([2.0, 3.0]), steps((1.0, 1.0, 0.0, 0.0))
    seen = BoundedReward(BOUND, False, jnp.float32(-4.0), jnp.float32(0.0))(reward, batch)
    np.testing.assert_allclose(seen, [BOUND * np.tanh((5.0 - 4.0) / BOUND)], rtol=1e-6)


def test_dropout_acts_in_the_loss_only():
    """The discriminator learns with dropout; the policy climbs the reward without."""
    make = lambda dropout: AIRLReward(  # noqa: E731
        3,
        2,
        (16, 16),
        gamma=GAMMA,
        state_only=False,
        shaping=True,
        dropout=dropout,
        key=jax.random.key(1),
    )
    obs = jnp.ones((8, 3))
    batch = Transition(obs, jnp.ones((8, 2)), 2 * obs, jnp.zeros(8))
    seen = BoundedReward(BOUND, False, jnp.float32(0.0), jnp.float32(0.0))
    np.testing.assert_array_equal(seen(make(0.5), batch), seen(make(0.0), batch))
    dropped = make(0.5).f(batch, key=jax.random.key(0))
    # All rows are alike: only dropout tells them apart.
    assert len(np.unique(dropped)) > 1
    np.testing.assert_allclose(make(0.0).f(batch, key=jax.random.key(0)), make(0.0).f(batch))


# --- What an end is worth ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([], 0.0),
        # Early falls, then none: the newest count, and falls are not held against it for good.
        ([(1, True)] * 90 + [(50, False)] * 10, 0.0),
        # Done right lately: all count, and an end stays worth something.
        ([(50, False)] * 10 + [(2, True)] * 10, 0.81 / 2),
    ],
)
def test_policy_ended_is_the_smaller_of_all_episodes_share_and_the_newest_ones(ends, expected):
    found = policy_ended([EpisodeEnd(*end) for end in ends], GAMMA)
    np.testing.assert_allclose(found, expected)


def test_an_end_that_the_expert_makes_gets_dearer_until_the_policy_makes_it_as_often():
    def ratio(*ends):
        share = policy_ended([EpisodeEnd(*end) for end in ends], GAMMA, expert)
        return np.log(expert / share)

    expert = GAMMA**2
    never, alike = (END_STEPS // 2, False), (2, True)
    np.testing.assert_allclose(ratio(), 0.0)
    np.testing.assert_allclose(ratio(never), 0.5)
    # Done as the expert does it, an end stays worth what it took to get there.
    np.testing.assert_allclose(ratio(never, *[alike] * 1000), 0.5)
    # Sooner than the expert: too dear.
    np.testing.assert_allclose(
        ratio(never, *[(1, True)] * 100), 0.5 - 100 / END_STEPS * (1 / GAMMA - 1)
    )
    np.testing.assert_allclose(ratio(*[never] * 100), LARGEST)
    # However often it ends too soon, half of what the expert goes on for is left.
    share = policy_ended([EpisodeEnd(1, True)] * 10**5, GAMMA, expert)
    np.testing.assert_allclose(share, (1 + expert) / 2)


def test_ended_share_by_hand():
    # (0.9^2 + 0 + 0.9^3) / 3: an episode that was cut off spends no time after an end.
    np.testing.assert_allclose(
        ended_share([2, 5, 3], [True, False, True], GAMMA), (0.81 + 0.0 + 0.729) / 3
    )
    assert ended_share([], [], GAMMA) == 0.0


def test_end_logits_by_hand():
    def logits(expert, policy, level=0.0):
        return end_logits(*map(jnp.float32, (expert, policy, level)), BOUND)

    # log(0.2 / 0.5) and log(0.8 / 0.5)
    np.testing.assert_allclose(logits(0.2, 0.5), [-0.916291, 0.470004], rtol=1e-3)
    # f is counted from its level at the policy's ends.
    np.testing.assert_allclose(logits(0.2, 0.5, -2.0), [1.083709, 0.470004], rtol=1e-3)
    # The expert never ends: no end is worth anything, living is what tells the expert.
    np.testing.assert_allclose(logits(0.0, 0.5, -2.0), [NEVER, 0.693147], rtol=1e-3)
    # Neither ends: an end would still be the worst, and nothing else changes.
    np.testing.assert_allclose(logits(0.0, 0.0), [NEVER, 0])
    # The expert always ends at once, the policy never: as good, and as bad, as can be.
    np.testing.assert_allclose(logits(1.0, 0.0), [2 * BOUND, -BOUND], rtol=1e-4)


def test_what_follows_an_end_is_bounded_and_goes_by_the_step_that_led_there():
    seen = BoundedReward(BOUND, 0.0, jnp.float32(3.0), jnp.float32(0.5))
    found = seen.after(jnp.array([-1.5, 0.0, 100.0]))
    b = BOUND
    np.testing.assert_allclose(found, b * np.tanh(np.array([-1.0, 0.5, b]) / b), rtol=1e-6)
    never = seen._replace(ended=jnp.float32(NEVER)).after(jnp.array([-9.0, 0.0, 9.0]))
    np.testing.assert_allclose(never, b * np.tanh(-1.0), rtol=1e-6)


def test_end_level_by_hand():
    # log((1 * e^0 + 3 * e^log 2) / 4), the third row not counting
    logits, weights = jnp.array([0.0, np.log(2.0), 50.0]), jnp.array([0.1, 0.3, 0.0])
    np.testing.assert_allclose(end_level(logits, weights), np.log(7 / 4), rtol=1e-5)
    assert end_level(logits, jnp.zeros(3)) == 0.0


class Chain:
    """A finite world with ends, solved exactly; arrays ``[state, action]``.

    From each state each action leads to the other states or to the end, with probabilities that
    sum to 1. ``occupancy`` is that of a policy from state 0, discounted, all of it 1 together
    with the share of time after the end.
    """

    def __init__(self, next_state, end):
        self.next_state, self.end = next_state, end

    @classmethod
    def corridor(cls, length=4):
        """Action 0 goes on (the last state repeats), action 1 ends the episode."""
        next_state = np.zeros((length, 2, length))
        next_state[np.arange(length), 0, np.minimum(np.arange(length) + 1, length - 1)] = 1.0
        end = np.tile([0.0, 1.0], (length, 1))
        return cls(next_state, end)

    def occupancy(self, policy):
        move = np.einsum("sa,sat->st", policy, self.next_state)
        start = np.eye(len(move))[0]
        visits = np.linalg.solve(np.eye(len(move)) - GAMMA * move.T, (1 - GAMMA) * start)
        live = visits[:, None] * policy
        # Ended at t + 1: from there on gamma^(t + 1) / (1 - gamma), times (1 - gamma).
        return live, np.sum(self.ends(live))

    def ends(self, live):
        """Shares ``[state, action]`` of the time after an end by each state and action."""
        return GAMMA / (1 - GAMMA) * live * self.end

    def action_values(self, policy, reward, end_value):
        """Q of a policy that earns ``reward``, and ``end_value [state, action]`` at an end."""
        move = np.einsum("sa,sat->st", policy, self.next_state)
        now = reward + GAMMA * self.end * end_value
        value = np.linalg.solve(np.eye(len(move)) - GAMMA * move, np.sum(policy * now, -1))
        return now + GAMMA * self.next_state @ value

    def learned(self, expert, policy):
        """The optimal discriminator's logits of live steps, as trained: classes of equal weight.

        Then the shares of time after an end, and the level of the logits at the policy's ends.
        """
        (e, e_ended), (p, p_ended) = self.occupancy(expert), self.occupancy(policy)
        logits = np.log(e / (1 - e_ended)) - np.log(p / (1 - p_ended))
        level = end_level(jnp.asarray(logits.ravel()), jnp.asarray(self.ends(p).ravel()))
        return logits, jnp.float32(e_ended), jnp.float32(p_ended), level


def constant(chance, length=4):
    """Ends with the same chance everywhere."""
    return np.tile([1.0 - chance, chance], (length, 1))


def neutral(logits, e_ended, p_ended, level, softplus):
    """Rewards of live steps, and the values of ends by them, as the algorithm has them."""
    ended, live = end_logits(e_ended, p_ended, level, BOUND)
    seen, logits = BoundedReward(BOUND, softplus, live, ended), jnp.asarray(logits)
    return np.asarray(seen.transform(logits + live)), np.asarray(seen.after(logits)) / (1 - GAMMA)


def naive_positive(logits, *_):
    """GAIL's -log(1 - D), and nothing after an end."""
    return np.logaddexp(0.0, logits), 0.0


def naive_negative(logits, *_):
    """log D, and nothing after an end."""
    return -np.logaddexp(0.0, -logits), 0.0


def lean_to_end(expert_chance, policy_chance, treatment):
    """The policy gradient's push from living to ending, sum_s visits(s) [Q(s, 1) - Q(s, 0)]."""
    world, expert, policy = Chain.corridor(), constant(expert_chance), constant(policy_chance)
    reward, end_value = treatment(*world.learned(expert, policy))
    values = world.action_values(policy, reward, end_value)
    visits = np.sum(world.occupancy(policy)[0], -1)
    return np.sum(visits * (values[:, 1] - values[:, 0]))


def test_occupancies_by_hand():
    """Ending with chance p each step, T is geometric: E gamma^T = gamma p / (1 - gamma (1 - p))."""
    live, ended = Chain.corridor().occupancy(constant(0.3))
    np.testing.assert_allclose(ended, 0.27 / 0.37)
    np.testing.assert_allclose(np.sum(live) + ended, 1.0)
    # The same from sampled episodes, as the training loop measures it.
    lengths = np.random.default_rng(0).geometric(0.3, 20_000).tolist()
    share = ended_share(lengths, [True] * len(lengths), GAMMA)
    np.testing.assert_allclose(share, 0.27 / 0.37, atol=0.01)


def test_end_logits_are_the_optimal_discriminators():
    """log-ratios of the full occupancies: of live steps with ``live`` added, and of each end."""
    world = Chain.corridor()
    world.end[:, 0], world.next_state[:, 0] = 0.1, world.next_state[:, 0] * 0.9
    rng = np.random.default_rng(0)
    expert, policy = rng.dirichlet(np.ones(2), (2, 4))
    (e, _), (p, _) = world.occupancy(expert), world.occupancy(policy)
    logits, *known = world.learned(expert, policy)
    ended, live = end_logits(*known, BOUND)
    np.testing.assert_allclose(logits + float(live), np.log(e / p), rtol=1e-3, atol=1e-4)
    ratio = np.log(world.ends(e) / world.ends(p))
    np.testing.assert_allclose(logits + float(ended), ratio, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("softplus", [0.0, 1.0, 2.5])
def test_at_the_experts_own_policy_an_end_is_worth_what_living_is(softplus):
    """All logits are 0, so every step, live or ended, pays the same: r / (1 - gamma) in all."""
    world, expert = Chain.corridor(), constant(0.3)
    reward, end_value = neutral(*world.learned(expert, expert), softplus)
    values = world.action_values(expert, reward, end_value)
    each = softplus * np.log(2.0)
    np.testing.assert_allclose(values, each / (1 - GAMMA), atol=1e-4)


@pytest.mark.parametrize("softplus", [0.0, 1.0, 2.5])
@pytest.mark.parametrize(
    ("expert", "policy"), [(0.1, 0.3), (0.01, 0.5), (0.3, 0.1), (0.5, 0.01), (0.9, 0.6)]
)
def test_the_reward_moves_towards_the_expert_whether_it_lives_or_ends(expert, policy, softplus):
    lean = lean_to_end(expert, policy, lambda *x: neutral(*x, softplus))
    assert np.sign(lean) == np.sign(expert - policy)


@pytest.mark.parametrize(
    ("treatment", "right", "wrong"),
    [
        # Rewards above 0 and none after the end: a bonus for living. Experts that are done
        # early are not followed.
        (naive_positive, (0.1, 0.3), (0.3, 0.1)),
        # Rewards below 0: each step costs, and ending saves the rest.
        (naive_negative, (0.3, 0.1), (0.1, 0.3)),
    ],
)
def test_naive_treatments_have_a_bias(treatment, right, wrong):
    """The trap that the neutral treatment avoids: right for one kind of expert, not the other."""
    expert, policy = right
    assert np.sign(lean_to_end(expert, policy, treatment)) == np.sign(expert - policy)
    expert, policy = wrong
    assert np.sign(lean_to_end(expert, policy, treatment)) == -np.sign(expert - policy)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 1.0, 2.5]))
def test_no_policy_earns_more_than_the_expert_by_the_reward_learned_against_it(seed, softplus):
    """In any world: J(expert) - J(policy) = sum (d_E - d_pi) phi(d_E / d_pi) / (1 - gamma) >= 0.

    Because phi (bound and softplus) is increasing: sum_x (w - 1)(phi(w) - phi(1)) d_pi >= 0. The
    sum runs over live steps and ends alike, which is why both need the same scale.
    """
    rng = np.random.default_rng(seed)
    states, actions = 3, 2
    chances = rng.dirichlet(np.full(states + 1, 0.5), (states, actions))
    chances = 0.98 * chances + 0.02 / (states + 1)
    world = Chain(chances[..., :-1], chances[..., -1])
    expert, policy = rng.dirichlet(np.full(actions, 0.5), (2, states)) * 0.98 + 0.01
    reward, end_value = neutral(*world.learned(expert, policy), softplus)
    best, own = (
        np.sum(pi * world.action_values(pi, reward, end_value), -1)[0] for pi in (expert, policy)
    )
    assert best >= own - 1e-3
    # And by exactly that sum, over live steps and ends, each as end_logits smooths and clips it.
    (e, e_ended), (p, p_ended) = (world.occupancy(pi) for pi in (expert, policy))
    tiny = np.exp(-2 * BOUND)

    def smoothing(a, b):
        return np.log((a + tiny) / a) - np.log((b + tiny) / b)

    logits = np.log(e / p) + smoothing(1 - e_ended, 1 - p_ended)
    gap = np.sum((e - p) * bounded(logits, softplus))
    e, p = world.ends(e), world.ends(p)
    logits = np.clip(np.log(e / p) + smoothing(e_ended, p_ended), -BOUND, BOUND)
    gap += np.sum((e - p) * bounded(logits, softplus))
    np.testing.assert_allclose(best - own, gap / (1 - GAMMA), rtol=1e-2, atol=1e-2)


# --- The discriminator's loss -------------------------------------------------------------------


def discriminate(expert, negative, weight=None, penalty=0.0, expert_log_prob=None, **options):
    """Loss of logits given outright: f = s."""
    batches = [steps(*((x, 0.0, 0.0, 0.0) for x in xs)) for xs in (expert, negative)]
    zeros = [jnp.zeros(len(expert)), jnp.zeros(len(negative))]
    if expert_log_prob is not None:
        zeros[0] = jnp.float32(expert_log_prob)
    return reward_loss(
        linear_reward([1.0, 0.0]),
        *batches,
        *zeros,
        jnp.ones(len(negative)) if weight is None else jnp.float32(weight),
        gradient_penalty=penalty,
        slope=1.0,
        key=jax.random.key(0),
        **options,
    )


def cross_entropy(logit, is_expert):
    d = 1.0 / (1.0 + np.exp(-logit))
    return -np.log(d if is_expert else 1.0 - d)


def test_reward_loss_by_hand():
    loss, metrics = discriminate([2.0], [-1.0, 3.0])
    expert = cross_entropy(2.0, True)  # log(1 + e^-2) = 0.126928
    negative = (cross_entropy(-1.0, False) + cross_entropy(3.0, False)) / 2
    np.testing.assert_allclose(expert, 0.126928, rtol=1e-5)
    np.testing.assert_allclose(loss, expert + negative, rtol=1e-5)
    np.testing.assert_allclose(metrics["reward/accuracy_expert"], 1.0)
    np.testing.assert_allclose(metrics["reward/accuracy_policy"], 0.5)
    np.testing.assert_allclose(metrics["reward/policy_mean"], 1.0)


def test_reward_loss_subtracts_the_log_prob():
    # D = exp f / (exp f + pi): f = 1, log pi = 0.5, logit 0.5.
    loss, _ = discriminate([1.0], [-1.0], expert_log_prob=[0.5])
    np.testing.assert_allclose(
        loss, cross_entropy(0.5, True) + cross_entropy(-1.0, False), rtol=1e-5
    )


def test_classes_count_the_same_whatever_their_sizes():
    few, many = discriminate([2.0], [-1.0, 3.0])[0], discriminate([2.0] * 5, [-1.0, 3.0] * 3)[0]
    np.testing.assert_allclose(few, many, rtol=1e-5)


def test_negative_weights_are_shares():
    # A quarter of -1, three quarters of 3; scaling all weights changes nothing.
    expected = cross_entropy(2.0, True) + (
        0.25 * cross_entropy(-1.0, False) + 0.75 * cross_entropy(3.0, False)
    )
    np.testing.assert_allclose(discriminate([2.0], [-1.0, 3.0], [1, 3])[0], expected, rtol=1e-5)
    np.testing.assert_allclose(discriminate([2.0], [-1.0, 3.0], [2, 6])[0], expected, rtol=1e-5)
    # Weight 0 is as good as not there.
    np.testing.assert_allclose(
        discriminate([2.0], [-1.0, 9.0], [1, 0])[0], discriminate([2.0], [-1.0])[0], rtol=1e-5
    )


def test_expert_weight_is_a_share_of_two():
    # 0.8 : 0.2, of a total of 2 so that 0.5 leaves the plain sum.
    loss, _ = discriminate([2.0], [-1.0], expert_weight=0.8)
    expected = 1.6 * cross_entropy(2.0, True) + 0.4 * cross_entropy(-1.0, False)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_gradient_penalty_of_a_linear_reward():
    # f = 3 s + 4 a: |grad f| = 5 everywhere, (5 - 1)^2 = 16.
    batch = steps((1.0, 0.0, 0.0, 0.0), (2.0, 1.0, 0.0, 0.0))
    other = steps((-1.0, 0.5, 3.0, 0.0), (0.0, 1.0, 1.0, 0.0))
    penalty = slope_penalty(linear_reward([3.0, 4.0]), batch, other, 1.0, key=jax.random.key(0))
    np.testing.assert_allclose(penalty, 16.0, rtol=1e-5)
    # Zero-centered: 5^2.
    flat = slope_penalty(linear_reward([3.0, 4.0]), batch, other, 0.0, key=jax.random.key(0))
    np.testing.assert_allclose(flat, 25.0, rtol=1e-5)
    # With h = 2 s, s: 3 - 2 = 1, a: 4, s': 0.9 * 2 = 1.8; sqrt(1 + 16 + 3.24) = 4.49889.
    shaped = linear_reward([3.0, 4.0], 2.0)
    penalty = slope_penalty(shaped, batch, other, 1.0, key=jax.random.key(0))
    np.testing.assert_allclose(penalty, (np.sqrt(20.24) - 1.0) ** 2, rtol=1e-5)


def test_gradient_penalty_is_taken_between_expert_and_negative():
    """f = tanh(8 s) is flat (slope 0, penalty 1) at both ends, s = -2 and 2, but not between."""
    reward = AIRLReward(
        1, 1, (1,), gamma=GAMMA, state_only=False, shaping=False, key=jax.random.key(0)
    )
    layers = lambda r: (r.reward.layers[0].weight, r.reward.layers[1].weight)  # noqa: E731
    reward = eqx.tree_at(layers, reward, (jnp.float32([[8.0], [0.0]]), jnp.ones((1, 1))))
    ends = steps(*[(2.0, 0.0, 0.0, 0.0)] * 200), steps(*[(-2.0, 0.0, 0.0, 0.0)] * 200)
    at_ends = slope_penalty(reward, ends[0], ends[0], 1.0, key=jax.random.key(0))
    np.testing.assert_allclose(at_ends, 1.0, rtol=1e-3)
    # E (|8 / cosh^2(8 s)| - 1)^2 over s uniform in [-2, 2], by quadrature.
    s = np.linspace(-2, 2, 20_001)
    expected = np.mean((8.0 / np.cosh(8.0 * s) ** 2 - 1.0) ** 2)
    between = slope_penalty(reward, *ends, 1.0, key=jax.random.key(0))
    np.testing.assert_allclose(between, expected, rtol=0.3)
    assert expected > 2.0


def test_gradient_penalty_enters_the_loss_by_its_weight():
    plain, _ = discriminate([2.0], [-1.0])
    # f = s: |grad f| = 1 is what the penalty asks for; f = s is left alone.
    loss, metrics = discriminate([2.0], [-1.0], penalty=10.0)
    np.testing.assert_allclose(loss, plain, rtol=1e-5)
    np.testing.assert_allclose(metrics["reward/gradient_penalty"], 0.0, atol=1e-6)
    batch = steps((1.0, 0.0, 0.0, 0.0))
    steep = linear_reward([3.0, 0.0])
    loss, metrics = reward_loss(
        steep,
        batch,
        batch,
        jnp.zeros(1),
        jnp.zeros(1),
        jnp.ones(1),
        gradient_penalty=10.0,
        slope=1.0,
        key=jax.random.key(0),
    )
    # (3 - 1)^2 = 4, ten times; both classes hold the same s with f = 3.
    expected = cross_entropy(3.0, True) + cross_entropy(3.0, False) + 40.0
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
