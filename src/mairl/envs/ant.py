"""The ant of Fu et al. (2018), and the same ant with two legs disabled."""

from typing import Any

from gymnasium.envs.mujoco.ant_v5 import AntEnv

from mairl.envs.edited import EditedModel, scale_geom, set_gear

GEAR, DISABLED_GEAR = 30.0, 1.0
SHORTENED = 0.5
"""Thigh and shin of a disabled leg, as a share of their length."""


class CustomAnt(EditedModel, AntEnv):
    """Gymnasium's ant with weaker motors (gear 30, not 150), which flips less and learns faster.

    ``disabled`` halves both front legs and leaves their motors a gear of 1. Reward: forward
    velocity - 0.01 |action|^2 - 0.0005 |contact forces|^2 - 1 while flipped. Never terminates.
    Observations are those of Ant-v5 without contact forces (27 numbers).
    """

    def __init__(self, disabled: bool = False, **kwargs: Any):
        """Other arguments go to Gymnasium's AntEnv."""
        self._disabled = disabled
        published: dict[str, Any] = {
            "ctrl_cost_weight": 0.01,
            "terminate_when_unhealthy": False,
            "include_cfrc_ext_in_observation": False,
        }
        super().__init__(**{**published, **kwargs})

    @property
    def healthy_reward(self) -> float:
        """-1 while the torso is below its lowest healthy height: the ant has flipped."""
        return -1.0 if self.data.qpos[2] < self._healthy_z_range[0] else 0.0

    def edit(self, model: Any) -> None:
        """Weaken the motors; disable the front legs."""
        for actuator in model.actuators:
            front = actuator.target in ("hip_1", "ankle_1", "hip_2", "ankle_2")
            set_gear(actuator, DISABLED_GEAR if self._disabled and front else GEAR)
        if self._disabled:
            for name in ("aux_1", "aux_2"):
                thigh = model.body(name)
                (shin,) = thigh.bodies
                shin.pos = shin.pos * SHORTENED
                for geom in (*thigh.geoms, *shin.geoms):
                    scale_geom(geom, SHORTENED)
