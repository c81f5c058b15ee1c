"""Kinds of environments: how each is built, cut, drawn and recorded; their rows are in `registry`.

Observations are vectors, or pictures, however an environment gives them: see `vectors`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import MinLen

from chibit.core.config import Checked
from chibit.core.errors import InputError, UserError, first_line, needing
from chibit.core.fields import Count, Distinct, Positive
from chibit.core.temporary import temporary_folder

if TYPE_CHECKING:
    import gymnasium as gym

ScoreReference = tuple[float, float]
"""Raw returns of a random and of an expert (or human) player."""


@dataclass(frozen=True, kw_only=True)
class Environment(Checked):
    """What is known of one environment, in all its versions; built by `gymnasium.make`."""

    name: str
    """In names of data sets, in flags and tables: hopper."""
    ids: Annotated[tuple[str, ...], MinLen(1)]
    """Gymnasium's ids of the versions that may be built."""
    score_reference: Annotated[ScoreReference, Distinct()] | None = None
    """Raw returns that count as scores of 0 and 100; None where none are published."""
    target_returns: Annotated[tuple[float, ...], Distinct()] = ()
    """Raw returns to ask for; empty takes those of the data."""
    return_scale: Positive | None = None
    """What the paper divides its returns by; None takes what suits the data."""
    d4rl_id: str | None = None
    """The version that D4RL's data (version 2) belong to; None where it has none."""
    own_id: str | None = None
    """The version in which the shipped behavior policies collect; None where there are none."""
    replay_steps: Count | None = None
    """Steps of its own medium-replay set."""
    num_state_columns: Count | None = None
    """Columns of D4RL's observations that `d4rl_id` shows; None for all."""
    renderer: Literal["own", "pygame", "mujoco"] = "own"
    """What its pictures need beside itself."""
    repeated_parts: tuple[str, ...] = ()
    """Parts of a dictionary of observations that only repeat what is in others; left out."""
    scripted_levels: tuple[str, ...] = ()
    """Levels of the data that a script of this package collects in it, the usual one first."""

    def make_known(self) -> None:
        """Let Gymnasium know the ids."""

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """Build one of `ids`; arguments are those of `make_env`."""
        import gymnasium

        from chibit.environments.vectors import as_vectors, from_zero

        self.make_known()

        with warnings.catch_warnings():
            # v4 is chosen on purpose: it is the version that D4RL data belong to.
            warnings.filterwarnings("ignore", message=r".*is out of date", category=DeprecationWarning)
            given = {name: value for name, value in options.items() if value is not None}
            env = gymnasium.make(env_id, disable_env_checker=True, **given)
            return as_vectors(from_zero(env), self.repeated_parts)

    def module(self, env_id: str) -> str:
        """What must be imported for it to be known; empty where nothing must."""
        return ""

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """What decides how it moves, for provenance, as JSON values."""
        return {}

    def options(self, env_id: str) -> dict[str, Any]:
        """Arguments that the id stands for, which its record in a file may repeat."""
        return {}

    def played_at_end(self, env_id: str) -> dict[str, str]:
        """Variants that a run is played in at its end, once more itself among them: name to id."""
        return {}

    def time_limit(self, env_id: str) -> int | None:
        """Steps after which an episode is cut; None for never."""
        import gymnasium

        return gymnasium.spec(env_id).max_episode_steps


@dataclass(frozen=True, kw_only=True)
class MujocoEnvironment(Environment):
    """One that MuJoCo simulates: contact margins can be those that D4RL was made with."""

    renderer: Literal["own", "pygame", "mujoco"] = "mujoco"

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """As the base, without a word, and with the contact margins."""
        from chibit.environments import mujoco

        with mujoco.quiet():
            env = super().build(env_id, d4rl_physics=d4rl_physics, **options)
        if d4rl_physics:
            mujoco.take_larger_margins(env)
        return env

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """MuJoCo's version and how the margins of two touching geoms combine."""
        from chibit.environments import mujoco

        return mujoco.physics(d4rl_physics)


@dataclass(frozen=True, kw_only=True)
class AtariEnvironment(Environment):
    """A game, without and with sticky actions; see `chibit.environments.atari`."""

    return_scale: Positive | None = 1.0
    """Rewards are clipped already (Chen et al., 2021)."""
    replay_target_returns: tuple[float, ...]
    """Raw returns to ask for after learning from DQN-replay."""

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """An `AtariEnv`."""
        from chibit.environments.atari import AtariEnv

        return AtariEnv(env_id, **options)

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """ALE's version, and how actions are repeated."""
        from chibit.environments.atari import physics

        return physics(env_id)

    def time_limit(self, env_id: str) -> int:
        """Half an hour of play."""
        from chibit.environments.atari import MAX_EPISODE_STEPS

        return MAX_EPISODE_STEPS


@dataclass(frozen=True, kw_only=True)
class OwnTask(Environment):
    """A task of this package: its module gives Gymnasium the ids, and a score is the share of successes."""

    max_episode_steps: Count
    score_reference: Annotated[ScoreReference, Distinct()] | None = (0.0, 1.0)
    """A score is the share of successes, in percent."""

    def time_limit(self, env_id: str) -> int:
        """Steps after which the task is over."""
        return self.max_episode_steps

    def register(self, env_id: str, entry_point: str) -> None:
        """Let Gymnasium know one of `ids`: a class, with the options that the id stands for."""
        import gymnasium

        gymnasium.register(
            env_id,
            entry_point=entry_point,
            kwargs=self.options(env_id),
            max_episode_steps=self.max_episode_steps,
        )


@dataclass(frozen=True, kw_only=True)
class MemoryEnvironment(OwnTask):
    """A task of this package that cannot be solved without memory; see `chibit.environments.memory`."""

    task: Literal["TMaze", "KeyToDoor", "GridMemory"]
    """Its class."""
    setting: tuple[str, int]
    """Argument of the class that the id stands for."""
    chance: Positive
    """Share of successes of the best policy without memory."""
    cue_steps: Count
    """First steps of an episode in which the cue may be seen."""
    scripted_levels: tuple[str, ...] = ("expert", "mixed")
    """The expert's, or every other episode guesses."""

    def make_known(self) -> None:
        """By importing their module."""
        from chibit.environments import memory as memory

    def options(self, env_id: str) -> dict[str, Any]:
        """The length of the corridor, or of the delay."""
        return dict([self.setting])


@dataclass(frozen=True, kw_only=True)
class GridMemoryEnvironment(MemoryEnvironment):
    """MiniGrid's memory task in vectors; see `chibit.environments.grid_memory`."""

    def make_known(self) -> None:
        """By importing their module."""
        from chibit.environments import grid_memory as grid_memory

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """The library's version."""
        return {"minigrid": importlib.metadata.version("minigrid")}


@dataclass(frozen=True, kw_only=True)
class LanguageEnvironment(OwnTask):
    """A level of BabyAI as a task of language, in all its splits; see `chibit.environments.language`."""

    level: str
    """As BabyAI calls it."""
    splits: Annotated[tuple[str, ...], MinLen(1)]
    """What is played under each of `ids`; the first is that of the evaluations in training."""

    def make_known(self) -> None:
        """By importing their module."""
        from chibit.environments import language as language

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """The library's version, and that `done` must be said."""
        return {"minigrid": importlib.metadata.version("minigrid"), "done_required": True}

    def options(self, env_id: str) -> dict[str, Any]:
        """Level and split."""
        return {"level": self.level, "split": self.splits[self.ids.index(env_id)]}

    def played_at_end(self, env_id: str) -> dict[str, str]:
        """All splits that have episodes, after training on the first; nothing after another's."""
        from chibit.environments.language import has_episodes

        if env_id != self.ids[0]:
            return {}
        pairs = zip(self.splits, self.ids, strict=True)
        return {split: played for split, played in pairs if has_episodes(self.level, split)}


@dataclass(frozen=True, kw_only=True)
class OwnEnvironment(Environment):
    """One of a user's own, or of Gymnasium's that a user has named."""

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """As the base; what its code raises becomes one line."""
        try:
            return super().build(env_id, d4rl_physics=d4rl_physics, **options)
        except UserError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(f"environment {env_id!r} cannot be built ({reason})") from error

    def module(self, env_id: str) -> str:
        """As the base, by what builds it."""
        name = str(self.physics(env_id, False)["entry_point"]).partition(":")[0]
        return "" if name == "__main__" or name.startswith("gymnasium.") else name

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """What builds it."""
        import gymnasium

        make: Any = gymnasium.spec(env_id).entry_point
        named = inspect.unwrap(make) if callable(make) else make
        named = named if inspect.isroutine(named) or inspect.isclass(named) else type(named)
        place = make if isinstance(make, str) else f"{named.__module__}:{named.__qualname__}"
        return {"entry_point": place}


class LibraryEnvironment(Environment):
    """One of an extra's: which ids there are follows from its version."""


@dataclass(frozen=True, kw_only=True)
class RoboticsEnvironment(MujocoEnvironment, LibraryEnvironment):
    """One of Gymnasium-Robotics: mazes, hands, arms, kitchen."""

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """As the base, once Gymnasium knows the ids."""
        with needing("robotics", f"environment {env_id!r}"), _silent():
            import gymnasium_robotics as library
            from gymnasium_robotics.utils import mujoco_utils
        from chibit.environments.mujoco import let_compare

        let_compare(mujoco_utils)
        with private_temporary_files():
            return _of_library(super().build, library, env_id, d4rl_physics=d4rl_physics, **options)

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """With the library's version: its rewards have changed between versions."""
        found = super().physics(env_id, d4rl_physics)
        return found | {"gymnasium_robotics": importlib.metadata.version("gymnasium-robotics")}


@dataclass(frozen=True, kw_only=True)
class PointMazeEnvironment(RoboticsEnvironment):
    """A maze of Gymnasium-Robotics with a ball, whose place is among its observations already."""

    repeated_parts: tuple[str, ...] = ("achieved_goal",)


@dataclass(frozen=True, kw_only=True)
class MazeTask(OwnTask, RoboticsEnvironment):
    """A task of this package in a maze of Gymnasium-Robotics; see `chibit.environments.pointmaze`."""

    maze: Literal["UMaze", "Medium", "Large"]
    """The map."""
    scripted_levels: tuple[str, ...] = ("near", "all")
    """Ways up to half of the longest, or all ways."""

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """As the base, once Gymnasium knows the ids."""
        with needing("robotics", f"environment {env_id!r}"), _silent():
            from chibit.environments import pointmaze as pointmaze

        return super().build(env_id, d4rl_physics=d4rl_physics, **options)

    def options(self, env_id: str) -> dict[str, Any]:
        """The map."""
        return {"maze": self.maze}


_ACTIONS_IN = {"action": 1, "and": 2, "seq": 4}
"""Most actions in each kind of BabyAI's instructions."""


@dataclass(frozen=True, kw_only=True)
class GridEnvironment(LibraryEnvironment):
    """One of MiniGrid or BabyAI."""

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """As the base, once Gymnasium knows the ids."""
        with needing("minigrid", f"environment {env_id!r}"):
            import minigrid as library
        from chibit.environments.vectors import SuccessByReward

        env = _of_library(super().build, library, env_id, d4rl_physics=d4rl_physics, **options)
        return SuccessByReward(env)

    def time_limit(self, env_id: str) -> int:
        """The environment's own; of those that follow an episode's instruction the longest."""
        with contextlib.closing(self.build(env_id, d4rl_physics=False)) as env:
            from minigrid.envs.babyai.core.levelgen import LevelGen

            try:
                with _silent():
                    env.reset(seed=0)  # BabyAI counts its steps there
            except OSError as error:  # files of WFC mazes that the library's packages lack
                raise InputError(f"environment {env_id!r} cannot begin ({first_line(error)})") from error
            level: Any = env.unwrapped
            if not isinstance(level, LevelGen) or level.fixed_max_steps:
                return int(level.max_steps)
            ways = 2 if "putnext" in level.action_kinds else 1
            ways *= max(_ACTIONS_IN[kind] for kind in level.instr_kinds)
            return int(ways * level.num_rows * level.num_cols * level.room_size**2)

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """The library's version."""
        return {"minigrid": importlib.metadata.version("minigrid")}


def _of_library(build: Callable[..., gym.Env], library: ModuleType, env_id: str, **options: Any) -> gym.Env:
    """Build by an id that follows a library's pattern; InputError where its version has none of it."""
    import gymnasium

    gymnasium.register_envs(library)
    try:
        return build(env_id, **options)
    except (gymnasium.error.Error, AssertionError) as error:
        reason = first_line(error) or type(error).__name__
        version = f"{library.__name__} {library.__version__}"
        raise InputError(f"environment {env_id!r} cannot be built by {version} ({reason})") from error


@contextlib.contextmanager
def private_temporary_files() -> Iterator[None]:
    """Let a library write its temporary files where they are gone afterwards: mazes leave theirs for ever."""
    usual = tempfile.tempdir
    with temporary_folder() as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = usual


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drop what a library prints when it is imported."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


_LIBRARIES: tuple[tuple[str, type[Environment], str, str], ...] = (
    (
        r"AntMaze_\w+-v\d+|AdroitHand(Door|Hammer|Pen|Relocate)\w*-v\d+"
        r"|Fetch(Reach|Push|Slide|PickAndPlace)\w*-v\d+|FrankaKitchen-v\d+",
        RoboticsEnvironment, "gymnasium_robotics", "robotics",
    ),
    (r"PointMaze_\w+-v\d+", PointMazeEnvironment, "gymnasium_robotics", "robotics"),
    (r"(MiniGrid|BabyAI)-[\w-]+-v\d+", GridEnvironment, "minigrid", "minigrid"),
)  # fmt: skip
"""Pattern of ids, their row's class, module and extra: such ids are known where the extra is installed."""


def missing_extra(env_id: str) -> str:
    """The extra without which an environment is not known here; empty for none."""
    for pattern, _, module, extra in _LIBRARIES:
        if re.fullmatch(pattern, env_id, re.ASCII) and importlib.util.find_spec(module) is None:
            return extra
    return ""


def library_row(env_id: str) -> Environment | None:
    """The row of an environment of an extra that is installed; None for others."""
    if not missing_extra(env_id):
        for pattern, kind, _, _ in _LIBRARIES:
            if re.fullmatch(pattern, env_id, re.ASCII):
                return kind(name=env_id.rpartition("-v")[0].lower(), ids=(env_id,))
    return None
