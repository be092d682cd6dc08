"""The project's own tasks: Gymnasium's rules, known transitions, edited models."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mairl import envs
from mairl.types import MairlError

TASKS = sorted(name for name in gym.registry if name.startswith("mairl/"))
SHIFTED = ("Hopper", "HalfCheetah", "Walker2d")


def made(name: str, **kwargs):
    return gym.make(f"mairl/{name}-v0", **kwargs).unwrapped


def test_every_task_is_registered():
    assert {name.removeprefix("mairl/").removesuffix("-v0") for name in TASKS} == {
        *("GridWorld", "PointMazeLeft", "PointMazeRight", "CustomAnt", "DisabledAnt"),
        *SHIFTED,
    }


@pytest.mark.parametrize("name", TASKS)
def test_follows_gymnasiums_rules(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Gymnasium's own MuJoCo tasks have unbounded observations too.
        warnings.filterwarnings("ignore", ".*Box observation space m.*imum value is.*")
        check_env(gym.make(name).unwrapped, skip_render_check=True)
    assert envs.make_spec(name).max_episode_steps == gym.spec(name).max_episode_steps


# GridWorld.


def test_grid_transitions():
    matrix = made("GridWorld").transition_matrix
    np.testing.assert_allclose(matrix.sum(2), 1.0, atol=1e-12)
    # Cell 0 is the upper left corner. Left (0) and up (3) are blocked there: choosing left stays
    # with .9 + .1 / 4 for itself and .1 / 4 for up; down leads to 5, right to 1.
    np.testing.assert_allclose(matrix[0, 0, [0, 5, 1]], [0.95, 0.025, 0.025])
    # Choosing down in the middle (12): down is 17 with .925, the other three .025 each.
    np.testing.assert_allclose(matrix[12, 1, [17, 11, 13, 7]], [0.925, 0.025, 0.025, 0.025])


def test_grid_steps_follow_the_transitions():
    env = made("GridWorld")
    matrix, counts = env.transition_matrix, np.zeros((25, 4, 25))
    rng = np.random.default_rng(0)
    cell, _ = env.reset(seed=0)
    for _ in range(20_000):
        action = int(rng.integers(4))
        after, reward, terminated, truncated, _ = env.step(action)
        assert reward == env.reward_table[cell]
        assert (terminated, truncated) == (False, False)
        counts[cell, action, after] += 1
        cell = after
    assert not counts[matrix == 0].any()
    visits = counts.sum(2, keepdims=True)
    # 4.5 deviations of a binomial share, over all 2500 entries.
    error = np.abs(counts / visits - matrix)
    assert (error <= 4.5 * np.sqrt(matrix * (1 - matrix) / visits) + 1e-12).all()


def test_grid_rendering():
    image = gym.make("mairl/GridWorld-v0", render_mode="rgb_array")
    image.reset(seed=0)
    assert image.render().shape == (160, 160, 3)
    text = gym.make("mairl/GridWorld-v0", render_mode="ansi")
    text.reset(seed=0)
    assert text.render().count("A") == 1


# The point maze.


def walk(env, targets) -> np.ndarray:
    """Push towards each of the targets in turn, for 40 steps each; the last observation."""
    obs, _ = env.reset(seed=0)
    for target in targets:
        for _ in range(40):
            obs = env.step(np.clip(20.0 * (target - obs[:2]), -1.0, 1.0))[0]
    return obs


@pytest.mark.parametrize(("name", "through"), [("PointMazeLeft", 0.5), ("PointMazeRight", 0.05)])
def test_maze_is_passed_on_one_side(name, through):
    goal = np.array([0.3, 0.5])
    around = [np.array([through, 0.1]), np.array([through, 0.5]), goal]
    mirrored = [np.array([0.55 - through, 0.1]), np.array([0.55 - through, 0.5]), goal]
    assert np.linalg.norm(walk(made(name), around)[:2] - goal) < 0.05
    assert walk(made(name), mirrored)[1] < 0.3
    assert walk(made(name), [goal] * 3)[1] < 0.3


def test_maze_reward_and_velocity():
    env = made("PointMazeLeft", velocity=True)
    obs, _ = env.reset(seed=0)
    np.testing.assert_allclose(obs[:2], [0.3, 0.0])
    assert np.abs(obs[2:]).max() <= 0.01
    # Half a metre to the goal before the step, and 0.001 * (0.6^2 + 0.8^2).
    assert env.step(np.array([0.6, 0.8]))[1] == pytest.approx(-0.501)


# The ants.


def test_ants():
    custom, disabled = made("CustomAnt").model, made("DisabledAnt").model
    np.testing.assert_array_equal(custom.actuator_gear[:, 0], 30.0)
    lengths = custom.geom_size[:, 1], disabled.geom_size[:, 1]
    for model, leg in ((custom, 1.0), (disabled, 0.5)):
        for joint in range(model.nu):
            name = model.joint(model.actuator_trnid[joint, 0]).name
            front = name[-1] in "12"
            assert model.actuator_gear[joint, 0] == (1.0 if front and leg < 1 else 30.0)
    # Thigh and shin of the two front legs, and nothing else.
    shorter = lengths[1] / np.where(lengths[0], lengths[0], 1.0)
    np.testing.assert_allclose(np.sort(shorter[lengths[0] > 0])[:5], [0.5, 0.5, 0.5, 0.5, 1.0])


def test_flipped_ant_pays_and_goes_on():
    env = made("CustomAnt")
    env.reset(seed=0)
    qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
    qpos[2] = 0.1
    env.set_state(qpos, qvel)
    _, reward, terminated, _, info = env.step(np.zeros(8))
    assert not terminated
    assert info["reward_survive"] == (-1.0 if env.data.qpos[2] < 0.2 else 0.0)
    assert reward == pytest.approx(
        info["reward_forward"] + info["reward_contact"] + info["reward_survive"]
    )


# Shifted locomotion.


@pytest.mark.parametrize("name", SHIFTED)
def test_factor_one_is_gymnasiums_task(name):
    own, theirs = gym.make(f"mairl/{name}-v0"), gym.make(f"{name}-v5")
    own.action_space.seed(0)
    np.testing.assert_array_equal(own.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for step in range(100):
        action = own.action_space.sample()
        mine, other = own.step(action), theirs.step(action)
        np.testing.assert_array_equal(mine[0], other[0])
        assert mine[1:4] == other[1:4]
        if mine[2]:
            own.reset(seed=step)
            theirs.reset(seed=step)


@pytest.mark.parametrize("name", SHIFTED)
def test_factors(name):
    plain = made(name).model
    shifted = made(name, gravity=0.5, friction=0.25, mass=2.0, gear=3.0).model
    np.testing.assert_allclose(shifted.opt.gravity, 0.5 * plain.opt.gravity)
    np.testing.assert_allclose(shifted.geom_friction, 0.25 * plain.geom_friction)
    np.testing.assert_allclose(shifted.body_mass, 2.0 * plain.body_mass)
    np.testing.assert_allclose(shifted.body_inertia, 2.0 * plain.body_inertia)
    np.testing.assert_allclose(shifted.actuator_gear[:, 0], 3.0 * plain.actuator_gear[:, 0])
    np.testing.assert_array_equal(shifted.geom_size, plain.geom_size)


@pytest.mark.parametrize("name", SHIFTED)
def test_leg_length(name):
    plain, longer = made(name), made(name, leg_length=1.25)
    first = plain.reset(seed=0)[0], longer.reset(seed=0)[0]
    np.testing.assert_array_equal(*first)  # Standing reads the same.
    legs = plain.model.geom_bodyid > 1
    half = plain.model.geom_size[legs, 1], longer.model.geom_size[legs, 1]
    np.testing.assert_allclose(half[1], 1.25 * half[0])
    torso = plain.data.xpos[1, 2], longer.data.xpos[1, 2]
    assert torso[1] > torso[0] + 0.05
    # The feet are where they were: as much contact with the ground, none of it deeper.
    assert longer.data.ncon == plain.data.ncon


def test_impossible_factors():
    with pytest.raises(MairlError, match=r"mass is -1\.0; give a finite factor above 0"):
        envs.make_spec("mairl/Hopper-v0?mass=-1.0")


# Arguments in an id.


def test_arguments_in_an_id():
    spec = envs.make_spec("mairl/PointMazeLeft-v0?velocity=True,wall=right")
    assert spec.env_id == "mairl/PointMazeLeft-v0?velocity=True,wall=right"
    assert spec.obs_size == 4
    returns = envs.random_return(spec.env_id, spec, episodes=1)
    assert returns < 0


def test_commas_within_brackets_belong_to_a_value():
    spec = envs.make_spec("Hopper-v5?healthy_z_range=(0.2,9.0),frame_skip=2")
    env = envs.make(spec.env_id).unwrapped
    assert (env._healthy_z_range, env.frame_skip) == ((0.2, 9.0), 2)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("mairl/Hopper-v0?gravity", "'gravity' is not an argument"),
        ("mairl/Hopper-v0?gravity=", "'gravity=' is not an argument"),
        ("mairl/Hopper-v0?levity=2", "unexpected keyword argument 'levity'"),
        ("mairl/Hoper-v0?gravity=2", "nearest: 'mairl/Hopper-v0'"),
    ],
)
def test_wrong_arguments(env_id, message):
    with pytest.raises(MairlError, match=message.replace("?", r"\?")):
        envs.make_spec(env_id)
