"""Record a linear controller of dm_control's cartpole-balance, whose observations are a Dict.

dm_control does not go with MuJoCo 4 yet, so this has an environment of its own:

    python -m venv .venv-dm && .venv-dm/bin/pip install . 'shimmy[dm-control]' 'mujoco<4'
    .venv-dm/bin/python benchmarks/dm_suite.py
    .venv-dm/bin/mairl bench benchmarks/dm_suite.toml --out runs/dm_suite
"""

from pathlib import Path
from typing import Any

import numpy as np
from experts import MEASURED, record

TASK = "shimmy:dm_control/cartpole-balance-v0"
GAINS = np.array([0.5, 6.0, 0.7, 1.5])
"""Of place, angle and their speeds."""


def balance(obs: Any) -> np.ndarray:
    """Push towards where it leans."""
    place, cosine, sine = obs["position"]
    state = np.array([place, np.arctan2(sine, cosine), *obs["velocity"]])
    return np.clip([GAINS @ state], -1.0, 1.0).astype(np.float32)


if __name__ == "__main__":
    path = Path(__file__).parent / "demos" / "dm-cartpole-balance.npz"
    record(TASK, balance, 4, path, reset_seeds=range(1000, 1000 + MEASURED))
