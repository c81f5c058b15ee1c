"""D4RL's data sets (Fu et al., 2020): where their files are, what their scores mean, what they are played in.

Paths, references and versions are those of d4rl/infos.py and d4rl/locomotion/__init__.py; limits of
steps those of d4rl/hand_manipulation_suite/__init__.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from chibit.environments.kinds import ScoreReference
from chibit.environments.registry import D4RL_LEVELS, D4RL_ROWS

URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
"""Below it are the files."""


@dataclass(frozen=True, kw_only=True)
class D4rlSet:
    """One data set."""

    environment: str
    """In its id: hopper, antmaze, door."""
    level: str
    """In its id: medium-replay, umaze-diverse, human."""
    file: str
    """Its path below `URL`."""
    env_id: str | None = None
    """The environment that shows the same observations; None where none does that can be had today."""
    score_reference: ScoreReference
    """Raw returns that count as scores of 0 and 100."""
    time_limit: int | None = None
    """Steps after which an episode was cut, where a file does not record it."""
    max_episode_steps: int | None = None
    """Steps that an episode is played for; None for those of `env_id`."""
    num_state_columns: int | None = None
    """Columns of observations to keep, from the left; None for all."""
    d4rl_physics: bool = False
    """See `DatasetSpec.d4rl_physics`."""

    @property
    def stem(self) -> str:
        """The file's name without the suffix."""
        return self.file.rpartition("/")[2].removesuffix(".hdf5")


_MAZES = {"umaze": "u-maze", "medium": "big-maze", "large": "hardest-maze"}
_STARTS = {
    "umaze": "False_multigoal_False",
    "umaze-diverse": "True_multigoal_True",
    **{f"{maze}-play": "True_multigoal_False" for maze in ("medium", "large")},
    **{f"{maze}-diverse": "True_multigoal_True" for maze in ("medium", "large")},
}
_POINT_MAZES = {
    "open": (0, (0.01, 20.66), (11.17817, 27.166538620695782)),
    "umaze": (1, (23.85, 161.86), (68.537689, 193.66285642381482)),
    "medium": (1, (13.13, 277.39), (44.264742, 297.4552547777125)),
    "large": (1, (6.7, 273.99), (30.569041, 303.4857382709002)),
}
"""Version, and references of sparse and of dense rewards."""
_HANDS = {
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "door": (-56.512833, 2880.5693087298737),
}
_HAND_FILES = {"human": "v0_demos_clipped", "cloned": "demos-v0-bc-combined", "expert": "v0_expert_clipped"}
_KITCHEN_FILES = {
    "complete": "mini_kitchen_microwave_kettle_light_slider",
    "partial": "kitchen_microwave_kettle_light_slider",
    "mixed": "kitchen_microwave_kettle_bottomburner_light",
}


def _locomotion() -> dict[str, D4rlSet]:
    sets = {}
    for row in D4RL_ROWS:
        assert row.score_reference is not None
        for level in D4RL_LEVELS:
            sets[f"{row.name}-{level}-v2"] = D4rlSet(
                environment=row.name,
                level=level,
                file=f"gym_mujoco_v2/{row.name}_{level.replace('-', '_')}-v2.hdf5",
                env_id=row.d4rl_id,
                score_reference=row.score_reference,
                time_limit=1000,
                num_state_columns=row.num_state_columns,
                d4rl_physics=True,
            )
    return sets


def _mazes() -> dict[str, D4rlSet]:
    sets = {}
    for level, starts in _STARTS.items():
        maze = _MAZES[level.partition("-")[0]]
        for version, folder, end in ((0, "ant_maze_new", ""), (2, "ant_maze_v2", "_fixed")):
            file = f"{folder}/Ant_maze_{maze}_noisy_multistart_{starts}_sparse{end}.hdf5"
            sets[f"antmaze-{level}-v{version}"] = D4rlSet(
                environment="antmaze", level=level, file=file, score_reference=(0.0, 1.0)
            )
    for maze, (version, *references) in _POINT_MAZES.items():
        for kind, reference in zip(("", "-dense"), references, strict=True):
            name = f"maze2d-{maze}{kind or '-sparse'}{f'-v{version}' if version else ''}"
            sets[f"maze2d-{maze}{kind}-v{version}"] = D4rlSet(
                environment="maze2d",
                level=f"{maze}{kind}",
                file=f"maze2d/{name}.hdf5",
                score_reference=reference,
            )
    return sets


def _manipulation() -> dict[str, D4rlSet]:
    sets = {}
    for hand, reference in _HANDS.items():
        for level, file in _HAND_FILES.items():
            paths = (f"hand_dapg/{hand}-{file}.hdf5", f"hand_dapg_v1/{hand}-{level}-v1.hdf5")
            for version, path in enumerate(paths):
                sets[f"{hand}-{level}-v{version}"] = D4rlSet(
                    environment=hand,
                    level=level,
                    file=path,
                    env_id=f"AdroitHand{hand.capitalize()}-v1",
                    max_episode_steps=100 if hand == "pen" else None,
                    score_reference=reference,
                )
    for level, file in _KITCHEN_FILES.items():
        sets[f"kitchen-{level}-v0"] = D4rlSet(
            environment="kitchen", level=level, file=f"kitchen/{file}-v0.hdf5", score_reference=(0.0, 4.0)
        )
    return sets


D4RL_SETS = {**_locomotion(), **_mazes(), **_manipulation()}
"""By id: hopper-medium-v2, antmaze-umaze-v2, door-human-v1."""
