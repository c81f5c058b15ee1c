"""The run directory: the only thing training writes and the only thing reporting reads. No torch in here.

Its format is in docs/architecture.md. Logs are JSON lines; a line that was cut off by a crash is dropped on
reading, and `rewind` takes the logs back to the step of a checkpoint, so that a resumed run neither loses nor
repeats a step.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from chibit.core.config import config_hash, parse_json, read_json
from chibit.core.errors import BusyError, DamagedFileError, InputError, UserError, resource_error, shown
from chibit.core.files import append, make_folder, open_regular, require_inside, write_atomic
from chibit.core.formatting import listed
from chibit.core.platform import flush
from chibit.core.run_records import (
    DescriptionRecord,
    EvaluationRecord,
    MetricsRecord,
    ProvenanceRecord,
    ResultRecord,
    check_record,
)
from chibit.core.temporary import TEMPORARY_PREFIX, open_locked, remove, sweep_leftovers

SCHEMA = 1
LOGS = {"metrics.jsonl": MetricsRecord, "evaluations.jsonl": EvaluationRecord}
"""Logs of a run, and what a line of each holds."""
INCIDENTAL = (
    *("device", "num_threads", "compile", "log_every", "checkpoint_every", "tensorboard", "wandb"),
    "micro_batch_tokens",
    "agent_class",
)
"""Settings that decide where a run computes, what it leaves behind and where its agent was imported from, not
its numbers: it stays the same run whatever they are."""
AT_THE_END = ("result.json", "judgements.json")
"""What is said of a run once it is finished."""
_LONGEST_LINE = 32 << 20
_TAKES_POLICIES = "in Python chibit.evaluate and chibit.judge take it, by chibit.Policy.from_pretrained"
_POLICY = "a policy"
_ATTEMPTS = 10
"""To begin in a folder that other processes remove."""
_RUNS_OWN = frozenset({"arm", "study"})
"""Entries of a run's config.json that no other program's has."""
_MOST_TOLD = 3
"""Settings that a message names."""


class RunDir:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, *, arm: str, study: str, config: dict[str, Any]) -> RunDir:
        """Make a run directory, or open the one that is there with the same configuration.

        Raises:
            InputError: when the folder holds a run with another configuration, or something that is no run.
            ResourceError: when the folder cannot be written.
        """
        description = {"schema": SCHEMA, "arm": arm, "study": study, "config": config}
        make_folder(path)
        run = cls(path)
        if other := other_than_run(path):
            raise InputError(f"{path}: holds {other}; choose another --out")
        if not (path / "config.json").exists():
            if any(
                entry.name != ".lock" and not entry.name.startswith(TEMPORARY_PREFIX)
                for entry in path.iterdir()
            ):
                raise InputError(f"{path}: is not empty and not a run directory; choose another --out")
            with open_locked(path / ".lock", wait=True):  # another process may begin a run here, too
                if not (path / "config.json").exists():
                    write_atomic(path / "config.json", dump(description, indent=1))
        given = json.loads(json.dumps(description))
        changes = list(_changes(_identity(run.description()), _identity(given)))
        if changes:
            told = listed(changes, _MOST_TOLD, "; ")
            raise InputError(f"{path}: holds a run with another configuration ({told}); choose another --out")
        run.own_folder("checkpoints")
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open an existing run directory.

        Raises:
            InputError: when there is none, or it is a policy's or a model's.
            DamagedFileError: when its config.json is damaged or of another schema.
        """
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: not a run directory (it has no config.json)")
        if other := other_than_run(path):
            but = f"but a policy; {_TAKES_POLICIES}" if other == _POLICY else f"(it holds {other})"
            raise InputError(f"{path}: not a run directory {but}")
        run = cls(path)
        run.description()
        return run

    @classmethod
    @contextlib.contextmanager
    def held(cls, path: Path, *, arm: str, study: str, config: dict[str, Any]) -> Iterator[RunDir]:
        """`create` a run directory and `lock` it; raises as those.

        A process that was refused removes the folder that it began with. Where it does so in between, the
        folder is made again.
        """
        with contextlib.ExitStack() as lock:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    run = cls.create(path, arm=arm, study=study, config=config)
                    lock.enter_context(run.lock())
                    run.description()
                    break
                except (UserError, OSError) as error:
                    lock.close()
                    is_gone = isinstance(error.__cause__ or error, FileNotFoundError)
                    if not is_gone or attempt == _ATTEMPTS:
                        raise
            yield run

    @property
    def name(self) -> str:
        """Name of its folder, also where its path is ``.``."""
        return os.path.basename(os.path.abspath(self.path))

    def description(self) -> dict[str, Any]:
        """The content of config.json: schema, arm, study, config."""
        return self._versioned("config.json", DescriptionRecord)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints; InputError where a link leads it out of the run."""
        return self.own_folder("checkpoints")

    def own_folder(self, name: str) -> Path:
        """A folder of the run to write into; it need not be there.

        Raises:
            InputError: where it is a link that leads out of the run.
        """
        folder = self.path / name
        if os.path.lexists(folder):
            require_inside(folder, self.path, "put the folder itself there, or link the whole run")
        return folder

    @property
    def is_finished(self) -> bool:
        """Whether result.json, which is written last, is there."""
        return (self.path / "result.json").is_file()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; released by the system when the process ends, however it ends.

        Raises:
            BusyError: when another process holds it.
        """
        with open_locked(self.path / ".lock", wait=False) as is_ours:
            if not is_ours:
                raise BusyError(
                    f"{self.path}: another process works on this run; wait for it or choose another --out"
                )
            sweep_leftovers(self.path)
            yield

    def discard_unstarted(self, *, keep_folder: bool = False) -> None:
        """Remove the folder if nothing but its configuration was ever written to it, and no one holds it.

        With `keep_folder` it stays, empty.
        """
        with contextlib.suppress(UserError, OSError), self.lock():
            if {entry.name for entry in self.path.iterdir()} <= {"config.json", ".lock"}:
                for name in ("config.json", ".lock"):
                    remove(self.path / name)
                if not keep_folder:
                    self.path.rmdir()

    def refuse_anew(self, what: str) -> NoReturn:
        """Refuse to begin anew where there is a run already."""
        raise InputError(f"{self.path}: holds {what}; use --resume or another --out")

    def extend(self, config: dict[str, Any]) -> None:
        """Give a run another configuration under which it goes on; what was said at its end is removed."""
        for name in AT_THE_END:
            remove(self.path / name)
        write_atomic(self.path / "config.json", dump({**self.description(), "config": config}, indent=1))

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        append(self.path / "metrics.jsonl", dump(record) + "\n")

    def append_evaluation(self, record: dict[str, Any]) -> None:
        """Add a line to evaluations.jsonl."""
        append(self.path / "evaluations.jsonl", dump(record) + "\n")

    def log(self, message: str) -> None:
        """Add a line of text to train.log."""
        append(self.path / "train.log", message.replace("\n", " ") + "\n")

    def read_log(self, name: str) -> list[dict[str, Any]]:
        """All whole records of a JSON-lines log; a last line that was cut off is left out.

        Raises:
            DamagedFileError: when a line before the last is not a record of this log.
        """
        path = self.path / name
        if not path.exists():
            return []
        records: list[dict[str, Any]] = []
        with open_regular(path, inside=self.path, kind=DamagedFileError) as file:
            while line := file.readline(_LONGEST_LINE):
                where = f"{path}: line {len(records) + 1}"
                try:
                    records.append(check_record(LOGS[name], parse_json(line, where), where))
                except DamagedFileError:
                    if line.endswith(b"\n") or len(line) == _LONGEST_LINE:  # and was not cut off
                        raise
        return records

    def rewind(self, step: int) -> None:
        """Take the logs back to a step: drop records of later steps and a line that was cut off."""
        for name in LOGS:
            if (self.path / name).exists():
                kept = [record for record in self.read_log(name) if record["step"] <= step]
                try:
                    content = "".join(dump(record) + "\n" for record in kept)
                except ValueError as error:  # in a field of its own, which no record declares
                    raise DamagedFileError(
                        f"{self.path / name}: holds what is no finite number; restore the file or remove it"
                    ) from error
                write_atomic(self.path / name, content)

    def sync(self) -> None:
        """Flush the logs to the disk; called before a checkpoint, so that no log is behind one."""
        for name in LOGS:
            if (self.path / name).exists():
                try:
                    flush(self.path / name)
                except OSError as error:
                    raise resource_error(self.path / name, error) from error

    def provenance(self, kind: type = ProvenanceRecord) -> dict[str, Any]:
        """The content of provenance.json, which must have the fields of `kind`, a dataclass."""
        path = self.path / "provenance.json"
        return check_record(kind, read_json(path, inside=self.path), path)

    def write_provenance(self, record: dict[str, Any]) -> None:
        """Write provenance.json."""
        write_atomic(self.path / "provenance.json", dump(record, indent=1))

    def write_divergence(self, step: int, message: str, rows: Iterable[int]) -> Path:
        """Write divergence.json: where the run diverged, and which rows of the data its last batch held."""
        path = self.path / "divergence.json"
        record = {"step": step, "message": message, "rows": [int(row) for row in rows]}
        write_atomic(path, dump(record, indent=1))
        return path

    def write_result(self, record: dict[str, Any]) -> None:
        """Write result.json: the run is finished."""
        self.sync()
        write_atomic(self.path / "result.json", dump({"schema": SCHEMA, **record}, indent=1))

    def result(self, kind: type = ResultRecord) -> dict[str, Any]:
        """The content of result.json, which must have the fields of `kind`, a dataclass."""
        return self._versioned("result.json", kind)

    def _versioned(self, name: str, kind: type) -> dict[str, Any]:
        path = self.path / name
        data = read_json(path, inside=self.path)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise DamagedFileError(f"{path}: schema {found!r}, expected {SCHEMA}")
        return check_record(kind, data, path)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, whatever else was written into it, such as a report.

    Raises:
        DamagedFileError: where its config.json is no JSON.
    """
    record = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    config = record.get("config") if isinstance(record, dict) and "arm" in record else None
    return isinstance(config, dict) and not config.keys().isdisjoint({"agent_name", "corpus"})


def other_than_run(folder: Path) -> str:
    """What a folder holds, where its config.json is of something else than a run; else empty.

    Raises:
        UserError: as `read_json`.
    """
    path = folder / "config.json"
    record = read_json(path) if path.is_file() else {}
    if not isinstance(record, dict) or not record.keys() - {"schema"} or record.keys() & _RUNS_OWN:
        return ""
    return _POLICY if record.keys() >= {"agent", "spec"} else "the config.json of something else"


@contextlib.contextmanager
def undone_if_refused(path: Path) -> Iterator[None]:
    """Have a run that is refused before it starts leave nothing behind that was not there before."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    was_empty = path.is_dir() and os.access(path, os.R_OK) and not any(path.iterdir())
    try:
        yield
    except UserError:
        if new or was_empty:
            RunDir(path).discard_unstarted(keep_folder=was_empty)
        with contextlib.suppress(OSError):  # from the first that holds something on, they stay
            for folder in new[1:]:
                folder.rmdir()
        raise


def run_folder(parent: Path, name: str, config: dict[str, Any], usual: Mapping[str, Any]) -> Path:
    """Where a run of this configuration lives: ``parent/NAME-<hash of what decides its numbers>``.

    Args:
        parent: folder of its study.
        name: what a reader shall see of it.
        config: its configuration as JSON values.
        usual: values of the incidental settings that the hash is taken with.

    Returns:
        The folder; where it is not there yet, one of that name in which an earlier version, whose hash was
        over all settings, began the same run.
    """
    path = parent / f"{name}-{config_hash({**config, **usual})}"
    if path.exists():
        return path
    earlier = [found for found in sorted(parent.glob(f"{glob.escape(name)}-*")) if _holds(found, config)]
    return max(earlier, key=lambda found: RunDir(found).is_finished, default=path)


def _holds(path: Path, config: dict[str, Any]) -> bool:
    try:
        return _identity(RunDir(path).description())["config"] == _identity({"config": config})["config"]
    except (UserError, KeyError):
        return False


def _identity(description: dict[str, Any]) -> dict[str, Any]:
    """A description without what is incidental; its arm is the name that tables show, given or not."""
    left_out = (*INCIDENTAL, "arm")
    config = {key: value for key, value in description["config"].items() if key not in left_out}
    return {**description, "config": config}


def _changes(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs between two descriptions."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**now, **then}:
            yield from _changes(then.get(key), now.get(key), key)
    elif then != now:
        yield f"{name} {shown(then)}, now {shown(now)}"


def dump(record: Any, indent: int | None = None) -> str:
    """JSON without NaN or infinity, which JSON does not have."""
    return json.dumps(record, indent=indent, allow_nan=False)
