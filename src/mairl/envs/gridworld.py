"""A 5 x 5 grid whose transition probabilities and reward are known exactly."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

MAP = (
    "....G",
    ".~...",
    "...~.",
    ".~...",
    ".....",
)
"""G: reward 1, ~: water, reward -1, elsewhere 0, for each step taken from there."""

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""Left, down, right, up, as Gymnasium's FrozenLake numbers them: (row, column) steps."""

SLIP = 0.1
"""Probability that the step is one of the four, drawn uniformly, instead of the one chosen."""

PIXELS = 32
COLOURS = {".": (238, 238, 232), "~": (110, 160, 210), "G": (120, 190, 120)}
AGENT = (200, 70, 60)


class GridWorld(gym.Env[Any, Any]):
    """Observation: the cell, row by row; actions: left, down, right, up; walls hold one back.

    An episode starts in any cell with equal probability and never terminates: the goal's
    reward is earned as long as one stays. ``P[cell][action]`` lists (probability, next cell,
    reward, terminated) as Gymnasium's toy-text tasks do; ``reward_table`` is the reward of each
    cell. The reward of a step depends on the cell it starts from alone.
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, render_mode: str | None = None):
        """``render_mode``: None, "rgb_array" or "ansi"."""
        self.render_mode = render_mode
        self.shape = len(MAP), len(MAP[0])
        cells = self.shape[0] * self.shape[1]
        self.observation_space = spaces.Discrete(cells)
        self.action_space = spaces.Discrete(len(MOVES))
        worth = {"G": 1.0, "~": -1.0, ".": 0.0}
        self.reward_table = np.array([worth[letter] for row in MAP for letter in row])
        self.P = {
            cell: {action: self._outcomes(cell, action) for action in range(len(MOVES))}
            for cell in range(cells)
        }
        self._cell = 0

    @property
    def transition_matrix(self) -> np.ndarray:
        """p(next cell | cell, action), ``[cells, actions, cells]``."""
        cells = len(self.P)
        matrix = np.zeros((cells, len(MOVES), cells))
        for cell, by_action in self.P.items():
            for action, outcomes in by_action.items():
                for probability, after, *_ in outcomes:
                    matrix[cell, action, after] += probability
        return matrix

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Start in a cell drawn uniformly."""
        super().reset(seed=seed)
        self._cell = int(self.np_random.integers(len(self.P)))
        return self._cell, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move; the reward is that of the cell left behind."""
        outcomes = self.P[self._cell][int(action)]
        drawn = self.np_random.choice(len(outcomes), p=[outcome[0] for outcome in outcomes])
        _, self._cell, reward, terminated = outcomes[drawn]
        return self._cell, reward, terminated, False, {}

    def render(self) -> Any:
        """The map with the agent's cell marked: an image, or text."""
        row, column = divmod(self._cell, self.shape[1])
        if self.render_mode == "ansi":
            rows = [list(text) for text in MAP]
            rows[row][column] = "A"
            return "\n".join("".join(letters) for letters in rows) + "\n"
        if self.render_mode is None:
            return None
        image = np.array([[COLOURS[letter] for letter in text] for text in MAP], np.uint8)
        image = image.repeat(PIXELS, 0).repeat(PIXELS, 1)
        image[::PIXELS] = image[:, ::PIXELS] = 255
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        centre_y, centre_x = (row + 0.5) * PIXELS, (column + 0.5) * PIXELS
        image[(y - centre_y) ** 2 + (x - centre_x) ** 2 < (PIXELS / 3) ** 2] = AGENT
        return image

    def _outcomes(self, cell: int, action: int) -> list[tuple[float, int, float, bool]]:
        probabilities: dict[int, float] = {}
        for taken in range(len(MOVES)):
            share = SLIP / len(MOVES) + (1.0 - SLIP) * (taken == action)
            after = self._neighbour(cell, taken)
            probabilities[after] = probabilities.get(after, 0.0) + share
        reward = float(self.reward_table[cell])
        return [(share, after, reward, False) for after, share in probabilities.items()]

    def _neighbour(self, cell: int, action: int) -> int:
        row, column = divmod(cell, self.shape[1])
        down, right = MOVES[action]
        row = min(max(row + down, 0), self.shape[0] - 1)
        column = min(max(column + right, 0), self.shape[1] - 1)
        return row * self.shape[1] + column
