"""What the offline loop and the rollout know of an agent, and the check before each step.

Dimensions: B batch · E episodes rolled out at once · S state_dim · A act_dim.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from chibit.core.config import Checked
from chibit.core.errors import DivergenceError

if TYPE_CHECKING:
    from chibit.core.runtime import Runtime
    from chibit.data.trajectory import DatasetSpec, TrajectoryDataset

Batch_co = TypeVar("Batch_co", covariant=True)


class Sampler(Protocol[Batch_co]):
    """Draws batches of one type from a data set; its state makes the draws resumable."""

    dataset: TrajectoryDataset
    """What it draws from: all of the store, or a part that the agent chose."""

    def sample(self) -> Batch_co:
        """Draw the next batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the next draws, as plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        ...


class Policy(Protocol):
    """Acts in E episodes in lockstep."""

    def reset(self, num_envs: int) -> None:
        """Forget everything and begin `num_envs` episodes."""
        ...

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose an action for each episode.

        Args:
            observations: (E, S), as the environment gives them (not normalised); rows of finished
                episodes are ignored.

        Returns:
            (E, A) float32, or (E,) int64 where actions are discrete; rows of finished episodes are
            arbitrary but finite.
        """
        ...

    def observe(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """Take in what the last actions brought.

        Args:
            rewards: (E,) raw rewards; those of finished episodes are ignored.
            dones: (E,) bool, True from the step on which an episode ended.
        """
        ...


@dataclass(frozen=True)
class AgentState:
    """A snapshot of an agent from which training goes on as if it had never stopped."""

    tensors: dict[str, Tensor]
    """Parameters and buffers of `modules()`, by name."""
    training: dict[str, Any] = field(default_factory=dict)
    """Optimizers, step, generators: what a policy does not need. Only tensors and plain data."""


class AgentConfig(Checked):
    """Base of every agent's config dataclass; its fields declare their ranges, see `chibit.core.fields`."""

    agent: ClassVar[str]
    """Key of the agent in `AGENTS`."""
    init: ClassVar[str] = "random"
    """Where a new agent's weights come from; a field of the methods that can start from others."""
    batch_size: int
    """Windows or transitions in a batch."""

    @property
    def arm_name(self) -> str:
        """Name in tables and folders of a run that was given none."""
        return self.agent

    @property
    def takes_target_returns(self) -> bool:
        """Whether a policy of the method is asked for a return."""
        return False

    @property
    def sources(self) -> tuple[str, ...]:
        """Initialisers that it reads weights of."""
        return ()

    def num_bytes(self, spec: DatasetSpec) -> int:
        """What training will take, from below; what is more than the machine has is never built."""
        return 0


class Agent(ABC):
    """Learns from batches of logged steps; owns its networks, optimizers and step count."""

    batch_type: ClassVar[type]
    """SequenceBatch or TransitionBatch."""
    config: Any
    """Of the config class that is registered with it."""
    initialiser: Mapping[str, Any] | None = None
    """Where weights came from that were not drawn, for the run's provenance."""
    wrapped_config: Any = None
    """Configuration of a model of `transformers` that the agent is built around; None where there is none."""

    def __init__(self, config: AgentConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build networks and optimizers for a data set; every agent is made with these three."""
        self.config, self.spec, self.runtime = config, spec, runtime

    @property
    def is_return_conditioned(self) -> bool:
        """Whether `policy` takes target returns."""
        return bool(self.config.takes_target_returns)

    @abstractmethod
    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[Any]:
        """Make a sampler of `batch_type` over a data set, drawing from `generator`."""

    @abstractmethod
    def update(self, batch: Any) -> dict[str, float]:
        """Take one gradient step.

        Returns:
            Metrics whose names begin with `train/`.

        Raises:
            DivergenceError: if a loss or a gradient norm is not finite; the parameters are then as they were.
        """

    @abstractmethod
    def policy(self, target_returns: Sequence[float] | None) -> Policy:
        """Give a policy that acts with the current parameters.

        Args:
            target_returns: what to condition on; `reset(num_envs)` then takes a multiple of their number,
                and episode e gets target e // (num_envs / len(target_returns)). None asks for the data's
                defaults, and is all that an agent which is not return-conditioned takes.
        """

    @abstractmethod
    def modules(self) -> nn.Module:
        """Everything that has parameters, for counting, saving and loading."""

    @abstractmethod
    def state_dict(self) -> AgentState:
        """Snapshot for a checkpoint. Its tensors are the live ones: write them before the next update."""

    @abstractmethod
    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot of an agent with the same config and data."""

    def acting_modules(self) -> nn.Module:
        """What a policy needs of `modules`, where something is trained beside it."""
        return self.modules()

    @property
    def acting_config(self) -> Any:
        """A config that rebuilds `acting_modules` without an initialiser's source."""
        return self.config


@dataclass(frozen=True)
class AgentEntry:
    """A line of the registry."""

    config: type
    """Config dataclass; its `agent` is the key."""
    agent: type
    """Subclass of `Agent`, built as `agent(config, spec, runtime)`."""

    def __post_init__(self) -> None:
        if not issubclass(self.agent, Agent) or not issubclass(self.config, AgentConfig):
            raise TypeError(f"{self.agent.__name__}, {self.config.__name__}: inherit Agent and AgentConfig")

    @property
    def summary(self) -> str:
        """The first line of the class's docstring; empty where it has none."""
        return next(iter((self.agent.__doc__ or "").strip().splitlines()), "")


def require_finite(step: int, rows: Tensor, **values: float) -> None:
    """Stop before a step that would spoil the parameters.

    Args:
        step: steps taken so far, for the message.
        rows: (B,) rows of the data set that the batch was drawn from; the error carries them as `rows`.
        values: losses and gradient norms by name.

    Raises:
        DivergenceError: if a value is NaN or infinite.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            error = DivergenceError(
                f"{name} is {value} at step {step}, expected a finite number; lower the learning rate, "
                "or look at the data"
            )
            error.rows = tuple(rows.tolist())
            raise error
