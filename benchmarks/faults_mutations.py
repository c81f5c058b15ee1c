"""Spoil what a user is given, open it as a user would, and see: refused in one line, or read for what it is.

    python benchmarks/faults.py --parts mutations --mutations 5000 --kinds "policy folder" "command line"

Mutant number n of a kind and a seed is always the same; `--first n --mutations 1` makes that one alone.
Each is opened in a process of its own, forked from this one with everything imported (`faults_watch`).
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import pkgutil
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.font_manager  # noqa: F401 - imported for the figures of the report
import numpy as np
import torch._dynamo  # noqa: F401 - optimizers import it
from faults_lines import command_line
from faults_mutators import add_entry, mutate_file, mutate_value, replace_file, resign
from faults_originals import PRETRAIN, surround, write_originals
from faults_watch import MEGABYTES, Place, Seen, run

import chibit
from chibit import Policy
from chibit.cli import main
from chibit.commands.train import parse_run
from chibit.data.load import load_dataset
from chibit.models.language_model import load_language_model
from chibit.training.loading import load_run

COLUMNS = ("mutants", "refused", "read", "silent", "executed", "outside", "crashed", "hung", "too large")
BAD = ("silent", "executed", "outside", "crashed", "hung", "too large")
CODES = (0, 2, 3, 4, 5, 130, 143)
_LONGEST_LINE = 2000
_TINY = ["--num-steps", "1", "--num-episodes", "0", "--device", "cpu", "--quiet", "--batch-size", "4"]
_TINY_DT = ["--context-length", "3", "--n-layer", "1", "--n-embd", "8"]


@dataclass(frozen=True)
class Mutant:
    """Something spoiled, and what a user does with it."""

    what: str
    """How it was spoiled."""
    action: Callable[[], Any]
    """What a user's command does with it; what it gives tells whether it was read as the original."""
    whole: Callable[[], Any] | None = None
    """The same with the original, where a mutant that is read must give what the original gives."""
    line: tuple[str, ...] = ()
    """The command line, where it is what was spoiled."""
    may_follow_links: bool = False
    """Whether links in it may be read through: those of the Hub's cache lead out of a policy's folder, and
    one's own checkpoints may be on another disk."""


Maker = Callable[[Path, Place, random.Random], Mutant]


def mutation_campaign(
    folder: Path, number: int, seed: int = 0, chosen: Sequence[str] = (), first: int = 0
) -> dict[str, Counter[str]]:
    """Open as many mutants of each kind, or of each that is chosen; count what became of them."""
    os.environ["CHIBIT_HOME"] = str(folder / "made")
    _import_everything()
    originals = folder / "originals"
    if not originals.exists():
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            write_originals(originals)
    place, table = Place(Path(tempfile.mkdtemp(dir=folder))), {}
    for name in chosen or KINDS:
        table[name] = _open_mutants(name, range(first, first + number), seed, originals, place)
        print(f"  {name}: {dict(table[name])}", file=sys.stderr, flush=True)
    return table


def _import_everything() -> None:
    """Here and once, so that no mutant pays for it."""
    for module in pkgutil.walk_packages(chibit.__path__, "chibit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _names_all(line: Sequence[str]) -> bool:
    """Whether a command line names a folder in which even what is outside lies: it may then be read."""
    return any(word.rpartition("=")[2] in ("/", "..") for word in line)


def _open_mutants(name: str, numbers: range, seed: int, originals: Path, place: Place) -> Counter[str]:
    found: Counter[str] = Counter(dict.fromkeys((*COLUMNS, "megabytes"), 0))
    expected: dict[Any, str] = {}
    for number in numbers:
        begin = time.monotonic()
        for _ in range(2):
            place.empty()
            mutant = KINDS[name](originals, place, random.Random(f"{seed} {name} {number}"))
            seen = run(
                mutant.action,
                place,
                named=mutant.line,
                may_be_stopped=bool(mutant.line),
                may_follow_links=mutant.may_follow_links or _names_all(mutant.line),
            )
            if mutant.whole is not None and mutant.whole not in expected:
                place.empty()
                expected[mutant.whole] = run(mutant.whole, place).value
            outcome, why = _judge(seen, None if mutant.whole is None else expected[mutant.whole])
            if outcome != "outside":  # another process that walks through the disk does not do so twice
                break
        found["mutants"] += 1
        found[outcome] += 1
        found["megabytes"] = max(found["megabytes"], seen.megabytes)
        if outcome in BAD:
            seconds = time.monotonic() - begin
            print(
                f"  {name} {number}: {outcome}: {mutant.what[:400]}: {why} ({seconds:.1f} s)",
                file=sys.stderr,
                flush=True,
            )
    return found


def _judge(seen: Seen, expected: str | None) -> tuple[str, str]:
    """What became of a mutant, and what was seen of it."""
    last = seen.message.strip().rpartition("\n")[2][:240]
    if seen.executed:
        return "executed", str(seen.executed)
    if seen.outside:
        return "outside", f"{seen.outside}; {last}"
    if seen.hung:
        return "hung", last
    if seen.megabytes > MEGABYTES:
        return "too large", f"{seen.megabytes} MB, exit {seen.code}: {last}"
    said = [line for line in seen.message.split("\n") if line.startswith("chibit: ")]
    if seen.code not in CODES or "\nTraceback" in f"\n{seen.message}":
        where = [line.strip() for line in seen.message.splitlines() if line.startswith("  File ")]
        return "crashed", f"exit {seen.code}: {last} | {' < '.join(where[:-4:-1])}"
    if seen.code and (len(said) != 1 or said[0] != seen.message.rstrip("\n").rpartition("\n")[2]):
        return "crashed", f"exit {seen.code}, and not one line: {seen.message[-300:]!r}"
    if seen.code and (len(said[0]) > _LONGEST_LINE or not all(char >= " " for char in said[0])):
        return "crashed", f"exit {seen.code}, with a line that no terminal can show: {said[0][:200]!r}"
    if seen.code:
        return "refused", last
    return ("silent", seen.value) if expected is not None and seen.value != expected else ("read", "")


def _copy(original: Path, place: Place) -> Path:
    target = place.work / original.name
    if original.is_dir():
        shutil.copytree(original, target)
    else:
        shutil.copy(original, target)
    return target


def _files(folder: Path) -> list[Path]:
    """Regular files below a folder, or the file itself, that are not too large to be spoiled."""
    found = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return [
        path for path in found if path.is_file() and not path.is_symlink() and path.stat().st_size < 10**7
    ]


def _spoil(target: Path, place: Place, generator: random.Random) -> str:
    """One to three changes: of contents, which are signed again in most cases, or of what stands there."""
    done = []
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        files, way = _files(target), generator.random()
        if not files or target.is_symlink():  # what is behind it is not ours to spoil
            break
        if way < 0.65:
            done.append(mutate_file(_chosen(files, generator), generator))
        elif way < 0.88:
            folders = [
                path for path in (target, *target.rglob("*")) if path.is_dir() and not path.is_symlink()
            ]
            in_place = [*files, *files, *folders[1:]] if generator.random() < 0.98 else [target]
            done.append(replace_file(generator.choice(in_place), place.outside, generator))
        else:
            folders = [
                path for path in (target, *target.rglob("*")) if path.is_dir() and not path.is_symlink()
            ]
            done.append(add_entry(generator.choice(folders or [target.parent]), place.outside, generator))
    if target.is_dir() and not target.is_symlink() and generator.random() < 0.8:
        resign(target)
        done.append("signed again")
    return ", ".join(done)


def _chosen(files: list[Path], generator: random.Random) -> Path:
    """A file, and twice as often one that is read for its numbers."""
    return generator.choice([*files, *(path for path in files if path.suffix in (".json", ".jsonl", ".npz"))])


def _spoil_content(target: Path, generator: random.Random) -> str:
    """One file of a folder, not signed again: what carries hashes must be refused or read as it was."""
    return mutate_file(
        _chosen([path for path in _files(target) if path.stat().st_size], generator), generator
    )


def _opened(
    name: str,
    action: Callable[[Path], Any],
    is_hashed: bool,
    originals: Path,
    place: Place,
    generator: random.Random,
) -> Mutant:
    """A mutant of one file or folder: of its content, not signed again, or of what stands in its place."""
    target = _copy(originals / name, place)
    whole = _Whole(action, originals / name) if is_hashed else None
    if generator.random() < 0.15:
        what = replace_file(generator.choice(_files(target)), place.outside, generator)
    else:
        what = _spoil_content(target, generator)
    return Mutant(what, partial(action, target), whole, may_follow_links=True)


@dataclass(frozen=True)
class _Whole:
    action: Callable[[Path], Any]
    path: Path

    def __call__(self) -> Any:
        return self.action(self.path)


def _inspect(path: Path) -> Any:
    """`chibit data inspect`, and the very steps that it would train on."""
    code = main(["data", "inspect", str(path)])
    if code:
        return code
    dataset = load_dataset(path, progress=False)
    arrays = (dataset.observations, dataset.actions, dataset.returns_to_go, dataset.episode_starts)
    return repr(dataset.spec), [np.ascontiguousarray(array).tobytes() for array in arrays]


def _convert(path: Path) -> int:
    """`chibit data convert`, of the shards of DQN-replay."""
    return main(
        ["data", "convert", str(path), "--game", "Breakout", "--num-steps", "20", "--out", "converted"]
    )


def _parse_config(path: Path) -> Any:
    """`chibit train --config`, up to the work itself."""
    return repr(parse_run(["--config", str(path)], "chibit train"))


def _read_language_model(path: Path) -> Any:
    model = load_language_model(path)
    return repr(model.config), [tensor.numpy().tobytes() for tensor in model.state_dict().values()]


def _read_run(path: Path) -> Any:
    """The weights that `chibit evaluate` and `chibit export` would take, at the step that was asked for."""
    run = load_run(path, "36", device="cpu")
    return [tensor.numpy().tobytes() for tensor in run.agent.modules().state_dict().values()]


def _act(folder: Path) -> Any:
    """Two steps in two episodes with a saved policy, greedy where it can be; what it does must be numbers."""
    policy = Policy.from_pretrained(folder)
    policy.reset(2)
    done = []
    for step in range(2):
        observations = np.full((2, *policy.spec.observation_shape), 0.1 * step, np.float32)
        actions = policy.act(observations)
        assert np.isfinite(actions).all(), actions
        assert len(actions) == 2, actions
        policy.observe(np.ones(2), np.zeros(2, bool))
        done.append(actions.shape)
    weights = [tensor.numpy().tobytes() for tensor in policy.agent.modules().state_dict().values()]
    return repr(policy.spec), done, weights


def _policy_mutant(originals: Path, place: Place, generator: random.Random) -> Mutant:
    """A policy's folder, and `Policy.from_pretrained`, `act` and `save_pretrained`."""
    kinds = ("policy-dt", "policy-td3_bc", "policy-discrete_bc", "policy-hf")
    original = originals / generator.choice(kinds)
    target = _copy(original, place)
    if generator.random() < 0.15:  # the weights alone: their hash tells
        weights = target / "model.safetensors"
        return Mutant(mutate_file(weights, generator), partial(_act, target), _Whole(_act, original))
    what = _spoil(target, place, generator)
    # A folder that a user names may be a link: what it leads to is then meant, also to be written into.
    if generator.random() < 0.8 or target.is_symlink():
        return Mutant(what, partial(_act, target), may_follow_links=True)

    def save_again() -> None:
        policy = Policy.from_pretrained(originals / "policy-dt")
        policy.save_pretrained(target)

    return Mutant(f"{what}; written over", save_again, may_follow_links=True)


def _run_mutant(originals: Path, place: Place, generator: random.Random) -> Mutant:
    """A run directory, and every command that takes one."""
    name = generator.choice(("run", "run", "run", "stopped", "stopped", "pretrained"))
    target = _copy(originals / name, place)
    if generator.random() < 0.2:
        shutil.copytree(originals / "run", place.work / "study" / "sound")
        target = target.rename(place.work / "study" / name)
    what = _spoil(target, place, generator)
    study = target.parent if target.parent.name == "study" else target
    lines = {
        "report": ["report", str(study)],
        "show": ["show", str(target)],
        "evaluate": [
            "evaluate",
            str(target),
            "--num-episodes",
            "1",
            "--target-returns",
            "20",
            "--device",
            "cpu",
        ],
        "export": ["export", str(target), "--no-video", "--out", str(place.work / "policy")],
        "export in it": ["export", str(target), "--no-video"],
        "attention": ["attention", str(target), "--num-windows", "2"],
        "train on": ["train", "--config", str(originals / "config.json"), "--out", str(target), "--quiet"],
        "train itself": ["train", "--config", str(target / "config.json"), "--out", str(target), "--quiet"],
        "study": ["study", "table2", "--dry-run", "--root", str(place.work)],
    }
    weights = [5, 4, 4, 3, 1, 1, 4, 1, 1]
    if name == "pretrained":
        new = [*_TINY, "--context-length", "2", "--out", str(place.work / "new")]
        lines |= {
            "train": ["train", "--data", str(originals / "cartpole.npz"), "--initializer", str(target), *new],
            "pretrain": ["pretrain", *PRETRAIN, "--out", str(target)],
        }
        weights = [1] * 9 + [8, 8]
    verb = generator.choices(list(lines), weights)[0]
    # What a user names may itself be a link; a link inside what was named leads a report nowhere.
    is_named_link = verb == "report" and study.is_symlink()
    may_follow_links = is_named_link or verb not in ("report", "study")
    return Mutant(f"{verb}: {what}", partial(main, lines[verb]), may_follow_links=may_follow_links)


def _spec_mutant(originals: Path, place: Place, generator: random.Random) -> Mutant:
    """What a store, a policy, a run or a configuration says of sizes, bounds and numbers, signed again."""
    name = generator.choice(("store", "store", "store", "config", "config", "run", "policy-td3_bc"))
    new = str(place.work / "new")
    if name == "config":
        target = place.work / "config.json"
        shutil.copy(originals / "config.json", target)
        what = mutate_file(target, generator)
        line = ["train", "--config", str(target), *_TINY, "--out", new]
        return Mutant(what, partial(main, line))
    target = _copy(originals / name, place)
    file, part = {"store": ("manifest", "spec"), "run": ("provenance", "dataset")}.get(
        name, ("config", "spec")
    )
    path = target / f"{file}.json"
    if name == "store" and generator.random() < 0.2:
        what = mutate_file(generator.choice(sorted(target.glob("*.npy"))), generator)
    elif generator.random() < 0.2:
        what = mutate_file(path, generator)
    else:
        record = json.loads(path.read_text())
        before = copy.deepcopy(record[part])
        record[part] = mutate_value(record[part], generator)
        what = f"{part}: {_difference(before, record[part])}"
        path.write_text(json.dumps(record))
    resign(target)
    if name == "policy-td3_bc":
        return Mutant(f"{name}: {what}", partial(_act, target))
    if name == "run":
        commands = (
            ["evaluate", str(target), "--num-episodes", "1", "--target-returns", "20", "--device", "cpu"],
            ["show", str(target)],
        )
        return Mutant(f"{name}: {what}", partial(main, generator.choice(commands)))
    agent = generator.choice(("dt", "discrete_bc", "bc"))
    tiny = [*_TINY, *(_TINY_DT if agent == "dt" else ())]
    line = ["train", "--agent", agent, "--data", str(target), *tiny, "--out", new]
    line = generator.choice((line, ["data", "inspect", str(target)]))
    return Mutant(f"{line[:3]}: {what}", partial(main, line))


def _difference(before: Any, after: Any) -> str:
    if not isinstance(after, dict):
        return f"became {str(after)[:80]}"
    changed = [key for key in {**before, **after} if repr(before.get(key, "")) != repr(after.get(key, ""))]
    return ", ".join(f"{key}={after.get(key, 'gone')!r}"[:200] for key in changed)


def _line_mutant(originals: Path, place: Place, generator: random.Random) -> Mutant:
    """A command line, among data, a run, and things that are no files."""
    surround(place.work, originals)
    line, what = command_line(generator)
    parts = tuple(part for word in line for part in (word, word.partition("=")[2]) if part)
    return Mutant(what, partial(main, line), line=parts)


KINDS: dict[str, Maker] = {
    "HDF5": partial(_opened, "halfcheetah.hdf5", _inspect, False),
    "Minari": partial(_opened, "minari", _inspect, False),
    "npz": partial(_opened, "cartpole.npz", _inspect, False),
    "Atari shards": partial(_opened, "shards", _convert, False),
    "store": partial(_opened, "store", _inspect, True),
    "language model": partial(_opened, "model", _read_language_model, True),
    "checkpoint": partial(_opened, "run", _read_run, True),
    "config": partial(_opened, "config.json", _parse_config, False),
    "policy folder": _policy_mutant,
    "run folder": _run_mutant,
    "spec and config": _spec_mutant,
    "command line": _line_mutant,
}
