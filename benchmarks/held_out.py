"""Does the reward know the way between the demonstrations, do the critics, does the policy?

    python benchmarks/held_out.py RUN [--out FILE]

For a run of ``mairl train`` on shipped demonstrations with continuous actions: what the learned
reward pays for expert episodes that the run was not given, for those that it was, and for the
policy's own; what its critics say of the same steps; and how far the policy's actions are from the
expert's there. Where the reward pays the expert more than the policy, the reward is not what the
policy falls short by. The critics' word on the expert's actions over the policy's own should be
that of one step and the critics after it (``better``, ``better_by_a_step``; its mean tells whose
rewards are larger: the performance difference lemma, Kakade and Langford 2002, lemma 6.1).

Nothing is learned; the true reward is not used.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mairl import demos, rundir, variance
from mairl.envs.recording import record
from mairl.types import Transition

SEED = 91_000
STEPS = 3000


def judge(snapshot: variance.Snapshot, episode: Transition, goes_on: bool) -> dict[str, float]:
    """Means over an episode ``[n, ...]`` in the environment's units.

    ``earned`` is the discounted learned reward from each step on. After the last one it is what
    the end is worth or, where the episode ``goes_on``, what the critics say; the last steps, for
    which that matters, count in none of the means.
    """
    p = snapshot.problem
    assert p.value is not None
    steps = snapshot.normalizer.transition(jax.tree.map(jnp.asarray, episode))
    reward = np.asarray(p.reward(steps))
    chosen = snapshot.policy.mode(steps.obs)
    critics = np.asarray(p.value.lower(steps.obs, steps.action))
    own = np.asarray(p.value.lower(steps.obs, chosen))
    after = np.array(p.value.lower(steps.next_obs, snapshot.policy.mode(steps.next_obs)))
    if not goes_on:
        after[-1] = p.reward.end_value(steps)[-1]
    earned, worth = np.zeros(len(reward)), float(after[-1])
    for t in reversed(range(len(reward))):
        worth = reward[t] + p.gamma * worth
        earned[t] = worth
    # gamma^n = 1 %.
    counted = slice(0, max(1, len(reward) - round(np.log(0.01) / np.log(p.gamma))))
    apart = np.sqrt(np.mean((np.asarray(chosen) - np.asarray(steps.action)) ** 2, -1))
    return {
        "reward": float(reward[counted].mean()),
        "earned": float(earned[counted].mean()),
        "critics": float(critics[counted].mean()),
        "critics_of_own_action": float(own[counted].mean()),
        "better": float((critics - own)[counted].mean()),
        "better_by_a_step": float((reward + p.gamma * after - own)[counted].mean()),
        "actions_apart": float(apart[counted].mean()),
    }


def means(parts: list[dict[str, float]]) -> dict[str, float]:
    """The mean over episodes of each figure."""
    return {name: round(float(np.mean([p[name] for p in parts])), 3) for name in parts[0]}


def main() -> None:
    """Measure one run and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    snapshot = variance.load_snapshot(options.run)
    if snapshot.spec.discrete or snapshot.problem.value is None:
        parser.error(f"{options.run}: actions must be continuous, and critics learned")
    config = rundir.read_json(Path(options.run) / "config.json")["config"]
    shown = demos.find_demonstrations(config["demos"], snapshot.spec)
    given = demos.subsample(shown, config["episodes"], config["every"], config["seed"])
    rows = {obs.tobytes() for obs in given.transition.obs}

    def mode(obs: np.ndarray, _: int) -> np.ndarray:
        return np.asarray(snapshot.policy.mode(snapshot.normalizer.normalize(jnp.asarray(obs))))

    own = record(mode, snapshot.spec, STEPS, SEED)
    found: dict[str, Any] = {"about": snapshot.about, "every": config["every"]}
    found["policy"] = means([judge(snapshot, e.transitions, not e.terminated) for e in own])
    parts: dict[str, list[dict[str, float]]] = {"given": [], "held_out": []}
    for trajectory in shown.trajectories:
        obs = trajectory.observations
        ended = np.zeros(len(trajectory), np.float32)
        ended[-1] = trajectory.terminated
        steps = Transition(obs[:-1], trajectory.actions, obs[1:], ended)
        name = "given" if any(row.tobytes() in rows for row in obs) else "held_out"
        parts[name].append(judge(snapshot, steps, not trajectory.terminated))
    found |= {name: means(some) for name, some in parts.items() if some}
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
