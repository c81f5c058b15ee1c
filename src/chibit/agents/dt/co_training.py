"""Language modeling beside trajectories: λ2 L_LM of Eq. 9, and how much of the language is forgotten."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from chibit.core.runtime import Runtime, evaluating
from chibit.data.text.tokens import TokenDataset, TokenSampler
from chibit.models.huggingface import HuggingFaceLanguageModel
from chibit.models.initializers import Pretrained
from chibit.models.language_model import LanguageModel

if TYPE_CHECKING:
    from chibit.agents.dt.config import DecisionTransformerConfig

_FIXED_BLOCKS = 4
_SEED = 2_201_12122


class LanguageTask:
    """The language model around the trajectory model's own backbone, and its text.

    Attributes:
        model: shares the backbone; its position table is the trajectory model's timestep table where that is
            the initializer's own (the paper shares them).
        tables: the parameters that are not the backbone's.
    """

    def __init__(
        self,
        config: DecisionTransformerConfig,
        model: LanguageModel | HuggingFaceLanguageModel,
        text: TokenDataset,
        tables: nn.ModuleDict,
    ) -> None:
        """Draw blocks of `text`; see `make_language_task`."""
        self.model, self.tables, self._every = model, tables, config.perplexity_every
        self._sampler = _sampler(text, config, config.language_batch_size, seed=0)
        self._fixed = _sampler(text, config, _FIXED_BLOCKS, seed=1).sample().tokens

    def loss(self, runtime: Runtime) -> Tensor:
        """Mean negative log-likelihood, in nats, of the next batch of text."""
        tokens = self._sampler.sample().tokens.to(runtime.torch_device)
        with runtime.autocast():
            return self.model.loss(tokens).float()

    def perplexity(self, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """Perplexity of fixed blocks without dropout, on schedule; random state and mode stay as they are."""
        if not self._every or step % self._every:
            return {}
        self._fixed = self._fixed.to(runtime.torch_device)
        with evaluating(self.model), runtime.autocast():
            loss = self.model.loss(self._fixed).to(runtime.sum_dtype)
        return {"train/perplexity": loss.clamp(max=math.log(torch.finfo(loss.dtype).max)).exp()}

    def state_dict(self) -> dict[str, Any]:
        """Place in the text."""
        return self._sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the text from a place that `state_dict` gave."""
        self._sampler.load_state_dict(state)


def _sampler(
    text: TokenDataset, config: DecisionTransformerConfig, batch_size: int, *, seed: int
) -> TokenSampler:
    return TokenSampler(
        text,
        block_length=config.language_block,
        batch_size=batch_size,
        generator=np.random.Generator(np.random.PCG64(np.random.SeedSequence([_SEED, seed]))),
    )


def make_language_task(
    config: DecisionTransformerConfig, pretrained: Pretrained, timesteps: nn.Embedding | None
) -> LanguageTask | None:
    """Open the text and tie the tables; None where no text is asked for.

    Args:
        config: names the corpus.
        pretrained: has the language model.
        timesteps: becomes the language model's position table; None leaves it its own.

    Raises:
        UserError: if the corpus cannot be opened, or its vocabulary is not the initializer's.
    """
    if not config.language_corpus:
        return None
    from chibit.data.text.corpus import load_corpus  # what it needs, acting does not

    text = load_corpus(config.language_corpus)
    pretrained.require_vocabulary(text.vocab_size, config.language_corpus)
    model = pretrained.language_model
    assert model is not None  # require_vocabulary has seen to it
    tables = nn.ModuleDict({"tokens": model.tokens})
    if isinstance(model, LanguageModel):
        if timesteps is not None:
            model.positions = timesteps
        tables["positions"] = model.positions
    elif model.head is not None:
        tables["head"] = model.head
    if config.tuning == "lora":  # a frozen language model's words stay as they are
        for table in tables.values():
            table.requires_grad_(table is timesteps)
    return LanguageTask(config, model, text, tables)
