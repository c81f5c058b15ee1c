"""Acting with a trajectory model: it is told what return to reach, and keeps count of what is left of it.

All episodes step in lockstep, so their windows have the same length and are never padded. Episodes that are
over leave the batch. Dimensions: E episodes · K context in timesteps · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from chibit.agents.base import PolicyStep
from chibit.agents.markov import RawStates
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime, evaluating
from chibit.data.dataset import DatasetSpec
from chibit.data.normalizer import StateNormalizer
from chibit.models.decision_transformer import DecisionTransformerModel

RewardMode = Literal["normal", "sparse"]
_SLACK = 8
"""The history buffer is this many contexts long, so that it is moved back only once in 7K steps."""


class ReturnConditionedPolicy:
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
            target_returns: raw returns to ask for; episode e of `reset(num_envs)` gets number
                e // (num_envs / len(target_returns)).
            context_length: K.
            runtime: device and precision.
            reward_mode: `sparse` holds the return-to-go constant, for data whose reward comes at the end.

        Raises:
            InputError: for no target return, or one that is not finite.
        """
        if not len(target_returns) or not np.isfinite(np.asarray(target_returns, float)).all():
            raise InputError(
                f"target_returns are {list(target_returns)}, expected one or more finite numbers"
            )
        self._model, self._spec, self._runtime = model, spec, runtime
        self._targets = np.asarray(target_returns, np.float64)
        self._context_length, self._reward_mode = context_length, reward_mode
        self._normalize = StateNormalizer.from_spec(spec)
        self._form_of_states = {"states_are_encoded": True} if spec.image_shape else {}
        # Heads without tanh can leave the action space; others cannot, but for rounding.
        self._action_low, self._action_high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)

    def reset(self, num_envs: int) -> None:
        """Begin `num_envs` episodes; see `target_returns` for who asks for what.

        Raises:
            InputError: if `num_envs` is not a multiple of the number of targets.
        """
        if num_envs % len(self._targets):
            raise InputError(
                f"num_envs is {num_envs}, expected a multiple of the {len(self._targets)} targets"
            )
        capacity, spec = _SLACK * self._context_length, self._spec
        discrete = spec.num_actions is not None
        self._left = np.repeat(self._targets, num_envs // len(self._targets))
        self._live = np.arange(num_envs)
        self._returns_to_go = torch.zeros(num_envs, capacity)
        # Of images, what the encoder made of them: each is encoded once, not in every window it is in.
        width = cast(int, self._model.backbone.width) if spec.image_shape else spec.state_dim
        self._states = torch.zeros(num_envs, capacity, width)
        self._actions = (
            torch.zeros(num_envs, capacity, dtype=torch.int64)
            if discrete
            else torch.zeros(num_envs, capacity, spec.act_dim)
        )
        self._column, self._step = 0, 0
        self._generators = [np.random.default_rng((0, e)) for e in range(num_envs)]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose an action for each episode: (E, S) raw observations to (E, A) float32 or (E,) int64."""
        column = self._column
        live = torch.from_numpy(self._live)
        self._states[live, column] = self._encode(torch.from_numpy(self._normalize(observations[self._live])))
        self._returns_to_go[live, column] = torch.from_numpy(self._left[self._live].astype(np.float32))
        self._actions[live, column] = self._choose(live).to(self._actions.dtype)
        actions: np.ndarray = self._actions[:, column].numpy().copy()
        return actions

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Lower what is left to reach by (E,) raw rewards, and drop the episodes that are over.

        What it remembers to have done is (E, A) or (E,) `actions`, or what `act` said.
        """
        if actions is not None:
            done = torch.as_tensor(np.asarray(actions)[self._live], dtype=self._actions.dtype)
            self._actions[torch.from_numpy(self._live), self._column] = done
        if self._reward_mode == "normal":
            self._left[self._live] -= np.asarray(rewards, np.float64)[self._live]
        self._live = self._live[~np.asarray(dones, bool)[self._live]]
        self._column += 1
        self._step += 1
        if self._column == self._states.shape[1]:
            self._move_back()

    def _encode(self, states: Tensor) -> Tensor:
        if not self._spec.image_shape:
            return states
        with torch.inference_mode(), self._runtime.autocast():
            encoded: Tensor = self._model.embed_state(states.to(self._runtime.torch_device))
        return encoded.float().cpu()

    def _choose(self, live: Tensor) -> Tensor:
        """(L, A) actions, or (L,) indices drawn from the model's distribution."""
        window = slice(max(0, self._column + 1 - self._context_length), self._column + 1)
        length = window.stop - window.start
        timesteps = torch.arange(self._step + 1 - length, self._step + 1).expand(len(live), length)
        inputs = (self._returns_to_go[live, window], self._states[live, window], self._actions[live, window])
        device = self._runtime.torch_device
        with evaluating(self._model), torch.inference_mode(), self._runtime.autocast():
            output = self._model(
                *(x.to(device) for x in (*inputs, timesteps)), last_only=True, **self._form_of_states
            )[:, 0]
        output = output.float().cpu()
        if self._spec.num_actions is None:
            bounded: Tensor = output.clamp(self._action_low, self._action_high)
            return bounded
        # Each episode draws from its own generator: its actions do not depend on who else still plays.
        draws = torch.tensor([[self._generators[e].random()] for e in live.tolist()], dtype=torch.float64)
        below = (output.double().softmax(-1).cumsum(-1) < draws).sum(-1)
        return below.clamp(max=self._spec.num_actions - 1)

    def _move_back(self) -> None:
        kept = self._context_length - 1
        for history in (self._returns_to_go, self._states, self._actions):
            history[:, :kept] = history[:, history.shape[1] - kept :].clone()
        self._column = kept


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
        states = self.normalized(observations)
        output: Tensor = self.model(returns_to_go, states, actions, timesteps, last_only=True)[:, 0]
        return output if self.is_discrete else torch.minimum(torch.maximum(output, self.low), self.high)

    def as_step(self, context_length: int) -> PolicyStep:
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
            output="logits" if self.is_discrete else "action",
            metadata={
                "context_length": context_length,
                "default_target_returns": list(spec.default_target_returns),
            },
        )
