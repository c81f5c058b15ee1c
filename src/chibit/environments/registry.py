"""Every environment that may be built, one row each: all that the rest of the package asks of it.

A row names its versions, the scale of its scores, the returns to ask for, and which data sets there are. Data
sets and files name environments; only ids found here are built, so no file can smuggle in another. Rows of
other packages come from `register_env`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import MinLen

from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import Count, Distinct, Positive
from chibit.core.files import nearest
from chibit.core.plugins import OWN_MODULES, Registry
from chibit.core.targets import environment_name

if TYPE_CHECKING:
    import gymnasium as gym

ScoreReference = tuple[float, float]
"""Raw returns of a random and of an expert (or human) player."""
LEVELS = ("random", "medium", "medium-replay", "medium-expert", "expert")
"""Levels of the data that are collected here."""
D4RL_LEVELS = (*LEVELS, "full-replay")
MEMORY_LEVELS = ("expert", "mixed")
"""Levels of the data of memory tasks: the expert's, or every other episode guesses."""


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

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """Build one of `ids`; arguments are those of `make_env`."""
        import gymnasium

        with warnings.catch_warnings():
            # v4 is chosen on purpose: it is the version that D4RL data belong to.
            warnings.filterwarnings("ignore", message=r".*is out of date", category=DeprecationWarning)
            given = {name: value for name, value in options.items() if value is not None}
            return gymnasium.make(env_id, disable_env_checker=True, **given)

    def physics(self, env_id: str, d4rl_physics: bool) -> dict[str, Any]:
        """What decides how it moves, for provenance, as JSON values."""
        return {}

    def options(self, env_id: str) -> dict[str, Any]:
        """Arguments that the id stands for, which its record in a file may repeat."""
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
class MemoryEnvironment(Environment):
    """A task of this package that cannot be solved without memory; see `chibit.environments.memory`."""

    task: Literal["TMaze", "KeyToDoor"]
    """Its class."""
    setting: tuple[str, int]
    """Argument of the class that the id stands for."""
    max_episode_steps: Count
    score_reference: Annotated[ScoreReference, Distinct()] | None = (0.0, 1.0)
    """A score is the share of successes, in percent."""
    chance: Positive
    """Share of successes of the best policy without memory."""

    def build(self, env_id: str, *, d4rl_physics: bool, **options: Any) -> gym.Env:
        """As the base, once Gymnasium knows the ids."""
        from chibit.environments import memory as memory

        return super().build(env_id, d4rl_physics=d4rl_physics, **options)

    def options(self, env_id: str) -> dict[str, Any]:
        """The length of the corridor, or of the delay."""
        return dict([self.setting])

    def time_limit(self, env_id: str) -> int:
        """Steps after which the task is over."""
        return self.max_episode_steps


ENVIRONMENTS: Registry[Environment] = Registry("chibit.environments")
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
    )


def _key_to_door(delay: int) -> MemoryEnvironment:
    return MemoryEnvironment(
        name=f"keytodoor-{delay}",
        ids=(f"chibit/KeyToDoor{delay}-v0",),
        task="KeyToDoor",
        setting=("delay", delay),
        max_episode_steps=delay + 3,
        chance=0.25,
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
)
# fmt: on
for _row in _ROWS:
    for _id in _row.ids:
        ENVIRONMENTS.put(_id, _row)
GAMES = tuple(row.name for row in _ROWS if isinstance(row, AtariEnvironment))
MEMORY_TASKS = {row.name: row.ids[0] for row in _ROWS if isinstance(row, MemoryEnvironment)}
"""Name to id of the memory tasks: tmaze-15, keytodoor-20."""
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
        ENVIRONMENTS.put(env_id, row)


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

    row = Environment(
        name=environment_name(env_id),
        ids=(env_id,),
        score_reference=score_reference,
        target_returns=target_returns,
    )
    register(row)
    if make is not None:
        gymnasium.registry.pop(env_id, None)  # defined anew, as in a notebook
        gymnasium.register(env_id, entry_point=make, max_episode_steps=max_episode_steps)


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
    if env_id in ENVIRONMENTS:
        return ENVIRONMENTS[env_id]
    known = f"; known are {', '.join(sorted(ENVIRONMENTS))}; for another name your module in {OWN_MODULES}"
    hint = nearest(env_id, sorted(ENVIRONMENTS)) or known
    raise InputError(f"environment {env_id!r} is not one that can be built here{hint}")
