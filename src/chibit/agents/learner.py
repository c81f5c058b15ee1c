"""What every baseline is made of: networks, optimizers, steps that are checked first, and the snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from chibit.agents.base import AgentConfig, AgentState, require_finite
from chibit.core.memory import perceptron_bytes
from chibit.data.trajectory import DatasetSpec

Loss: TypeAlias = tuple[Tensor, dict[str, Tensor]]
"""A scalar to descend, and scalars to log by name."""


def adam(network: nn.Module, learning_rate: float, eps: float = 1e-8) -> torch.optim.Adam:
    """Adam in its fused form, the fastest on every device, with torch's other defaults."""
    return torch.optim.Adam(network.parameters(), lr=learning_rate, eps=eps, fused=True)


class BaselineConfig(AgentConfig):
    """Base of the baselines' configs, all of whose networks are perceptrons behind equal inputs."""

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


class Learner:
    """Networks by name, and an optimizer for each loss.

    Every gradient of an update is taken at the same parameters and checked before the first of them is
    applied, so that a diverging update leaves the agent as it was.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        device: torch.device,
    ) -> None:
        """Take over networks and optimizers.

        Args:
            networks: everything that has parameters, frozen copies included.
            optimizers: by the name of the loss whose gradient they apply.
            device: where the networks go.
        """
        self.networks = nn.ModuleDict(dict(networks)).to(device)
        self.optimizers = dict(optimizers)
        self.step = 0
        self._metrics: dict[str, float] = {}
        self._parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.optimizers.items()
        }

    def descend(self, rows: Tensor, losses: Mapping[str, Loss]) -> dict[str, float]:
        """Take one step down each loss, with respect to what its optimizer holds and nothing else.

        Args:
            rows: (B,) rows of the data set that the batch was drawn from, for the report of a divergence.
            losses: by the name of their optimizer.

        Returns:
            Metrics of this update; those of a loss that was left out are its latest ones. `train/loss` is the
            sum over the given losses.

        Raises:
            DivergenceError: if a loss or a gradient is not finite; nothing has then changed.
        """
        gradients = {
            name: torch.autograd.grad(loss, self._parameters[name]) for name, (loss, _) in losses.items()
        }
        values = {name: loss.item() for name, (loss, _) in losses.items()}
        norms = {name: get_total_norm(gradient).item() for name, gradient in gradients.items()}
        require_finite(
            self.step,
            rows,
            **{f"{name} loss": value for name, value in values.items()},
            **{f"norm of the {name} gradient": norm for name, norm in norms.items()},
        )
        for name, gradient in gradients.items():
            for parameter, part in zip(self._parameters[name], gradient, strict=True):
                parameter.grad = part
            self.optimizers[name].step()
        self.step += 1
        return self._log(losses, values, norms)

    def _log(
        self, losses: Mapping[str, Loss], values: dict[str, float], norms: dict[str, float]
    ) -> dict[str, float]:
        for name, (_, metrics) in losses.items():
            self._metrics[f"train/{name}_loss"] = values[name]
            self._metrics[f"train/{name}_grad_norm"] = norms[name]
            for key, value in metrics.items():
                self._metrics[f"train/{key}"] = value.item()
        self._metrics["train/loss"] = sum(values.values())
        return dict(self._metrics)

    def set_learning_rate(self, name: str, learning_rate: float) -> None:
        """Set the learning rate of an optimizer for the steps to come."""
        for group in self.optimizers[name].param_groups:
            group["lr"] = learning_rate

    def state_dict(self) -> AgentState:
        """Snapshot for a checkpoint; its tensors are the live ones."""
        training: dict[str, Any] = {
            "step": self.step,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "metrics": dict(self._metrics),
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
            optimizer.load_state_dict(state.training["optimizers"][name])
