"""From a config and a data set's description to a trajectory model: initializer, wrapper, what is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chibit.core.errors import InputError
from chibit.data.dataset import DatasetSpec
from chibit.data.resolve import home_folder
from chibit.losses.similarity import load_centers, read_centers
from chibit.models.convolution import ConvolutionalEncoder
from chibit.models.decision_transformer import DecisionTransformerModel, embedding_of, make_timestep_table
from chibit.models.initializers import Pretrained, load_initializer
from chibit.models.language_model import SHIPPED, shipped_folder
from chibit.models.lora import add_lora

if TYPE_CHECKING:
    from chibit.agents.dt.config import DecisionTransformerConfig


@dataclass(frozen=True)
class SequenceModel:
    """A trajectory model and where its weights come from."""

    model: DecisionTransformerModel
    pretrained: Pretrained
    shared_positions: nn.Embedding | None
    """The model's timestep table, where it is the initializer's position table; else None."""
    record: dict[str, Any]
    """Name and hash of the initializer, and the form of the timestep table, for provenance."""


def build_sequence_model(
    config: DecisionTransformerConfig,
    spec: DatasetSpec,
    model_class: type[DecisionTransformerModel] = DecisionTransformerModel,
) -> SequenceModel:
    """Load the initializer, put the wrapper around it and freeze what `config.tuning` says.

    Draws come from torch's global generator, as many for one initializer as for another: arms that share a
    seed share their projections, and what is drawn after them.

    Raises:
        UserError: if the weights cannot be had, or do not go with the rest of the config.
    """
    seed = int(torch.randint(2**31, ()))
    pretrained = load_initializer(
        config.initializer,
        gpt_config=config.gpt_config(),
        transfer=config.transfer,
        image_gpt_norm=config.image_gpt_norm,
        seed=seed,
    )
    pretrained.backbone.set_dropout(**config.dropouts())
    positions = pretrained.position_embeddings
    form = config.timestep_table
    per_token = config.embedding == "tanh"
    if form == "auto":
        form = "zeros" if per_token else "random" if positions is None else "pretrained"
    width = pretrained.backbone.width
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)  # another stream than the backbone's
        rows = config.max_timesteps or spec.max_episode_steps
        timesteps = make_timestep_table(form, rows, width, positions)
    bounds = (torch.tensor(spec.action_low), torch.tensor(spec.action_high))
    model = model_class(
        config,
        pretrained.backbone,
        state_dim=spec.state_dim,
        act_dim=spec.act_dim,
        num_actions=spec.num_actions,
        action_bounds=bounds if spec.num_actions is None else None,
        timesteps=timesteps,
        token_positions=_token_positions(config, width, positions) if per_token else None,
        state_encoder=_state_encoder(config, spec, width),
    )
    _freeze(config, model)
    return SequenceModel(
        model=model,
        pretrained=pretrained,
        shared_positions=timesteps if form == "pretrained" else None,
        record={"name": pretrained.name, "hash": pretrained.hash, "timestep_table": form},
    )


def _state_encoder(config: DecisionTransformerConfig, spec: DatasetSpec, width: int) -> nn.Module | None:
    """What stands in for L_s where observations are pictures."""
    if not spec.image_shape:
        return None
    return ConvolutionalEncoder(spec.image_shape, width, standardize=config.standardize_pictures)


def _token_positions(config: DecisionTransformerConfig, width: int, positions: Tensor | None) -> nn.Embedding:
    """A vector for each token of a window: the initializer's first positions if it has any, else zeros."""
    rows = config.context_length * (3 if config.return_tokens else 2)
    if positions is None or len(positions) < rows:
        positions = torch.zeros(rows, width)
    return embedding_of(positions[:rows].detach().float().clone())


def _freeze(config: DecisionTransformerConfig, model: DecisionTransformerModel) -> None:
    if config.tuning == "lora":
        add_lora(model.backbone, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)
    elif config.tuning == "frozen":
        for module in (model.backbone, model.timesteps, model.embedding_norm, model.token_positions):
            if module is not None:
                module.requires_grad_(False)
    elif config.tuning == "frozen_blocks":
        model.backbone.layers.requires_grad_(False)


def load_word_centers(config: DecisionTransformerConfig, pretrained: Pretrained) -> Tensor | None:
    """Give the centers (C, D) of the similarity loss; None where it is off.

    Raises:
        InputError: if there are no word embeddings to cluster, or theirs is another width.
    """
    if not config.similarity_weight:
        return None
    source = config.similarity_source
    words = load_initializer(source).token_embeddings if source else pretrained.token_embeddings
    name = source or config.initializer
    if words is None:
        raise InputError(
            f"similarity_weight is {config.similarity_weight}, but {name!r} has no word embeddings; "
            "set it to 0, or similarity_source to an initializer that has"
        )
    width = pretrained.backbone.width
    if words.shape[1] != width:
        raise InputError(
            f"similarity_source: {name!r} has word embeddings of width {words.shape[1]}, expected {width}"
        )
    if name in SHIPPED and (source or config.transfer == "whole"):
        shipped = read_centers(shipped_folder(name) / "centers.safetensors")
        if shipped is not None and len(shipped) == config.num_clusters:
            return shipped
    return load_centers(words, config.num_clusters, folder=home_folder() / "centers")
