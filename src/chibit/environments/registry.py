"""Every environment that may be built, one row each: all that the rest of the package asks of it.

A row names its versions, the scale of its scores, the returns to ask for, and which data sets there are. Data
sets and files name environments; only ids found here are built, so no file can smuggle in another. Rows of
other packages come from `register_env`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from chibit.core.config import as_field
from chibit.core.errors import InputError, first_line
from chibit.core.fields import Count
from chibit.core.files import nearest
from chibit.core.plugins import OWN_MODULES, Registry, own_modules
from chibit.core.targets import environment_name
from chibit.environments.kinds import (
    AtariEnvironment,
    Environment,
    GridMemoryEnvironment,
    LanguageEnvironment,
    MazeTask,
    MemoryEnvironment,
    MujocoEnvironment,
    OwnEnvironment,
    PointMazeEnvironment,
    ScoreReference,
    library_row,
    missing_extra,
)

if TYPE_CHECKING:
    import gymnasium as gym

LEVELS = ("random", "medium", "medium-replay", "medium-expert", "expert")
"""Levels of the data that are collected here."""
D4RL_LEVELS = (*LEVELS, "full-replay")

LANGUAGE_SPLITS = (
    *("seen", "held_out", "verb_synonym", "type_synonym", "color_synonym", "blank"),
    *("verb_nonsense", "type_nonsense", "color_nonsense", "type_wrong", "color_wrong"),
)
"""What every level of BabyAI is played on: seen and held-out pairs of color and type, other words for the
same, and the controls; see `chibit.environments.instructions`."""


class Environments(Registry[Environment]):
    """Rows by id; those of the libraries follow from the id's pattern."""

    def _all(self) -> dict[str, Environment]:
        is_first = not self._has_plugins
        rows = super()._all()
        if is_first and (modules := own_modules()):
            for env_id in _registered_by(modules) - rows.keys():
                register(OwnEnvironment(name=environment_name(env_id), ids=(env_id,)))
        return rows

    def __getitem__(self, env_id: str) -> Environment:
        rows = self._all()
        found = rows.get(env_id) or library_row(env_id)
        if found is None:
            raise KeyError(env_id)
        return found


def _registered_by(modules: Sequence[str]) -> set[str]:
    """Ids of Gymnasium's whose classes are in a user's modules, or in packages that begin like one."""
    import gymnasium

    tops = {module.partition(".")[0] for module in modules}
    places = {
        env_id: str(getattr(spec.entry_point, "__module__", spec.entry_point)).partition(":")[0]
        for env_id, spec in gymnasium.registry.items()
    }
    return {env_id for env_id, place in places.items() if place.partition(".")[0] in tops}


ENVIRONMENTS = Environments("chibit.environments")
"""Id to row: every environment that may be built."""


def _both(name: str, **facts: Any) -> MujocoEnvironment:
    return MujocoEnvironment(name=name.lower(), ids=(f"{name}-v4", f"{name}-v5"), **facts)


def _locomotion(name: str, reference: ScoreReference, **facts: Any) -> MujocoEnvironment:
    # -v4 has the dynamics and rewards of the -v2 that D4RL's data were made in; -v5 has not.
    return _both(name, score_reference=reference, d4rl_id=f"{name}-v4", **facts)


def _classic(*ids: str) -> Environment:
    return Environment(name=environment_name(ids[0]), ids=ids, renderer="pygame")


def _game(name: str, reference: ScoreReference, *targets: float) -> AtariEnvironment:
    ids = (f"{name}NoFrameskip-v4", f"ALE/{name}-v5")
    return AtariEnvironment(name=name, ids=ids, score_reference=reference, replay_target_returns=targets)


def _t_maze(length: int) -> MemoryEnvironment:
    return MemoryEnvironment(
        name=f"tmaze-{length}",
        ids=(f"chibit/TMaze{length}-v0",),
        task="TMaze",
        setting=("length", length),
        max_episode_steps=2 * length,
        chance=0.5,
        cue_steps=1,
    )


def _key_to_door(delay: int) -> MemoryEnvironment:
    return MemoryEnvironment(
        name=f"keytodoor-{delay}",
        ids=(f"chibit/KeyToDoor{delay}-v0",),
        task="KeyToDoor",
        setting=("delay", delay),
        max_episode_steps=delay + 3,
        chance=0.25,
        cue_steps=2,
    )


def _grid_memory(size: int) -> GridMemoryEnvironment:
    return GridMemoryEnvironment(
        name=f"minigrid-memory-s{size}",
        ids=(f"chibit/MiniGridMemoryS{size}-v0",),
        task="GridMemory",
        setting=("size", size),
        max_episode_steps=4 * size,
        chance=0.5,
        cue_steps=3 + max(0, size - 10),  # two turns, then up to where the object is in view
    )


def _maze(name: Literal["UMaze", "Medium", "Large"], steps: int) -> MazeTask:
    task_id = f"chibit/PointMaze{name}-v0"
    return MazeTask(name=f"pointmaze-{name.lower()}", ids=(task_id,), maze=name, max_episode_steps=steps)


def _library_maze(name: str, reference: ScoreReference) -> PointMazeEnvironment:
    # Random actions and a planner, 100 episodes each (scripts/maze_references.py): not D4RL's references,
    # whose mazes have another radius and other goals.
    maze_id = f"PointMaze_{name}-v3"
    return PointMazeEnvironment(name=f"pointmaze_{name.lower()}", ids=(maze_id,), score_reference=reference)


def _babyai(level: str, max_episode_steps: int, *more_splits: str) -> LanguageEnvironment:
    splits = (*LANGUAGE_SPLITS, *more_splits)
    names = ("", *(f"-{split}" for split in splits[1:]))
    return LanguageEnvironment(
        name=f"babyai-{level.lower()}",
        ids=tuple(f"chibit/BabyAI-{level}{name}-v0" for name in names),
        level=level,
        splits=splits,
        max_episode_steps=max_episode_steps,
    )


_HOPPER, _CHEETAH = (-20.272305, 3234.3), (-280.178953, 12135.0)
_WALKER, _ANT = (1.629008, 4592.3), (-325.6, 3879.7)
"""D4RL's references (Fu et al., 2020); it keeps the same for all its versions and levels."""

# fmt: off
_ROWS: tuple[Environment, ...] = (
    # Targets: the paper's (Table 7), then the other one of Chen et al. (2021), and their scale of returns.
    _locomotion("Hopper", _HOPPER, target_returns=(3600, 1800), return_scale=1000, own_id="Hopper-v5",
                replay_steps=400_000),
    _locomotion("HalfCheetah", _CHEETAH, target_returns=(6000, 12000), return_scale=1000,
                own_id="HalfCheetah-v5", replay_steps=200_000),
    _locomotion("Walker2d", _WALKER, target_returns=(5000, 2500), return_scale=1000, own_id="Walker2d-v5",
                replay_steps=300_000),
    # The 84 contact forces behind positions and velocities are not among Ant-v4's observations.
    _locomotion("Ant", _ANT, num_state_columns=27),
    *map(_both, ("Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum", "Reacher",
                 "Swimmer")),
    MujocoEnvironment(name="pusher", ids=("Pusher-v5",)),  # v4 cannot be built with MuJoCo 3
    _classic("Acrobot-v1"), _classic("CartPole-v0", "CartPole-v1"), _classic("MountainCar-v0"),
    _classic("MountainCarContinuous-v0"), _classic("Pendulum-v1"),
    # The games of Table 1. References: random play and a professional gamer (Chen et al., 2021, appendix B,
    # and Dopamine). Targets: theirs, then the code's where it has another.
    _game("Breakout", (1.7, 30.5), 90),
    _game("Qbert", (163.9, 13455.0), 2500, 14000),
    _game("Pong", (-20.7, 14.6), 20),
    _game("Seaquest", (68.4, 42054.7), 1450, 1150),
    *map(_t_maze, (15, 50, 150)), *map(_key_to_door, (20, 60)),
    *map(_grid_memory, (7, 9, 13, 17)),
    _maze("UMaze", 60), _maze("Medium", 120), _maze("Large", 160),
    _library_maze("UMaze", (9.59, 240.83)), _library_maze("Medium", (9.34, 484.14)),
    _library_maze("Large", (6.32, 622.10)),
    # Time limits: two to three times what the bot needs at most.
    _babyai("GoToObj", 32), _babyai("GoToLocalS8N4", 32), _babyai("GoToLocal", 32), _babyai("GoToDoor", 32),
    _babyai("PickupLoc", 40), _babyai("PutNextLocal", 64), _babyai("MixedLocal", 40, "verb_wrong"),
)
# fmt: on
for _row in _ROWS:
    for _id in _row.ids:
        ENVIRONMENTS[_id] = _row
GAMES = tuple(row.name for row in _ROWS if isinstance(row, AtariEnvironment))
TASKS = {row.name: row for row in _ROWS if row.scripted_levels}
"""Tasks of this package whose data a script collects, by name: tmaze-15, pointmaze-medium."""
LANGUAGE_TASKS = {row.name: row.ids[0] for row in _ROWS if isinstance(row, LanguageEnvironment)}
"""Name to id of BabyAI's levels: babyai-gotolocal."""
D4RL_ROWS = tuple(row for row in _ROWS if row.d4rl_id)
"""Environments that D4RL's locomotion data are from."""
D4RL_IDS = {row.name: row.d4rl_id for row in D4RL_ROWS}
"""Name to id of the environments that D4RL's locomotion data are from."""
OWN_IDS = {row.name: row.own_id for row in _ROWS if row.own_id}
"""Name to id of the environments that have shipped behavior policies."""


def register(row: Environment) -> None:
    """Take in a row, in place of one of the same name that was registered before.

    Raises:
        InputError: if it has an id of the package's own.
    """
    taken = sorted({env_id for own in _ROWS for env_id in own.ids} & set(row.ids))
    if taken:
        raise InputError(f"register_env: {taken[0]} is chibit's own; give your environment another id")
    for env_id in row.ids:
        ENVIRONMENTS[env_id] = row


def own_ids() -> list[str]:
    """Ids that a user has registered or named in this process."""
    return [env_id for env_id, row in ENVIRONMENTS.items() if isinstance(row, OwnEnvironment)]


def register_env(
    env_id: str,
    make: Callable[..., gym.Env] | None = None,
    *,
    max_episode_steps: int | None = None,
    score_reference: ScoreReference | None = None,
    target_returns: tuple[float, ...] = (),
) -> None:
    """Let an environment of your own be built, evaluated in and scored.

    Args:
        env_id: Gymnasium's id of it: Tank-v0.
        make: builds it, usually its class; registered with Gymnasium under `env_id`. None where that is done.
        max_episode_steps: steps after which an episode is cut, for `make`; None for never.
        score_reference: raw returns of random and of expert play, which count as scores of 0 and 100.
        target_returns: raw returns to ask for; empty takes those of the data.

    Raises:
        InputError: for an id of the package's own, one that is no id of Gymnasium's, or equal references.
    """
    import gymnasium

    row = OwnEnvironment(
        name=environment_name(as_field(str, env_id, "env_id")),
        ids=(env_id,),
        score_reference=score_reference,
        target_returns=target_returns,
    )
    max_episode_steps = as_field(Count | None, max_episode_steps, "max_episode_steps")
    try:
        gymnasium.envs.registration.parse_env_id(env_id)
        register(row)
        if make is not None:
            gymnasium.registry.pop(env_id, None)  # defined anew, as in a notebook
            gymnasium.register(env_id, entry_point=make, max_episode_steps=max_episode_steps)
    except gymnasium.error.Error as error:
        raise InputError(f"register_env: {first_line(error)}") from error


def find_game(name: str) -> AtariEnvironment:
    """The row of a game; InputError for an unknown name."""
    for row in _ROWS:
        if isinstance(row, AtariEnvironment) and row.name == name:
            return row
    raise InputError(f"game {name!r}: expected {', '.join(GAMES)}")


def find_environment(env_id: str) -> Environment:
    """The row of an id.

    Raises:
        InputError: if there is none; the message names the nearest ids.
    """
    if isinstance(env_id, str) and env_id in ENVIRONMENTS:
        return ENVIRONMENTS[env_id]
    raise InputError(why_unknown(str(env_id)))


def why_unknown(env_id: str) -> str:
    """Why an id that is not in `ENVIRONMENTS` is not built, and what to do."""
    if extra := missing_extra(env_id):
        return f"environment {env_id!r} needs the extra {extra}: pip install 'chibit[{extra}]'"
    return (
        f"environment {env_id[:80]!r} is not one that can be built here; for one of yours name its module by "
        f"--env-module, or in {OWN_MODULES} (in Python: env=){nearest(env_id, sorted(ENVIRONMENTS))}"
    )
