"""Faults 15 to 22: the machine gives no more. Exit code 4, the last checkpoint whole, and a way to go on."""

import contextlib
import errno
import os
import resource
import subprocess
import sys
import time

import faults_kills
import numpy as np
import pytest
import torch._dynamo  # noqa: F401 - optimizers import it; imported here, no forked run pays for it

from chibit.core import files
from chibit.core.checkpoint import CheckpointSaver, checkpoint_steps, load_checkpoint
from chibit.core.run_dir import RunDir
from chibit.training import offline
from fault_files import steps
from fault_guard import TRAINING_MEGABYTES, assert_refused, command, guarded
from fault_runs import leftovers, on_call


@pytest.fixture
def data(place):
    columns = steps()
    columns["terminations"] = columns.pop("terminals")
    np.savez(place / "data.npz", **columns)
    return place / "data.npz"


@pytest.fixture
def config(place):
    return faults_kills.small_run(faults_kills.write_data(place / "data.npz"))


def refuse(code):
    """In place of a system call: the error that a full or broken disk gives."""

    def raising(*_, **__):
        raise OSError(code, os.strerror(code))

    return raising


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EIO, "check"), (errno.EDQUOT, "quota")],
)
def test_a_disk_that_refuses_a_checkpoint(place, config, code, remedy):
    def train():
        offline.train(config, place / "run", progress=False)

    full = guarded(train, place, lambda: on_call(CheckpointSaver, "_save", 3, fail_all_fsync(code)))
    assert_refused(full, 4, "checkpoints", os.strerror(code), remedy, megabytes=TRAINING_MEGABYTES)
    assert checkpoint_steps(place / "run" / "checkpoints") == [3, 6]
    assert load_checkpoint(place / "run" / "checkpoints").step == 6
    assert guarded(train, place).code == 0
    assert guarded(lambda: offline.train(config, place / "alone", progress=False), place).code == 0
    assert faults_kills.digest(place / "run") == faults_kills.digest(place / "alone")
    assert leftovers(place / "run") == []


def fail_all_fsync(code):
    """From here on the disk takes nothing."""

    def begin(*_, **__):
        files.os.fsync = refuse(code)

    return begin


def test_a_disk_that_is_full_for_the_log(place, config):
    """/dev/full gives the error of a full disk to whoever writes; here, at the log's second line."""
    open_log, lines = files._open_log, []

    def open_full(path):
        lines.append(path.name)
        return os.open("/dev/full", os.O_WRONLY) if lines.count("metrics.jsonl") == 2 else open_log(path)

    def before():
        files._open_log = open_full

    full = guarded(lambda: offline.train(config, place / "run", progress=False), place, before)
    assert full.code == 4
    assert "metrics.jsonl: cannot write (No space left on device); free some space" in full.message
    assert guarded(lambda: offline.train(config, place / "run", progress=False), place).code == 0


def test_a_disk_that_is_full_for_the_store(place, data):
    full = guarded(command("data", "inspect", data), place, lambda: fail_all_fsync(errno.ENOSPC)())
    assert_refused(full, 4, "stores", "No space left", "free some space")
    assert list((place / "home" / "stores").iterdir()) == []
    assert guarded(command("data", "inspect", data), place).code == 0


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_may_not_be_written(place, data, code):
    flags = ("--data", data, "--out", place / "no" / "run", "--num-steps", 1, "--quiet")
    before = lambda: setattr(files.Path, "mkdir", refuse(code))  # noqa: E731
    assert_refused(guarded(command("train", *flags), place, before), 4, "run: cannot write", "choose")
    assert not (place / "no").exists()


def test_a_place_where_nobody_may_write(place, data):
    flags = ("--data", data, "--out", "/sys/chibit", "--num-steps", 1, "--quiet")
    verdict = guarded(command("train", *flags), place)
    assert verdict.code == 4
    assert "/sys/chibit: cannot write" in verdict.message


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--batch-size", 2_000_000_000), "this model with a batch takes"),
        (("--agent", "td3_bc", "--batch-size", 900_000_000_000), "this model with a batch takes"),
    ],
)
def test_batches_larger_than_memory_are_never_made(place, data, flags, part):
    common = ("--data", data, "--out", place / "run", "--num-steps", 1, "--num-episodes", 0, "--quiet")
    assert_refused(guarded(command("train", *common, *flags), place), 4, part, "lower batch_size")


def test_a_model_that_needs_more_than_is_free_is_one_line(place, data):
    """As if 300 MB were free: Linux itself would have promised more, and killed something later.

    In a process of its own: what the tests before took, and what is free in it, would count.
    """
    code = (
        "import resource, sys\n"
        "import chibit.training.offline\n"
        "from chibit.cli import main\n"
        "from chibit.core import memory\n"
        "real = memory._kilobytes\n"
        "memory._kilobytes = lambda file, name: 300_000 if name == 'MemAvailable' else real(file, name)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "begin = peak()\n"
        "code = main(sys.argv[1:])\n"
        "print((peak() - begin) // 1024)\n"
        "sys.exit(code)"
    )
    flags = ["--data", str(data), "--out", str(place / "run"), "--num-steps", "1", "--batch-size", "2000"]
    program = [sys.executable, "-c", code, "train", *flags, "--quiet"]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert result.returncode == 4, result.stderr
    (line,) = result.stderr.splitlines()
    assert "out of memory (" in line and "lower batch_size" in line
    assert int(result.stdout) < TRAINING_MEGABYTES


def test_too_few_file_descriptors(place, data):
    """All but one are taken: opening the data fails, in one line."""

    def before():
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        os.close(taken[-1])

    verdict = guarded(command("data", "inspect", data), place, before)
    assert_refused(verdict, 4, "Too many open files", "ulimit -n")


def test_two_processes_on_one_run(place, data):
    flags = ("--data", data, "--out", place / "run", "--num-steps", 1, "--num-episodes", 0, "--quiet")
    assert guarded(command("train", *flags), place).code == 0
    before = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*") if path.name != ".lock"}
    with RunDir.open(place / "run").lock():
        verdict = guarded(command("train", *flags), place)
    assert_refused(verdict, 4, "run: another process works on this run", "choose another --out")
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    "flags",
    [
        ("--n-embd", 10**9),
        ("--n-layer", 1_000, "--n-embd", 4_096),
        ("--context-length", 20_000, "--max-timesteps", 1_000),
        ("--context-length", 2**62),
        ("--batch-size", 2**62),
        ("--max-timesteps", 2**40),
        ("--agent", "bc", "--hidden-sizes", 10**6, 10**6),
        ("--agent", "bc", "--context-length", 2**50),
        ("--agent", "cql", "--num-sampled-actions", 2**40),
        ("--agent", "brac_v", "--num-divergence-samples", 2**40),
        ("--agent", "td3_bc", "--hidden-sizes", 2**62),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_a_model_larger_than_memory_is_never_built(place, data, flags):
    started = time.perf_counter()
    verdict = guarded(command("train", "--data", data, "--out", place / "run", "--quiet", *flags), place)
    assert_refused(verdict, 4, "takes", "GB", "lower", megabytes=TRAINING_MEGABYTES)
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(
    "flags",
    [
        ("--n-embd", 10**9),
        ("--n-layer", 1_000, "--n-embd", 4_096),
        ("--micro-batch-tokens", 2**40, "--block-length", 1024),
    ],
)
def test_a_language_model_larger_than_memory_is_never_built(place, flags):
    verdict = guarded(
        command("pretrain", "--corpus", "iid", "--out", place / "run", "--quiet", *flags), place
    )
    assert_refused(verdict, 4, "takes", "GB", "lower")
