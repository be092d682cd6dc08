import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mairl import normalizer, replay
from mairl.types import MairlError, Transition

init = jax.jit(replay.init, static_argnums=(0, 1, 2, 3))
add = jax.jit(replay.add)
jit_sample = jax.jit(replay.sample, static_argnums=2)
jit_segments = jax.jit(replay.sample_segments, static_argnums=(2, 3))


def sample(*args):
    return to_numpy(jit_sample(*args))


def sample_segments(*args):
    return to_numpy(jit_segments(*args))


def to_numpy(tree):
    """Indexing jax arrays compiles for every shape anew; numpy does not."""
    return jax.tree.map(np.asarray, tree)


def stamped(start: int, steps: int, num_envs: int, last: np.ndarray):
    """Steps whose every field tells time and environment: 1000 * env + time."""
    stamp = np.arange(start, start + steps, dtype=np.float32)[:, None]
    stamp = stamp + 1000.0 * np.arange(num_envs, dtype=np.float32)[None]
    data = Transition(
        obs=np.stack([stamp, -stamp], -1),
        action=stamp[..., None],
        next_obs=np.stack([stamp + 1, -stamp - 1], -1),
        terminated=last,
    )
    return data, last.astype(np.float32)


@st.composite
def histories(draw):
    # Few distinct sizes: each combination is compiled.
    capacity, num_envs = draw(st.sampled_from([1, 5])), 2
    sizes = draw(st.lists(st.sampled_from([1, 3, 7]), min_size=1, max_size=5))
    bits = draw(
        st.lists(st.booleans(), min_size=sum(sizes) * num_envs, max_size=sum(sizes) * num_envs)
    )
    last = np.array(bits, np.float32).reshape(sum(sizes), num_envs)
    return capacity, num_envs, sizes, last


@settings(max_examples=25, deadline=None)
@given(histories(), st.integers(0, 2**31 - 1))
def test_ring_equals_the_newest_rows_of_a_list(history, seed):
    capacity, num_envs, sizes, last = history
    ring, model, time = init(capacity, num_envs, 2, 1), [], 0
    for steps in sizes:
        ring = add(ring, *stamped(time, steps, num_envs, last[time : time + steps]))
        model += range(time, time + steps)
        time += steps
    model = model[-capacity:]
    assert int(ring.filled) == len(model)
    rows = [(int(ring.position) - len(model) + i) % capacity for i in range(len(model))]
    held = to_numpy(ring)
    np.testing.assert_array_equal(held.data.obs[rows, 0, 0], model)
    np.testing.assert_array_equal(held.last[rows], last[model])

    drawn = sample(ring, jax.random.key(seed), 16)
    times, envs = drawn.obs[:, 0] % 1000, drawn.obs[:, 0] // 1000
    assert set(times) <= set(model)
    assert set(envs) <= set(range(num_envs))
    np.testing.assert_array_equal(drawn.obs[:, 0], drawn.action[:, 0])
    np.testing.assert_array_equal(drawn.obs + np.float32([1, -1]), drawn.next_obs)

    length = min(capacity, 3)
    segments, mask = sample_segments(ring, jax.random.key(seed), 16, length)
    stamps = segments.obs[..., 0]
    assert set(np.unique(mask)) <= {0.0, 1.0}
    for segment, valid in zip(stamps, mask, strict=True):
        count = int(valid.sum())
        # Valid steps come first, at least one, successive, of one environment, all present.
        assert count >= 1
        assert valid[:count].all()
        np.testing.assert_array_equal(segment[:count], segment[0] + np.arange(count))
        env, times = int(segment[0] // 1000), (segment[:count] % 1000).astype(int)
        assert set(times) <= set(model)
        # Only the final valid step may end an episode, and a short segment has a reason.
        assert not last[times[:-1], env].any()
        assert count == length or last[times[-1], env] or len(model) < length


def test_segments_start_everywhere_they_fit_and_never_straddle_the_head():
    ring = init(5, 1, 2, 1)
    for t in range(8):  # The ring now holds 3..7, the write head in the middle.
        ring = add(ring, *stamped(t, 1, 1, np.zeros((1, 1), np.float32)))
    segments, mask = sample_segments(ring, jax.random.key(0), 200, 3)
    assert set(segments.obs[:, 0, 0]) == {3.0, 4.0, 5.0}
    assert mask.all()


def test_last_step_is_valid_and_what_follows_is_masked():
    ring = init(4, 1, 2, 1)
    ring = add(ring, *stamped(0, 4, 1, np.float32([[0], [1], [0], [0]])))
    _, mask = sample_segments(ring, jax.random.key(0), 3, 4)
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0]] * 3)


def test_segments_of_a_ring_still_filling_are_masked():
    ring = add(init(9, 1, 2, 1), *stamped(0, 2, 1, np.zeros((2, 1), np.float32)))
    segments, mask = sample_segments(ring, jax.random.key(0), 2, 4)
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0]] * 2)
    np.testing.assert_array_equal(segments.obs[:, :2, 0], [[0, 1]] * 2)


def test_sampling_is_uniform_over_rows_and_environments():
    ring = add(init(8, 2, 2, 1), *stamped(0, 5, 2, np.zeros((5, 2), np.float32)))
    stamps, counts = np.unique(
        sample(ring, jax.random.key(1), 20_000).obs[:, 0], return_counts=True
    )
    assert len(stamps) == 10
    # 2000 expected each, deviation about 42.
    assert abs(counts - 2000).max() < 250


def test_break_stream_marks_the_newest_row_only():
    ring = init(3, 2, 2, 1)
    np.testing.assert_array_equal(replay.break_stream(ring).last, np.zeros((3, 2)))
    ring = add(ring, *stamped(0, 4, 2, np.zeros((4, 2), np.float32)))
    np.testing.assert_array_equal(replay.break_stream(ring).last, [[1, 1], [0, 0], [0, 0]])
    one = replay.break_stream(ring, np.array([False, True]))
    np.testing.assert_array_equal(one.last, [[0, 1], [0, 0], [0, 0]])


def test_newest_rows_come_in_order_and_end_with_their_episode():
    """The paper's rollouts are these: the newest steps of every environment, on-policy."""
    ring = init(5, 2, 2, 1)
    last = np.zeros((8, 2), np.float32)
    last[6, 0] = 1.0
    for t in range(8):  # Rows 3..7 are held, the write head in their middle.
        ring = add(ring, *stamped(t, 1, 2, last[t : t + 1]))
    segment, mask = to_numpy(jax.jit(replay.newest, static_argnums=1)(ring, 3))
    np.testing.assert_array_equal(segment.obs[..., 0], [[5, 1005], [6, 1006], [7, 1007]])
    # Environment 0's episode ended at time 6: what came after is another one.
    np.testing.assert_array_equal(mask, [[1, 1], [1, 1], [0, 1]])
    # What is not filled yet does not count.
    few = add(init(5, 1, 2, 1), *stamped(0, 2, 1, np.zeros((2, 1), np.float32)))
    _, mask = to_numpy(jax.jit(replay.newest, static_argnums=1)(few, 4))
    np.testing.assert_array_equal(mask[:, 0], [0, 0, 1, 1])


def test_newest_ends_come_with_the_length_of_their_episode():
    ring = init(6, 2, 2, 1)
    terminated, last = np.zeros((8, 2), np.float32), np.zeros((8, 2), np.float32)
    last[[1, 3, 6], 0] = 1.0
    terminated[[3, 6], 0] = 1.0  # at time 1 environment 0 was cut off
    last[7, 1] = terminated[7, 1] = 1.0
    for t in range(8):  # Times 2..7 are held, the write head in their middle.
        data, _ = stamped(t, 1, 2, last[t : t + 1])
        ring = add(ring, data._replace(terminated=terminated[t : t + 1]), last[t : t + 1])
    found = to_numpy(jax.jit(replay.newest_ends, static_argnums=1)(ring, 4))
    ends, lengths, counts = found
    np.testing.assert_array_equal(counts, [1, 1, 1, 0])
    np.testing.assert_array_equal(ends.obs[:3, 0], [1007, 6, 3])
    # Environment 1 has been in its episode since before what is held.
    np.testing.assert_array_equal(lengths[:3], [6, 3, 2])
    # While it fills, rows not written yet are no ends; fewer are asked for than there are.
    ring = add(init(9, 1, 2, 1), *stamped(0, 2, 1, np.zeros((2, 1), np.float32)))
    assert not replay.newest_ends(ring, 3)[2].any()
    ends, lengths, counts = replay.newest_ends(
        ring._replace(data=ring.data._replace(terminated=jnp.ones((9, 1)))), 1
    )
    np.testing.assert_array_equal((ends.obs[0, 0], lengths[0], counts[0]), (1, 2, 1))


def test_one_replay_per_seed_under_vmap():
    data, last = stamped(0, 2, 1, np.zeros((2, 1), np.float32))
    batch = jax.tree.map(lambda x: np.stack([x, x + 1, x + 2]), data)

    @jax.jit
    @jax.vmap
    def run(batch, key):
        ring = replay.add(replay.init(4, 1, 2, 1), batch, jnp.asarray(last))
        return ring, replay.sample(ring, key, 5)

    rings, drawn = run(batch, jax.random.split(jax.random.key(0), 3))
    assert drawn.obs.shape == (3, 5, 2)
    assert (rings.capacity, rings.num_envs) == (4, 1)
    np.testing.assert_array_equal(rings.filled, [2, 2, 2])


def test_impossible_sizes_are_refused():
    with pytest.raises(MairlError, match="capacity is 0"):
        replay.init(0, 1, 1, 1)
    with pytest.raises(MairlError, match="segments of 5 steps do not fit a replay of 4"):
        replay.sample_segments(init(4, 1, 1, 1), jax.random.key(0), 1, 5)


def test_normalizer_of_a_mixture_by_hand():
    # Halves at 0 and 4 (each constant): mean 2, deviation 2, although one has 100 times the rows.
    stats = normalizer.fit(np.zeros((1000, 1)), np.full((10, 1), 4.0))
    np.testing.assert_allclose(stats.mean, [2.0])
    np.testing.assert_allclose(stats.std, [2.0])
    # A quarter at 0, three quarters at ±1 around 4: mean 3, variance 0.75 * 1 + 3 = 3.75.
    stats = normalizer.fit(np.zeros((1, 1)), np.array([[3.0], [5.0]]), weights=[1, 3])
    np.testing.assert_allclose(stats.mean, [3.0])
    np.testing.assert_allclose(stats.std, [3.75**0.5], rtol=1e-6)


def test_normalizer_keeps_constants_clips_and_inverts():
    x = np.stack([np.full(6, 1e4, np.float32), np.arange(6, dtype=np.float32)], -1)
    stats = normalizer.fit(x)
    assert float(stats.std[0]) == 1.0
    y = jax.jit(normalizer.Normalizer.normalize)(stats, jnp.asarray(x))
    np.testing.assert_allclose(y[:, 0], 0.0)
    np.testing.assert_allclose(y.std(0)[1], 1.0, rtol=1e-5)
    np.testing.assert_allclose(stats.denormalize(y), x, rtol=1e-6, atol=1e-6)
    far = stats.normalize(jnp.array([-1e9, 1e9]))
    np.testing.assert_array_equal(far, [-10.0, 10.0])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.floats(-1e3, 1e3), st.floats(0.01, 1e3), st.integers(0, 1000))
def test_normalizer_of_one_batch_is_its_mean_and_deviation(size, shift, scale, seed):
    x = np.random.default_rng(seed).normal(shift, scale, (50, size))
    stats = normalizer.fit(x.reshape(5, 10, size))
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(stats.std, x.std(0), rtol=1e-4)


@pytest.mark.parametrize(
    ("batches", "weights", "message"),
    [
        ([], None, "no data"),
        ([np.zeros((0, 2))], None, "batch 0 is empty"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], None, "batch 1 has 1 dimensions, batch 0 has 2"),
        ([np.array([[0.0, np.nan]])], None, "row 0, dimension 1 is nan"),
        ([np.zeros((3, 2))], [0.0], "one positive number"),
        ([np.zeros((3, 2))], [1.0, 1.0], "for 1 batches"),
    ],
)
def test_normalizer_refuses(batches, weights, message):
    with pytest.raises(MairlError, match=message):
        normalizer.fit(*batches, weights=weights)
