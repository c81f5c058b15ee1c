"""The Decision Transformer as an agent: Eq. 9 of Reid et al. (2022) on any backbone.

Loss = action error + λ1 similarity to language + λ2 language modelling. Everything the paper's text and its
released code do differently is a field of the config; docs/deviations.md lists them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from chibit.agents.base import AgentState, require_finite
from chibit.agents.co_training import make_language_task
from chibit.agents.decision_transformer_config import DecisionTransformerConfig
from chibit.agents.return_conditioned import ReturnConditionedPolicy
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime
from chibit.core.schedules import linear_to_zero, sigmoid_decay, warmup
from chibit.data.catalog import home_folder
from chibit.data.trajectory import DatasetSpec, TrajectoryDataset
from chibit.data.windows import SequenceBatch, WindowSampler
from chibit.losses.sequence import action_cross_entropy, action_mse
from chibit.losses.similarity import load_centers, similarity_loss
from chibit.models.decision_transformer import (
    DecisionTransformerModel,
    DecisionTransformerModelConfig,
    make_timestep_table,
)
from chibit.models.gpt import GPT
from chibit.models.lora import add_lora
from chibit.models.pretrained import Pretrained, load_initialiser, set_dropout

_DECAYS = {"linear_to_zero": linear_to_zero, "sigmoid": sigmoid_decay}


class DecisionTransformer:
    """A trajectory model, its optimizer, and what is trained beside it."""

    batch_type: ClassVar[type] = SequenceBatch
    is_return_conditioned: ClassVar[bool] = True

    def __init__(self, config: DecisionTransformerConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build the model around the weights that `config.init` names.

        Raises:
            UserError: if those weights cannot be had, or do not go with the rest of the config.
        """
        self.config, self.spec, self.runtime, self.step = config, spec, runtime, 0
        pretrained = load_initialiser(
            config.init,
            gpt_config=config.gpt_config(),
            transfer=config.transfer,
            image_gpt_norm=config.image_gpt_norm,
            seed=int(torch.randint(2**31, ())),
        )
        self.initialiser = {"name": pretrained.name, "hash": pretrained.hash}
        self.model = _build_model(config, spec, pretrained)
        self.language = make_language_task(config, pretrained, self.model.timesteps)
        self.centers = _load_centers(config, pretrained)
        self._tune()
        self._modules = nn.ModuleDict({"model": self.model})
        if self.language is not None:
            self._modules["language"] = self.language.tables
        self._modules.to(runtime.torch_device)
        self.groups = self._parameter_groups()
        self.optimizer = torch.optim.AdamW(
            [{"params": g, "lr": rate, "base_lr": rate} for g, rate in self.groups.values() if g],
            weight_decay=config.weight_decay,
            fused=True,
        )

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> WindowSampler:
        """Draw windows; in delayed mode, of the data with all reward moved to the last step."""
        if self.config.mode == "delayed":
            dataset = dataset.delay_rewards()
        return WindowSampler(
            dataset,
            context_length=self.config.context_length,
            batch_size=self.config.batch_size,
            generator=generator,
        )

    def update(self, batch: SequenceBatch) -> dict[str, float]:
        """Take one step down Eq. 9."""
        self._modules.train()
        losses = self.losses(batch)
        weights = self.weights()
        total = sum((weights[name] * loss for name, loss in losses.items()), torch.zeros(()))
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.grad_clip)
        metrics = {"train/loss": total.item()}
        metrics |= {f"train/{name}_loss": loss.item() for name, loss in losses.items()}
        metrics["train/grad_norm"] = norm.item()
        require_finite(
            self.step, batch.rows, loss=metrics["train/loss"], gradient_norm=metrics["train/grad_norm"]
        )
        factor = warmup(self.step, self.config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.optimizer.step()
        self.step += 1
        metrics["train/learning_rate"] = self.config.learning_rate * factor
        if self.language is not None:
            metrics |= self.language.perplexity(self.step, self.runtime)
        return metrics

    def losses(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The terms of Eq. 9 that count at this step, unweighted."""
        device = self.runtime.torch_device
        mask, actions = batch.attention_mask.to(device), batch.actions.to(device)
        timesteps = batch.timesteps.to(device)
        weights = self.weights()
        with self.runtime.autocast():
            tokens = self.model.embed(
                batch.returns_to_go.to(device), batch.states.to(device), actions, timesteps
            )
            predictions = self.model.decode(tokens, timesteps).float()
        error = action_mse if self.spec.num_actions is None else action_cross_entropy
        losses = {"action": error(predictions, actions, mask)}
        if weights["similarity"] and self.centers is not None:
            real = mask.repeat_interleave(3, dim=1)
            losses["similarity"] = similarity_loss(tokens, self.centers, real, self.config.similarity_form)
        if weights["language"] and self.language is not None and self.step % self.config.language_every == 0:
            losses["language"] = self.language.loss(self.runtime)
        return losses

    def weights(self) -> dict[str, float]:
        """Weights of the terms of Eq. 9 at this step."""
        decay = _DECAYS[self.config.auxiliary_decay](self.step, self.config.auxiliary_decay_steps)
        return {
            "action": 1.0,
            "similarity": self.config.similarity_weight * decay,
            "language": self.config.language_weight * decay,
        }

    def policy(self, target_returns: Sequence[float] | None) -> ReturnConditionedPolicy:
        """Act with the current weights, asking for raw returns; None asks for the data's defaults."""
        return ReturnConditionedPolicy(
            self.model,
            self.spec,
            self.spec.default_target_returns if target_returns is None else target_returns,
            context_length=self.config.context_length,
            runtime=self.runtime,
            mode=self.config.mode,
        )

    def modules(self) -> nn.Module:
        """The trajectory model, and the language model's tables where it is trained beside it."""
        return self._modules

    def acting_modules(self) -> nn.Module:
        """What a policy needs: the trajectory model alone."""
        return nn.ModuleDict({"model": self.model})

    @property
    def acting_config(self) -> DecisionTransformerConfig:
        """A config that rebuilds `acting_modules` without the initialiser's source."""
        shape = {}
        if isinstance(self.model.backbone, GPT):
            own = self.model.backbone.config
            names = ("n_layer", "n_head", "n_embd", "n_inner", "activation", "norm", "norm_eps")
            shape = {"init": "random", "transfer": "whole", **{name: getattr(own, name) for name in names}}
        return dataclasses.replace(
            self.config,
            **shape,
            timestep_table="random",
            max_timesteps=self.model.timesteps.num_embeddings,
            similarity_weight=0.0,
            language_weight=0.0,
            language_corpus="",
        )

    def state_dict(self) -> AgentState:
        """Weights; and optimizer, step and text sampler."""
        training: dict[str, Any] = {"step": self.step, "optimizer": self.optimizer.state_dict()}
        if self.language is not None:
            training["language"] = self.language.state_dict()
        return AgentState(tensors=dict(self._modules.state_dict()), training=training)

    def load_state_dict(self, state: AgentState) -> None:
        """Go on from a snapshot; without its training part, only act."""
        self._modules.load_state_dict(state.tensors)
        if state.training:
            self.step = state.training["step"]
            self.optimizer.load_state_dict(state.training["optimizer"])
            if self.language is not None:
                self.language.load_state_dict(state.training["language"])

    def _tune(self) -> None:
        """Freeze what `tuning` says."""
        config, model = self.config, self.model
        if config.tuning == "lora":
            add_lora(
                model.backbone, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout
            )
        elif config.tuning == "frozen":
            for module in (model.backbone, model.timesteps, model.embedding_norm):
                module.requires_grad_(False)
        elif config.tuning == "frozen_blocks":
            blocks = model.backbone.blocks if isinstance(model.backbone, GPT) else model.backbone
            blocks.requires_grad_(False)

    def _parameter_groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """Pre-trained weights and the rest, with their learning rates; by identity, never by name."""
        pretrained = {id(p) for p in self.model.backbone.parameters()}
        if self.language is not None:
            pretrained |= {id(p) for p in self.language.tables.parameters()}
        trainable = [p for p in self._modules.parameters() if p.requires_grad]
        if not trainable:
            raise InputError(f"tuning {self.config.tuning!r} leaves nothing to train; use full")
        rate = self.config.learning_rate
        return {
            "backbone": (
                [p for p in trainable if id(p) in pretrained],
                self.config.backbone_learning_rate or rate,
            ),
            "rest": ([p for p in trainable if id(p) not in pretrained], rate),
        }


def _build_model(
    config: DecisionTransformerConfig, spec: DatasetSpec, pretrained: Pretrained
) -> DecisionTransformerModel:
    if isinstance(pretrained.backbone, GPT):
        set_dropout(
            pretrained.backbone,
            attn_dropout=config.dropout,
            resid_dropout=config.dropout,
            embd_dropout=config.dropout,
        )
    positions = pretrained.position_embeddings
    form = config.timestep_table
    if form == "auto":
        form = "random" if positions is None else "given"
    width: Any = pretrained.backbone.width
    rows = config.max_timesteps or spec.max_episode_steps
    bounded = spec.num_actions is None and config.projections == "linear"
    return DecisionTransformerModel(
        DecisionTransformerModelConfig(
            return_scale=config.return_scale,
            timestep_position=config.timestep_position,
            head=config.head,
            projections=config.projections,
        ),
        pretrained.backbone,
        state_dim=spec.state_dim,
        act_dim=spec.act_dim,
        num_actions=spec.num_actions,
        action_bounds=(torch.tensor(spec.action_low), torch.tensor(spec.action_high)) if bounded else None,
        timesteps=make_timestep_table(form, rows, width, positions),
    )


def _load_centers(config: DecisionTransformerConfig, pretrained: Pretrained) -> Tensor | None:
    if not config.similarity_weight:
        return None
    if pretrained.token_embeddings is None:
        raise InputError(
            f"similarity_weight is {config.similarity_weight}, but init {config.init!r} has no word "
            "embeddings to be similar to; set it to 0"
        )
    folder = home_folder() / "centers"
    return load_centers(pretrained.token_embeddings, config.num_clusters, folder=folder)
