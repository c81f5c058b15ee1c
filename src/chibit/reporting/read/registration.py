"""What a study fixed before its first run: which arms it compares, and when it stops to add seeds.

``study.json`` in the study's folder says it, so that a report of the folder needs nothing else.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from chibit.core.config import Checked, from_json, to_json
from chibit.core.errors import InputError, shown
from chibit.core.fields import Distinct, Positive
from chibit.core.files import make_folder, write_atomic
from chibit.reporting.read.strict_json import Refused, read_object

FILE = "study.json"
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Registration(Checked):
    """Decisions that no result may change."""

    comparisons: Annotated[tuple[tuple[str, str], ...], Distinct()] = ()
    """Pairs (arm, reference); empty compares every arm with the baseline."""
    score_levels: dict[str, float] = field(default_factory=dict)
    """Scores whose first reach is timed, by the name that a data set has in the runs' configurations."""
    error_levels: dict[str, float] = field(default_factory=dict)
    """The same for the held-out action error."""
    negligible: Positive | None = None
    """Size below which a difference does not matter, in the unit of the scores; None names none."""
    until_half_width: Positive | None = None
    """Half-width of the pooled intervals at which no more seeds were added; None where their number was
    fixed beforehand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(arm == reference for arm, reference in self.comparisons):
            raise InputError("comparisons: an arm cannot be compared with itself")

    @property
    def fixes_nothing(self) -> bool:
        """Whether it says nothing of what is compared; the half-width alone says when to stop."""
        return replace(self, until_half_width=None) == Registration()


def read_registration(folder: Path) -> Registration:
    """What a folder's ``study.json`` says; nothing is registered where there is none.

    Raises:
        Refused: for a file that is damaged or of another schema.
    """
    if not os.path.lexists(folder / FILE):
        return Registration()
    record: dict[str, Any] = read_object(folder, FILE)
    schema = record.pop("schema", None)
    if schema != _SCHEMA:
        raise Refused("other schema", f"{FILE}: schema {shown(schema)}; this version reads {_SCHEMA}")
    try:
        return from_json(Registration, record, "registration")
    except InputError as error:
        raise Refused("damaged", f"{FILE}: {error}") from error


def holding(folder: Path, registration: Registration) -> Registration:
    """What holds in a study's folder when something is to be registered: the first one, where there is one.

    Args:
        folder: the study's folder.
        registration: what is to be fixed.

    Returns:
        All as it was registered first, and the half-width of this time, else of the last one.

    Raises:
        InputError: for a ``study.json`` that cannot be read.
    """
    try:
        before = read_registration(folder)
    except Refused as refusal:
        raise InputError(f"{folder}: {refusal.reason}; restore the file or remove it") from refusal
    width = registration.until_half_width or before.until_half_width
    return replace(registration if before.fixes_nothing else before, until_half_width=width)


def register(folder: Path, registration: Registration) -> Registration:
    """Write down what a study fixes, before its first run; what was registered there before stays.

    Args:
        folder: the study's folder; made where it is not there.
        registration: what is to be fixed.

    Returns:
        What now holds; raises as `holding`.

    Raises:
        ResourceError: where nothing can be written.
    """
    holds = holding(folder, registration)
    if holds != Registration():
        content = json.dumps({"schema": _SCHEMA, **to_json(holds)}, indent=1) + "\n"
        write_atomic(make_folder(folder) / FILE, content)
    return holds
