"""The project's own tasks, registered with Gymnasium under ``mairl/`` when imported.

Entry points are named, not imported: a task's file is read when the task is made.
"""

import gymnasium as gym


def register_tasks() -> None:
    """Register every task that is not registered yet."""
    for name, (entry_point, steps, kwargs) in _TASKS.items():
        if f"mairl/{name}" not in gym.registry:
            gym.register(
                f"mairl/{name}",
                entry_point=f"mairl.envs.{entry_point}",
                max_episode_steps=steps,
                kwargs=kwargs,
            )


_TASKS = {
    "GridWorld-v0": ("gridworld:GridWorld", 50, {}),
    "PointMazeLeft-v0": ("pointmaze:PointMaze", 100, {"wall": "left"}),
    "PointMazeRight-v0": ("pointmaze:PointMaze", 100, {"wall": "right"}),
    "CustomAnt-v0": ("ant:CustomAnt", 500, {"disabled": False}),
    "DisabledAnt-v0": ("ant:CustomAnt", 500, {"disabled": True}),
    "Hopper-v0": ("locomotion:ShiftedHopper", 1000, {}),
    "HalfCheetah-v0": ("locomotion:ShiftedHalfCheetah", 1000, {}),
    "Walker2d-v0": ("locomotion:ShiftedWalker2d", 1000, {}),
}
"""Name to entry point, time limit and keyword arguments."""
