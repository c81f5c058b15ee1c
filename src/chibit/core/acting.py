"""What policies remember while they act: steps of each episode, and its dice. Imports numpy alone.

Episodes that are played at once may be of different age: each can begin anew while others go on.

Dimensions: E episodes · L of them that still run · K context in timesteps · S state_dim · A act_dim
· N num_actions.
"""

from __future__ import annotations

import contextlib
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from chibit.core.errors import InputError

RewardMode = Literal["normal", "sparse"]
Seeds: TypeAlias = int | Sequence[int] | None
"""One seed for all episodes that begin, or one for each; None goes on to other random numbers."""

_FEW, _MODERATE = 128, 1e18
_SLACK = 8
"""A history's buffer is this many contexts long, so that it is moved back only once in 7K steps."""


class Policy(Protocol):
    """Acts in E episodes in lockstep.

    One that inherits `EpisodePolicy`, as those of all agents here do, also takes seeds,
    and lets episodes begin apart.
    """

    def reset(self, num_envs: int) -> None:
        """Forget everything and begin `num_envs` episodes."""
        ...

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose an action for each episode.

        Args:
            observations: (E, S), as the environment gives them (not normalized); rows of finished
                episodes are ignored.

        Returns:
            (E, A) float32, or (E,) int64 where actions are discrete; rows of finished episodes are
            arbitrary but finite.
        """
        ...

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Take in what the last actions brought.

        Args:
            rewards: (E,) raw rewards; those of finished episodes are ignored.
            dones: (E,) bool, True from the step on which an episode ended.
            actions: as `act` gives them, what was really done where it was something else: after a filter,
                or by somebody else. None is what `act` said.
        """
        ...


def are_moderate(values: np.ndarray) -> bool:
    """Whether these are few values, all finite and far from the ends of single precision; else it is open.

    A sum of squares, in which nothing cancels, is several times as fast as numpy's look at each of them.
    """
    return values.size <= _FEW and math.hypot(*values.ravel().tolist()) < _MODERATE


class EpisodePolicy(ABC):
    """A policy that is told how its episodes begin.

    Attributes:
        greedy: whether to take the likeliest action where the method would draw one.
        dtype: in which observations are told apart: double precision where an offset is taken off them.
        max_episode_steps: steps of an episode after which `act` refuses.
        reads_missions: whether it must be told in words what each episode is for, by `instruct`.
    """

    greedy: bool = False
    dtype: type[np.floating] = np.float32
    max_episode_steps: int = sys.maxsize
    reads_missions: bool = False

    def instruct(self, missions: Sequence[str], envs: Sequence[int] | np.ndarray | None = None) -> None:
        """Say what episodes are for, after `reset` and before the first `act`.

        Args:
            missions: a text for each of the episodes.
            envs: which of them; None is all.

        Raises:
            InputError: if the policy reads no text.
        """
        raise InputError("instruct: this policy reads no text; leave it out")

    @abstractmethod
    def reset(
        self,
        num_envs: int,
        *,
        seed: Seeds = None,
        envs: Sequence[int] | np.ndarray | None = None,
        target_return: Any = None,
    ) -> None:
        """Begin episodes.

        Args:
            num_envs: E, how many are played at once.
            seed: of the random numbers that actions are drawn with, where they are.
            envs: which of them begin anew, while the others go on; None is all.
            target_return: raw return to ask for in those, one number or one for each; None is the usual one.
        """

    @abstractmethod
    def act(self, observations: np.ndarray) -> np.ndarray:
        """See `Policy`."""

    @abstractmethod
    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """See `Policy`."""


class StackPolicy(EpisodePolicy):
    """Acts in episodes of several runs at once, in each by the weights of its own."""

    @abstractmethod
    def seat(self, runs: np.ndarray) -> None:
        """Say of which run (E,) each episode is that the next `reset` begins; those of a run together."""


@contextlib.contextmanager
def unlimited(policy: Policy) -> Iterator[None]:
    """Leave it to where a policy is played how long an episode may be."""
    if not isinstance(policy, EpisodePolicy):
        yield
        return
    limit, policy.max_episode_steps = policy.max_episode_steps, sys.maxsize
    try:
        yield
    finally:
        policy.max_episode_steps = limit


class Dice:
    """A stream of random numbers for each episode, so that none depends on what is played beside it."""

    def __init__(self) -> None:
        self._num_begun = 0
        self._streams: dict[int, np.random.Generator] = {}

    def begin(self, num_envs: int, envs: Sequence[int] | np.ndarray | None, seed: Seeds) -> None:
        """Give episodes new streams; arguments as in `EpisodePolicy.reset`.

        Without a seed they are others at each call, in an order that is fixed.
        """
        if envs is None:
            self._streams, envs = {}, range(num_envs)
        for place, e in enumerate(np.asarray(envs).tolist()):
            if seed is None:
                key: tuple[int, ...] = (self._num_begun, e)
            elif isinstance(seed, int | np.integer):
                key = (_checked_seed(seed), e, 1)
            else:
                key = (_checked_seed(seed[place]), 0, 1)
            self._streams[e] = np.random.default_rng(key)
        self._num_begun += seed is None

    def choose(self, live: np.ndarray, logits: np.ndarray, *, greedy: bool) -> np.ndarray:
        """Choose (L,) actions by (L, N) logits: drawn by their probabilities, or the likeliest.

        Raises:
            InputError: if logits are not finite; nothing was drawn then.
        """
        if not np.isfinite(logits).all():
            e = live[~np.isfinite(logits).all(axis=1)][0]
            raise InputError(
                f"act: the model's answer in environment {e} is not finite; observe other values"
            )
        if greedy:
            return logits.argmax(axis=1)
        weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        drawn = np.array([[self._streams[e].random()] for e in live.tolist()])
        below = (np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1) < drawn).sum(axis=1)
        return np.minimum(below, logits.shape[1] - 1)

    def stray(self, actions: np.ndarray, epsilon: float, num_actions: int) -> None:
        """Replace (E,) actions by random ones, each with a probability, in place."""
        for e, stream in self._streams.items():
            if stream.random() < epsilon:
                actions[e] = stream.integers(num_actions)


def _checked_seed(seed: int | np.integer) -> int:
    if seed < 0:
        raise InputError(f"seed is {seed}, expected 0 or more")
    return int(seed)


@dataclass(frozen=True)
class Window:
    """The last steps of episodes that have equally many, in a batch."""

    places: np.ndarray
    """(L',) which of the episodes that were asked for these are."""
    returns_to_go: np.ndarray
    """(L', K') raw."""
    states: np.ndarray
    """(L', K', S) as they were seen."""
    actions: np.ndarray
    """(L', K', A), or (L', K') int64; the last one is not chosen yet."""
    timesteps: np.ndarray
    """(L', K') int64 from 0."""

    @property
    def shown(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What a model is shown, in its order: returns-to-go, states, actions, timesteps."""
        return self.returns_to_go, self.states, self.actions, self.timesteps


class History:
    """The last K steps of E episodes, and what is left of the return that each asks for."""

    def __init__(
        self, num_envs: int, context_length: int, width: int, act_dim: int | None, dtype: type[np.floating]
    ) -> None:
        """Make room.

        Args:
            num_envs: E.
            context_length: K.
            width: S, numbers in what is remembered of an observation.
            act_dim: A; None where actions are discrete.
            dtype: of what is remembered of an observation.
        """
        shape = (num_envs, _SLACK * context_length)
        self._context_length = context_length
        self._returns_to_go = np.zeros(shape, np.float32)
        self._states = np.zeros((*shape, width), dtype)
        self._actions = (
            np.zeros(shape, np.int64) if act_dim is None else np.zeros((*shape, act_dim), np.float32)
        )
        self._columns, self._steps = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._left = np.zeros(num_envs)

    def begin(self, envs: np.ndarray, target_returns: np.ndarray) -> None:
        """Forget episodes, which then ask for (len(envs),) raw returns."""
        self._columns[envs] = self._steps[envs] = 0
        self._left[envs] = target_returns

    def see(self, live: np.ndarray, states: np.ndarray) -> None:
        """Take in what (L,) episodes show, (L, S); again replaces it."""
        columns = self._columns[live]
        self._states[live, columns] = states
        self._returns_to_go[live, columns] = self._left[live]

    def windows(self, live: np.ndarray) -> Iterator[Window]:
        """Give the last steps of (L,) episodes, those of one age, or of K steps and more, together."""
        lengths = np.minimum(self._columns[live] + 1, self._context_length)
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            envs, back = live[places][:, None], np.arange(1 - length, 1)
            columns = self._columns[envs] + back
            yield Window(
                places,
                self._returns_to_go[envs, columns],
                self._states[envs, columns],
                self._actions[envs, columns],
                self._steps[envs] + back,
            )

    def ask(self, envs: np.ndarray, returns_to_go: np.ndarray) -> None:
        """Remember what return-to-go (L',) episodes asked for at this step."""
        self._returns_to_go[envs, self._columns[envs]] = returns_to_go

    def act(self, live: np.ndarray, actions: np.ndarray) -> None:
        """Remember what (L,) episodes do now, (L, A) or (L,); again replaces it."""
        self._actions[live, self._columns[live]] = actions

    def go_on(self, live: np.ndarray, rewards: np.ndarray) -> None:
        """Go to the next step of (L,) episodes, and take (L,) raw rewards off what they ask for."""
        self._left[live] -= rewards
        self._steps[live] += 1
        self._columns[live] += 1
        full = live[self._columns[live] == self._states.shape[1]]
        if len(full):
            kept = self._context_length - 1
            for history in (self._returns_to_go, self._states, self._actions):
                history[full, :kept] = history[full, history.shape[1] - kept :]
            self._columns[full] = kept


class TrajectoryPolicy(EpisodePolicy):
    """Shows a model the last steps, and tells it what return is left to reach.

    Episodes of one age are asked in one batch, so that windows are never padded; those that are over leave.
    """

    def __init__(
        self,
        target_returns: Sequence[float],
        *,
        context_length: int,
        width: int,
        act_dim: int | None,
        reward_mode: RewardMode,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        """Begin with no episode.

        Args:
            target_returns: raw returns to ask for; episode e of `reset(num_envs)` gets number
                e // (num_envs / len(target_returns)).
            context_length: K.
            width: S, numbers in what is remembered of an observation.
            act_dim: A; None where actions are discrete.
            reward_mode: `sparse` holds the return-to-go constant.
            dtype: of what is remembered of an observation.

        Raises:
            InputError: for no target return, or one that is not finite.
        """
        if not len(target_returns) or not np.isfinite(np.asarray(target_returns, float)).all():
            raise InputError(
                f"target_returns are {list(target_returns)}, expected one or more finite numbers"
            )
        self._targets, self._reward_mode = np.asarray(target_returns, np.float64), reward_mode
        self._sizes, self._act_dim = (context_length, width, act_dim, dtype), act_dim
        self._dice = Dice()

    @abstractmethod
    def _encode(self, observations: np.ndarray) -> np.ndarray:
        """Say what is remembered (L, S) of raw observations (L, ...)."""

    @abstractmethod
    def _ask(self, window: Window) -> np.ndarray:
        """Ask the model: (L', A) actions, or (L', N) logits.

        A model that chooses what return to ask for writes it into the window's last step.
        """

    def reset(
        self,
        num_envs: int,
        *,
        seed: Seeds = None,
        envs: Sequence[int] | np.ndarray | None = None,
        target_return: Any = None,
    ) -> None:
        """Begin episodes; see `target_returns` for who asks for what unless it is given here.

        Raises:
            InputError: if `num_envs` is not a multiple of the number of targets.
        """
        if num_envs % len(self._targets):
            raise InputError(
                f"num_envs is {num_envs}, expected a multiple of the {len(self._targets)} targets"
            )
        if self._act_dim is None:
            self._dice.begin(num_envs, envs, seed)
        if envs is None:
            self._history = History(num_envs, *self._sizes)
            self._is_live, self._has_acted = np.ones(num_envs, bool), np.zeros(num_envs, bool)
            envs = np.arange(num_envs)
        begun = np.asarray(envs)
        usual = np.repeat(self._targets, num_envs // len(self._targets))
        self._history.begin(begun, usual[begun] if target_return is None else np.asarray(target_return))
        self._is_live[begun], self._has_acted[begun] = True, False

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose an action for each episode: (E, S) raw observations to (E, A) float32 or (E,) int64."""
        live = np.flatnonzero(self._is_live)
        self._history.see(live, self._encode(observations[live]))
        number = len(self._is_live)
        if self._act_dim is None:
            actions = np.zeros(number, np.int64)
        else:
            actions = np.zeros((number, self._act_dim), np.float32)
        parts = [(window, self._ask(window)) for window in self._history.windows(live)]
        for window, _ in parts:
            self._history.ask(live[window.places], window.returns_to_go[:, -1])
        if parts:
            envs = np.concatenate([live[window.places] for window, _ in parts])
            answers = np.concatenate([answer for _, answer in parts])
            # Of all at once: where one is refused, nothing was drawn for another.
            drawn = self._act_dim is None
            actions[envs] = self._dice.choose(envs, answers, greedy=self.greedy) if drawn else answers
        self._history.act(live, actions[live])
        self._has_acted[:] = self._is_live
        return actions

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Lower what is left to reach by (E,) raw rewards, and drop the episodes that are over.

        What it remembers to have done is (E, A) or (E,) `actions`, or what `act` said.
        """
        live = np.flatnonzero(self._has_acted)
        if actions is not None:
            self._history.act(live, np.asarray(actions)[live])
        brought = np.asarray(rewards, np.float64)[live]
        self._history.go_on(live, brought if self._reward_mode == "normal" else np.zeros_like(brought))
        self._is_live[live] &= ~np.asarray(dones, bool)[live]
        self._has_acted[:] = False
