"""MuJoCo tasks whose model is edited between reading and compiling it."""

import importlib
import warnings
from typing import Any

mujoco: Any = importlib.import_module("mujoco")  # It has no types.


class EditedModel:
    """Put before a Gymnasium MuJoCo environment among a task's bases: ``edit`` is called once.

    It changes the model's specification in place; left as it is, the task is Gymnasium's own.
    """

    fullpath: str
    width: int
    height: int

    def edit(self, model: Any) -> None:
        """Change the specification read from the task's own file."""
        raise NotImplementedError

    def _initialize_simulation(self) -> tuple[Any, Any]:
        # Where Gymnasium's MujocoEnv reads and compiles its file.
        specification = mujoco.MjSpec.from_file(self.fullpath)
        self.edit(specification)
        model = compiled(specification)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        return model, mujoco.MjData(model)


def compiled(specification: Any) -> Any:
    """The model of a specification."""
    with warnings.catch_warnings():
        # HalfCheetah's file uses it; there is nothing a user could do about that.
        warnings.filterwarnings("ignore", ".*settotalmass.*")
        return specification.compile()


def set_gear(actuator: Any, gear: float) -> None:
    """Torque of a motor per unit of action."""
    actuator.gear = [gear, *actuator.gear[1:]]


def scale_geom(geom: Any, factor: float) -> None:
    """Scale a capsule's place in its body and its length, not its radius."""
    geom.pos = geom.pos * factor
    geom.fromto = geom.fromto * factor  # NaN where the file gave pos and size instead.
    geom.size = [geom.size[0], geom.size[1] * factor, geom.size[2]]
