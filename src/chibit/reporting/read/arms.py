"""Names and order of arms (`arms.csv`); any other arm has its own name, and comes last."""

from __future__ import annotations

from pathlib import Path

from chibit.reporting.read.shipped import read_rows

_ARMS = {row["arm"]: row for row in read_rows(Path(__file__).with_name("arms.csv"))}
SUFFIXES = {"_atari": ", Atari", "_tuned": ", tuned"}
"""Ends of recipes' names that the published arm does not have, and what tables write for them."""


def base_name(arm: str) -> str:
    """An arm's own name, without the settings that tell its variants apart."""
    return arm.partition(" (")[0]


def arm_rank(arm: str) -> tuple[int, str]:
    """Sort key of an arm: its place, or that of the arm it is a variant of; then its name."""
    base = base_name(arm)
    for name in (base, base.partition("_")[0]):
        if name in _ARMS and _ARMS[name]["place"]:
            return int(_ARMS[name]["place"]), arm
    return len(_ARMS) + 1, arm


def arm_label(arm: str) -> str:
    """An arm as tables write it."""
    name, bracket, settings = arm.partition(" (")
    written = ""
    for suffix, ending in SUFFIXES.items():
        if name.endswith(suffix) and name.removesuffix(suffix) in _ARMS:
            name, written = name.removesuffix(suffix), ending
    return (_ARMS[name]["label"] if name in _ARMS else name) + written + bracket + settings
