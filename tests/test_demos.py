"""Demonstrations: what is refused and how it is said, what is kept, what inspection sees."""

import dataclasses
import hashlib
import pickle
import zipfile
from dataclasses import replace
from importlib.resources import files

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

from mairl.demos import (
    Demonstrations,
    find_demonstrations,
    inspect,
    load_minari,
    load_npz,
    recorded_in,
    render,
    render_list,
    shipped,
    subsample,
)
from mairl.demos.minari import from_episodes
from mairl.types import EnvSpec, MairlError, Trajectory

BOX = EnvSpec("Toy-v0", 3, 2, False, (-2.0, 0.0), (2.0, 1.0))
CHOICE = EnvSpec("Pick-v0", 3, 4, True, discrete_start=1)
LENGTHS = (4, 3, 5)


def arrays(spec=BOX, lengths=LENGTHS, seed=0):
    """A right file; the second episode terminates, the others are cut off."""
    rng = np.random.default_rng(seed)
    steps = sum(lengths)
    ends = np.cumsum(lengths) - 1
    if spec.discrete:
        actions = rng.integers(spec.discrete_start, spec.discrete_start + 4, steps)
    else:
        actions = rng.uniform(spec.action_low, spec.action_high, (steps, 2)).astype(np.float32)
    terminations = np.zeros(steps, bool)
    terminations[ends[1]] = True
    truncations = np.zeros(steps, bool)
    truncations[ends[::2]] = True
    return {
        "observations": rng.normal(size=(steps + len(lengths), 3)).astype(np.float32),
        "actions": actions,
        "terminations": terminations,
        "truncations": truncations,
        "episode_lengths": np.array(lengths),
        "episode_returns": np.array([1.0, 2.0, 6.0]),
    }


def save(path, fields):
    np.savez_compressed(path, **fields)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


# --- reading what is right


def test_round_trip_continuous(path):
    fields = arrays()
    demos = load_npz(save(path, fields), BOX)
    assert [len(t) for t in demos.trajectories] == list(LENGTHS)
    assert [t.terminated for t in demos.trajectories] == [False, True, False]
    second = demos.trajectories[1]
    np.testing.assert_array_equal(second.observations, fields["observations"][5:9])
    np.testing.assert_allclose(BOX.decode_action(second.actions), fields["actions"][4:7], atol=1e-6)
    assert second.actions.dtype == second.observations.dtype == np.float32
    assert demos.env_id is None
    assert demos.source == str(path)
    assert demos.episode_returns == (1.0, 2.0, 6.0)
    assert demos.expert_return == 3.0
    assert demos.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_actions_are_scaled_to_one(path):
    fields = arrays()
    fields["actions"][:3] = [[-2.0, 0.0], [2.0, 1.0], [0.0, 0.5]]
    first = load_npz(save(path, fields), BOX).trajectories[0]
    np.testing.assert_allclose(first.actions[:3], [[-1, -1], [1, 1], [0, 0]], atol=1e-7)


def test_round_trip_discrete(path):
    fields = arrays(CHOICE)
    demos = load_npz(save(path, fields), CHOICE)
    got = np.concatenate([t.actions for t in demos.trajectories])
    assert got.shape == (12, 4)
    np.testing.assert_array_equal(got.argmax(1) + 1, fields["actions"])
    np.testing.assert_array_equal(got.sum(1), 1.0)


@pytest.mark.parametrize("change", [lambda a: a.astype(float), lambda a: a[:, None]])
def test_choices_may_be_whole_floats_or_a_column(path, change):
    fields = arrays(CHOICE)
    right = load_npz(save(path, fields), CHOICE).trajectories[2].actions
    fields["actions"] = change(fields["actions"])
    np.testing.assert_array_equal(
        load_npz(save(path, fields), CHOICE).trajectories[2].actions, right
    )


def test_images_are_flattened_row_by_row(path):
    fields = arrays()
    fields["observations"] = np.arange(15 * 6, dtype=np.uint8).reshape(15, 2, 3)
    demos = load_npz(save(path, fields), replace(BOX, obs_size=6))
    np.testing.assert_array_equal(demos.trajectories[0].observations[1], np.arange(6.0, 12.0))


def test_optional_fields(path):
    fields = arrays()
    del fields["truncations"], fields["episode_returns"]
    demos = load_npz(save(path, fields), BOX)
    assert demos.episode_returns is None
    assert demos.expert_return is None
    rewarded = load_npz(save(path, {**fields, "rewards": np.ones(12)}), BOX)
    assert rewarded.episode_returns == tuple(map(float, fields["episode_lengths"]))
    assert rewarded.expert_return == pytest.approx(4.0)
    assert demos.trajectories[1].terminated
    fields |= {"expert_return": np.array(7.5), "env_id": np.array("Toy-v0"), "extra": np.ones(3)}
    demos = load_npz(save(path, fields), BOX)
    assert demos.expert_return == 7.5
    assert demos.env_id == "Toy-v0"


def test_rounding_beyond_a_bound_is_clipped(path):
    fields = arrays()
    fields["actions"][0] = [2.0 + 1e-5, 0.0]
    assert load_npz(save(path, fields), BOX).trajectories[0].actions[0, 0] == 1.0


# --- refusing what is wrong: what the message must name, and its remedy


def put(field, value):
    return lambda f: f.__setitem__(field, value)


def at(field, index, value):
    def change(fields):
        fields[field][index] = value

    return change


BAD = {
    "no observations": (lambda f: f.pop("observations"), ["observations is missing", "Add"]),
    "other name": (
        lambda f: f.__setitem__("observation", f.pop("observations")),
        ["observations is missing", "Rename observation to observations"],
    ),
    "no terminations": (
        lambda f: f.pop("terminations"),
        ["terminations is missing", "Add terminations", "one per step"],
    ),
    "no lengths": (lambda f: f.pop("episode_lengths"), ["episode_lengths is missing", "Add"]),
    "pickled": (
        put("actions", np.array([[1.0], [1.0, 2.0]], dtype=object)),
        ["actions holds pickled", "Save plain number arrays"],
    ),
    "text": (put("observations", np.full((15, 3), "1.0")), ["observations have dtype <U3", "Save"]),
    "complex": (put("actions", np.ones((12, 2), complex)), ["actions have dtype complex", "Save"]),
    "flat observations": (
        put("observations", np.zeros(45, np.float32)),
        ["observations have shape (45,)", "reshape(-1, 3)"],
    ),
    "other observations": (
        put("observations", np.zeros((15, 11), np.float32)),
        ["observations have 11 numbers", "Toy-v0 has 3", "recorded in another environment"],
    ),
    "other actions": (
        put("actions", np.zeros((12, 6), np.float32)),
        ["actions have 6 numbers", "Toy-v0 takes 2", "recorded in another environment"],
    ),
    "flat actions": (put("actions", np.zeros(12)), ["actions have shape (12,)", "[rows, 2]"]),
    "T observations": (
        lambda f: f.__setitem__("observations", f["observations"][:12]),
        ["observations have 12 rows", "15", "one observation more than actions"],
    ),
    "missing actions": (
        lambda f: f.__setitem__("actions", f["actions"][:-1]),
        ["actions have 11 rows", "12", "Correct episode_lengths"],
    ),
    "missing ends": (
        lambda f: f.__setitem__("terminations", f["terminations"][:-1]),
        ["terminations have 11 rows", "12"],
    ),
    "nan": (at("observations", (6, 2), np.nan), ["episode 1", "observations are nan at step 1"]),
    "inf": (at("actions", (5, 1), np.inf), ["episode 1", "actions are inf at step 1", "Leave"]),
    "overflow": (
        lambda f: f.__setitem__("observations", f["observations"].astype(np.float64) * 1e300),
        ["episode 0", "observations are", "inf at step 0"],
    ),
    "above bound": (
        at("actions", (8, 1), 1.5),
        ["episode 2", "1.5 at step 1, dimension 1", "[0, 1]", "units of Toy-v0"],
    ),
    "below bound": (at("actions", (0, 0), -2.01), ["episode 0", "-2.01", "[-2, 2]", "clipped"]),
    "no episode": (put("episode_lengths", np.zeros(0, int)), ["no episode", "Record"]),
    "empty episode": (
        put("episode_lengths", np.array([4, 0, 8])),
        ["episode 1", "episode_lengths is 0", "Leave out"],
    ),
    "negative length": (put("episode_lengths", np.array([4, -1, 9])), ["episode 1", "-1"]),
    "float lengths": (put("episode_lengths", np.ones(3)), ["episode_lengths has", "integers"]),
    "end inside": (
        at("terminations", 1, True),
        ["episode 0", "terminations are true at step 1", "goes on to step 3", "correct"],
    ),
    "cut inside": (at("truncations", 8, True), ["episode 2", "truncations are true at step 1"]),
    "ends not bool": (put("terminations", np.arange(12)), ["terminations", "Save", "bool"]),
    "other task": (
        put("env_id", np.array("Hopper-v5")),
        ["env_id is 'Hopper-v5'", "'Toy-v0'", "or train in Hopper-v5"],
    ),
    "env_id not text": (put("env_id", np.array(5)), ["env_id has", "expected one string"]),
    "returns": (put("episode_returns", np.ones(2)), ["episode_returns", "expected 3", "leave it"]),
    "expert return": (put("expert_return", np.array(np.nan)), ["expert_return", "finite"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_npz(path, name):
    change, said = BAD[name]
    fields = arrays()
    change(fields)
    with pytest.raises(MairlError) as caught:
        load_npz(save(path, fields), BOX)
    message = str(caught.value)
    for part in [str(path), *said]:
        assert part in message
    assert "\n" not in message


def test_observations_that_are_choices_may_be_their_numbers(path):
    spec = dataclasses.replace(BOX, obs_start=2)  # 2, 3 and 4
    fields = arrays()
    numbers = np.arange(len(fields["observations"])) % 3
    fields["observations"] = numbers + 2
    from_numbers = load_npz(save(path, fields), spec)
    fields["observations"] = np.eye(3)[numbers]
    one_hot = load_npz(save(path, fields), spec)
    for one, other in zip(from_numbers.trajectories, one_hot.trajectories, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
    fields["observations"] = numbers
    with pytest.raises(MairlError, match="observations are 0 at step 0, but Toy-v0 has whole num"):
        load_npz(save(path, fields), spec)


BAD_CHOICES = {
    "halves": (at("actions", 5, 1.5), ["episode 1", "1.5 at step 1", "whole numbers 1 to 4"]),
    "nan": (at("actions", 5, np.nan), ["episode 1", "actions are nan at step 1"]),
    "from zero": (at("actions", 0, 0), ["episode 0", "0.0 at step 0", "counted from 1"]),
    "too high": (at("actions", 11, 5), ["episode 2", "5.0 at step 4", "1 to 4"]),
    "one-hot": (put("actions", np.eye(4)[[0] * 12]), ["(12, 4)", "argmax(axis=1) + 1"]),
    "vectors": (put("actions", np.ones((12, 2))), ["(12, 2)", "4 choices", "another environment"]),
}


@pytest.mark.parametrize("name", BAD_CHOICES)
def test_bad_choices(path, name):
    change, said = BAD_CHOICES[name]
    fields = arrays(CHOICE)
    fields["actions"] = fields["actions"].astype(float)
    change(fields)
    with pytest.raises(MairlError) as caught:
        load_npz(save(path, fields), CHOICE)
    for part in [str(path), *said]:
        assert part in str(caught.value)


def test_one_number_actions_say_how_to_reshape(path):
    fields = arrays() | {"actions": np.zeros(12)}
    spec = EnvSpec("Toy-v0", 3, 1, False, (-1.0,), (1.0,))
    with pytest.raises(MairlError, match=r"actions\.reshape\(-1, 1\)"):
        load_npz(save(path, fields), spec)


def damage_member(path, field):
    """Flip bytes in the middle of one member's compressed data."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{field}.npy")
    data = bytearray(path.read_bytes())
    start = info.header_offset + 30 + len(info.filename) + 20
    middle = start + info.compress_size // 2
    for i in range(middle, middle + 8):
        data[i] ^= 0xFF
    path.write_bytes(data)


def test_damaged_files(path):
    good = save(path, arrays()).read_bytes()
    cases = {
        good[: len(good) // 2]: "was cut off",
        b"": "is empty",
        b"hello, this is text": "is not an .npz archive",
        pickle.dumps({"observations": 1}): "is not an .npz archive",
    }
    for content, said in cases.items():
        path.write_bytes(content)
        with pytest.raises(MairlError, match=said) as caught:
            load_npz(path, BOX)
        assert "Copy or download it again" in str(caught.value)


@pytest.mark.parametrize("field", ["observations", "actions"])
def test_damaged_member(path, field):
    damage_member(save(path, arrays(lengths=(400, 300, 500))), field)
    with pytest.raises(MairlError, match=f"{field} is damaged .* Copy or download"):
        load_npz(path, BOX)


def test_every_single_damaged_byte_is_refused_or_harmless(path):
    good = save(path, arrays()).read_bytes()
    right = load_npz(path, BOX).trajectories[0].observations
    for i in range(0, len(good), 7):
        data = bytearray(good)
        data[i] ^= 0x55
        path.write_bytes(data)
        try:
            got = load_npz(path, BOX).trajectories[0].observations
        except MairlError:
            continue  # any other exception fails the test
        np.testing.assert_array_equal(got, right)


def test_single_array_folder_and_stray_member(path, tmp_path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(MairlError, match=r"single array .* Save all of observations"):
        load_npz(path, BOX)
    with pytest.raises(MairlError, match="is a folder"):
        load_npz(tmp_path, BOX)
    with zipfile.ZipFile(path, "w") as archive:
        for field in arrays():
            archive.writestr(f"{field}.npy", b"not an array")
    with pytest.raises(MairlError, match=r"observations is (damaged|not an array)"):
        load_npz(path, BOX)


def test_damaged_first_byte_is_not_called_pickled(path):
    data = bytearray(save(path, arrays()).read_bytes())
    data[0] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(MairlError, match=r"the file is damaged .* Copy or download"):
        load_npz(path, BOX)


def test_missing_file_names_near_shipped_sets(tmp_path):
    with pytest.raises(MairlError, match=r"does not exist\. .*Hopper-v5"):
        load_npz(tmp_path / "Hoper-v5.npz", BOX)


# --- finding


# (obs size, action size, bound)
CONTINUOUS = {
    "Ant-v5": (105, 8, 1.0),
    "HalfCheetah-v5": (17, 6, 1.0),
    "Hopper-v5": (11, 3, 1.0),
    "Humanoid-v5": (348, 17, 0.4),
    "InvertedPendulum-v5": (4, 1, 3.0),
    "Pendulum-v1": (3, 1, 2.0),
    "Swimmer-v5": (8, 2, 1.0),
    "Walker2d-v5": (17, 6, 1.0),
    "mairl/CustomAnt-v0": (27, 8, 1.0),
    "mairl/DisabledAnt-v0": (27, 8, 1.0),
    "mairl/PointMazeLeft-v0": (2, 2, 1.0),
    "mairl/PointMazeRight-v0": (2, 2, 1.0),
}
DISCRETE = {
    "Acrobot-v1": (6, 3),
    "CartPole-v1": (4, 2),
    "MountainCar-v0": (2, 3),
    "mairl/GridWorld-v0": (25, 4),
}


def task_spec(name):
    if name in DISCRETE:
        return EnvSpec(name, *DISCRETE[name], discrete=True)
    obs, action, bound = CONTINUOUS[name]
    return EnvSpec(name, obs, action, False, (-bound,) * action, (bound,) * action)


def test_shipped_names():
    assert shipped() == sorted([*CONTINUOUS, *DISCRETE])


@pytest.mark.parametrize("name", shipped())
def test_shipped_sets_load_and_are_well_recorded(name):
    spec = task_spec(name)
    demos = find_demonstrations(None, spec)
    assert demos.source == demos.env_id == name
    assert len(demos.trajectories) >= (3 if name == "Humanoid-v5" else 5)
    assert demos.episode_returns is not None
    assert demos.expert_return == pytest.approx(np.mean(demos.episode_returns), rel=0.02)
    report = inspect(demos, spec)
    # The mazes hide the velocity, so that the action before does explain more of a step.
    assert report.action_shift == (-1 if "PointMaze" in name else 0)
    assert report.duplicate_episodes == 0
    assert f"{report.transitions} |" in (files("mairl.demos.data") / "README.md").read_text()


def test_find_by_name_path_and_nothing(path):
    pendulum = task_spec("Pendulum-v1")
    by_name = find_demonstrations("Pendulum-v1", pendulum)
    assert by_name.sha256 == find_demonstrations(None, pendulum).sha256
    prefixed = find_demonstrations(None, replace(pendulum, env_id="gymnasium:Pendulum-v1"))
    assert prefixed.source == "Pendulum-v1"
    save(path, arrays())
    assert find_demonstrations(path, BOX).source == str(path)
    bare = path.rename(path.with_name("recording"))
    assert find_demonstrations(str(bare), BOX).source == str(bare)


def test_nothing_found(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    with pytest.raises(MairlError, match=r"of Toy-v0 are shipped .*Hopper-v5.* give your own"):
        find_demonstrations(None, BOX)
    with pytest.raises(MairlError, match=r"'Hoper-v5'\. Did you mean Hopper-v5"):
        find_demonstrations("Hoper-v5", BOX)
    with pytest.raises(MairlError, match="does not exist"):
        find_demonstrations("nowhere/mine.npz", BOX)
    with pytest.raises(MairlError, match="minari download mujoco/hopper/expert-v0"):
        find_demonstrations("mujoco/hopper/expert-v0", BOX)
    with pytest.raises(MairlError, match=r"'Hopper-v5', but the environment is 'Toy-v0'"):
        find_demonstrations("Hopper-v5", BOX)
    assert not (tmp_path / "none").exists()


# --- Minari


def episode(spec=BOX, steps=5, seed=0, **changes):
    from minari.dataset.episode_data import EpisodeData

    rng = np.random.default_rng(seed)
    fields = {
        "id": 3,
        "observations": rng.normal(size=(steps + 1, 3)),
        "actions": rng.uniform(spec.action_low, spec.action_high, (steps, 2)),
        "rewards": np.ones(steps),
        "terminations": np.arange(steps) == steps - 1,
        "truncations": np.zeros(steps, bool),
        "infos": {},
    }
    return EpisodeData(**(fields | changes))


PLAIN = gym.spaces.Box(-np.inf, np.inf, (3,))


def test_minari_episodes():
    demos = from_episodes("toy/x-v0", None, [episode(), episode(steps=7)], PLAIN, BOX)
    assert [len(t) for t in demos.trajectories] == [5, 7]
    assert demos.trajectories[0].terminated
    assert demos.episode_returns == (5.0, 7.0)
    assert demos.expert_return == 6.0
    other = from_episodes("toy/x-v0", None, [episode(), episode(steps=7, seed=1)], PLAIN, BOX)
    assert other.sha256 != demos.sha256


def test_minari_dict_is_flattened_like_gymnasium():
    space = gym.spaces.Dict(
        {
            "b": gym.spaces.Box(-1, 1, (2, 2)),
            "a": gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (1,)))),
        }
    )
    space.seed(0)
    samples = [space.sample() for _ in range(6)]
    stacked = {
        "b": np.stack([s["b"] for s in samples]),
        "a": tuple(np.stack([s["a"][i] for s in samples]) for i in range(2)),
    }
    spec = replace(BOX, obs_size=8)
    demos = from_episodes("toy/x-v0", None, [episode(observations=stacked)], space, spec)
    expected = np.array([gym.spaces.flatten(space, s) for s in samples])
    np.testing.assert_array_equal(demos.trajectories[0].observations, expected)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"observations": np.zeros((5, 3))}, ["observations have 5 rows for 5 actions", "6"]),
        ({"observations": np.zeros((6, 4))}, ["4 numbers", "Toy-v0 has 3"]),
        ({"actions": np.full((5, 2), 9.0)}, ["actions are 9 at step 0", "[-2, 2]"]),
        ({"terminations": np.ones(5, bool)}, ["terminations are true at step 0"]),
        ({"truncations": np.zeros(4, bool)}, ["truncations have 4 rows for 5 actions"]),
        ({"rewards": np.full(5, np.nan)}, ["rewards sum to nan"]),
        ({"actions": {"left": np.ones(5)}}, ["actions have dtype object"]),
    ],
)
def test_minari_bad_episode(changes, said):
    with pytest.raises(MairlError) as caught:
        from_episodes("toy/x-v0", None, [episode(), episode(**changes)], PLAIN, BOX)
    for part in ["Minari dataset toy/x-v0, episode 3", *said]:
        assert part in str(caught.value)


def test_minari_without_episode_or_with_strange_observations():
    with pytest.raises(MairlError, match="no episode"):
        from_episodes("toy/x-v0", None, [], PLAIN, BOX)
    with pytest.raises(MairlError, match="FlattenObservation"):
        from_episodes("toy/x-v0", None, [episode()], gym.spaces.Text(3), BOX)


@pytest.fixture
def minari_dataset(tmp_path, monkeypatch):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gym.make("CartPole-v1", max_episode_steps=20))
    raw = []
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        rows, taken, done = [obs], [], False
        while not done:
            action = int(obs[2] > 0) if seed else 0  # pushing left only makes the pole fall
            obs, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            rows.append(obs)
            taken.append(action)
        raw.append((np.array(rows), np.array(taken)))
    env.create_dataset("toy/cartpole/expert-v0")
    env.close()
    return "toy/cartpole/expert-v0", raw, tmp_path


@pytest.mark.filterwarnings("ignore")
def test_minari_round_trip(minari_dataset):
    name, raw, root = minari_dataset
    cartpole = EnvSpec("CartPole-v1", 4, 2, True)
    demos = find_demonstrations(name, cartpole)
    assert demos.source == name
    assert demos.env_id == "CartPole-v1"
    for (obs, actions), got in zip(raw, demos.trajectories, strict=True):
        np.testing.assert_array_equal(got.observations, obs)
        np.testing.assert_array_equal(got.actions.argmax(1), actions)
    assert demos.trajectories[0].terminated
    assert demos.episode_returns == tuple(float(len(actions)) for _, actions in raw)
    assert demos.sha256 == load_minari(name, cartpole).sha256
    assert recorded_in(name) == cartpole.env_id
    with pytest.raises(MairlError, match=r"'CartPole-v1'.*'Other-v0'.*train in CartPole-v1"):
        load_minari(name, replace(cartpole, env_id="Other-v0"))
    stored = next(root.rglob("*.hdf5"))
    stored.write_bytes(stored.read_bytes()[:500])
    with pytest.raises(MairlError, match=r"cannot be read .* minari download toy/cartpole"):
        load_minari(name, cartpole)


# --- choosing


def demos_of(*lengths, ends=None, size=3):
    """Episode e, step t observes e * 1000 + t, so every transition tells where it is from."""
    ends = ends or [True] * len(lengths)
    trajectories = []
    for e, (steps, end) in enumerate(zip(lengths, ends, strict=True)):
        t = np.arange(steps + 1, dtype=np.float32)[:, None] + np.zeros((1, size), np.float32)
        actions = np.full((steps, 2), 0.1, np.float32) * (np.arange(steps)[:, None] % 7)
        trajectories.append(Trajectory(e * 1000 + t, actions.astype(np.float32), end))
    return Demonstrations("toy", None, tuple(trajectories), None, None, "0")


def test_subsample_all():
    data = subsample(demos_of(5, 3, ends=[True, False]), None, 1, seed=0)
    np.testing.assert_array_equal(data.transition.obs[:, 0], [0, 1, 2, 3, 4, 1000, 1001, 1002])
    np.testing.assert_array_equal(data.transition.next_obs, data.transition.obs + 1)
    np.testing.assert_array_equal(data.transition.terminated, [0, 0, 0, 0, 1, 0, 0, 0])
    assert (data.episodes, data.every) == (2, 1)
    assert data.episode_lengths == (5, 3)
    assert data.terminated == (True, False)
    assert all(field.dtype == np.float32 for field in data.transition)


def test_subsample_every_keeps_the_stride_and_at_least_one():
    demos = demos_of(100, 7, 1)
    seen = set()
    for seed in range(60):
        data = subsample(demos, None, 20, seed)
        steps = data.transition.obs[:, 0]
        first, second, third = (steps[(steps // 1000) == e] % 1000 for e in range(3))
        assert len(first) == 5
        np.testing.assert_array_equal(np.diff(first), 20.0)
        assert len(second) == len(third) == 1
        seen.add((int(first[0]), int(second[0])))
        assert data.transition.terminated[-1] == 1.0
        assert data.episode_lengths == (100, 7, 1)
    assert {offset for offset, _ in seen} <= set(range(20))
    assert len({offset for offset, _ in seen}) > 10
    assert {offset for _, offset in seen} == set(range(7))


def test_subsample_is_decided_by_the_seed_and_nested():
    demos = demos_of(*[30] * 8)
    one, again = (subsample(demos, 2, 10, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.transition.obs, again.transition.obs)
    chosen = {tuple(subsample(demos, 2, 10, s).transition.obs[:, 0]) for s in range(10)}
    assert len(chosen) > 5
    more = subsample(demos, 5, 10, seed=4)
    assert set(one.transition.obs[:, 0]) <= set(more.transition.obs[:, 0])
    assert len(np.unique(more.transition.obs[:, 0] // 1000)) == 5


@pytest.mark.parametrize(
    ("episodes", "every", "said"),
    [(3, 1, "3 episodes asked for, but it has 2"), (0, 1, "Ask for 1 to 2"), (1, 0, "every 0-th")],
)
def test_subsample_refuses(episodes, every, said):
    with pytest.raises(MairlError, match=said):
        subsample(demos_of(5, 3), episodes, every, 0)


# --- inspecting


def moving(episodes=4, steps=200, noise=0.5, seed=0, shift=0):
    """A damped point pushed by actions; ``shift`` moves the recorded actions by whole rows."""
    rng = np.random.default_rng(seed)
    trajectories = []
    for _ in range(episodes):
        obs = [rng.normal(size=2)]
        actions = np.clip(rng.normal(scale=noise, size=(steps, 1)), -0.99, 0.99)
        for action in actions:
            x, v = obs[-1]
            obs.append(np.array([x + 0.1 * v, 0.9 * v - 0.1 * x + 0.3 * action[0]]))
        recorded = np.roll(actions, shift, axis=0).astype(np.float32)
        trajectories.append(Trajectory(np.array(obs, np.float32), recorded, False))
    return Demonstrations("toy", None, tuple(trajectories), None, None, "0")


POINT = EnvSpec("Point-v0", 2, 1, False, (-1.0,), (1.0,))


def test_clean_demonstrations_raise_no_warning():
    report = inspect(moving(), POINT)
    assert report.warnings == []
    assert (report.episodes, report.transitions) == (4, 800)
    assert (report.length_min, report.length_mean, report.length_max) == (200, 200.0, 200)
    assert (report.ended_terminated, report.ended_cut_off) == (0, 4)
    every = np.concatenate([t.observations for t in moving().trajectories])
    np.testing.assert_allclose(report.obs_mean, every.mean(0), atol=1e-6)
    np.testing.assert_allclose(report.obs_max, every.max(0))


@pytest.mark.parametrize(
    ("shift", "found", "said"),
    [(1, 1, "one step too late: the next"), (-1, -1, "one step too early: the previous")],
)
def test_shifted_actions_are_noticed(shift, found, said):
    report = inspect(moving(shift=shift), POINT)
    assert report.action_shift == found
    assert any(said in text for text in report.warnings)


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1"])
@pytest.mark.parametrize("shift", [1, -1])
def test_shifted_actions_are_noticed_in_real_tasks(name, shift):
    spec = task_spec(name)
    demos = find_demonstrations(name, spec)
    shifted = tuple(
        replace(t, actions=np.roll(t.actions, shift, axis=0)) for t in demos.trajectories
    )
    assert inspect(replace(demos, trajectories=shifted), spec).action_shift == shift


def test_duplicates_are_counted():
    demos = moving()
    twice = replace(demos, trajectories=(*demos.trajectories, demos.trajectories[1]))
    report = inspect(twice, POINT)
    assert report.duplicate_episodes == 1
    assert report.duplicate_transitions == 200
    assert any("1 of 5 episodes repeat" in text for text in report.warnings)
    still = replace(demos.trajectories[0])
    still.observations[:52], still.actions[:51] = 0.5, 0.0
    report = inspect(replace(demos, trajectories=(still, *demos.trajectories[1:])), POINT)
    assert (report.duplicate_episodes, report.duplicate_transitions) == (0, 50)
    assert any("50 of 800 transitions repeat" in text for text in report.warnings)


def test_saturation_and_constants_and_ends_and_scale():
    demos = moving()
    first = demos.trajectories[0]
    changed = []
    for t in demos.trajectories:
        t.actions[:100] = 1.0
        # a constant dimension and one in far larger units
        extra = np.c_[t.observations, np.full(201, 3.0), 1e6 * t.observations[:, 0]]
        changed.append(Trajectory(extra.astype(np.float32), t.actions, t.actions is first.actions))
    demos = replace(demos, trajectories=tuple(changed))
    report = inspect(demos, replace(POINT, obs_size=4))
    assert report.action_saturation == (0.5,)
    assert report.constant_obs == (2,)
    text = " ".join(report.warnings)
    assert "Actions sit at their bounds" in text
    assert "1 of 4 observation dimensions never change (2)" in text
    assert "1 by termination, 3 cut off" in text
    assert "differ widely in scale" in text


def test_few_transitions_and_choices(path):
    fields = arrays(CHOICE)
    fields["actions"] = np.array([1, 1, 2, 3] * 3)
    report = inspect(load_npz(save(path, fields), CHOICE), CHOICE)
    assert report.action_counts == (6, 3, 3, 0)
    assert report.action_saturation is None
    text = " ".join(report.warnings)
    assert "Only 12 transitions" in text
    assert "never takes choice 4" in text


def shown(renderable):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_inspect_counts_states_that_are_choices(path):
    spec = dataclasses.replace(CHOICE, obs_start=2)  # 2, 3 and 4
    fields = arrays(CHOICE)
    fields["observations"] = np.full(len(fields["observations"]), 4)
    fields["observations"][0] = 2
    report = inspect(load_npz(save(path, fields), spec), spec)
    assert report.state_counts == (1, 0, 14)
    said = " ".join(report.warnings)
    assert "1 of 3 states are never visited" in said
    assert "never change" not in said
    assert "transitions repeat" not in said
    text = shown(render(report))
    assert "2 of 3" in text
    assert "93.3%" in text
    assert "std" not in text


def test_rendering(path):
    fields = arrays(CHOICE)
    text = shown(render(inspect(load_npz(save(path, fields), CHOICE), CHOICE)))
    assert "Only 12 transitions" in text
    assert "1 terminated, 2 cut off" in text
    assert "3.0 ± 2.2" in text
    assert "Nothing suspicious" in shown(render(inspect(moving(), POINT)))
    listing = shown(render_list())
    assert all(name in listing for name in shipped())
    assert "3728.1" in listing


@pytest.mark.parametrize(
    ("ended", "ends"),
    [([True], True), ([False], False), ([True, False], False), ([True, True, False], True)],
)
def test_most_episodes_say_how_demonstrations_end(ended, ends):
    assert subsample(demos_of(*[5] * len(ended), ends=ended), None, 1, seed=0).ends is ends
