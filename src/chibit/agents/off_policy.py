"""What every baseline is made of: networks, a loss for each optimizer, steps that are checked first.

A baseline is its config, its networks (`build`), its `losses` and its `act`; what follows an update goes into
`updated`. It inherits `ContinuousAgent` or `DiscreteAgent`, by the actions that it takes.

Dimensions: B batch · S state_dim · A act_dim.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from chibit.agents.base import DEFAULT_STEPS, Agent, AgentConfig, AgentState, Policy, PolicyStep, Sampler
from chibit.agents.contract import check_acted, check_losses, check_optimizers, check_used
from chibit.agents.guard import StepGuard
from chibit.agents.markov import MarkovPolicy, MarkovStep
from chibit.core.memory import perceptron_bytes
from chibit.core.optimizers import restore_optimizer
from chibit.core.runtime import Runtime, capture_rng, evaluating, read_scalars, restore_rng
from chibit.data.choices import Choice
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.samplers.transitions import TransitionSampler
from chibit.models.critics import polyak_update

Loss: TypeAlias = tuple[Tensor, dict[str, Tensor]]
"""A scalar to descend, and scalars to log by name."""
Optimizers: TypeAlias = dict[str, torch.optim.Optimizer]
"""By the name of the loss whose gradient they apply."""


def adam(network: nn.Module, learning_rate: float, eps: float = 1e-8) -> torch.optim.Adam:
    """Adam in its fused form, the fastest on every device, with torch's other defaults."""
    return torch.optim.Adam(network.parameters(), lr=learning_rate, eps=eps, fused=True)


class BaselineConfig(AgentConfig):
    """Base of the baselines' configs, all of whose networks are perceptrons behind equal inputs."""

    reads_rewards: ClassVar[bool] = True
    """Whether its agent's losses look at the rewards of a batch, whose units are then said."""

    def chosen(self, dataset: TrajectoryDataset) -> Iterator[Choice]:
        """The units of rewards."""
        if self.reads_rewards:
            yield self.reward_units(dataset).choice

    @property
    def heads(self) -> int:
        """Numbers that a network gives for each action, or coordinate of one."""
        return 1

    @property
    def states_seen(self) -> int:
        """States in an input."""
        return 1

    @property
    def rows_per_transition(self) -> int:
        """Actions that a loss looks at for each transition."""
        return 1

    def num_bytes(self, spec: DatasetSpec) -> int:
        """One network of each kind and the activations of a batch."""
        kinds = [sizes for name, sizes in vars(self).items() if name.endswith("hidden_sizes")]
        return sum(
            perceptron_bytes(
                inputs=self.states_seen * spec.num_state_columns + spec.act_dim,
                hidden_sizes=sizes,
                outputs=self.heads * (spec.num_actions or spec.act_dim),
                rows=self.batch_size * self.rows_per_transition,
            )
            for sizes in kinds
        )


class OffPolicyAgent(Agent):
    """Learns from transitions, and acts on single states.

    Every gradient of an update is taken at the same parameters and checked before the first of them is
    applied, so that a diverging update leaves the agent as it was.

    Attributes:
        networks: every module that `build` set as an attribute, by its name, frozen copies included.
        optimizers: what `build` gave.
    """

    needs_next: bool = True
    """Whether its losses look at the state after a step; else steps are learned whose next one is unknown."""

    def __init__(self, config: Any, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build networks and optimizers for a data set."""
        self.config, self.spec, self.runtime, self.step = config.for_steps(DEFAULT_STEPS), spec, runtime, 0
        self.optimizers = self.build()
        check_optimizers(config.agent, self.optimizers)
        parts = {name: part for name, part in vars(self).items() if isinstance(part, nn.Module)}
        self.networks = nn.ModuleDict(parts).to(runtime.torch_device)
        self._all_networks = tuple(self.networks.modules())
        self.guard: StepGuard = StepGuard(runtime.torch_device, self.optimizers.values())
        self._metrics: dict[str, float | Tensor] = {}
        self._known: set[str] = set()  # losses that were looked at
        self._parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            for name, optimizer in self.optimizers.items()
        }

    @abstractmethod
    def build(self) -> Optimizers:
        """Set the networks as attributes, from `config` and `spec`.

        Returns:
            An optimizer for each of the losses.
        """

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Loss]:
        """What this update descends, by the name of the optimizer; an optimizer without a loss rests.

        Args:
            batch: on the device; continuous actions are in [-1, 1].
        """

    def updated(self, losses: Mapping[str, Loss]) -> None:
        """Follow up an update, after which `step` has been counted: move target networks, by `follow`."""

    def follow(self, target: nn.Module, source: nn.Module, tau: float) -> None:
        """Move a target network toward its source, if the step was taken; see `polyak_update`."""
        polyak_update(target, source, self.guard.share(tau))

    def learning_rates(self) -> dict[str, float]:
        """Step sizes for the next update, of the optimizers whose step size changes."""
        return {}

    @abstractmethod
    def act(self, states: Tensor) -> Tensor:
        """Give the policy's actions in normalized states (B, S): (B, A) in [-1, 1], or (B,) int64."""

    def in_env(self, actions: Tensor) -> Tensor:
        """What `act` gave, within the environment's bounds."""
        return actions

    def env_actions(self, states: Tensor) -> Tensor:
        """The policy's actions as the environment takes them, without dropout."""
        self._switch(training=False)
        return self.in_env(self.act(states))

    def _switch(self, *, training: bool) -> None:
        """Have all networks in a mode, which takes time only where one of them is in the other."""
        if any(part.training != training for part in self._all_networks):
            self.networks.train(training)

    def to_unit(self, batch: Any) -> Any:
        """A batch as `losses` takes it, from one on the device; the batch itself stays as it is."""
        return batch

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[Any]:
        """Draw transitions uniformly, rewards in their units."""
        return TransitionSampler(
            dataset,
            batch_size=self.config.batch_size,
            generator=generator,
            needs_next=self.needs_next,
            reward_transform=self.config.reward_units(dataset),
        )

    def error_sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> Sampler[Any]:
        """Draw as `sampler` does, but from all steps: the error of an action needs no next state."""
        clone = copy.copy(self)
        clone.needs_next = False
        return clone.sampler(dataset, generator)

    def update(self, batch: Any) -> Mapping[str, float | Tensor]:
        """Take one step down each of `losses`, with respect to what its optimizer holds and nothing else.

        Returns:
            Metrics of this update; those of a loss that was left out are its latest ones. `train/loss` is the
            sum over the given losses.
        """
        for name, learning_rate in self.learning_rates().items():
            for group in self.optimizers[name].param_groups:
                group["lr"] = learning_rate
        self._switch(training=True)
        there = batch.to(self.runtime.torch_device)
        batch = self.to_unit(there)
        with self.runtime.autocast():
            losses = self.losses(batch)
        if not isinstance(losses, dict) or not losses.keys() <= self._known:
            self._check(losses, there)
        metrics = self._descend(batch.rows, losses)
        self.updated(losses)
        return metrics

    def _check(self, losses: dict[str, Loss], batch: Any) -> None:
        """Look at losses that were not there before, and once at `act`, which takes no random number."""
        name, device = self.config.agent, self.runtime.torch_device
        check_losses(name, losses, self.optimizers)
        if not self._known:
            states, actions = self.inputs(batch)
            rng = capture_rng(device)
            with evaluating(self.modules()), torch.no_grad():
                check_acted(name, self.act(states), states, actions)
            restore_rng(rng, device)
        self._known |= losses.keys()

    def _descend(self, rows: Tensor, losses: Mapping[str, Loss]) -> Mapping[str, float | Tensor]:
        gradients = {
            name: torch.autograd.grad(loss, self._parameters[name], allow_unused=True)
            for name, (loss, _) in losses.items()
        }
        used = {name: [part for part in parts if part is not None] for name, parts in gradients.items()}
        check_used(self.config.agent, used)
        values = {name: loss.detach() for name, (loss, _) in losses.items()}
        norms = {name: get_total_norm(parts) for name, parts in used.items()}
        self.admit(
            rows,
            **{f"{name} loss": value for name, value in values.items()},
            **{f"norm of the {name} gradient": norm for name, norm in norms.items()},
        )
        for name, gradient in gradients.items():
            for parameter, part in zip(self._parameters[name], gradient, strict=True):
                parameter.grad = part
            self.optimizers[name].step()
        self.step += 1
        for name, (_, metrics) in losses.items():
            self._metrics[f"train/{name}_loss"] = values[name]
            self._metrics[f"train/{name}_grad_norm"] = norms[name]
            for key, value in metrics.items():
                self._metrics[f"train/{key}"] = value.detach()
        wide = (value.to(self.runtime.sum_dtype) for value in values.values())
        self._metrics["train/loss"] = reduce(torch.add, wide)
        return dict(self._metrics)

    def inputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """What the policy sees, (B, S), and the actions (B, A) or (B,) that the data have for it."""
        return batch.states, batch.actions

    @torch.no_grad()
    def action_error(self, batch: Any) -> float:
        """See `Agent.action_error`."""
        self._switch(training=False)
        return self.error_of(*self.inputs(batch.to(self.runtime.torch_device)))

    @abstractmethod
    def error_of(self, states: Tensor, actions: Tensor) -> float:
        """Error of the policy in states (B, S), whose logged actions are (B, A) or (B,)."""

    @property
    def acting_epsilon(self) -> float:
        """Probability of a random action when acting, where actions are discrete."""
        return 0.0

    @property
    def draws_actions(self) -> bool:
        """Now and then, if asked for."""
        return self.acting_epsilon > 0

    def policy(self, target_returns: Sequence[float] | None = None) -> Policy:
        """Act by `act`, but for a random action now and then if asked for."""
        device = self.runtime.torch_device
        return MarkovPolicy(self.spec, device, self.env_actions, epsilon=self.acting_epsilon)

    def policy_step(self) -> PolicyStep:
        """From raw observations (E, S) to actions."""
        return MarkovStep(self.networks, self.spec, self.env_actions).as_step(epsilon=self.acting_epsilon)

    def modules(self) -> nn.Module:
        """All networks."""
        return self.networks

    def state_dict(self) -> AgentState:
        """Networks; optimizers, step and the latest metrics."""
        training: dict[str, Any] = {
            "step": self.step,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "metrics": dict(zip(self._metrics, read_scalars(self._metrics.values()), strict=True)),
        }
        return AgentState(tensors=self.networks.state_dict(), training=training)

    def load_state_dict(self, state: AgentState) -> None:
        """Take over a snapshot; one without its training part serves for acting only."""
        self.networks.load_state_dict(state.tensors)
        if not state.training:
            return
        self.step = state.training["step"]
        self._metrics = dict(state.training["metrics"])
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, state.training["optimizers"][name])
