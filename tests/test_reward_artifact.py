"""The learned reward handed on: read with NumPy or JAX, in environments, as ONNX, judged."""

import dataclasses
import json
import shutil
import subprocess
import sys

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import mairl
from mairl import checkpoint, judge, portable, wrappers
from mairl.portable import RewardForm
from mairl.rewards import AIRLReward, BoundedReward
from mairl.types import EnvSpec, MairlError, Transition

LINE = EnvSpec("RewardLine-v0", 2, 1, False, (-2.0,), (2.0,))
FORM = RewardForm(
    gamma=0.9, state_only=False, clip=10.0, bound=5.0, softplus=0.0, live=0.5, ended=-1.0
)
MEAN, STD = np.float32([1.0, 0.0]), np.float32([2.0, 1.0])


class Line(gym.Env):
    """A point: obs (position, steps so far), which moves by the action; ends beyond 3."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.count = float(self.np_random.uniform(-1.0, 1.0)), 0
        return self._obs(), {}

    def step(self, action):
        reward = 2.0 * self.at - float(action[0])
        self.at, self.count = self.at + float(action[0]), self.count + 1
        return self._obs(), reward, abs(self.at) > 3.0, self.count == 5, {"own": 1}

    def _obs(self):
        return np.array([self.at, self.count], np.float32)


class InParts(Line):
    """Its observation is a Dict."""

    # Made of a plain dict, a space has its parts in the order of their names.
    observation_space = spaces.Dict(
        {"count": spaces.Box(-np.inf, np.inf, (1,)), "at": spaces.Box(-np.inf, np.inf, ())}
    )

    def _obs(self):
        return {"count": np.float32([self.count]), "at": np.array(self.at, np.float32)}


class TwoActions(Line):
    """Moved by the first of two numbers."""

    action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)


gym.register("RewardLine-v0", entry_point=Line)
gym.register("InParts-v0", entry_point=InParts)
gym.register("TwoActions-v0", entry_point=TwoActions)


def save(path, g, h=None, spec=LINE, form=FORM, **more):
    """An artifact with g and h linear in normalized observation (and inside action)."""
    linear = lambda w: {"layers": [{"weight": np.float32(w)[:, None], "bias": np.zeros(1, "f4")}]}  # noqa: E731
    reward = {"reward": linear(g)} | ({} if h is None else {"potential": linear(h)})
    meta = {"spec": dataclasses.asdict(spec), "reward": dataclasses.asdict(form), **more}
    tree = {"reward": reward, "normalizer": {"mean": MEAN, "std": STD}}
    return checkpoint.save_artifact(path, tree, meta)


@pytest.fixture(params=[portable.LearnedReward, mairl.LearnedReward], ids=["numpy", "jax"])
def kind(request):
    return request.param


def test_by_hand(tmp_path, kind):
    save(tmp_path / "reward", [3.0, 1.0, 4.0], [2.0, 0.0])
    reward = kind.load(tmp_path)
    obs, next_obs = np.array([[5.0, 1.0], [1.0, -2.0]]), np.array([[3.0, 0.0], [-1.0, 0.0]])
    action = np.array([[1.0], [-9.0]])
    # x = (2, 1) and (0, -2); a = 0.5 and, clipped, -1. g = 3 x0 + x1 + 4 a; h = 2 x0.
    np.testing.assert_allclose(reward.g(obs, action), [9.0, -6.0], rtol=1e-6)
    np.testing.assert_allclose(reward.h(obs), [4.0, 0.0])
    # h' = 2 and -2: 9 + 0.9 * 2 - 4, and -6 - 0 since nothing follows an end.
    np.testing.assert_allclose(
        reward.f(obs, action, next_obs, [False, True]), [6.8, -6.0], rtol=1e-6
    )
    assert reward.f(obs[0], action[0], next_obs[0], False) == pytest.approx(6.8)
    # Bounded: 5 tanh((g + 0.5) / 5), and at an end 0.9 / 0.1 * 5 tanh((g - 1) / 5) more, with
    # g - 1 = -7 cut at -5 in the second row, and g = 2 in the third.
    expected = [5 * np.tanh(1.9), 5 * np.tanh(-1.1) + 9 * 5 * np.tanh(-1.0)]
    found = reward.bounded(obs, action, next_obs, [False, True], "g")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    found = reward.bounded(np.array([1.0, 0.0]), action[0], next_obs[0], True, "g")
    np.testing.assert_allclose(found, 5 * np.tanh(0.5) + 9 * 5 * np.tanh(0.2), rtol=1e-5)
    # What an end is worth is said by f, also where steps are paid by g: g = 9, f = 9 - 4.
    found = reward.bounded(obs[0], action[0], next_obs[0], True, "g")
    np.testing.assert_allclose(found, 5 * np.tanh(1.9) + 9 * 5 * np.tanh(0.8), rtol=1e-5)
    np.testing.assert_allclose(reward.deviations(obs), [[2.0, 1.0], [0.0, 2.0]])
    # The normalizer clips: 1000 is 10 deviations.
    np.testing.assert_allclose(reward.h(np.array([1000.0, 0.0])), 20.0)


def test_numpy_agrees_with_jax_and_with_the_networks(tmp_path):
    for state_only, shaping, discrete in [(0, 1, 0), (1, 1, 0), (0, 0, 1)]:
        spec = EnvSpec(
            "X-v0", 5, 3, bool(discrete), *((), ()) if discrete else ((-2.0,) * 3, (1.0,) * 3)
        )
        form = dataclasses.replace(FORM, state_only=bool(state_only), softplus=2.0 * discrete)
        module = AIRLReward(
            *(5, 3, (64, 64)),
            gamma=0.9,
            state_only=form.state_only,
            shaping=bool(shaping),
            key=jax.random.key(3),
        )
        rng = np.random.default_rng(0)
        normalizer = {"mean": np.float32([50, -1, 0, 3, 1]), "std": np.float32([3, 0.1, 1, 2, 1])}
        checkpoint.save_artifact(
            tmp_path / "reward",
            {"reward": module, "normalizer": normalizer},
            {"spec": dataclasses.asdict(spec), "reward": dataclasses.asdict(form)},
        )
        ours, theirs = portable.LearnedReward.load(tmp_path), mairl.LearnedReward.load(tmp_path)
        x, y = rng.normal(size=(2, 200, 5)).astype(np.float32)
        obs, next_obs = (normalizer["mean"] + normalizer["std"] * z for z in (x, y))
        inside = np.eye(3)[rng.integers(3, size=200)] if discrete else rng.uniform(-1, 1, (200, 3))
        action = spec.decode_action(inside)
        ends = rng.integers(2, size=200)
        for component in ("g", "f"):
            found = ours.value(obs, action, next_obs, ends, component)
            again = theirs.value(obs, action, next_obs, ends, component)
            np.testing.assert_allclose(found, again, atol=1e-5, rtol=1e-5)
        raw = Transition(*(jnp.asarray(np.float32(z)) for z in (x, inside, y, ends)))
        np.testing.assert_allclose(found, module.f(raw), atol=1e-4)
        seen = BoundedReward(5.0, form.softplus, jnp.float32(0.5), jnp.float32(-1.0))
        after = 9.0 * seen.after(module.f(raw)) * ends
        bounded = ours.bounded(obs, action, next_obs, ends)
        np.testing.assert_allclose(bounded, seen(module, raw) + after, atol=1e-4)
        # The slope of g, by a difference along each input.
        slope, step = theirs.sensitivity(obs[0], action[0]), 1e-2
        for i in range(5):
            moved = obs[[0, 0]] + np.outer([-step, step], np.eye(5)[i] * normalizer["std"])
            low, high = theirs.g(moved, action[[0, 0]])
            assert slope[i] == pytest.approx((high - low) / (2 * step), abs=5e-3)
        assert np.all(slope[5:] == 0) == form.state_only


def test_reading_needs_no_jax(tmp_path):
    save(tmp_path / "reward", [3.0, 1.0, 4.0])
    script = (
        "import sys\n"
        "for name in ('jax', 'equinox', 'optax', 'torch'): sys.modules[name] = None\n"
        "import mairl.portable, mairl.wrappers\n"
        f"print(mairl.portable.LearnedReward.load({str(tmp_path)!r}).g([5.0, 1.0], [1.0]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "9.0"), done.stderr


def test_bad_artifacts(tmp_path, kind):
    def refused(*words, path=tmp_path):
        with pytest.raises(MairlError) as caught:
            kind.load(path)
        for word in words:
            assert word in str(caught.value)

    refused("there is no reward in", "let the run go on")
    refused("does not exist", path=tmp_path / "nowhere.safetensors")
    path = save(tmp_path / "reward", [3.0, 1.0, 4.0])
    text = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(text.replace('"gamma": 0.9', '"gamma": 0.8'))
    refused("corrupt", "do not match their hash")
    path.with_suffix(".json").write_text(text[:-20])
    refused("corrupt", "not readable")
    path.with_suffix(".json").unlink()
    refused("reward.json does not exist", "copy both")
    save(tmp_path / "reward", [3.0, 1.0])
    refused("is not a reward", "layers of shapes")
    save(tmp_path / "reward", [3.0, np.nan, 1.0])
    refused("NaN")
    save(tmp_path / "reward", [3.0, 1.0, 4.0], form=dataclasses.replace(FORM, gamma=1.5))
    refused("gamma is 1.5")
    save(tmp_path / "reward", [3.0, 1.0, 4.0], reward={"gamma": 0.9})
    refused("is not a reward that this mairl reads")


def test_the_arrays_hash_is_that_of_the_file(tmp_path):
    import hashlib

    path = save(tmp_path / "reward", [3.0, 1.0, 4.0])
    document = json.loads(path.with_suffix(".json").read_text())
    assert document["arrays_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_bad_inputs(tmp_path, kind):
    save(tmp_path / "reward", [3.0, 1.0, 4.0])
    reward = kind.load(tmp_path)
    one = np.zeros(2), np.zeros(1)
    for words, call in {
        r"obs is a dict.*flatten_obs": lambda: portable.as_rows({}, 2, "obs", "X-v0"),
        r"obs has shape \(3,\)": lambda: reward.g(np.zeros(3), one[1]),
        "2 and 1 rows": lambda: reward.g(np.zeros((2, 2)), one[1]),
        "2, 2, 2 and 1 rows": lambda: reward.f(*(np.zeros((2, n)) for n in (2, 1, 2)), True),
        "NaN": lambda: reward.h(np.full(2, np.nan)),
        "component 'h'": lambda: portable.check_component("h"),
    }.items():
        with pytest.raises(MairlError, match=words):
            call()
    spec = EnvSpec("X-v0", 2, 3, True, discrete_start=1)
    save(tmp_path / "reward", [3.0, 1.0, 0.0, 10.0, 20.0], spec=spec)
    reward = kind.load(tmp_path)
    np.testing.assert_allclose(reward.g(np.tile(MEAN, (3, 1)), np.array([1, 2, 3])), [0, 10, 20])
    with pytest.raises(MairlError, match="choices, which are 1 to 3"):
        reward.g(one[0], 0)


# In environments.


@pytest.mark.parametrize("component", ["g", "f"])
@pytest.mark.parametrize("bounded", [True, False])
def test_env_pays_the_learned_reward(tmp_path, component, bounded):
    reward = portable.LearnedReward.load(save(tmp_path / "r", [3.0, 1.0, 4.0], [2.0, 1.0]))
    env = wrappers.LearnedRewardEnv(gym.make("RewardLine-v0"), reward, component, bounded)
    rng, ended = np.random.default_rng(0), []
    judged = reward.bounded if bounded else reward.value
    for seed in range(12):
        obs, _ = env.reset(seed=seed)
        over = False
        while not over:
            action = rng.uniform(-1.0, 2.0, 1).astype(np.float32)
            next_obs, paid, terminated, truncated, info = env.step(action)
            assert isinstance(paid, float)
            assert paid == pytest.approx(
                float(judged(obs, action, next_obs, terminated, component))
            )
            assert info["env_reward"] == pytest.approx(2.0 * obs[0] - action[0], abs=1e-5)
            assert info["own"] == 1
            obs, over = next_obs, terminated or truncated
        ended.append(terminated)
    assert len(set(ended)) == 2


@pytest.mark.parametrize("mode", AutoresetMode)
def test_vector_env_pays_the_same(tmp_path, mode):
    path = save(tmp_path / "r", [3.0, 1.0, 4.0], [2.0, 1.0])
    make = [lambda: gym.make("RewardLine-v0")] * 3
    vector = wrappers.LearnedRewardVectorEnv(SyncVectorEnv(make, autoreset_mode=mode), path, "f")
    reward = portable.LearnedReward.load(path)
    rng = np.random.default_rng(0)
    obs, _ = vector.reset(seed=7)
    over = np.zeros(3, bool)
    ends = 0
    for _ in range(40):
        fresh = over if mode == AutoresetMode.NEXT_STEP else np.zeros(3, bool)
        if mode == AutoresetMode.DISABLED and over.any():
            obs, _ = vector.reset(options={"reset_mask": over})
        actions = rng.uniform(-0.5, 2.0, (3, 1)).astype(np.float32)
        next_obs, paid, terminated, truncated, info = vector.step(actions)
        over = terminated | truncated
        last = next_obs.copy()
        if mode == AutoresetMode.SAME_STEP and over.any():
            last[over] = np.stack(list(info["final_obs"][over]))
        expected = np.where(fresh, 0.0, reward.bounded(obs, actions, last, terminated, "f"))
        np.testing.assert_allclose(paid, expected, rtol=1e-6)
        true = np.where(fresh, 0.0, 2.0 * obs[:, 0] - actions[:, 0])
        np.testing.assert_allclose(info["env_reward"], true, atol=1e-5)
        obs, ends = next_obs, ends + terminated.sum()
    assert ends > 3


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_observations_in_parts_are_paid_the_same(tmp_path, mode):
    path = save(tmp_path / "r", [3.0, 1.0, 4.0], [2.0, 1.0])
    rng, paid, ids = np.random.default_rng(0), [], ("RewardLine-v0", "InParts-v0")
    actions = rng.uniform(-0.5, 2.0, (20, 3, 1)).astype(np.float32)
    for env_id in ids:
        make = [lambda env_id=env_id: gym.make(env_id)] * 3
        vector = SyncVectorEnv(make, autoreset_mode=mode)
        vector = wrappers.LearnedRewardVectorEnv(vector, path, "f")
        single = wrappers.LearnedRewardEnv(gym.make(env_id), path, "f")
        vector.reset(seed=7)
        single.reset(seed=7)
        paid.append(
            [vector.step(action)[1] for action in actions] + [single.step(actions[0, 0])[1]]
        )
    np.testing.assert_array_equal(np.hstack(paid[0]), np.hstack(paid[1]))


def test_rewards_of_other_environments_are_refused(tmp_path):
    path = save(tmp_path / "r", [3.0, 1.0, 4.0])
    for env_id, words in {
        "CartPole-v1": "takes observations of 2 numbers, CartPole-v1 has 4",
        "MountainCar-v0": "actions of 1 numbers, MountainCar-v0 takes Discrete",
        "MountainCarContinuous-v0": r"actions between \[-2.0\] and \[2.0\], those of Mountain",
    }.items():
        with pytest.raises(MairlError, match=words):
            wrappers.LearnedRewardEnv(gym.make(env_id), path)
    with pytest.raises(MairlError, match="does not exist"):
        wrappers.LearnedRewardEnv(gym.make("RewardLine-v0"), tmp_path / "other")
    # Of the observation alone: any actions will do, but observations so far off are said.
    form = dataclasses.replace(FORM, state_only=True)
    path = save(tmp_path / "r", [3.0, 1.0], form=form)
    for env_id, action in (("MountainCar-v0", 2), ("TwoActions-v0", np.float32([0.5, -0.5]))):
        env = wrappers.LearnedRewardEnv(gym.make(env_id), path)
        env.reset(seed=0)
        assert np.isfinite(env.step(action)[1])
    shutil.copy(path, tmp_path / "kept")
    far = wrappers.LearnedRewardEnv(gym.make("RewardLine-v0"), path)
    far.env.unwrapped.reset = lambda **_: (np.float32([0.0, 60.0]), {})  # pyright: ignore
    with pytest.warns(UserWarning, match=r"observation\[1\] starts 60 deviations away"):
        far.reset()


@pytest.mark.sb3
def test_stable_baselines3(tmp_path):
    from stable_baselines3.common import env_util as common  # pyright: ignore[reportMissingImports]

    from mairl.sb3 import LearnedRewardVecEnv

    path = save(tmp_path / "r", [3.0, 1.0, 4.0], [2.0, 1.0])
    reward = portable.LearnedReward.load(path)
    env = LearnedRewardVecEnv(common.make_vec_env("RewardLine-v0", 3, seed=0), path, "f")
    obs, ends, rng = env.reset(), [0, 0], np.random.default_rng(0)
    for _ in range(40):
        actions = rng.uniform(-0.5, 2.0, (3, 1)).astype(np.float32)
        next_obs, paid, dones, infos = env.step(actions)
        last = np.stack(
            [
                i["terminal_observation"] if d else o
                for o, d, i in zip(next_obs, dones, infos, strict=True)
            ]
        )
        terminated = np.array([abs(o[0]) > 3.0 for o in last])
        expected = reward.bounded(obs, actions, last, terminated, "f")
        np.testing.assert_allclose(paid, expected, rtol=1e-6)
        true = [info["env_reward"] for info in infos]
        np.testing.assert_allclose(true, 2.0 * obs[:, 0] - actions[:, 0], atol=1e-5)
        obs = next_obs
        ends = [ends[0] + terminated.sum(), ends[1] + (dones & ~terminated).sum()]
    assert min(ends) > 1


# Beside the true reward.


class Acts(mairl.Model):
    """A policy of the line, with a reward to judge."""

    def __init__(self, path):
        # Without networks of its own.
        self.spec, self.seed, self._reward = LINE, 0, mairl.LearnedReward.load(path)

    def predict(self, obs, *_):
        return np.full((len(obs), 1), 0.4, np.float32), None


def test_judge(tmp_path, monkeypatch):
    """The line's true reward is 2 position - action: 4 x0 - 2 a + 2 in normalized terms."""
    for name, value in {"STEPS": 200, "HIDDEN": (32,), "BATCH_SIZE": 64}.items():
        monkeypatch.setattr(f"mairl.regression.{name}", value)
    monkeypatch.setattr("mairl.regression.LEARNING_RATE", 1e-2)
    for name, size in {"COVERAGE": 100, "CANONICAL": 32, "CANONICAL_DARD": 8}.items():
        monkeypatch.setattr(f"mairl.judge.{name}", size)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-0.5, 0.5, (40, 1)).astype(np.float32)
    # 20 episodes of 2 steps.
    starts = rng.uniform(-1.0, 1.0, (20, 1)).astype(np.float32)
    at = np.concatenate([starts, starts + np.cumsum(actions.reshape(20, 2), 1)], 1)
    steps = np.tile(np.arange(3, dtype=np.float32), (20, 1))
    demos = {
        "observations": np.stack([at, steps], -1).reshape(60, 2),
        "actions": actions,
        "terminations": np.zeros(40, bool),
        "episode_lengths": np.full(20, 2),
    }
    true = 2.0 * at[:, :2].reshape(40) - actions[:, 0]
    np.savez(tmp_path / "with.npz", **demos, rewards=true)
    np.savez(tmp_path / "without.npz", **demos)

    right = save(tmp_path / "right", [4.0, 0.0, -2.0], [1.0, 3.0])
    scores = judge.judge(Acts(right), str(tmp_path / "with.npz"), 300, 0)
    for name in ("expert", "agent", "random", "all"):
        assert scores[name]["pearson_g"] == pytest.approx(1.0, abs=1e-4)
        assert scores[name]["spearman_g"] > 0.99
    assert scores["random"]["pearson_f"] < 0.95  # shaping is not the true reward
    assert [scores[n]["transitions"] for n in ("expert", "agent", "all")] == [40, 300, 900]
    # But equivalent to it, as far as the true reward is known.
    assert max(scores[f"{kind}_{c}"] for kind in ("epic", "dard") for c in "gf") < 0.25
    assert scores["epic_g"] == pytest.approx(scores["epic_f"], abs=1e-4)
    assert scores["env_reward_explained"] > 0.9
    assert "EPIC distance: g 0." in judge.table(scores)

    wrong = save(tmp_path / "wrong", [-4.0, 0.0, 2.0])
    scores = judge.judge(Acts(wrong), str(tmp_path / "without.npz"), 300, 0)
    assert scores["expert"] is None
    assert "hold no true rewards" in judge.table(scores)
    assert scores["agent"]["pearson_g"] == pytest.approx(-1.0, abs=1e-4)
    assert min(scores["epic_g"], scores["dard_g"]) > 0.9
