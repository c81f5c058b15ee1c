"""Ctrl-C and SIGTERM in every command: one line, 130 or 143, no children, nothing left behind."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import chibit.data.collect.behavior.streams
import chibit.data.store
import chibit.data.text.tokens
import chibit.evaluation.attention
import chibit.evaluation.rollout
import chibit.policy.export
import chibit.policy.run
import chibit.reporting.report
import chibit.training.attention
from chibit.cli import main
from chibit.core.signals import Stopped
from chibit.sweep.tasks import Outcome, raise_if_stopped
from fault_files import steps, write_h5
from fault_guard import command, guarded
from fault_runs import leftovers, on_call
from forked import forked_command

NUMBERS = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of three steps, and its data."""
    folder = tmp_path_factory.mktemp("trained")
    np.savez(folder / "data.npz", **steps())
    schedule = ["--num-steps", "3", "--num-episodes", "0", "--batch-size", "4", "--context-length", "4"]
    size = ["--initializer", "random", "--n-embd", "8", "--n-head", "1", "--n-layer", "1"]
    out = ["--out", str(folder / "study" / "run"), "--quiet"]
    os.environ["CHIBIT_HOME"] = str(folder / "home")
    assert main(["train", "--data", str(folder / "data.npz"), *schedule, *size, *out]) == 0
    return folder


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.04)  # looking costs more than waiting


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def start(place, *arguments, **process):
    environment = {"CHIBIT_HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}
    (place / "tmp").mkdir(exist_ok=True)
    return forked_command(*arguments, folder=place / "said", environment=environment, **process)


def last_line(message):
    return message.strip().splitlines()[-1]


@pytest.mark.parametrize("number", NUMBERS, ids=["SIGTERM", "SIGINT"])
def test_a_conversion_ends_its_reader_and_leaves_nothing(place, number):
    path = write_h5(place / "data.hdf5", steps(40_000))
    process = start(place, "data", "inspect", path)
    wait_for(lambda: children(process.pid) and leftovers(place / "tmp"))
    (child,) = children(process.pid)
    process.send_signal(number)
    code, _, message = process.wait()
    assert code == NUMBERS[number]
    assert last_line(message) == f"chibit: stopped by {number.name}"
    assert "Traceback" not in message
    wait_for(lambda: not is_alive(child), 10)
    assert leftovers(place) == []


def test_a_reader_does_not_outlive_a_killed_command_and_the_next_one_sweeps(place):
    path = write_h5(place / "data.hdf5", steps(1_000_000))
    process = start(place, "data", "inspect", path)
    wait_for(lambda: children(process.pid) and leftovers(place / "tmp"))
    (child,) = children(process.pid)
    wait_for(lambda: list(place.glob("tmp/*/*.npy")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not is_alive(child), 20)
    assert leftovers(place / "tmp")
    assert start(place, "data", "inspect", path).wait()[0] == 0
    assert leftovers(place) == []


def test_collecting_in_processes_ends_them(place):
    out = ["--num-steps", 10**6, "--num-processes", 2, "--out", place / "minari"]
    process = start(place, "data", "collect", "hopper-medium", *out)
    # Two workers; the tracker of their resources may be that of the tests, from which the command is forked.
    wait_for(lambda: leftovers(place / "minari") and len(children(process.pid)) >= 2)
    workers = children(process.pid)
    process.send_signal(signal.SIGTERM)
    code, _, message = process.wait()
    assert code == 143
    assert last_line(message) == "chibit: stopped by SIGTERM"
    wait_for(lambda: not any(map(is_alive, workers)), 10)
    assert leftovers(place) == []


def test_what_a_killed_collection_left_is_swept_by_the_next_one(place):
    out = ["--num-steps", 10**6, "--out", place / "minari"]
    process = start(place, "data", "collect", "hopper-medium", *out)
    wait_for(lambda: [path for path in leftovers(place) if list(path.rglob("main_data.hdf5"))])
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert leftovers(place / "minari")
    assert main(["data", "collect", "hopper-medium", "--num-steps", "8", "--out", str(place / "minari")]) == 0
    assert leftovers(place / "minari") == []


POINTS = {
    "data inspect": (chibit.data.store, "fill_store"),
    "data collect": (chibit.data.collect.behavior.streams, "_run_here"),
    "train": (chibit.data.store, "fill_store"),
    "pretrain": (chibit.data.text.tokens.TokenWriter, "write"),
    "evaluate": (chibit.policy.run, "load_checkpoint"),
    "attention": (chibit.policy.run, "load_checkpoint"),
    "export": (chibit.policy.export, "write_policy"),
    "report": (chibit.reporting.report, "render_markdown"),
}


def arguments_of(verb, trained, place):
    run = trained / "study" / "run"
    (place / "text.txt").write_text("some words " * 100)
    return {
        "data inspect": [trained / "data.npz"],
        "data collect": ["hopper-medium", "--num-steps", 50, "--out", place / "minari"],
        "train": ["--data", trained / "data.npz", "--out", place / "run", "--quiet"],
        "pretrain": ["--corpus", place / "text.txt", "--tokenizer", "bpe:300", "--out", place / "run"],
        "evaluate": [run, "--device", "cpu"],
        "attention": [run],
        "export": [run, "--out", place / "policy", "--no-video"],
        "report": [trained / "study", "--out", place / "report"],
    }[verb]


@pytest.mark.parametrize("verb", POINTS)
@pytest.mark.parametrize("number", NUMBERS, ids=["SIGTERM", "SIGINT"])
def test_every_command_ends_in_one_line_with_nothing_half_written(trained, place, verb, number):
    owner, name = POINTS[verb]

    def interrupt(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(10)

    before = lambda: on_call(owner, name, 1, interrupt)  # noqa: E731
    verdict = guarded(command(*verb.split(), *arguments_of(verb, trained, place)), place, before)
    assert verdict.code == NUMBERS[number], verdict
    assert last_line(verdict.message) == f"chibit: stopped by {number.name}"
    assert "Traceback" not in verdict.message
    assert leftovers(place) == []
    written = [path for path in place.rglob("*") if path.is_file() and path.name != "text.txt"]
    assert {path.name for path in written} <= {"config.json", ".lock", "namespace_metadata.json"}, written


def test_a_signal_that_is_to_be_ignored_stays_ignored(place):
    path = write_h5(place / "data.hdf5", steps(4000))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start(place, "data", "inspect", path)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: children(process.pid))
    process.send_signal(signal.SIGINT)
    assert process.wait()[0] == 0


@pytest.mark.parametrize("number", NUMBERS, ids=["SIGTERM", "SIGINT"])
def test_a_study_ends_while_a_worker_converts_its_data(place, number):
    """Ctrl-C in a terminal reaches the driver, its workers and their readers at once; SIGTERM the driver."""
    path = write_h5(place / "data.hdf5", steps(300_000))
    few = ["--num-steps", 2, "--seeds", 0, 1, "--root", place / "runs"]
    few += ["--engine", "pool", "--num-processes", 1]
    process = start(place, "study", "policies", "--data", path, *few, new_session=True)
    wait_for(lambda: leftovers(place / "tmp"))
    descendants = [pid for child in children(process.pid) for pid in (child, *children(child))]
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    code, _, message = process.wait()
    assert code == NUMBERS[number], message
    assert last_line(message) == "chibit: stopped, 0 of 2 runs are done; the same command goes on"
    assert "Traceback" not in message
    wait_for(lambda: not any(map(is_alive, descendants)), 10)
    assert leftovers(place) == []


def test_a_study_that_was_stopped_says_how_far_it_came():
    paths = [Path("a"), Path("b"), Path("c")]
    finished, stopped = Outcome(paths[0], "finished"), Outcome(paths[1], "stopped", "", signal.SIGTERM)
    with pytest.raises(Stopped, match=re.escape("stopped, 1 of 3 runs are done")) as caught:
        raise_if_stopped([finished, stopped, Outcome(paths[2], "stopped", "not started")])
    assert caught.value.exit_code == 143
    raise_if_stopped([finished])
