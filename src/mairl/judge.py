"""How good a learned reward is, beside the true one. Evaluation: nothing of it is learned from.

Correlations need the true reward of transitions alone, which the environment gives. EPIC and
DARD also ask both rewards about transitions that nobody made; there the true reward is that of
a network fitted to it as a function of (obs, action), its mean over the next observation
(which is what a policy's return depends on). How well it fits is reported.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from mairl.demos import Demonstrations, find_demonstrations
from mairl.distances import Steps, dard_distance, epic_distance, pearson, spearman
from mairl.envs import sample_random
from mairl.envs.recording import Episode, record
from mairl.model import Model
from mairl.portable import Component, RewardArtifact
from mairl.regression import Regression, fit_regression
from mairl.types import Transition

TRANSITIONS = 5000
"""Of each kind that ``mairl evaluate --reward`` takes."""

COVERAGE, CANONICAL, CANONICAL_DARD = 512, 256, 64
"""Transitions compared by EPIC and DARD; samples of each expectation, and of DARD's."""


class Sample(NamedTuple):
    """Transitions ``[n, ...]`` (observations in their units, inside actions), true rewards."""

    transition: Transition
    env_reward: np.ndarray


def judge(model: Model, demos: str | None, steps: int, seed: int) -> dict[str, Any]:
    """Compare g and f with the true reward, on what expert, policy and random actions visit.

    ``demos`` is where the demonstrations came from (``find_demonstrations``); about ``steps``
    transitions are taken of each kind. The answer, ready for JSON: for each distribution
    ``pearson_g``, ``spearman_g``, the same of f, and ``transitions`` (None: the true reward is
    not known there, or never changes); "all" is an even mixture. ``epic_g``, ``dard_g`` and of
    f over that mixture (0 equivalent, .71 unrelated, 1 opposite), and how well the true reward
    and the next observation were fitted for them.

    Raises:
        MairlError: demonstrations or environment are not there, or fail.
    """
    samples = visited(model, find_demonstrations(demos, model.spec), steps, seed)
    rng = np.random.default_rng(seed)
    most = max(len(s.env_reward) for s in samples.values())
    mixture = _join([_draw(sample, most, rng) for sample in samples.values()])
    reward = model.learned_reward
    scores: dict[str, Any] = {
        name: _correlations(reward, sample) for name, sample in {**samples, "all": mixture}.items()
    }
    for missing in {"expert", "agent", "random"} - set(samples):
        scores[missing] = None
    # Without the rows that were drawn twice: some are held out of the fit.
    fitted = _fit(reward, _join(list(samples.values())), jax.random.key(seed))
    return scores | _distances(reward, mixture, fitted, rng)


def visited(model: Model, demos: Demonstrations, steps: int, seed: int) -> dict[str, Sample]:
    """Transitions of expert (where its true rewards are known), policy and random actions."""
    spec = model.spec

    def act(obs: np.ndarray, _: int) -> np.ndarray:
        return spec.encode_action(model.predict(obs)[0])

    def random(obs: np.ndarray, count: int) -> np.ndarray:
        return sample_random(np.random.default_rng([seed, count]), len(obs), spec)

    episodes = {
        "agent": record(act, spec, steps, seed),
        "random": record(random, spec, steps, seed),
    }
    if expert := expert_episodes(demos):
        episodes = {"expert": expert, **episodes}
    samples = {name: _sample(found) for name, found in episodes.items()}
    return {name: _take(s, slice(0, max(steps, 1))) for name, s in samples.items()}


def expert_episodes(demos: Demonstrations) -> list[Episode]:
    """The demonstrated episodes with their true rewards; none where those are not recorded."""
    return [
        Episode(t.observations, t.actions, env_reward, t.terminated)
        for t, env_reward in zip(demos.trajectories, demos.env_rewards or (), strict=False)
    ]


def table(scores: dict[str, Any]) -> str:
    """The scores in words, for people."""
    lines = [f"{'':8}  Pearson g       f   Spearman g       f   transitions"]
    for name in ("expert", "agent", "random", "all"):
        found = scores[name]
        if found is None:
            lines.append(f"{name:8}  the demonstrations hold no true rewards of steps")
            continue
        numbers = [found[f"{kind}_{c}"] for kind in ("pearson", "spearman") for c in "gf"]
        lines.append(
            f"{name:8}  {_number(numbers[0]):>9} {_number(numbers[1]):>7}   "
            f"{_number(numbers[2]):>10} {_number(numbers[3]):>7}   {found['transitions']:>11}"
        )
    if any(s and s["pearson_g"] is None for s in map(scores.get, ("expert", "agent", "all"))):
        lines.append(
            "–: the true reward never changes there, so that nothing can correlate with it"
        )
    for name, kind in (("EPIC", "epic"), ("DARD", "dard")):
        g, f = (_number(scores[f"{kind}_{c}"]) for c in "gf")
        lines.append(f"{name} distance: g {g}, f {f} (0 equivalent, .71 unrelated, 1 opposite)")
    lines.append(
        f"for these, the true reward was fitted with R² {scores['env_reward_explained']:.3f}, the "
        f"next observation with {scores['next_obs_explained']:.3f} (held out)"
    )
    return "\n".join(lines)


def _correlations(reward: RewardArtifact, sample: Sample) -> dict[str, Any]:
    found: dict[str, Any] = {"transitions": len(sample.env_reward)}
    for component in ("g", "f"):
        values = _values(reward, component, sample.transition)
        for name, correlate in (("pearson", pearson), ("spearman", spearman)):
            found[f"{name}_{component}"] = correlate(values, sample.env_reward)
    return found


def _distances(
    reward: RewardArtifact, mixture: Sample, fitted: Regression, rng: np.random.Generator
) -> dict[str, Any]:
    """EPIC and DARD of g and f over a part of the mixture, and how good the fits are."""
    t, gamma = mixture.transition, reward.form.gamma

    def env_reward(obs: np.ndarray, action: np.ndarray, _: np.ndarray) -> np.ndarray:
        return fitted(_inputs(reward, obs, action))[:, 0]

    def dynamics(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return (obs + fitted(_inputs(reward, obs, action))[:, 1:]).astype(np.float32)

    def learned(component: Component, obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray):
        ends = np.zeros(len(obs), np.float32)
        return _values(reward, component, Transition(obs, action, next_obs, ends))

    n = len(t.obs)
    rows = rng.permutation(n)[:COVERAGE]
    coverage = Steps(t.obs[rows], t.action[rows], t.next_obs[rows])
    # Drawn one by one, so that actions and observations are independent of each other.
    actions, next_obs = (
        t.action[rng.integers(n, size=CANONICAL)],
        t.next_obs[rng.integers(n, size=CANONICAL)],
    )
    scores: dict[str, Any] = {}
    for component in ("g", "f"):
        mine = partial(learned, component)
        scores[f"epic_{component}"] = epic_distance(
            mine, env_reward, coverage, actions, next_obs, gamma
        )
        scores[f"dard_{component}"] = dard_distance(
            mine, env_reward, coverage, actions[:CANONICAL_DARD], dynamics, gamma
        )
    explained = fitted.explained
    return scores | {
        "env_reward_explained": float(explained[0]),
        "next_obs_explained": float(np.mean(explained[1:])),
    }


def _fit(reward: RewardArtifact, sample: Sample, key: jax.Array) -> Regression:
    """True reward, and change of the observation, from observation and action."""
    t = sample.transition
    outputs = np.concatenate([sample.env_reward[:, None], t.next_obs - t.obs], 1)
    return fit_regression(_inputs(reward, t.obs, t.action), outputs, key=key)


def _inputs(reward: RewardArtifact, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.concatenate([reward.normalize(obs), action], 1, dtype=np.float32)


def _values(reward: RewardArtifact, component: Component, t: Transition) -> np.ndarray:
    action = reward.spec.decode_action(t.action)
    return reward.value(t.obs, action, t.next_obs, t.terminated, component)


def _sample(episodes: list[Episode]) -> Sample:
    return _join([Sample(episode.transitions, episode.env_reward) for episode in episodes])


def _join(samples: list[Sample]) -> Sample:
    return Sample(
        Transition(
            *(np.concatenate(x) for x in zip(*(s.transition for s in samples), strict=True))
        ),
        np.concatenate([s.env_reward for s in samples]),
    )


def _draw(sample: Sample, size: int, rng: np.random.Generator) -> Sample:
    """``size`` rows: all in another order, or drawn with replacement where there are fewer."""
    n = len(sample.env_reward)
    return _take(sample, rng.permutation(n)[:size] if n >= size else rng.integers(n, size=size))


def _take(sample: Sample, rows: Any) -> Sample:
    return Sample(Transition(*(x[rows] for x in sample.transition)), sample.env_reward[rows])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
