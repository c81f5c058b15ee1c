"""Several agents of one shape that are trained as one program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chibit.core.acting import StackPolicy
from chibit.core.errors import DivergenceError

if TYPE_CHECKING:
    from chibit.agents.base import Agent


class AgentStack(ABC):
    """Holds the parameters of R agents; the agents themselves stand still until `scatter`.

    Attributes:
        agents: the R agents, by their places in the stack.
        step: gradient steps that all have taken.
    """

    agents: list[Agent]
    step: int

    @abstractmethod
    def update(self, batch: Any) -> Mapping[str, Tensor | Sequence[float]]:
        """Take one gradient step of each run.

        Args:
            batch: one of the agents', every field with a first axis of R.

        Returns:
            The metrics of `Agent.update`, (R,) each, for which nobody has waited. A run whose loss or
            gradient is not finite stands still from then on; the others go on.
        """

    @abstractmethod
    def failures(self) -> dict[int, DivergenceError]:
        """Wait for the steps so far, and say which places stand still: why, with the first bad step."""

    @abstractmethod
    def keep(self, places: Sequence[int]) -> None:
        """Go on with the runs of some places alone, which are numbered anew."""

    @abstractmethod
    def scatter(self) -> None:
        """Write parameters, optimizers and steps back into the agents, each as if it had trained alone."""

    @abstractmethod
    def action_errors(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """What `Agent.action_error` and `Agent.action_errors` are of each run, for which nobody has waited.

        Args:
            batch: one of the agents', every field with a first axis of R.

        Returns:
            (R,) errors, and (R, A) those of each dimension, squared; None where actions are discrete.
        """

    @abstractmethod
    def policy(self) -> StackPolicy:
        """Acts with the current parameters; `reset` is told the target returns."""

    @abstractmethod
    def rng_states(self) -> list[Tensor | None]:
        """State of torch's generator of the CPU for each run; None where it draws nothing from it."""

    @abstractmethod
    def begin_draws(self, states: Sequence[Tensor]) -> None:
        """Go on to draw from states of torch's generator of the CPU, one for each run."""


def as_stack(columns: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of R runs by their names, with a first axis of R."""
    return {name: torch.stack([column[name].detach() for column in columns]) for name in columns[0]}
