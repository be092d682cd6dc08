"""mairl rank: a reward from how a policy gets worse when it is disturbed."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

import mairl
from mairl import cli, envs, evaluate, normalizer, ranking
from mairl.algorithms import mairl as algorithm
from mairl.demos import ExpertData
from mairl.envs.recording import Episode
from mairl.rewards.airl import NEVER
from mairl.types import EnvSpec, Transition

TASK = "mairl/GridWorld-v0"
SMALL = shlex.split(
    "--steps 240 --warmup-steps 100 --collect-steps 20 --iterations 0.2 --batch-size 16 "
    "--evaluations 2 --eval-episodes 1 --policy.hidden 8 --value.hidden 8 --dynamics.width 8 "
    "--dynamics.depth 1 --dynamics.members 2 --dynamics.batch-size 8"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run whose policy is as good as it began: it goes one way, random actions go all ways."""
    out = tmp_path_factory.mktemp("ranked") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "FINAL_EPISODES", 1)
        nothing = lambda config, spec, state, *rest, iterations, key: (state, {})  # noqa: E731
        patch.setattr(algorithm, "update", nothing)
        words = ["train", TASK, *SMALL, "--reward.hidden", "8", "--out", str(out)]
        assert cli.main(words) == 0
    return out


def runners(rng):
    """Disturbed running: speed falls with the disturbance, a lean comes and goes with speed."""
    levels = np.repeat(ranking.LEVELS, 3)
    episodes = []
    for level in levels:
        x = rng.normal(size=(200, 6))
        x[:, 0] = 2.0 * (1.0 - level) + 0.5 * x[:, 0]
        x[:, 1] = 0.5 * x[:, 0] + 1.0 * x[:, 1]
        episodes.append(x.astype(np.float32))
    return levels, episodes


def test_the_cause_is_found_and_the_rest_left_out():
    levels, episodes = runners(np.random.default_rng(0))
    found = ranking.fit(levels, episodes, seed=0)
    assert np.argmax(np.abs(found.weights)) == 0
    assert found.weights[0] > 0
    # Neither noise nor what follows from speed tells more than speed does.
    assert np.all(np.abs(found.weights[1:]) < 0.05 * found.weights[0])
    assert np.sum(found.weights != 0) <= 3
    assert found.wrong < 0.1
    k = list(ranking.LAMBDAS).index(found.strength)
    assert 0.5 - found.mistakes[k] >= ranking.KEPT * (0.5 - found.mistakes.min())
    assert np.all(0.5 - found.mistakes[:k] < ranking.KEPT * (0.5 - found.mistakes.min()))
    weights, constant = ranking.scale(found.weights, levels, episodes)
    means = [
        np.mean([x @ weights for x, y in zip(episodes, levels, strict=True) if y == level])
        for level in (0.0, 1.0)
    ]
    np.testing.assert_allclose(np.array(means) + constant, [ranking.MEAN, -ranking.MEAN], rtol=1e-4)


def test_ends_are_worth_what_they_were_to_the_undisturbed_policy():
    """Who ends as the expert does is past an end as often: log(1) less the level of g there."""
    spec = EnvSpec("Probe-v0", 2, 1, False, (-1.0,), (1.0,))
    reward = ranking._linear(spec, np.array([3.0, 0.0]), -1.0, gamma=0.9)
    obs = np.float32([[0.0, 0.0], [1.0, 5.0], [9.0, 9.0]])
    episode = Episode(obs, np.zeros((2, 1), np.float32), np.zeros(2), True)
    nothing = Transition(*(np.zeros(0),) * 4)
    scales = normalizer.identity(2)
    alike = ExpertData(nothing, 1, 1, (2,), (True,))
    found = ranking._ends(reward, scales, [episode], alike)
    assert found == {"ended": pytest.approx(-2.0, abs=1e-3), "live": pytest.approx(0.0, abs=1e-3)}
    never = ExpertData(nothing, 1, 1, (2,), (False,))
    assert ranking._ends(reward, scales, [episode], never)["ended"] == NEVER


def test_weights_are_those_of_the_convex_problem():
    rng = np.random.default_rng(1)
    d = rng.normal([1.0, 0.2, 0.0, -0.5], size=(500, 4))
    for weights, strength in zip(ranking._path(d), ranking.LAMBDAS, strict=True):
        _, gradient = ranking._loss(weights, d)
        on = np.abs(weights) > 1e-4
        # Optimality of the lasso: the slope is lambda against each weight, and less elsewhere.
        np.testing.assert_allclose(gradient[on], -strength * np.sign(weights[on]), atol=2e-3)
        assert np.all(np.abs(gradient[~on]) <= strength + 2e-3)


def test_rank_and_transfer(source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "ranked"
    assert cli.main(["rank", str(source), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    about = json.loads((out / "config.json").read_text())["ranked"]
    assert about["run"] == str(source)
    assert about["env_steps"] == 11 * 2 * 50
    weights = np.array(about["weights"])
    assert f"g by {np.count_nonzero(weights)} of 25 observed numbers" in said
    # The reward is what was said, everywhere it is read.
    model = mairl.load(out)
    cells = np.eye(25, dtype=np.float32)
    nothing = np.zeros(25, np.int64)
    g = model.reward(cells, nothing, cells, np.zeros(25), component="g")
    np.testing.assert_allclose(
        g - g[0],
        (model.learned_reward.normalize(cells) @ weights)
        - (model.learned_reward.normalize(cells) @ weights)[0],
        atol=1e-3,
    )
    assert model.learned_reward.form.state_only
    assert model.learned_reward.form.softplus == 0.0  # as steep below zero
    np.testing.assert_array_equal(model.predict(cells)[0], mairl.load(source).predict(cells)[0])
    # The same words, the same reward.
    again = tmp_path / "again"
    assert cli.main(["rank", str(source), "--out", str(again)]) == 0
    files = [run / "reward.safetensors" for run in (out, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    # It transfers as any other.
    monkeypatch.setattr(evaluate, "FINAL_EPISODES", 1)
    target = tmp_path / "target"
    assert cli.main(["transfer", str(out), TASK, *SMALL, "--out", str(target)]) == 0
    moved = mairl.load(target).reward(cells, nothing, cells, np.zeros(25))
    np.testing.assert_allclose(moved, g, rtol=1e-5, atol=1e-5)
    # Its critics would be those of another reward.
    words = ["transfer", str(out), TASK, *SMALL, "--warm-start", "--out", str(tmp_path / "warm")]
    assert cli.main(words) == 2
    assert "newest checkpoint" in capsys.readouterr().err


def refused(capsys, *arguments) -> str:
    assert cli.main(["rank", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_mistakes_are_named(source, tmp_path, monkeypatch, capsys):
    assert "no run directory" in refused(capsys, tmp_path / "nowhere")
    assert "--episodes is 0" in refused(capsys, source, "--episodes", 0)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "record", None)  # said before a step is taken
        assert "not empty" in refused(capsys, source, "--out", full)
    # Nothing but random actions, whatever the level: there is nothing to rank by.
    random = lambda policy, normalizer, spec, level, seed, number: (  # noqa: E731
        lambda obs, _: envs.sample_random(np.random.default_rng(int(obs.argmax())), len(obs), spec)
    )
    monkeypatch.setattr(ranking, "_disturbed", random)
    subsample = ranking.demonstrations.subsample

    def nowhere(*arguments):
        shown = subsample(*arguments)
        obs = shown.transition.obs
        return replace(shown, transition=shown.transition._replace(obs=np.full_like(obs, 0.04)))

    monkeypatch.setattr(ranking.demonstrations, "subsample", nowhere)
    assert "let it learn for longer" in refused(capsys, source, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()
