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
from chibit.core.errors import InputError, needing
from chibit.core.files import write_atomic
from chibit.core.runtime import evaluating
from chibit.data.dataset import DatasetSpec

OPSET = 18
_MOST_EPISODES = 65_536


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
    if spec.image_shape:
        raise InputError("onnx: this policy sees images; only policies of vectors are exported")
    step = agent.policy_step()
    with needing("onnx", "onnx:"):
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with evaluating(agent.modules()), evaluating(step.module), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            step.module,
            tuple(step.inputs.values()),
            dynamo=True,
            dynamic_shapes=_axes(step),
            input_names=list(step.inputs),
            output_names=[step.output],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    known = {"data": spec.name, "env_id": spec.env_id, "agent": agent.config.agent, **step.metadata}
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
