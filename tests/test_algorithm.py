"""The compiled update: what it keeps to, and that it learns a task with a known answer."""

import functools
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mairl import replay as replays
from mairl.algorithms import mairl as algorithm
from mairl.algorithms.config import PRESETS
from mairl.dynamics import MarkovDynamics
from mairl.losses.dynamics import dynamics_loss
from mairl.types import EnvSpec, Transition

OBS, ITERATIONS, NUM_ENVS = 2, 5, 7
SPACES = {
    "box": EnvSpec("Probe", OBS, 2, False, (-1.0, -1.0), (1.0, 1.0)),
    "discrete": EnvSpec("Probe", OBS, 3, True),
}
CASES = [(preset, space) for preset in PRESETS for space in SPACES]


@functools.cache
def settings(preset, space="box"):
    """The preset with small networks and high rates.

    Where it leaves the policy to the value alone, discrete actions take a step through the model
    as well, so that both ways are run.
    """
    config = PRESETS[preset].settled(SPACES[space], 1000, expert_ends=False)
    small, fast = (16, 16), 1e-2
    horizon = max(config.policy.horizon, 1) if SPACES[space].discrete else config.policy.horizon
    return replace(
        config,
        gamma=0.8,
        batch_size=64,
        num_envs=NUM_ENVS,
        decay=0.5,
        final_rate=0.1,
        dynamics=replace(config.dynamics, width=16, depth=1, steps=1, batch_size=32),
        reward=replace(config.reward, hidden=small, learning_rate=fast),
        policy=replace(config.policy, hidden=small, learning_rate=3e-3, horizon=horizon),
        value=replace(
            config.value,
            hidden=small,
            steps=min(config.value.steps, 1),
            learning_rate=3e-3,
            tau=0.05,
        ),
    )


def best_action(space, obs):
    """What the expert does: a linear function, or the largest of three."""
    if SPACES[space].discrete:
        return np.eye(3, dtype=np.float32)[np.argmax(obs @ np.float32([[1, 0, -1], [0, 1, 0]]), -1)]
    return np.clip(obs @ np.float32([[0.5, -0.2], [0.0, 0.4]]), -0.9, 0.9)


def experience(space, act, *batch, seed=0):
    """A world without consequences: observations come and go whatever is done."""
    rng = np.random.default_rng(seed)
    obs, next_obs = np.float32(rng.normal(size=(2, *batch, OBS)))
    return Transition(obs, np.float32(act(obs)), next_obs, np.zeros(batch, np.float32))


def at_random(space, seed=0):
    rng = np.random.default_rng(seed)
    if SPACES[space].discrete:
        return lambda obs: np.eye(3, dtype=np.float32)[rng.integers(0, 3, obs.shape[:-1])]
    return lambda obs: rng.uniform(-1, 1, (*obs.shape[:-1], 2))


def demonstrations(space):
    expert = experience(space, partial(best_action, space), 256, seed=1)
    return jax.tree.map(jnp.asarray, expert)


@functools.cache
def fresh(preset, space, seed=0):
    config, spec = settings(preset, space), SPACES[space]
    random = experience(space, at_random(space), 256, seed=2)
    key = jax.random.key(seed)
    return algorithm.initialize(config, spec, demonstrations(space), random, 0.0, key=key)


@functools.cache
def ring(space):
    with jax.ensure_compile_time_eval():  # also where the first one to ask is being traced
        return add(
            replays.init(64, NUM_ENVS, OBS, SPACES[space].action_size),
            experience(space, at_random(space, 3), 16, NUM_ENVS, seed=3),
        )


@jax.jit
def add(replay, batch):
    return replays.add(replay, batch, jnp.zeros(batch.terminated.shape))


@functools.cache
def compiled(preset, space):
    """One program for all tests of a case: compiling takes most of their time."""
    return jax.jit(
        partial(algorithm.update, settings(preset, space), SPACES[space], iterations=ITERATIONS)
    )


def run(preset, space, seed=0, progress=0.0):
    return compiled(preset, space)(
        fresh(preset, space),
        ring(space),
        demonstrations(space),
        jnp.float32(progress),
        key=jax.random.key(seed),
    )


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


# --- Properties of the program -------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "space"), CASES)
def test_presets_take_a_step_that_moves_every_part(preset, space):
    before = fresh(preset, space)
    after, metrics = run(preset, space)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert isinstance(x, jax.Array)
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert np.all(np.isfinite(y))
    assert all(np.isfinite(v) for v in metrics.values())
    config = settings(preset)
    learned = {"dynamics", "reward", "policy"}
    learned |= {"value"} if config.value.steps else set()
    learned |= {"log_temperature"} if config.policy.temperature_rate else set()
    for name in before.params._fields:
        moved = not same(getattr(before.params, name), getattr(after.params, name))
        assert moved == (name in learned), name
    # Scales and shares stay: the loop owns the shares, nothing changes the scales.
    for name in ("normalizer", "delta_scale", "expert_ended", "policy_ended"):
        assert same(getattr(before, name), getattr(after, name))


def test_the_same_key_gives_the_same_bits():
    first, again, other = (
        run("default", "box", 0),
        run("default", "box", 0),
        run("default", "box", 1),
    )
    assert same(first, again)
    assert not same(first, other)


def test_nothing_compiles_twice():
    """Neither for the update's own output, nor for other data, keys or progress."""
    program = compiled("default", "box")
    state, _ = run("default", "box")
    size = program._cache_size()
    for step in range(2):
        replay = add(ring("box"), experience("box", at_random("box"), 4, NUM_ENVS, seed=step))
        state, _ = program(
            state,
            replay,
            demonstrations("box"),
            jnp.float32(0.1 * step),
            key=jax.random.key(step),
        )
    assert program._cache_size() == size == 1


def test_seeds_under_vmap_are_the_seeds_one_by_one():
    seeds = range(3)
    states = [fresh("default", "box", seed) for seed in seeds]
    program = compiled("default", "box")
    arguments = ring("box"), demonstrations("box"), jnp.float32(0.0)
    one_by_one = [program(states[seed], *arguments, key=jax.random.key(seed))[0] for seed in seeds]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    # JAX's checker takes any batched split whose parts go different ways for a reused key.
    with jax.debug_key_reuse(False):
        together = jax.jit(jax.vmap(lambda state, key: program(state, *arguments, key=key)[0]))(
            stacked, jax.vmap(jax.random.key)(jnp.arange(3))
        )
    for seed in seeds:
        mine = jax.tree.map(lambda x, i=seed: x[i], together)
        # Sums may be taken in another order: float32 round-off, nothing else.
        for x, y in zip(leaves(mine), leaves(one_by_one[seed]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-6)
    assert not same(one_by_one[0].params.policy, one_by_one[1].params.policy)


def learner_of(state):
    return algorithm.Learner(state.params, state.target_value, state.optimizers)


@partial(jax.jit, static_argnums=0)
def take(name, state, progress, key):
    """One of the four steps by itself."""
    step = algorithm.Step(
        settings("default"), SPACES["box"], state, ring("box"), demonstrations("box"), progress
    )
    return getattr(step, name)(learner_of(state), key)[0]


@pytest.mark.parametrize("name", ["dynamics", "reward", "value", "policy"])
def test_each_step_changes_its_own_part_alone(name):
    """So the reward's loss does not move the policy, nor the policy's the reward, value, model."""
    before = learner_of(fresh("default", "box"))
    after = take(name, fresh("default", "box"), jnp.float32(0.0), jax.random.key(0))
    own = {"policy": {"policy", "log_temperature"}}.get(name, {name})
    for part in before.params._fields:
        moved = not same(getattr(before.params, part), getattr(after.params, part))
        assert moved == (part in own), part
    assert same(before.target_value, after.target_value) == (name != "value")


def learned_reward(change, **options):
    """The reward after its step, with data of ``change(batch)`` in place of (replay, expert)."""
    config = settings("default")
    config = replace(config, reward=replace(config.reward, shaping=True, **options))
    state, data = fresh_state(config), change(ring("box"), demonstrations("box"))

    @jax.jit
    def take(state, data, key):
        step = algorithm.Step(config, SPACES["box"], state, *data, jnp.float32(0.0))
        return step.reward(learner_of(state), key)[0].params.reward

    return take(state, data, jax.random.key(0))


@pytest.mark.parametrize(("observed", "share"), [(2, 0.25), (14, 1.0), (100, 1.0)])
def test_the_penalty_is_weaker_where_few_numbers_tell(observed, share, monkeypatch):
    """Its weight in the loss is in proportion for fewer than 16 inputs, two of them actions."""
    spec = EnvSpec("Probe", observed, 2, False, (-1.0, -1.0), (1.0, 1.0))
    config, found = settings("default"), {}
    monkeypatch.setattr(
        algorithm, "reward_loss", lambda *_, **named: found.update(named) or (jnp.float32(0.0), {})
    )
    config = replace(config, reward=replace(config.reward, imagined=0.0, gradient_penalty=0.8))
    zeros = np.zeros((8, observed), np.float32)
    batch = Transition(zeros, zeros[:, :2], zeros, zeros[:, 0])
    state = algorithm.initialize(config, spec, batch, batch, 0.0, key=jax.random.key(0))
    memory, batch = replays.init(8, 1, observed, 2), jax.tree.map(jnp.asarray, batch)
    step = algorithm.Step(config, spec, state, memory, batch, jnp.float32(0.0))
    step.reward(learner_of(state), jax.random.key(0))
    np.testing.assert_allclose(found["gradient_penalty"], 0.8 * share)


def fresh_state(config):
    expert, random = demonstrations("box"), experience("box", at_random("box"), 256, seed=2)
    return algorithm.initialize(config, SPACES["box"], expert, random, 0.0, key=jax.random.key(0))


def arrived_elsewhere(memory, expert):
    moved = memory.data._replace(next_obs=memory.data.next_obs + 1.0)
    return memory._replace(data=moved), expert._replace(next_obs=expert.next_obs + 1.0)


def replayed_elsewhere(memory, expert):
    moved = memory.data._replace(obs=memory.data.obs + 1.0)
    return memory._replace(data=moved), expert


@pytest.mark.parametrize(
    ("change", "without", "options"),
    [
        (arrived_elsewhere, {}, {"expected": True}),
        (
            replayed_elsewhere,
            {"imagined": 1.0, "gradient_penalty": 0.0},
            {"imagined_demonstrated": True},
        ),
    ],
)
def test_what_the_reward_does_not_learn_from(change, without, options):
    """Where chance led, if the model's expectation is asked for; replayed states, if told so."""
    plain = learned_reward(lambda *data: data, **without)
    assert not same(learned_reward(change, **without), plain)
    plain = learned_reward(lambda *data: data, **without, **options)
    assert same(learned_reward(change, **without, **options), plain)


def test_lost_is_what_the_discriminator_gives_no_chance_for_all_of_patience():
    config, state = replace(settings("default"), patience=4), fresh("default", "box")

    def answering(logit):
        zero = jax.tree.map(jnp.zeros_like, state.params.reward.reward)
        last = lambda net: net.layers[-1].bias  # noqa: E731
        net = eqx.tree_at(last, zero, jnp.full(1, logit, jnp.float32))
        reward = eqx.tree_at(lambda r: r.reward, state.params.reward, net)
        return state._replace(params=state.params._replace(reward=reward))

    full = replays.break_stream(ring("box"), np.arange(NUM_ENVS) == 2)
    three = replays.add(
        replays.init(64, NUM_ENVS, OBS, 2),
        experience("box", at_random("box"), 3, NUM_ENVS),
        jnp.zeros((3, NUM_ENVS)),
    )
    expected = np.arange(NUM_ENVS) != 2  # There a new episode has just begun.
    np.testing.assert_array_equal(algorithm.lost(config, answering(-3.0), full), expected)
    assert not algorithm.lost(config, answering(-2.0), full).any()
    assert not algorithm.lost(config, answering(-3.0), three).any()


def rate_at(progress, decay, final_rate=0.1):
    config = replace(settings("default"), decay=decay, final_rate=final_rate)
    step = algorithm.Step(
        config, SPACES["box"], fresh("default", "box"), None, None, jnp.float32(progress)
    )
    return float(step.rate)


def test_learning_rates_fall_at_the_end():
    # Over the last half from 1 towards 0, and not below a tenth.
    shares = [rate_at(progress, 0.5) for progress in (0.0, 0.5, 0.75, 0.95, 1.0)]
    np.testing.assert_allclose(shares, [1.0, 1.0, 0.5, 0.1, 0.1], rtol=1e-5)
    # Without decay they stay; at the very end the share is final_rate, which no step sees.
    np.testing.assert_allclose([rate_at(p, 0.0) for p in (0.0, 0.5, 0.999)], [1.0, 1.0, 1.0])


def test_decay_scales_reward_and_policy_steps_only():
    """Adam's first step is rate * sign(gradient): its size is the learning rate."""
    config, state = settings("default"), fresh("default", "box")
    for name, falls in (("reward", True), ("policy", True), ("dynamics", False)):
        sizes = []
        for progress in (0.0, 1.0):
            after = take(name, state, jnp.float32(progress), jax.random.key(0))
            change = [
                np.max(np.abs(x - y))
                for x, y in zip(
                    leaves(getattr(state.params, name)),
                    leaves(getattr(after.params, name)),
                    strict=True,
                )
            ]
            sizes.append(max(change))
        expected = config.final_rate if falls else 1.0
        np.testing.assert_allclose(sizes[1] / sizes[0], expected, rtol=0.05)


# --- Choices that docs/departures.md names -------------------------------------------------------


def test_paper_preset_has_the_authors_settings():
    """Sun et al. 2021 and their code; what is listed as a departure is not here."""
    config = PRESETS["paper"]
    assert (config.gamma, config.policy.horizon, config.replay_size) == (0.99, 10, 50_000)
    assert config.policy.anchored
    assert config.value.steps == 0
    # 512 demonstrated and 512 replayed transitions for the discriminator, seven rollouts of ten
    # steps for each policy step, one model.
    assert (config.batch_size, config.num_envs, config.collect_steps) == (1024, 7, 10)
    np.testing.assert_allclose(config.iterations * config.num_envs * config.collect_steps, 1.0)
    assert config.dynamics.members == 1
    assert (config.reward.hidden, config.policy.hidden) == ((200, 100), (100, 50))
    rates = (part.learning_rate for part in (config.dynamics, config.reward, config.policy))
    assert tuple(rates) == (1e-4, 1e-3, 1e-4)
    assert config.reward.log_prob
    assert config.reward.shaping
    assert not config.reward.state_only
    # No penalty, no imagined negatives, log D - log(1 - D) with an entropy weight of 1, kept.
    assert (config.reward.gradient_penalty, config.reward.imagined) == (0.0, 0.0)
    assert not config.reward.softplus
    assert (config.policy.temperature, config.policy.temperature_rate) == (1.0, 0.0)
    assert (config.reward.dropout, config.policy.dropout) == (0.25, 0.25)


def test_paper_preset_models_with_attention_over_several_tokens():
    member = fresh("paper", "box").params.dynamics.member(0)
    weights = member.attention_weights(jnp.ones(OBS), jnp.ones(2))
    assert weights.shape[-1] > 1
    assert jnp.any(weights < 0.999)


def test_observations_are_scaled_by_half_expert_half_random():
    expert = np.asarray(demonstrations("box").obs)
    random = experience("box", at_random("box"), 256, seed=2).obs
    normalizer = fresh("default", "box").normalizer
    mean = (np.mean(expert, 0) + np.mean(random, 0)) / 2
    np.testing.assert_allclose(normalizer.mean, mean, rtol=1e-4, atol=1e-6)
    # The mixture's variance: the mean square around the mixture's mean.
    square = (np.mean((expert - mean) ** 2, 0) + np.mean((random - mean) ** 2, 0)) / 2
    np.testing.assert_allclose(normalizer.std, np.sqrt(square), rtol=1e-4)


def test_log_probs_in_the_discriminator_are_the_current_policys_and_bounded():
    state, batch = fresh("paper", "box"), demonstrations("box")
    policy = state.params.policy

    def seen(preset, policy):
        step = algorithm.Step(settings(preset), SPACES["box"], state, None, None, jnp.float32(0.0))
        return step._log_prob(policy, batch)

    log_prob = policy.log_prob(batch.obs, batch.action)
    assert jnp.min(log_prob) < -10.0
    np.testing.assert_array_equal(seen("paper", policy), np.clip(log_prob, -10.0, 10.0))
    assert len(np.unique(seen("paper", policy))) > 100
    # The default preset's discriminator is on f alone.
    np.testing.assert_array_equal(seen("default", policy), jnp.zeros(256))


def test_gradients_are_clipped_by_their_norm_and_weights_do_not_decay():
    learner = learner_of(fresh("default", "box"))
    size = lambda tree: float(np.sqrt(sum(np.sum(x**2) for x in leaves(tree))))  # noqa: E731

    def loss(scale):
        return lambda part: (scale * sum(jnp.sum(x) for x in jax.tree.leaves(part)), {})

    # Adam's first moment after one step is a tenth of the gradient it saw: norm 10 at most.
    after, metrics = learner.descend("policy", 1e-3, loss(1000.0))
    assert metrics["policy/gradient_norm"] > 1000.0
    moments = next(x for x in after.optimizers.policy if hasattr(x, "mu"))
    np.testing.assert_allclose(size(moments.mu), 1.0, rtol=1e-4)
    # Without a gradient nothing moves.
    still, _ = learner.descend("policy", 1e-3, loss(0.0))
    assert same(still.params.policy, learner.params.policy)
    assert size(learner.params.policy) > 0


def test_replay_is_drawn_by_the_critics_error_where_asked_for():
    """The replayed half is of those candidates that have an error; without, no candidates.

    And value and policy both take another step by them.
    """
    config, spec, state = settings("default"), SPACES["box"], fresh("default", "box")
    choosing = replace(config, value=replace(config.value, candidates=8))
    data, half = (ring("box"), demonstrations("box")), config.batch_size // 2

    @partial(jax.jit, static_argnums=0)
    def draw(config):
        learner, keys = learner_of(state), jax.random.split(jax.random.key(0), 4)
        step = algorithm.Step(config, spec, state, *data, jnp.float32(0.0))
        drawn = step.candidates(learner, keys[0])
        if drawn is not None:
            # All but the last quarter of the candidates are known already.
            known = jnp.arange(len(drawn.error)) < 6 * half
            drawn = drawn._replace(error=jnp.where(known, 0.0, drawn.error))
        mixed = step._mixed(keys[1], drawn)
        value, policy = step.value(learner, keys[2], drawn), step.policy(learner, keys[3], drawn)
        return drawn, *mixed, (value[0], policy[0])

    drawn, plain, weight, steps = draw(config)
    assert drawn is None
    assert weight is None
    (candidates, error), batch, weight, other = draw(choosing)
    assert jnp.all(error[6 * half :] > 0)
    surprising = {tuple(row) for row in np.asarray(candidates.obs[6 * half :])}
    among = [tuple(row) in surprising for row in np.asarray(batch.obs[half:])]
    assert np.mean(among) > 0.9
    np.testing.assert_array_equal(batch.obs[:half], plain.obs[:half])
    np.testing.assert_array_equal(weight[:half], 1.0)
    for name, before, after in zip(("value", "policy"), steps, other, strict=True):
        assert not same(getattr(before.params, name), getattr(after.params, name))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_demonstrations_have_their_share_of_values_and_policys_batches(share):
    """The first rows are demonstrated and all others replayed; every step runs with any share."""
    config, spec, state = settings("default"), SPACES["box"], fresh("default", "box")
    config = replace(config, demonstrated=share)
    replay, expert = ring("box"), demonstrations("box")

    @jax.jit
    def run(learner):
        keys = jax.random.split(jax.random.key(0), 4)
        step = algorithm.Step(config, spec, state, replay, expert, jnp.float32(0.0))
        metrics = {}
        for name, key in zip(("reward", "value", "policy"), keys, strict=False):
            learner, more = getattr(step, name)(learner, key)
            metrics |= more
        return step._mixed(keys[3])[0], metrics

    batch, metrics = run(learner_of(state))
    shown = {tuple(row) for row in np.asarray(state.normalizer.normalize(expert.obs))}
    among = [tuple(row) in shown for row in np.asarray(batch.obs)]
    size = config.batch_size
    assert among == [i < share * size for i in range(size)]
    assert ("reward/mean_expert" in metrics, "reward/mean" in metrics) == (share > 0, share < 1)
    assert not [name for name, value in metrics.items() if not jnp.isfinite(value)]


@pytest.mark.parametrize("space", ["box", "discrete"])
def test_steps_through_the_model_in_the_critics_target_stay_with_their_row(space):
    """With a horizon the target asks the model; what follows a row is told from that row alone."""
    config, spec, state = settings("default"), SPACES[space], fresh("default", space)
    learner = learner_of(state)
    lost = jax.tree.map(lambda x: jnp.nan * x, learner.params.dynamics)
    batch = state.normalizer.transition(demonstrations(space))
    batch = jax.tree.map(lambda x: x[: config.batch_size], batch)._replace(
        terminated=jnp.zeros(config.batch_size)
    )
    moved = batch._replace(next_obs=batch.next_obs.at[5].add(1.0))

    @partial(jax.jit, static_argnums=0)
    def errors(horizon, batch, dynamics):
        step = algorithm.Step(config, spec, state, ring(space), batch, jnp.float32(0.0))
        changed = learner._replace(params=learner.params._replace(dynamics=dynamics))
        error, _ = step._errors(changed, batch, horizon, jax.random.key(1))
        return error(learner.params.value)[0]

    for horizon in (0, 3):
        before, after = (errors(horizon, b, learner.params.dynamics) for b in (batch, moved))
        changed = np.flatnonzero(jnp.any(before != after, 0))
        np.testing.assert_array_equal(changed, [5])
        assert bool(jnp.all(jnp.isnan(errors(horizon, batch, lost)))) == (horizon > 0)


def test_dynamics_learn_from_replay_and_from_demonstrations():
    """What is not a number in either one reaches the model, so both are used."""
    config, spec, state = settings("default"), SPACES["box"], fresh("default", "box")

    @jax.jit
    def loss(replay, expert):
        step = algorithm.Step(config, spec, state, replay, expert, jnp.float32(0.0))
        return step.dynamics(learner_of(state), jax.random.key(0))[1]["dynamics/squared_error"]

    spoil = lambda batch: batch._replace(next_obs=jnp.nan * batch.next_obs)  # noqa: E731
    replay, expert = ring("box"), demonstrations("box")
    assert jnp.isfinite(loss(replay, expert))
    assert jnp.isnan(loss(replay, spoil(expert)))
    assert jnp.isnan(loss(replay._replace(data=spoil(replay.data)), expert))


def test_dynamics_loss_by_hand():
    """Squared error of the change, (s' - s) / scale, and cross-entropy of termination."""

    class Fixed(MarkovDynamics):
        out: jax.Array

        def raw(self, obs, action):
            return jnp.broadcast_to(self.out, (*obs.shape[:-1], 3))

    batch = Transition(
        jnp.float32([[1.0, 2.0], [0.0, 0.0], [5.0, 5.0]]),
        jnp.zeros((3, 1)),
        jnp.float32([[1.5, 2.0], [0.5, 4.0], [9.0, 9.0]]),
        jnp.float32([0.0, 1.0, 0.0]),
    )
    # Three segments of one step; the last one does not count.
    segments, mask = jax.tree.map(lambda x: x[:, None], batch), jnp.float32([[1.0], [1.0], [0.0]])
    loss, metrics = dynamics_loss(
        Fixed(jnp.float32([1.0, 0.0, 2.0])), jnp.float32([0.5, 2.0]), segments, mask
    )
    # Changes in units of scale: (1, 0) and (1, 2) against (1, 0): squares 0, 0, 0, 4, mean 1.
    np.testing.assert_allclose(metrics["dynamics/squared_error"], 1.0, rtol=1e-6)
    # log(1 + e^2) without an end, log(1 + e^-2) with one: (2.126928 + 0.126928) / 2
    np.testing.assert_allclose(metrics["dynamics/termination_loss"], 1.126928, rtol=1e-5)
    np.testing.assert_allclose(loss, 2.126928, rtol=1e-5)


def test_segments_of_demonstrations_stay_within_what_was_one_run():
    """Not over an end, nor over left-out transitions, nor from the last row to the first."""
    obs = jnp.arange(12, dtype=jnp.float32).reshape(6, 2)
    next_obs = jnp.concatenate([obs[1:], obs[:1]])
    next_obs = next_obs.at[1].add(100.0)  # rows 1 and 2 do not follow each other
    ends = jnp.float32([0, 0, 0, 1, 0, 0])  # rows 3 and 4 neither
    expert = Transition(obs, jnp.zeros((6, 2)), next_obs, ends)
    state = fresh("default", "box")
    step = algorithm.Step(
        settings("default"), SPACES["box"], state, ring("box"), expert, jnp.float32(0.0)
    )
    rows, mask = jax.jit(lambda key: step._expert_segments(key, 64, 3))(jax.random.key(0))
    first = np.int32(rows.obs[:, 0, 0] / 2)
    assert set(first) == set(range(6))
    steps = np.array([2, 1, 2, 1, 2, 1])[first]
    np.testing.assert_array_equal(mask, np.arange(3) < steps[:, None])
    inside = np.asarray(mask) > 0
    follow = first[:, None] + np.arange(3)
    np.testing.assert_array_equal(np.asarray(rows.obs[..., 0])[inside] / 2, follow[inside])


def test_the_models_batch_holds_demonstrations_in_proportion():
    """One in 4 of all transitions is demonstrated; of very many, no more than half are drawn."""
    state, replay = fresh("default", "box"), ring("box")
    experience = int(replay.filled) * replay.num_envs
    for demonstrated, share in ((experience // 3, 0.25), (experience * 9, 0.5)):
        far = jnp.full((demonstrated, OBS), 1e6)
        still, zeros = jnp.zeros((demonstrated, 2)), jnp.zeros(demonstrated)
        expert = Transition(far, still, far, zeros)
        step = algorithm.Step(
            settings("default"), SPACES["box"], state, replay, expert, jnp.float32(0.0)
        )
        rows, mask = jax.jit(lambda key, s=step: s._segments(key, 8000, 1))(jax.random.key(0))
        drawn = np.asarray(rows.obs[:, 0, 0]) == 1e6
        assert drawn.mean() == pytest.approx(share, abs=0.02)
        assert np.all(mask == 1)


def test_a_memory_learns_to_remember():
    """An action takes effect a step later: only a memory that has been trained knows."""
    config, spec = settings("default"), SPACES["box"]
    config = replace(
        config,
        dynamics=replace(config.dynamics, kind="gru", members=1, batch_size=64),
        policy=replace(config.policy, horizon=3),
    )
    rng = np.random.default_rng(5)
    obs = np.float32(rng.normal(size=(600, OBS)))
    action = np.float32(rng.uniform(-1, 1, (600, 2)))
    for t in range(2, 600):
        obs[t] = np.float32(0.5) * obs[t - 1] + action[t - 2]
    expert = Transition(obs[:-1], action[:-1], obs[1:], np.zeros(599, np.float32))
    expert = jax.tree.map(jnp.asarray, expert)
    state = algorithm.initialize(config, spec, expert, expert, 0.0, key=jax.random.key(0))
    replay = replays.init(1024, 1, OBS, 2)
    replay = add(replay, jax.tree.map(lambda x: x[:, None], expert))

    @jax.jit
    def errors(keys):
        step = algorithm.Step(config, spec, state, replay, expert, jnp.float32(0.0))
        learn = lambda learner, key: (step.dynamics(learner, key)[0], None)  # noqa: E731
        model = jax.lax.scan(learn, learner_of(state), keys)[0].params.dynamics.member(0)
        rows = jnp.arange(10, 500)[:, None] + jnp.arange(3)[None]
        at = jax.tree.map(lambda x: x[rows], state.normalizer.transition(expert))
        memory, found = model.initial((490,)), []
        for t in range(3):
            memory, prediction = model.step(memory, at.obs[:, t], at.action[:, t])
            change = (at.next_obs[:, t] - at.obs[:, t]) / state.delta_scale[None]
            found.append(jnp.mean((prediction.delta - change) ** 2))
        return jnp.stack(found)

    first, second, third = errors(jax.random.split(jax.random.key(1), 1000))
    assert second < 0.3 * first
    assert third < 0.3 * first


def test_noise_is_added_to_what_is_collected_and_nothing_else():
    """Of its deviation where actions are continuous, inside their bounds; none on choices."""
    obs = jnp.zeros((2000, OBS))
    for space in SPACES:
        state = fresh("default", space)

        def acted(sigma, space=space, state=state):
            config = replace(settings("default", space), exploration_noise=sigma)
            return np.asarray(
                algorithm.explore(config, SPACES[space], state, obs, key=jax.random.key(3))
            )

        sampled = acted(0.0)
        inputs = state.normalizer.normalize(obs)
        own = state.params.policy.sample(inputs, jax.random.key(3))[0]
        np.testing.assert_array_equal(sampled, own)
        if SPACES[space].discrete:
            np.testing.assert_array_equal(acted(5.0), sampled)
            continue
        inner = np.abs(sampled) < 0.5
        assert np.std((acted(0.1) - sampled)[inner]) == pytest.approx(0.1, rel=0.1)
        assert np.max(np.abs(acted(5.0))) == 1.0


# --- A task with a known answer -----------------------------------------------------------------


def error(space, state):
    """Mean squared distance of the policy's mode to the expert's action, on fresh observations."""
    obs = np.float32(np.random.default_rng(9).normal(size=(500, OBS)))
    mode = jax.jit(algorithm.exploit)(state, jnp.asarray(obs))
    return float(np.mean(np.sum((np.asarray(mode) - best_action(space, obs)) ** 2, -1)))


@pytest.mark.parametrize("space", SPACES)
def test_the_policy_finds_the_experts_action(space):
    """Nothing an action does matters later, so the answer is to act as the expert at once.

    The reward is learned, and the policy sees no action of the expert: it comes here by the
    gradient through the value, and for discrete actions through reward, model and Gumbel-softmax.
    A reward of the wrong sign or a cut gradient leave it where it was, or worse. The distance
    between two different choices is 2.
    """
    program, state, replay = compiled("default", space), fresh("default", space), ring(space)
    explore = partial(algorithm.explore, settings("default", space), SPACES[space])
    explore = jax.jit(jax.vmap(explore, in_axes=(None, 0)))
    before = error(space, state)
    for count in range(120):
        seen = experience(space, lambda obs: obs, 1, NUM_ENVS, seed=100 + count)
        keys = jax.random.split(jax.random.key(1000 + count), 1)
        action = explore(state, jnp.asarray(seen.obs), key=keys)
        replay = add(replay, seen._replace(action=np.asarray(action)))
        state, _ = program(
            state, replay, demonstrations(space), jnp.float32(0.0), key=jax.random.key(count)
        )
    assert error(space, state) < 0.35 * before
