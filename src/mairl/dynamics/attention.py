"""Self-attention over tokens made from (obs, action), without knowledge of the task."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mairl.dynamics.base import MarkovDynamics, join
from mairl.nets.mlp import Linear, layer_norm
from mairl.types import MairlError

Tokenizer = Literal["soft", "grouped", "dimension"]


def attend(
    query: Float[Array, "batch to heads head"],
    key: Float[Array, "batch from heads head"],
    value: Float[Array, "batch from heads head"],
) -> tuple[Float[Array, "batch to heads head"], Float[Array, "batch heads to from"]]:
    """Scaled dot-product attention, softmax(Q K^T / sqrt(d)) V, and its weights.

    Vaswani et al. 2017, equation 1, per head.
    """
    scores = jnp.einsum("bthd,bshd->bhts", query, key) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bhts,bshd->bthd", weights, value), weights


class Block(eqx.Module):
    """A pre-layer-norm transformer block (Vaswani et al. 2017; Xiong et al. 2020).

        x = x + W_o concat_h attend(Q_h, K_h, V_h),  Q, K, V = W [layer_norm(x)]
        x = x + W_2 silu(W_1 layer_norm(x))

    Tokens come flattened into the batch, ``[batch * tokens, width]``: dense layers over two axes
    are single matrix products, cheaper on CPU than products over three axes.
    """

    qkv: Linear
    out: Linear
    up: Linear
    down: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, expand: int, *, key: Key[Array, ""]):
        """``expand`` is the feed-forward layer's width in units of ``width``."""
        k_qkv, k_out, k_up, k_down = jax.random.split(key, 4)
        self.qkv = Linear(width, 3 * width, key=k_qkv)
        self.out = Linear(width, width, key=k_out, scale=0.5)
        self.up = Linear(width, expand * width, key=k_up, scale=2**0.5)
        self.down = Linear(expand * width, width, key=k_down, scale=0.5)
        self.heads = heads

    def __call__(
        self, x: Float[Array, "rows width"], num_tokens: int
    ) -> tuple[Float[Array, "rows width"], Float[Array, "batch heads to from"]]:
        """Mix ``num_tokens`` consecutive rows by attention, then each row by itself."""
        rows, width = x.shape
        qkv = self.qkv(layer_norm(x)).reshape(
            rows // num_tokens, num_tokens, 3, self.heads, width // self.heads
        )
        mixed, weights = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        x = x + self.out(mixed.reshape(rows, width))
        return x + self.down(jax.nn.silu(self.up(layer_norm(x)))), weights


class TokenAttentionDynamics(MarkovDynamics):
    """Self-attention over a set of tokens made from one (obs, action) pair.

    The model of MAIRL (Sun et al., RA-L 2021: multi-head scaled dot-product attention between
    state and action, with a skip around it), over a real sequence instead of the single key of
    the released code. Token t is a linear map of the whole input vector x = [obs, action],

        token_t = sum_i A_ti (x_i e_i + b_i)            ("grouped", "dimension")
        token_t = W_t x + b_t                           ("soft")

    "soft" learns every W_t freely. "grouped" learns one embedding e_i per dimension and an
    assignment A_ti = softmax_t of dimensions to tokens. "dimension" is A = identity: one token per
    dimension. The prediction is a linear map of all final tokens side by side.
    """

    embedding: Float[Array, "in columns"]
    offset: Float[Array, " columns"]
    assignment: Float[Array, "in tokens"] | None
    blocks: tuple[Block, ...]
    readout: Linear
    tokenizer: Tokenizer = eqx.field(static=True)
    num_tokens: int = eqx.field(static=True)

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        *,
        num_tokens: int,
        width: int,
        layers: int,
        heads: int = 4,
        expand: int = 2,
        tokenizer: Tokenizer = "soft",
        key: Key[Array, ""],
    ):
        """``width`` is one token's; ``num_tokens`` is ignored by the tokenizer "dimension"."""
        if width % heads:
            raise MairlError(f"width {width} is not a multiple of heads {heads}; change either")
        k_embedding, k_offset, k_assignment, k_readout, *k_blocks = jax.random.split(
            key, 4 + layers
        )
        in_size = obs_size + action_size
        num_tokens = in_size if tokenizer == "dimension" else num_tokens
        orthogonal = jax.nn.initializers.orthogonal()
        normal = jax.random.normal
        if tokenizer == "soft":
            self.embedding = orthogonal(k_embedding, (in_size, num_tokens * width), jnp.float32)
            self.embedding = self.embedding * num_tokens**0.5
            self.offset = 0.5 * normal(k_offset, (num_tokens * width,))
        else:
            self.embedding = normal(k_embedding, (in_size, width))
            self.offset = normal(k_offset, (in_size * width,))
        self.assignment = (
            2.0 * normal(k_assignment, (in_size, num_tokens)) if tokenizer == "grouped" else None
        )
        self.blocks = tuple(Block(width, heads, expand, key=k) for k in k_blocks)
        self.readout = Linear(num_tokens * width, obs_size + 1, key=k_readout, scale=0.1)
        self.tokenizer = tokenizer
        self.num_tokens = num_tokens

    def tokens(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "rows width"]:
        """The tokens that attention starts from, all batch axes and tokens flattened to rows."""
        x = join(obs, action)
        x = x.reshape(-1, x.shape[-1])
        if self.tokenizer == "soft":
            weight, offset = self.embedding, self.offset
        else:
            # The assignment times the embeddings is one matrix: cheaper than forming n tokens.
            in_size, width = self.embedding.shape
            share = (
                jnp.eye(in_size)
                if self.assignment is None
                else jax.nn.softmax(self.assignment, axis=-1)
            )
            weight = jnp.einsum("nt,nw->ntw", share, self.embedding).reshape(in_size, -1)
            each = self.offset.reshape(in_size, width)
            offset = jnp.einsum("nt,nw->tw", share, each).reshape(-1)
        columns = x @ weight
        columns = columns + jnp.broadcast_to(offset, columns.shape)
        return columns.reshape(x.shape[0] * self.num_tokens, -1)

    def raw(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch out"]:
        """Tokens, blocks, linear readout of all tokens."""
        return self._forward(obs, action)[0]

    def attention_weights(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch layers heads to from"]:
        """Who looks at whom: the softmax weights of every layer and head."""
        weights = jnp.stack(self._forward(obs, action)[1], axis=1)
        return weights.reshape(*obs.shape[:-1], *weights.shape[1:])

    def _forward(self, obs: Array, action: Array) -> tuple[Array, list[Array]]:
        x = self.tokens(obs, action)
        all_weights = []
        for block in self.blocks:
            x, weights = block(x, self.num_tokens)
            all_weights.append(weights)
        out = self.readout(layer_norm(x).reshape(*obs.shape[:-1], -1))
        return out, all_weights


class ReleasedDynamics(MarkovDynamics):
    """An ablation: the model as MAIRL's released code has it, one state and one action token.

        q = sigmoid(W_q e_s),  k = sigmoid(W_k e_a),  v = sigmoid(W_v e_a)
        raw = MLP(q + W_o softmax(q k^T / sqrt(d)) v)

    with e_s = relu(W obs), e_a = relu(W action). The softmax runs over a single key and is always
    1, so the attention is v whatever q and k are: k gets no gradient at all, q gets one only
    because the skip connection reuses it. The decoder sees a sum of state
    features and action features.
    """

    state_embed: Linear
    action_embed: Linear
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    decoder: tuple[Linear, ...]
    heads: int = eqx.field(static=True)

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        width: int,
        depth: int,
        *,
        heads: int = 4,
        key: Key[Array, ""],
    ):
        """The released sizes are width 100, 4 heads, ``depth`` 3 hidden layers in the decoder."""
        if width % heads:
            raise MairlError(f"width {width} is not a multiple of heads {heads}; change either")
        keys = jax.random.split(key, 7 + depth)
        self.state_embed = Linear(obs_size, width, key=keys[0], scale=2**0.5)
        self.action_embed = Linear(action_size, width, key=keys[1], scale=2**0.5)
        self.query = Linear(width, width, key=keys[2])
        self.key = Linear(width, width, key=keys[3])
        self.value = Linear(width, width, key=keys[4])
        self.out = Linear(width, width, key=keys[5])
        self.decoder = (
            *(Linear(width, width, key=k, scale=2**0.5) for k in keys[7:]),
            Linear(width, obs_size + 1, key=keys[6], scale=0.1),
        )
        self.heads = heads

    def attention(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> tuple[Float[Array, "rows width"], Float[Array, "rows width"], Float[Array, "..."]]:
        """Query, attention output and attention weights (all 1), batch axes flattened."""
        state = jax.nn.relu(self.state_embed(obs.reshape(-1, obs.shape[-1])))
        act = jax.nn.relu(self.action_embed(action.reshape(-1, action.shape[-1])))
        query, key, value = (
            jax.nn.sigmoid(layer(x))
            for layer, x in ((self.query, state), (self.key, act), (self.value, act))
        )
        rows, width = query.shape
        shape = (rows, 1, self.heads, width // self.heads)
        mixed, weights = attend(query.reshape(shape), key.reshape(shape), value.reshape(shape))
        return query, mixed.reshape(rows, width), weights

    def raw(
        self, obs: Float[Array, "*batch obs"], action: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch out"]:
        """Attention that is none, skip connection, dense decoder."""
        query, mixed, _ = self.attention(obs, action)
        x = query + self.out(mixed)
        for layer in self.decoder[:-1]:
            x = jax.nn.relu(layer(x))
        return self.decoder[-1](x).reshape(*obs.shape[:-1], -1)
