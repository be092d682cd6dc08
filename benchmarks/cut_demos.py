"""Cut the shipped demonstration sets from the full ones.

    python benchmarks/cut_demos.py FOLDER [OUT]

FOLDER holds one ``TASK.npz`` per task (25, 10 or 5 episodes each). Kept: the first episodes, as
many as KEEP says, without the simulator's internal states. Added: ``env_id``, and
``expert_return``, the mean over ALL episodes of the full set. OUT defaults to the package's data.
"""

import sys
from pathlib import Path

import numpy as np

KEEP = {
    "Acrobot-v1": 25,
    "Ant-v5": 5,
    "CartPole-v1": 25,
    "HalfCheetah-v5": 10,
    "Hopper-v5": 10,
    "Humanoid-v5": 3,
    "InvertedPendulum-v5": 25,
    "MountainCar-v0": 25,
    "Pendulum-v1": 25,
    "Swimmer-v5": 10,
    "Walker2d-v5": 10,
}
MAX_FILE, MAX_TOTAL = 3_000_000, 7_500_000
PER_STEP = ("actions", "rewards", "terminations", "truncations")
PER_EPISODE = ("episode_lengths", "episode_returns", "seeds")


def cut(source: Path, target: Path, episodes: int) -> None:
    with np.load(source, allow_pickle=False) as full:
        steps = int(full["episode_lengths"][:episodes].sum())
        fields = {"observations": full["observations"][: steps + episodes]}
        fields |= {name: full[name][:steps] for name in PER_STEP}
        fields |= {name: full[name][:episodes] for name in PER_EPISODE}
        fields["env_id"] = np.array(source.stem)
        fields["expert_return"] = np.array(full["episode_returns"].mean())
    np.savez_compressed(target, **fields)
    print(f"{source.stem}: {episodes} episodes, {steps} transitions, {target.stat().st_size} bytes")


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source = Path(sys.argv[1])
    package_data = Path(__file__).resolve().parents[1] / "src" / "mairl" / "demos" / "data"
    target = Path(sys.argv[2]) if len(sys.argv) == 3 else package_data
    for task, episodes in KEEP.items():
        cut(source / f"{task}.npz", target / f"{task}.npz", episodes)
    sizes = [(target / f"{task}.npz").stat().st_size for task in KEEP]
    print(f"total {sum(sizes)} bytes")
    if max(sizes) > MAX_FILE or sum(sizes) > MAX_TOTAL:
        sys.exit("too large to ship: keep fewer episodes in KEEP")


if __name__ == "__main__":
    main()
