"""The point maze of Fu et al. (2018): a goal behind a wall that can be passed on one side only."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.utils import EzPickle

from mairl.envs.edited import EditedModel, mujoco

BOUNDS = (-0.1, 0.6)
"""Outer walls, both axes, in metres."""
WALL = {"left": (-0.1, 0.4), "right": (0.2, 0.6)}
"""From where to where the inner wall reaches in x; it stands at y = 0.3."""
START, TARGET = (0.3, 0.0), (0.3, 0.5)


class PointMaze(EditedModel, MujocoEnv, EzPickle):
    """Observation: position (x, y) in metres; action: force in x and y.

    ``wall`` says at which side the inner wall stands, so one passes on the other, as in the
    published ids; ``self.wall`` is its two ends in x. ``velocity`` adds (vx, vy) to the
    observation, which makes it the whole state; published without. Reward: -distance to the
    target - 0.001 |action|^2, of the position before the step. Never terminates.
    """

    metadata = {  # noqa: RUF012, as Gymnasium has it
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": 20,
    }

    def __init__(
        self, wall: Literal["left", "right"] = "left", velocity: bool = False, **kwargs: Any
    ):
        """Other arguments, such as ``render_mode``, go to Gymnasium's MujocoEnv."""
        EzPickle.__init__(self, wall, velocity, **kwargs)
        self.wall, self._velocity = WALL[wall], velocity
        space = spaces.Box(-np.inf, np.inf, (4 if velocity else 2,), np.float64)
        file = str(Path(__file__).with_suffix(".xml").resolve())
        MujocoEnv.__init__(
            self, file, 5, observation_space=space, **{"camera_name": "above", **kwargs}
        )

    def edit(self, model: Any) -> None:
        """Put up the inner wall."""
        west, east = self.wall
        model.worldbody.add_geom(
            name="wall",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[west, 0.3, 0.0, east, 0.3, 0.0],
            size=[0.02, 0.0, 0.0],
            rgba=[0.35, 0.4, 0.5, 1.0],
        )

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Apply the force for 0.05 s."""
        distance = float(np.linalg.norm(self._position() - TARGET))
        effort = float(np.sum(np.square(action)))
        self.do_simulation(action, self.frame_skip)
        if self.render_mode == "human":
            self.render()
        return self._observe(), -distance - 0.001 * effort, False, False, {"distance": distance}

    def reset_model(self) -> np.ndarray:
        """At the start, with a small random velocity."""
        speed = self.np_random.uniform(-0.01, 0.01, self.model.nv)
        self.set_state(self.init_qpos, self.init_qvel + speed)
        return self._observe()

    def _position(self) -> np.ndarray:
        return self.data.qpos + START

    def _observe(self) -> np.ndarray:
        velocity = [self.data.qvel] if self._velocity else []
        return np.concatenate([self._position(), *velocity])
