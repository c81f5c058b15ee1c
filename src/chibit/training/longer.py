"""A run with more steps: a finished one, or one that was stopped, is carried on in its folder."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chibit.core.errors import InputError
from chibit.core.run_dir import INCIDENTAL, RunDir, other_than_run
from chibit.training.run_config import RunConfig, from_record, to_record

_CONTINUED = "continued"


@dataclass(frozen=True)
class GoingOn:
    """What to do in a run's folder."""

    config: RunConfig[Any]
    """The run."""
    there: RunConfig[Any]
    """What the folder holds: the same run, or one of fewer steps, which is carried on."""
    before: tuple[dict[str, Any], ...] = ()
    """What its provenance says of times that it was carried on."""
    schedules: str = ""
    """Schedules that a run begun with so many steps would have otherwise."""

    @property
    def first_length(self) -> int:
        """Steps that it was begun with."""
        return self.before[0]["from"] if self.before else self.there.num_steps

    def is_over(self, run: RunDir) -> bool:
        """Whether the run is finished and no more steps are asked for."""
        return run.is_finished and self.there is self.config

    def extend(self, run: RunDir) -> None:
        """Make the folder that of the longer run, once nothing keeps it from going on: its result is no more.

        Its configuration and provenance say so.
        """
        if self.there is self.config:
            return
        then, now, first = self.there, self.config, self.first_length
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entry = {"from": then.num_steps, "to": now.num_steps, "at": at}
        run.write_provenance({**run.provenance(), _CONTINUED: [*self.before, entry]})
        run.extend(to_record(now))
        run.log(
            f"carried on from {then.num_steps} to {now.num_steps} steps; schedules stay those of a run of "
            f"{first} steps{self.schedules}"
        )
        for name, usual in then.agent.schedules.items():
            if usual is None and vars(then.agent)[name] == first:  # what falls to 0 at the end of a run
                run.log(f"{name} are over: what they slow down learns no more")


def carry_on(config: RunConfig[Any], path: Path) -> GoingOn:
    """Find out whether a folder holds the same run with fewer steps. Nothing is written.

    Its schedules (warm-up, decays) stay those of its first length, in steps; they are not stretched.

    Args:
        config: what to do.
        path: a folder that may hold a run.

    Returns:
        What to do there: `config`, with the schedules that the run has.

    Raises:
        InputError: for fewer steps than the run has or is to have.
    """
    if not (path / "config.json").is_file() or other_than_run(path):  # which is refused where it is opened
        return GoingOn(config, config)
    run = RunDir.open(path)
    then: RunConfig[Any] = from_record(run.description()["config"], str(path / "config.json"))
    found = GoingOn(config, then, _continued(run), _schedules(then, config))
    if _decisive(config, found.first_length) != _decisive(then, found.first_length):
        return GoingOn(config, config)  # another run, which is refused
    if config.num_steps < then.num_steps:
        raise InputError(
            f"{path}: is a run of {then.num_steps:,} steps, got num_steps {config.num_steps:,}; give as many "
            "or more, or another --out"
        )
    now = config if config.agent == then.agent else dataclasses.replace(config, agent=then.agent)
    is_longer = now.num_steps > then.num_steps
    return dataclasses.replace(found, config=now, there=then if is_longer else now)


def earlier_ends(run: RunDir) -> list[int]:
    """Steps at which a run was to end before it was carried on, each time."""
    return [entry["from"] for entry in _continued(run)]


def _continued(run: RunDir) -> tuple[dict[str, Any], ...]:
    record = run.provenance() if (run.path / "provenance.json").is_file() else {}
    return tuple(record.get(_CONTINUED, ()))


def _decisive(config: RunConfig[Any], num_steps: int) -> dict[str, Any]:
    """What makes it the run it is, were it of this length."""
    record = to_record(dataclasses.replace(config, num_steps=num_steps))
    return {name: value for name, value in record.items() if name not in INCIDENTAL} | {
        "arm": config.arm_name
    }


def _schedules(then: RunConfig[Any], config: RunConfig[Any]) -> str:
    anew = vars(config.agent.for_steps(config.num_steps))
    changed = [
        f"{name} {value}" for name, value in vars(then.agent).items() if anew.get(name) not in (value, None)
    ]
    return f" ({', '.join(changed)})" if changed else ""
