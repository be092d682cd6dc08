"""What every algorithm hands on is read again: as a model, with NumPy alone, and as ONNX graphs."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime as runtime
import pytest

import mairl
from mairl import cli, portable
from mairl.algorithms import ALGORITHMS, find, transfer
from mairl.algorithms.config import MAIRLConfig
from mairl.handover import hand_on
from mairl.job import Job
from mairl.rundir import RunDirectory
from mairl.types import EnvSpec, MairlError, Transition

BOX = EnvSpec("Box-v0", 3, 2, False, (-1.0, -2.0), (1.0, 2.0))
STATES = EnvSpec("States-v0", 3, 2, True)


def rows(spec, n=32):
    rng = np.random.default_rng(0)
    obs, next_obs = 2.0 + 3.0 * rng.normal(size=(2, n, 3)).astype(np.float32)
    action = np.eye(2, dtype=np.float32)[rng.integers(0, 2, n)]
    action = action if spec.discrete else np.tanh(rng.normal(size=(n, 2))).astype(np.float32)
    return Transition(obs, action, next_obs, np.float32(np.arange(n) % 2))


def handed_on(name, spec, path) -> Any:
    """The state of an algorithm that has learned nothing yet, handed on; its policy acts."""
    algorithm: Any = transfer.mairl if name == "transfer" else find(name)
    settings = algorithm.PRESETS["default"]
    if isinstance(settings, MAIRLConfig):
        settings = settings.settled(spec, 1000, expert_ends=True)
    data = rows(spec)
    state = algorithm.initialize(settings, spec, data, data, 0.25, key=jax.random.key(0))
    scale = 100.0 if hasattr(state.params.policy, "log_std") else 5.0
    policy = jax.tree.map(lambda x: scale * x, state.params.policy)
    state = state._replace(params=state.params._replace(policy=policy))
    job = object.__new__(Job)  # Of a run, what is read here.
    for part, value in {
        "directory": RunDirectory(path),
        "spec": spec,
        "config": SimpleNamespace(algorithm=name, algo=settings, seed=3),
        "document": {"demos": {"source": "here"}, "versions": {}},
        "expert": SimpleNamespace(episodes=1, every=1, transition=data),
    }.items():
        object.__setattr__(job, part, value)
    hand_on(job, state, 120)
    return state


CASES = [(name, STATES) for name in (*ALGORITHMS, "transfer")]
CASES += [(name, BOX) for name in ("mairl", "bc", "gail")]


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_what_is_handed_on_is_read_again(name, spec, tmp_path):
    state, data = handed_on(name, spec, tmp_path), rows(spec, 64)
    model = mairl.load(tmp_path)

    def normalize(obs):
        return state.normalizer.normalize(jnp.asarray(obs))

    inside = np.asarray(state.params.policy.mode(normalize(data.obs)))
    actions = model.predict(data.obs)[0]
    np.testing.assert_allclose(actions, spec.decode_action(inside), atol=1e-4)
    assert (tmp_path / "dynamics.json").exists() == hasattr(state.params, "dynamics")
    assert (tmp_path / "reward.json").exists() == hasattr(state.params, "reward")
    if not hasattr(state.params, "reward"):
        with pytest.raises(MairlError, match="policy alone"):
            portable.LearnedReward.load(tmp_path)
        return
    given = data.obs, spec.decode_action(data.action), data.next_obs, data.terminated
    batch = jax.tree.map(jnp.asarray, data)
    batch = batch._replace(obs=normalize(data.obs), next_obs=normalize(data.next_obs))
    for reward in (model.learned_reward, portable.LearnedReward.load(tmp_path)):
        np.testing.assert_allclose(reward.f(*given), state.params.reward.f(batch), atol=1e-5)
        assert (reward.meta["algorithm"], reward.meta["seed"]) == (name, 3)
    assert (tmp_path / "snapshots" / "reward-00000120.json").exists()
    if name == "maxent":
        with pytest.raises(MairlError, match="exact"):
            reward.bounded(*given)
    else:
        assert np.isfinite(reward.bounded(*given)).all()


@pytest.mark.parametrize(("name", "spec"), [("gail", BOX), ("bc", STATES), ("maxent", STATES)])
def test_graphs_of_other_policies_agree(name, spec, tmp_path, capsys):
    handed_on(name, spec, tmp_path)
    assert cli.main(["export", str(tmp_path), "--onnx", str(tmp_path / "onnx")]) == 0
    written = capsys.readouterr().out.split()
    assert len(written) == (1 if name == "bc" else 2)
    acting = runtime.InferenceSession(tmp_path / "onnx" / "policy.onnx")
    obs = rows(spec, 300).obs
    (found,) = acting.run(["action"], {"obs": obs})
    expected = mairl.load(tmp_path).predict(obs)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if not spec.discrete:
        # Some clipped, some not.
        assert 0.0 < np.mean(np.abs(expected / spec.action_high) > 0.999) < 1.0
