"""Weights of GPT-2, CLIP's text tower and ImageGPT, mapped into our `GPT`.

All three are stacks of pre-norm blocks; they differ in names, norm, activation and the layout of a linear
map's matrix. Sizes are read off the tensors themselves and held against `config.json`, and every parameter
must be found, so nothing is left at a random value unnoticed.

Sources: transformers' modeling_gpt2, modeling_clip and modeling_imagegpt for names and layouts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from chibit.core.errors import DamagedFileError, InputError
from chibit.models.gpt import GPT, GPTConfig, Norm
from chibit.models.hub import read_config, read_weights

Family = Literal["gpt2", "clip", "igpt"]

_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
}
_UNSUPPORTED = {
    "scale_attn_by_inverse_layer_idx": True,
    "add_cross_attention": True,
    "scale_attn_weights": False,
}


class Converted(NamedTuple):
    """A foreign model as ours."""

    backbone: GPT
    """Its blocks."""
    token_embeddings: Tensor
    """(V, D)."""
    position_embeddings: Tensor
    """(P, D)."""


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How one family names and stores what we have."""

    model_types: tuple[str, ...]
    """Admitted values of `model_type` in its config."""
    blocks: str
    """Prefix of a block, before its number."""
    norm: str
    tokens: str
    positions: str
    qkv: tuple[str, ...]
    """Within a block: one fused map, or one each for queries, keys and values."""
    modules: Mapping[str, str]
    """The other modules of a block, ours to theirs."""
    transposed: bool
    """Whether matrices are stored (in, out)."""
    has_norm_bias: bool = True
    fields: Mapping[str, str]
    """Fields of its config, by our name."""
    defaults: Mapping[str, Any]
    """What its config class fills in where `config.json` is silent."""


_DROPOUTS = {"attn_dropout": "attn_pdrop", "resid_dropout": "resid_pdrop", "embd_dropout": "embd_pdrop"}
_GPT2 = _Layout(
    model_types=("gpt2",),
    blocks="h",
    norm="ln_f",
    tokens="wte.weight",
    positions="wpe.weight",
    qkv=("attn.c_attn",),
    modules={
        "attention_norm": "ln_1",
        "attention.projection": "attn.c_proj",
        "mlp_norm": "ln_2",
        "expand": "mlp.c_fc",
        "contract": "mlp.c_proj",
    },
    transposed=True,
    fields={"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "vocabulary": "vocab_size"}
    | {"positions": "n_positions", "activation": "activation_function", "norm_eps": "layer_norm_epsilon"}
    | _DROPOUTS,
    defaults={"n_head": 12, "activation": "gelu_new", "norm_eps": 1e-5} | dict.fromkeys(_DROPOUTS, 0.1),
)
_IMAGE_GPT = dataclasses.replace(
    _GPT2,
    model_types=("imagegpt",),
    has_norm_bias=False,
    defaults={**_GPT2.defaults, "n_head": 8, "activation": "quick_gelu"},
)
_CLIP = _Layout(
    model_types=("clip", "clip_text_model"),
    blocks="encoder.layers",
    norm="final_layer_norm",
    tokens="embeddings.token_embedding.weight",
    positions="embeddings.position_embedding.weight",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    modules={
        "attention_norm": "layer_norm1",
        "attention.projection": "self_attn.out_proj",
        "mlp_norm": "layer_norm2",
        "expand": "mlp.fc1",
        "contract": "mlp.fc2",
    },
    transposed=False,
    fields={"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_embd": "hidden_size"}
    | {"vocabulary": "vocab_size", "positions": "max_position_embeddings", "activation": "hidden_act"}
    | {"norm_eps": "layer_norm_eps", "attn_dropout": "attention_dropout"},
    # CLIP drops attention weights alone.
    defaults={"n_head": 8, "activation": "quick_gelu", "norm_eps": 1e-5} | dict.fromkeys(_DROPOUTS, 0.0),
)
_LAYOUTS: dict[Family, _Layout] = {"gpt2": _GPT2, "clip": _CLIP, "igpt": _IMAGE_GPT}


def load_converted(family: Family, folder: Path, *, image_gpt_norm: Norm = "rms") -> Converted:
    """Read a folder of `save_pretrained` into our GPT.

    Args:
        family: whose names and layouts the folder has.
        folder: with `config.json` and `model.safetensors` (or its shards).
        image_gpt_norm: `rms`, which is what ImageGPT computes, or `layernorm`: its weights under GPT-2's
            code, as Takagi (2022) loaded them.

    Raises:
        InputError: if the folder holds another architecture, or its sizes do not agree.
        DamagedFileError: for pickles, damaged files and missing tensors.
    """
    layout = _LAYOUTS[family]
    where = folder / "config.json"
    config = _checked_config(family, layout, read_config(folder), where)
    weights = _Weights(layout, folder)
    tokens, positions = weights.take(layout.tokens), weights.take(layout.positions)
    sizes = {"n_layer": weights.count_blocks(), "n_embd": tokens.shape[-1]}
    _compare_sizes(config, sizes | {"vocabulary": len(tokens), "positions": len(positions)}, layout, where)
    n_inner = len(weights.take(f"{layout.blocks}.0.{layout.modules['expand']}.bias"))
    norm = image_gpt_norm if family == "igpt" else "layernorm"
    with torch.device("meta"):  # no random draws, no second copy
        backbone = GPT(_gpt_config(config, norm, where, n_inner=n_inner, **sizes))
    state = {name: weights.find(name, expected.shape) for name, expected in backbone.state_dict().items()}
    backbone.load_state_dict(state, assign=True)
    return Converted(backbone, tokens, positions)


class _Weights:
    """The tensors of a folder under their family's names, asked for under ours."""

    def __init__(self, layout: _Layout, folder: Path) -> None:
        self.layout, self.folder = layout, folder
        # A model with a head, or with an image tower, puts a prefix before the body.
        prefix = re.compile(r"^(transformer|text_model)\.")
        self.tensors = {prefix.sub("", name): tensor for name, tensor in read_weights(folder).items()}

    def take(self, name: str) -> Tensor:
        """The tensor under one of their names."""
        if name not in self.tensors:
            raise DamagedFileError(f"{self.folder}: no tensor {name} in its weights; save the model again")
        return self.tensors[name]

    def find(self, name: str, shape: torch.Size) -> Tensor:
        """The tensor that belongs under one of our names, in our layout."""
        module, leaf = name.rsplit(".", 1)
        if leaf == "bias" and module.endswith("norm") and not self.layout.has_norm_bias:
            return torch.zeros(shape)
        sources = [f"{source}.{leaf}" for source in self._sources(module)]
        tensor = torch.cat([self.take(source) for source in sources])
        if self.layout.transposed and tensor.ndim == 2:
            tensor = tensor.T.contiguous()
        if tensor.shape != shape:
            raise InputError(
                f"{self.folder}: tensor {sources[0]} has shape {tuple(tensor.shape)} in our layout, "
                f"expected {tuple(shape)}; save the model again"
            )
        return tensor

    def _sources(self, module: str) -> list[str]:
        if module == "norm":
            return [self.layout.norm]
        _, number, inside = module.split(".", 2)  # blocks.3.attention.qkv
        theirs = self.layout.qkv if inside == "attention.qkv" else (self.layout.modules[inside],)
        return [f"{self.layout.blocks}.{number}.{name}" for name in theirs]

    def count_blocks(self) -> int:
        """The highest number of a block among the names, plus one."""
        pattern = re.compile(rf"{re.escape(self.layout.blocks)}\.(\d+)\.")
        numbers = [int(match[1]) for name in self.tensors if (match := pattern.match(name))]
        return max(numbers, default=-1) + 1


def _checked_config(
    family: Family, layout: _Layout, config: Mapping[str, Any], where: Path
) -> dict[str, Any]:
    """The fields we use, under our names; refuses another architecture."""
    given = config.get("model_type")
    if given not in layout.model_types:
        raise InputError(
            f"{where}: model_type is {given!r}, expected {' or '.join(layout.model_types)} for {family}; "
            f"for another causal language model use hf:{where.parent}"
        )
    for switch, value in _UNSUPPORTED.items():
        if config.get(switch) is value:
            raise InputError(f"{where}: {switch} is {value}, which is not supported; use hf:{where.parent}")
    text = config.get("text_config") or config
    if not isinstance(text, dict):
        raise DamagedFileError(f"{where}: text_config is {text!r}, expected a JSON object; fetch it again")
    read = {ours: text[theirs] for ours, theirs in layout.fields.items() if text.get(theirs) is not None}
    return {**layout.defaults, **read}


def _compare_sizes(config: Mapping[str, Any], found: Mapping[str, int], layout: _Layout, where: Path) -> None:
    for name, size in found.items():
        if name in config and config[name] != size:
            raise InputError(
                f"{where}: {layout.fields[name]} is {config[name]!r}, but the weights have {size}; "
                "save the model again"
            )


def _gpt_config(config: Mapping[str, Any], norm: Norm, where: Path, **sizes: int) -> GPTConfig:
    activation = config["activation"]
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise InputError(f"{where}: activation is {activation!r}, expected one of {', '.join(_ACTIVATIONS)}")
    for name in ("n_head", "norm_eps", *_DROPOUTS):
        kinds = (int,) if name == "n_head" else (int, float)
        if type(config[name]) not in kinds:
            raise DamagedFileError(f"{where}: {name} is {config[name]!r}, not a number; fetch it again")
    numbers = {name: float(config[name]) for name in ("norm_eps", *_DROPOUTS)}
    return GPTConfig(
        n_head=config["n_head"],
        activation=_ACTIVATIONS[activation],  # type: ignore[arg-type]
        norm=norm,
        **sizes,
        **numbers,  # type: ignore[arg-type]
    )
