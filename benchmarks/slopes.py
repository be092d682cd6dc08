"""Whose slope in the action is right: the critics', the model's, beside the true dynamics'.

    python benchmarks/slopes.py RUN [--horizons 1 3 5] [--states 100] [--out FILE]

For a run of ``mairl train`` with continuous actions, in an environment that can be put back to a
state. At states of the policy's own episodes: the slope, in the action taken there, of what it is
judged by: H steps of the learned reward and then the critics' minimum, through the learned model
(the ensemble's mean) and in the environment itself (central differences of ``--difference``, both
sides from the same state, later actions the policy's). H = 0 is the critics alone. And how far two
critics agree, who have learned the same from different first weights: about the slope in the
action, and about the slope in the state.

Agreement is the mean cosine over states. Nothing is learned; the true reward is not used.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from improvement import SEED, judged

from mairl import variance
from mairl.envs.restoring import Simulator
from mairl.types import Transition


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """The mean over rows of the cosine between ``x`` and ``y``, both ``[n, size]``."""
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return float(np.mean(np.sum(x * y, -1) / np.maximum(lengths, 1e-9)))


def length(x: np.ndarray) -> float:
    """Root mean square length of rows."""
    return float(np.sqrt(np.mean(np.sum(x**2, -1))))


def earned(snapshot: variance.Snapshot, steps: Transition, mask: np.ndarray) -> np.ndarray:
    """What true steps ``[horizon, n, ...]`` in the environment's units are worth, ``[n]``."""
    p = snapshot.problem
    assert p.value is not None
    steps = snapshot.normalizer.transition(jax.tree.map(jnp.asarray, steps))
    rewards = p.reward(steps) + p.gamma * steps.terminated * p.reward.end_value(steps)
    discount = p.gamma ** jnp.arange(len(mask))[:, None]
    last = steps.next_obs[-1]
    alive = mask[-1] * (1.0 - steps.terminated[-1])
    final = p.value.lower(last, snapshot.policy.mode(last))
    return np.asarray(jnp.sum(discount * mask * rewards, 0) + p.gamma ** len(mask) * alive * final)


def main() -> None:
    """Measure one run and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--horizons", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--states", type=int, default=100)
    parser.add_argument("--difference", type=float, default=0.1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if min(options.horizons) < 1:
        parser.error("--horizons: H = 0 is measured anyway; name horizons of 1 or more")
    snapshot = variance.load_snapshot(options.run)
    if snapshot.spec.discrete or snapshot.problem.value is None:
        parser.error(f"{options.run}: actions must be continuous, and critics learned")
    critics = snapshot.problem.value

    def mode(obs: np.ndarray) -> np.ndarray:
        return np.asarray(snapshot.policy.mode(snapshot.normalizer.normalize(jnp.asarray(obs))))

    with Simulator(snapshot.spec, options.states) as simulator:
        visits = simulator.visit(lambda obs, _: mode(obs), 1000, SEED)
        if not simulator.restorable(visits):
            parser.error(f"{snapshot.spec.env_id} cannot be put back to a state")
        rows = np.random.default_rng(0).choice(len(visits), options.states, replace=False)
        starts = [visits[row].snapshot for row in rows]
        raw = np.stack([start.obs for start in starts])
        obs, action = snapshot.normalizer.normalize(jnp.asarray(raw)), jnp.asarray(mode(raw))

        def true_slope(horizon: int) -> np.ndarray:
            found = np.zeros(action.shape)
            for d in range(action.shape[1]):
                sides = []
                for sign in (1.0, -1.0):
                    first = np.array(action)
                    first[:, d] = np.clip(first[:, d] + sign * options.difference, -1.0, 1.0)
                    act = lambda now, t, first=first: mode(now) if t else first  # noqa: E731
                    branch = simulator.branch(act, starts, horizon)
                    sides.append((earned(snapshot, *branch), first[:, d]))
                (up, above), (down, below) = sides
                found[:, d] = (up - down) / (above - below)
            return found

        slope = lambda f, x: np.asarray(jax.grad(lambda x: jnp.sum(f(x)))(x))  # noqa: E731
        model = {
            h: slope(lambda a, h=h: judged(snapshot, obs, a, h), action)
            for h in [0, *options.horizons]
        }
        true = {h: true_slope(h) for h in options.horizons}
    actions = [slope(lambda a, i=i: critics(obs, a)[i], action) for i in (0, 1)]
    states = [slope(lambda o, i=i: critics(o, action)[i], obs) for i in (0, 1)]
    found: dict[str, Any] = {"about": snapshot.about}
    found["two_critics"] = {"in_action": cosine(*actions), "in_state": cosine(*states)}
    found["critics_and_true"] = {f"H={h}": cosine(model[0], true[h]) for h in true}
    found["model_and_true"] = {f"H={h}": cosine(model[h], true[h]) for h in true}
    found["true_and_true"] = {
        f"H={a} and {b}": cosine(true[a], true[b]) for a in true for b in true if a < b
    }
    found["length"] = {
        "critics": length(model[0]),
        "model": {f"H={h}": length(model[h]) for h in true},
        "true": {f"H={h}": length(true[h]) for h in true},
    }
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
