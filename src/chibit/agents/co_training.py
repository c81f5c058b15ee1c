"""Language modelling beside trajectories: λ2 L_LM of Eq. 9, and how much of the language is forgotten."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from chibit.core.runtime import Runtime
from chibit.models.language_model import LanguageModel
from chibit.models.pretrained import Pretrained

if TYPE_CHECKING:
    from chibit.agents.decision_transformer_config import DecisionTransformerConfig

_HELD_BLOCKS = 4
_SEED = 20_220_128


class LanguageTask:
    """The language model around the trajectory model's own backbone, and its text.

    Attributes:
        model: shares the backbone; its position table is the trajectory model's timestep table where that is
            the initialiser's own (the paper shares them).
        tables: the parameters that are not the backbone's.
    """

    def __init__(self, config: DecisionTransformerConfig, model: Any, text: Any, tables: nn.Module) -> None:
        """Draw blocks of `text`; see `make_language_task`."""
        self.model, self.tables, self._config, self._text = model, tables, config, text
        self._generator = np.random.Generator(np.random.PCG64(_SEED))
        held = np.random.Generator(np.random.PCG64(_SEED + 1))
        self._held = text.sample(_HELD_BLOCKS, config.language_block, held).tokens

    def loss(self, runtime: Runtime) -> Tensor:
        """Mean negative log-likelihood, in nats, of the next batch of text."""
        batch = self._text.sample(
            self._config.language_batch_size, self._config.language_block, self._generator
        )
        with runtime.autocast():
            loss: Tensor = self.model.loss(batch.tokens.to(runtime.torch_device))
        return loss.float()

    def perplexity(self, step: int, runtime: Runtime) -> dict[str, float]:
        """Perplexity on fixed blocks, on schedule; random state and mode are left as they were."""
        every = self._config.perplexity_every
        if not every or step % every:
            return {}
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), runtime.autocast():
            loss = self.model.loss(self._held.to(runtime.torch_device)).item()
        self.model.train(was_training)
        return {"train/perplexity": math.exp(min(loss, 700.0))}

    def state_dict(self) -> dict[str, Any]:
        """The generator that draws text."""
        return {"generator": dict(self._generator.bit_generator.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on drawing from a state."""
        self._generator.bit_generator.state = state["generator"]


def make_language_task(
    config: DecisionTransformerConfig, pretrained: Pretrained, timesteps: nn.Embedding
) -> LanguageTask | None:
    """Open the text and tie the tables; None where no text is asked for.

    Args:
        config: names the corpus.
        pretrained: has the language model.
        timesteps: the trajectory model's table; becomes the language model's positions where it is theirs.

    Raises:
        UserError: if the corpus cannot be opened, or its vocabulary is not the initialiser's.
    """
    if not config.language_corpus:
        return None
    from chibit.data.text import open_corpus

    text = open_corpus(Path(config.language_corpus))
    pretrained.require_vocabulary(text.vocab_size, config.language_corpus)
    model = pretrained.language_model
    assert model is not None
    tables = nn.ModuleDict({"tokens": model.tokens})
    if isinstance(model, LanguageModel):
        if config.timestep_table in ("auto", "given"):
            model.positions = timesteps
        tables["positions"] = model.positions
    return LanguageTask(config, model, text, tables)
