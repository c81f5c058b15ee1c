"""Any causal language model that `transformers` can load, as a Backbone with GPT's forward.

The word embeddings and the output head are taken off: trajectory tokens come in as embeddings and hidden
states go out. `HuggingFaceLanguageModel` keeps both beside the backbone, for the similarity loss and
co-training.

Dimensions: B batch · T tokens · T' tokens whose output is asked for · D width · H heads · V vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from chibit.core.errors import DamagedFileError, InputError, UserError, first_line, needing
from chibit.core.fields import MAX_LAYERS
from chibit.core.files import user_path
from chibit.core.memory import check_fits
from chibit.core.runtime import evaluating
from chibit.models.backbone import Backbone
from chibit.models.hub import model_folder, read_config, require_safe_weights
from chibit.models.own_backbone import looks_ahead
from chibit.models.vocabulary_loss import vocabulary_loss

_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "n_inner", "vocab_size", "n_positions")
"""What the size of a model follows from, by the names of `transformers`."""
PreTrainedModel = Any
"""A model of `transformers`, whose own annotations are too loose to check against."""


class HuggingFaceBackbone(Backbone):
    """The body of a causal language model; position ids run from 0 at the first real token.

    Attributes:
        body: the model without its head and without its table of word embeddings.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Take over the body of a model, which loses its table of word embeddings.

        Args:
            model: a `transformers` model with a language-modeling head.

        Raises:
            InputError: if a token's output depends on a later token, or the model takes no embeddings.
        """
        super().__init__()
        name = type(model).__name__
        if model.base_model is model or model.get_output_embeddings() is None:
            raise InputError(f"{name} has no language-modeling head; give a causal language model")
        self.body = model.base_model
        table = model.get_input_embeddings()
        self.width = int(table.embedding_dim)
        parameters = inspect.signature(self.body.forward).parameters
        if "inputs_embeds" not in parameters:
            raise InputError(f"{name} takes no input embeddings; give another causal language model")
        self._takes_positions = "position_ids" in parameters
        text_config = model.config.get_text_config()
        self.max_tokens: int | None = getattr(text_config, "max_position_embeddings", None)
        model.config.use_cache = text_config.use_cache = False
        self._attention = "eager"  # as it was loaded
        model.set_attn_implementation("eager")
        # The table stays with whoever holds the language model; one row keeps the body's structure whole.
        row = nn.Embedding(1, self.width, _weight=table.weight.new_zeros(1, self.width))
        model.set_input_embeddings(row.requires_grad_(False))
        self._embedding_dropout = 0.0
        self._require_causal(name)

    def set_dropout(self, *, attn_dropout: float, resid_dropout: float, embd_dropout: float) -> None:
        """See `Backbone`. Architectures keep them as layers, or as numbers; both are set.

        Args:
            attn_dropout: of attention weights, where that is a number.
            resid_dropout: of every other dropout of the model.
            embd_dropout: of input embeddings, where the model has no such other dropout.
        """
        is_dropped = False
        for module in self.body.modules():
            if isinstance(module, nn.Dropout):
                module.p, is_dropped = resid_dropout, True
            for name, value in list(vars(module).items()):
                # A file may say 0 for 0.0.
                if "dropout" in name and (isinstance(value, float) or (type(value) is int and value == 0)):
                    is_attention = name.startswith("att")
                    setattr(module, name, attn_dropout if is_attention else resid_dropout)
                    is_dropped |= not is_attention
        self._embedding_dropout = 0.0 if is_dropped else embd_dropout

    def save_config(self, folder: Path) -> None:
        """The configuration, as the library saves it."""
        self.body.config.save_pretrained(folder)

    def _require_causal(self, name: str) -> None:
        """Change the last token of a sequence and see whether an earlier output moves."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(1, 4, self.width, generator=generator).to(next(self.body.parameters()))
        changed = tokens.clone()
        changed[:, -1] *= -1
        with evaluating(self.body):
            before, after = self(tokens), self(changed)
        if before.shape != tokens.shape:
            raise InputError(
                f"{name} turns width {self.width} into {before.shape[-1]}; give a model that keeps its width"
            )
        if looks_ahead(before, after):
            raise InputError(
                f"{name} is not causal: a token's output depends on later tokens; "
                "give a causal language model"
            )

    def _choose_attention(self, device: torch.device, *, want_weights: bool) -> None:
        """The library's kernel on GPUs; the eager form gives attention weights, and is the faster on CPUs."""
        wanted = "eager" if want_weights or device.type == "cpu" else "sdpa"
        if wanted != self._attention:
            self._attention = wanted
            with contextlib.suppress(ValueError):  # an architecture without the kernel stays as it is
                self.body.set_attn_implementation(wanted)

    def forward(
        self,
        embeddings: Tensor,
        attention_mask: Tensor | None = None,
        *,
        positions: slice | None = None,
        return_attentions: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        """See `Backbone`."""
        tokens = embeddings.shape[1]
        if self.max_tokens is not None and tokens > self.max_tokens:
            raise InputError(
                f"{tokens} tokens, but {type(self.body).__name__} has {self.max_tokens} positions; "
                "use a shorter context"
            )
        self._choose_attention(embeddings.device, want_weights=return_attentions)
        extra: dict[str, Any] = {"output_attentions": True} if return_attentions else {}
        if self._takes_positions:
            places = torch.arange(tokens, device=embeddings.device)[None]
            if attention_mask is not None:  # counted from the first real token, wherever padding is
                places = (attention_mask.cumsum(1) - 1).clamp(min=0)
            extra["position_ids"] = places
        mask = None if attention_mask is None else attention_mask.long()
        embeddings = nn.functional.dropout(embeddings, self._embedding_dropout, self.training)
        output = self.body(inputs_embeds=embeddings, attention_mask=mask, **extra)
        rows = slice(None) if positions is None else positions
        hidden: Tensor = output.last_hidden_state[:, rows]
        if not return_attentions:
            return hidden
        maps = output.get("attentions") or (torch.empty(0),)
        if any(
            found.ndim != 4 or found.shape[-1] != tokens for found in maps
        ):  # RWKV gives states under the name
            raise InputError(
                f"{type(self.body).__name__} gives no attention maps; use another model for them"
            )
        *earlier, last = output.attentions
        return hidden, (*earlier, last[:, :, rows])


class HuggingFaceLanguageModel(nn.Module):
    """A causal language model as its backbone, its word embeddings and its head.

    Attributes:
        tokens: table of word embeddings (V, D).
        gpt: the backbone.
        head: map from hidden states to logits, or None where it is the transposed table.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a model apart; it cannot be used any more afterwards."""
        super().__init__()
        self.name = type(model).__name__
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        probe = torch.arange(8).remainder(len(table.weight))[None]
        expected = _own_loss(model, probe)
        self.gpt = HuggingFaceBackbone(model)
        self.tokens: nn.Embedding = table
        self.head: nn.Linear | None = None if head.weight is table.weight else head
        # Some models scale, bound or shift their logits; theirs is then not the loss computed here.
        self._has_plain_head = True
        self._has_plain_head = math.isclose(self._evaluated_loss(probe), expected, rel_tol=1e-4)

    def loss(self, token_ids: Tensor) -> Tensor:
        """Mean negative log-likelihood of each token after the first, given those before it.

        Args:
            token_ids: (B, T) int64, T at least 2.

        Returns:
            Scalar in nats.

        Raises:
            InputError: if the model turns hidden states into logits by more than a matrix.
        """
        if not self._has_plain_head:
            raise InputError(
                f"{self.name} does more than a matrix product for its logits, which is not supported here; "
                "set language_weight to 0"
            )
        hidden = self.gpt(self.tokens(token_ids[:, :-1]))
        table = self.tokens.weight if self.head is None else self.head.weight
        return vocabulary_loss(hidden.flatten(0, 1), table, token_ids[:, 1:].flatten())

    def hidden_states(self, token_ids: Tensor) -> tuple[Tensor, ...]:
        """(B, T, D) of (B, T) tokens: their embeddings, then what each layer gives."""
        output = self.gpt.body(inputs_embeds=self.tokens(token_ids), output_hidden_states=True)
        states: tuple[Tensor, ...] = output.hidden_states
        return states

    def perplexity(self, token_ids: Tensor) -> float:
        """Exponential of the loss of (B, T) tokens, without dropout; at most e^700."""
        return math.exp(min(self._evaluated_loss(token_ids), 700.0))

    def _evaluated_loss(self, token_ids: Tensor) -> float:
        with evaluating(self):
            return self.loss(token_ids).item()


def _own_loss(model: PreTrainedModel, token_ids: Tensor) -> float:
    with evaluating(model):
        logits = model(input_ids=token_ids[:, :-1]).logits.float()
    return float(nn.functional.cross_entropy(logits.flatten(0, 1), token_ids[:, 1:].flatten()))


def load_huggingface(source: str) -> HuggingFaceLanguageModel:
    """Load a causal language model in float32.

    Args:
        source: a folder of `save_pretrained`, a folder with one GGUF file, a GGUF file, or a Hub id.

    Raises:
        InputError: for a model that is not causal or not known to `transformers`, and for a missing extra.
        DamagedFileError: for pickles, damaged files and missing tensors.
        ResourceError: if the Hub is needed and cannot be reached.
    """
    folder, extra = _locate(source)
    transformers = _import_transformers()
    with _reading(folder):
        if not extra:
            _check_size(_read_config(folder), folder)
        with torch.random.fork_rng(devices=[]):
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **extra,
            )
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise DamagedFileError(
                f"{folder}: {len(missing)} tensors are missing, first {missing[0]}; fetch it again"
            )
        for name, weight in model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise DamagedFileError(f"{folder}: {name} holds what is not a finite number; fetch it again")
        return HuggingFaceLanguageModel(model)


def build_huggingface(folder: str) -> HuggingFaceLanguageModel:
    """Build a causal language model with untrained weights, for a saved policy to be loaded into.

    Args:
        folder: has the `config.json` of a model of `transformers`.

    Raises:
        InputError: if there is none, or it is not of a causal language model.
    """
    transformers = _import_transformers()
    with _reading(Path(folder)):
        config = _read_config(Path(folder))
        _check_size(config, Path(folder))
        with torch.random.fork_rng(devices=[]):
            model = transformers.AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
            )
        return HuggingFaceLanguageModel(model)


def load_tokenizer(source: str) -> Callable[[str], list[int]]:
    """What turns a text into the tokens of a model, without special ones; source as of `load_huggingface`.

    Raises:
        InputError: if there is no tokenizer beside the model.
    """
    folder, extra = _locate(source)
    transformers = _import_transformers()
    with _reading(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **extra
        )

    def tokenize(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return ids

    return tokenize


def _locate(source: str) -> tuple[Path, dict[str, str]]:
    """Folder of a model, and the argument that names the GGUF file in it, if that is what it has."""
    path = user_path(source)
    if path.suffix == ".gguf" and path.is_file():
        folder, files = path.parent, [path.name]
    else:
        folder = model_folder(source, flag="hf:FOLDER")
        require_safe_weights(folder)
        files = sorted(file.name for file in folder.glob("*.gguf"))
        if any(folder.glob("model*.safetensors")):
            return folder, {}
    if len(files) > 1:
        raise InputError(f"{folder}: has several GGUF files ({', '.join(files)}); give one of them")
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{folder}: GGUF files need the extra gguf: pip install 'chibit[gguf]'")
    return folder, {"gguf_file": files[0]}


def _import_transformers() -> Any:
    with needing("hf", "an hf: model"):
        transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _read_config(folder: Path) -> Any:
    read_config(folder)  # bounded and strict: transformers decodes and prints whatever stands there
    return _import_transformers().AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )


def _check_size(config: Any, folder: Path) -> None:
    """Refuse a model that nobody could build, by what its configuration says, before it is built.

    The estimate is from below: a block of whatever kind has a square matrix and one to its inner width.
    """
    text = config.get_text_config()
    found = [getattr(text, name, None) for name in _SIZES]
    layers, width, inner, n_inner, words, positions = (n if isinstance(n, int) else 0 for n in found)
    if layers > MAX_LAYERS:
        raise DamagedFileError(f"{folder / 'config.json'}: {layers:,} layers; no model has so many")
    weights = width * (layers * (width + max(inner, n_inner)) + words + positions)
    check_fits(4 * weights, f"{folder}: a model of {weights:,} weights", "use a smaller model")


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """One line for whatever `transformers` stumbles over in files that it checks as it goes."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except (SafetensorError, RuntimeError, KeyError, EOFError) as error:
        reason = first_line(error)
        raise DamagedFileError(f"{folder}: cannot be loaded ({reason}); fetch it again") from error
    except Exception as error:
        raise InputError(f"{folder}: not a causal language model ({first_line(error)})") from error
