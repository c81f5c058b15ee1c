"""Kill training at random moments and inside its saves, let it go on, and compare with a run left alone.

Each run is a process forked from this one, so that a kill costs a training step and not the import of torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco  # noqa: F401 - imported here so that no child pays for it
import numpy as np
import torch
import torch._dynamo  # - as well: optimizers import it

from chibit.agents import AGENTS
from chibit.core import checkpoint as checkpoint_module
from chibit.core.checkpoint import checkpoint_steps, load_checkpoint
from chibit.core.errors import UserError
from chibit.core.run_dir import LOGS, RunDir
from chibit.models.gpt import GPTShape
from chibit.training.offline import train
from chibit.training.run_config import RunConfig

PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Kill:
    """Where a process ends itself: at an event inside one of its saves, or halfway through a write."""

    save: int
    event: int | None
    """Number of the Python or C function called or left in that save; None is halfway through a write."""


def write_data(path: Path) -> Path:
    """Six episodes of CartPole's shape; evaluations are in the real one, where a beginner's are short."""
    generator = np.random.default_rng(0)
    number = 120
    np.savez(
        path,
        env_id="CartPole-v1",
        observations=generator.normal(size=(number, 4)).astype(np.float32),
        actions=generator.integers(0, 2, number),
        rewards=np.ones(number),
        terminations=np.zeros(number, bool),
        truncations=np.arange(number) % 20 == 19,
    )
    return path


def small_run(data: Path) -> RunConfig[Any]:
    """A run with dropout, evaluations and a checkpoint every third step."""
    agent = AGENTS["dt"].config(
        context_length=4, batch_size=4, gpt=GPTShape(n_layer=1, n_embd=16), warmup_steps=5
    )
    return RunConfig(
        data=str(data),
        agent=agent,
        num_steps=36,
        evaluate_every=18,
        num_episodes=1,
        target_returns=(20.0,),
        checkpoint_every=3,
        log_every=2,
        device="cpu",
    )


def digest(path: Path) -> str:
    """SHA-256 of weights, optimizer, generators, sampler, logs and scores: of all but times."""
    sha = hashlib.sha256()
    saved = load_checkpoint(path / "checkpoints")
    assert saved is not None
    _feed(sha, [saved.step, saved.tensors, saved.state])
    _feed(sha, [RunDir(path).read_log(name) for name in LOGS])
    _feed(sha, json.loads((path / "result.json").read_text())["scores"])
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        sha.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            if "seconds" not in str(key):
                sha.update(str(key).encode())
                _feed(sha, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(sha, item)
    else:
        sha.update(repr(value).encode())


class Process:
    """A forked training process that reports the step of every checkpoint it has saved."""

    def __init__(self, config: RunConfig[Any], path: Path, kill: Kill | None = None) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            _work(config, path, write, kill)
        os.close(write)
        self.code: int | None = None
        self._received = b""

    def wait(self, seconds: float) -> bool:
        """Let it work for some time; True when it has ended."""
        deadline = time.monotonic() + seconds
        while self.code is None and (left := deadline - time.monotonic()) > 0:
            if select.select([self._read], [], [], left)[0]:
                piece = os.read(self._read, 4096)
                self._received += piece
                if not piece:
                    self._reap()
        return self.code is not None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait(PATIENCE_SECONDS)

    @property
    def reports(self) -> list[tuple[int, int]]:
        """(step, events) of each checkpoint that was saved."""
        whole = len(self._received) // 16 * 16
        return list(struct.iter_unpack("<qq", self._received[:whole]))

    def _reap(self) -> None:
        os.close(self._read)
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _work(config: RunConfig[Any], path: Path, report: int, kill: Kill | None) -> None:
    """The child's whole life."""
    torch.set_num_threads(1)
    original = checkpoint_module._commit
    number = -1

    def commit(*arguments: Any) -> Path:
        nonlocal number
        number += 1
        deadly = kill if kill is not None and kill.save == number else None
        events = _watch(deadly)
        result = original(*arguments)
        threading.setprofile(None)  # type: ignore[arg-type]
        sys.setprofile(None)
        os.write(report, struct.pack("<qq", arguments[1], events[0]))
        return result

    checkpoint_module._commit = commit
    code = 1
    try:
        train(config, path, progress=False)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _watch(kill: Kill | None) -> list[int]:
    """Count function calls and returns in this thread and those it starts; end the process at one of them."""
    events = [0]

    def profile(*_: Any) -> None:
        events[0] += 1
        if kill is not None and kill.event == events[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    if kill is not None and kill.event is None:

        def write(path: Path, data: bytes | memoryview) -> None:
            path.write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        checkpoint_module._write = write
    threading.setprofile(profile)
    sys.setprofile(profile)
    return events


def kill_campaign(folder: Path, num_kills: int, num_in_save: int, seed: int = 0) -> Counter[str]:
    """Kill runs until there were enough kills of each kind; count what went wrong.

    Returns:
        `kills`, `in_save`, `runs` (killed, resumed and finished), `lost` (a checkpoint that had been saved is
        not there), `torn` (one under its name is not whole), `unequal` (a finished run differs from the one
        left alone), `failed` (a resume ended in an error), `leftovers` (temporary files after the end).
    """
    generator = random.Random(seed)
    config = small_run(write_data(folder / "data.npz"))
    begin = time.monotonic()
    alone = Process(config, folder / "alone")
    assert alone.wait(PATIENCE_SECONDS)
    assert alone.code == 0
    whole_seconds, num_events = time.monotonic() - begin, max(events for _, events in alone.reports)
    expected, found = digest(folder / "alone"), Counter(kills=0, in_save=0, runs=0)
    while found["kills"] < num_kills:
        path = folder / f"killed-{found['runs']}"
        while not (path / "result.json").exists():
            left, left_in_save = num_kills - found["kills"], num_in_save - found["in_save"]
            in_save = generator.random() * max(left, 1) < left_in_save
            kill = None
            if in_save and left > 0:
                is_torn = generator.random() < 0.2
                kill = Kill(generator.randrange(4), None if is_torn else generator.randint(1, num_events))
            process = Process(config, path, kill)
            if left <= 0 or kill is not None:
                process.wait(PATIENCE_SECONDS)
            elif not process.wait(generator.uniform(0, 0.6 * whole_seconds)):
                process.kill()
            _judge(found, process, path, in_save=kill is not None)
            if found["failed"] > 10:
                return found
        found["runs"] += 1
        found["unequal"] += digest(path) != expected
        found["leftovers"] += len(list((path / "checkpoints").glob(".tmp-*")))
    return found


def _judge(found: Counter[str], process: Process, path: Path, *, in_save: bool) -> None:
    """Look at what a process has left behind."""
    if process.code == -signal.SIGKILL:
        found["kills"] += 1
        found["in_save"] += in_save
    elif process.code != 0:
        found["failed"] += 1
    whole = [-1]
    for step in checkpoint_steps(path / "checkpoints"):
        try:
            load_checkpoint(path / "checkpoints", step)
            whole.append(step)
        except UserError:
            found["torn"] += 1
    saved = [step for step, _ in process.reports]
    found["lost"] += max(saved, default=-1) > max(whole)


def in_place_campaign(folder: Path, num_kills: int, seed: int = 0) -> int:
    """For comparison: `torch.save` over the same file again and again; how many kills leave it unreadable."""
    generator, path, unreadable = random.Random(seed), folder / "in-place.pt", 0
    for _ in range(num_kills):
        pid = os.fork()
        if pid == 0:
            content = {"weights": torch.zeros(25 << 18)}  # 25 MB
            while True:
                torch.save(content, path)
        while not path.exists():
            time.sleep(0.01)
        time.sleep(generator.uniform(0.2, 1.0))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        try:
            torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, OSError):
            unreadable += 1
        path.unlink()
    return unreadable
