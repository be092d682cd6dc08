"""Learn a policy and a reward from expert demonstrations, through a learned model.

>>> import mairl
>>> run = mairl.train(mairl.TrainConfig("Hopper-v5", episodes=1))  # doctest: +SKIP
>>> action, _ = run.model.predict(obs)  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mairl.algorithms.mairl import MAIRLConfig as MAIRLConfig
    from mairl.interrupts import Interrupted as Interrupted
    from mairl.job import TrainConfig as TrainConfig
    from mairl.learned_reward import LearnedReward as LearnedReward
    from mairl.learner import Diverged as Diverged
    from mairl.model import Model as Model
    from mairl.model import load as load
    from mairl.ranking import RankConfig as RankConfig
    from mairl.ranking import rank as rank
    from mairl.training import Run as Run
    from mairl.training import train as train
    from mairl.transfer import TransferConfig as TransferConfig
    from mairl.transfer import transfer as transfer
    from mairl.types import EnvSpec as EnvSpec
    from mairl.types import MairlError as MairlError
    from mairl.types import Transition as Transition

_HOME = {
    "MAIRLConfig": "mairl.algorithms.mairl",
    "Model": "mairl.model",
    "load": "mairl.model",
    "Diverged": "mairl.learner",
    "LearnedReward": "mairl.learned_reward",
    "Interrupted": "mairl.interrupts",
    "RankConfig": "mairl.ranking",
    "rank": "mairl.ranking",
    "Run": "mairl.training",
    "TrainConfig": "mairl.job",
    "train": "mairl.training",
    "TransferConfig": "mairl.transfer",
    "transfer": "mairl.transfer",
    "EnvSpec": "mairl.types",
    "MairlError": "mairl.types",
    "Transition": "mairl.types",
}
__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    # On first use, so that `mairl --help` and reading demonstrations need no compiler.
    if name == "__version__":
        from importlib.metadata import version

        return version("mairl")
    if name not in _HOME:
        raise AttributeError(f"module 'mairl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
