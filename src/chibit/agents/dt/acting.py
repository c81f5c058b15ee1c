"""Acting with a trajectory model: it is told what return to reach, and keeps count of what is left of it.

Dimensions: E episodes · K context in timesteps · S state_dim · A act_dim.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from chibit.agents.base import PolicyStep
from chibit.agents.markov import RawStates
from chibit.core.acting import RewardMode, TrajectoryPolicy, Window
from chibit.core.runtime import Runtime, evaluating
from chibit.data.dataset import DatasetSpec
from chibit.data.normalizer import StateNormalizer
from chibit.models.decision_transformer import DecisionTransformerModel


class ReturnConditionedPolicy(TrajectoryPolicy):
    """Policy of a `DecisionTransformerModel` (Chen et al. 2021, Algorithm 1)."""

    def __init__(
        self,
        model: DecisionTransformerModel,
        spec: DatasetSpec,
        target_returns: Sequence[float],
        *,
        context_length: int,
        runtime: Runtime,
        reward_mode: RewardMode = "normal",
    ) -> None:
        """Wrap a model.

        Args:
            model: acts with its current weights.
            spec: sizes and normalization.
            target_returns: see `TrajectoryPolicy`, like what follows.
            context_length: K.
            runtime: device and precision.
            reward_mode: `sparse` is for data whose reward comes at the end.

        Raises:
            InputError: for no target return, or one that is not finite.
        """
        super().__init__(
            target_returns,
            context_length=context_length,
            # Of images, what the encoder made of them: each is encoded once, not in every window it is in.
            width=model.backbone.width if spec.image_shape else spec.state_dim,
            act_dim=spec.act_dim if spec.num_actions is None else None,
            reward_mode=reward_mode,
        )
        self._model, self._parts, self._spec, self._runtime = model, tuple(model.modules()), spec, runtime
        self._normalize = StateNormalizer.from_spec(spec)
        self.dtype = spec.observation_dtype
        self._form_of_states = {"states_are_encoded": True} if spec.image_shape else {}
        # Heads without tanh can leave the action space; others cannot, but for rounding.
        self._action_low, self._action_high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)

    def _encode(self, observations: np.ndarray) -> np.ndarray:
        states: np.ndarray = self._normalize(observations)
        if not self._spec.image_shape:
            return states
        with torch.inference_mode(), self._runtime.autocast():
            encoded: Tensor = self._model.embed_state(torch.from_numpy(states).to(self._runtime.torch_device))
        features: np.ndarray = encoded.float().cpu().numpy()
        return features

    def _ask(self, window: Window) -> np.ndarray:
        """(L', A) actions, or (L', N) logits."""
        device = self._runtime.torch_device
        # Putting a model into evaluation mode and back takes a tenth of a step: not where it is in that mode.
        is_ready = not any(part.training for part in self._parts)
        mode = contextlib.nullcontext() if is_ready else evaluating(self._model)
        with mode, torch.inference_mode(), self._runtime.autocast():
            output = self._model(
                *(torch.from_numpy(x).to(device) for x in window.shown),
                last_only=True,
                **self._form_of_states,
            )[:, 0]
        output = output.float().cpu()
        if self._spec.num_actions is None:
            output = output.clamp(self._action_low, self._action_high)
        answer: np.ndarray = output.numpy()
        return answer


class SequenceStep(RawStates):
    """A model between raw observations and actions, as a module of tensors alone, for an ONNX graph."""

    low: Tensor
    high: Tensor

    def __init__(self, model: DecisionTransformerModel, spec: DatasetSpec) -> None:
        """Wrap a model for data of a description."""
        super().__init__(spec)
        self.model, self.spec, self.is_discrete = model, spec, spec.num_actions is not None
        if not self.is_discrete:
            self.register_buffer("low", torch.tensor(spec.action_low))
            self.register_buffer("high", torch.tensor(spec.action_high))

    def forward(
        self, returns_to_go: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Choose actions.

        Args:
            returns_to_go: (E, K) raw.
            observations: (E, K, S) raw.
            actions: (E, K, A), or (E, K) int64 where they are discrete; the last one is not looked at.
            timesteps: (E, K) int64 from 0.

        Returns:
            (E, A) actions within the bounds; or (E,) int64, the likeliest, and (E, N) logits to draw from.
        """
        states = self.normalized(observations)
        output: Tensor = self.model(returns_to_go, states, actions, timesteps, last_only=True)[:, 0]
        if self.is_discrete:
            return output.argmax(dim=1), output
        return torch.minimum(torch.maximum(output, self.low), self.high)

    def as_step(self, context_length: int, reward_mode: RewardMode) -> PolicyStep:
        """With examples of its inputs, of which there are at most `context_length` steps."""
        shape = (2, min(3, context_length))
        spec = self.spec
        return PolicyStep(
            module=self,
            inputs={
                "returns_to_go": torch.zeros(shape),
                "observations": self.example(*shape),
                "actions": torch.zeros(shape, dtype=torch.int64)
                if self.is_discrete
                else torch.zeros(*shape, spec.act_dim),
                "timesteps": torch.arange(shape[1]).repeat(shape[0], 1),
            },
            max_steps=context_length,
            outputs=("action", "logits") if self.is_discrete else ("action",),
            metadata={
                "context_length": context_length,
                "reward_mode": reward_mode,
                "default_target_returns": list(spec.default_target_returns),
            },
        )
