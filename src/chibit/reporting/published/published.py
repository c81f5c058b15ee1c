"""Numbers that others published, each with its source, its scoring rule and the data it was measured on.

They are shown beside our own and never mixed with them. Two rules matter when reading them: a score picked
as the best of a run's evaluations is higher than its last one, by 3 to 15 points on these data sets; and the
paper compares its own early-stopped scores with the last scores of Chen et al. (2021).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from chibit.core.files import open_regular

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
    """Normalised score, 0 to 100; minutes where `unit` says so."""
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


_REID = "Reid, Yamada and Gu (2022), Can Wikipedia Help Offline Reinforcement Learning?"
_D4RL_V2 = "D4RL version 2 data, environments of mujoco-py."
_SOURCES = (
    Source(
        key="reid2022-table1",
        short="Paper, Table 1",
        citation=f"{_REID}, Table 1",
        note="1 % of the DQN-replay data, gamer-normalised. Which evaluation was scored is not stated, and"
        " the ± is called a variance there. DT and BC are Chen et al.'s (2021) numbers; CQL, QR-DQN "
        "and REM those of Kumar et al. (2020) and Agarwal et al. (2020).",
    ),
    Source(
        key="reid2022-table2",
        short="Paper, Table 2",
        citation=f"{_REID}, Table 2",
        note=f"{_D4RL_V2} ChibiT, GPT2, CLIP and iGPT are early-stopped (best evaluation), 3 seeds; the ± "
        "is called a variance there. DT is copied from Chen et al. (2021), who score the last "
        "evaluation. CQL, BRAC-v and AWR come from version 0 of the data. The printed averages of "
        "GPT2 (80.1) and BC (46.4) do not match their rows (79.9 and 47.7).",
    ),
    Source(
        key="reid2022-table3",
        short="Paper, Table 3",
        citation=f"{_REID}, Table 3",
        note="Minutes on one V100 until within 2 points of the best score. The arms come from different "
        "code bases.",
    ),
    Source(
        key="reid2022-table4",
        short="Paper, Table 4",
        citation=f"{_REID}, Table 4",
        note=f"{_D4RL_V2} Mean over the three medium sets by context length. ChibiT is early-stopped. "
        "DT's 61.4 is the mean of Chen et al.'s last evaluations in Table 2; whose 61.2 is, is not stated.",
    ),
    Source(
        key="reid2022-table5",
        short="Paper, Table 5",
        citation=f"{_REID}, Table 5",
        note=f"{_D4RL_V2} Early-stopped, 3 seeds; frozen transformer blocks against fine-tuned ones.",
    ),
    Source(
        key="reid2022-table6",
        short="Paper, Table 6",
        citation=f"{_REID}, Table 6",
        note=f"{_D4RL_V2} Early-stopped, 3 seeds; most differences lie within the noise of 3 seeds.",
    ),
    Source(
        key="corl",
        short="CORL",
        citation="Tarasov et al. (2022), CORL: Research-oriented Deep Offline Reinforcement Learning "
        "Library, benchmark tables",
        note=f"{_D4RL_V2} 4 seeds; last and best evaluation of the same runs; ± is a standard deviation.",
    ),
    Source(
        key="wang2024",
        short="Wang et al., 20 seeds",
        citation="Wang et al. (2024), Pre-training with Synthetic Data Helps Offline Reinforcement Learning; "
        "aggregated anew from the learning curves that its authors made public",
        note=f"{_D4RL_V2} 20 seeds, 100,000 updates, 20 evaluations of 10 episodes, one target (Hopper "
        "3600, HalfCheetah 6000, Walker2d 5000; 6000 keeps HalfCheetah medium-expert low). Random "
        "init is the pre-trained arms' architecture after a single pre-training update; ± is a "
        "standard deviation between seeds.",
    ),
)
SOURCES: dict[str, Source] = {source.key: source for source in _SOURCES}
"""Sources by key."""

_WANG_ARMS = {
    "DT": "dt",
    "DT_180k": "dt_180k",
    "ChibiT_wiki_Lcos": "chibit",
    "wrapper_1update_noLcos": "random",
    "IID_20k": "iid",
    "Markov100_20k": "markov",
}

ARM_LABELS = {
    "awac": "AWAC",
    "awr": "AWR",
    "bc": "BC",
    "bc_10": "10% BC",
    "bc_top10": "10% BC",
    "brac_v": "BRAC-v",
    "chibit": "ChibiT",
    "chibit_0.6M": "ChibiT 0.6M",
    "chibit_18M": "ChibiT 18M",
    "chibit_3M": "ChibiT 3M",
    "chibit_84M": "ChibiT 84M",
    "chibit_blocks": "ChibiT, blocks only",
    "chibit_context60": "ChibiT, context 60",
    "chibit_frozen": "ChibiT, frozen",
    "chibit_language": "ChibiT + language",
    "chibit_no_context": "ChibiT, K = 1",
    "chibit_no_language": "ChibiT without L_LM",
    "chibit_no_similarity": "ChibiT without L_cos",
    "chibit_paper": "ChibiT (paper)",
    "chibit_positions": "ChibiT, positions only",
    "chibit_random_positions": "ChibiT, random positions",
    "chibit_random_positions_plain": "ChibiT, plain, random positions",
    "chibit_shuffled": "ChibiT, shuffled",
    "chibit_similarity": "ChibiT + similarity",
    "clip": "CLIP",
    "cql": "CQL",
    "dt": "DT",
    "dt_context60": "DT, context 60",
    "edac": "EDAC",
    "gpt2": "GPT2",
    "igpt": "iGPT",
    "iid": "IID tokens",
    "iql": "IQL",
    "markov": "Markov chain",
    "ngram": "Markov chain, order 2",
    "qr_dqn": "QR-DQN",
    "random": "Random init",
    "random_18M": "Random init 18M",
    "random_3M": "Random init 3M",
    "random_84M": "Random init 84M",
    "random_matched": "Random init, matched",
    "random_matched_markov": "Matched to Markov",
    "random_no_context": "Random init, K = 1",
    "rebrac": "ReBRAC",
    "rem": "REM",
    "shuffled_text": "Shuffled text",
    "td3_bc": "TD3+BC",
}
"""How well-known arms are written in tables; any other arm is shown by its own name."""

COUNTERPARTS: dict[tuple[str, str], tuple[str, str]] = {
    ("chibit", "reid2022"): ("chibit", "theirs with L_cos and L_LM"),
    ("chibit_paper", "reid2022"): ("chibit", ""),
    ("chibit_similarity", "reid2022"): ("chibit_no_language", "theirs without L_LM, L_cos as a sum"),
    ("chibit_language", "reid2022"): ("chibit_no_similarity", "theirs without L_cos"),
    ("chibit", "wang2024"): ("chibit", "theirs with L_cos"),
    ("chibit_paper", "wang2024"): ("chibit", "theirs without L_LM"),
    ("chibit_similarity", "wang2024"): ("chibit", ""),
    ("chibit_no_language", "wang2024"): ("chibit", ""),
    ("bc_top10", "corl"): ("bc_10", ""),
}
"""Arm of ours and publication to its closest arm, and in what that differs, where names do not say it."""

SUFFIXES = {"_atari": ", Atari", "_tuned": ", tuned"}
"""Ends of recipes' names that the published arm does not have, and what tables write for them."""


def counterpart(arm: str, publication: str) -> tuple[str, str]:
    """The closest arm of a publication to one of ours (``cql`` to ``cql_tuned``), and how it differs.

    Args:
        arm: as this project names it, without settings.
        publication: the first part of its sources' keys, ``reid2022``.
    """
    for suffix in SUFFIXES:
        arm = arm.removesuffix(suffix)
    return COUNTERPARTS.get((arm, publication), (arm, ""))


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
    levels = "random|medium|expert|medium-replay|medium-expert|full-replay"
    if match := re.fullmatch(rf"(hopper|halfcheetah|walker2d|ant)-({levels})-v2", dataset):
        return f"{match[1]}-{match[2]}", "d4rl"
    if match := re.fullmatch(rf"(chibit|mujoco)/(hopper|halfcheetah|walker2d|ant)/({levels})-v\d+", dataset):
        return f"{match[2]}-{match[3]}", "chibit" if match[1] == "chibit" else "minari"
    if dataset in {"Breakout", "Qbert", "Pong", "Seaquest"}:
        return dataset, "atari"
    return None, "other"


def arm_label(arm: str) -> str:
    """An arm as tables write it."""
    name, bracket, settings = arm.partition(" (")
    for suffix, written in SUFFIXES.items():
        if (base := name.removesuffix(suffix)) != name and base in ARM_LABELS:
            return ARM_LABELS[base] + written + bracket + settings
    return ARM_LABELS.get(name, name) + bracket + settings


def _read_scores() -> Iterator[PublishedScore]:
    with io.TextIOWrapper(open_regular(NUMBERS / "published_scores.csv"), "utf-8", newline="") as file:
        for row in csv.DictReader(file):
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
    with io.TextIOWrapper(open_regular(NUMBERS / "wang2024_20_seeds.csv"), "utf-8", newline="") as file:
        for row in csv.DictReader(file):
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
