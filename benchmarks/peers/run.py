"""Run an outside peer as ``mairl train`` would be run, on the same transitions and episodes.

    python benchmarks/peers/run.py Hopper-v5 --peer imitation-gail --episodes 1 \
        --steps 1000000 --seed 0 --out runs/peer

Takes the options of ``mairl train`` that a suite uses. The demonstrations are chosen and thinned
by mairl's own code and handed over as arrays; the peer trains in its own environment (see
``setup``) and plays the evaluation episodes with the reset seeds of mairl's; here they are
normalized and written as a ``result.json``. Nothing can be resumed: ``--resume`` begins anew.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mairl import demos as demonstrations
from mairl import envs, rundir
from mairl.demos import ExpertData
from mairl.envs.gymnasium import episode_seed
from mairl.evaluate import FINAL_EPISODES, Scores
from mairl.types import EnvSpec, MairlError

HERE = Path(__file__).parent
PEERS = {
    "imitation-gail": ("imitation", "gail"),
    "imitation-airl": ("imitation", "airl"),
    "sb3-dac": ("sb3", "dac"),
}
"""Name to (folder, what its train.py calls it)."""


def write_job(path: Path, options: argparse.Namespace, expert: ExpertData, spec: EnvSpec) -> None:
    """What :mod:`peer` describes: the job and the demonstrated transitions."""
    data = expert.transition
    np.savez_compressed(
        path / "expert.npz",
        obs=data.obs,
        action=spec.decode_action(data.action),
        next_obs=data.next_obs,
        terminated=data.terminated.astype(bool),
    )
    parts = range(1, options.evaluations)
    job = {
        "env_id": options.env_id,
        "kind": PEERS[options.peer][1],
        "steps": options.steps,
        "seed": options.seed,
        "evaluate_at": [options.steps * i // options.evaluations for i in parts],
        "eval_seeds": _seeds(options.seed, "eval", options.eval_episodes),
        "final_seeds": _seeds(options.seed, "final", FINAL_EPISODES),
    }
    rundir.write_json(path / "job.json", job)


def _seeds(seed: int, stream: str, episodes: int) -> list[int]:
    return [episode_seed(seed, stream, 0, k) for k in range(episodes)]


def result(
    options: argparse.Namespace, expert: ExpertData, source: str, scores: Scores, seconds: float
) -> dict[str, Any]:
    """A result.json of the peer's metrics.jsonl."""
    lines = (Path(options.out) / "metrics.jsonl").read_text().splitlines()
    evaluations = []
    for line in map(json.loads, lines):
        mean = float(np.mean(line["returns"]))
        evaluations.append(
            {
                "env_steps": line["env_steps"],
                "episodes": len(line["returns"]),
                "return_mean": mean,
                "return_std": float(np.std(line["returns"])),
                "returns": [round(value, 2) for value in line["returns"]],
                "normalized_return": scores.normalized(mean),
                "wall_seconds": line["wall_seconds"],
            }
        )
    last = evaluations[-1]
    return {
        "env_id": options.env_id,
        "algorithm": options.peer,
        "seed": options.seed,
        "demos": {
            "source": source,
            "episodes": expert.episodes,
            "every": expert.every,
            "transitions": len(expert.transition.obs),
        },
        "env_steps": last["env_steps"],
        "wall_seconds": round(seconds, 2),
        **{
            name: last[name]
            for name in ("return_mean", "return_std", "normalized_return", "returns")
        },
        **scores.baselines,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "evaluations": evaluations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("env_id")
    parser.add_argument("--peer", choices=sorted(PEERS), required=True)
    parser.add_argument("--demos")
    parser.add_argument("--out", required=True)
    for name in ("--episodes", "--seed", "--steps"):
        parser.add_argument(name, type=int)
    for name, value in {"--every": 1, "--evaluations": 20, "--eval-episodes": 5}.items():
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    try:
        train(options)
    except MairlError as error:
        print(f"{options.peer}: {error}", file=sys.stderr)
        sys.exit(2)


def train(options: argparse.Namespace) -> None:
    """Prepare, let the peer train, and write the result."""
    folder, _ = PEERS[options.peer]
    python = HERE / folder / ".venv" / "bin" / "python"
    if not python.exists():
        raise MairlError(f"is not set up; run {HERE / 'setup'} {folder}")
    spec = envs.make_spec(options.env_id)
    demos = demonstrations.find_demonstrations(options.demos, spec)
    expert = demonstrations.subsample(demos, options.episodes, options.every, options.seed)
    path = Path(options.out)
    if options.resume:
        shutil.rmtree(path, ignore_errors=True)
    document = {"config": vars(options), "demos": {"sha256": demos.sha256}}
    rundir.RunDirectory(path).begin(document, "the same command with --resume, from the start")
    write_job(path, options, expert, spec)
    scores = Scores(spec, options.seed, demos.expert_return)
    scores.measure_random()
    began = time.perf_counter()
    command = [str(python), str(HERE / folder / "train.py"), str(path)]
    if code := subprocess.run(command).returncode:
        raise MairlError(f"its training ended with exit code {code}; its message is above")
    found = result(options, expert, demos.source, scores, time.perf_counter() - began)
    rundir.write_json(path / "result.json", found)


if __name__ == "__main__":
    main()
