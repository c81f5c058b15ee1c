"""A folder of run directories as one `Study`: arms, data sets, seeds, and what is missing and why.

Nothing is averaged that does not belong together. Runs of one arm whose configurations differ become arms of
their own, named by the difference; data sets of one name whose content differs become data sets of their
own, named by their hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from chibit.core.errors import InputError, read_error
from chibit.core.progress import step_bar
from chibit.core.run_dir import INCIDENTAL
from chibit.core.targets import environment_name
from chibit.judging.judgement import FILE as JUDGEMENTS
from chibit.reporting.read.arms import arm_rank, base_name
from chibit.reporting.read.judgements import (
    JudgedPolicy,
    Learning,
    excluded_file,
    read_judged,
    read_learning,
)
from chibit.reporting.read.kept import read_kept
from chibit.reporting.read.registration import FILE, Registration, read_registration
from chibit.reporting.read.run import Excluded, Run, read_run
from chibit.reporting.read.strict_json import Refused, shown_name

_NO_CHANGE = {"seed", "data", "arm", *INCIDENTAL}
"""Settings that may differ between runs that are averaged: the seed is what is averaged over, the data are
compared by their content, and the others do not change what is computed."""
_HASH_DIGITS = 8
_ENVIRONMENT = re.compile(r"[a-z0-9_]{1,64}")
_REMEDY = "give the folder of a study, for example runs/quickstart"
_MAX_SHOWN_SETTINGS, _MAX_SHOWN_VALUE = 8, 60
_MAX_DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Seeds that other arms or data sets have and this one lacks."""

    arm: str
    dataset: str
    seeds: tuple[int, ...]
    reasons: tuple[str, ...]
    """For each missing seed: what its folder says, or that there is none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """All runs of a folder."""

    folder: Path
    """The folder."""
    runs: tuple[Run, ...]
    """Finished, evaluated runs, by arm, data set and seed; no two share all three."""
    excluded: tuple[Excluded, ...]
    """Everything else that was found, with the reason."""
    registration: Registration = field(default_factory=Registration)
    """What was fixed before the first run."""
    judged: tuple[JudgedPolicy, ...] = ()
    """Policies of all folders that were judged without a simulator."""
    learning: tuple[Learning, ...] = ()
    """Of the runs that finished without an evaluation, and the judged ones that held episodes out."""
    in_returns: frozenset[str] = frozenset()
    """Data sets that are shown in raw returns, whatever these runs have."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return shown_name(self.folder.resolve())

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Arms with at least one run, in the order of tables."""
        return tuple(sorted({run.arm for run in self.runs}, key=arm_rank))

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Data sets with at least one run, by name and then by share of the episodes."""
        order = {run.dataset: (run.provenance["data_name"], run.fraction) for run in self.runs}
        return tuple(sorted(order, key=lambda dataset: (order[dataset], dataset)))

    @cached_property
    def environments(self) -> dict[str, str]:
        """Environment of each data set whose runs name one, in lower case and without version: ``hopper``."""
        found = {}
        for run in self.runs:
            env_id = run.provenance["dataset"].get("env_id")
            if isinstance(env_id, str) and _ENVIRONMENT.fullmatch(name := environment_name(env_id)):
                found[run.dataset] = name
        return found

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all finished runs."""
        return tuple(sorted({run.seed for run in self.runs}))

    @cached_property
    def cells(self) -> dict[tuple[str, str], dict[int, Run]]:
        """Runs by seed, for each arm and data set that has any."""
        cells: dict[tuple[str, str], dict[int, Run]] = defaultdict(dict)
        for run in self.runs:
            cells[run.arm, run.dataset][run.seed] = run
        return dict(cells)

    @cached_property
    def places(self) -> dict[str, int]:
        """Place of each arm, for its color: those of tables first, then those that were never played."""
        unplayed = {*(one.arm for one in self.judged), *(one.arm for one in self.learning)} - {*self.arms}
        return {arm: place for place, arm in enumerate((*self.arms, *sorted(unplayed, key=arm_rank)))}

    def among(self, arms: Collection[str | None]) -> Study:
        """The runs of some arms, in the units of all."""
        runs = tuple(run for run in self.runs if run.arm in arms)
        return replace(self, runs=runs, in_returns=frozenset(self._raw))

    @cached_property
    def _raw(self) -> set[str]:
        """Data sets that are shown in raw returns, as those with a run that has no normalized scores."""
        unscored = (run.dataset for run in self.runs if any(curve.scores is None for curve in run.curves))
        return {*self.in_returns, *unscored}

    def is_normalized(self, dataset: str) -> bool:
        """Whether all runs on a data set have normalized scores; where not, raw returns are compared."""
        return dataset not in self._raw

    def gaps(self) -> list[Gap]:
        """Missing seeds of every arm on every data set; nothing is filled in for them."""
        reasons: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        for entry in self.excluded:
            if entry.kind != "duplicate" and entry.seed is not None:
                reasons[entry.arm or "", entry.dataset or ""][entry.seed] = f"{entry.kind}: {entry.reason}"
        gaps = []
        for arm in self.arms:
            for dataset in self.datasets:
                known = reasons.get((arm, dataset), {})
                missing = sorted({*self.seeds, *known} - self.cells.get((arm, dataset), {}).keys())
                if base_name(arm) != arm:  # what did not finish is not told apart by its settings
                    found = reasons.get((base_name(arm), dataset), {}).items()
                    known = {seed: f"of these or other settings, {reason}" for seed, reason in found}
                why = tuple(known.get(seed, "no run") for seed in missing)
                if missing:
                    gaps.append(Gap(arm=arm, dataset=dataset, seeds=tuple(missing), reasons=why))
        return gaps


def read_study(folder: Path, only: Collection[Path] | None = None, *, progress: bool = False) -> Study:
    """Read every run directory in a folder, or the one that the folder is.

    Args:
        folder: a study's folder, or a single run directory.
        only: run directories to read; None reads all.
        progress: show on standard error how many are read.

    Returns:
        The runs, and all that could not be used with the reason.

    Raises:
        InputError: when there is no such folder, or none in it is a run directory.
    """
    folders = [candidate for candidate in _candidates(folder) if only is None or candidate in only]
    tables = {candidate: entries for candidate in folders if (entries := read_kept(candidate))}
    kept = [entry for entries in tables.values() for entry in entries]
    folders = [candidate for candidate in folders if candidate not in tables]
    found = list[Run | Excluded]()
    with step_bar("reading", progress, len(folders), "runs") as advance:
        for candidate in folders:
            found.append(read_run(candidate))
            advance()
    if only is None and not any(isinstance(entry, Run) or entry.is_run for entry in (*found, *kept)):
        raise InputError(f"{folder}: it holds no run directories; {_REMEDY}")
    runs = _name_data_apart([entry for entry in (*found, *kept) if isinstance(entry, Run)])
    runs = _name_variants_apart(runs)
    unlike, duplicates = _drop_duplicates(runs)
    judged, learning, excluded = _read_unplayed(folders, found, runs)
    excluded += [entry for entry in kept if isinstance(entry, Excluded)]
    registration = Registration()
    try:
        registration = read_registration(folder)
    except Refused as refusal:
        excluded.append(Excluded(name=FILE, kind=refusal.kind, reason=refusal.reason))
    return Study(
        folder=folder,
        runs=tuple(unlike),
        excluded=tuple(excluded + duplicates),
        registration=registration,
        judged=tuple(judged),
        learning=tuple(learning),
    )


def _candidates(folder: Path) -> list[Path]:
    """The folder, where it is a run; else its folders."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {_REMEDY}")
    if os.path.lexists(folder / "config.json"):
        return [folder]
    try:
        return sorted(
            entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise read_error(folder, error) from error


def flatten(config: dict[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """A nested configuration as dotted keys: ``{"agent": {"lr": 1}}`` becomes ``{"agent.lr": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            flat.update(flatten(value, f"{prefix}{key}.", depth + 1))
        else:
            flat[prefix + key] = value
    return flat


def differing_keys(configs: Iterable[dict[str, Any]]) -> list[str]:
    """Dotted keys whose values are not the same in all configurations, in order of appearance."""
    configs = list(configs)
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({_canonical(config.get(key)) for config in configs}) > 1]


def _settings(run: Run) -> dict[str, Any]:
    return {key: value for key, value in flatten(run.config).items() if key not in _NO_CHANGE}


def _name_data_apart(runs: list[Run]) -> list[Run]:
    hashes: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        hashes[run.dataset].add(run.provenance["data_hash"])
    return [
        replace(run, dataset=f"{run.dataset} ({run.provenance['data_hash'][:_HASH_DIGITS]})")
        if len(hashes[run.dataset]) > 1
        else run
        for run in runs
    ]


def _name_variants_apart(runs: list[Run]) -> list[Run]:
    """An arm has one configuration on a data set; a second one is another arm, named by what differs."""
    differing: dict[str, dict[str, None]] = defaultdict(dict)
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.arm, run.dataset].append(run)
    for (arm, _), group in groups.items():
        differing[arm].update(dict.fromkeys(differing_keys(_settings(run) for run in group)))
    named = []
    for run in runs:
        settings = _settings(run)
        suffix = _suffix(settings, list(differing[run.arm]))
        named.append(replace(run, arm=f"{run.arm} ({suffix})") if suffix else run)
    return named


def _suffix(settings: dict[str, Any], keys: list[str]) -> str:
    """The settings that tell a variant apart; of very many, some and a hash of the others."""
    shown = [f"{_short(key, keys)}={_plain(settings, key)}" for key in keys[:_MAX_SHOWN_SETTINGS]]
    if rest := keys[_MAX_SHOWN_SETTINGS:]:
        shown.append(f"{len(rest)} others {_digest(_canonical([settings.get(key) for key in rest]))}")
    return ", ".join(shown)


def _read_unplayed(
    folders: Sequence[Path], found: Sequence[Run | Excluded], runs: Sequence[Run]
) -> tuple[list[JudgedPolicy], list[Learning], list[Excluded]]:
    """What is known of folders beside evaluations, and those that have nothing to show with the reason."""
    judged: list[JudgedPolicy] = []
    learning: list[Learning] = []
    excluded: list[Excluded] = []
    named = {run.folder: run for run in runs}
    for folder, read in zip(folders, found, strict=True):
        entry = named.get(folder, read)
        own: list[JudgedPolicy] = []
        is_unplayed = isinstance(entry, Excluded) and entry.kind in ("not evaluated", "not played")
        try:
            own = read_judged(folder, entry)
        except Refused as refusal:
            excluded.append(excluded_file(folder, JUDGEMENTS, refusal))
        try:
            learned = [read_learning(folder, entry)] if own or is_unplayed else []
            learning += [one for one in learned if is_unplayed or len(one.held_out)]
        except Refused as refusal:
            excluded.append(excluded_file(folder, "metrics.jsonl", refusal))
        judged += own
        if isinstance(entry, Excluded):
            is_shown = is_unplayed and (own or (entry.kind == "not played" and not runs))
            excluded += [] if is_shown else [entry]
    return judged, learning, excluded


def _drop_duplicates(runs: list[Run]) -> tuple[list[Run], list[Excluded]]:
    kept: dict[tuple[str, str, int], Run] = {}
    dropped = []
    for run in sorted(runs, key=lambda run: (arm_rank(run.arm), run.dataset, run.seed, run.name)):
        first = kept.setdefault((run.arm, run.dataset, run.seed), run)
        if first is not run:
            reason = f"the same arm, data set, settings and seed as {first.name}"
            dropped.append(
                Excluded(
                    name=run.name,
                    kind="duplicate",
                    reason=reason,
                    arm=run.arm,
                    dataset=run.dataset,
                    seed=run.seed,
                )
            )
    return list(kept.values()), dropped


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _short(key: str, keys: Iterable[str]) -> str:
    """The last part of a dotted key, where no other key ends alike."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _plain(settings: dict[str, Any], key: str) -> str:
    if key not in settings:
        return "absent"
    value = settings[key]
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= _MAX_SHOWN_VALUE else f"{text[:_MAX_SHOWN_VALUE]}… {_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]
