"""What a run is: data, agent, budget, evaluation, seed. One dataclass for every agent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from annotated_types import Interval, MinLen

from chibit.agents import AGENTS, Agent, AgentConfig
from chibit.core.config import Checked, from_json, to_json
from chibit.core.errors import InputError
from chibit.core.fields import (
    BASIC,
    MAX_EPISODES,
    BelowOne,
    Count,
    Group,
    Natural,
    Positive,
    Seed,
    Share,
    Since,
    Targets,
    Workers,
    refusal,
)
from chibit.core.files import check_name
from chibit.core.plugins import is_address
from chibit.core.run_dir import run_folder
from chibit.core.runtime import Precision
from chibit.data.dataset import DatasetSpec
from chibit.data.mix import check_weights
from chibit.data.readers.columns import parse_columns
from chibit.data.readers.origin import usual_return_scale
from chibit.environments.data_names import published_env_id

AgentConfigT = TypeVar("AgentConfigT", bound=AgentConfig | str | type[Agent])


@dataclass(frozen=True, kw_only=True)
class RunConfig(Checked, Generic[AgentConfigT]):
    """One training run. Defaults: section 4.3 and Table 7 of Reid et al. (2022)."""

    data: Annotated[str, BASIC, Group("data")]
    """Data set; an id (hopper-medium, hopper-medium-v2, mujoco/hopper/medium-v0), a file or a folder."""
    agent: Annotated[AgentConfigT, Group("method")]
    """Hyper-parameters of the method; in Python also its key (dt), class or MODULE:CLASS, with defaults."""
    more_data: Annotated[tuple[str, ...], Since(()), Group("data")] = ()
    """Data sets to mix in, of the same sizes; --data A B is short for --data A --more-data B."""
    data_weights: Annotated[tuple[Positive, ...], Since(())] = ()
    """How often a drawn step is of each data set, relative to the others; empty draws all steps as often."""
    init_from: Annotated[str, Since("")] = ""
    """Run or exported policy of the same method to start from: its weights, where sizes are the same."""
    env_id: Annotated[str | None, Since(None)] = None
    """Environment to evaluate in (Hopper-v4), where the data name none or another."""
    columns: Annotated[tuple[str, ...], Since(())] = ()
    """Which columns of a file are which, where they have other names than usual: observations=obs,temp
    actions=valve rewards=r episode=batch. Columns that commas separate are put side by side."""
    episode_length: Annotated[Count | None, Since(None)] = None
    """Steps after which to cut a log without ends into episodes."""
    skip_damaged: Annotated[bool, Since(False)] = False
    """Leave out damaged episodes, counted in a note, in place of a refusal."""
    continuous_actions: Annotated[bool, Since(False)] = False
    """Take whole numbers as actions for quantities (watts, valve positions), in place of choices."""
    action_low: Annotated[tuple[float, ...] | None, MinLen(1), Since(None)] = None
    """Lowest actions, a number for each dimension or one for all, where the data or their environment do not
    say them or say others."""
    action_high: Annotated[tuple[float, ...] | None, MinLen(1), Since(None)] = None
    """Highest actions, likewise."""
    arm: Annotated[str, Group("output")] = ""
    """Name in tables and folders; empty takes the recipe's or the agent's name."""
    data_fraction: Annotated[Share, Since(1.0), Group("data")] = 1.0
    """Share of the episodes to train on, drawn anew with each seed; runs that share a seed share them."""
    validation_share: Annotated[BelowOne, Since(0.0), Group("held-out data")] = 0.0
    """Share of the episodes held out to measure the action error on, before `data_fraction` is taken; 0 is
    none."""
    validation_data: Annotated[str, Since("")] = ""
    """Data set to measure it on instead; copies of episodes that are trained on are left out."""
    validation_folds: Annotated[Natural, Since(0)] = 0
    """Folds of the episodes, of which the seed chooses one to hold out instead: K runs with seeds 0 to K - 1
    hold out each episode once, which says more than a share where there are fewer than 50. 0 is none."""
    best_by: Annotated[Literal["return", "held_out"], Since("return")] = "return"
    """What checkpoint best is chosen by: the return in the simulator, or the held-out action error, which
    picked worse ones than the last where that was measured (docs/judging.md)."""
    num_steps: Annotated[Count, BASIC, Group("schedule")] = 100_000
    """Gradient steps."""
    evaluate_every: Natural = 5_000
    """Gradient steps between evaluations; 0 evaluates only at the end. The last step is always evaluated."""
    num_episodes: Annotated[int, Interval(ge=0, le=MAX_EPISODES), BASIC, Group("evaluation")] = 10
    """Episodes for each evaluation; for each target return. 0 turns evaluation off."""
    target_returns: Annotated[Annotated[Targets, MinLen(1)] | None, BASIC] = None
    """Raw returns to ask for; all are evaluated and kept. None takes the data set's usual ones."""
    seed: Annotated[Seed, BASIC, Group("schedule")] = 0
    """Seed of weights, batches and episodes; runs that share it see the same batches and episodes."""
    precision: Annotated[Precision, BASIC, Group("machine")] = "fp32"
    """bf16: faster on recent processors; the forward pass runs in bfloat16 autocast, about twice as fast as
    in fp32. tf32 rounds the factors of matrix products on a CUDA GPU."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:N or mps."""
    num_threads: Workers = 1
    """Threads inside one operation on the CPU; one is fastest for small models."""
    checkpoint_every: Annotated[Natural, Group("output")] = 0
    """Gradient steps between checkpoints; 0 saves at each evaluation and at the end."""
    log_every: Count = 100
    """Gradient steps between lines of metrics.jsonl; each is the mean since the line before."""
    tensorboard: bool = False
    """Write TensorBoard event files into the run directory as well (extra: tb)."""
    wandb: str | None = None
    """Weights & Biases project to log to as well (extra: wandb)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "agent", agent_config(self.agent))
        super().__post_init__()
        if self.arm:
            check_name(self.arm, "arm")
        parse_columns(self.columns)
        check_weights(1 + len(self.more_data), self.data_weights)
        if len(self._held_out_by) > 1:
            first, *others = self._held_out_by.items()
            raise InputError(
                f"{others[-1][0]}: got {others[-1][1]!r} beside {first[0]} {first[1]!r}, expected one of them"
            )
        if self.best_by == "held_out" and not self.holds_out:
            raise InputError(
                "best_by: got 'held_out', but nothing is held out; give validation_share, validation_data or "
                "validation_folds"
            )

    @property
    def holds_out(self) -> bool:
        """Whether episodes are held out."""
        return bool(self._held_out_by)

    @property
    def _held_out_by(self) -> dict[str, Any]:
        names = ("validation_share", "validation_data", "validation_folds")
        return {name: value for name in names if (value := getattr(self, name))}

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation follows a gradient step: each `evaluate_every`-th, and the last one.

        A regular evaluation with less than half an interval left is dropped and the one at the end replaces
        it: both would score nearly the same model, which would count twice in a mean of the last evaluations.
        """
        every, left = self.evaluate_every, self.num_steps - step
        return left == 0 or (every > 0 and step % every == 0 and 2 * left >= every)

    def targets(self, spec: DatasetSpec, asked: tuple[float, ...] = ()) -> tuple[float, ...] | None:
        """Raw returns to ask for: given ones, the run's, or the data's; None where the agent takes none."""
        agent: Any = self.agent
        if not agent.takes_target_returns:
            return None
        return asked or self.target_returns or spec.default_target_returns

    @property
    def arm_name(self) -> str:
        """`arm`, or the agent's own name: the initializer of the sequence model, else the agent's key."""
        agent: Any = self.agent
        name: str = self.arm or agent.arm_name
        return name


def agent_config(method: Any) -> Any:
    """The config of a method that is named by its key or class; anything else as it is.

    Raises:
        InputError: for an unknown key or MODULE:CLASS, or a class that is registered for no config.
    """
    if isinstance(method, str):
        return AGENTS.find(AGENTS.load(method) if is_address(method) else method, "agent").config()
    if isinstance(method, type) and issubclass(method, Agent):
        found = [entry.config for entry in AGENTS.values() if entry.agent is method]
        if not found:
            name = method.__name__
            raise InputError(f"agent: {name} names no config; write class {name}(..., config=MyConfig)")
        return found[0]()
    if not isinstance(method, AgentConfig):
        raise refusal("agent", method, "a config, the key or the class of a method")
    return method


def check_targets(config: RunConfig[Any]) -> None:
    """Refuse returns to ask for, for a method that is asked for none."""
    if config.target_returns and not config.agent.takes_target_returns:
        raise InputError(f"target_returns: agent {config.agent.agent} takes none; leave them out")


_USUAL = {
    "device": "auto",
    "num_threads": 1,
    "log_every": 100,
    "checkpoint_every": 0,
    "tensorboard": None,
    "wandb": None,
}
"""With these an earlier version took the hash of a run that was given none."""


def count_evaluations(num_steps: int, evaluate_every: int) -> int:
    """How often `RunConfig.evaluates_at` is true in a whole run: the interval fits so often, rounded."""
    return max(1, (2 * num_steps + evaluate_every) // (2 * evaluate_every)) if evaluate_every else 1


def to_record(config: RunConfig[Any]) -> dict[str, Any]:
    """A run configuration as JSON values, with the agent's key and its schedules in steps.

    Scales are the paper's where the data are known as the paper's without opening them.
    """
    scale = usual_return_scale(config.env_id or published_env_id(config.data))
    has_unit_bounds = scale is not None and config.action_low is None and config.action_high is None
    agent = config.agent.for_steps(config.num_steps).as_recorded(scale, has_unit_bounds=has_unit_bounds)
    address = AGENTS[agent.agent].address
    names = {"agent_name": agent.agent, **({"agent_class": address} if address else {})}
    return {**names, **to_json(config), "agent": to_json(agent)}


def from_record(record: dict[str, Any], where: str = "config") -> RunConfig[Any]:
    """Read back what `to_record` gave, strictly.

    Raises:
        InputError: for an unknown agent, an unknown field or a value of the wrong type.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: got {type(record).__name__}, expected an object")
    if "corpus" in record and "agent_name" not in record:
        raise InputError(f"{where}: is of chibit pretrain, expected a run of chibit train")
    record = dict(record)
    name, address = record.pop("agent_name", None), record.pop("agent_class", "")
    entry = AGENTS.find(name, f"{where}.agent_name", address)
    record["agent"] = from_json(entry.config, record.get("agent", {}), f"{where}.agent")
    return from_json(RunConfig, record, where)


def run_path(config: RunConfig[Any], root: Path, study: str) -> Path:
    """Where a run lives: ``root/study/<arm>-<data>-s<seed>-<hash>``; see `core.run_dir.run_folder`."""
    try:
        data_name = Path(config.data).name if Path(config.data).exists() else config.data
    except (OSError, ValueError):  # no path at all; what opens the data says so
        data_name = config.data
    readable = "".join(c if c.isalnum() or c in "._-" else "-" for c in data_name)[:60].strip(".-") or "data"
    # One folder below the study's, which is where a report looks for runs.
    name = f"{config.arm_name.replace('/', '-')}-{readable}-s{config.seed}"
    return run_folder(root / check_name(study, "study"), name, to_record(config), _USUAL)
