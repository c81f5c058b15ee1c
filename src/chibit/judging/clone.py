"""A plain clone of the log: what a policy is compared with, and how far it is from what was done.

Dimensions: E episodes played at once · N steps · S state_dim · A act_dim · C choices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chibit.core.state_policies import MemorylessPolicy
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.judging.networks import BATCH_SIZE, Members, count_nothing, minimize, suited_steps
from chibit.judging.steps import Scales, Steps, code_actions

_NUM_MEMBERS, _WIDTHS = 3, (128, 128)
_LOG_STD = (-4.0, 1.0)
"""Range of the logarithm of a spread, in units of the actions' own."""
FAR = 3.0
"""Standard deviations from which on an action is far from the log's."""
_RARE = 0.0027
"""Probability of a choice that is as rare as that."""
_BLOCK_ROWS = 1 << 14


class Clone(nn.Module):
    """Mean and spread of the logged action in each state, or the probabilities of the choices."""

    def __init__(self, spec: DatasetSpec) -> None:
        """Build it for the sizes of a data set."""
        super().__init__()
        self.spec = spec
        self.is_discrete = spec.num_actions is not None
        width = spec.num_actions or spec.act_dim
        self.scales = Scales(spec.state_dim, width)
        self.members = Members(
            _NUM_MEMBERS, spec.state_dim, _WIDTHS, width if self.is_discrete else 2 * width
        )

    def fit(
        self,
        steps: Steps,
        scales: Scales,
        generator: np.random.Generator,
        *,
        num_steps: int,
        advance: Callable[[], None] = count_nothing,
    ) -> None:
        """Learn from all steps of a log by maximum likelihood.

        Args:
            steps: of the log.
            scales: units.
            generator: of batches.
            num_steps: gradient steps at most; see `networks.suited_steps`.
            advance: counts them.

        Raises:
            DivergenceError: if it does not work out.
        """
        self.scales.load_state_dict(scales.state_dict())
        states = torch.from_numpy(scales.states(steps.states))
        actions = torch.from_numpy(scales.actions(steps.actions))

        def loss() -> Tensor:
            rows = torch.from_numpy(generator.integers(0, len(states), (_NUM_MEMBERS, BATCH_SIZE)))
            output = self.members(states[rows])
            if self.is_discrete:
                return F.cross_entropy(output.flatten(0, 1), actions[rows].flatten(0, 1))
            mean, log_std = output.chunk(2, dim=-1)
            log_std = log_std.clamp(*_LOG_STD)
            return (0.5 * ((actions[rows] - mean) / log_std.exp()).square() + log_std).mean()

        number = suited_steps(num_steps, len(states))
        minimize(self.members.parameters(), loss, num_steps=number, learning_rate=1e-3, advance=advance)

    @torch.no_grad()
    def moments(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread of the logged action, (N, A) each, raw, for (N, S) raw observations."""
        parts = [self.members.on_all(block).chunk(2, dim=-1) for block in self._blocks(observations)]
        means = torch.cat([mean for mean, _ in parts], dim=1)
        variances = torch.cat([log_std.clamp(*_LOG_STD).exp() ** 2 for _, log_std in parts], dim=1)
        mean = means.mean(0)
        std = ((variances + means**2).mean(0) - mean**2).clamp(min=0).sqrt()
        scale, offset = self.scales.action_std.numpy(), self.scales.action_mean.numpy()
        return mean.numpy() * scale + offset, std.numpy() * scale

    @torch.no_grad()
    def probabilities(self, observations: np.ndarray) -> np.ndarray:
        """(N, C) of the choices."""
        parts = [self.members.on_all(block).softmax(-1).mean(0) for block in self._blocks(observations)]
        return torch.cat(parts).numpy()

    def choose(self, observations: np.ndarray) -> np.ndarray:
        """The mean action (N, A) within the bounds, or the likeliest choice (N,)."""
        if self.is_discrete:
            return self.probabilities(observations).argmax(-1)
        mean, _ = self.moments(observations)
        return np.clip(mean, self.spec.action_low, self.spec.action_high).astype(np.float32)

    def expected_error(self, observations: np.ndarray) -> float:
        """Error of `choose` that the clone itself expects: mean variance, or the share of other choices."""
        if self.is_discrete:
            return float(1 - self.probabilities(observations).max(-1).mean())
        return float((self.moments(observations)[1] ** 2).mean())

    def share_far(self, observations: np.ndarray, actions: np.ndarray) -> float:
        """Share of (N, A) or (N,) actions that the log would hardly have in such a state."""
        if self.is_discrete:
            chosen = self.probabilities(observations)[np.arange(len(actions)), actions]
            return float((chosen < _RARE).mean())
        mean, std = self.moments(observations)
        return float((np.abs(actions - mean) > FAR * std).any(1).mean())

    def unexplained(self, dataset: TrajectoryDataset) -> tuple[float, float]:
        """What it leaves of logged actions: its share of their variance, and a correlation: how it goes on.

        It goes on in the next step where several policies acted, or one that remembers, or that saw more than
        is in the log; and where the clone cannot learn what was done, since states go on too.
        """
        if self.is_discrete:
            expected = self.probabilities(dataset.observations)
        else:
            expected, _ = self.moments(dataset.observations)
        units = self.scales.action_std.numpy()  # 1 of choices
        actions = code_actions(dataset.actions, self.spec) / units
        left = actions - expected / units
        varied = float(((actions - actions.mean(0)) ** 2).sum())
        goes_on = np.ones(len(left), bool)
        goes_on[dataset.episode_starts[1:] - 1] = False
        first, second = left[goes_on], left[1:][goes_on[:-1]]
        size = np.sqrt((first**2).sum() * (second**2).sum())
        share = float((left**2).sum()) / varied if varied > 0 else 0.0
        return share, float((first * second).sum() / size) if size > 0 else 0.0

    def policy(self) -> ClonePolicy:
        """To play it."""
        return ClonePolicy(self)

    def _blocks(self, observations: np.ndarray) -> tuple[Tensor, ...]:
        return torch.from_numpy(self.scales.states(observations)).split(_BLOCK_ROWS)


class ClonePolicy(MemorylessPolicy):
    """Plays a clone."""

    def __init__(self, clone: Clone) -> None:
        """Of a fitted clone."""
        super().__init__(clone.spec.num_actions, epsilon=0.0)
        self._clone = clone

    def _choose(self, observations: np.ndarray) -> np.ndarray:
        return self._clone.choose(observations)
