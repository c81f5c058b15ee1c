"""One step of a policy as an ONNX graph: from raw observations to actions, without Python.

A sequence model's graph takes the steps so far, at most its context; whoever runs it keeps them, and lowers
the returns-to-go by the rewards. Dimensions: E episodes · K steps so far, from 1 to the context · S
state_dim · A act_dim · N num_actions.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chibit.agents.base import Agent
from chibit.agents.decision_transformer import DecisionTransformer
from chibit.agents.markov import MarkovPolicy
from chibit.core.errors import InputError
from chibit.core.files import write_atomic
from chibit.data.trajectory import DatasetSpec
from chibit.models.gpt import GPT

OPSET = 18
_MOST_EPISODES = 65_536
_EXAMPLE_EPISODES, _EXAMPLE_STEPS = 2, 3


class SequenceStep(nn.Module):
    """A Decision Transformer between raw observations and actions."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, agent: DecisionTransformer) -> None:
        super().__init__()
        spec = agent.spec
        self.model, self.is_discrete = agent.model, spec.num_actions is not None
        self.register_buffer("mean", torch.tensor(spec.state_mean))
        self.register_buffer("std", torch.tensor(spec.state_std))
        if not self.is_discrete:
            self.register_buffer("low", torch.tensor(spec.action_low))
            self.register_buffer("high", torch.tensor(spec.action_high))

    def forward(
        self, returns_to_go: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Choose actions.

        Args:
            returns_to_go: (E, K) raw.
            observations: (E, K, S) raw.
            actions: (E, K, A), or (E, K) int64 where they are discrete; the last one is not looked at.
            timesteps: (E, K) int64 from 0.

        Returns:
            (E, A) actions within the bounds, or (E, N) logits to draw from.
        """
        states = (observations - self.mean) / self.std
        output: Tensor = self.model(returns_to_go, states, actions, timesteps, last_only=True)[:, 0]
        return output if self.is_discrete else torch.minimum(torch.maximum(output, self.low), self.high)


class MarkovStep(nn.Module):
    """A policy of single observations."""

    mean: Tensor
    std: Tensor

    def __init__(self, modules: nn.Module, spec: DatasetSpec, actions: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.networks, self._actions = modules, actions
        self.register_buffer("mean", torch.tensor(spec.state_mean))
        self.register_buffer("std", torch.tensor(spec.state_std))

    def forward(self, observations: Tensor) -> Tensor:
        """Choose (E, A) actions, or (E,) int64, for (E, S) raw observations."""
        return self._actions((observations - self.mean) / self.std)


def export_onnx(agent: Agent, spec: DatasetSpec, path: Path) -> Path:
    """Write one step of an agent's policy as an ONNX graph.

    Args:
        agent: on the CPU; acts with its current weights.
        spec: of the data it was trained on.
        path: the file; its inputs and outputs are named as in `SequenceStep.forward` or `MarkovStep.forward`,
            the output `action` (`logits` for a sequence model with discrete actions). What else a caller must
            know is in the file's metadata.

    Raises:
        InputError: without the extra, or for a policy that has no such graph: of images, at random, or around
            a model of `transformers`.
    """
    step, example, axes, output = _step(agent, spec)
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise InputError("onnx: onnx and onnxscript are not installed; pip install 'chibit[onnx]'") from error
    was_training = agent.modules().training
    step.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                step,
                example,
                dynamo=True,
                dynamic_shapes=axes,
                input_names=list(axes),
                output_names=[output],
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        agent.modules().train(was_training)
    assert program is not None
    model = program.model_proto
    for key, value in _metadata(agent, spec).items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=json.dumps(value)))
    onnx.checker.check_model(model)
    write_atomic(path, model.SerializeToString())
    return path


def _step(agent: Agent, spec: DatasetSpec) -> tuple[nn.Module, tuple[Tensor, ...], dict[str, Any], str]:
    """The graph's module, example inputs, which axes of the inputs vary, and the output's name."""
    if getattr(spec, "image_shape", ()):
        raise InputError("onnx: this policy sees images; only policies of vectors are exported")
    episodes = torch.export.Dim("episodes", min=1, max=_MOST_EPISODES)
    if not isinstance(agent, DecisionTransformer):
        policy = agent.policy(None)
        if not isinstance(policy, MarkovPolicy):
            raise InputError(f"onnx: {type(policy).__name__} has no graph; only deterministic policies have")
        module = MarkovStep(agent.modules(), spec, policy._actions)  # its function of states is all it has
        example = (torch.zeros(_EXAMPLE_EPISODES, spec.state_dim),)
        return module, example, {"observations": {0: episodes}}, "action"
    if not isinstance(agent.model.backbone, GPT):
        raise InputError("onnx: the backbone is a model of transformers; use that library's own exporter")
    discrete = spec.num_actions is not None
    context = agent.config.context_length
    shape = (_EXAMPLE_EPISODES, min(_EXAMPLE_STEPS, context))
    inputs = (
        torch.zeros(shape),
        torch.zeros(*shape, spec.state_dim),
        torch.zeros(shape, dtype=torch.int64) if discrete else torch.zeros(*shape, spec.act_dim),
        torch.arange(shape[1]).repeat(shape[0], 1),
    )
    vary: dict[int, Any] = {0: episodes}
    if context > 1:
        vary[1] = torch.export.Dim("steps", min=1, max=context)
    axes = {name: dict(vary) for name in ("returns_to_go", "observations", "actions", "timesteps")}
    return SequenceStep(agent), inputs, axes, "logits" if discrete else "action"


def _metadata(agent: Agent, spec: DatasetSpec) -> dict[str, Any]:
    known: dict[str, Any] = {"data": spec.name, "env_id": spec.env_id, "agent": agent.config.agent}  # type: ignore[attr-defined]
    if isinstance(agent, DecisionTransformer):
        known["context_length"] = agent.config.context_length
        known["default_target_returns"] = list(spec.default_target_returns)
    return known
