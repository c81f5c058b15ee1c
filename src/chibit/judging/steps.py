"""The log as a model of it is learned: single steps in units of their spread, and what they were before.

Dimensions: N steps · S state_dim · A width of a coded action (act_dim, or one column for each choice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chibit.core.errors import InputError
from chibit.core.memory import check_fits
from chibit.core.numbers import as_numbers
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.statistics import LEAST, LEAST_REWARD, spread


@dataclass(frozen=True, eq=False)
class Steps:
    """All steps of a log, end to end."""

    states: np.ndarray
    """(N, S) float32 raw, float64 with an offset."""
    actions: np.ndarray
    """(N, A) float32; one-hot where actions are discrete."""
    rewards: np.ndarray
    """(N,) float64."""
    next_states: np.ndarray
    """(N, S) of the same kind."""
    is_known: np.ndarray
    """(N,) bool, whether `next_states` is: not after an episode's end where the data hold none, unless all
    episodes end with their only step."""
    terminations: np.ndarray
    """(N,) bool."""

    def part(self, rows: np.ndarray) -> Steps:
        """Some of them."""
        return Steps(**{name: column[rows] for name, column in vars(self).items()})


def read_steps(dataset: TrajectoryDataset) -> Steps:
    """Take the steps out of a log.

    Raises:
        ResourceError: if they do not fit into memory.
    """
    spec = dataset.spec
    width = 2 * spec.state_dim + (spec.num_actions or spec.act_dim) + 2
    check_fits(16 * dataset.num_steps * width, f"the steps of {spec.name}", "judge on a part of the data")
    states = np.array(dataset.observations)
    following, is_known = np.concatenate([states[1:], states[:1]]), np.ones(len(states), bool)
    last = dataset.episode_starts[1:] - 1
    if dataset.final_observations is None:
        following[last], is_known[last] = states[last], False
        if not is_known.any() and dataset.terminations.all():
            is_known[:] = True  # single decisions: nothing follows, and only rewards are to be learned
    else:
        following[last] = dataset.final_observations
    return Steps(
        states=states,
        actions=code_actions(dataset.actions, spec),
        rewards=np.asarray(dataset.rewards, np.float64),
        next_states=following,
        is_known=is_known,
        terminations=dataset.terminations,
    )


def check_actions(given: Any, live: np.ndarray, spec: DatasetSpec, step: int) -> np.ndarray:
    """What a policy gives, with 0 in episodes that are over; (E, act_dim), or (E,) int64 of choices.

    Args:
        given: what `act` gave.
        live: (E,) bool.
        spec: of the data.
        step: of the episodes.

    Raises:
        InputError: if it is no array of numbers of this shape, or in episodes that go on not finite or no
            choice.
    """
    expected = (len(live),) if spec.num_actions is not None else (len(live), spec.act_dim)
    actions = as_numbers("the policy's actions", given)
    if actions.shape != expected:
        raise InputError(
            f"the policy gives actions of shape {actions.shape}, expected {expected} as in {spec.name}; "
            "judge it on the data that it was trained on"
        )
    actions = np.where(live.reshape(-1, *[1] * (actions.ndim - 1)), actions, 0)
    if not np.isfinite(actions).all():
        raise InputError(f"the policy's action is not finite at step {step}; train it again")
    if spec.num_actions is None:
        return actions
    if not (is_choice := np.isin(actions, range(spec.num_actions))).all():
        raise InputError(
            f"the policy's action is {actions[~is_choice][0]:g} at step {step}, expected one of 0 to "
            f"{spec.num_actions - 1}"
        )
    return actions.astype(np.int64)


def code_actions(actions: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """Actions (N, act_dim) as they are, and discrete ones (N,) one-hot; float32."""
    if spec.num_actions is None:
        return np.asarray(actions, np.float32)
    return np.eye(spec.num_actions, dtype=np.float32)[actions]


class Scales(nn.Module):
    """Means and spreads of the steps that a model is learned from, and the range that they reach."""

    state_mean: Tensor
    state_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    change_mean: Tensor
    change_std: Tensor
    reward_mean: Tensor
    reward_std: Tensor
    state_low: Tensor
    state_high: Tensor
    reward_low: Tensor
    reward_high: Tensor

    def __init__(self, state_dim: int, action_width: int) -> None:
        """Make room; `measured` fills it."""
        super().__init__()
        widths = {"state": state_dim, "change": state_dim, "action": action_width, "reward": 1}
        for name in Scales.__annotations__:
            buffer = torch.zeros(widths[name.partition("_")[0]], dtype=torch.float64)
            self.register_buffer(name, buffer)

    @classmethod
    def measured(cls, steps: Steps, *, is_discrete: bool, offset: Sequence[float] = ()) -> Scales:
        """Of some steps, less the offset of their states, by which it is told what is constant.

        Choices keep their zeros and ones.
        """
        scales = cls(steps.states.shape[1], steps.actions.shape[1])
        columns = {"state": steps.states, "action": steps.actions, "reward": steps.rewards[:, None]}
        for name, rows in columns.items():
            scales._set(name, rows.astype(np.float64))
        if any(offset):
            scales._fill("state_std", spread(scales.state_mean.numpy() - offset, steps.states.std(0)))
        if is_discrete:
            scales.action_mean.zero_()
            scales.action_std.fill_(1.0)
        states, following = scales.states(steps.states), scales.states(steps.next_states)
        scales._set("change", (following.astype(np.float64) - states)[steps.is_known])
        for bound, choose in (("low", np.min), ("high", np.max)):
            scales._fill(f"state_{bound}", choose(states, axis=0))
            scales._fill(f"reward_{bound}", choose(steps.rewards, axis=0, keepdims=True))
        return scales

    def states(self, raw: np.ndarray) -> np.ndarray:
        """(N, S) float32 in units of the spread; centered in float64, since offsets may be large."""
        return ((raw - self.state_mean.numpy()) / self.state_std.numpy()).astype(np.float32)

    def raw_states(self, states: np.ndarray) -> np.ndarray:
        """Back from `states`, float64, in which an offset leaves the signal."""
        return np.asarray(states * self.state_std.numpy() + self.state_mean.numpy())

    def actions(self, raw: np.ndarray) -> np.ndarray:
        """(N, A) float32 in units of the spread."""
        return ((raw - self.action_mean.numpy()) / self.action_std.numpy()).astype(np.float32)

    def _set(self, name: str, rows: np.ndarray) -> None:
        mean, std = rows.mean(0), rows.std(0)
        self._fill(f"{name}_mean", mean)
        self._fill(f"{name}_std", spread(mean, std, least=LEAST_REWARD if name == "reward" else LEAST))

    def _fill(self, name: str, values: np.ndarray) -> None:
        self.get_buffer(name).copy_(torch.from_numpy(np.asarray(values, np.float64)))
