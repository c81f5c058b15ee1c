"""An agent that reads what each episode is for, and clones the actions of whoever followed it.

Actions are discrete, and observations hold a grid of symbols, as those of MiniGrid and BabyAI do.

Dimensions: E episodes played at once · B batch · K steps · S state_dim · M texts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from chibit.agents.backbone import BackboneAgent
from chibit.agents.base import DEFAULT_STEPS, Policy
from chibit.agents.text.config import TextConfig
from chibit.agents.text.known_words import known_words
from chibit.agents.text.words import load_words, words_of
from chibit.core.acting import TrajectoryPolicy, Window
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime, evaluating
from chibit.core.schedules import warmup
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.samplers.missions import MissionBatch, MissionSampler
from chibit.losses.sequence import action_cross_entropy
from chibit.models.gpt import GPT
from chibit.models.huggingface import HuggingFaceLanguageModel
from chibit.models.initializers import load_initializer
from chibit.models.instructed import (
    SYMBOLS,
    BagReader,
    FeatureReader,
    InstructedModel,
    TokenReader,
)

_CERTAIN = 1e4
"""Logit of the likeliest action beside zeros: nothing else is ever drawn."""


class TextConditioned(BackboneAgent, config=TextConfig):
    """A sequence model that reads a text, looks over the grid as it says, and goes on from its own steps."""

    label = "Text-conditioned"
    takes_discrete = True
    takes_pictures = False
    config: TextConfig

    def __init__(self, config: TextConfig, spec: DatasetSpec, runtime: Runtime) -> None:
        """Build the model around the weights and words that the config names.

        Raises:
            UserError: if those cannot be had, or the data are of another kind.
        """
        self.config = cast(TextConfig, config.for_steps(DEFAULT_STEPS))
        self.spec, self.runtime, self.step = spec, runtime, 0
        grid, num_cells = _find_grid(spec)
        seed = int(torch.randint(2**31, ()))
        pretrained = load_initializer(config.initializer, gpt_config=config.gpt_config(), seed=seed)
        backbone = pretrained.backbone
        backbone.set_dropout(**config.dropouts())
        width = backbone.width
        if config.read_by == config.initializer != "random":
            # The backbone learns: features are those of a copy that stays as it was loaded.
            source = copy.deepcopy(pretrained) if config.text_encoder == "frozen" else pretrained
            self.words = words_of(source, config.initializer)
        else:
            self.words = load_words(config.read_by, config.words_width or width)
        self._record = {"name": pretrained.name, "hash": pretrained.hash, "words": self._known()}
        self._encoded: dict[str, Tensor] = {}
        self.model = InstructedModel(
            backbone,
            self._make_reader(backbone, width),
            grid_columns=grid,
            num_cells=num_cells,
            state_dim=spec.state_dim,
            num_actions=spec.num_actions or 0,
            max_timesteps=config.max_timesteps or spec.max_episode_steps,
        ).to(runtime.torch_device)
        self.optimize(torch.optim.AdamW(self._groups(backbone), weight_decay=config.weight_decay, fused=True))

    def _known(self) -> dict[str, Any]:
        """Which words what is read tells apart."""
        is_frozen = self.config.text_encoder == "frozen"
        return known_words(self.words, layer=self.config.text_layer, in_context=is_frozen)

    def _make_reader(self, backbone: nn.Module, width: int) -> nn.Module:
        words, kind = self.words, self.config.text_encoder
        if kind == "frozen":
            return FeatureReader(words.features(["."], self.config.text_layer).shape[1], width)
        if kind == "bag":
            return BagReader(words.table, width)
        if words.table.shape[1] != width:
            raise InputError(
                f"words: those of {words.name} have width {words.table.shape[1]}, the backbone {width}; use "
                "text_encoder bag or frozen, or words of its own width"
            )
        positions = None if words.positions is None else words.positions[: self.config.text_length]
        return TokenReader(backbone, words.table, positions)

    def _groups(self, backbone: nn.Module) -> list[dict[str, Any]]:
        """AdamW's: backbone and positions of words, and the rest."""
        positions = [p for name, p in self.model.named_parameters() if name == "reader.positions"]
        parts = self.parted((*backbone.parameters(), *positions)).values()
        return [{"params": part, "lr": rate, "base_lr": rate} for part, rate in parts]

    @property
    def initializer(self) -> dict[str, Any]:
        """Name and hash of the backbone's, and which words of the test the reader's tell apart."""
        return self._record

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(M, L) tokens or (M, F) features of texts.

        Raises:
            InputError: for a text that is longer than `text_length`.
        """
        if self.config.text_encoder != "frozen":
            return self.words.tokens(texts, self.config.text_length)
        self.words.tokens(texts, self.config.text_length)
        new = [text for text in dict.fromkeys(texts) if text not in self._encoded]
        if new:
            found = self.words.features(new, self.config.text_layer)
            self._encoded |= dict(zip(new, found, strict=True))
        return torch.stack([self._encoded[text] for text in texts])

    def prepare(self, dataset: TrajectoryDataset) -> TrajectoryDataset:
        """See mean and spread of the features of the texts."""
        if isinstance(self.model.reader, FeatureReader) and dataset.missions is not None:
            texts = np.unique(dataset.missions).tolist()
            self.model.reader.standardize(self.encode(texts).to(self.runtime.torch_device))
        return dataset

    def sampler(self, dataset: TrajectoryDataset, generator: np.random.Generator) -> MissionSampler:
        """Draw whole episodes."""
        return MissionSampler(
            dataset,
            self.encode,
            context_length=self.config.context_length,
            batch_size=self.config.batch_size,
            generator=generator,
        )

    def update(self, batch: MissionBatch) -> Mapping[str, float | Tensor]:
        """Take one step down the cross-entropy of the logged actions."""
        self.model.train()
        loss, accuracy = self._errors(batch)
        norm = self.descend(batch.rows, loss, warmup(self.step, self.config.warmup_steps or 0))
        return {"train/loss": loss.detach(), "train/accuracy": accuracy, "train/grad_norm": norm}

    def _errors(self, batch: MissionBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats, and the share of actions that are the likeliest."""
        batch = cast(MissionBatch, batch.to(self.runtime.torch_device))
        with self.runtime.autocast():
            logits = self.model(batch.text, *batch.shown[1:])
        mask = batch.attention_mask
        is_right = (logits.detach().argmax(-1) == batch.actions) & mask
        return action_cross_entropy(logits.float(), batch.actions, mask), is_right.sum() / mask.sum()

    def action_error(self, batch: MissionBatch) -> float:
        """Cross-entropy in nats, without dropout."""
        with evaluating(self.model), torch.no_grad():
            return self._errors(batch)[0].item()

    def policy(self, target_returns: Sequence[float] | None = None) -> Policy:
        """Act by what is read; it takes no target return."""
        return ReadingPolicy(self)

    def modules(self) -> nn.Module:
        """The model, words included."""
        return self.model

    @property
    def acting_config(self) -> TextConfig:
        """A config that rebuilds the model without the sources of backbone and words.

        Raises:
            InputError: where a model is part of it that is no GPT of ours, or that is frozen.
        """
        backbone = self.model.backbone
        is_foreign = isinstance(self.words.model, HuggingFaceLanguageModel)  # and so is its vocabulary
        if not isinstance(backbone, GPT) or is_foreign or self.config.text_encoder == "frozen":
            raise InputError(
                "export: this policy reads with a model that is frozen, or none of chibit's, which is not "
                "exported; act from its run"
            )
        rows = self.model.timesteps.num_embeddings
        shape, words_width = backbone.config.shape, self.words.table.shape[1]
        return replace(
            self.config,
            initializer="random",
            words="",
            words_width=0 if words_width == shape.n_embd else words_width,
            gpt=shape,
            max_timesteps=rows,
        )


class ReadingPolicy(TrajectoryPolicy):
    """Takes the likeliest action, given what the episode is for and its steps so far."""

    reads_missions = True

    def __init__(self, agent: TextConditioned) -> None:
        """Act with the agent's current weights."""
        spec = agent.spec
        super().__init__(
            [0.0],
            context_length=agent.config.context_length,
            width=spec.state_dim,
            act_dim=None,
            reward_mode="normal",
        )
        self._agent, self._offset = agent, np.array(spec.state_offset or 0.0)
        self.dtype = spec.observation_dtype
        self._missions: dict[int, str] = {}

    def instruct(self, missions: Sequence[str], envs: Sequence[int] | np.ndarray | None = None) -> None:
        """See `EpisodePolicy.instruct`; InputError for a text that is too long."""
        self._agent.encode(missions)
        self._missions |= dict(zip(range(len(missions)) if envs is None else envs, missions, strict=True))

    def _encode(self, observations: np.ndarray) -> np.ndarray:
        return (observations - self._offset).astype(np.float32)  # as the records of the data are

    def _ask(self, window: Window) -> np.ndarray:
        """(L', N) logits, all but certain."""
        agent, device = self._agent, self._agent.runtime.torch_device
        envs = np.flatnonzero(self._is_live)[window.places]
        text = agent.encode([self._missions[int(e)] for e in envs])
        seen = (torch.from_numpy(x).to(device) for x in window.shown[1:])
        with evaluating(agent.model), torch.inference_mode(), agent.runtime.autocast():
            logits = agent.model(text.to(device), *seen, last_only=True)[:, 0].float()
        likeliest = nn.functional.one_hot(logits.argmax(-1), logits.shape[-1])
        answer: np.ndarray = (_CERTAIN * likeliest).float().cpu().numpy()
        return answer


def _find_grid(spec: DatasetSpec) -> tuple[slice, int]:
    """Columns of a state that are a grid of symbols, and its cells.

    Raises:
        InputError: for data without one.
    """
    grid = spec.symbol_grid
    if grid is None:
        raise InputError(
            f"agent text: the observations of {spec.name} have no grid of symbols (H, W, 3), as BabyAI's "
            "have; use another agent"
        )
    return grid, (grid.stop - grid.start) // len(SYMBOLS)
