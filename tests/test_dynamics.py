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
    choose,
    disagreement,
    make_dynamics,
    mean,
)
from mairl.types import MairlError

OBS, ACTION, WIDTH, DEPTH = 3, 2, 32, 1
KINDS = sorted(DYNAMICS)


@pytest.fixture(autouse=True, scope="module")
def _compile_fast():
    """These networks are tiny: compiling them costs far more than running them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def build(kind, seed=0):
    return make_dynamics(kind, OBS, ACTION, WIDTH, DEPTH, key=jax.random.key(seed))


@functools.cache
def data(*batch):
    rng = np.random.default_rng(0)
    shapes = (*batch, OBS), (*batch, ACTION)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)


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
        model, call = build(kind), jax.jit(lambda m, o, a: m(o, a))
        obs, action = data(2, 4)
        batched = call(model, obs, action)
        assert batched.delta.shape == (2, 4, OBS)
        assert batched.terminated_logit.shape == (2, 4)
        single = call(model, obs[1, 2], action[1, 2])
        assert single.delta.shape == (OBS,)
        assert single.terminated_logit.shape == ()
        close(single, jax.tree.map(lambda x: x[1, 2], batched))
        close(jax.jit(jax.vmap(model))(obs[0], action[0]), jax.tree.map(lambda x: x[0], batched))

    def test_same_key_same_model(self, kind):
        close(build(kind), build.__wrapped__(kind), 0.0)
        first, second = (jax.tree.leaves(build(kind, seed)) for seed in (0, 1))
        assert any(bool(jnp.any(x != y)) for x, y in zip(first, second, strict=True))

    def test_scanned_steps_keep_the_shape_of_the_carry(self, kind):
        model, (obs, action) = build(kind), data(5, 4)

        @jax.jit
        def roll(model):
            return jax.lax.scan(lambda c, x: model.step(c, *x), model.initial((4,)), (obs, action))

        carry, predictions = roll(model)
        assert jax.tree.map(jnp.shape, carry) == jax.tree.map(jnp.shape, model.initial((4,)))
        close(jax.tree.map(lambda x: x[0], predictions), model(obs[0], action[0]))

    def test_gradients_are_those_of_finite_differences(self, kind):
        obs, action = data(4)
        rng = np.random.default_rng(1)
        with jax.enable_x64(True):
            as64 = functools.partial(jax.tree.map, lambda x: jnp.asarray(np.asarray(x), "float64"))
            model, obs, action = as64(build(kind)), as64(obs), as64(action)
            pick = jnp.asarray(rng.normal(size=(4, OBS)))

            @jax.jit
            @jax.value_and_grad
            def loss(inputs):
                carry, first = model.step(model.initial((4,)), *inputs)
                _, second = model.step(carry, inputs[0] + first.delta, inputs[1])
                return jnp.sum(pick * second.delta) + jnp.sum(second.terminated_logit)

            gradient = loss((obs, action))[1]
            for i in range(2):
                way = [jnp.zeros_like(obs), jnp.zeros_like(action)]
                way[i] = jnp.asarray(rng.normal(size=way[i].shape))
                ahead, behind = (
                    loss((obs + e * way[0], action + e * way[1]))[0] for e in (1e-6, -1e-6)
                )
                assert bool(jnp.all(jnp.isfinite(gradient[i])))
                assert abs(float(jnp.sum(gradient[i]))) > 0
                expected = float((ahead - behind) / 2e-6)
                assert float(jnp.sum(gradient[i] * way[i])) == pytest.approx(expected, rel=1e-5)

    def test_learns_a_linear_system_with_ends(self, kind):
        rng = np.random.default_rng(0)
        obs, action = rng.normal(size=(256, OBS)), rng.uniform(-1, 1, size=(256, ACTION))
        matrix = rng.normal(size=(OBS + ACTION, OBS)) / 2
        obs, action = jnp.asarray(obs, jnp.float32), jnp.asarray(action, jnp.float32)
        target = jnp.concatenate([obs, action], -1) @ jnp.asarray(matrix, jnp.float32)
        ends = jnp.asarray(obs[:, 0] > 0.5, jnp.float32)
        optimizer = optax.adam(3e-3)

        def loss(model):
            delta, logit = model(obs, action)
            error = jnp.mean((delta - target) ** 2)
            return error + jnp.mean(optax.sigmoid_binary_cross_entropy(logit, ends)), error

        @jax.jit
        def train(model):
            def update(carry, _):
                model, state = carry
                (_, error), gradient = jax.value_and_grad(loss, has_aux=True)(model)
                updates, state = optimizer.update(gradient, state)
                return (optax.apply_updates(model, updates), state), error

            carry, errors = jax.lax.scan(update, (model, optimizer.init(model)), length=300)
            return carry[0], errors

        model, errors = train(build(kind))
        assert float(errors[-1]) < 0.03 * float(jnp.mean(target**2))
        assert float(jnp.mean((model(obs, action).terminated_logit > 0) == (ends > 0.5))) > 0.97


def test_depth_adds_layers_and_width_is_rounded_to_the_heads():
    deep = make_dynamics("tokens", OBS, ACTION, 30, 2, key=jax.random.key(0))
    assert len(deep.blocks) == 2
    assert deep.readout.weight.shape == (WIDTH, OBS + 1)


def test_unknown_kind_names_the_known():
    with pytest.raises(MairlError, match="mlp"):
        make_dynamics("nope", OBS, ACTION, WIDTH, DEPTH, key=jax.random.key(0))


def parameter_gradient(model):
    obs, action = data(8)
    return jax.jit(jax.grad(lambda m: jnp.sum(m(obs, action).delta ** 2)))(model)


class TestTokens:
    def test_attention_weights_depend_on_the_input(self):
        weights = jax.jit(lambda m, o, a: m.attention_weights(o, a))(build("tokens"), *data(8))
        assert weights.shape == (8, DEPTH, 4, NUM_TOKENS, NUM_TOKENS)
        close(jnp.sum(weights, -1), jnp.ones(weights.shape[:-1]))
        assert float(jnp.max(jnp.std(weights, axis=0))) > 0.01  # over inputs
        assert float(jnp.max(jnp.std(weights, axis=-1))) > 0.01  # over tokens: not uniform

    def test_query_and_key_are_learned(self):
        width = WIDTH // NUM_TOKENS
        for block in parameter_gradient(build("tokens")).blocks:
            query, key, value = jnp.split(block.qkv.weight, 3, axis=-1)
            assert query.shape == (width, width)
            assert all(float(jnp.max(jnp.abs(g))) > 1e-6 for g in (query, key, value))

    def test_blocks_do_not_care_about_the_order_of_tokens(self):
        block, order = build("tokens").blocks[0], np.array([2, 0, 3, 1])
        x = np.random.default_rng(0).normal(size=(5, 4, WIDTH // NUM_TOKENS)).astype("float32")
        mix = jax.jit(lambda block, x: block(x, 4))
        plain, weights = map(np.asarray, mix(block, x.reshape(20, -1)))
        moved, moved_weights = mix(block, x[:, order].reshape(20, -1))
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
        tokens = jax.jit(lambda m: m.tokens(obs, action))(model).reshape(8, expected, 8)
        if tokenizer == "dimension":  # token i is input i times its embedding, plus an offset
            by_hand = obs[1, 2] * model.embedding[2] + model.offset.reshape(5, 8)[2]
            close(tokens[1, 2], by_hand)
        assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(parameter_gradient(model)))

    def test_width_must_fit_the_heads(self):
        with pytest.raises(MairlError, match="multiple of heads"):
            TokenAttentionDynamics(3, 2, num_tokens=2, width=6, layers=1, key=jax.random.key(0))


class TestReleased:
    """What the released code's attention really computes (docs/departures.md)."""

    def test_attention_is_always_one(self):
        _, mixed, weights = jax.jit(lambda m: m.attention(*data(8)))(build("released"))
        assert bool(jnp.all(weights == 1.0))
        assert mixed.shape == (8, WIDTH)

    def test_key_gets_no_gradient_and_query_only_by_the_skip(self):
        model, (obs, action) = build("released"), data(8)
        gradient = parameter_gradient(model)
        assert all(bool(jnp.all(g == 0)) for g in jax.tree.leaves(gradient.key))
        assert bool(jnp.any(gradient.query.weight != 0))
        through_attention = jax.jit(
            jax.grad(lambda m: jnp.sum(m.attention(obs, action)[1] ** 2)),
        )(model)
        assert bool(jnp.all(through_attention.query.weight == 0))
        assert bool(jnp.any(through_attention.value.weight != 0))


class TestMemory:
    @staticmethod
    def last_delta(model, obs, action):
        def step(carry, x):
            return model.step(carry, *x)

        return jax.lax.scan(step, model.initial(obs.shape[1:-1]), (obs, action))[1].delta

    def test_window_uses_the_last_steps_only_and_never_the_future(self):
        model, (obs, action) = build("window"), data(12)
        jacobian = jax.jit(jax.jacobian(self.last_delta, argnums=1))(model, obs, action)
        reach = np.asarray(jnp.max(jnp.abs(jacobian), axis=(1, 3)))  # [predicted step, input step]
        lag = np.arange(12)[:, None] - np.arange(12)
        assert (reach[(lag >= 0) & (lag < model.window)] > 0).all()
        assert (reach[(lag < 0) | (lag >= model.window)] == 0).all()

    def test_gru_remembers(self):
        model, (obs, action) = build("gru"), data(6)
        jacobian = jax.jit(jax.jacobian(self.last_delta, argnums=1))(model, obs, action)
        reach = np.asarray(jnp.max(jnp.abs(jacobian), axis=(1, 3)))
        assert (reach[np.tril_indices(6)] > 0).all()
        assert (reach[np.triu_indices(6, 1)] == 0).all()


class TestEnsemble:
    @pytest.mark.parametrize("kind", KINDS)
    def test_members_differ_and_each_is_the_model_alone(self, kind):
        def make(key):
            return make_dynamics(kind, OBS, ACTION, WIDTH, DEPTH, key=key)

        ensemble, (obs, action) = Ensemble(make, 3, key=jax.random.key(3)), data(2, 4)

        @jax.jit
        def steps(model, obs, action):
            carry, _ = model.step(model.initial((4,)), obs[0], action[0])
            return model.step(carry, obs[1], action[1])[1]

        together = steps(ensemble, obs, action)
        assert together.delta.shape == (3, 4, OBS)
        assert together.terminated_logit.shape == (3, 4)
        assert float(jnp.min(disagreement(together))) > 1e-4
        for i, key in enumerate(jax.random.split(jax.random.key(3), 3)):
            alone = steps(ensemble.member(i), obs, action)
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
        each = jax.jit(lambda e: e.step_each(e.initial((4,)), obs, action))(ensemble)[1]
        alone = jax.jit(lambda m: m(obs[1], action[1]))(ensemble.member(1))
        close(jax.tree.map(lambda x: x[1], each), alone)

    def test_statistics_over_members(self):
        ensemble = Ensemble(
            lambda key: make_dynamics("mlp", OBS, ACTION, WIDTH, 2, key=key),
            3,
            key=jax.random.key(0),
        )
        together = ensemble(*data(4))
        close(mean(together).delta, np.mean(together.delta, 0))
        close(disagreement(together), np.std(together.delta, 0))
        chosen = choose(together, jnp.array([2, 0, 1, 1]))
        close(chosen.delta[0], together.delta[2, 0])
        close(chosen.terminated_logit[3], together.terminated_logit[1, 3])
        same = jax.tree.map(lambda x: jnp.stack([x[0]] * 3), together)
        gradient = jax.grad(lambda d: jnp.sum(disagreement(same._replace(delta=d))))(same.delta)
        assert bool(jnp.all(jnp.isfinite(gradient)))
