"""Exported graphs against the networks they were made of, in the environment's own units."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime as runtime
import pytest

from mairl import checkpoint, cli, portable
from mairl.policies import make_policy
from mairl.portable import RewardForm
from mairl.rewards import AIRLReward
from mairl.types import EnvSpec, MairlError

OBS = 5
BOXED = EnvSpec("Boxed-v0", OBS, 2, False, (-2.0, 0.0), (2.0, 0.1))
CHOICES = EnvSpec("Choices-v0", OBS, 3, True, discrete_start=1)
NORMALIZER = {
    "mean": np.float32([50.0, -1.0, 0.0, 3.0, 1.0]),
    "std": np.float32([3.0, 0.1, 1.0, 2.0, 1.0]),
}


def save_run(folder, spec, state_only, shaping):
    """What a run leaves; returns its policy's networks."""
    keys = jax.random.split(jax.random.key(0))
    form = RewardForm(0.9, state_only, 10.0, 5.0, 1.0, 0.0, -1.0)
    reward = AIRLReward(
        OBS,
        spec.action_size,
        (32, 16),
        gamma=0.9,
        state_only=state_only,
        shaping=shaping,
        key=keys[0],
    )
    policy = make_policy(OBS, spec.action_size, spec.discrete, (32, 16), key=keys[1])
    # Fresh ones hardly act; these do.
    policy = jax.tree.map(lambda x: 5.0 * x, policy)
    meta = {"spec": dataclasses.asdict(spec)}
    tree = {"policy": policy, "normalizer": NORMALIZER}
    checkpoint.save_artifact(folder / "policy", tree, {**meta, "clip": 10.0})
    tree = {"reward": reward, "normalizer": NORMALIZER}
    checkpoint.save_artifact(folder / "reward", tree, {**meta, "reward": dataclasses.asdict(form)})
    return policy


@pytest.mark.parametrize(
    ("spec", "state_only", "shaping"),
    [(BOXED, False, True), (BOXED, True, False), (CHOICES, False, False), (CHOICES, True, True)],
)
def test_graphs_agree(tmp_path, spec, state_only, shaping, capsys):
    policy = save_run(tmp_path, spec, state_only, shaping)
    assert cli.main(["export", str(tmp_path), "--onnx", str(tmp_path / "onnx")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "onnx" / f"{name}.onnx") for name in ("policy", "reward")
    ]
    acting, judging = (
        runtime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx")
        for name in ("policy", "reward")
    )
    rng = np.random.default_rng(0)
    # Some so far out that the normalizer clips.
    noise = rng.normal(size=(2, 300, OBS)) * rng.choice([1.0, 20.0], size=(2, 300, 1))
    obs, next_obs = (NORMALIZER["mean"] + NORMALIZER["std"] * noise).astype(np.float32)
    x = np.clip((obs - NORMALIZER["mean"]) / NORMALIZER["std"], -10, 10)
    inside = policy.mode(jnp.asarray(x))
    (action,) = acting.run(None, {"obs": obs})
    np.testing.assert_allclose(action, spec.decode_action(np.asarray(inside)), atol=1e-5)
    if spec.discrete:
        assert (action.dtype, set(action.tolist())) == (np.int64, {1, 2, 3})
    else:
        assert np.all(
            (action >= np.float32(spec.action_low)) & (action <= np.float32(spec.action_high))
        )
        assert np.std(action[:, 0]) > 0.1
    ends = rng.integers(2, size=300).astype(np.float32)
    inputs = {"obs": obs, "action": action, "next_obs": next_obs, "terminated": ends}
    g, h, f = judging.run(["g", "h", "f"], inputs)
    reward = portable.LearnedReward.load(tmp_path)
    np.testing.assert_allclose(g, reward.g(obs, action), atol=1e-5)
    np.testing.assert_allclose(h, reward.h(obs), atol=1e-5)
    np.testing.assert_allclose(f, reward.f(obs, action, next_obs, ends), atol=1e-5)
    assert np.std(g) > 0.01
    assert np.any(h) == shaping
    one = {name: x[:1] for name, x in inputs.items()}
    assert judging.run(["f"], one)[0].shape == (1,)


def test_bad_runs(tmp_path, capsys):
    from mairl.onnx_export import export

    with pytest.raises(MairlError, match="no run directory"):
        export(tmp_path / "nowhere", tmp_path)
    with pytest.raises(MairlError, match="there is no reward in"):
        export(tmp_path, tmp_path / "out")
    save_run(tmp_path, BOXED, False, False)
    (tmp_path / "file").write_text("")
    with pytest.raises(MairlError, match="cannot be written"):
        export(tmp_path, tmp_path / "file")
    # Another task's policy beside the reward's JSON.
    checkpoint.save_artifact(
        tmp_path / "policy",
        {"policy": make_policy(3, 1, True, (4,), key=jax.random.key(0)), "normalizer": NORMALIZER},
        {"spec": dataclasses.asdict(BOXED), "clip": 10.0},
    )
    assert cli.main(["export", str(tmp_path), "--onnx", str(tmp_path / "out")]) == 2
    assert "is not a policy that this mairl exports" in capsys.readouterr().err
