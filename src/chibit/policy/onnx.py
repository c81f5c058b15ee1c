"""One step of a policy as an ONNX graph: from raw observations to actions, without Python.

A sequence model's graph takes the steps so far, at most its context; whoever runs it keeps them, and lowers
the returns-to-go by the rewards. Dimensions: E episodes · K steps so far, from 1 to the context · S
state_dim · A act_dim · N num_actions.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from chibit.agents.base import Agent, PolicyStep
from chibit.core.config import to_json
from chibit.core.errors import InputError, needing
from chibit.core.files import write_atomic
from chibit.core.runtime import evaluating
from chibit.data.dataset import DatasetSpec
from chibit.policy.format import checked_target

OPSET = 18
_MOST_EPISODES = 65_536


def export_onnx(agent: Agent, spec: DatasetSpec, path: Path, *, target_return: float | None = None) -> Path:
    """Write one step of an agent's policy as an ONNX graph.

    Args:
        agent: on the CPU; acts with its current weights.
        spec: of the data it was trained on.
        path: the file; its inputs are named as in `SequenceStep.forward` or `MarkovStep.forward`, its output
            `action`, and for a sequence model with discrete actions, whose `action` is the likeliest,
            `logits` to draw from beside it. What else a caller must know is in the file's metadata, where
            `OnnxPolicy` finds it.
        target_return: raw return to ask for; None is the data's first default.

    Raises:
        InputError: without the extra, or for a policy that has no such graph: of images, of several states
            stacked, or around a model of `transformers`.
    """
    if spec.image_shape:
        raise InputError("onnx: this policy sees images; only policies of vectors are exported")
    step = agent.policy_step()
    with needing("onnx", "onnx:"):
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with evaluating(agent.modules()), warnings.catch_warnings():
        step.module.eval()  # it is made for this graph; what it shares with the agent is put back
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            step.module,
            tuple(step.inputs.values()),
            dynamo=True,
            dynamic_shapes=_axes(step),
            input_names=list(step.inputs),
            output_names=list(step.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    known = {
        "data": spec.name,
        "env_id": spec.env_id,
        "agent": agent.config.agent,
        "spec": to_json(spec),
        "target_return": checked_target(agent, spec, target_return),
        **step.metadata,
    }
    for key, value in known.items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=json.dumps(value)))
    onnx.checker.check_model(model)
    write_atomic(path, model.SerializeToString())
    return path


def _axes(step: PolicyStep) -> dict[str, dict[int, Any]]:
    """Which axes of the inputs vary: the episodes, and the steps so far."""
    vary: dict[int, Any] = {0: torch.export.Dim("episodes", min=1, max=_MOST_EPISODES)}
    if step.max_steps > 1:
        vary[1] = torch.export.Dim("steps", min=1, max=step.max_steps)
    return {name: dict(vary) for name in step.inputs}
