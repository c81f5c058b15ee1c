"""The Decision Transformer as an agent: Eq. 9 of Reid et al. (2022) on any backbone.

Loss = action error + λ1 similarity to language + λ2 language modeling. Everything the paper's text and its
released code do differently is a field of the config; docs/deviations.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from chibit.agents.backbone import BackboneAgent
from chibit.agents.base import DEFAULT_STEPS, Agent, AgentState, PolicyStep
from chibit.agents.dt.acting import ReturnConditionedPolicy, SequenceStep
from chibit.agents.dt.build import SequenceModel, build_sequence_model, load_word_centers
from chibit.agents.dt.co_training import make_language_task
from chibit.agents.dt.config import BACKBONE_FOLDER, DecisionTransformerConfig
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime
from chibit.core.schedules import cosine_decay, linear_to_zero, sigmoid_decay, warmup
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.samplers.windows import SequenceBatch, WindowSampler
from chibit.losses.sequence import action_cross_entropy, action_mse
from chibit.losses.similarity import similarity_loss
from chibit.models.decision_transformer import PAPER_RETURN_SCALE, DecisionTransformerModel
from chibit.models.dropout import Counted, drawing
from chibit.models.gpt import GPT
from chibit.models.own_backbone import OwnBackbone

if TYPE_CHECKING:
    from chibit.agents.dt.stack import SequenceStack

_DECAYS: dict[str, Callable[[int, int], float]] = {
    "linear_to_zero": linear_to_zero,
    "sigmoid": sigmoid_decay,
    "constant": lambda step, decay_steps: 1.0,
}


class DecisionTransformer(BackboneAgent, config=DecisionTransformerConfig):
    """A trajectory model, its optimizer, and what is trained beside it."""

    config: DecisionTransformerConfig
    model_class: ClassVar[type[DecisionTransformerModel]] = DecisionTransformerModel
    policy_class: ClassVar[type[ReturnConditionedPolicy]] = ReturnConditionedPolicy

    def __init__(self, config: DecisionTransformerConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build the model around the weights that `config.initializer` names.

        Raises:
            UserError: if those weights cannot be had, or do not go with the rest of the config.
        """
        # What neither a run nor the data have filled in is as in the paper.
        units = (spec.return_scale or PAPER_RETURN_SCALE, spec.return_baseline)
        config = config.for_steps(DEFAULT_STEPS).with_return_units(*units)
        self.config, self.spec, self.runtime, self.step = config, spec, runtime, 0
        built = build_sequence_model(config, spec, self.model_class)
        self.model, self._record = built.model, built.record
        self.centers = load_word_centers(config, built.pretrained)
        self.language = make_language_task(config, built.pretrained, built.shared_positions)
        self._modules = nn.ModuleDict({"model": self.model})
        if self.language is not None:
            self._modules["language"] = self.language.tables
        self._modules.to(runtime.torch_device)
        if self.centers is not None:
            self.centers = self.centers.to(runtime.torch_device)
        self.groups = self._parameter_groups(built)
        self.optimize(torch.optim.AdamW(self._with_decay(), betas=config.adam_betas, fused=True))
        self.draws: Counted | None = None
        if config.dropout_draws == "counter" or (
            config.dropout_draws == "auto" and runtime.torch_device.type != "cpu"
        ):
            self.draws = Counted(torch.randint(2**31, (1,)).to(runtime.torch_device))

    @property
    def initializer(self) -> dict[str, Any]:
        """Name and hash of the initializer, and the form of the timestep table."""
        return self._record

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> WindowSampler:
        """Draw windows; with sparse rewards, of the data with all reward moved to the last step."""
        if self.config.reward_mode == "sparse":
            dataset = dataset.delay_rewards()
        return WindowSampler(
            dataset,
            context_length=self.config.context_length,
            batch_size=self.config.batch_size,
            generator=generator,
            anchor=self.config.window_anchor,
        )

    def update(self, batch: SequenceBatch) -> Mapping[str, float | Tensor]:
        """Take one step down Eq. 9."""
        self._modules.train()
        if self.draws is not None:
            self.draws.begin(self.step)
        with drawing(self.draws):
            losses, weights = self.losses(batch), self.weights()
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        factor = self.learning_rate_factor()
        norm = self.descend(batch.rows, total, factor)
        metrics: dict[str, float | Tensor] = {"train/loss": total.detach()}
        metrics |= {f"train/{name}_loss": loss.detach() for name, loss in losses.items()}
        metrics["train/grad_norm"] = norm
        metrics["train/learning_rate"] = self.config.learning_rate * factor
        if self.language is not None:
            metrics |= self.language.perplexity(self.step, self.runtime)
        return metrics

    def learning_rate_factor(self) -> float:
        """What step sizes are multiplied by at this step."""
        config, warmup_steps = self.config, self.config.warmup_steps or 0
        if not config.learning_rate_decay_steps:
            return warmup(self.step, warmup_steps)
        return cosine_decay(self.step, config.learning_rate_decay_steps, warmup_steps, floor=0.1)

    def losses(self, batch: SequenceBatch, centers: Tensor | None = None) -> dict[str, Tensor]:
        """The terms of Eq. 9 that count at this step, unweighted; `centers` in place of its own."""
        centers = self.centers if centers is None else centers
        batch = batch.to(self.runtime.torch_device)
        with self.runtime.autocast():
            tokens = self.model.embed(*batch.shown)
            outputs = self._decode(tokens, batch.timesteps)
        losses = self._trajectory_losses(outputs, batch)
        weights = self.weights()
        if weights["similarity"] and centers is not None:
            real = batch.attention_mask.repeat_interleave(self.model.tokens_per_step, dim=1)
            losses["similarity"] = similarity_loss(tokens.float(), centers, real, self.config.similarity_form)
        if weights["language"] and self.language is not None and self.step % self.config.language_every == 0:
            losses["language"] = self.language.loss(self.runtime)
        return losses

    def _decode(self, tokens: Tensor, timesteps: Tensor) -> tuple[Tensor, ...]:
        """What the model makes of its tokens; actions come first."""
        return (self.model.decode(tokens, timesteps).float(),)

    def _trajectory_losses(self, outputs: tuple[Tensor, ...], batch: SequenceBatch) -> dict[str, Tensor]:
        targets = self.model.in_units(batch.actions)
        return {"action": self._action_loss(outputs[0], targets, batch.attention_mask)}

    @torch.no_grad()
    def action_error(self, batch: SequenceBatch) -> float:
        """Error of actions as they are, or cross-entropy, without dropout; nothing is learned from it."""
        self._modules.eval()
        return self.errors(batch.to(self.runtime.torch_device))[0].item()

    @torch.no_grad()
    def action_errors(self, batch: SequenceBatch) -> np.ndarray | None:
        """See `Agent.action_errors`."""
        if self.spec.num_actions is not None:
            return None
        self._modules.eval()
        errors: np.ndarray = self.errors(batch.to(self.runtime.torch_device))[1].cpu().numpy()
        return errors

    def errors(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """The action error over the real steps of a batch, and (A,) that of each dimension, squared.

        Where actions are discrete, there are no dimensions, and the second is the first.
        """
        with self.runtime.autocast():
            predictions = self.model(*batch.shown).float()
        error = self._action_loss(predictions, batch.actions, batch.attention_mask)
        if self.spec.num_actions is not None:
            return error, error
        real = batch.attention_mask.to(predictions.dtype)
        squares = (predictions - batch.actions).square() * real[..., None]
        return error, squares.sum((0, 1)) / real.sum()

    def _action_loss(self, predictions: Tensor, actions: Tensor, attention_mask: Tensor) -> Tensor:
        error = action_mse if self.spec.num_actions is None else action_cross_entropy
        return error(predictions, actions, attention_mask)

    def weights(self) -> dict[str, float]:
        """Weights of the terms of Eq. 9 at this step: 1, λ1, λ2."""
        similarity, language = self.decays()
        return {
            "action": 1.0,
            "similarity": self.config.similarity_weight * similarity,
            "language": self.config.language_weight * language,
        }

    def decays(self) -> tuple[float, float]:
        """What is left of λ1 and λ2 at this step, as shares."""
        config, steps = self.config, self.config.auxiliary_decay_steps or 0
        kinds = config.auxiliary_decay, config.language_decay or config.auxiliary_decay
        similarity, language = (_DECAYS[kind](self.step, steps) for kind in kinds)
        return similarity, language

    def policy(self, target_returns: Sequence[float] | None) -> ReturnConditionedPolicy:
        """Act with the current weights, asking for raw returns; None asks for the data's defaults."""
        if not self.is_return_conditioned:
            target_returns = (0.0,)  # nobody looks at it
        return self.policy_class(
            self.model,
            self.spec,
            self.spec.default_target_returns if target_returns is None else target_returns,
            context_length=self.config.context_length,
            runtime=self.runtime,
            reward_mode=self.config.reward_mode,
        )

    def stack_obstacle(self, other: Agent) -> str | None:
        """See `Agent.stack_obstacle`."""
        from chibit.agents.dt.stack import stack_obstacle  # which knows this class

        return stack_obstacle(self, other) if isinstance(other, DecisionTransformer) else "another agent"

    @classmethod
    def stack(cls, agents: Sequence[DecisionTransformer]) -> SequenceStack:
        """See `Agent.stack`."""
        from chibit.agents.dt.stack import SequenceStack  # which knows this class

        return SequenceStack(agents)

    @property
    def draws_actions(self) -> bool:
        """Discrete ones, by the model's probabilities, as in the evaluation of Chen et al. (2021)."""
        return self.spec.num_actions is not None

    def policy_step(self) -> PolicyStep:
        """From the steps so far to the next action, or to logits to draw it from."""
        if not isinstance(self.model.backbone, GPT):
            raise InputError("onnx: the backbone is not chibit's GPT; export it with its own library")
        return SequenceStep(self.model, self.spec).as_step(
            self.config.context_length, self.config.reward_mode
        )

    def attending(self, dataset: TrajectoryDataset) -> tuple[DecisionTransformerModel, WindowSampler]:
        """The model, and windows as in training."""
        return self.model, self.sampler(dataset, np.random.default_rng(0))

    def modules(self) -> nn.Module:
        """The trajectory model, and the language model's tables where it is trained beside it."""
        return self._modules

    def acting_modules(self) -> nn.Module:
        """What a policy needs: the trajectory model alone."""
        return nn.ModuleDict({"model": self.model})

    @property
    def acting_config(self) -> DecisionTransformerConfig:
        """A config that rebuilds `acting_modules` without the initializer's source."""
        backbone = self.model.backbone
        return self.config.acting(
            shape=backbone.config.shape if isinstance(backbone, GPT) else None,
            is_own=isinstance(backbone, OwnBackbone),
            max_timesteps=self.model.timesteps.num_embeddings,
        )

    def save_beside(self, folder: Path) -> None:
        """The configuration of a backbone that is a model of transformers."""
        self.model.backbone.save_config(folder / BACKBONE_FOLDER)

    def state_dict(self) -> AgentState:
        """Weights; and optimizer, step and place in the text."""
        state = super().state_dict()
        if self.language is not None:
            state.training["language"] = self.language.state_dict()
        if self.draws is not None:
            state.training["dropout_seed"] = self.draws.seeds
        return state

    def load_state_dict(self, state: AgentState) -> None:
        """Go on from a snapshot; without its training part, only act."""
        super().load_state_dict(state)
        if state.training and self.language is not None:
            self.language.load_state_dict(state.training["language"])
        if state.training and self.draws is not None:
            self.draws.seeds.copy_(state.training["dropout_seed"])

    def _with_decay(self) -> list[dict[str, Any]]:
        """AdamW's groups: each of `groups`, parted where not every parameter decays."""
        weights = (m.weight for m in self._modules.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
        only = {id(weight) for weight in weights} if self.config.decay_weights_only else None
        made = []
        for parameters, rate in self.groups.values():
            for is_decayed, decay in ((True, self.config.weight_decay), (False, 0.0)):
                part = [p for p in parameters if (only is None or id(p) in only) == is_decayed]
                if part:
                    made.append({"params": part, "lr": rate, "base_lr": rate, "weight_decay": decay})
        return made

    def _parameter_groups(self, built: SequenceModel) -> dict[str, tuple[list[nn.Parameter], float]]:
        """As `parted`, by what is pre-trained."""
        parts: list[nn.Module] = [self.model.backbone]
        if self.config.backbone_learning_rate is not None:
            parts.append(self.model.timesteps)  # one rule for every initializer, with positions or without
        if self.model.token_positions is not None:
            parts.append(self.model.token_positions)
        if built.shared_positions is not None:
            parts.append(built.shared_positions)
        if self.language is not None:
            parts.append(self.language.tables)
        groups = self.parted(p for part in parts for p in part.parameters())
        if not any(parameters for parameters, _ in groups.values()):
            raise InputError(f"tuning {self.config.tuning!r} leaves nothing to train; use full")
        return groups
