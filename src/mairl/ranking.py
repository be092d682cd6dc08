"""``mairl rank``: a reward to carry elsewhere, from how a policy gets worse when it is disturbed.

An adversarial reward says how far the policy is from the expert: where both have met it is flat,
and of what neither has done, such as the expert's posture without its speed, it has never heard.
Disturbed behavior says more (D-REX, Brown et al. 2020): a policy whose actions are replaced by
random ones the more often fares the worse, by whatever reward it was good at. The reward here is
linear in the normalized observation, g = w x + b, so that it can be read and goes on
beyond what was seen, and ranks segments of that behavior (Bradley & Terry 1952):

    P(i above j) = sigmoid(w (phi_i - phi_j)),   phi: mean of x over a segment
    w = argmin E[-log P(less disturbed above more disturbed)] + lambda |w|_1

The lasso leaves out what says little of its own. lambda is the largest that knows KEPT of the
order of held-out episodes that the best does. Not the best itself: what comes along with the
cause in this body, a posture or a tremor, tells segments apart too, and does not carry over.
The true reward has no part in any of this.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special
import tyro

from mairl import demos as demonstrations
from mairl import envs
from mairl.algorithms.config import RewardConfig
from mairl.artifact import artifact_paths
from mairl.checkpoint import save_artifact
from mairl.demos import ExpertData
from mairl.envs.recording import Episode, record
from mairl.model import read_parts
from mairl.portable import LearnedReward
from mairl.rewards import AIRLReward, end_level, end_logits, ended_share
from mairl.rundir import RunDirectory, read_json
from mairl.transfer import origin_of
from mairl.types import EnvSpec, MairlError

LEVELS = np.linspace(0.0, 1.0, 11)
"""Shares of the actions that are random."""

SEGMENT = 50
"""Steps whose mean is compared."""

PAIRS, FOLDS = 10_000, 4
"""Pairs of segments that a fit compares; parts of the episodes, each held out once."""

KEPT = 0.95
"""Share of the held-out order that a sparser reward may be left with. Order known: 0.5 less the
share of pairs in the wrong order."""

LAMBDAS = np.geomspace(0.3, 3e-4, 13)

WORST = 0.4
"""Share of pairs in the wrong order above which there is nothing to rank by; 0.5 is chance."""

MEAN = 2.0
"""g's mean over undisturbed behavior, and its negative over random actions: about what a
discriminator that is rarely wrong would say, whose bounds (``BoundedReward``) then fit."""


@dataclass(frozen=True)
class RankConfig:
    """What a ranking does."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory whose policy is disturbed, where it has learned."""
    episodes: int = 2
    """Episodes at each of the eleven shares of random actions; their steps are the cost."""
    seed: int = 0
    """Everything random follows from it."""
    out: str | None = None
    """Directory for the reward, ready for mairl transfer; None: RUN-ranked."""

    verb: ClassVar[str] = "rank"

    @property
    def path(self) -> Path:
        """The new directory."""
        return Path(self.out or f"{self.run.rstrip('/')}-ranked")


class Ranking(NamedTuple):
    """A fitted ranking.

    weights: ``[obs]`` of the normalized observation. strength: lambda. mistakes: for each of
    LAMBDAS the share of held-out pairs in the wrong order, 0.5 if nothing is known.
    """

    weights: np.ndarray
    strength: float
    mistakes: np.ndarray

    @property
    def wrong(self) -> float:
        """The mistakes at ``strength``."""
        return float(self.mistakes[list(LAMBDAS).index(self.strength)])


def rank(config: RankConfig) -> dict[str, Any]:
    """Disturb the policy of ``config.run``, fit the reward, and write its directory.

    Returns what is written to its config.json: weights, strength, mistakes and environment steps.

    Raises:
        MairlError: no such run; it has no policy or no reward; the directory is not empty; or
            disturbed behavior cannot be told from undisturbed.
    """
    if config.episodes < 1:
        raise MairlError(f"--episodes is {config.episodes}; give 1 or more")
    source, out = RunDirectory(config.run), RunDirectory(config.path)
    origin = origin_of(source)
    former = LearnedReward.load(source.path)
    out.check_new()
    found = read_parts(source.policy, "policy", "normalizer")
    policy, normalizer, spec = found.parts["policy"], found.parts["normalizer"], found.spec
    levels, episodes, undisturbed = [], [], []
    for number, level in enumerate(LEVELS):
        act = _disturbed(policy, normalizer, spec, level, config.seed, number)
        for episode in range(config.episodes):
            # One step asks for one whole episode.
            seed = envs.episode_seed(config.seed, "record", number, episode)
            (one,) = record(act, spec, 1, seed)
            levels.append(level)
            episodes.append(one.observations[1:])
            undisturbed += [one] if level == 0.0 else []
    steps = sum(map(len, episodes))
    levels.append(0.0)
    demos = demonstrations.find_demonstrations(origin["demos"], spec)
    shown = demonstrations.subsample(demos, origin["episodes"], origin["every"], origin["seed"])
    episodes.append(np.asarray(shown.transition.obs))  # one more undisturbed episode
    seen = [np.asarray(normalizer.normalize(jnp.asarray(obs))) for obs in episodes]
    ranking = fit(np.array(levels), seen, config.seed)
    if ranking.wrong > WORST or not ranking.weights.any():
        raise MairlError(
            f"the policy of {config.run} goes nowhere else undisturbed than by random actions: "
            "let it learn for longer, or try more --episodes"
        )
    weights, constant = scale(ranking.weights, np.array(levels), seen)
    about = {
        "run": config.run,
        "env_steps": steps,
        "episodes": config.episodes,
        "seed": config.seed,
        "lambda": ranking.strength,
        "held_out_mistakes": round(ranking.wrong, 4),
        "weights": [round(float(w), 4) for w in weights],
    }
    out.begin({**read_json(source.config), "ranked": about}, None)
    for name in ("policy", "dynamics"):
        for path in artifact_paths(getattr(source, name)):
            if path.exists():
                shutil.copy2(path, out.path / path.name)
    reward = _linear(spec, weights, constant, former.form.gamma)
    form = dataclasses.replace(
        former.form,
        state_only=True,
        bound=RewardConfig.bound,
        # No softplus: a body that cannot do as the source's did is on its flat side throughout,
        # and positive rewards hold it to what it knows already.
        softplus=0.0,
        **_ends(reward, normalizer, undisturbed, shown),
    )
    meta = {name: x for name, x in former.meta.items() if name not in ("versions", "sha256")}
    meta |= {"reward": dataclasses.asdict(form), "ranked": about}
    save_artifact(out.reward, {"reward": reward, "normalizer": normalizer}, meta)
    return about


def fit(levels: np.ndarray, episodes: list[np.ndarray], seed: int) -> Ranking:
    """Weights by which less disturbed segments are above more disturbed ones.

    ``levels`` are the shares of random actions of ``episodes`` ``[T, obs]`` (normalized).
    """
    rng = np.random.default_rng(seed)
    segments = [_segments(obs) for obs in episodes]
    part = np.arange(len(levels)) % FOLDS
    wrong = np.zeros((FOLDS, len(LAMBDAS)))
    for fold in range(FOLDS):
        train, test = (
            _differences(levels, segments, np.flatnonzero(chosen), rng)
            for chosen in (part != fold, part == fold)
        )
        for k, weights in enumerate(_path(train)):
            # What has no weight at all is tossed a coin for.
            wrong[fold, k] = np.mean(test @ weights < 0) + 0.5 * np.mean(test @ weights == 0)
    mistakes = wrong.mean(0)
    known = 0.5 - mistakes
    chosen = int(np.argmax(known >= KEPT * known.max()))  # the largest lambda comes first
    every = _differences(levels, segments, np.arange(len(levels)), rng)
    weights = _path(every)[chosen]
    return Ranking(weights, float(LAMBDAS[chosen]), mistakes)


def scale(
    weights: np.ndarray, levels: np.ndarray, episodes: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Weights and constant that make g's mean MEAN undisturbed and -MEAN under random actions."""
    high, low = (
        np.mean([np.mean(obs @ weights) for obs, x in zip(episodes, levels, strict=True) if x == y])
        for y in (levels.min(), levels.max())
    )
    factor = 2 * MEAN / (high - low)
    return weights * factor, float(-MEAN - low * factor)


def table(about: dict[str, Any]) -> str:
    """The weights that are not zero, heaviest first, one in a line."""
    weights = np.array(about["weights"])
    order = [i for i in np.argsort(-np.abs(weights)) if weights[i]]
    lines = [f"g by {len(order)} of {len(weights)} observed numbers, in their deviations:"]
    lines += [f"  observation {i:3d}  {weights[i]:+.3f}" for i in order]
    wrong = f"{about['held_out_mistakes']:.1%} of held-out pairs in the wrong order"
    return "\n".join([*lines, f"{wrong}; {about['env_steps']} environment steps"])


def _disturbed(policy: Any, normalizer: Any, spec: EnvSpec, level: float, seed: int, number: int):
    mode = jax.jit(lambda obs: policy.mode(normalizer.normalize(obs)))
    rng = np.random.default_rng([seed, number])

    def act(obs: np.ndarray, _: int) -> np.ndarray:
        random = rng.random() < level
        return envs.sample_random(rng, len(obs), spec) if random else np.asarray(mode(obs))

    return act


def _ends(
    reward: AIRLReward, normalizer: Any, undisturbed: list[Episode], shown: ExpertData
) -> dict[str, float]:
    """``ended`` and ``live`` of the reward's form, for policies that end as undisturbed."""
    gamma, lengths = reward.gamma, [len(one.actions) for one in undisturbed]
    terminated = [one.terminated for one in undisturbed]
    last = np.stack([one.observations[-2] for one in undisturbed])
    g = reward.g(normalizer.normalize(jnp.asarray(last)), jnp.zeros((len(last), 0)))
    weights = [gamma**n if end else 0.0 for n, end in zip(lengths, terminated, strict=True)]
    shares = (
        ended_share(shown.episode_lengths, shown.terminated, gamma),
        ended_share(lengths, terminated, gamma),
    )
    level = end_level(g, jnp.asarray(weights))
    bound = RewardConfig.bound
    ended, live = end_logits(jnp.float32(shares[0]), jnp.float32(shares[1]), level, bound)
    return {"ended": float(ended), "live": float(live)}


def _segments(obs: np.ndarray) -> np.ndarray:
    """Means ``[n, obs]`` over parts of nearly equal length, SEGMENT steps at most."""
    parts = np.array_split(obs, -(-len(obs) // SEGMENT))
    return np.stack([part.mean(0) for part in parts])


def _differences(
    levels: np.ndarray, segments: list[np.ndarray], chosen: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Less disturbed minus more disturbed segment ``[n, obs]``, episodes drawn evenly."""
    first, second = rng.choice(chosen, (2, PAIRS))
    better = levels[first] < levels[second]
    rows = np.concatenate(segments).astype(np.float64)
    counts = np.array([len(part) for part in segments])
    starts = np.cumsum(counts) - counts

    def draw(episodes: np.ndarray) -> np.ndarray:
        return rows[starts[episodes] + rng.integers(counts[episodes])]

    return draw(first[better]) - draw(second[better])


def _path(differences: np.ndarray) -> list[np.ndarray]:
    """The lasso's weights at each of LAMBDAS, each fit begun at the one before."""
    size = differences.shape[1]
    both, found = np.zeros(2 * size), []
    for strength in LAMBDAS:
        # |w| is smooth where w is the difference of two that are not negative.
        cost = partial(_split_loss, differences=differences, strength=strength)
        both = scipy.optimize.minimize(
            cost,
            both,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, None)] * (2 * size),
            options={"ftol": 1e-6},
        ).x
        found.append(both[:size] - both[size:])
    return found


def _split_loss(both: np.ndarray, differences: np.ndarray, strength: float):
    positive, negative = np.split(both, 2)
    value, gradient = _loss(positive - negative, differences)
    slope = np.concatenate([gradient, -gradient]) + strength
    return value + strength * both.sum(), slope


def _loss(weights: np.ndarray, differences: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of -log sigmoid(w d), and its gradient."""
    margin = differences @ weights
    wrong = scipy.special.expit(-margin)
    value = float(np.mean(np.logaddexp(0.0, -margin)))
    return value, -(differences * wrong[:, None]).mean(0)


def _linear(spec: EnvSpec, weights: np.ndarray, constant: float, gamma: float) -> AIRLReward:
    """g = w x + b as a network without hidden layers."""
    blank = AIRLReward(
        spec.obs_size,
        spec.action_size,
        (),
        gamma=gamma,
        state_only=True,
        shaping=False,
        key=jax.random.key(0),
    )
    layer = blank.reward.layers[0]
    values = (jnp.asarray(weights[:, None], jnp.float32), jnp.full(layer.bias.shape, constant))
    return eqx.tree_at(
        lambda r: (r.reward.layers[0].weight, r.reward.layers[0].bias), blank, values
    )
