"""How policies are used: begin episodes, act, observe; and what of that is refused. Imports numpy alone.

Whatever is refused leaves everything as it was, so that the caller can go on with a mended value.

Dimensions: E episodes acted in at once · T steps of a history · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chibit.core.acting import EpisodePolicy, Seeds, are_moderate
from chibit.core.acting import Policy as ActingPolicy
from chibit.core.errors import InputError
from chibit.core.numbers import as_numbers
from chibit.policy.shapes import Shapes, first, require_finite


class Episodes(EpisodePolicy):
    """A policy to act with: call `reset`, then `act` and `observe` in turn.

    Attributes:
        greedy: whether to take the likeliest action where the method would draw one.
        max_episode_steps: steps of an episode after which `act` refuses; the data's time limit. It can be
            set, but the policy has learned nothing of later steps.
    """

    def __init__(
        self, acting: ActingPolicy, shapes: Shapes, target_return: float | None, *, greedy: bool
    ) -> None:
        """Begin with no episode.

        Args:
            acting: what is acted with; it is given nothing that could not be right.
            shapes: of what it was trained on.
            target_return: raw return to ask for; None where the method takes none.
            greedy: take the likeliest action where the method would draw one.
        """
        self._acting, self._shapes, self.greedy = acting, shapes, greedy
        self._target_return = self._first_target = target_return
        self.max_episode_steps, self.dtype = shapes.max_episode_steps, shapes.dtype
        self.reads_missions = isinstance(acting, EpisodePolicy) and acting.reads_missions
        self._is_running = self._has_acted = np.zeros(0, bool)
        self._untold: set[int] = set()  # episodes whose missions are not known yet
        self._steps = np.zeros(0, np.int64)
        # What these say all together, so that one action costs little.
        self._num_running = self._num_waiting = self._oldest = 0

    @property
    def target_return(self) -> float | None:
        """Raw return that `reset` asks for unless it is given another; None where the method takes none.

        It can be set between episodes.
        """
        return self._target_return

    @target_return.setter
    def target_return(self, value: float) -> None:
        if self._num_running:
            raise InputError("target_return: an episode is running; use reset(target_return=...)")
        self._target_return = float(self._checked_targets(value, [0])[0])

    def reset(
        self,
        num_envs: int | None = None,
        *,
        seed: Seeds = None,
        envs: Sequence[int] | np.ndarray | None = None,
        target_return: float | Sequence[float] | np.ndarray | None = None,
    ) -> None:
        """Begin episodes.

        Args:
            num_envs: E, how many at once; None is one, or with `envs` as many as there are.
            seed: of the random numbers with which actions are drawn, where they are: one for all, or one for
                each episode that begins. None goes on to other random numbers, which are the same for every
                policy that was just loaded.
            envs: numbers of the episodes that begin anew, while the others go on; None is all.
            target_return: raw return to ask for in these episodes, one number or one for each.

        Raises:
            InputError: for numbers out of range, a target that is not finite, or one for a method without.
        """
        given = self._checked_envs(envs)
        number = len(self._is_running) if given is not None else 1
        number = number if num_envs is None else num_envs
        if not isinstance(number, int | np.integer):
            raise InputError(f"num_envs is {number!r}, expected a whole number")
        if number < 1 or (given is not None and number != len(self._is_running)):
            expected = "at least 1" if given is None else f"{len(self._is_running)} as before, with envs"
            raise InputError(f"num_envs is {number}, expected {expected}")
        begun = np.arange(number) if given is None else given
        _check_seeds(seed, len(begun))
        asked = self._target_return if target_return is None else target_return
        targets = None if asked is None else self._checked_targets(asked, begun)
        self._begin(number, seed, given, targets)
        if given is None:
            self._is_running, self._has_acted = np.zeros(number, bool), np.zeros(number, bool)
            self._untold.clear()
            self._steps = np.zeros(number, np.int64)
        self._is_running[begun], self._has_acted[begun], self._steps[begun] = True, False, 0
        if self.reads_missions:
            self._untold |= set(begun.tolist())
        self._num_running, self._num_waiting = int(self._is_running.sum()), int(self._has_acted.sum())
        self._oldest = int(self._steps.max())

    def instruct(self, missions: str | Sequence[str], envs: Sequence[int] | np.ndarray | None = None) -> None:
        """Say what episodes are for, between `reset` and their first `act`.

        Args:
            missions: a text for each of the episodes, or one text where there is one.
            envs: which of them; None is all.

        Raises:
            InputError: for a method that reads no text, another number of texts, or a running episode.
        """
        told = [missions] if isinstance(missions, str) else list(missions)
        given = self._checked_envs(envs)
        asked = list(range(len(self._is_running))) if given is None else given.tolist()
        if not self.reads_missions:
            raise InputError("instruct: this method reads no text; leave it out")
        if len(told) != len(asked) or not asked:
            raise InputError(f"instruct: got {len(told)} texts, expected {len(asked)}, one for each")
        for e, mission in zip(asked, told, strict=True):
            if not isinstance(mission, str):
                raise InputError(f"instruct: environment {e} is told {mission!r:.80}, expected a text")
        has_begun = self._has_acted[asked] | (self._steps[asked] > 0)
        if not self._is_running[asked].all() or has_begun.any():
            raise InputError("instruct: say it at the beginning of an episode, after reset")
        assert isinstance(self._acting, EpisodePolicy)
        self._acting.instruct(told, asked)
        self._untold -= set(asked)

    def act(self, observations: Any) -> np.ndarray:
        """Choose actions.

        Args:
            observations: (E, S) as the environment gives them, or (S,) where E is 1; images (E, C, H, W).
                Where the data had dictionaries or integers, those: one, or with arrays (E, ...) in them. A
                `mission` in them is taken as by `instruct` at the beginning of an episode.

        Returns:
            (E, A) float32, or (E,) int64 where actions are discrete; without the first axis if the
            observations had none. Rows of episodes that are over mean nothing.

        Raises:
            InputError: before `reset`, after the end of every episode, at the time limit, if the last actions
                were not observed, for another shape, or what is not finite.
        """
        if not self._num_running or self._num_waiting or self._oldest >= self.max_episode_steps:
            self._check_turn()
        if self._untold:
            self._take_missions(observations)
        given, is_single = self._shapes.observations(observations, self._is_running)
        actions = self._acting.act(given)
        if not (are_moderate(actions) or np.isfinite(actions).all()):
            e = first(~np.isfinite(actions).reshape(len(actions), -1).all(axis=1))
            raise InputError(f"act: the action of environment {e} is not finite; give another observation")
        self._has_acted[:], self._num_waiting = self._is_running, self._num_running
        return actions[0] if is_single else actions

    def observe(self, reward: Any, done: Any, action: Any = None) -> None:
        """Take in what the last actions brought.

        Args:
            reward: (E,) raw rewards, or one number.
            done: (E,) bool, True from the step on which an episode ended, or one value.
            action: as `act` gives them, what was really done where it was something else: after a filter, or
                by somebody else. None is what `act` said.

        Raises:
            InputError: for another shape, what is not finite, or where `act` did not come before.
        """
        number = len(self._is_running)
        if not number:
            raise InputError("observe: call reset first")
        brought, over = _column("rewards", reward, number), _column("dones", done, number)
        waiting = self._has_acted
        if self._num_waiting < number:
            brought, over = np.where(waiting, brought, 0), np.where(waiting, over, 0)
        require_finite("observe: the reward", brought)
        if over.dtype != bool and not np.isin(over, (0, 1)).all():
            e = first(~np.isin(over, (0, 1)))
            raise InputError(f"observe: done of environment {e} is {over[e]}, expected True or False")
        executed = None if action is None else self._shapes.actions(action, waiting)
        if not self._num_waiting:
            raise InputError("observe: there is no action that this could follow; call act first")
        over = over.astype(bool, copy=False)
        self._acting.observe(brought, over, executed)
        self._steps += waiting
        self._oldest += 1
        if over.any():
            self._is_running &= ~over
            self._num_running = int(self._is_running.sum())
        self._has_acted[:], self._num_waiting = False, 0

    def replay(
        self,
        observations: Any,
        actions: Any,
        rewards: Any,
        *,
        target_return: float | None = None,
        seed: int | None = None,
        mission: str | None = None,
    ) -> np.ndarray:
        """Go through the history of one episode, in which somebody else acted.

        It sees at each step what was seen, done and earned until then. Afterwards the episode runs on: the
        next `act` takes over. Where a step is refused, it is at that step.

        Args:
            observations: (T, S), or (T,) where S is 1, or dictionaries of arrays (T, ...), as `act` takes
                them.
            actions: (T, A) or (T,), what was done.
            rewards: (T,) raw.
            target_return: raw return to ask for.
            seed: see `reset`.
            mission: what the episode is for, for methods that read it.

        Returns:
            (T, A) or (T,), what the policy would have done at each step.

        Raises:
            InputError: as `act` and `observe`, with the step.
        """
        done, earned = as_numbers("replay: actions", actions), as_numbers("replay: rewards", rewards)
        lengths = {len(column) if np.ndim(column) else 0 for column in (*_leaves(observations), done, earned)}
        if len(lengths) != 1 or 0 in lengths:
            raise InputError(
                f"replay: columns have {sorted(lengths)} steps, expected as many in each, 1 or more"
            )
        self.reset(1, target_return=target_return, seed=seed)
        if mission is not None:
            self.instruct(mission)
        chosen, shape = [], self._shapes.action_shape
        for step in range(len(earned)):
            try:
                chosen.append(self.act(_at(observations, slice(step, step + 1))).reshape(shape))
                self.observe(earned[step], False, done[step : step + 1])
            except InputError as error:
                raise InputError(f"replay: step {step}: {error}") from error
        return np.stack(chosen)

    def _begin(self, num_envs: int, seed: Seeds, envs: np.ndarray | None, targets: np.ndarray | None) -> None:
        """Begin episodes; arguments as in `EpisodePolicy.reset`."""
        if isinstance(self._acting, EpisodePolicy):
            self._acting.greedy = self.greedy
            self._acting.reset(num_envs, seed=seed, envs=envs, target_return=targets)
            return
        if envs is not None or self.greedy or (targets is not None and (targets != self._first_target).any()):
            raise InputError(
                f"reset: {type(self._acting).__name__} takes no envs, greedy or other target_return; let it "
                "inherit chibit.core.acting.EpisodePolicy"
            )
        self._acting.reset(num_envs)

    def _take_missions(self, observations: Any) -> None:
        """Take what dictionaries say of episodes that begin; refuse to act where nothing is said."""
        said = observations.get("mission") if isinstance(observations, Mapping) else None
        if said is None:
            raise InputError(
                f"act: what is environment {min(self._untold)} to do? This method reads it: call "
                "instruct(missions) after reset, or give dictionaries with a mission"
            )
        texts = [said] if isinstance(said, str) else list(said)
        if len(texts) != len(self._is_running):
            raise InputError(f"act: got {len(texts)} missions, expected {len(self._is_running)}")
        begun = sorted(self._untold)
        self.instruct([texts[e] for e in begun], begun)

    def _check_turn(self) -> None:
        """Refuse to act where it is no time to."""
        if not len(self._is_running):
            raise InputError("act: call reset first")
        if not self._num_running:
            whose = "the episode is" if len(self._is_running) == 1 else "every episode is"
            raise InputError(f"act: {whose} over; call reset")
        if self._num_waiting:
            raise InputError("act: tell the policy what the last actions brought: observe(rewards, dones)")
        late = self._is_running & (self._steps >= self.max_episode_steps)
        if late.any():
            raise InputError(
                f"act: environment {first(late)} is at the time limit of {self.max_episode_steps} "
                "steps; call reset, or set max_episode_steps"
            )

    def _checked_envs(self, envs: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
        if envs is None:
            return None
        given, number = np.asarray(envs), len(self._is_running)
        if not number:
            raise InputError("reset: call reset(num_envs) first, then with envs")
        is_whole = given.ndim == 1 and given.dtype.kind in "iu" and len(given) > 0
        if not is_whole or len(set(given.tolist())) < len(given) or given.min() < 0 or given.max() >= number:
            raise InputError(f"envs: got {given.tolist()}, expected different numbers from 0 to {number - 1}")
        return given

    def _checked_targets(self, targets: Any, envs: Sequence[int] | np.ndarray) -> np.ndarray:
        """One for each of some episodes, (len(envs),)."""
        if self._target_return is None:
            raise InputError(f"target_return is {targets}, but this method takes none")
        given = as_numbers("target_return", targets).astype(np.float64)
        if given.shape not in ((), (len(envs),)):
            raise InputError(f"target_return has shape {given.shape}, expected a number or ({len(envs)},)")
        spread = np.broadcast_to(given, (len(envs),))
        require_finite("target_return", spread, envs)
        return spread


def _check_seeds(seed: Any, number: int) -> None:
    """Refuse what is no seed of `number` episodes."""
    if seed is None:
        return
    given = as_numbers("seed", seed)
    if given.shape not in ((), (number,)):
        raise InputError(f"seed: got {given.size}, expected one for each of {number} episodes")
    if given.dtype.kind not in "iu" or (given < 0).any():
        raise InputError(f"seed is {given.tolist()}, expected whole numbers from 0")


def _column(name: str, values: Any, number: int) -> np.ndarray:
    """(E,) numbers, or one."""
    array = as_numbers(f"observe: {name}", values)
    array = array[None] if array.ndim == 0 else array
    if array.shape != (number,):
        raise InputError(f"observe: {name} have shape {array.shape}, expected {(number,)}")
    return array


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in _leaves(part)]
    return [value]


def _at(value: Any, rows: slice) -> Any:
    if isinstance(value, Mapping):
        return {key: _at(part, rows) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_at(part, rows) for part in value)
    return value[rows]
