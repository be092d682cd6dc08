"""Pictures of a learned reward: where it is high, what it looks at, how it runs along episodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mairl.demos import find_demonstrations
from mairl.distances import pearson
from mairl.envs.recording import Episode, record
from mairl.judge import expert_episodes
from mairl.learned_reward import LearnedReward
from mairl.model import Model
from mairl.types import MairlError

GRID, POINTS, SHOWN_INPUTS, SHOWN_SNAPSHOTS, POLICY_STEPS = 80, 600, 30, 4, 2000
POLICY, TRUE = "#4c72b0", "#c44e52"


class Visits(NamedTuple):
    """Episodes of one actor: ``true`` says whether their env_reward is known."""

    name: str
    episodes: list[Episode]
    true: bool

    @property
    def obs(self) -> np.ndarray:
        """All observations that were acted on, ``[n, obs]``."""
        return np.concatenate([e.observations[:-1] for e in self.episodes])


def draw_reward(
    model: Model, demos: str | None, out: Path, dims: tuple[int, int] | None = None
) -> list[Path]:
    """Draw a run's reward into the folder ``out``; returns the pictures' paths.

    ``dims`` are the observation dimensions of the map; None: the two that g is steepest in over
    the demonstrations (mean absolute slope, per deviation).

    Raises:
        MairlError: dimensions that are not there; demonstrations or environment fail.
    """
    reward, spec = model.learned_reward, model.spec
    visits = _visits(model, demos)
    dims = steepest(reward, visits[0].episodes) if dims is None else dims
    if len(set(dims)) < 2 or not all(0 <= d < spec.obs_size for d in dims):
        raise MairlError(
            f"--dims {dims[0]} {dims[1]}: {spec.env_id} has observation dimensions 0 to "
            f"{spec.obs_size - 1}; give two different ones"
        )
    each = [(visit, _liveliest(reward, visit.episodes)) for visit in visits]
    pictures = {
        "reward-map.png": lambda path: _draw_map(model, visits, dims, path),
        "reward-saliency.png": lambda path: _draw_saliency(reward, each, path),
        "reward-episode.png": lambda path: _draw_episodes(reward, each, path),
    }
    if reward.shaped:
        pictures["reward-shaping.png"] = lambda path: _draw_shaping(reward, visits, path)
    snapshots = sorted((out / "snapshots").glob("reward-*.json"))
    if len(snapshots) > 1:
        chosen = [snapshots[i] for i in _spread(len(snapshots), SHOWN_SNAPSHOTS)]
        pictures["reward-training.png"] = lambda path: _draw_training(
            model, visits, dims, chosen, path
        )
    for name, draw in pictures.items():
        draw(out / name)
    return [out / name for name in pictures]


def steepest(reward: LearnedReward, episodes: list[Episode]) -> tuple[int, int]:
    """The two observation dimensions with the largest mean |dg/dx| over the episodes."""
    slopes = np.concatenate([np.abs(_slopes(reward, e)) for e in episodes])
    order = np.argsort(-slopes.mean(0)[: reward.spec.obs_size], kind="stable")
    first, second = sorted(int(i) for i in order[:2]) if len(order) > 1 else (0, 0)
    return first, second


def _visits(model: Model, demos: str | None) -> tuple[Visits, Visits]:
    spec = model.spec
    found = find_demonstrations(demos, spec)
    expert = expert_episodes(found)
    known = bool(expert)
    if not known:
        expert = [
            Episode(t.observations, t.actions, np.zeros(len(t)), t.terminated)
            for t in found.trajectories
        ]
    policy = record(
        lambda obs, _: spec.encode_action(model.predict(obs)[0]), spec, POLICY_STEPS, model.seed
    )
    return Visits("expert", expert, known), Visits("policy", policy, True)


def _draw_map(model: Model, visits: Sequence[Visits], dims: tuple[int, int], path: Path) -> None:
    x, y, grid = _grid(visits, dims)
    values = model.learned_reward.g(grid, model.predict(grid)[0]).reshape(GRID, GRID)
    figure, axes = _figure(10.0, 4.4, 1, 2)
    for i, (ax, each) in enumerate(zip(axes, visits, strict=True)):
        mesh = _heat(ax, x, y, values, values.min(), values.max())
        points = _some(each.obs)[:, dims]
        ax.plot(*points.T, ".", color="white", markersize=3, alpha=0.7, markeredgewidth=0)
        ax.set_title(f"where the {each.name} goes (dots)", fontsize=10)
        _label(ax, dims, i == 0)
        if i:
            figure.colorbar(mesh, ax=axes, label="g", pad=0.01)
    figure.suptitle(
        f"{model.spec.env_id}: learned reward g (dashed: 0); other dimensions at the "
        "demonstrations' median, the policy's action",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _draw_training(
    model: Model,
    visits: Sequence[Visits],
    dims: tuple[int, int],
    snapshots: Sequence[Path],
    path: Path,
) -> None:
    x, y, grid = _grid(visits, dims)
    action = model.predict(grid)[0]
    rewards = [LearnedReward.load(snapshot) for snapshot in snapshots]
    values = [reward.g(grid, action).reshape(GRID, GRID) for reward in rewards]
    figure, axes = _figure(3.0 * len(values) + 1.0, 3.3, 1, len(values))
    mesh = None
    for i, (ax, each, reward) in enumerate(zip(axes, values, rewards, strict=True)):
        mesh = _heat(ax, x, y, each, np.min(values), np.max(values))
        ax.set_title(f"after {reward.meta['env_steps']} steps", fontsize=10)
        _label(ax, dims, i == 0)
    figure.colorbar(mesh, ax=axes, label="g", pad=0.01)
    figure.suptitle(f"{model.spec.env_id}: learned reward g over training", fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_shaping(reward: LearnedReward, visits: Sequence[Visits], path: Path) -> None:
    figure, (ax,) = _figure(5.4, 4.6, 1, 1)
    for each, colour in zip(visits, (TRUE, POLICY), strict=True):
        steps = [e.transitions for e in each.episodes]
        t = [_some(np.concatenate(field)) for field in zip(*steps, strict=True)]
        action = reward.spec.decode_action(t[1])
        ax.plot(
            reward.g(t[0], action),
            reward.f(t[0], action, t[2], t[3]),
            ".",
            color=colour,
            markersize=4,
            alpha=0.5,
            markeredgewidth=0,
            label=each.name,
        )
    low, high = ax.get_xlim()
    ax.plot([low, high], [low, high], color="#8c8c8c", linewidth=0.8, label="f = g")
    ax.set_xlabel("g, the reward alone")
    ax.set_ylabel("f, shaped by the potential")
    ax.set_title(f"{reward.spec.env_id}: what shaping adds", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _draw_saliency(
    reward: LearnedReward, shown_episodes: Sequence[tuple[Visits, Episode]], path: Path
) -> None:
    slopes = [np.abs(_slopes(reward, episode)) for _, episode in shown_episodes]
    seen = reward.spec.obs_size + (0 if reward.form.state_only else reward.spec.action_size)
    mean = np.concatenate(slopes).mean(0)[:seen]
    shown = np.sort(np.argsort(-mean, kind="stable")[:SHOWN_INPUTS])
    names = [
        f"obs {i}" if i < reward.spec.obs_size else f"action {i - reward.spec.obs_size}"
        for i in shown
    ]
    figure, axes = _figure(10.0, max(3.0, 1.0 + 0.21 * len(shown)), 1, 2)
    top = max(float(np.quantile(s[:, shown], 0.99)) for s in slopes)
    mesh = None
    for i, (ax, (each, _), slope) in enumerate(zip(axes, shown_episodes, slopes, strict=True)):
        mesh = ax.imshow(
            slope[:, shown].T, aspect="auto", cmap="magma", vmin=0.0, vmax=top, interpolation="none"
        )
        ax.set_yticks(range(len(shown)), names if i == 0 else [], fontsize=7)
        ax.set_xlabel("step")
        ax.set_title(f"an episode of the {each.name}", fontsize=10)
    figure.colorbar(mesh, ax=axes, label="|dg / dx|, x in deviations", pad=0.01)
    more = "" if len(shown) == seen else f" ({len(shown)} of {seen} inputs, the steepest)"
    figure.suptitle(f"{reward.spec.env_id}: what g looks at{more}", fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_episodes(
    reward: LearnedReward, shown_episodes: Sequence[tuple[Visits, Episode]], path: Path
) -> None:
    figure, axes = _figure(10.0, 5.0, 2, 1)
    for ax, (each, episode) in zip(axes, shown_episodes, strict=True):
        g = _g(reward, episode)
        ax.plot(g, color=POLICY, linewidth=0.9)
        ax.set_ylabel("g", color=POLICY)
        ax.margins(x=0.0)
        title = f"an episode of the {each.name}"
        if each.true:
            twin = ax.twinx()
            twin.plot(episode.env_reward, color=TRUE, linewidth=0.9, alpha=0.8)
            twin.set_ylabel("true reward", color=TRUE)
            twin.spines["top"].set_visible(False)
            found = pearson(g, episode.env_reward)
            title += "" if found is None else f": Pearson {found:.2f}"
        ax.set_title(title, fontsize=10)
    axes[-1].set_xlabel("step")
    figure.suptitle(f"{reward.spec.env_id}: learned and true reward", fontsize=10)
    figure.savefig(path, dpi=110)


def _grid(
    visits: Sequence[Visits], dims: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axes ``[GRID]`` over what is visited, and observations ``[GRID * GRID, obs]``, x fastest."""
    axes = []
    for d in dims:
        # Each actor's own range: the one with fewer steps counts as much.
        ends = [np.quantile(each.obs[:, d], (0.01, 0.99)) for each in visits]
        low, high = float(np.min(ends)), float(np.max(ends))
        margin = 0.15 * (high - low) or 0.5
        axes.append(np.linspace(low - margin, high + margin, GRID, dtype=np.float32))
    x, y = axes
    grid = np.tile(np.median(visits[0].obs, 0), (GRID * GRID, 1)).astype(np.float32)
    grid[:, dims[0]], grid[:, dims[1]] = np.tile(x, GRID), np.repeat(y, GRID)
    return x, y, grid


def _heat(ax: Any, x: np.ndarray, y: np.ndarray, values: np.ndarray, low: Any, high: Any) -> Any:
    mesh = ax.pcolormesh(x, y, values, cmap="viridis", vmin=low, vmax=high, rasterized=True)
    if values.min() < 0.0 < values.max():
        ax.contour(x, y, values, [0.0], colors="white", linewidths=0.8, linestyles="--")
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    return mesh


def _label(ax: Any, dims: tuple[int, int], first: bool) -> None:
    ax.set_xlabel(f"obs {dims[0]}")
    if first:
        ax.set_ylabel(f"obs {dims[1]}")
    else:
        ax.set_yticklabels([])


def _liveliest(reward: LearnedReward, episodes: list[Episode]) -> Episode:
    """The episode along which g varies most: there is most to see."""
    return max(episodes, key=lambda episode: float(np.std(_g(reward, episode))))


def _g(reward: LearnedReward, episode: Episode) -> np.ndarray:
    return reward.g(episode.observations[:-1], reward.spec.decode_action(episode.actions))


def _slopes(reward: LearnedReward, episode: Episode) -> np.ndarray:
    action = reward.spec.decode_action(episode.actions)
    return reward.sensitivity(episode.observations[:-1], action)


def _some(rows: np.ndarray) -> np.ndarray:
    """At most ``POINTS`` of them, evenly."""
    return rows[_spread(len(rows), POINTS)]


def _spread(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Any, Any]:
    # Here, not on top: it takes a second to load, and not every command draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.ravel(figure.subplots(rows, columns))
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes
