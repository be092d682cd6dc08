"""Every registered dynamics model keeps the contract; each kind has its own facts besides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mairl.dynamics import (
    DYNAMICS,
    NUM_TOKENS,
    Ensemble,
    TokenAttentionDynamics,
    make_dynamics,
    mean,
)
from mairl.types import MairlError

OBS, ACTION, WIDTH, DEPTH = 3, 2, 32, 1
KINDS = sorted(DYNAMICS)


@functools.cache
def build(kind, seed=0):
    return make_dynamics(kind, OBS, ACTION, WIDTH, DEPTH, key=jax.random.key(seed))


@functools.cache
def data(*batch):
    rng = np.random.default_rng(0)
    shapes = (*batch, OBS), (*batch, ACTION)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)


def run(function, *arguments):
    """Compiled, and back as numpy: each operation on jax arrays compiles a program of its own."""
    return jax.device_get(jax.jit(function)(*arguments))


def close(a, b, tolerance=1e-5):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b
    )


@pytest.mark.parametrize("kind", KINDS)
class TestContract:
    def test_every_leaf_is_an_array(self, kind):
        leaves = jax.tree.leaves(build(kind))
        assert leaves
        assert all(isinstance(x, jax.Array) and x.dtype == jnp.float32 for x in leaves)

    def test_shapes_single_and_batched_agree(self, kind):
        model, (obs, action) = build(kind), data(2, 4)
        batched = run(lambda m, o, a: m(o, a), model, obs, action)
        assert batched.delta.shape == (2, 4, OBS)
        assert batched.terminated_logit.shape == (2, 4)
        single = run(lambda m, o, a: m(o[1, 2], a[1, 2]), model, obs, action)
        assert single.delta.shape == (OBS,)
        assert single.terminated_logit.shape == ()
        close(single, jax.tree.map(lambda x: x[1, 2], batched))
        mapped = run(lambda m, o, a: jax.vmap(m)(o[0], a[0]), model, obs, action)
        close(mapped, jax.tree.map(lambda x: x[0], batched))

    def test_same_key_same_model(self, kind):
        close(build(kind), build.__wrapped__(kind), 0.0)
        first, second = (jax.tree.leaves(jax.device_get(build(kind, seed))) for seed in (0, 1))
        assert any((x != y).any() for x, y in zip(first, second, strict=True))

    def test_scanned_steps_keep_the_shape_of_the_carry(self, kind):
        model, (obs, action) = build(kind), data(5, 4)

        def roll(model):
            start = model.initial((4,))
            end, predictions = jax.lax.scan(lambda c, x: model.step(c, *x), start, (obs, action))
            return start, end, predictions, model(obs[0], action[0])

        start, end, predictions, first = run(roll, model)
        assert jax.tree.map(np.shape, start) == jax.tree.map(np.shape, end)
        close(jax.tree.map(lambda x: x[0], predictions), first)

    def test_gradients_are_those_of_finite_differences(self, kind):
        obs, action = data(4)
        rng = np.random.default_rng(1)
        with jax.enable_x64(True):
            as64 = functools.partial(jax.tree.map, np.float64)
            model, obs, action = as64(jax.device_get((build(kind), obs, action)))
            pick = rng.normal(size=(4, OBS))

            @jax.jit
            @jax.value_and_grad
            def loss(inputs, model):
                carry, first = model.step(model.initial((4,)), *inputs)
                _, second = model.step(carry, inputs[0] + first.delta, inputs[1])
                return jnp.sum(pick * second.delta) + jnp.sum(second.terminated_logit)

            gradient = jax.device_get(loss((obs, action), model)[1])
            for i in range(2):
                way = [np.zeros_like(obs), np.zeros_like(action)]
                way[i] = rng.normal(size=way[i].shape)
                ahead, behind = (
                    float(loss((obs + e * way[0], action + e * way[1]), model)[0])
                    for e in (1e-6, -1e-6)
                )
                assert np.isfinite(gradient[i]).all()
                assert (gradient[i] != 0).any()
                expected = (ahead - behind) / 2e-6
                assert np.sum(gradient[i] * way[i]) == pytest.approx(expected, rel=1e-5)

    def test_learns_a_linear_system_with_ends(self, kind):
        rng = np.random.default_rng(0)
        obs = np.float32(rng.normal(size=(128, OBS)))
        action = np.float32(rng.uniform(-1, 1, size=(128, ACTION)))
        matrix = np.float32(rng.normal(size=(OBS + ACTION, OBS)) / 2)
        target = np.concatenate([obs, action], -1) @ matrix
        ends = np.float32(obs[:, 0] > 0.5)
        obs, action = jnp.asarray(obs), jnp.asarray(action)
        optimizer = optax.adam(3e-3)

        def loss(model):
            delta, logit = model(obs, action)
            error = jnp.mean((delta - target) ** 2)
            return error + jnp.mean(optax.sigmoid_binary_cross_entropy(logit, ends)), error

        def train(model):
            def update(carry, _):
                model, state = carry
                (_, error), gradient = jax.value_and_grad(loss, has_aux=True)(model)
                updates, state = optimizer.update(gradient, state)
                return (optax.apply_updates(model, updates), state), error

            carry, errors = jax.lax.scan(update, (model, optimizer.init(model)), length=300)
            return errors, carry[0](obs, action).terminated_logit

        errors, logits = run(train, build(kind))
        assert errors[-1] < 0.03 * np.mean(target**2)
        assert np.mean((logits > 0) == (ends > 0.5)) > 0.97


def test_depth_adds_layers_and_width_is_rounded_to_the_heads():
    deep = make_dynamics("tokens", OBS, ACTION, 30, 2, key=jax.random.key(0))
    assert len(deep.blocks) == 2
    assert deep.readout.weight.shape == (WIDTH, OBS + 1)


def test_unknown_kind_names_the_known():
    with pytest.raises(MairlError, match="mlp"):
        make_dynamics("nope", OBS, ACTION, WIDTH, DEPTH, key=jax.random.key(0))


def parameter_gradient(model):
    return run(jax.grad(lambda m, o, a: jnp.sum(m(o, a).delta ** 2)), model, *data(8))


class TestTokens:
    def test_attention_weights_depend_on_the_input(self):
        weights = run(lambda m, *x: m.attention_weights(*x), build("tokens"), *data(8))
        assert weights.shape == (8, DEPTH, 4, NUM_TOKENS, NUM_TOKENS)
        close(np.sum(weights, -1), np.ones(weights.shape[:-1]))
        assert np.max(np.std(weights, axis=0)) > 0.01  # over inputs
        assert np.max(np.std(weights, axis=-1)) > 0.01  # over tokens: not uniform

    def test_query_and_key_are_learned(self):
        width = WIDTH // NUM_TOKENS
        for block in parameter_gradient(build("tokens")).blocks:
            query, key, value = np.split(block.qkv.weight, 3, axis=-1)
            assert query.shape == (width, width)
            assert all(np.max(np.abs(g)) > 1e-6 for g in (query, key, value))

    def test_blocks_do_not_care_about_the_order_of_tokens(self):
        block, order = build("tokens").blocks[0], np.array([2, 0, 3, 1])
        x = np.random.default_rng(0).normal(size=(5, 4, WIDTH // NUM_TOKENS)).astype("float32")
        plain, weights = run(lambda b, x: b(x, 4), block, x.reshape(20, -1))
        moved, moved_weights = run(lambda b, x: b(x, 4), block, x[:, order].reshape(20, -1))
        close(plain.reshape(x.shape)[:, order], moved.reshape(x.shape))
        close(weights[:, :, order][:, :, :, order], moved_weights)

    @pytest.mark.parametrize(("tokenizer", "expected"), [("grouped", 3), ("dimension", 5)])
    def test_other_tokenizers(self, tokenizer, expected):
        model = TokenAttentionDynamics(
            *(OBS, ACTION),
            num_tokens=3,
            width=8,
            layers=1,
            tokenizer=tokenizer,
            key=jax.random.key(0),
        )
        obs, action = data(8)
        assert model.num_tokens == expected
        tokens = run(lambda m, o, a: m.tokens(o, a), model, obs, action).reshape(8, expected, 8)
        if tokenizer == "dimension":  # token i is input i times its embedding, plus an offset
            embedding, offset = jax.device_get((model.embedding, model.offset))
            by_hand = float(obs[1, 2]) * embedding[2] + offset.reshape(5, 8)[2]
            close(tokens[1, 2], by_hand)
        assert all((g != 0).any() for g in jax.tree.leaves(parameter_gradient(model)))

    def test_width_must_fit_the_heads(self):
        with pytest.raises(MairlError, match="multiple of heads"):
            TokenAttentionDynamics(3, 2, num_tokens=2, width=6, layers=1, key=jax.random.key(0))


class TestReleased:
    """What the released code's attention really computes (docs/departures.md)."""

    def test_attention_is_always_one(self):
        _, mixed, weights = run(lambda m, *x: m.attention(*x), build("released"), *data(8))
        assert (weights == 1.0).all()
        assert mixed.shape == (8, WIDTH)

    def test_key_gets_no_gradient_and_query_only_by_the_skip(self):
        model = build("released")
        gradient = parameter_gradient(model)
        assert all((g == 0).all() for g in jax.tree.leaves(gradient.key))
        assert (gradient.query.weight != 0).any()
        through_attention = run(
            jax.grad(lambda m, *x: jnp.sum(m.attention(*x)[1] ** 2)), model, *data(8)
        )
        assert (through_attention.query.weight == 0).all()
        assert (through_attention.value.weight != 0).any()


class TestMemory:
    @staticmethod
    def last_delta(model, obs, action):
        def step(carry, x):
            return model.step(carry, *x)

        return jax.lax.scan(step, model.initial(obs.shape[1:-1]), (obs, action))[1].delta

    def test_window_uses_the_last_steps_only_and_never_the_future(self):
        model, (obs, action) = build("window"), data(12)
        jacobian = run(jax.jacobian(self.last_delta, argnums=1), model, obs, action)
        reach = np.max(np.abs(jacobian), axis=(1, 3))  # [predicted step, input step]
        lag = np.arange(12)[:, None] - np.arange(12)
        assert (reach[(lag >= 0) & (lag < model.window)] > 0).all()
        assert (reach[(lag < 0) | (lag >= model.window)] == 0).all()

    def test_gru_remembers(self):
        model, (obs, action) = build("gru"), data(6)
        jacobian = run(jax.jacobian(self.last_delta, argnums=1), model, obs, action)
        reach = np.max(np.abs(jacobian), axis=(1, 3))
        assert (reach[np.tril_indices(6)] > 0).all()
        assert (reach[np.triu_indices(6, 1)] == 0).all()


class TestEnsemble:
    @pytest.mark.parametrize("kind", KINDS)
    def test_members_differ_and_each_is_the_model_alone(self, kind):
        def make(key):
            return make_dynamics(kind, OBS, ACTION, WIDTH, DEPTH, key=key)

        ensemble, (obs, action) = Ensemble(make, 3, key=jax.random.key(3)), data(2, 4)

        def steps(model, obs, action):
            carry, _ = model.step(model.initial((4,)), obs[0], action[0])
            return model.step(carry, obs[1], action[1])[1]

        together = run(steps, ensemble, obs, action)
        assert together.delta.shape == (3, 4, OBS)
        assert together.terminated_logit.shape == (3, 4)
        assert np.std(together.delta, axis=0).min() > 1e-4
        for i, key in enumerate(jax.random.split(jax.random.key(3), 3)):
            alone = run(steps, ensemble.member(i), obs, action)
            close(alone, jax.tree.map(lambda x, i=i: x[i], together))
            if i == 0:
                close(ensemble.member(0), make(key))

    def test_each_member_on_its_own_input(self):
        ensemble = Ensemble(
            lambda key: make_dynamics("gru", OBS, ACTION, WIDTH, DEPTH, key=key),
            3,
            key=jax.random.key(3),
        )
        obs, action = data(3, 4)
        each = run(lambda e: e.step_each(e.initial((4,)), obs, action), ensemble)[1]
        alone = run(lambda m: m(obs[1], action[1]), ensemble.member(1))
        close(jax.tree.map(lambda x: x[1], each), alone)

    def test_mean_over_members(self):
        ensemble = Ensemble(
            lambda key: make_dynamics("mlp", OBS, ACTION, WIDTH, 2, key=key),
            3,
            key=jax.random.key(0),
        )
        together = run(lambda ensemble: ensemble(*data(4)), ensemble)
        close(run(mean, together).delta, np.mean(together.delta, 0))

    @pytest.mark.parametrize(("kind", "remembers"), [("mlp", False), ("gru", True)])
    def test_knows_whether_it_remembers(self, kind, remembers):
        build = lambda key: make_dynamics(kind, OBS, ACTION, WIDTH, 2, key=key)  # noqa: E731
        assert Ensemble(build, 2, key=jax.random.key(0)).remembers is remembers
