"""Initializers: where the trajectory model's weights come from, by one name.

    random                      drawn as GPT-2's are; the control that has the architecture and nothing else
    random_matched[:SOURCE]     each tensor drawn with its mean and standard deviation in SOURCE (chibit)
    chibit, markov              shipped: pre-trained on Wikipedia text, and on a Markov chain
    iid:STEPS, markov:STEPS, ngram:STEPS, shuffled_text:STEPS[:TEXT], chibit_3M:STEPS[:TEXT], ...
                                pre-trained by `chibit train` and `chibit study` on first use, and kept
    FOLDER                      a run of `chibit pretrain`, or the language model it wrote
    gpt2, clip, igpt[:FOLDER]   GPT-2, CLIP's text tower, ImageGPT: from the Hub or a folder
    hf:ID or hf:FOLDER          any causal language model that transformers can load
    MODULE:FUNCTION[:ARGUMENT]  a function of yours under `@initializer`
    own:NAME                    a module of yours that `register_backbone` was given
    hf_config:FOLDER            its architecture with untrained weights; saved policies use it

Source of the controls: Reid et al. (2022), §5; Takagi (2022); Wang et al. (2024).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from chibit.core.errors import InputError
from chibit.core.files import nearest, user_path
from chibit.core.home import language_model_folder
from chibit.core.plugins import AddressedRegistry, is_address
from chibit.models.backbone import Backbone
from chibit.models.conversion import Family, load_converted
from chibit.models.gpt import DROPOUTS, GPT, GPTConfig, GPTShape, Norm
from chibit.models.hub import model_folder
from chibit.models.huggingface import (
    HuggingFaceLanguageModel,
    build_huggingface,
    load_huggingface,
)
from chibit.models.language_model import (
    CONFIG,
    SHIPPED,
    WEIGHTS,
    LanguageModel,
    LanguageModelConfig,
    load_language_model,
    load_shipped,
)
from chibit.models.own_backbone import PREFIX, OwnBackbone, make_backbone

Transfer = Literal["whole", "blocks", "positions", "shuffled"]
TRANSFERS: tuple[Transfer, ...] = ("whole", "blocks", "positions", "shuffled")

HUB_IDS: dict[Family, str] = {
    "gpt2": "openai-community/gpt2",
    "clip": "openai/clip-vit-base-patch32",
    "igpt": "openai/imagegpt-small",
}
"""Where the named foreign models are, if no folder is given."""

TRAINED_WITHOUT_TEXT = ("iid", "markov", "ngram", "dyck", "automaton")
TRAINED = (*TRAINED_WITHOUT_TEXT, "shuffled_text", "chibit_0.6M", "chibit_3M", "chibit_18M", "chibit_84M")
"""Sources that are pre-trained on first use: NAME:STEPS, or NAME:STEPS:TEXT with text in place of
WikiText-103."""

_KNOWN = ("random", "random_matched", *SHIPPED, *HUB_IDS, *(f"{name}:STEPS" for name in TRAINED), "hf:")
_KINDS = ("random", "random_matched", "own", "hf", "hf_config", *SHIPPED, *HUB_IDS, *TRAINED)
_MATCHED = "random_matched:"


@dataclass(frozen=True)
class Pretrained:
    """Weights to start from. No tensor is shared with another call's, nor with a file."""

    backbone: Backbone
    token_embeddings: Tensor | None
    """(V, D) as loaded, for the centers of the similarity loss; None where there are none."""
    position_embeddings: Tensor | None
    """(P, D) as loaded; None where there are none, or where the backbone keeps its own."""
    language_model: LanguageModel | HuggingFaceLanguageModel | None
    """The language model around `backbone` (the same object, trained with it); None where there is none."""
    name: str
    """The name it was asked for under, and the transfer mask if it is not `whole`."""
    hash: str
    """SHA-256 over all tensors and their names."""

    def require_vocabulary(self, vocab_size: int, what: str) -> None:
        """Refuse text of another vocabulary.

        Args:
            vocab_size: of the text.
            what: the text, for the message.

        Raises:
            InputError: if there is no language model, or it knows another number of words.
        """
        if self.language_model is None:
            raise InputError(
                f"{self.name} has no language model to train on {what}; set language_weight to 0"
            )
        own = self.language_model.tokens.num_embeddings
        if own != vocab_size:
            raise InputError(
                f"{what} has a vocabulary of {vocab_size} tokens, {self.name} one of {own}; "
                "use text of the initializer's own vocabulary"
            )


def load_initializer(
    spec: str,
    *,
    gpt_config: GPTConfig | None = None,
    transfer: Transfer = "whole",
    image_gpt_norm: Norm = "rms",
    seed: int = 0,
) -> Pretrained:
    """Load or draw the weights that a name stands for.

    Args:
        spec: one of the names above.
        gpt_config: shape and dropout of a random backbone; None is Table 7's. For weights that bring their
            shape it may be left out; given, it must agree with them, and its dropouts are put in.
        transfer: `whole`; `blocks` alone, with a fresh final norm and no tables; `positions` alone, over a
            random backbone; or `shuffled`, everything with each tensor's entries permuted.
        image_gpt_norm: `rms` as ImageGPT has it, or `layernorm` as GPT-2's code would load it.
        seed: of all draws; torch's global generators are left as they were.

    Raises:
        InputError: for an unknown name or transfer, a missing folder or extra, or shapes that do not agree.
        DamagedFileError: for pickles and damaged files.
        ResourceError: if the Hub is needed and cannot be reached.
    """
    if transfer not in TRANSFERS:
        raise InputError(
            f"transfer is {transfer!r}, expected {', '.join(TRANSFERS)}{nearest(transfer, TRANSFERS)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec == "random":
            if transfer != "whole":
                raise InputError(
                    f"transfer is {transfer!r}, but random has no weights to transfer; use whole"
                )
            loaded = Weights(GPT(gpt_config or GPTConfig()))
        else:
            loaded = _transferred(_load(spec, image_gpt_norm), transfer, spec)
    backbone = cast(Backbone, loaded.backbone)
    if gpt_config is not None:
        _apply_config(loaded, backbone, gpt_config, spec)
    tables = {"tokens": loaded.tokens, "positions": loaded.positions}
    tensors = {name: table for name, table in tables.items() if table is not None}
    return Pretrained(
        backbone=backbone,
        token_embeddings=loaded.tokens,
        position_embeddings=loaded.positions,
        language_model=loaded.language_model,
        name=spec if transfer == "whole" else f"{spec} {transfer}",
        hash=_hash(backbone.state_dict() | tensors),
    )


@dataclass(frozen=True)
class Weights:
    """What an initializer gives."""

    backbone: nn.Module
    """A `Backbone`; another module is made an `OwnBackbone`."""
    tokens: Tensor | None = None
    """(V, D) word embeddings, for the similarity loss."""
    positions: Tensor | None = None
    """(P, D) position embeddings, for the timestep table."""
    language_model: LanguageModel | HuggingFaceLanguageModel | None = None
    """The language model around `backbone`, for co-training."""


Initializer: TypeAlias = Callable[[str], Weights]
INITIALIZERS: AddressedRegistry[Initializer] = AddressedRegistry(
    "initializer", "initializers", "--initializer", "a function under @initializer"
)
"""Those of installed plugins and of a user's modules, by the names of their functions."""


def initializer(function: Initializer) -> Initializer:
    """Make a function known as an initializer: ``--initializer MODULE:FUNCTION[:ARGUMENT]``.

    It is called with that argument, empty where there is none; torch's global generator is seeded for it.
    """
    name = function.__name__
    INITIALIZERS.add(name, function, function, f"{function.__module__}:{name}")
    return function


def import_initializer(spec: str) -> None:
    """Import the module of an initializer MODULE:FUNCTION; nothing happens for others.

    Raises:
        InputError: if there is no such module, or no initializer of that name in it.
    """
    module, _, rest = spec.removeprefix(_MATCHED).partition(":")
    address = f"{module}:{rest.partition(':')[0]}"
    if is_address(address) and module not in (*_KINDS, *INITIALIZERS):
        INITIALIZERS.load(address)


def short_name(spec: str) -> str:
    """Name of an initializer in tables: without its argument, its module or its parent folders."""
    own = _own(spec)
    if spec.startswith(PREFIX):
        return spec.removeprefix(PREFIX)
    return own[0] if own else Path(spec.partition(":")[0]).name or "random"


def is_own(spec: str) -> bool:
    """Whether a name is that of somebody's own initializer, here or not; nothing is imported for it."""
    kind, _, rest = spec.partition(":")
    address = f"{kind}:{rest.partition(':')[0]}"
    return spec.startswith(PREFIX) or _own(spec) is not None or (is_address(address) and kind not in _KINDS)


def _own(spec: str) -> tuple[str, str] | None:
    """Key and argument of an initializer in `INITIALIZERS`; None for others."""
    kind, _, rest = spec.partition(":")
    name, _, argument = rest.partition(":")
    key = INITIALIZERS.key_of(f"{kind}:{name}")
    if key is not None:
        return key, argument
    return (kind, rest) if kind in INITIALIZERS and kind not in _KINDS else None


def _load(spec: str, image_gpt_norm: Norm) -> Weights:
    """Weights as their source has them."""
    kind, _, rest = spec.partition(":")
    if spec.startswith(PREFIX):
        return Weights(make_backbone(rest))
    if own := _own(spec):
        made = INITIALIZERS[own[0]](own[1])
        is_one = isinstance(made.backbone, Backbone)
        return made if is_one else replace(made, backbone=OwnBackbone(made.backbone))
    if kind == "random_matched":
        source = _load(rest or "chibit", image_gpt_norm)
        return _redrawn(
            source, lambda tensor: tensor.mean() + tensor.std(correction=0) * torch.randn_like(tensor)
        )
    if spec.endswith(":") and kind not in TRAINED:
        raise InputError(f"initializer {spec!r} names no model; give {spec}ID, {spec}FOLDER or a known name")
    if kind == "hf" and rest:
        return _from_language_model(load_huggingface(rest))
    if kind == "hf_config" and rest:
        return _from_language_model(build_huggingface(rest))
    if kind in HUB_IDS:
        return _foreign(kind, rest or HUB_IDS[kind], image_gpt_norm)
    if spec in SHIPPED:
        return _from_language_model(load_shipped(spec))
    trained = parse_trained(spec)
    if trained is not None:
        folder = language_model_folder(*trained)
        if not (folder / "result.json").is_file():
            raise InputError(
                f"{spec} is not pre-trained yet; chibit train and chibit study do it on first use"
            )
        return _from_language_model(load_language_model(find_language_model(folder)))
    if spec and user_path(spec).is_dir():
        return _from_language_model(load_language_model(find_language_model(user_path(spec))))
    hint = nearest(kind, (*_KNOWN, *INITIALIZERS)) or f"; expected {', '.join(_KNOWN)}ID, or a folder"
    if is_address(spec.rpartition(":")[0]) or is_address(spec):
        hint = f"; if it is of a module of yours, give --initializer {spec} (in Python: import {kind})"
    raise InputError(f"initializer {spec!r} is neither a known name nor a folder{hint}")


def parse_trained(spec: str) -> tuple[str, int, str] | None:
    """Name, steps and text of a source that is pre-trained on first use; None for other initializers.

    Raises:
        InputError: without steps.
    """
    name, _, rest = spec.partition(":")
    if name not in TRAINED or spec in SHIPPED:
        return None
    steps, _, text = rest.partition(":")
    if not (steps.isascii() and steps.isdigit() and int(steps) > 0):
        raise InputError(
            f"initializer {spec!r}: expected the gradient steps of its pre-training, such as {name}:2000"
        )
    return name, int(steps), text


def with_budget(init: str, steps: int | None, text: str = "") -> str:
    """An initializer with other steps or another text; one that is not pre-trained on first use as it is.

    Args:
        init: any initializer.
        steps: gradient steps; None keeps its own.
        text: text; empty keeps its own.
    """
    found = parse_trained(init)
    if found is None:
        return init
    name, own_steps, own_text = found
    text = (text or own_text) if name not in TRAINED_WITHOUT_TEXT else ""
    return f"{name}:{steps or own_steps}" + (f":{text}" if text else "")


def _foreign(family: Family, source: str, image_gpt_norm: Norm) -> Weights:
    folder = model_folder(source, flag=f"{family}:FOLDER")
    backbone, tokens, positions = load_converted(family, folder, image_gpt_norm=image_gpt_norm)
    if family != "gpt2":  # CLIP's tower and ImageGPT have no tied head over words
        return Weights(backbone, tokens, positions)
    config = LanguageModelConfig(gpt=backbone.config, vocab_size=len(tokens), n_positions=len(positions))
    with torch.device("meta"):
        model = LanguageModel(config)
    model.gpt = backbone
    model.tokens = nn.Embedding(len(tokens), backbone.width, _weight=tokens)
    model.positions = nn.Embedding(len(positions), backbone.width, _weight=positions)
    return _from_language_model(model)


def _from_language_model(model: LanguageModel | HuggingFaceLanguageModel) -> Weights:
    positions = model.positions.weight if isinstance(model, LanguageModel) else None
    return Weights(
        backbone=model.gpt,
        tokens=model.tokens.weight.detach().clone(),
        positions=None if positions is None else positions.detach().clone(),
        language_model=model,
    )


def find_language_model(folder: Path) -> Path:
    """The folder itself, or the language model that a run of `chibit pretrain` wrote into it."""
    for candidate in (folder / "language_model", folder):
        if (candidate / WEIGHTS).exists() and (candidate / CONFIG).exists():
            return candidate
    raise InputError(
        f"{folder}: no language model in it ({WEIGHTS} and {CONFIG}); let `chibit pretrain` write one, "
        "or use hf:FOLDER for a model of transformers"
    )


def _transferred(loaded: Weights, transfer: Transfer, spec: str) -> Weights:
    """What a transfer mask leaves of the weights."""
    if transfer == "whole":
        return loaded
    if transfer == "shuffled":
        return _redrawn(
            loaded, lambda tensor: tensor.flatten()[torch.randperm(tensor.numel())].view_as(tensor)
        )
    if not isinstance(loaded.backbone, GPT):
        raise InputError(f"transfer is {transfer!r}, but {spec} cannot be taken apart; use whole or shuffled")
    fresh = GPT(loaded.backbone.config)
    if transfer == "positions":
        return Weights(fresh, positions=loaded.positions)
    fresh.blocks = loaded.backbone.blocks
    return Weights(fresh)


@torch.no_grad()
def _redrawn(loaded: Weights, draw: Callable[[Tensor], Tensor]) -> Weights:
    """Replace every tensor by a draw that depends on it, in place; a tied tensor is drawn once."""
    for parameter in (loaded.language_model or loaded.backbone).parameters():
        parameter.copy_(draw(parameter))
    if loaded.language_model is not None:
        return _from_language_model(loaded.language_model)
    return replace(
        loaded,
        tokens=None if loaded.tokens is None else draw(loaded.tokens),
        positions=None if loaded.positions is None else draw(loaded.positions),
    )


def _apply_config(loaded: Weights, backbone: Backbone, config: GPTConfig, spec: str) -> None:
    """Hold a shape against the weights', and put its dropouts in."""
    is_own = isinstance(backbone, GPT)
    shape = backbone.config if isinstance(backbone, GPT) else GPTShape(n_embd=backbone.width)
    for name in vars(GPTShape()):
        field = "inner_width" if name == "n_inner" else name
        given, there = getattr(config, field), getattr(shape, field)
        if given != there:
            known = f"has {there!r}" if is_own or name == "n_embd" else "brings its own"
            raise InputError(f"{name} is {given!r}, but {spec} {known}; leave it out, or use random")
    if isinstance(backbone, GPT):
        backbone.set_dropout(**{name: getattr(config, name) for name in DROPOUTS})
        if isinstance(loaded.language_model, LanguageModel):
            loaded.language_model.config = replace(loaded.language_model.config, gpt=backbone.config)


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
