import os

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from mairl import envs
from mairl.envs.gymnasium import STREAMS
from mairl.types import MairlError


class Counter(gym.Env):
    """Observation (episode's random start, steps so far); each step pays 1."""

    def __init__(
        self,
        obs_space=None,
        action_space=None,
        fail_at=None,
        nan_at=None,
        bad_shape_at=None,
        old_api=False,
        end_at=5,
        noise=None,
        text=False,
        reward=1.0,
    ):
        self.observation_space = obs_space or spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = action_space or spaces.Box(
            np.array([0.0, -1.0]), np.array([10.0, 1.0]), dtype=np.float64
        )
        self.fail_at, self.nan_at, self.bad_shape_at = fail_at, nan_at, bad_shape_at
        self.old_api, self.end_at, self.noise, self.text = old_api, end_at, noise, text
        self.reward, self.received, self.options = reward, [], None

    def observe(self):
        obs = np.full(self.observation_space.shape, self.steps, np.float64)
        obs.flat[0] = self.start
        if self.noise is not None:
            obs.flat[0] = self.noise.random()
        if self.steps == self.nan_at:
            obs.flat[-1] = np.nan
        if self.text:
            return "left"
        return obs[:-1] if self.steps == self.bad_shape_at else obs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start, self.steps = self.np_random.random(), 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.received.append(action)
        self.steps += 1
        if self.steps == self.fail_at:
            raise RuntimeError("motor on fire")
        result = (self.observe(), self.reward, self.steps == self.end_at, False, {})
        return (*result[:3], {}) if self.old_api else result


gym.register("mairltest/Counter-v0", entry_point=Counter)
gym.register("mairltest/Counter-v2", entry_point=Counter)
gym.register("mairltest/Limited-v0", entry_point=Counter, max_episode_steps=3)
ID = "mairltest/Counter-v2"


def centre(obs, count):
    return np.zeros((len(obs), 2), np.float32)


def seeded(size):
    """A policy whose actions depend on the count alone, as with a folded key."""
    return lambda obs, count: (
        np.random.default_rng(count).uniform(-1, 1, (len(obs), size)).astype(np.float32)
    )


def same(a, b):
    for x, y in zip(a.data, b.data, strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a.last, b.last)


# What an environment looks like


def test_spec_of_known_environments():
    hopper = envs.make_spec("Hopper-v5")
    assert (hopper.env_id, hopper.obs_size, hopper.action_size) == ("Hopper-v5", 11, 3)
    assert (hopper.action_low, hopper.action_high) == ((-1.0,) * 3, (1.0,) * 3)
    assert hopper.max_episode_steps == 1000
    cartpole = envs.make_spec("CartPole-v1")
    assert (cartpole.discrete, cartpole.action_size, cartpole.action_low) == (True, 2, ())
    assert envs.make_spec("mairltest/Limited-v0").max_episode_steps == 3
    assert envs.make_spec(ID).max_episode_steps is None
    assert envs.make_spec(ID, {"max_episode_steps": 7}).max_episode_steps == 7


def test_id_without_version_is_resolved():
    with pytest.warns(UserWarning, match="latest versioned"):
        assert envs.make_spec("mairltest/Counter").env_id == "mairltest/Counter-v2"


def test_loading_mujoco_leaves_no_message_and_no_file(tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    envs.make_spec("HalfCheetah-v5")
    assert capfd.readouterr().err == ""
    assert os.listdir(tmp_path) == []
    assert not recwarn.list


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Hopper-v9", "'Hopper-v9' is not registered; nearest: 'Hopper-v5'"),
        ("hoper-v5", "nearest: 'Hopper-v5'"),
        ("mairl/Hopper-v5", "nearest: 'mairl/Hopper-v0'"),
        ("mairltest/Conter-v0", "nearest: 'mairltest/Counter-v2'"),
        ("Counter-v0", "nearest: 'mairltest/Counter-v2'"),
        ("mairltest/Counter-v7", "nearest: 'mairltest/Counter-v2'"),
        ("zzzzzzz-v0", "is not registered. If a package of its own provides it"),
        ("", "'' is not registered"),
        ("no_such_module:Env-v0", "cannot be imported: No module named 'no_such_module'"),
    ],
)
def test_unknown_ids(env_id, message):
    with pytest.raises(MairlError) as caught:
        envs.make_spec(env_id)
    assert message in str(caught.value)


def test_missing_package_and_refused_arguments():
    def lacking():
        raise gym.error.DependencyNotInstalled("pip install wheels")

    gym.register("mairltest/Lacking-v0", entry_point=lacking)
    with pytest.raises(MairlError, match="lacks a package: pip install wheels"):
        envs.make_spec("mairltest/Lacking-v0")
    with pytest.raises(MairlError, match=r"arguments \{'colour': 1\}: TypeError.*colour"):
        envs.make_spec(ID, {"colour": 1})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obs_space": spaces.Text(5)}, "space Text is not supported.*TransformObservation"),
        (
            {"obs_space": spaces.Dict(a=spaces.Tuple([spaces.Text(5)]))},
            "observation space Text is not",
        ),
        (
            {"obs_space": spaces.Dict(eye=spaces.Box(0, 255, (3, 64, 64), np.uint8))},
            r"images.*\(3, 64, 64\).*pixels is not supported.*TransformObservation",
        ),
        ({"action_space": spaces.MultiDiscrete([2, 3])}, "action space MultiDiscrete is not"),
        ({"action_space": spaces.MultiBinary(3)}, "action space MultiBinary.*TransformAction"),
        (
            {"action_space": spaces.Box(-1, np.array([1, np.inf], np.float32), (2,))},
            r"action dimension 1 has bounds \[-1.0, inf\]; they must be finite",
        ),
        ({"action_space": spaces.Box(1.0, 1.0, (2,))}, r"dimension 0 has bounds \[1.0, 1.0\]"),
        ({"action_space": spaces.Box(0, 9, (2,), np.int32)}, "actions are int32; only floating"),
        ({"action_space": spaces.Box(-1, 1, (0,))}, "the action space is empty"),
        ({"obs_space": spaces.Box(-1, 1, (3, 0))}, "the observation space is empty"),
    ],
)
def test_unsupported_spaces_are_named_with_a_remedy(kwargs, message):
    with pytest.raises(MairlError, match=message):
        envs.make_spec(ID, kwargs)


# Spaces


def test_actions_arrive_in_the_environments_units_within_its_bounds():
    # 0.1 rounds up in float32: the bound must hold in float64 all the same.
    space = spaces.Box(np.array([-0.1, 0.0]), np.array([0.1, 10.0]), dtype=np.float64)
    spec = envs.make_spec(ID, {"action_space": space})
    with envs.Collector(ID, spec, 0, env_kwargs={"action_space": space}) as collector:
        batch, _ = collector.collect(lambda obs, count: np.float32([[1.0, count / 2]]), 3)
        received = collector._envs[0]._env.unwrapped.received
    np.testing.assert_array_equal(received, [[0.1, 5.0], [0.1, 7.5], [0.1, 10.0]])
    np.testing.assert_array_equal(batch.data.action[:, 0, 1], [0.0, 0.5, 1.0])


def test_boxes_of_any_shape_are_flattened():
    kwargs = {
        "obs_space": spaces.Box(-9, 9, (2, 3)),
        "action_space": spaces.Box(-2, 2, (2, 2)),
    }
    spec = envs.make_spec(ID, kwargs)
    assert (spec.obs_size, spec.action_size) == (6, 4)
    with envs.Collector(ID, spec, 0, env_kwargs=kwargs) as collector:
        batch, _ = collector.collect(lambda obs, count: np.float32([[-1, 0, 0.5, 1]]), 2)
        np.testing.assert_array_equal(
            collector._envs[0]._env.unwrapped.received[0], [[-2, 0], [1, 2]]
        )
    assert batch.data.obs.dtype == np.float32
    np.testing.assert_array_equal(batch.data.next_obs[:, 0, 1:], [[1] * 5, [2] * 5])


def test_choices_that_start_at_one():
    kwargs = {"action_space": spaces.Discrete(3, start=1)}
    spec = envs.make_spec(ID, kwargs)
    assert (spec.action_size, spec.discrete_start) == (3, 1)
    with envs.Collector(ID, spec, 0, env_kwargs=kwargs) as collector:
        batch, _ = collector.collect(lambda obs, n: np.eye(3, dtype=np.float32)[[n % 3]], 3)
        assert collector._envs[0]._env.unwrapped.received == [1, 2, 3]
    np.testing.assert_array_equal(spec.encode_action(np.array([1, 2, 3])), batch.data.action[:, 0])


def test_discrete_observations_are_one_hot():
    np.testing.assert_array_equal(envs.flatten_obs(spaces.Discrete(3, start=5), 6), [0, 1, 0])
    with pytest.raises(ValueError, match="outside"):
        envs.flatten_obs(spaces.Discrete(3), 3)
    spec = envs.make_spec("FrozenLake-v1")
    assert (spec.obs_size, spec.obs_start) == (16, 0)
    assert envs.make_spec("CartPole-v1").obs_start is None


NESTED = spaces.Dict(
    {
        "c": spaces.Box(-1, 1, (2, 2)),
        "b": spaces.Tuple((spaces.Discrete(3, start=2), spaces.Box(-1, 1, ()))),
        "a": spaces.Dict({"y": spaces.MultiBinary(2), "x": spaces.MultiDiscrete([2, 3])}),
    }
)


def test_nested_observations_are_flattened_like_gymnasium():
    NESTED.seed(0)
    samples = [NESTED.sample() for _ in range(20)]
    expected = np.stack([gym.spaces.flatten(NESTED, sample) for sample in samples])
    rows = [envs.flatten_obs(NESTED, sample) for sample in samples]
    assert all(row.dtype == np.float32 and len(row) == envs.flat_size(NESTED) for row in rows)
    np.testing.assert_array_equal(rows, expected)
    # An order of the keys that is not the space's own, as dm_control's are.
    np.testing.assert_array_equal(
        envs.flatten_obs(NESTED, dict(reversed(samples[0].items()))), expected[0]
    )
    batch = {
        "a": {name: np.stack([sample["a"][name] for sample in samples]) for name in "xy"},
        "b": tuple(np.stack([sample["b"][i] for sample in samples]) for i in range(2)),
        "c": np.stack([sample["c"] for sample in samples]),
    }
    np.testing.assert_array_equal(envs.flatten_batch(NESTED, batch), expected)
    with pytest.raises(ValueError, match=r"different lengths \[20, 20, 19\]"):
        envs.flatten_batch(NESTED, batch | {"c": batch["c"][1:]})
    for wrong in (batch["c"][0], {"a": samples[0]["a"], "c": samples[0]["c"]}):
        with pytest.raises(ValueError, match=r"its space says \['a', 'b', 'c'\]"):
            envs.flatten_obs(NESTED, wrong)


def test_blackjack_is_collected():
    spec = envs.make_spec("Blackjack-v1")
    assert (spec.obs_size, spec.obs_start, spec.action_size) == (32 + 11 + 2, None, 2)
    with envs.Collector("Blackjack-v1", spec, 0) as collector:
        batch, _ = collector.collect(lambda obs, n: np.eye(2, dtype=np.float32)[[0]], 5)
    np.testing.assert_array_equal(batch.data.obs.sum(-1), 3.0)


def test_random_actions_cover_the_space():
    rng = np.random.default_rng(0)
    box = envs.sample_random(rng, 500, envs.make_spec(ID))
    assert box.dtype == np.float32
    assert box.shape == (500, 2)
    assert -1 <= box.min() < -0.95
    assert 0.95 < box.max() <= 1
    choices = envs.sample_random(rng, 500, envs.make_spec("CartPole-v1"))
    np.testing.assert_array_equal(choices.sum(1), 1)
    assert 200 < choices[:, 0].sum() < 300


# Collecting


def test_batches_follow_each_other_and_ends_are_true_ends():
    spec = envs.make_spec(ID)
    with envs.Collector(ID, spec, 0, num_envs=2) as collector:
        first, ends = collector.collect(centre, 7)
        second, more = collector.collect(centre, 4)
        assert collector.env_steps == 22
    assert ends == [(5, True), (5, True)]
    assert more == [(5, True), (5, True)]
    np.testing.assert_array_equal(first.last[:, 0], [0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(first.data.terminated, first.last)
    # The final observation is the episode's own, the next obs the next episode's first.
    np.testing.assert_array_equal(first.data.next_obs[:, 0, 1], [1, 2, 3, 4, 5, 1, 2])
    np.testing.assert_array_equal(first.data.obs[:, 0, 1], [0, 1, 2, 3, 4, 0, 1])
    np.testing.assert_array_equal(first.data.next_obs[-1], second.data.obs[0])
    starts = first.data.obs[[0, 5], :, 0].ravel()
    assert len(set(starts)) == 4


def test_time_limit_truncates_without_terminating():
    spec = envs.make_spec("mairltest/Limited-v0")
    with envs.Collector("mairltest/Limited-v0", spec, 0) as collector:
        batch, ends = collector.collect(centre, 6)
    assert ends == [(3, False), (3, False)]
    np.testing.assert_array_equal(batch.last[:, 0], [0, 0, 1, 0, 0, 1])
    assert not batch.data.terminated.any()


def test_nothing_a_learner_gets_carries_a_reward():
    spec = envs.make_spec(ID, {"reward": 12345.0})
    with envs.Collector(ID, spec, 0, env_kwargs={"reward": 12345.0}) as collector:
        batch, ends = collector.collect(centre, 6)
        values = [*batch.data, batch.last, np.array(ends), *collector.snapshot().values()]
    assert not any((np.asarray(value) == 12345.0).any() for value in values)


def test_the_policy_sees_counts_that_go_on():
    spec, seen = envs.make_spec(ID), []
    with envs.Collector(ID, spec, 0) as collector:
        for _ in range(2):
            collector.collect(lambda obs, count: (seen.append(count), centre(obs, count))[1], 3)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_episode_starts_do_not_depend_on_history():
    """Episode 1 starts the same although episode 0 had another length."""
    spec, starts = envs.make_spec(ID), []
    for end_at in (2, 5):
        with envs.Collector(ID, spec, 3, env_kwargs={"end_at": end_at}) as collector:
            batch, _ = collector.collect(centre, 6)
        starts.append(batch.data.obs[end_at, 0, 0])
    assert starts[0] == starts[1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"fail_at": 3}, r"step 3 of episode 0 .*reset seed \d+\) failed with action \[5.0, 0.0\]: "
                         "RuntimeError: motor on fire"),
        ({"nan_at": 2}, r"step 2 of episode 0 .*observation\[1\] is nan"),
        ({"nan_at": 0}, r"reset of episode 0 \(environment 0.*observation\[1\] is nan"),
        ({"bad_shape_at": 4}, r"step 4 .*shape \(1,\), its space says \(2,\)"),
        ({"old_api": True}, "step 1 .*ValueError: not enough values to unpack"),
        ({"text": True}, "reset of episode 0 .*could not convert string to float"),
        ({"reward": np.nan}, "the reward is nan"),
    ],
)  # fmt: skip
def test_faults_of_the_environment_say_where(kwargs, message):
    spec = envs.make_spec(ID)
    with pytest.raises(MairlError, match=message) as caught:
        envs.Collector(ID, spec, 0, env_kwargs=kwargs).collect(centre, 9)
    assert str(caught.value).startswith(ID)
    with pytest.raises(MairlError, match=message):
        envs.evaluate_episodes(centre, ID, spec, 1, 0, env_kwargs=kwargs)


def test_faults_of_the_policy_and_of_the_caller():
    spec = envs.make_spec(ID)
    collector = envs.Collector(ID, spec, 0)
    with pytest.raises(MairlError, match=r"actions have shape \(1, 3\), expected \(1, 2\)"):
        collector.collect(lambda obs, count: np.zeros((1, 3)), 1)
    with pytest.raises(MairlError, match=r"not finite .*diverged"):
        collector.collect(lambda obs, count: np.full((1, 2), np.nan), 1)
    with pytest.raises(MairlError, match="num_envs is 0"):
        envs.Collector(ID, spec, 0, num_envs=0)
    with pytest.raises(MairlError, match="seed is -1"):
        envs.Collector(ID, spec, -1)
    with pytest.raises(MairlError, match="obs_size is 2, expected 4"):
        envs.Collector(ID, envs.make_spec("CartPole-v1"), 0)
    with pytest.raises(MairlError, match="at least 1"):
        envs.evaluate_episodes(centre, ID, spec, 0, 0)


def test_restarted_environments_begin_their_next_episode():
    spec = envs.make_spec(ID)
    with envs.Collector(ID, spec, 0, num_envs=2) as collector:
        first, _ = collector.collect(centre, 3)
        assert collector.restart([1]) == [(3, False)]
        assert collector.restart([1]) == []  # It has just begun.
        assert collector.env_steps == 6
        second, ends = collector.collect(centre, 5)
    assert ends == [(5, True), (5, True)]
    np.testing.assert_array_equal(second.data.obs[:, 0, 1], [3, 4, 0, 1, 2])
    np.testing.assert_array_equal(second.data.obs[:, 1, 1], [0, 1, 2, 3, 4])
    assert second.data.obs[0, 1, 0] != first.data.obs[0, 1, 0]


# Resuming


@pytest.mark.parametrize(("env_id", "size"), [(ID, 2), ("Hopper-v5", 3)])
def test_restored_run_goes_on_exactly(env_id, size):
    spec, act = envs.make_spec(env_id), seeded(size)
    with (
        envs.Collector(env_id, spec, 1, num_envs=2) as one,
        envs.Collector(env_id, spec, 1, num_envs=2) as two,
    ):
        one.collect(act, 43)
        snapshot = one.snapshot()
        expected, ends = one.collect(act, 40)
        assert two.restore(snapshot)
        got, got_ends = two.collect(act, 40)
        assert one.env_steps == two.env_steps
        # A collector that has been elsewhere goes back as well.
        assert one.restore(snapshot)
        again, _ = one.collect(act, 40)
    same(expected, got)
    same(expected, again)
    assert ends == got_ends
    assert all(isinstance(value, np.ndarray) for value in snapshot.values())


def test_snapshot_at_an_episodes_start():
    spec = envs.make_spec(ID)
    with envs.Collector(ID, spec, 1) as one, envs.Collector(ID, spec, 1) as two:
        one.collect(centre, 5)
        snapshot = one.snapshot()
        assert snapshot["actions"].shape == (0, 2)
        assert two.restore(snapshot)
        same(one.collect(centre, 3)[0], two.collect(centre, 3)[0])


def test_unrepeatable_environment_begins_a_new_episode():
    spec = envs.make_spec(ID)
    kwargs = {"noise": np.random.default_rng()}
    with envs.Collector(ID, spec, 1, env_kwargs=kwargs) as collector:
        collector.collect(centre, 7)
        snapshot = collector.snapshot()
        assert not collector.restore(snapshot)
        batch, _ = collector.collect(centre, 1)
        assert batch.data.obs[0, 0, 1] == 0.0
        assert collector.snapshot()["episodes"] == snapshot["episodes"] + 1


def test_only_the_environments_that_changed_begin_anew():
    spec = envs.make_spec(ID)
    with envs.Collector(ID, spec, 1, num_envs=2) as one:
        one.collect(centre, 3)
        snapshot = one.snapshot()
    # As if one environment now ended earlier, or looked different where it had been left.
    with envs.Collector(ID, spec, 1, num_envs=2, env_kwargs={"end_at": 3}) as two:
        assert not two.restore(snapshot)
        np.testing.assert_array_equal(two.snapshot()["episodes"], [1, 1])
    snapshot["obs"][1, 0] += 1
    with envs.Collector(ID, spec, 1, num_envs=2) as two:
        assert not two.restore(snapshot)
        np.testing.assert_array_equal(two.snapshot()["episodes"], [0, 1])
        np.testing.assert_array_equal(two.snapshot()["lengths"], [3, 0])


def test_snapshot_of_another_run_is_refused():
    spec = envs.make_spec(ID)
    snapshot = envs.Collector(ID, spec, 1, num_envs=2).snapshot()
    with pytest.raises(MairlError, match=r"'episodes' is \(2,\), this run needs \(1,\)"):
        envs.Collector(ID, spec, 1).restore(snapshot)
    with pytest.raises(MairlError, match="seed is 1, this run's is 2"):
        envs.Collector(ID, spec, 2, num_envs=2).restore(snapshot)
    del snapshot["obs"]
    with pytest.raises(MairlError, match="'obs' is missing"):
        envs.Collector(ID, spec, 1, num_envs=2).restore(snapshot)


# Evaluating


numbers = st.tuples(st.integers(0, 2**63), st.integers(0, 99), st.integers(0, 10**6))


@given(numbers, numbers, st.sampled_from(STREAMS), st.sampled_from(STREAMS))
def test_seeds_of_different_streams_never_meet(a, b, stream, other):
    one, two = (
        envs.episode_seed(seed, name, env, episode)
        for (seed, env, episode), name in ((a, stream), (b, other))
    )
    assert 0 <= one < 2**31
    # By construction: the lowest three bits are the stream.
    assert one % len(STREAMS) == STREAMS.index(stream)
    assert (one != two) or stream == other


def test_seeds_of_one_stream_are_spread():
    seeds = {envs.episode_seed(s, "train", i, k) for s in (0, 1) for i in (0, 1) for k in range(99)}
    assert len(seeds) == 4 * 99


def test_returns_lengths_and_ends_with_a_constant_batch():
    spec, shapes = envs.make_spec(ID), []

    def act(obs, count):
        shapes.append(obs.shape)
        return centre(obs, count)

    result = envs.evaluate_episodes(act, ID, spec, 5, 0, {"reward": 2.0}, num_envs=2)
    np.testing.assert_array_equal(result.returns, [10.0] * 5)
    np.testing.assert_array_equal(result.lengths, [5] * 5)
    assert result.terminated.all()
    # Three rounds of two episodes, five steps each; the last round has one row of padding.
    assert shapes == [(2, 2)] * 15


def test_evaluation_does_not_depend_on_how_many_run_side_by_side():
    spec = envs.make_spec("Hopper-v5")

    def act(obs, count):
        return np.sin(obs[:, :3] * 9)

    alone, all_at_once, padded = (
        envs.evaluate_episodes(act, "Hopper-v5", spec, 4, 7, num_envs=n) for n in (1, None, 6)
    )
    for other in (all_at_once, padded):
        np.testing.assert_array_equal(alone.returns, other.returns)
        np.testing.assert_array_equal(alone.lengths, other.lengths)
    assert len(set(alone.returns)) == 4
    elsewhere = envs.evaluate_episodes(act, "Hopper-v5", spec, 4, 7, stream="final")
    assert not set(alone.returns) & set(elsewhere.returns)


def test_endless_environment_is_cut_off_as_truncated():
    spec = envs.make_spec(ID)
    result = envs.evaluate_episodes(
        centre, ID, spec, 2, 0, env_kwargs={"end_at": None}, max_steps=12
    )
    np.testing.assert_array_equal(result.lengths, [12, 12])
    assert not result.terminated.any()


def test_random_return_of_cartpole_is_the_known_one():
    # About 22 for uniformly random actions; the standard error over 20 episodes is about 2.5.
    spec = envs.make_spec("CartPole-v1")
    value = envs.random_return("CartPole-v1", spec, seed=1)
    assert 14 < value < 32
    assert value == envs.random_return("CartPole-v1", spec, seed=1)
