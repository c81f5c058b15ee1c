"""Trajectory tokens in, actions out: the Decision Transformer on any backbone.

A trajectory becomes (R_1, s_1, a_1, R_2, s_2, a_2, ...), Eq. 6 of Reid et al. (2022), with R the
return-to-go. The action a_t is read from the hidden state of s_t, so it cannot see a_t. Token order is
fixed in one place, `interleave`.

Padding is on the right. A real token then never attends to padding, and positions are absolute
timesteps, so no mask is needed to keep padding out of the predictions at real steps; one is accepted
for windows that are padded elsewhere.

Dimensions: B batch · K context in timesteps · T = 3K tokens · D backbone width · H heads · S state_dim ·
A act_dim or num_actions.
Sources: Chen et al. (2021), and the released code of Reid et al. (2022), whose choices are the defaults of
`DecisionTransformerModelConfig`; docs/deviations.md lists the switches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import Group, Needs, Positive, Since, Was
from chibit.models.backbone import Backbone
from chibit.models.projections import ActionRange, Projections, make_action_head, make_projection

TimestepPosition = Literal["before_norm", "after_norm"]
TimestepTable = Literal["pretrained", "matched", "random", "normal", "zeros"]
Head = Literal["linear", "tied"]
Embedding = Literal["norm", "tanh"]
ActionUnits = Literal["range", "raw"]

_UNTRAINED_POSITION_STD = 0.02
_NORM = Needs("embedding norm", lambda config: config.embedding == "norm")
PAPER_RETURN_SCALE = 1000.0
"""Of Chen et al. (2021) on Hopper, HalfCheetah and Walker2d; where neither config nor data name another."""
RETURNS = Needs("return_tokens", lambda config: config.return_tokens)


@dataclass(frozen=True, kw_only=True)
class DecisionTransformerModelConfig(Checked):
    """What surrounds the backbone. Defaults: the paper's released code."""

    return_scale: Annotated[Positive | None, RETURNS, Group("sequence model")] = None
    """Returns-to-go are divided by this; None is the data's own (`DatasetSpec.return_scale`)."""
    return_baseline: Annotated[tuple[float, float] | None, RETURNS, Since((0.0, 0.0))] = None
    """What is taken off them first: at an episode's first step, and more at each later one; None is the
    data's own (`DatasetSpec.return_baseline`), or nothing where a scale is given."""
    timestep_position: Annotated[TimestepPosition, _NORM] = "after_norm"
    """Timestep embeddings are added after the embedding norm (released code) or before it (Chen et al.)."""
    embedding: Embedding = "norm"
    """norm: one LayerNorm over the tokens; tanh: tanh of each and no norm, with a position for each token
    (the initializer's where it has any) and the timestep of the window's first step (Chen et al. on Atari).
    """
    return_tokens: bool = True
    """Without return tokens the model clones behavior (BC of Chen et al. on Atari)."""
    head: Annotated[Head, Was("head", (("own", "linear"), ("shared", "tied")))] = "linear"
    """A linear map, then tanh; or tied: the transposed action projection, no bias (released run script)."""
    action_units: Annotated[ActionUnits, Since("raw")] = "range"
    """Continuous actions are embedded, predicted and compared in units of half their range; raw: as they are
    (version 0.1.0). The same where bounds are -1 and 1."""
    projections: Projections = "linear"
    """Linear, or residual MLPs without tanh at the end (LaMo)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head == "tied" and self.projections != "linear":
            raise InputError(f"head: 'tied' needs linear projections, got {self.projections!r}")


def interleave(*parts: Tensor) -> Tensor:
    """Order tokens as Eq. 6 does: R_1, s_1, a_1, R_2, ...

    Args:
        parts: returns-to-go, states and actions, or states and actions, each (B, K, D).

    Returns:
        (B, 3K, D), or (B, 2K, D).
    """
    return torch.stack(parts, dim=2).flatten(1, 2)


def make_timestep_table(
    form: TimestepTable, rows: int, width: int, given: Tensor | None = None
) -> nn.Embedding:
    """Build the table that is indexed by the timestep within the episode.

    Args:
        form: `normal`, drawn from N(0, 1) as Chen et al. do; `pretrained`, the given position table;
            `matched`, directions drawn at random with the row norms of the given table; `random`, drawn
            from N(0, 0.02) as the position table of an untrained language model is; `zeros`.
        rows: timesteps it must at least cover.
        width: D.
        given: (P, D) pre-trained position table. Row t past its end is its row t mod P.

    Returns:
        A table of max(rows, P) rows for `pretrained` and `matched`, else of `rows`.

    Raises:
        InputError: if a form needs a table and none of the right width is given.
    """
    if form == "normal":
        return nn.Embedding(rows, width)
    if form == "zeros":
        return embedding_of(torch.zeros(rows, width))
    if form == "random":
        return embedding_of(torch.randn(rows, width) * _UNTRAINED_POSITION_STD)
    if given is None or given.shape[-1] != width:
        found = "none" if given is None else f"one of width {given.shape[-1]}"
        raise InputError(
            f"timestep_table {form!r} needs a pre-trained position table of width {width}, "
            f"the initializer has {found}; use normal or random"
        )
    table = given.detach().float()
    if form == "matched":
        table = F.normalize(torch.randn_like(table), dim=-1) * table.norm(dim=-1, keepdim=True)
    return embedding_of(table[torch.arange(max(rows, len(table))) % len(table)])


def embedding_of(table: Tensor) -> nn.Embedding:
    """A (V, D) table to train; it takes as many random numbers as one that starts from them."""
    embedding = nn.Embedding(*table.shape)
    embedding.weight.data = table
    return embedding


class DecisionTransformerModel(nn.Module):
    """Predicts the action of every step from the returns-to-go, states and actions before it.

    Attributes:
        embed_return: L_r, (B, K, 1) to (B, K, D).
        embed_state: L_s, or another encoder of states.
        embed_action: L_a, or an embedding table where actions are discrete.
        timesteps: table of timestep embeddings.
        backbone: any module with `width` and GPT's forward.
        action_head: from hidden states to actions or logits; None where the head is tied.
        has_baseline: whether something is taken off returns-to-go.
        return_token: place of the return among the tokens of a step; actions are read from the second one.
    """

    return_token: ClassVar[int] = 0
    return_scale: Tensor
    return_baseline: Tensor

    def __init__(
        self,
        config: DecisionTransformerModelConfig,
        backbone: Backbone,
        *,
        state_dim: int,
        act_dim: int,
        num_actions: int | None = None,
        action_bounds: tuple[Tensor, Tensor] | None = None,
        timesteps: nn.Embedding,
        token_positions: nn.Embedding | None = None,
        state_encoder: nn.Module | None = None,
    ) -> None:
        """Surround a backbone.

        Args:
            config: the switches.
            backbone: maps (B, T, D) to (B, T', D).
            state_dim: S; unused where `state_encoder` is given.
            act_dim: A; unused where actions are discrete.
            num_actions: number of discrete actions; None where actions are continuous.
            action_bounds: lowest and highest action, each (A,), finite; None is -1 and 1.
            timesteps: table made by `make_timestep_table`.
            token_positions: table of a vector for each token of a window; needed by embedding `tanh` alone.
            state_encoder: maps (B, K, ...) to (B, K, D) in place of L_s.
        """
        super().__init__()
        self.config = config
        baseline = config.return_baseline or (0.0, 0.0)
        self.has_baseline = baseline != (0.0, 0.0)
        scale = torch.tensor(config.return_scale or PAPER_RETURN_SCALE)
        self.register_buffer("return_scale", scale, persistent=False)
        self.register_buffer("return_baseline", torch.tensor(baseline), persistent=False)
        self.num_actions = num_actions
        width = backbone.width
        self.tokens_per_step = 3 if config.return_tokens else 2
        self.embed_return = make_projection(config.projections, 1, width) if config.return_tokens else None
        self.embed_state = state_encoder or make_projection(config.projections, state_dim, width)
        outputs = act_dim if num_actions is None else num_actions
        self.embed_action: nn.Module
        if num_actions is None:
            self.embed_action = make_projection(config.projections, act_dim, width)
        else:
            self.embed_action = nn.Embedding(num_actions, width)
        self.timesteps = timesteps
        self.token_positions = token_positions
        self.embedding_norm = nn.LayerNorm(width) if config.embedding == "norm" else None
        self.backbone = backbone
        is_tied = config.head == "tied"
        self.action_head = None if is_tied else make_action_head(config.projections, width, outputs)
        self.bound, self.action_range = None, None
        if num_actions is None:
            unit = -torch.ones(act_dim), torch.ones(act_dim)
            bounds = action_bounds or unit
            is_scaled = config.action_units == "range"
            self.action_range = ActionRange(*(bounds if is_scaled else unit), is_saved=False)
            if config.projections == "linear":
                self.bound = ActionRange(*(unit if is_scaled else bounds))

    def forward(
        self,
        returns_to_go: Tensor,
        states: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        attention_mask: Tensor | None = None,
        *,
        last_only: bool = False,
        states_are_encoded: bool = False,
    ) -> Tensor:
        """Predict actions.

        Args:
            returns_to_go: (B, K) raw, not divided by the scale.
            states: (B, K, S) normalized.
            actions: (B, K, A), or (B, K) int64 where they are discrete; the last one is not looked at.
            timesteps: (B, K) int64 from 0; what is past the end of the table gets its last row.
            attention_mask: (B, K) bool, True = real; not needed where padding is on the right.
            last_only: predict for the last step only.
            states_are_encoded: whether `states` are what `embed_state` gave, (B, K, D).

        Returns:
            (B, K, A), or (B, 1, A) with `last_only`: actions within the bounds, or logits where actions
            are discrete.
        """
        tokens = self.embed(returns_to_go, states, actions, timesteps, states_are_encoded=states_are_encoded)
        actions = self.decode(tokens, timesteps, attention_mask, last_only=last_only)
        return actions if self.action_range is None else self.action_range.from_unit(actions)

    def in_units(self, actions: Tensor) -> Tensor:
        """Actions (..., A) as they are embedded, and as `decode` gives them; choices as they are."""
        return actions if self.action_range is None else self.action_range.to_unit(actions)

    def embed(
        self,
        returns_to_go: Tensor,
        states: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        *,
        states_are_encoded: bool = False,
    ) -> Tensor:
        """Project and normalize: the input representations I of Eq. 8.

        Returns:
            (B, 3K, D) tokens, or (B, 2K, D) without those of returns. `decode` adds the timesteps where they
            come after the norm, or where there is none.
        """
        states = states if states_are_encoded else self.embed_state(states)
        parts = [states, self.embed_action(self.in_units(actions))]
        if self.embed_return is not None:
            returns = self.scaled_returns(returns_to_go, timesteps)
            parts.insert(self.return_token, self.embed_return(returns.unsqueeze(-1)))
        tokens = interleave(*parts)
        if self.embedding_norm is None:
            return torch.tanh(tokens)
        if self.config.timestep_position == "before_norm":
            tokens = self._add_timesteps(tokens, timesteps)
        normalized: Tensor = self.embedding_norm(tokens)
        return normalized

    def decode(
        self,
        tokens: Tensor,
        timesteps: Tensor,
        attention_mask: Tensor | None = None,
        *,
        last_only: bool = False,
    ) -> Tensor:
        """Predict actions, in `config.action_units`, from the tokens that `embed` gave; else as `forward`."""
        inputs, mask = self._backbone_inputs(tokens, timesteps, attention_mask)
        # Without the last action token, the last token is the last state.
        step = self.tokens_per_step
        positions = slice(-1, None) if last_only else slice(step - 2, None, step)
        return self.read_actions(self.backbone(inputs, mask, positions=positions))

    def attentions(
        self,
        returns_to_go: Tensor,
        states: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Attention weights of each layer, (B, H, 3K - 1, 3K - 1), without the last action token."""
        tokens = self.embed(returns_to_go, states, actions, timesteps)
        inputs, mask = self._backbone_inputs(tokens, timesteps, attention_mask)
        attentions: tuple[Tensor, ...] = self.backbone(inputs, mask, return_attentions=True)[1]
        return attentions

    def read_actions(self, hidden: Tensor) -> Tensor:
        """Actions, in `config.action_units`, or logits (..., A) for hidden states (..., D)."""
        if self.action_head is None:
            weight = cast(Tensor, self.embed_action.weight)  # (A, D) of an embedding, (D, A) of L_a
            actions = F.linear(hidden, weight if self.num_actions is not None else weight.T)
        else:
            actions = self.action_head(hidden)
        return actions if self.bound is None else self.bound.from_unit(torch.tanh(actions))

    def scaled_returns(self, returns_to_go: Tensor, timesteps: Tensor) -> Tensor:
        """Raw returns-to-go (B, K) as they are embedded: less the baseline, in units of the scale."""
        if self.has_baseline:
            first, more = self.return_baseline.unbind()
            returns_to_go = returns_to_go - first - more * self._known_steps(timesteps)
        return returns_to_go / self.return_scale

    def raw_returns(self, scaled: Tensor, timesteps: Tensor) -> Tensor:
        """What `scaled_returns` makes of returns-to-go (B, K), undone."""
        first, more = self.return_baseline.unbind()
        return scaled * self.return_scale + first + more * self._known_steps(timesteps)

    def _known_steps(self, timesteps: Tensor) -> Tensor:
        """Timesteps that the table has a row for: past it every step looks like its last one."""
        return timesteps.clamp(max=self.timesteps.num_embeddings - 1)

    def _add_timesteps(self, tokens: Tensor, timesteps: Tensor) -> Tensor:
        """Add one vector to the return, state and action of a step; (B, 3K, D) either way."""
        time: Tensor = self.timesteps(self._known_steps(timesteps))  # (B, K, D)
        steps = tokens.reshape(*timesteps.shape, self.tokens_per_step, -1)  # (B, K, 3, D)
        # In the tokens' precision: under autocast the residual stream then stays in bfloat16.
        return (steps + time.to(tokens.dtype).unsqueeze(2)).flatten(1, 2)

    def _backbone_inputs(
        self, tokens: Tensor, timesteps: Tensor, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if self.token_positions is not None:
            first = self._known_steps(timesteps[:, :1])  # (B, 1)
            positions = self.token_positions.weight[: tokens.shape[1]] + self.timesteps(first)
            tokens = tokens + positions.to(tokens.dtype)
        elif self.config.timestep_position == "after_norm":
            tokens = self._add_timesteps(tokens, timesteps)
        mask = None
        if attention_mask is not None:
            mask = attention_mask.repeat_interleave(self.tokens_per_step, dim=1)[:, :-1]
        # Nothing is read after the last state, and nothing before the last action can see it.
        return tokens[:, :-1], mask
