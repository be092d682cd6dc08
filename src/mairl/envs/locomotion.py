"""Gymnasium's Hopper, HalfCheetah and Walker2d under other physics, by factors."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

from mairl.envs.edited import EditedModel, compiled, mujoco, scale_geom, set_gear


class Shifted(EditedModel):
    """Factors on what the task's own file says; all 1 is Gymnasium's task itself.

    ``gravity``; ``friction``: of every contact; ``mass``: of every body, shapes unchanged;
    ``gear``: torque per unit of action; ``leg_length``: all segments below the torso, feet
    included, at the same thickness and density. With other legs the torso starts as far from
    the ground as they carry it, and heights are observed relative to that: standing reads the
    same, and a fall is the same drop.
    """

    def __init__(
        self,
        gravity: float = 1.0,
        friction: float = 1.0,
        mass: float = 1.0,
        gear: float = 1.0,
        leg_length: float = 1.0,
        **kwargs: Any,
    ):
        """Other arguments go to Gymnasium's environment."""
        self._factors = {
            "gravity": gravity,
            "friction": friction,
            "mass": mass,
            "gear": gear,
            "leg_length": leg_length,
        }
        for name, factor in self._factors.items():
            least = factor >= 0.0 if name in ("gravity", "friction") else factor > 0.0
            if not (np.isfinite(factor) and least):
                raise gym.error.Error(f"{name} is {factor}; give a finite factor above 0")
        super().__init__(**kwargs)

    def edit(self, model: Any) -> None:
        """Apply the factors."""
        factors = self._factors
        model.option.gravity = model.option.gravity * factors["gravity"]
        # HalfCheetah's file sets the total mass, whatever the densities.
        if model.compiler.settotalmass > 0.0:
            model.compiler.settotalmass *= factors["mass"]
        for geom in model.geoms:
            geom.friction = geom.friction * factors["friction"]
            geom.density *= factors["mass"]
        for actuator in model.actuators:
            set_gear(actuator, actuator.gear[0] * factors["gear"])
        if factors["leg_length"] != 1.0:
            self._lengthen(model, factors["leg_length"])

    def _lengthen(self, model: Any, factor: float) -> None:
        torso = model.body("torso")
        before = _lowest(model)
        legs = [body for body in model.bodies if body not in (model.worldbody, torso)]
        for body in legs:
            if body.parent != torso:
                body.pos = body.pos * factor
            for joint in body.joints:
                joint.pos = joint.pos * factor
            for geom in body.geoms:
                scale_geom(geom, factor)
        torso.pos = torso.pos + np.array([0.0, 0.0, before - _lowest(model)])


def _lowest(model: Any) -> float:
    """The lowest point of the capsules in the initial pose."""
    made = compiled(model.copy())
    data = mujoco.MjData(made)
    mujoco.mj_kinematics(made, data)
    capsules = made.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE
    radius, half = made.geom_size[capsules, 0], made.geom_size[capsules, 1]
    upright = np.abs(data.geom_xmat[capsules, 8])  # z of the capsule's axis
    return float(np.min(data.geom_xpos[capsules, 2] - half * upright - radius))


class ShiftedHopper(Shifted, HopperEnv):
    """Hopper-v5, shifted."""


class ShiftedHalfCheetah(Shifted, HalfCheetahEnv):
    """HalfCheetah-v5, shifted."""


class ShiftedWalker2d(Shifted, Walker2dEnv):
    """Walker2d-v5, shifted."""
