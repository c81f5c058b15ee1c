"""Reinformer (Zhuang et al., 2024): a sequence model that asks for the highest return it believes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from chibit.agents.base import PolicyStep
from chibit.agents.dt.acting import ReturnConditionedPolicy
from chibit.agents.dt.agent import DecisionTransformer
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.acting import Window
from chibit.core.errors import InputError
from chibit.core.fields import Fraction
from chibit.core.runtime import evaluating
from chibit.data.samplers.windows import SequenceBatch
from chibit.losses.sequence import return_expectile
from chibit.models.decision_transformer import DecisionTransformerModel


@dataclass(frozen=True, kw_only=True)
class ReinformerConfig(DecisionTransformerConfig):
    """The Decision Transformer's, and what its returns are predicted by."""

    agent: ClassVar[str] = "reinformer"
    seconds_an_episode: ClassVar[float] = 2.0

    return_expectile: Fraction = 0.99
    """Expectile of the returns-to-go that are predicted; toward 1 it approaches the highest in the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.return_tokens:
            raise InputError("return_tokens: reinformer predicts returns; use dt for a model without them")

    @property
    def takes_target_returns(self) -> bool:
        """It asks for what it predicts."""
        return False

    @property
    def draws_attention(self) -> bool:
        """Its tokens come in another order than those that are drawn."""
        return False


class MaxReturnModel(DecisionTransformerModel):
    """Trajectory tokens (s_1, R_1, a_1, ...): R_t is predicted from s_t, and a_t read from R_t."""

    return_token = 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As the base, and a linear head for returns."""
        super().__init__(*args, **kwargs)
        self.return_head = nn.Linear(self.timesteps.embedding_dim, 1)

    def decode_both(self, tokens: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, K, A) as `decode` gives them, and returns-to-go (B, K) in units of the return scale."""
        inputs, mask = self._backbone_inputs(tokens, timesteps, None)
        hidden = self.backbone(inputs, mask, positions=slice(None))
        returns: Tensor = self.return_head(hidden[:, ::3]).squeeze(-1)
        return self.read_actions(hidden[:, 1::3]), returns

    def predict_return(
        self,
        returns_to_go: Tensor,
        states: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        *,
        states_are_encoded: bool = False,
    ) -> Tensor:
        """The raw return-to-go (B,) of the last step; arguments as in `forward`, the last return unseen."""
        tokens = self.embed(returns_to_go, states, actions, timesteps, states_are_encoded=states_are_encoded)
        inputs, mask = self._backbone_inputs(tokens, timesteps, None)
        hidden = self.backbone(inputs[:, :-1], mask, positions=slice(-1, None))
        returns: Tensor = self.return_head(hidden).float().squeeze(-1)
        return self.raw_returns(returns, timesteps[:, -1:])[:, 0]


class MaxReturnPolicy(ReturnConditionedPolicy):
    """Asks, at each step, for the return that the model predicts, and remembers what it asked for."""

    _model: MaxReturnModel

    def _ask(self, window: Window) -> np.ndarray:
        tensors = [torch.from_numpy(x).to(self._runtime.torch_device) for x in window.shown]
        with evaluating(self._model), torch.inference_mode(), self._runtime.autocast():
            predicted = self._model.predict_return(*tensors, states_are_encoded=bool(self._spec.image_shape))
        window.returns_to_go[:, -1] = predicted.cpu().numpy()
        return super()._ask(window)


class Reinformer(DecisionTransformer, config=ReinformerConfig):
    """Max-return sequence modeling: the return to ask for is predicted, by an expectile of the data's."""

    config: ReinformerConfig
    model: MaxReturnModel
    model_class: ClassVar[type[DecisionTransformerModel]] = MaxReturnModel
    policy_class: ClassVar[type[ReturnConditionedPolicy]] = MaxReturnPolicy

    def _decode(self, tokens: Tensor, timesteps: Tensor) -> tuple[Tensor, ...]:
        actions, returns = self.model.decode_both(tokens, timesteps)
        return actions.float(), returns.float()

    def _trajectory_losses(self, outputs: tuple[Tensor, ...], batch: SequenceBatch) -> dict[str, Tensor]:
        returns = self.model.scaled_returns(batch.returns_to_go, batch.timesteps)
        error = return_expectile(outputs[1], returns, batch.attention_mask, self.config.return_expectile)
        return super()._trajectory_losses(outputs, batch) | {"return": error}

    def weights(self) -> dict[str, float]:
        """Those of Eq. 9, and 1 for the returns, as Zhuang et al. weigh them."""
        return super().weights() | {"return": 1.0}

    def policy_step(self) -> PolicyStep:
        """None: what it asks for is a part of its history."""
        raise InputError("onnx: reinformer predicts what it asks for, step by step; only dt has a graph")
