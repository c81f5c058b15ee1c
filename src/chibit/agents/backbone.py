"""What agents around a pre-trained backbone share: its shape, and checked steps of one optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from chibit.agents.base import Agent, AgentConfig, AgentState
from chibit.agents.guard import StepGuard
from chibit.core.optimizers import restore_optimizer
from chibit.models.gpt import DROPOUTS, SIZES, GPTConfig, GPTShape

FOREIGN_SIZES = {"gpt2": 143.0, "clip": 64.0, "igpt": 128.0, "hf": 143.0}
"""Parameters in the blocks of foreign initializers, in ChibiTs."""


class BackboneConfig(AgentConfig):
    """Base of configs of agents whose backbone an initializer gives."""

    initializer: str
    gpt: GPTShape
    dropout: float
    learning_rate: float
    backbone_learning_rate: float | None
    grad_clip: float

    def dropouts(self) -> dict[str, Any]:
        """The backbone's three dropout probabilities, by GPTConfig's names."""
        return dict.fromkeys(DROPOUTS, self.dropout)

    @property
    def backbone_size(self) -> float:
        """Parameters in the backbone's blocks, in ChibiTs."""
        name = self.initializer.partition(":")[0]
        shape = SIZES.get(name.removeprefix("chibit_"), self.gpt)
        return FOREIGN_SIZES.get(name, shape.relative_size)

    def gpt_config(self) -> GPTConfig | None:
        """Of a random backbone; None where the initializer brings its own shape and none was asked for."""
        if self.initializer != "random" and self.gpt == GPTShape():
            return None
        return GPTConfig(**vars(self.gpt), **self.dropouts())


class BackboneAgent(Agent):
    """An agent with one optimizer, in whose groups `base_lr` is what their step size is a share of."""

    config: BackboneConfig
    optimizer: torch.optim.Optimizer

    def parted(self, pretrained: Iterable[nn.Parameter]) -> dict[str, tuple[list[nn.Parameter], float]]:
        """What is trained, with its step size: pre-trained weights and the rest; by identity, not by name."""
        known = {id(p) for p in pretrained}
        trained = [p for p in self.modules().parameters() if p.requires_grad]
        rate, own = self.config.learning_rate, self.config.backbone_learning_rate
        return {
            "backbone": ([p for p in trained if id(p) in known], rate if own is None else own),
            "rest": ([p for p in trained if id(p) not in known], rate),
        }

    def optimize(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer, and guard its steps."""
        self.optimizer = optimizer
        self.guard = StepGuard(self.runtime.torch_device, [optimizer])

    def descend(self, rows: Tensor, loss: Tensor, factor: float) -> Tensor:
        """Take a step down a loss, with step sizes times `factor`; the norm of its gradient, uncut."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.grad_clip)
        self.admit(rows, loss=loss, gradient_norm=norm)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.optimizer.step()
        self.step += 1
        return norm

    def state_dict(self) -> AgentState:
        """Weights; optimizer and step."""
        training = {"step": self.step, "optimizer": self.optimizer.state_dict()}
        return AgentState(tensors=dict(self.modules().state_dict()), training=training)

    def load_state_dict(self, state: AgentState) -> None:
        """Go on from a snapshot; without its training part, only act."""
        self.modules().load_state_dict(state.tensors)
        if state.training:
            self.step = state.training["step"]
            restore_optimizer(self.optimizer, state.training["optimizer"])
