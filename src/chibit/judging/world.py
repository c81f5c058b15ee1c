"""A model of the environment, learned from the log, in which a policy is simply played.

Several members predict the change of the state and the reward, in units of their spread, and whether the
episode is terminated. A rollout belongs to one member from beginning to end: its error is then one that the
environment could have, and the members' spread says how much it matters.

Dimensions: M members · E episodes played at once · S state_dim · A width of a coded action · N steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.agents.base import Policy
from chibit.core.config import Checked
from chibit.core.fields import Count, Positive, Widths
from chibit.data.dataset import DatasetSpec
from chibit.judging.networks import BATCH_SIZE, Members, count_nothing, minimize, suited_steps
from chibit.judging.steps import Scales, Steps, check_actions, code_actions

_HUBER_DELTA = 3.0
_ENDING_WIDTHS = (64, 64)
_TERMINAL_ROWS = BATCH_SIZE // 8
"""Terminations in a batch of the classifier, which are rare in the data; its logit is corrected for them."""
_MARGIN = 0.3
"""Standard deviations by which the model's states may leave the range of the log's."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig(Checked):
    """What was measured to work for logs of 10,000 to 100,000 steps; see docs/judging.md."""

    num_members: Count = 4
    hidden_sizes: Widths = (160, 160, 160)
    num_steps: Count = 4000
    """Gradient steps at most; see `networks.suited_steps`."""
    learning_rate: Positive = 1e-3


@dataclass(frozen=True, eq=False)
class Play:
    """Rollouts of a policy in the model. Rollout e is of member e modulo M."""

    num_members: int
    returns: np.ndarray
    """(E,) undiscounted."""
    values: np.ndarray
    """(E,) discounted returns."""
    lengths: np.ndarray
    """(E,) steps until the end, or the horizon."""
    disagreement: float
    """Standard deviation over members of the predicted change of the state, in units of its spread; mean."""
    clipped: float
    """Share of steps whose state would have left the log's range."""

    def by_member(self, outcomes: np.ndarray) -> np.ndarray:
        """(M,) means of (E,) outcomes."""
        return np.array([outcomes[m :: self.num_members].mean() for m in range(self.num_members)])


class World(nn.Module):
    """The model; buffers hold everything that is not learned by gradients, so that it is saved whole."""

    shift: Tensor
    """What the classifier's logit is too high by."""
    ends: Tensor
    """Whether any logged episode was terminated."""

    def __init__(self, spec: DatasetSpec, config: WorldConfig, *, ends_by_change: bool) -> None:
        """Build it.

        Args:
            spec: sizes, and bounds of actions.
            config: sizes of the networks.
            ends_by_change: terminations are seen in the state that they lead to; where the data do not hold
                it, in the state and the action before.
        """
        super().__init__()
        self.spec, self.config, self.ends_by_change = spec, config, ends_by_change
        width = spec.num_actions or spec.act_dim
        self.scales = Scales(spec.state_dim, width)
        inputs = spec.state_dim + width
        self.dynamics = Members(config.num_members, inputs, config.hidden_sizes, spec.state_dim + 1)
        ending_inputs = 2 * spec.state_dim if ends_by_change else inputs
        self.ending = Members(config.num_members, ending_inputs, _ENDING_WIDTHS, 1)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("ends", torch.zeros((), dtype=torch.bool))

    def fit(
        self, steps: Steps, generator: np.random.Generator, advance: Callable[[], None] = count_nothing
    ) -> None:
        """Learn from all steps of a log; `advance` counts gradient steps.

        Raises:
            DivergenceError: if it does not work out.
        """
        config = self.config
        is_discrete = self.spec.num_actions is not None
        self.scales = Scales.measured(steps, is_discrete=is_discrete, offset=self.spec.state_offset)
        inputs, targets, known = self._targets(steps)
        endings = torch.from_numpy(self._ending_inputs(steps))
        is_end = torch.from_numpy(steps.terminations.astype(np.float32))
        terminal = np.flatnonzero(steps.terminations)
        num_terminal = _TERMINAL_ROWS if len(terminal) else 0
        share = len(terminal) / len(is_end)
        self.ends.fill_(bool(num_terminal))
        if num_terminal:
            drawn = (num_terminal + (BATCH_SIZE - num_terminal) * share) / BATCH_SIZE
            rest = (BATCH_SIZE - num_terminal) / BATCH_SIZE  # of what does not end, by how much it is rarer
            self.shift.fill_(float(np.log(drawn / share / rest)))

        def draw(rows: np.ndarray | int, number: int) -> np.ndarray:
            return generator.choice(rows, (config.num_members, number))

        def loss() -> Tensor:
            rows = torch.from_numpy(draw(len(is_end), BATCH_SIZE))
            predicted, target = self.dynamics(inputs[rows]), targets[rows]
            if known is not None:
                target = torch.where(known[rows], target, predicted.detach())
            total = F.huber_loss(predicted, target, delta=_HUBER_DELTA)
            if num_terminal:
                parts = [draw(len(is_end), BATCH_SIZE - num_terminal), draw(terminal, num_terminal)]
                rows = torch.from_numpy(np.concatenate(parts, axis=1))
                logits = self.ending(endings[rows])[..., 0]
                total = total + F.binary_cross_entropy_with_logits(logits, is_end[rows])
            return total

        minimize(
            [*self.dynamics.parameters(), *self.ending.parameters()], loss,
            num_steps=suited_steps(config.num_steps, len(is_end)), learning_rate=config.learning_rate,
            advance=advance,
        )  # fmt: skip

    @torch.no_grad()
    def error(self, steps: Steps) -> float:
        """Mean squared error of the change of the state, one step ahead, in units of its spread."""
        inputs, targets, known = self._targets(steps)
        errors = (self.dynamics.on_all(inputs)[..., :-1] - targets[:, :-1]) ** 2
        return float(errors.mean() if known is None else errors[:, known[:, 0]].mean())

    @torch.no_grad()
    def residuals(self, steps: Steps) -> np.ndarray:
        """(N, S + 1) what a member leaves unexplained, of each step another one; 0 where nothing is known."""
        inputs, targets, known = self._targets(steps)
        rows = torch.arange(len(inputs))
        left = targets - self.dynamics.on_all(inputs)[rows % self.config.num_members, rows]
        return (left if known is None else left * known).numpy()

    @torch.no_grad()
    def endings(self, steps: Steps) -> tuple[float, float]:
        """How many terminations it sees, and how many where there are none; means over members."""
        if not self.ends:
            return 0.0, 0.0
        seen = (self.ending.on_all(torch.from_numpy(self._ending_inputs(steps)))[..., 0] > self.shift).numpy()
        return float(seen[:, steps.terminations].sum(1).mean()), float(
            seen[:, ~steps.terminations].sum(1).mean()
        )

    @torch.no_grad()
    def play(
        self,
        policy: Policy,
        starts: np.ndarray,
        *,
        horizon: int,
        discount: float,
        ends: bool = True,
        noise: Callable[[], np.ndarray] | None = None,
    ) -> Play:
        """Play one episode from each start, in lockstep, until all are over.

        Args:
            policy: acts in all episodes at once; it is reset first.
            starts: (E, S) raw observations; E is a multiple of the number of members.
            horizon: steps after which an episode is cut.
            discount: of `Play.values`, per step.
            ends: whether episodes may be terminated.
            noise: gives what is added to the predictions (E, S + 1) of a step, in their units.

        Raises:
            InputError: if the policy's actions do not fit the data, or are not finite.
        """
        number, num_members = len(starts), self.config.num_members
        members, episodes = np.arange(number) % num_members, np.arange(number)
        low, high = self.scales.state_low.numpy() - _MARGIN, self.scales.state_high.numpy() + _MARGIN
        states, live = self.scales.states(starts), np.ones(number, bool)
        returns, values, lengths = np.zeros(number), np.zeros(number), np.zeros(number, np.int64)
        disagreement, clipped, weight = 0.0, 0, 1.0
        policy.reset(number)
        for _ in range(horizon):
            seen = self.scales.raw_states(states).astype(self.spec.observation_dtype)
            actions = self._coded(policy.act(seen), live, int(lengths.max()))
            inputs = np.concatenate([states, self.scales.actions(actions)], axis=1)
            predicted = self.dynamics.on_all(torch.from_numpy(inputs)).numpy()
            own = predicted[members, episodes]
            if noise is not None:
                own = own + noise()
            change = own[:, :-1] * self.scales.change_std.numpy() + self.scales.change_mean.numpy()
            following = states + change
            clipped += int((((following < low) | (following > high)).any(1) & live).sum())
            following = np.clip(following, low, high).astype(np.float32)
            over = self._is_over(inputs, states, following) if ends else np.zeros(number, bool)
            rewards = self._rewards(own[:, -1])
            disagreement += float(predicted[..., :-1].std(0).mean(1)[live].sum())
            returns += live * rewards
            values += live * weight * rewards
            lengths += live
            weight *= discount
            live = live & ~over
            policy.observe(rewards, ~live)
            states = following
            if not live.any():
                break
        total = lengths.sum()
        return Play(num_members, returns, values, lengths, disagreement / total, float(clipped / total))

    def _targets(self, steps: Steps) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs (N, S + A), targets (N, S + 1), and where these are known (N, S + 1) if not everywhere."""
        scales = self.scales
        states = scales.states(steps.states)
        change = (scales.states(steps.next_states) - states - scales.change_mean.numpy()) / (
            scales.change_std.numpy()
        )
        reward = (steps.rewards[:, None] - scales.reward_mean.numpy()) / scales.reward_std.numpy()
        targets = torch.from_numpy(np.concatenate([change, reward], axis=1).astype(np.float32))
        inputs = torch.from_numpy(np.concatenate([states, scales.actions(steps.actions)], axis=1))
        if steps.is_known.all():
            return inputs, targets, None
        known = torch.ones(targets.shape, dtype=torch.bool)
        known[~torch.from_numpy(steps.is_known), :-1] = False
        return inputs, targets, known

    def _ending_inputs(self, steps: Steps) -> np.ndarray:
        states = self.scales.states(steps.states)
        if not self.ends_by_change:
            return np.concatenate([states, self.scales.actions(steps.actions)], axis=1)
        following = self.scales.states(steps.next_states)
        return np.concatenate([following, following - states], axis=1)

    def _rewards(self, predicted: np.ndarray) -> np.ndarray:
        """(E,) within the log's range."""
        scales = self.scales
        rewards = predicted * scales.reward_std.numpy() + scales.reward_mean.numpy()
        return np.clip(rewards, scales.reward_low.numpy(), scales.reward_high.numpy())

    def _is_over(self, inputs: np.ndarray, states: np.ndarray, following: np.ndarray) -> np.ndarray:
        """(E,) whether each episode is terminated, as its own member sees it."""
        number, num_members = len(states), self.config.num_members
        if not self.ends:
            return np.zeros(number, bool)
        if self.ends_by_change:
            inputs = np.concatenate([following, following - states], axis=1)
        by_member = torch.from_numpy(inputs).reshape(number // num_members, num_members, -1).transpose(0, 1)
        logits = self.ending(by_member)[..., 0].transpose(0, 1).reshape(number)
        return (logits > self.shift).numpy()

    def _coded(self, actions: np.ndarray, live: np.ndarray, step: int) -> np.ndarray:
        """(E, A) actions as the environment would take them: cut at their bounds."""
        spec = self.spec
        actions = check_actions(actions, live, spec, step)
        if spec.num_actions is None:
            return np.clip(actions, spec.action_low, spec.action_high).astype(np.float32)
        return code_actions(actions, spec)
