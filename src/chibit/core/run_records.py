"""What the files of a run directory hold, field by field, and the check of what was read from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from chibit.core.config import Checked, from_json
from chibit.core.errors import DamagedFileError, InputError, shown
from chibit.core.fields import Fraction, Natural, NonNegative, Seed, Share

T = TypeVar("T")
LONGEST_NAME = 200
"""Of an arm, a data set or a split, all of whose letters can be printed."""


@dataclass(frozen=True, kw_only=True)
class DescriptionRecord(Checked):
    """config.json."""

    arm: str
    study: str
    config: dict[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_record_name(self.arm, "arm")


@dataclass(frozen=True, kw_only=True)
class SettingsRecord(Checked):
    """What is read of any run's configuration, whatever its method."""

    seed: Seed
    data: str = ""
    data_fraction: Share = 1.0
    num_steps: Natural = 0


@dataclass(frozen=True, kw_only=True)
class ProvenanceRecord(Checked):
    """provenance.json of a fine-tuning run."""

    data_name: str
    data_hash: str
    dataset: dict[str, Any]
    parameters: dict[str, int]
    data_episodes: Natural | None = None
    data_steps: Natural | None = None
    asked: dict[str, Any] | None = None
    held_out_hash: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_record_name(self.data_name, "data_name")
        check_record_name(self.data_hash, "data_hash")


@dataclass(frozen=True, kw_only=True)
class MetricsRecord(Checked):
    """A line of metrics.jsonl; the metrics are the agent's."""

    step: Natural


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Checked):
    """A line of evaluations.jsonl."""

    step: Natural
    seconds: float
    target_return: float | None
    normalized_score: float | None
    episode_returns: tuple[float, ...]
    episode_lengths: tuple[int, ...] = ()
    failed_episodes: tuple[int, ...] = ()
    successes: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.episode_returns:
            raise InputError("episode_returns: got none, expected an episode or more")
        if self.episode_lengths and len(self.episode_lengths) != len(self.episode_returns):
            raise InputError(
                f"episode_lengths: got {len(self.episode_lengths)}, expected {len(self.episode_returns)}"
            )
        if self.successes and len(self.successes) != len(self.episode_returns):
            raise InputError(f"successes: got {len(self.successes)}, expected {len(self.episode_returns)}")
        strange = [i for i in self.failed_episodes if not 0 <= i < len(self.episode_returns)]
        if strange:
            raise InputError(f"failed_episodes: got {strange[0]}, of {len(self.episode_returns)} episodes")


@dataclass(frozen=True, kw_only=True)
class ScoresRecord(Checked):
    """The scores of one target return in result.json; None where every episode failed."""

    target_return: float | None
    last: float | None
    last4: float | None
    best: float | None
    best_step: int | None
    mean_return_last: float | None
    steps_to_converge: int | None
    seconds_to_converge: float | None
    num_evaluations: int | None = None
    num_episodes_last: int | None = None
    success_rate_last: Fraction | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        scores = (self.last, self.last4, self.best, self.best_step, self.mean_return_last)
        if len({score is None for score in scores}) > 1:
            raise InputError(f"scores: got {scores}, expected all of them or none")


@dataclass(frozen=True, kw_only=True)
class SplitRecord(Checked):
    """What became of a run in one of the splits of its environment, at its end."""

    split: str
    successes: tuple[bool, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_record_name(self.split, "split")
        if not self.successes:
            raise InputError("successes: got none, expected an episode or more")

    @property
    def success_rate(self) -> float:
        """Share of the episodes."""
        return sum(self.successes) / len(self.successes)


@dataclass(frozen=True, kw_only=True)
class ResultRecord(Checked):
    """result.json of a fine-tuning run."""

    status: Literal["finished"]
    steps: Natural
    score_unit: Literal["return", "normalized"]
    scores: tuple[ScoresRecord, ...]
    behaviour_mean_return: float | None
    behaviour_score: float | None
    train_seconds: NonNegative | None = None
    evaluation_seconds: NonNegative | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    splits: tuple[SplitRecord, ...] = ()


def read_record(kind: type[T], record: Any, where: str | Path) -> T:
    """A record of its kind, each field of its type; other fields are nobody's business.

    Raises:
        DamagedFileError: naming the file and the field.
    """
    try:
        if not isinstance(record, dict):
            raise InputError(f"{where}: got {type(record).__name__}, expected an object")
        names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        return from_json(kind, {name: value for name, value in record.items() if name in names}, str(where))
    except InputError as error:
        raise DamagedFileError(f"{error}; restore the file") from error


def check_record(kind: type, record: Any, where: str | Path) -> Any:
    """Give a record back as it is, if `read_record` takes it."""
    read_record(kind, record, where)
    return record


def check_record_name(value: str, where: str) -> None:
    """Refuse what could not be printed as the name of an arm, a data set or a split; InputError."""
    if not value or len(value) > LONGEST_NAME or not value.isprintable():
        raise InputError(f"{where}: got {shown(value)}, expected a name")
