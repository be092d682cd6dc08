"""Signs of trouble in a run's metrics, in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Lines = Sequence[Mapping[str, Any]]

LATELY = 10
"""Log lines (of some 200 in a run) over which a sign must last."""


def alarms(lines: Lines, expert_length: float) -> list[str]:
    """What looks wrong now. ``lines`` are those of metrics.jsonl, oldest first."""
    lines = [line for line in lines if not any(name.startswith("eval/") for name in line)]
    signs = (
        _reward_too_strong(lines),
        _reward_constant(lines),
        _model_error(lines),
        _entropy(lines),
        _shorter(lines, expert_length),
    )
    return [sign for sign in signs if sign]


def _reward_too_strong(lines: Lines) -> str | None:
    expert, policy = (
        _recent(lines, f"reward/accuracy_{side}", LATELY) for side in ("expert", "policy")
    )
    if len(expert) < LATELY or min(*expert, *policy) <= 0.99:
        return None
    return (
        "The reward model tells expert from policy nearly always (over 99 % on both sides): it "
        "gives the policy little to climb. Raise --reward.gradient-penalty or lower "
        "--reward.learning-rate."
    )


def _reward_constant(lines: Lines) -> str | None:
    expert, policy = (
        _recent(lines, f"reward/{side}_mean", LATELY) for side in ("expert", "policy")
    )
    if len(expert) < LATELY or np.max(np.abs(expert - policy)) >= 0.01:
        return None
    return (
        "The reward is the same for expert and policy. If the evaluation return is near the "
        "expert's, all is well; if not, the reward has learned nothing: raise "
        "--reward.learning-rate or lower --reward.gradient-penalty."
    )


def _model_error(lines: Lines) -> str | None:
    errors = _recent(lines, "dynamics/squared_error", len(lines))
    if len(errors) < 2 * LATELY:
        return None
    smooth = np.convolve(errors, np.full(5, 0.2), "valid")
    now, best, worst = smooth[-1], smooth.min(), smooth.max()
    # Below half of its worst it is learning what was new, such as a wall nobody had hit before.
    if now < 0.1 or now < 10.0 * best or now < 0.5 * worst:
        return None
    return (
        f"The model's error has grown {now / best:.0f}-fold from its best: the policy is where "
        "the model knows nothing. Lower --dynamics.learning-rate or the rollouts' length."
    )


def _entropy(lines: Lines) -> str | None:
    entropy = _recent(lines, "policy/entropy", LATELY)
    floor = _recent(lines, "policy/target_entropy", LATELY)
    if len(entropy) < LATELY or len(floor) < LATELY:
        return None
    if np.max(entropy - floor) >= -0.5 * (1.0 + np.abs(floor).max()):
        return None
    return (
        f"The policy hardly varies its actions any more (entropy {entropy[-1]:.2f}, meant to be "
        f"{floor[-1]:.2f}): it has stopped exploring. Raise --policy.temperature-rate."
    )


def _shorter(lines: Lines, expert_length: float) -> str | None:
    lengths = _recent(lines, "rollout/ep_len_mean", len(lines))
    if len(lengths) < 2 * LATELY:
        return None
    now, best = lengths[-5:].mean(), np.convolve(lengths, np.full(5, 0.2), "valid").max()
    # Where experts finish early, getting shorter is getting better.
    if now >= 0.5 * best or now >= 0.5 * expert_length:
        return None
    return (
        f"Training episodes got shorter: {now:.0f} steps, after {best:.0f} before (the expert's "
        f"have {expert_length:.0f}). The policy is unlearning to stay alive; lower "
        "--policy.learning-rate."
    )


def _recent(lines: Lines, name: str, count: int) -> np.ndarray:
    found = [value for line in lines if (value := line.get(name)) is not None]
    return np.array(found[-count:] if count else [], float)
