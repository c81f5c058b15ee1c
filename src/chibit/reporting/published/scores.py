"""Numbers that others published, each with its source, its scoring rule and the data it was measured on.

They are shown beside our own and never mixed with them. Two rules matter when reading them: a score picked
as the best of a run's evaluations is higher than its last one, by 3 to 15 points on these data sets; and the
paper compares its own early-stopped scores with the last scores of Chen et al. (2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from chibit.environments.data_names import read_name
from chibit.environments.registry import GAMES
from chibit.reporting.read.arms import SUFFIXES
from chibit.reporting.read.shipped import read_rows

PublishedRule = Literal["last", "last4", "best", "converged", "unstated"]
Origin = Literal["d4rl", "minari", "chibit", "atari", "other"]

NUMBERS = Path(__file__).with_name("numbers")
"""Files of published numbers; their README says where each comes from."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where published numbers come from."""

    key: str
    """Name in the CSV files."""
    short: str
    """Column heading."""
    citation: str
    """Authors, year, title, place in the publication."""
    note: str
    """Data, rule and spread, and what to keep in mind when comparing."""


@dataclass(frozen=True, kw_only=True)
class PublishedScore:
    """One published number."""

    source: str
    """Key of its `Source`."""
    arm: str
    """Arm as this project names it, for example ``td3_bc``."""
    task: str
    """Data set without its version, for example ``hopper-medium``; or ``average``, ``medium-average``."""
    rule: PublishedRule
    """Which evaluation of a run was reported."""
    mean: float
    """Normalized score, 0 to 100; minutes where `unit` says so."""
    spread: float | None
    """Spread over seeds as printed; None where none was."""
    num_seeds: int | None
    """Seeds behind the mean; None where the source does not say."""
    unit: Literal["score", "minutes"] = "score"
    """What `mean` counts."""
    difference: str = ""
    """In what the published arm differs from the one of ours that it stands beside."""

    @property
    def publication(self) -> str:
        """The source without its table."""
        return self.source.partition("-")[0]


SOURCES = {row["key"]: Source(**row) for row in read_rows(NUMBERS / "sources.csv")}
"""Sources by key."""
_COUNTERPARTS = {
    (row["arm"], row["publication"]): (row["theirs"], row["difference"])
    for row in read_rows(NUMBERS / "counterparts.csv")
}
"""Arm of ours and publication to its closest arm, and in what that differs, where names do not say it."""
_WANG_ARMS = {
    "DT": "dt",
    "DT_180k": "dt_180k",
    "ChibiT_wiki_Lcos": "chibit",
    "wrapper_1update_noLcos": "random",
    "IID_20k": "iid",
    "Markov100_20k": "markov",
}


def counterpart(arm: str, publication: str) -> tuple[str, str]:
    """The closest arm of a publication to one of ours (``cql`` to ``cql_tuned``), and how it differs.

    Args:
        arm: as this project names it, without settings.
        publication: the first part of its sources' keys, ``reid2022``.
    """
    for suffix in SUFFIXES:
        arm = arm.removesuffix(suffix)
    return _COUNTERPARTS.get((arm, publication), (arm, ""))


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    """All published numbers, in the order of the files."""
    return (*_read_scores(), *_read_wang())


def find_published(arm: str, task: str) -> list[PublishedScore]:
    """Scores that others report for an arm on a task; empty where there are none.

    Where a later table of the paper repeats a number of an earlier one, only the earlier is kept.
    """
    found: dict[tuple[object, ...], PublishedScore] = {}
    for score in published_scores():
        theirs, difference = counterpart(arm, score.publication)
        if (score.arm, score.task, score.unit) == (theirs, task, "score"):
            key = (score.publication, score.rule, score.mean, score.spread)
            found.setdefault(key, replace(score, difference=difference))
    return list(found.values())


def task_of(dataset: str) -> tuple[str | None, Origin]:
    """The published task that a data set's name stands for, and whose data it is.

    Args:
        dataset: ``hopper-medium-v2``, ``mujoco/hopper/medium-v0``, ``chibit/hopper/medium-v0``, ``Breakout``.

    Returns:
        The task (``hopper-medium``; None for a data set unlike any published one) and the origin of the
        data; only ``d4rl`` and ``atari`` are the data that the published numbers were measured on.
    """
    if dataset in GAMES:
        return dataset, "atari"
    name = read_name(dataset)
    if name is None or name.source not in ("d4rl", "minari", "chibit"):
        return None, "other"
    return f"{name.environment}-{name.level}", name.source


def _read_scores() -> Iterator[PublishedScore]:
    for row in read_rows(NUMBERS / "published_scores.csv"):
        yield PublishedScore(
            source=row["source"],
            arm=row["arm"],
            task=row["dataset"],
            rule=row["rule"],  # type: ignore[arg-type]
            mean=float(row["mean"]),
            spread=float(row["spread"]) if row["spread"] else None,
            num_seeds=int(row["num_seeds"]) if row["num_seeds"] else None,
            unit=row["unit"],  # type: ignore[arg-type]
        )


def _read_wang() -> Iterator[PublishedScore]:
    rules: tuple[PublishedRule, ...] = ("last", "last4", "best")
    for row in read_rows(NUMBERS / "wang2024_20_seeds.csv"):
        for rule in rules:
            yield PublishedScore(
                source="wang2024",
                arm=_WANG_ARMS[row["arm"]],
                task=f"{row['env']}-{row['dataset']}",
                rule=rule,
                mean=float(row[f"{rule}_mean"]),
                spread=float(row[f"{rule}_sd"]),
                num_seeds=int(row["n_seeds"]),
            )
