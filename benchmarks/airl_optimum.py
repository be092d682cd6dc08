"""AIRL's optimum in GridWorld, exactly: what its g can be at best, with nothing sampled.

    python benchmarks/airl_optimum.py

The policy is the expert. Minimizes the discriminator's expected loss over tables g and h, with
the potential of the next state that came, or with its expectation, for two discounts.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from experts import GAMMA, TEMPERATURE, soft_values
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

import mairl.envs  # noqa: F401, which registers the task

STEPS = 50


def optimum(
    weight: np.ndarray, log_pi: np.ndarray, table: np.ndarray, gamma: float, expected: bool
):
    """g ``[cells]``; ``weight`` ``[cells, actions, cells]`` is how often a transition is seen."""
    cells = len(table)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        g, h = x[:cells], x[cells:]
        after = table @ h if expected else np.broadcast_to(h, weight.shape)
        after = after[..., None] if expected else after
        logit = (g - h)[:, None, None] + gamma * after - log_pi[:, :, None]
        value = np.sum(weight * (np.logaddexp(0, -logit) + np.logaddexp(0, logit)))
        slope = weight * (2.0 * expit(logit) - 1.0)
        here = slope.sum((1, 2))
        there = np.einsum("sa,sat->t", slope.sum(2), table) if expected else slope.sum((0, 1))
        return value + 1e-9 * x @ x, np.concatenate([here, gamma * there - here]) + 2e-9 * x

    options = {"maxiter": 20_000, "ftol": 1e-15, "gtol": 1e-10}
    start = np.zeros(2 * cells)
    return minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x[:cells]


def main() -> None:
    env: Any = gym.make("mairl/GridWorld-v0").unwrapped
    table, reward = env.transition_matrix, env.reward_table
    log_pi = log_softmax(soft_values(table, reward, GAMMA, TEMPERATURE) / TEMPERATURE, axis=1)
    moves = np.einsum("sa,sat->st", np.exp(log_pi), table)
    now, visits = np.full(len(table), 1.0 / len(table)), np.zeros(len(table))
    for _ in range(STEPS):
        visits, now = visits + now / STEPS, now @ moves
    weight = visits[:, None, None] * np.exp(log_pi)[:, :, None] * table
    for gamma in (0.99, GAMMA):
        for expected in (False, True):
            g = optimum(weight, log_pi, table, gamma, expected)
            kind = "expected" if expected else "that came"
            pearson = np.corrcoef(g, reward)[0, 1]
            print(f"discount {gamma}, potential of the state {kind}: Pearson {pearson:.4f}")


if __name__ == "__main__":
    main()
