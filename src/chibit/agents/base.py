"""What the rest of the house knows of an agent, and the check before each step.

Dimensions: B batch · E episodes rolled out at once · S state_dim · A act_dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from chibit.agents.guard import StepGuard
from chibit.agents.registry import register_agent
from chibit.agents.reward_units import RewardUnits, usual_units
from chibit.core.acting import Policy as Policy
from chibit.core.config import Checked
from chibit.core.errors import DivergenceError, InputError

if TYPE_CHECKING:
    from chibit.agents.stack import AgentStack
    from chibit.core.runtime import Precision, Runtime
    from chibit.data.choices import Choice
    from chibit.data.dataset import DatasetSpec, TrajectoryDataset
    from chibit.data.samplers.windows import WindowSampler
    from chibit.models.decision_transformer import DecisionTransformerModel

_SCHEDULE_SHARE = 0.1
DEFAULT_STEPS = 100_000
"""Of a run; schedules of an agent that is built without one are those of that."""
Batch_co = TypeVar("Batch_co", covariant=True)


def share_of(num_steps: int, share: float) -> int:
    """A share of a run in gradient steps, at least one; 0 for none."""
    return max(1, round(share * num_steps)) if share else 0


class Sampler(Protocol[Batch_co]):
    """Draws batches of one type from a data set; its state makes the draws resumable."""

    dataset: TrajectoryDataset
    """What it draws from."""

    def sample(self) -> Batch_co:
        """Draw the next batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the next draws, as plain data."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        ...


@dataclass(frozen=True)
class AgentState:
    """A snapshot of an agent from which training goes on as if it had never stopped."""

    tensors: dict[str, Tensor]
    """Parameters and buffers of `modules()`, by name."""
    training: dict[str, Any] = field(default_factory=dict)
    """Optimizers, step, generators: what a policy does not need. Only tensors and plain data."""


@dataclass(frozen=True, kw_only=True)
class PolicyStep:
    """One step of a policy as a module of tensors alone, for an ONNX graph."""

    module: nn.Module
    """From raw observations, and what else it takes, to actions."""
    inputs: Mapping[str, Tensor]
    """Examples of its inputs by name, in the order in which it takes them; their first axis is episodes."""
    max_steps: int = 0
    """Most steps in the second axis of every input; 0 where that axis is none of steps."""
    outputs: tuple[str, ...] = ("action",)
    """Names of what it gives."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What else a caller must know, as JSON values."""


class AgentConfig(Checked):
    """Base of every agent's config dataclass; its fields declare their ranges, see `chibit.core.fields`."""

    agent: ClassVar[str]
    """Key of the agent in `AGENTS`."""
    seconds_a_step: ClassVar[float] = 0.02
    """Rough seconds a gradient step on one core of a server CPU, by default settings."""
    seconds_an_episode: ClassVar[float] = 0.1
    """Rough seconds an episode of evaluation."""
    schedules: ClassVar[Mapping[str, int | None]] = {}
    """Fields in gradient steps that are None where the run's length decides: what they are in a long one, at
    most a tenth of others; None is the whole run."""
    filled_in: ClassVar[tuple[str, ...]] = ()
    """Fields besides these that data fill in, or that say how these are; their defaults leave it open."""
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
    def reads_missions(self) -> bool:
        """Whether its agent is told in words what each episode is for."""
        return False

    @property
    def draws_attention(self) -> bool:
        """Whether its agent's `attending` has something to draw."""
        return False

    @property
    def sources(self) -> tuple[str, ...]:
        """Initializers that it reads weights of."""
        return ()

    @property
    def size_class(self) -> tuple[str, ...]:
        """What runs of the method that take equally long have in common."""
        return ()

    @property
    def stack_shape(self) -> AgentConfig | None:
        """The same for all configs whose runs can be one program, see `Agent.stack`; None where none can."""
        return None

    def num_bytes(self, spec: DatasetSpec) -> int:
        """What training will take, from below; what is more than the machine has is never built."""
        return 0

    def rough_seconds_a_step(self, num_steps: int, precision: Precision) -> float:
        """Rough seconds a gradient step, in a run of a length, where no finished run tells."""
        return self.seconds_a_step

    def for_steps(self, num_steps: int) -> AgentConfig:
        """Fill in what is left to the length of the run."""
        most = share_of(num_steps, _SCHEDULE_SHARE)
        left = {name: steps for name, steps in self.schedules.items() if vars(self)[name] is None}
        filled = {name: num_steps if steps is None else min(steps, most) for name, steps in left.items()}
        config: Any = self
        return replace(config, **filled) if left else self

    def asked(self) -> dict[str, Any]:
        """What data and the length of a run fill in, as it is before they do."""
        return {name: vars(self)[name] for name in (*self.schedules, *self.filled_in)}

    def for_other_data(self, asked: Mapping[str, Any] | None = None) -> AgentConfig:
        """The same method, with what data and the length of a run decide left to those of another run.

        Args:
            asked: what `asked` gave when it was chosen, which stays so; None where nobody has kept it: all is
                left open then but schedules of 0, which nothing fills in.
        """
        config: Any = self
        left: dict[str, Any] = {name: None for name in self.schedules if vars(self)[name] != 0}
        left |= {field.name: field.default for field in fields(config) if field.name in self.filled_in}
        known = {name: value for name, value in (asked or {}).items() if name in self.asked()}
        return replace(config, **{**left, **known})

    def chosen(self, dataset: TrajectoryDataset) -> Iterator[Choice]:
        """What the method makes of a data set, for the table at the start of a run."""
        yield from ()

    def reward_units(self, dataset: TrajectoryDataset) -> RewardUnits:
        """What an agent that learns from transitions makes of the rewards of a data set."""
        return usual_units(dataset)

    @property
    def active_schedules(self) -> tuple[str, ...]:
        """Those of `schedules` that do something with the other settings."""
        return tuple(self.schedules)

    @property
    def steps_a_batch(self) -> int:
        """Logged steps that a gradient step learns from, padding included."""
        return self.batch_size

    def as_recorded(self, return_scale: float | None, *, has_unit_bounds: bool) -> AgentConfig:
        """How a run is written down and named: what makes no difference is written as earlier versions did.

        Args:
            return_scale: the paper's, where data are known as its without opening them; else None.
            has_unit_bounds: whether they are known to have bounds of actions of -1 and 1.
        """
        return self

    def in_study(
        self,
        pretrain_steps: int | None,
        text: str,
        language_settings: Mapping[str, Any],
        backbone_learning_rate: float | None,
    ) -> AgentConfig:
        """Take over what a study sets for methods around pre-trained weights; others stay as they are.

        Args:
            pretrain_steps: budget of what is pre-trained on first use; None keeps it.
            text: what to pre-train and to co-train on; empty keeps it.
            language_settings: more fields, where it trains on language too.
            backbone_learning_rate: step size of pre-trained weights; None keeps it.
        """
        return self

    def in_folder(self, folder: Path, where: str) -> AgentConfig:
        """Find what a saved policy's config names beside it; it may name nothing else.

        Args:
            folder: of the policy.
            where: the config, for the message.

        Raises:
            DamagedFileError: if it names something outside the folder.
        """
        return self


class Agent(ABC):
    """Learns from batches of logged steps; owns its networks, optimizers and step count.

    A class that names its config is registered: ``class MyAgent(Agent, config=MyConfig)``.
    """

    label: ClassVar[str]
    """Name for people; that of the class unless given."""
    takes_discrete: ClassVar[bool | None] = None
    """Whether actions must be discrete, or must not; None takes either kind. `make_agent` sees to it."""
    takes_pictures: ClassVar[bool] = True
    """Whether observations may be pictures."""
    action_error_name: ClassVar[str] = "action_error"
    """What `action_error` is called in logs; reports compare those called action_error alone."""

    config: AgentConfig
    """Its hyper-parameters."""
    spec: DatasetSpec
    """What depends on the data."""
    runtime: Runtime
    """Device and precision."""
    step: int
    """Gradient steps taken."""
    asked: Mapping[str, Any] | None = None
    """`AgentConfig.asked` of what its run was begun with; None where that is not known."""
    guard: StepGuard | None = None
    """Where `admit` asks for its steps; None where `update` does that in another way."""

    def __init_subclass__(cls, *, config: type[AgentConfig] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "label" not in vars(cls):
            cls.label = cls.__name__
        if config is not None:
            if not issubclass(config, AgentConfig):
                raise TypeError(f"{cls.__name__}: its config {config.__name__} must inherit AgentConfig")
            register_agent(config, cls)

    @abstractmethod
    def __init__(self, config: Any, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build networks and optimizers for a data set.

        Raises:
            UserError: if the config and the data do not go together.
        """

    @property
    def is_return_conditioned(self) -> bool:
        """Whether `policy` takes target returns."""
        return self.config.takes_target_returns

    @property
    def initializer(self) -> dict[str, Any] | None:
        """Where its first weights come from, for provenance; None where they are drawn at random."""
        return None

    def prepare(self, dataset: TrajectoryDataset) -> TrajectoryDataset:
        """Take in what will be learned from, once, before the first update or after a resume.

        Returns:
            The part of it that batches shall be drawn from.
        """
        return dataset

    @abstractmethod
    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[Any]:
        """Make a sampler of what `update` takes, over all of a data set; the agent stays as it is."""

    def error_sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[Any]:
        """Make a sampler of what `action_error` takes, as `sampler` does of what `update` takes."""
        return self.sampler(dataset, generator)

    def before_first_update(  # noqa: B027 - most do nothing
        self, loaded: Collection[str] = (), *, progress: bool = False
    ) -> None:
        """Do what precedes the updates of a run, once, and not after a resume; it may take long.

        Args:
            loaded: names of the tensors of `modules()` that another run or policy has given.
            progress: show on standard error how long it may take.
        """

    @abstractmethod
    def update(self, batch: Any) -> Mapping[str, float | Tensor]:
        """Take one gradient step.

        Returns:
            Metrics whose names begin with `train/`: numbers, or scalars on the device, for which nobody has
            waited. Nothing of a later step changes them.

        Raises:
            DivergenceError: if a loss or a gradient norm is not finite; the parameters are then as they were.
                Where the device works on its own, `check` raises it, and no step is taken until then.
        """

    def admit(self, rows: Tensor, **values: Tensor) -> None:
        """Ask the guard for the step that is about to be taken, see `StepGuard.admit`."""
        assert self.guard is not None
        self.guard.admit(self.step, rows, **values)
        if self.guard.is_full:
            self.check()

    def check(self) -> None:
        """Wait for the device, and tell of the first step since the last time that was not finite.

        Raises:
            DivergenceError: of that step; parameters and `step` are as they were before it.
        """
        if self.guard is None:
            return
        try:
            self.guard.check()
        except DivergenceError as error:
            assert error.step is not None
            self.step = error.step
            raise

    @abstractmethod
    def action_error(self, batch: Any) -> float:
        """How far the policy's actions are from a batch's; nothing is learned from it.

        Continuous actions: mean squared error in the environment's units. Discrete ones: cross-entropy in
        nats, or for policies without probabilities the share of other actions (`action_error_name`).
        """

    def action_errors(self, batch: Any) -> np.ndarray | None:
        """(A,) mean squared error of each dimension of a batch's actions; None where they are discrete."""
        return None

    @abstractmethod
    def policy(self, target_returns: Sequence[float] | None) -> Policy:
        """Give a policy that acts with the current parameters.

        Args:
            target_returns: what to condition on; `reset(num_envs)` then takes a multiple of their number,
                and episode e gets target e // (num_envs / len(target_returns)). None asks for the data's
                defaults, and is all that an agent which is not return-conditioned takes.
        """

    @property
    def draws_actions(self) -> bool:
        """Whether its policy draws actions at random, unless it is told to be greedy."""
        return False

    def policy_step(self) -> PolicyStep:
        """One step of its policy for an ONNX graph.

        Raises:
            InputError: if it has none.
        """
        raise InputError(f"onnx: {self.label} has no graph; only deterministic policies have")

    def attending(self, dataset: TrajectoryDataset) -> tuple[DecisionTransformerModel, WindowSampler]:
        """The model whose attention may be drawn, and a data set's windows as it sees them.

        Raises:
            InputError: if it has no attention.
        """
        raise InputError(f"agent {self.config.agent} has no attention; give a dt run")

    @abstractmethod
    def modules(self) -> nn.Module:
        """Everything that has parameters, for counting, saving and loading."""

    def acting_modules(self) -> nn.Module:
        """What a policy needs: less than `modules` where something is trained beside it."""
        return self.modules()

    @property
    def acting_config(self) -> AgentConfig:
        """A config that rebuilds `acting_modules`, with what `save_beside` writes and nothing else."""
        return self.config

    def save_beside(self, folder: Path) -> None:  # noqa: B027 - most have nothing to write
        """Write what `acting_config` names into a policy's folder."""

    def stack_obstacle(self, other: Any) -> str | None:
        """What keeps this agent out of a stack that begins with another one, or itself; None if nothing."""
        return f"agent {self.config.agent} trains by itself only"

    @classmethod
    def stack(cls, agents: Sequence[Any]) -> AgentStack:
        """Train agents of this class, all at one step, as one program.

        Raises:
            InputError: naming the first `stack_obstacle`.
        """
        raise InputError(f"stack: {agents[0].stack_obstacle(agents[0])}")

    @abstractmethod
    def state_dict(self) -> AgentState:
        """Snapshot for a checkpoint. Its tensors are the live ones: write them before the next update."""

    @abstractmethod
    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot of an agent with the same config and data; without training, only act."""
