"""A GPT with word and position embeddings and a tied head: what `chibit pretrain` trains.

ChibiT is one: 50,257 words and 1,024 positions of width 128 under three blocks. A language model is kept as a
folder of two files, `model.safetensors` and `config.json`.

Dimensions: B batch · T tokens · D width · V vocabulary · P positions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated

import safetensors.torch
import torch
from annotated_types import Interval
from torch import Tensor, nn

from chibit.core.config import Checked, from_json, read_json, to_json
from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.core.files import links_within, nearest, write_atomic
from chibit.core.shared_folder import MANIFEST, shared_folder
from chibit.core.tensors import read_safetensors
from chibit.models.counting import check_plausible, require_fit
from chibit.models.gpt import GPT, GPTConfig
from chibit.models.vocabulary_loss import CHUNK_TOKENS, Candidates, vocabulary_loss

WEIGHTS = "model.safetensors"
_DIGEST = "sha256"
CONFIG = "config.json"
SHIPPED = ("chibit", "markov")
"""Language models that come with the package."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(Checked):
    """Shape of a language model. Defaults: ChibiT, GPT-2's vocabulary and positions."""

    gpt: GPTConfig = field(default_factory=GPTConfig)
    """The backbone."""
    vocab_size: Annotated[int, Interval(ge=2)] = 50_257
    """Words V."""
    n_positions: Annotated[int, Interval(ge=2)] = 1024
    """Positions P, the longest block the model can read."""


class LanguageModel(nn.Module):
    """Predicts the next token; the head is the word embeddings themselves."""

    def __init__(self, config: LanguageModelConfig) -> None:
        """Build a model with GPT-2's initialization, drawn from torch's global generator."""
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.gpt.n_embd)
        self.positions = nn.Embedding(config.n_positions, config.gpt.n_embd)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.gpt = GPT(config.gpt)

    def forward(
        self, token_ids: Tensor, *, offsets: Tensor | None = None, positions: slice | None = None
    ) -> Tensor:
        """Map token ids to normalized hidden states.

        Args:
            token_ids: (B, T) int64, T at most P.
            offsets: (B,) int64, the position of each sequence's first token; None is 0.
            positions: as in `GPT.forward`.

        Returns:
            (B, T', D).

        Raises:
            InputError: when a sequence is longer than the position table.
        """
        length = token_ids.shape[1]
        if length > self.config.n_positions:
            raise InputError(f"{length} tokens in a block, expected at most {self.config.n_positions}")
        rows = torch.arange(length, device=token_ids.device)
        if offsets is not None:
            rows = rows + offsets[:, None]  # (B, T)
        hidden: Tensor = self.gpt(self.tokens(token_ids) + self.positions(rows), positions=positions)
        return hidden

    def logits(self, token_ids: Tensor, *, positions: slice | None = None) -> Tensor:
        """(B, T', V) scores of the next token; all of them at once, so for short inputs."""
        hidden: Tensor = self(token_ids, positions=positions)
        return hidden @ self.tokens.weight.T

    def loss(
        self,
        token_ids: Tensor,
        *,
        offsets: Tensor | None = None,
        candidates: Candidates | None = None,
        chunk: int = CHUNK_TOKENS,
    ) -> Tensor:
        """Mean negative log-likelihood of each next token, in nats.

        Args:
            token_ids: (B, T + 1) int64; the model reads the first T and is asked for the last T.
            offsets: as in `forward`.
            candidates: a sample of the vocabulary to estimate the loss from; see `vocabulary_loss`.
            chunk: tokens whose logits exist at a time.
        """
        hidden = self(token_ids[:, :-1], offsets=offsets)
        targets = token_ids[:, 1:].reshape(-1)
        return vocabulary_loss(
            hidden.flatten(0, 1), self.tokens.weight, targets, candidates=candidates, chunk=chunk
        )

    @torch.no_grad()
    def generate(
        self, token_ids: Tensor, num_tokens: int, *, generator: torch.Generator, temperature: float = 1.0
    ) -> Tensor:
        """Continue a text by sampling; what is older than the position table is forgotten.

        Args:
            token_ids: (B, T) int64, T at least 1.
            num_tokens: how many to add.
            generator: source of the draws, on the model's device.
            temperature: divides the scores; 0 always takes the likeliest token.

        Returns:
            (B, T + num_tokens) int64.
        """
        for _ in range(num_tokens):
            window = token_ids[:, -self.config.n_positions :]
            scores = self.logits(window, positions=slice(-1, None))[:, -1].float()
            if temperature == 0.0:
                drawn = scores.argmax(-1, keepdim=True)
            else:
                drawn = torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator)
            token_ids = torch.cat((token_ids, drawn), dim=1)
        return token_ids


def save_language_model(
    model: LanguageModel,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    extra: dict[str, str] | None = None,
) -> Path:
    """Write a language model into a folder, beside what is there; an earlier one of ours is replaced.

    Args:
        model: what to save.
        folder: where to.
        dtype: precision on disk; loading always gives float32.
        extra: further text files of the folder, by name.

    Raises:
        InputError: where the folder holds a run, a data set or the like, or a file of somebody else's under
            one of our names.
        ResourceError: if it cannot be written.
    """
    state = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    with shared_folder(folder, "language model", recognized=_written_before(folder)) as temporary:
        metadata = {_DIGEST: _digest(model.config, state)}
        write_atomic(temporary / WEIGHTS, safetensors.torch.save(state, metadata))
        write_atomic(temporary / CONFIG, json.dumps(to_json(model.config), indent=1) + "\n")
        for name, text in (extra or {}).items():
            write_atomic(temporary / name, text)
    return folder


def _written_before(folder: Path) -> tuple[str, ...]:
    """The files of a language model that an earlier version wrote, which kept no list of them."""
    if (folder / MANIFEST).exists() or not (folder / WEIGHTS).is_file():
        return ()
    try:
        config = _read_config(folder)
        state, digest = _read_tensors(folder / WEIGHTS)
    except UserError:
        return ()
    return (WEIGHTS, CONFIG) if digest == _digest(config, state) else ()


def load_language_model(folder: Path) -> LanguageModel:
    """Read a language model's folder; keys, shapes and numbers must be those its config.json promises.

    Raises:
        InputError: when a file is missing or is not of this kind.
        DamagedFileError: when a file is damaged, or its tensors do not fit the configuration.
    """
    config = _read_config(folder)
    state, digest = _read_tensors(folder / WEIGHTS)
    check_plausible(config, state, folder / CONFIG)
    with torch.device("meta"):
        model = LanguageModel(config)
    require_fit(state, model.state_dict(), folder / WEIGHTS)
    if digest not in (None, _digest(config, state)):
        raise DamagedFileError(
            f"{folder / WEIGHTS}: it or {CONFIG} does not match its SHA-256; train or fetch the model again"
        )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def _read_config(folder: Path) -> LanguageModelConfig:
    path = folder / CONFIG
    return from_json(LanguageModelConfig, read_json(path, inside=links_within(folder)), str(path))


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Tensors, and the digest that was saved with them; None for files of other programs."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a folder with {WEIGHTS} and {CONFIG}")
    tensors, metadata = read_safetensors(
        path, inside=links_within(path.parent), kind=DamagedFileError, remedy="train or fetch it again"
    )
    return tensors, metadata.get(_DIGEST)


def _digest(config: LanguageModelConfig, state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a configuration and of tensors in the precision they are stored in."""
    sha = hashlib.sha256(json.dumps(to_json(config), sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def shipped_folder(name: str) -> Path:
    """Folder of a language model that comes with the package.

    Raises:
        InputError: for a name that is not one of `SHIPPED`.
    """
    if name not in SHIPPED:
        hint = nearest(name, SHIPPED)
        raise InputError(f"shipped language model {name!r}: expected {' or '.join(SHIPPED)}{hint}")
    return Path(str(resources.files("chibit"))) / "assets" / name


def load_shipped(name: str) -> LanguageModel:
    """Load a model that comes with the package: `chibit` (Wikipedia text) or `markov` (a Markov chain)."""
    return load_language_model(shipped_folder(name))
