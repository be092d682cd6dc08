"""What the training loop is told by algorithms that take no step in the environment."""

from typing import ClassVar


class Offline:
    """Base of such settings: one update, no collecting; ``gamma`` is then nobody's."""

    gamma: ClassVar[float] = 0.99
    num_envs: ClassVar[int] = 1
    warmup_steps: ClassVar[int] = 0
    warmup_hold: ClassVar[int] = 1
    patience: ClassVar[int] = 0
    collect_steps: ClassVar[int] = 0
    replay_size: ClassVar[int] = 1
    on_policy: ClassVar[bool] = False

    def check(self) -> None:
        """Nothing that does not hold of each setting by itself."""
