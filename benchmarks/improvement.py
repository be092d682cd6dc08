"""Which gradient is to be believed: actions climbed along it, played in the true environment.

    python benchmarks/improvement.py RUN [--horizons 0 1 3 8] [--steps 5] [--rate 0.05] [--out FILE]

For a run of ``mairl train`` with continuous actions. In every step of an episode the policy's
deterministic action is moved ``--steps`` times by ``--rate`` (before squashing) along the gradient
of what it is judged by: H steps of the learned reward through the learned model, then the critics'
minimum. H = 0 is the critics alone. An action that truly is better makes a better episode; where
the episode is worse, the gradient has lied. Beside it, how far the critics' minimum is above what
the policy then earns by the learned reward, on its own episodes.

Nothing is learned, and the true returns are used for nothing but this judgment.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mairl import variance
from mairl.dynamics import mean
from mairl.envs import evaluate_episodes
from mairl.envs.recording import record
from mairl.types import Transition

SEED = 90_000


def judged(
    snapshot: variance.Snapshot,
    obs: Float[Array, "n obs"],
    action: Float[Array, "n action"],
    horizon: int,
) -> Float[Array, " n"]:
    """What ``action`` is worth: ``horizon`` steps in the ensemble's mean, then the critics."""
    p = snapshot.problem
    assert p.value is not None
    worth, alive = jnp.zeros(len(obs)), jnp.ones(len(obs))
    for step in range(horizon):
        prediction = mean(p.dynamics(obs, action))
        next_obs = obs + jnp.broadcast_to(p.delta_scale, obs.shape) * prediction.delta
        ended = jax.nn.sigmoid(prediction.terminated_logit)
        transition = Transition(obs, action, next_obs, ended)
        earned = p.reward(transition) + p.gamma * ended * p.reward.end_value(transition)
        worth = worth + p.gamma**step * alive * earned
        obs, action, alive = next_obs, snapshot.policy.mode(next_obs), alive * (1.0 - ended)
    return worth + p.gamma**horizon * alive * p.value.lower(obs, action)


def climbing(
    snapshot: variance.Snapshot, horizon: int, steps: int, rate: float
) -> Callable[[np.ndarray, int], np.ndarray]:
    """The deterministic policy, its action moved ``steps`` times along the gradient."""

    @jax.jit
    def act(obs):
        obs = snapshot.normalizer.normalize(obs)
        before = jnp.arctanh(jnp.clip(snapshot.policy.mode(obs), -0.995, 0.995))

        def step(x, _):
            gradient = jax.grad(lambda x: jnp.sum(judged(snapshot, obs, jnp.tanh(x), horizon)))(x)
            length = jnp.linalg.norm(gradient, axis=-1, keepdims=True)
            return x + rate * gradient / jnp.maximum(length, 1e-6), None

        return jnp.tanh(jax.lax.scan(step, before, length=steps)[0])

    return lambda obs, _: np.asarray(act(obs))


def bias(snapshot: variance.Snapshot, steps: int) -> dict[str, float]:
    """The critics' minimum and the learned reward that followed, on episodes of the policy."""
    p = snapshot.problem
    assert p.value is not None
    key = jax.random.key(0)
    act = lambda obs, count: snapshot.act(obs, jax.random.fold_in(key, count))  # noqa: E731
    ahead = int(3.0 / (1.0 - p.gamma))
    value, gain = [], []
    for episode in record(act, snapshot.spec, steps, SEED):
        transition = snapshot.normalizer.transition(jax.tree.map(jnp.asarray, episode.transitions))
        q = np.asarray(p.value.lower(transition.obs, transition.action))
        reward = np.asarray(p.reward(transition))
        end = np.asarray(p.reward.end_value(transition))[-1] * p.gamma
        following = reward[-1] + end if episode.terminated else q[-1]
        gains = np.zeros(len(q))
        gains[-1] = following
        for t in range(len(q) - 2, -1, -1):
            gains[t] = reward[t] + p.gamma * gains[t + 1]
        # Where the time limit cut the episode off, the last steps would judge Q by itself.
        last = len(q) if episode.terminated else len(q) - min(ahead, len(q) // 2)
        value.append(q[:last])
        gain.append(gains[:last])
    value, gain = np.concatenate(value), np.concatenate(gain)
    return {
        "value": float(value.mean()),
        "earned": float(gain.mean()),
        "bias_per_step": float((value - gain).mean() * (1.0 - p.gamma)),
        "deviation_of_value": float(value.std()),
        "deviation_of_earned": float(gain.std()),
    }


def main() -> None:
    """Measure one run and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--horizons", type=int, nargs="+", default=[0, 1, 3, 8])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    snapshot = variance.load_snapshot(options.run)
    if snapshot.spec.discrete or snapshot.problem.value is None:
        parser.error(f"{options.run}: actions must be continuous, and critics learned")
    finished = Path(options.run) / "result.json"
    if not finished.exists():
        parser.error(f"{options.run} has not finished; go on with mairl train ... --resume")
    result = json.loads(finished.read_text())
    low, high = result["random_return"], result["expert_return"]

    def score(act) -> dict[str, Any]:
        found = evaluate_episodes(
            act, snapshot.spec.env_id, snapshot.spec, options.episodes, SEED
        ).returns
        normalized = (found - low) / (high - low)
        return {"mean": float(normalized.mean()), "median": float(np.median(normalized))}

    found: dict[str, Any] = {"about": snapshot.about, "steps": options.steps, "rate": options.rate}
    found["critics"] = bias(snapshot, 3 * (snapshot.spec.max_episode_steps or 1000))
    found["policy"] = score(climbing(snapshot, 0, 0, 0.0))
    for horizon in options.horizons:
        found[f"H={horizon}"] = score(climbing(snapshot, horizon, options.steps, options.rate))
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
