"""A run with more steps: a finished one, or one that was stopped, is carried on in its folder."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from chibit.core.errors import InputError
from chibit.core.run_dir import INCIDENTAL, RunDir
from chibit.data.dataset import TrajectoryDataset
from chibit.training.run_config import RunConfig, from_record, to_record
from chibit.training.run_data import refuse_changed_if_here

_CONTINUED = "continued"


def carry_on(config: RunConfig[Any], path: Path, dataset: TrajectoryDataset | None = None) -> RunConfig[Any]:
    """Make a run's folder that of the same run with more steps, where that is what is asked for.

    Its schedules (warm-up, decays) stay those of its first length, in steps; they are not stretched. Its
    configuration and provenance say so, and its result is no more.

    Args:
        config: what to do.
        path: a folder that may hold a run.
        dataset: its data, where they are open.

    Returns:
        What to do there: `config`, with the schedules that the run has.

    Raises:
        InputError: for fewer steps than the run has or is to have.
        DamagedFileError: where its data are here and have changed; the run stays as it was.
    """
    if not (path / "config.json").is_file():
        return config
    run = RunDir.open(path)
    then: RunConfig[Any] = from_record(run.description()["config"], str(path / "config.json"))
    record = run.provenance() if (path / "provenance.json").is_file() else {}
    lengths = [entry["from"] for entry in record.get(_CONTINUED, ())]
    first = lengths[0] if lengths else then.num_steps
    if _decisive(config, first) != _decisive(then, first):
        return config  # another run, which is refused
    if config.num_steps < then.num_steps:
        raise InputError(
            f"{path}: is a run of {then.num_steps:,} steps, got num_steps {config.num_steps:,}; give as many "
            "or more, or another --out"
        )
    if config.num_steps > then.num_steps:
        with run.lock():
            if record:
                refuse_changed_if_here(run, then, dataset)
            _extend(run, then, config, record, first)
    return config if config.agent == then.agent else dataclasses.replace(config, agent=then.agent)


def _decisive(config: RunConfig[Any], num_steps: int) -> dict[str, Any]:
    """What makes it the run it is, were it of this length."""
    record = to_record(dataclasses.replace(config, num_steps=num_steps))
    return {name: value for name, value in record.items() if name not in INCIDENTAL} | {
        "arm": config.arm_name
    }


def _schedules(then: RunConfig[Any], config: RunConfig[Any]) -> str:
    """Schedules that a run begun with so many steps would have otherwise."""
    anew = vars(config.agent.for_steps(config.num_steps))
    changed = [
        f"{name} {value}" for name, value in vars(then.agent).items() if anew[name] not in (value, None)
    ]
    return f" ({', '.join(changed)})" if changed else ""


def _extend(
    run: RunDir, then: RunConfig[Any], config: RunConfig[Any], provenance: dict[str, Any], first: int
) -> None:
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = {"from": then.num_steps, "to": config.num_steps, "at": at}
    if provenance:
        run.write_provenance({**provenance, _CONTINUED: [*provenance.get(_CONTINUED, ()), entry]})
    run.extend(to_record(dataclasses.replace(config, agent=then.agent)))
    run.log(
        f"carried on from {then.num_steps} to {config.num_steps} steps; schedules stay those of a run of "
        f"{first} steps{_schedules(then, config)}"
    )
    for name, usual in then.agent.schedules.items():
        if usual is None and vars(then.agent)[name] == first:  # what falls to 0 at the end of a run
            run.log(f"{name} are over: what they slow down learns no more")
