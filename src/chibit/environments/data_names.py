"""What the name of a data set says, where it has one of the known forms; a free name says nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from chibit.environments.d4rl import D4RL_SETS
from chibit.environments.registry import (
    D4RL_IDS,
    D4RL_LEVELS,
    ENVIRONMENTS,
    GAMES,
    LANGUAGE_TASKS,
    LEVELS,
    TASKS,
)

Source = Literal["d4rl", "minari", "chibit", "short", "replay", "played", "scripted", "instructed"]

_LEVELS, _GAMES = "|".join(D4RL_LEVELS), "|".join(GAMES)
_LOCOMOTION = "|".join(D4RL_IDS)
_FORMS: dict[Source, str] = {
    "minari": rf"mujoco/({_LOCOMOTION})/({_LEVELS})-v\d+",
    "chibit": rf"chibit/({_LOCOMOTION})/({_LEVELS})-v\d+",
    "short": rf"({_LOCOMOTION})-({_LEVELS})",
    "replay": rf"({_GAMES})(?:-(\d+(?:\.\d+)?)pct)?",
    "played": rf"({_GAMES.lower()})-({'|'.join(LEVELS)})",
    "scripted": rf"(?:chibit/)?({'|'.join(TASKS)})(?:[-/](\w+)(?:-v0)?)?",
    "instructed": rf"({'|'.join(LANGUAGE_TASKS)})",
}
_PUBLISHED = re.compile(rf"({_LOCOMOTION})-({_LEVELS})-v\d+|({_GAMES})(-.+pct)?|(chibit|mujoco)/.*")


@dataclass(frozen=True)
class DataName:
    """What a name says."""

    source: Source
    """Whose data: D4RL's, Minari's, collected here (`short` is a short name of that), DQN-replay's, games
    that were played here, or tasks that a script solves here."""
    environment: str
    """As `Environment.name`: hopper, Breakout."""
    level: str
    """medium-replay; of DQN-replay the percentage, or empty for 1."""


def read_name(name: str) -> DataName | None:
    """Read a name: ``hopper-medium-v2``, ``mujoco/hopper/medium-v0``, ``Breakout-5pct``; None for others."""
    if name in D4RL_SETS:
        return DataName("d4rl", D4RL_SETS[name].environment, D4RL_SETS[name].level)
    for source, form in _FORMS.items():
        if match := re.fullmatch(form, name, re.ASCII):
            if source == "scripted" and match[2] not in (None, *TASKS[match[1]].scripted_levels):
                continue
            game = {game.lower(): game for game in GAMES}.get(match[1], match[1])
            level = match[2] if match.re.groups > 1 else None
            return DataName(source, game, level or "")
    return None


def published_env_id(name: str) -> str | None:
    """An id of the environment that a name of one of these forms speaks of; None for another name."""
    known = read_name(name)
    return next(
        (row.ids[0] for row in ENVIRONMENTS.values() if known and row.name == known.environment), None
    )


def is_published_name(name: str) -> bool:
    """Whether a name stands for one published data set, whose numbers tables would show beside it."""
    return name in D4RL_SETS or _PUBLISHED.fullmatch(name) is not None
