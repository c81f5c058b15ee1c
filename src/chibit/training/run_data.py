"""The data of a run: what is trained on and held out, and whether they are still those of its start."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from chibit.core.checkpoint import checkpoint_steps
from chibit.core.config import from_json, to_json
from chibit.core.errors import DamagedFileError, InputError, one_line
from chibit.core.run_dir import RunDir
from chibit.core.run_records import LONGEST_NAME
from chibit.data.bounds import bound_actions
from chibit.data.copies import share_to_propose
from chibit.data.dataset import DatasetSpec, TrajectoryDataset
from chibit.data.environment import evaluate_in
from chibit.data.load import BOUNDS, READING, is_here, load_dataset
from chibit.data.mix import mix
from chibit.environments.registry import find_environment
from chibit.training.run_config import RunConfig

_log = logging.getLogger("chibit")
_FEW_EPISODES = 50
"""Of a log, below which the error on a share of them orders nothing that is near (docs/judging.md)."""

_SETTLED = ("action_low", "action_high", "max_episode_steps")
"""What says of the same steps in which units actions are learned, and how long episodes are played."""


def open_data(
    config: RunConfig[Any],
    dataset: TrajectoryDataset | None = None,
    *,
    run: RunDir | None = None,
    without_missing: bool = False,
    progress: bool = False,
) -> tuple[TrajectoryDataset, TrajectoryDataset | None]:
    """Open what a run trains on, and what it holds out; both follow from its seed, whatever the arm.

    Args:
        config: the run's.
        dataset: its data, where they are open; None opens `config.data`.
        run: where it was begun: one that goes on sees its data as it did, also where statistics or bounds
            would be taken otherwise now.
        without_missing: hold nothing out where validation data are not here.
        progress: show what takes long on standard error.

    Raises:
        UserError: as `load_dataset`.
        InputError: for a share of the data that leaves no episode, or validation data that do not fit.
    """
    dataset, other = _read(config, dataset, without_missing, progress)
    return _divide(config, dataset, other, run)


def open_again(
    run: RunDir, config: RunConfig[Any], *, without_missing: bool = False
) -> tuple[TrajectoryDataset, TrajectoryDataset | None]:
    """Open what a run that is there was trained on, and what it held out.

    Raises:
        UserError: as `open_data`, and as `refuse_changed`, which sees no validation data that may be missing.
    """
    try:
        dataset, held_out = open_data(config, without_missing=without_missing)
    except InputError as error:
        if are_here(config):
            raise
        raise InputError(
            f"{run.path}: {error}; a relative path is from the folder in which the run was trained"
        ) from error
    refuse_changed(run, config, dataset, None if without_missing else held_out)
    return dataset, held_out


def open_given(
    run: RunDir, config: RunConfig[Any], data: str
) -> tuple[TrajectoryDataset, TrajectoryDataset | None, bool]:
    """Open a log that is given for a run: its own, which lies elsewhere by now, or another.

    Returns:
        What it was trained on and what it held out; or all of another log, and None. Whether it is its own.

    Raises:
        UserError: as `load_dataset`.
        InputError: for data that do not fit what the run learned from.
    """
    config = dataclasses.replace(config, data=data, more_data=(), data_weights=())
    dataset, other = _read(config, None, without_missing=True)
    known = run.provenance()
    if dataset.store_hash == known["data_hash"]:
        return *_divide(config, dataset, other), True
    spec = from_json(DatasetSpec, known["dataset"], f"{run.path / 'provenance.json'}: dataset")
    dataset.spec.require_fits(spec, "data")
    spec = dataclasses.replace(
        _reached(spec, dataset), name=dataset.spec.name, max_episode_steps=dataset.spec.max_episode_steps
    )
    return dataset.seen_as(spec), None, False


def _read(
    config: RunConfig[Any], dataset: TrajectoryDataset | None, without_missing: bool, progress: bool = False
) -> tuple[TrajectoryDataset, TrajectoryDataset | None]:
    """All of the data that a run names, and its validation data, if it names some; raises as `open_data`."""
    reading = {name: vars(config)[name] for name in (*READING, *BOUNDS)}
    bounds = config.action_low, config.action_high
    if dataset is None and not config.more_data:
        dataset = load_dataset(config.data, env_id=config.env_id, progress=progress, **reading)
    else:
        if dataset is None:
            sets = (config.data, *config.more_data)
            opened = [load_dataset(name, progress=progress, **reading) for name in sets]
            dataset = mix(opened, config.data_weights)
        if config.env_id is None:
            dataset = bound_actions(dataset, *bounds)
        else:
            dataset = evaluate_in(dataset, config.env_id, *bounds)
    other = None
    if config.validation_data and not (without_missing and not is_here(config.validation_data)):
        other = load_dataset(config.validation_data, progress=progress, **reading)
    return dataset, other


def _divide(
    config: RunConfig[Any],
    dataset: TrajectoryDataset,
    other: TrajectoryDataset | None,
    run: RunDir | None = None,
) -> tuple[TrajectoryDataset, TrajectoryDataset | None]:
    """What of the data is trained on, and what is held out, or the other data; raises as `open_data`."""
    held_out = None
    if config.validation_share:
        dataset, held_out = dataset.held_out_split(config.validation_share, config.seed)
    elif config.validation_folds:
        dataset, held_out = dataset.held_out_fold(config.seed, config.validation_folds)
    elif other is not None:
        held_out = _validation(other, dataset)
    if config.data_fraction < 1.0:
        dataset = dataset.random_fraction(config.data_fraction, config.seed)
    if run is not None and checkpoint_steps(run.checkpoints):
        refuse_changed(run, config, dataset, held_out)
        spec = from_json(DatasetSpec, run.provenance()["dataset"], f"{run.path / 'provenance.json'}: dataset")
        dataset = dataset.seen_as(spec)
    if held_out is not None:  # seen as the agent will see everything: standardized by what it learns from
        held_out = held_out.seen_as(_reached(dataset.spec, held_out))
    return dataset, held_out


def advise(
    config: RunConfig[Any], dataset: TrajectoryDataset, held_out: TrajectoryDataset | None
) -> Iterator[str]:
    """Say where holding out other episodes would say more."""
    if held_out is None and dataset.spec.env_id is None:
        share = share_to_propose(dataset.num_episodes, 0.1)
        remedy = "--validation-data measures the action error on another log"
        if share:
            remedy = f"--validation-share {share} logs the action error on episodes that are not trained on"
        yield f"nothing is held out, so that only the training loss is known; {remedy}"
    elif held_out is not None and config.validation_share:
        whole = dataset.num_episodes + held_out.num_episodes
        if whole < _FEW_EPISODES:
            yield (
                f"{held_out.num_episodes} of {whole} episodes are held out, too few to order what is alike; "
                "--validation-folds 5 with seeds 0 to 4 holds each of them out once"
            )


def refuse_unread(config: RunConfig[Any], dataset: TrajectoryDataset) -> None:
    """Refuse data whose texts tell episodes apart, for an agent that reads none where one could.

    Data that no agent here reads, a robot's with instructions, are trained on without a word but the note.

    Raises:
        InputError: with what reads them, and how to leave them out.
    """
    agent: Any = config.agent
    if dataset.missions is None or agent.reads_missions or dataset.spec.symbol_grid is None:
        return
    number = len(set(dataset.missions.tolist()))
    if number > 1:
        raise InputError(
            f"{dataset.spec.name}: says in {number} different texts what its episodes are for, and agent "
            f"{agent.agent} reads none; use --agent text, or data without texts (chibit data convert "
            f"{config.data} --to npz --out blind.npz)"
        )


def generator_of(seed: int, use: int) -> np.random.Generator:
    """Draws of a run: 1 of its batches; for errors 2 of held-out data, 3 of their best, 4 of its own."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, use])))


def identify(dataset: TrajectoryDataset, held_out: TrajectoryDataset | None = None) -> dict[str, Any]:
    """Say which data these are, for provenance.json: what decides the numbers of a run."""
    return {
        "data_name": one_line(dataset.spec.name)[:LONGEST_NAME],
        "data_hash": dataset.store_hash,
        "part_hash": dataset.content_hash,
        "data_episodes": dataset.num_episodes,
        "data_steps": dataset.num_steps,
        "dataset": to_json(dataset.spec),
        **({"mixed": [dict(part) for part in dataset.mixture.parts]} if dataset.mixture else {}),
        **_identify_other(held_out, dataset),
    }


def _identify_other(held_out: TrajectoryDataset | None, dataset: TrajectoryDataset) -> dict[str, str]:
    """Which data errors are measured on, where they are not a part of those that are trained on."""
    is_other = held_out is not None and held_out.store_hash != dataset.store_hash
    return {"held_out_hash": held_out.store_hash} if held_out is not None and is_other else {}


def refuse_changed(
    run: RunDir,
    config: RunConfig[Any],
    dataset: TrajectoryDataset,
    held_out: TrajectoryDataset | None = None,
) -> None:
    """Stop where the data of a run are not those that it began with, or its environment is not known."""
    env_id = run.provenance()["dataset"].get("env_id")
    if env_id is not None:
        find_environment(env_id)
    then, now = _decisive(run.provenance()), _decisive(identify(dataset, held_out))
    known = [what for what in now if what in then]  # by the version that began it
    changes = [f"{what} {then[what]}, now {now[what]}" for what in known if then[what] != now[what]]
    if changes:
        raise DamagedFileError(
            f"{run.path}: the data set {config.data} has changed since this run began "
            f"({'; '.join(changes)}); bring the old data back or choose another --out"
        )
    described, spec = run.provenance()["dataset"], to_json(dataset.spec)
    if other := [name for name in _SETTLED if described.get(name) != spec[name]]:
        kept = f"{run.path}: keeps the {' and '.join(other)} that it began with"
        _log.warning("%s; %s has others now, which a run in another --out takes", kept, config.data)


def refuse_changed_if_here(
    run: RunDir, config: RunConfig[Any], dataset: TrajectoryDataset | None = None
) -> None:
    """Do the same for a finished run, which needs its data no more: they are compared where they can be read.

    They are not where they are gone, nor where this version refuses what the one that began the run took.
    """
    if dataset is None and not all(is_here(name) for name in (config.data, *config.more_data)):
        return
    try:
        read = _read(config, dataset, without_missing=True)
        refuse_changed(run, config, *_divide(config, *read))
    except InputError as error:
        if dataset is not None:
            raise
        _log.warning("%s: is finished, but its data cannot be compared: %s", run.path, error)


def are_here(config: RunConfig[Any]) -> bool:
    """Whether all data of a run are, so that nothing is downloaded or collected."""
    names = (config.data, *config.more_data, config.validation_data)
    return all(is_here(name) for name in names if name)


def _decisive(identity: dict[str, Any]) -> dict[str, Any]:
    spec = identity["dataset"]
    # Without an environment there is no score that a reference could change.
    reference = spec.get("score_reference") if spec.get("env_id") else None
    return {
        "episodes": identity.get("data_episodes"),
        "steps": identity.get("data_steps"),
        "content": str(identity.get("data_hash"))[:12],
        **({"part": identity["part_hash"][:12]} if "part_hash" in identity else {}),
        **({"validation data": identity["held_out_hash"][:12]} if "held_out_hash" in identity else {}),
        "environment": spec.get("env_id"),
        "old contact margins": spec.get("d4rl_physics"),
        "score reference": reference,
    }


def _reached(spec: DatasetSpec, held_out: TrajectoryDataset) -> DatasetSpec:
    """A description whose bounds hold what is measured on, too: another log reaches a little farther."""
    if spec.num_actions is not None:
        return spec
    low, high = held_out.actions.min(axis=0), held_out.actions.max(axis=0)
    return dataclasses.replace(
        spec,
        action_low=tuple(map(min, spec.action_low, low.tolist())),
        action_high=tuple(map(max, spec.action_high, high.tolist())),
    )


def _validation(held_out: TrajectoryDataset, dataset: TrajectoryDataset) -> TrajectoryDataset:
    """Data to measure errors on, without episodes that are trained on."""
    held_out.spec.require_fits(dataset.spec, "validation_data")
    return held_out.without_copies_of(dataset)
