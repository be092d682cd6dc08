"""The settings of MAIRL and its presets."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeVar

import jax
from jaxtyping import Array, Key

from mairl.types import EnvSpec, MairlError

T = TypeVar("T")

LARGE_OBSERVATION = 128
"""Where more numbers than these are observed (of Gymnasium's robots, Humanoid's alone), other
settings learn (docs/method.md)."""

WELL_SHOWN = 8
"""Demonstrated transitions for each observed number, from which on the discount is 0.99
(docs/method.md)."""


@dataclass(frozen=True)
class DynamicsConfig:
    """The learned model F(s, a)."""

    kind: Literal["tokens", "window", "released", "mlp", "gru"] = "mlp"
    """Attention over tokens, over past steps, as released; or a plain network, or a GRU."""
    width: int = 256
    """Features between layers."""
    depth: int = 2
    """Layers."""
    members: int = 4
    """Models in the ensemble; they share each batch of a rollout."""
    steps: int = 1
    """Gradient steps per iteration."""
    batch_size: int = 64
    """Transitions per member and gradient step; demonstrations have their share of all, half at
    most."""
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class RewardConfig:
    """The learned reward f and the discriminator made of it."""

    hidden: tuple[int, ...] = (128, 128)
    state_only: bool = False
    """g sees the observation alone, so that the reward transfers to other dynamics."""
    shaping: bool = False
    """Add gamma * h(next_obs) - h(obs) to g."""
    expected: bool = False
    """While f is learned, next_obs is where the model expects to arrive, not where chance led."""
    log_prob: bool = False
    """Logit f - log pi (AIRL's) instead of f."""
    learning_rate: float = 1e-4
    gradient_penalty: float | None = None
    """Weight of (|gradient of f| - slope)^2 between demonstrations and policy, in proportion less
    for fewer than 16 observed and acted numbers. None: 0.5, but 5 where more than 128 are
    observed ..."""
    slope: float = 0.0
    """... with this slope."""
    expert_weight: float = 0.5
    """Weight of the demonstrations in the discriminator's loss."""
    imagined: float = 0.5
    """Share of the negatives that the current policy makes in the model; 0 for none."""
    imagined_horizon: int = 1
    """Steps of those rollouts."""
    imagined_demonstrated: bool = False
    """They start at demonstrated states alone, not also at replayed ones."""
    bound: float = 5.0
    """The policy sees bound * tanh(f / bound) ..."""
    softplus: float = 2.5
    """... and of that the softplus of this width; 0 for none."""
    dropout: float = 0.0


@dataclass(frozen=True)
class PolicyConfig:
    """The policy and how it climbs."""

    hidden: tuple[int, ...] = (128, 128)
    horizon: int | None = None
    """Steps through the model that the gradient takes; 0 leaves it to the value. None: 3, but 5
    where an action has more than three numbers, and 0 where it is discrete or more than 128
    numbers are observed."""
    anchored: bool = False
    """Follow the newest real steps instead of imagined ones."""
    learning_rate: float = 1e-4
    temperature: float = 0.1
    """Weight of the entropy, at first and at most."""
    temperature_rate: float = 3e-4
    """Learning rate of the temperature; 0 keeps it."""
    cloning: float = 0.5
    """What a unit of the cloning loss costs, as a reward of every step; 0 for no cloning."""
    target_entropy: float = -2.0
    """Nats per action dimension (discrete: a fifth of the largest entropy)."""
    dropout: float = 0.0


@dataclass(frozen=True)
class ValueConfig:
    """The critics."""

    hidden: tuple[int, ...] = (128, 128)
    members: int = 2
    steps: int = 2
    """Gradient steps per iteration; 0 for no value at all."""
    learning_rate: float = 3e-4
    tau: float = 0.005
    """Polyak rate of the target."""
    horizon: int = 0
    """Steps of the policy through the model in the target, on average over all shorter ones."""
    candidates: int = 1
    """Replayed transitions from which each of value's and policy's is chosen, those by which the
    critics err more the likelier; 1 for an even draw."""


@dataclass(frozen=True)
class MAIRLConfig:
    """All settings of the algorithm."""

    on_policy: ClassVar[bool] = False
    gamma: float | None = None
    """Discount of one step. None: 0.99, but 0.97 where fewer than 8 transitions are demonstrated
    for each observed number, unless most demonstrated episodes end by themselves."""
    batch_size: int | None = None
    """None: 64, but 128 where actions are discrete. The discriminator has half as many
    demonstrations and half as many replayed transitions."""
    demonstrated: float | None = None
    """Share of demonstrations in the batches of value and policy, and among the states where the
    policy's negatives are made in the model; the rest is replayed. None: 0.5, but 0.1 where more
    than 128 numbers are observed."""
    iterations: float | None = None
    """Iterations per environment step. None: 2, but 1 where more than 128 numbers are observed."""
    num_envs: int = 1
    collect_steps: int = 50
    """Steps of each environment between two calls of the compiled update."""
    warmup_steps: int = 1000
    """Random steps before learning; they count."""
    warmup_hold: int = 1
    """Steps for which each random action is held."""
    patience: int = 100
    """Training episodes are left for a new one after so many steps in a row that are nothing like
    the demonstrations to the discriminator; 0 for never, where a reset is dear."""
    exploration_noise: float = 0.1
    """Deviation of the noise that is added to continuous actions while collecting, where actions
    go from -1 to 1."""
    replay_size: int = 1_000_000
    decay: float = 0.5
    """Share of the run, at its end, over which reward's and policy's learning rates fall ..."""
    final_rate: float = 0.0
    """... to this share of themselves."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    value: ValueConfig = field(default_factory=ValueConfig)

    def settled(self, spec: EnvSpec, transitions: int, expert_ends: bool) -> "MAIRLConfig":
        """With numbers for what is None.

        ``transitions`` are demonstrated; ``expert_ends`` if most demonstrations end by themselves.

        What goes wrong slowly or rarely must be seen from far away, and so must an end the expert
        makes for; but where little is demonstrated, looking far does harm. Discrete actions are
        left to the critics, which sum over all choices exactly. In many dimensions of action their
        slope is less to be trusted, and more steps of the model pay. Batches of 64 are enough with
        noise while collecting, which discrete actions do not get. Of many observed numbers critics
        learn a few demonstrations by heart, and a model foresees less (docs/method.md).
        """
        large = spec.obs_size > LARGE_OBSERVATION
        far = expert_ends or transitions >= WELL_SHOWN * spec.obs_size
        horizon = 0 if spec.discrete or large else 3 if spec.action_size <= 3 else 5
        return replace(
            self,
            gamma=_given(self.gamma, 0.99 if far else 0.97),
            batch_size=_given(self.batch_size, 128 if spec.discrete else 64),
            demonstrated=_given(self.demonstrated, 0.1 if large else 0.5),
            iterations=_given(self.iterations, 1.0 if large else 2.0),
            reward=replace(
                self.reward,
                gradient_penalty=_given(self.reward.gradient_penalty, 5.0 if large else 0.5),
            ),
            policy=replace(self.policy, horizon=_given(self.policy.horizon, horizon)),
        )

    def check(self) -> None:
        """Check what holds of settled settings together.

        Raises:
            MairlError: numbers that cannot work with one another.
        """
        members = self.dynamics.members
        if not settled(self.policy.horizon) and not self.value.steps:
            raise MairlError(
                "without steps through the model (--policy.horizon, by default 0 where actions are "
                "discrete or many numbers observed) and without a value (--value.steps 0) the "
                "policy has nothing to climb: raise either"
            )
        if settled(self.batch_size) % (2 * members):
            raise MairlError(
                f"--batch-size is {self.batch_size}, half of which is dealt out to {members} "
                f"models (--dynamics.members): give a multiple of {2 * members}"
            )
        if self.policy.anchored and self.value.steps:
            raise MairlError(
                "--policy.anchored follows real steps, on which time limits would count as the end "
                "of all value: give --value.steps 0 with it"
            )
        rows = self.replay_size // self.num_envs
        if self.policy.anchored and settled(self.policy.horizon) > rows:
            raise MairlError(
                f"--policy.horizon is {self.policy.horizon}, more than the {rows} steps of each "
                "environment that are kept (--replay-size)"
            )
        if self.policy.anchored and self.num_envs % members:
            raise MairlError(
                f"--num-envs is {self.num_envs}: real steps are dealt out to {members} models "
                "(--dynamics.members), give a multiple of that"
            )


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def settled(value: T | None) -> T:
    """A number that ``MAIRLConfig.settled`` has chosen."""
    if value is None:
        raise ValueError("a setting is None: call MAIRLConfig.settled first")
    return value


PRESETS: dict[str, MAIRLConfig] = {
    "default": MAIRLConfig(),
    # A reward to carry elsewhere: AIRL's own logit and the maximum-entropy policy it assumes, with
    # which g does not flatten as the policy becomes the expert's (docs/transfer.md). At its
    # temperature no more noise is needed to explore.
    "transferable": MAIRLConfig(
        gamma=0.99,
        batch_size=128,
        exploration_noise=0.0,
        reward=RewardConfig(
            state_only=True,
            shaping=True,
            log_prob=True,
            gradient_penalty=1.0,
            slope=1.0,
            bound=20.0,
            softplus=0.0,
        ),
        policy=PolicyConfig(horizon=0, temperature=1.0, temperature_rate=0.0, cloning=0.0),
    ),
    # The authors' settings (Sun et al. 2021 and their code); docs/departures.md says what differs.
    "paper": MAIRLConfig(
        gamma=0.99,
        batch_size=1024,
        iterations=1 / 70,
        num_envs=7,
        collect_steps=10,
        replay_size=50_000,
        patience=0,
        exploration_noise=0.0,
        decay=0.0,
        dynamics=DynamicsConfig(
            kind="tokens",
            width=128,
            depth=1,
            members=1,
            steps=2,
            batch_size=512,
            learning_rate=1e-4,
        ),
        reward=RewardConfig(
            hidden=(200, 100),
            shaping=True,
            log_prob=True,
            learning_rate=1e-3,
            gradient_penalty=0.0,
            expert_weight=0.8,
            imagined=0.0,
            bound=20.0,
            softplus=0.0,
            dropout=0.25,
        ),
        policy=PolicyConfig(
            hidden=(100, 50),
            horizon=10,
            anchored=True,
            temperature=1.0,
            temperature_rate=0.0,
            cloning=0.0,
            dropout=0.25,
        ),
        value=ValueConfig(steps=0),
    ),
}


def split(key: Key[Array, ""], *names: str) -> dict[str, Key[Array, ""]]:
    """One key for each name."""
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))
