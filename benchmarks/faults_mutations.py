"""Change files at random and open them as a user would: refused in one line, or read for what they are.

Mutants are opened in forked processes, a batch in each, which report before and after each one; what ends a
process is charged to the mutant that it held.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chibit.cli import main
from chibit.data.catalog import load_dataset
from chibit.models.gpt import GPTConfig
from chibit.models.language_model import (
    LanguageModel,
    LanguageModelConfig,
    load_language_model,
    save_language_model,
)
from chibit.training.loading import load_run
from chibit.training.offline import train
from chibit.training.run_config import to_record
from chibit.verbs.train import parse_run

COLUMNS = ("mutants", "refused", "read", "silent", "executed", "outside", "crashed", "hung", "too large")
BAD = ("silent", "executed", "outside", "crashed", "hung", "too large")
_BATCH = 40
_CPU_SECONDS, _WALL_SECONDS, _MEGABYTES = 10, 180.0, 512
_OWN_AND_CHILDREN = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
_HOSTILE = (
    None, True, -1, 2**63, 2**70, 1e308, -1e308, float("nan"), "", "../../x", "a\nb", "x" * 5000, "os:system",
    [], {}, [[]] * 3, [0] * 1000, {"": None},
)  # fmt: skip
"""What a field of JSON may suddenly hold."""


@dataclass(frozen=True)
class Kind:
    """One kind of file or folder."""

    original: Path
    """A whole one."""
    open: Callable[[Path], Any]
    """What a user's command does with it; its value tells whether a mutant was read as the original."""
    is_hashed: bool
    """Whether a mutant that is read must give what the original gives."""


def mutation_campaign(
    folder: Path, number: int, seed: int = 0, chosen: Sequence[str] = ()
) -> dict[str, Counter[str]]:
    """Open mutants of every kind, or of those chosen, as many of each; count what became of them."""
    kinds = {name: kind for name, kind in make_kinds(folder).items() if not chosen or name in chosen}
    table = {}
    for place, (name, kind) in enumerate(kinds.items()):
        share = number // len(kinds) + (place < number % len(kinds))
        table[name] = _open_mutants(kind, share, folder, random.Random(f"{seed} {name}"))
        print(f"  {name}: {dict(table[name])}", file=sys.stderr, flush=True)
    return table


def make_kinds(folder: Path) -> dict[str, Kind]:
    """Write one whole original of each kind, small enough that most of its bytes matter."""
    from faults_kills import small_run, write_data

    os.environ["CHIBIT_HOME"] = str(folder / "home")
    columns = _columns()
    with h5py.File(folder / "halfcheetah.hdf5", "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, compression="gzip", chunks=column.shape)
    data = write_data(folder / "data.npz")
    config = small_run(data)
    (folder / "config.json").write_text(json.dumps(to_record(config)))
    train(config, folder / "run", progress=False)
    gpt = GPTConfig(n_layer=1, n_head=1, n_embd=4)
    language_model = LanguageModel(LanguageModelConfig(vocab_size=5, n_positions=4, gpt=gpt))
    save_language_model(language_model, folder / "model")
    store = load_dataset(data, progress=False).folder
    shutil.copytree(store, folder / "store")
    return {
        "HDF5": Kind(folder / "halfcheetah.hdf5", _inspect, False),
        "Minari": Kind(_write_minari(folder / "minari", columns), _inspect, False),
        "npz": Kind(data, _inspect, False),
        "store": Kind(folder / "store", _inspect, True),
        "language model": Kind(folder / "model", _read_language_model, True),
        "run directory": Kind(folder / "run", _read_run, True),
        "report": Kind(folder / "run", _report, False),
        "config": Kind(folder / "config.json", _parse_config, False),
    }


def _columns() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "observations": generator.normal(size=(30, 3)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (30, 2)).astype(np.float32),
        "rewards": generator.normal(size=30).astype(np.float32),
        "terminals": np.zeros(30, bool),
        "timeouts": np.arange(30) % 10 == 9,
    }


def _write_minari(folder: Path, columns: dict[str, np.ndarray]) -> Path:
    """A set whose metadata ask for a command to be run; mutants ask for it in other places."""
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for index in range(3):
            rows, group = slice(10 * index, 10 * index + 10), file.create_group(f"episode_{index}")
            seen = columns["observations"][rows]
            group["observations"] = np.concatenate([seen, seen[-1:]])
            group["actions"], group["rewards"] = columns["actions"][rows], columns["rewards"][rows]
            group["terminations"], group["truncations"] = (
                columns["terminals"][rows],
                columns["timeouts"][rows],
            )
    command = {"command": f"touch {folder.parent / 'executed'}"}
    spec = {"id": "Strange-v0", "entry_point": "os:system", "kwargs": command, "max_episode_steps": 10}
    space = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]}
    metadata = {
        "dataset_id": "a/b-v0", "env_spec": json.dumps(spec), "action_space": json.dumps(space),
        "observation_space": json.dumps(space), "total_episodes": 3, "total_steps": 30,
        "data_format": "hdf5", "minari_version": "0.5.3", "requirements": ["mujoco==3.2.3"],
    }  # fmt: skip
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    return folder


def _inspect(path: Path) -> Any:
    """`chibit data inspect`, and the very steps that it would train on."""
    code = main(["data", "inspect", str(path)])
    if code:
        return code
    dataset = load_dataset(path, progress=False)
    arrays = (dataset.observations, dataset.actions, dataset.returns_to_go, dataset.episode_starts)
    return repr(dataset.spec), [np.ascontiguousarray(array).tobytes() for array in arrays]


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


def _report(path: Path) -> int:
    return main(["report", str(path), "--out", str(path.parent / "report")])


def mutate_bytes(content: bytes, generator: random.Random) -> bytes:
    """Change, cut, repeat or blank a part."""
    changed, way = bytearray(content), generator.random()
    if not changed:
        return b"\0"
    at = generator.randrange(len(changed))
    if way < 0.1:
        return bytes(changed[:at])
    if way < 0.2:
        length = generator.choice([1, 8, 100])
        return bytes(changed[:at] + changed[at : at + length] + changed[at:])
    if way < 0.3:
        changed[at : at + generator.choice([4, 16, 64])] = bytes(generator.choice([4, 16, 64]))
        return bytes(changed)
    for _ in range(generator.choice([1, 1, 2, 8, 32])):
        place = generator.randrange(min(len(changed), 6000) if generator.random() < 0.6 else len(changed))
        changed[place] = generator.choice([0, 255, generator.randrange(256), changed[place] ^ 1])
    return bytes(changed)


def mutate_json(text: str, generator: random.Random) -> str:
    """Give one field, however deep, a hostile value, another name, or take it away."""
    value = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, item in items:
            places.append((node, key))
            visit(item)

    visit(value)
    if not places:
        return json.dumps(generator.choice(_HOSTILE))
    node, key = generator.choice(places)
    if isinstance(node[key], str) and node[key].startswith("{") and generator.random() < 0.7:
        node[key] = mutate_json(node[key], generator)  # JSON in JSON, as Minari has it
    elif generator.random() < 0.2:
        del node[key]
    else:
        node[key] = generator.choice(_HOSTILE)
    return json.dumps(value)


def _make_mutant(original: Path, target: Path, generator: random.Random) -> None:
    """Copy, and change one file of the copy."""
    if original.is_dir():
        shutil.copytree(original, target)
        files = sorted(path for path in target.rglob("*") if path.is_file() and path.stat().st_size)
        file = generator.choice(files)
    else:
        shutil.copy(original, target)
        file = target
    if file.suffix == ".json" and generator.random() < 0.6:
        file.write_text(mutate_json(file.read_text(), generator))
    else:
        file.write_bytes(mutate_bytes(file.read_bytes(), generator))


def _open_mutants(kind: Kind, number: int, folder: Path, generator: random.Random) -> Counter[str]:
    found: Counter[str] = Counter(dict.fromkeys((*COLUMNS, "megabytes"), 0))
    work = folder / "work"
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        expected = kind.open(kind.original)
    while found["mutants"] < number:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(folder / "home" / "stores", ignore_errors=True)
        work.mkdir()
        mutants = []
        for index in range(min(_BATCH, number - found["mutants"])):
            mutants.append(work / f"{index}{kind.original.suffix}")
            _make_mutant(kind.original, mutants[-1], generator)
        found["mutants"] += len(mutants)
        while mutants:
            done = _open_batch(kind, mutants, expected, folder, found)
            mutants = mutants[done:]
    found["executed"] += (folder / "executed").exists()
    return found


def _open_batch(kind: Kind, mutants: list[Path], expected: Any, folder: Path, found: Counter[str]) -> int:
    """Open mutants in a process until it ends; how many of them are dealt with."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(kind, mutants, expected, folder, write)
    os.close(write)
    done, received, deadline = 0, b"", time.monotonic() + _WALL_SECONDS
    while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(read, 4096)
        if not piece:
            break
        received += piece
        *lines, received = received.split(b"\n")
        for line in lines:
            outcome, megabytes = line.decode().split(",")
            found[outcome] += 1
            found["megabytes"] = max(found["megabytes"], int(megabytes))
            done += outcome not in ("executed", "outside")
            deadline = time.monotonic() + _WALL_SECONDS
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        found["hung"] += 1
    elif code != 0:
        found["crashed"] += 1
        kept = folder / f"crash-{kind.original.name}-{found['crashed']}"
        shutil.move(mutants[done], kept)
    return done + (code != 0)


def _work(kind: Kind, mutants: list[Path], expected: Any, folder: Path, report: int) -> None:
    """The child's whole life."""
    misdeeds: list[str] = []
    sys.addaudithook(lambda event, arguments: _look(event, arguments, folder, misdeeds))
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = 1
    try:
        for path in mutants:
            used = time.process_time()
            resource.setrlimit(resource.RLIMIT_CPU, (int(used) + _CPU_SECONDS + 1, resource.RLIM_INFINITY))
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
                outcome = _outcome(kind, path, expected, errors)
            # What is said of a child begins with what its parent held when it was forked.
            held = [resource.getrusage(who).ru_maxrss for who in _OWN_AND_CHILDREN]
            most = max(*held, begin) - begin
            outcome = "too large" if most >> 10 > _MEGABYTES else outcome
            lines = [*misdeeds, outcome]
            misdeeds.clear()
            os.write(report, "".join(f"{line},{most >> 10}\n" for line in lines).encode())
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc(file=sys.__stderr__)
    finally:
        sys.__stderr__.flush()  # type: ignore[union-attr]
        os._exit(code)


def _outcome(kind: Kind, path: Path, expected: Any, errors: io.StringIO) -> str:
    from chibit.core.errors import UserError

    try:
        value = kind.open(path)
    except UserError as error:
        assert "\n" not in str(error)
        return "refused"
    except SystemExit:
        return "refused"
    if isinstance(value, int) and value in (2, 3, 4):
        said = [line for line in errors.getvalue().splitlines() if line.startswith("chibit: ")]
        assert len(said) == 1, errors.getvalue()
        return "refused"
    return "silent" if kind.is_hashed and value != expected else "read"


def _look(event: str, arguments: tuple[Any, ...], folder: Path, misdeeds: list[str]) -> None:
    """Note processes that are not the converter's, connections, and files written elsewhere."""
    starts = ("os.system", "os.exec", "os.posix_spawn", "socket.connect")
    is_foreign = event == "subprocess.Popen" and arguments[1][1] != "-I" and arguments[1][0] != "git"
    if event in starts or is_foreign:
        misdeeds.append("executed")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        path = "" if isinstance(arguments[0], int) else os.path.realpath(os.fsdecode(arguments[0]))
        if path and not path.startswith((str(folder.resolve()), "/tmp/", "/dev/null", "/proc/self")):
            misdeeds.append("outside")
