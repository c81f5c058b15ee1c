"""BabyAI's levels as tasks of language: what to do is said in words, and success must be declared.

An episode ends with the action `done`: at the right object it is a success, elsewhere a failure. Without
that, BabyAI ends an episode as soon as its target is touched, and a policy that never reads wanders into it.

A task plays the reset seeds of one split, a list that is kept in the package: `seen`, the held-out pairs, or
the seen ones with other words. Data for training come from other seeds. Gymnasium builds tasks too, once this
module is imported: ``gymnasium.make("chibit/BabyAI-GoToLocalS8N4-color_synonym-v0")``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import string
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Text

from chibit.core.config import read_json
from chibit.core.errors import InputError, needing
from chibit.environments.instructions import MAX_LETTERS, is_held_out, rephrase, word_in
from chibit.environments.kinds import LanguageEnvironment
from chibit.environments.registry import ENVIRONMENTS

if TYPE_CHECKING:
    from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

TRAINING_SEEDS = 1_000_000
"""Reset seeds of training data begin here; those of the splits are below."""
GRID_SHAPE = (7, 7, 3)
"""What is seen of the room: object, color and state of each cell, as numbers."""
_PART_OF = {"held_out": "held_out", "type": "typed", "color": "colored"}
"""List of reset seeds that a split is played on, by the beginning of its name; others take `seen`."""
FITS: dict[str, Callable[[str], bool]] = {
    "seen": lambda mission: not is_held_out(mission),
    "held_out": is_held_out,
    "typed": lambda mission: not is_held_out(mission) and word_in(mission, "type") is not None,
    "colored": lambda mission: not is_held_out(mission) and word_in(mission, "color") is not None,
}
"""Lists of reset seeds, and what an instruction of theirs is like."""


class LanguageTask(gym.Env[dict[str, Any], np.int64]):
    """A level of BabyAI whose episodes end with `done`; the reward is 1 for success, else 0.

    Observations: `direction` 0 to 3, `image` (7, 7, 3) uint8 symbols (object, color, state of what is seen),
    `mission`, a text. Actions: 0 left, 1 right, 2 forward, 3 pick up, 4 drop, 5 toggle, 6 done.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = Dict(
        {
            "direction": Discrete(4),
            "image": Box(0, 255, GRID_SHAPE, np.uint8),
            "mission": Text(MAX_LETTERS, min_length=0, charset=string.ascii_letters + string.digits + " ,."),
        }
    )
    action_space = Discrete(7)

    def __init__(self, level: str, split: str = "seen", render_mode: str | None = None) -> None:
        """Build the level.

        Args:
            level: as BabyAI calls it: GoToLocalS8N4; or MixedLocal, of this package.
            split: whose reset seeds are played, and what is done to the words.
            render_mode: rgb_array for pictures.

        Raises:
            InputError: without the extra, or for a split without episodes.
        """
        self._seeds = split_seeds(level, split)
        self._split, self.render_mode = split, render_mode
        self.level: Any = build_level(level, render_mode)
        self.mission = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin one of the split's episodes, which the seed draws; or with options that of a `reset_seed`."""
        super().reset(seed=seed)
        asked = (options or {}).get("reset_seed")
        chosen = int(self.np_random.choice(self._seeds)) if seed is not None or asked is None else None
        given = chosen if asked is None else asked
        with quiet():
            seen, _ = self.level.reset(seed=given)
        said = str(seen["mission"])
        if given == chosen and not FITS[_list_of(self._split)](said):
            raise InputError(
                f"split {self._split}: reset seed {given} says {said!r} here; install the minigrid that "
                "the splits were made with (3.2)"
            )
        self.mission = rephrase(said, self._split, self.np_random)
        return self._observation(seen), {"success": False}

    def step(self, action: np.int64 | int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act; `done` ends the episode."""
        with done_required():
            seen, reward, terminated, truncated, _ = self.level.step(int(action))
        is_right = bool(terminated and reward > 0)
        return self._observation(seen), float(is_right), terminated, truncated, {"success": is_right}

    @property
    def is_followed(self) -> bool:
        """Whether the last action has followed the instruction, so that `done` would be right now."""
        return bool(self.level.instrs.lastStepMatch)

    def _observation(self, seen: dict[str, Any]) -> dict[str, Any]:
        return {"direction": seen["direction"], "image": seen["image"], "mission": self.mission}

    def render(self) -> Any:
        """The room from above, with what the agent sees of it brighter, (H, W, 3) uint8."""
        return self.level.render()


@contextlib.contextmanager
def done_required() -> Iterator[None]:
    """Let BabyAI count an instruction as followed only when `done` is said at its target."""
    from minigrid.envs.babyai.core import verifier

    before, verifier.use_done_actions = verifier.use_done_actions, True
    try:
        yield
    finally:
        verifier.use_done_actions = before


def split_seeds(level: str, split: str) -> np.ndarray:
    """Reset seeds that a split is played on.

    Raises:
        InputError: if the level has no episode of that kind.
    """
    row = level_row(level)
    if split not in row.splits:
        raise InputError(f"split {split!r} of level {level}: expected {', '.join(row.splits)}")
    if not has_episodes(level, split):
        raise InputError(f"level {level}: split {split} has no episodes; choose another split or level")
    return np.array(_all_seeds()[level][_list_of(split)])


def has_episodes(level: str, split: str) -> bool:
    """Whether a level has an episode of a split's kind: that of doors has no held-out pair."""
    return bool(_all_seeds()[level][_list_of(split)])


def level_row(level: str) -> LanguageEnvironment:
    """The row of a level; InputError for an unknown one."""
    rows = {row.level: row for row in ENVIRONMENTS.values() if isinstance(row, LanguageEnvironment)}
    if level not in rows:
        raise InputError(f"level {level!r}: expected {', '.join(rows)}")
    return rows[level]


@functools.cache
def _all_seeds() -> dict[str, dict[str, list[int]]]:
    """The lists of the package, by level and kind; `scripts/make_language_splits.py` wrote them."""
    path = Path(str(resources.files("chibit"))) / "assets" / "language" / "splits.json"
    found: dict[str, dict[str, list[int]]] = read_json(path)
    return found


def _list_of(split: str) -> str:
    return _PART_OF.get(split, _PART_OF.get(split.partition("_")[0], "seen"))


def build_level(level: str, render_mode: str | None) -> RoomGridLevel:
    """One of BabyAI's levels, or the package's own, which end after their time."""
    with needing("language", f"BabyAI's level {level}"):
        import minigrid
    gym.register_envs(minigrid)
    options: dict[str, Any] = {"max_steps": level_row(level).max_episode_steps, "render_mode": render_mode}
    if level == "MixedLocal":
        from chibit.environments.mixed_level import MixedLocal

        return MixedLocal(**options)
    made: Any = gym.make(f"BabyAI-{level}-v0", disable_env_checker=True, **options).unwrapped
    return made


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what BabyAI prints of the layouts that it rejects."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _register() -> None:
    """Give Gymnasium the ids of the registry."""
    for env_id, row in ENVIRONMENTS.so_far.items():
        if isinstance(row, LanguageEnvironment):
            row.register(env_id, f"{__name__}:LanguageTask")


_register()
