"""Faults 1 to 12: killed or stopped anywhere, a run goes on from its newest whole checkpoint, to the bit."""

import os
import signal

import faults_kills
import numpy as np
import pytest
import torch
import torch._dynamo  # optimizers import it; imported here, no forked run pays for it

from chibit.core import checkpoint, files
from chibit.core.checkpoint import checkpoint_steps, load_checkpoint
from chibit.core.signals import Stopped, StopRequests
from chibit.data.text.synthetic import SyntheticConfig, build_synthetic
from chibit.data.text.tokens import TokenWriter, open_corpus
from chibit.losses import similarity
from chibit.training import offline
from fault_guard import guarded
from fault_runs import die, half_then_die, leftovers, on_call


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    """Data, a configuration, and the digest of a run that was left alone."""
    folder = tmp_path_factory.mktemp("arena")
    os.environ["CHIBIT_HOME"] = str(folder / "home")
    config = faults_kills.small_run(faults_kills.write_data(folder / "data.npz"))
    alone = run(config, folder / "alone", folder)
    assert alone.code == 0, alone.message
    return config, folder, faults_kills.digest(folder / "alone")


def run(config, path, folder, before=None):
    """Train in a process of its own."""

    def action():
        try:
            offline.train(config, path, progress=False)
        except Stopped as error:
            return error.exit_code
        except KeyboardInterrupt:
            return 130
        return 0

    return guarded(action, folder, before)


CRASHES = {
    "1 at a random step": lambda: on_call(offline.OfflineRun, "_step", 17, die),
    "2 while a tensor is written": lambda: on_call(checkpoint, "_write", 10, half_then_die),
    "3 between write and fsync": lambda: on_call(checkpoint, "flush", 11, die),
    "4 between fsync and rename": lambda: on_call(files, "_rename_unless_present", 4, die),
    "5 before the newest is marked": lambda: on_call(checkpoint, "mark", 4, die),
    "6 while old ones are pruned": lambda: on_call(checkpoint, "remove", 2, _remove_one_and_die),
    "7 in the first save of all": lambda: on_call(checkpoint, "_write", 2, half_then_die),
    "8 in an evaluation": lambda: on_call(offline, "evaluate_agent", 2, die),
}


def _remove_one_and_die(folder, **_):
    next(iter(folder.iterdir())).unlink()
    die()


@pytest.mark.parametrize("crash", CRASHES)
def test_a_killed_run_ends_as_one_left_alone(arena, tmp_path, crash):
    config, folder, expected = arena
    path = folder / f"crash-{crash[0]}"
    killed = run(config, path, folder, CRASHES[crash])
    assert killed.code == -signal.SIGKILL, killed.message
    whole = [
        step for step in checkpoint_steps(path / "checkpoints") if load_checkpoint(path / "checkpoints", step)
    ]
    assert bool(whole) == (not crash.startswith("7"))
    resumed = run(config, path, folder)
    assert resumed.code == 0, resumed.message
    assert resumed.misdeeds == ()
    assert faults_kills.digest(path) == expected
    assert leftovers(path) == []


def test_a_killed_corpus_is_built_again(tmp_path):
    config = SyntheticConfig(num_states=10, num_sequences=20, sequence_length=30)

    def build(name):
        build_synthetic("markov", config, tmp_path / name)

    assert guarded(lambda: build("alone"), tmp_path).code == 0
    killed = guarded(lambda: build("killed"), tmp_path, lambda: on_call(TokenWriter, "write", 1, die))
    assert killed.code == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert guarded(lambda: build("killed"), tmp_path).code == 0
    hashes = [open_corpus(tmp_path / name).content_hash for name in ("alone", "killed")]
    assert hashes[0] == hashes[1]


def test_killed_centers_are_computed_again(tmp_path):
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32))
    cluster = lambda: similarity.load_centers(table, 5, folder=tmp_path / "centers")  # noqa: E731
    killed = guarded(cluster, tmp_path, lambda: on_call(files.os, "replace", 1, die))
    assert killed.code == -signal.SIGKILL
    assert not list((tmp_path / "centers").glob("[!.]*.safetensors"))
    assert torch.equal(cluster(), similarity.spherical_kmeans(table, 5, seed=0))


def test_a_signal_that_is_to_be_ignored_does_not_stop_a_run():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequests() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.signal_number is None
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_step_and_saves(arena, number):
    config, folder, expected = arena
    path = folder / f"signal-{number}"
    before = lambda: on_call(offline.OfflineRun, "_step", 8, lambda *_: os.kill(os.getpid(), number))  # noqa: E731
    stopped = run(config, path, folder, before)
    assert stopped.code == 128 + number, stopped.message
    assert checkpoint_steps(path / "checkpoints")[-1] == 8
    assert run(config, path, folder).code == 0
    assert faults_kills.digest(path) == expected


@pytest.mark.parametrize("moment", ["_write", "flush", "_prune", "mark"])
def test_a_second_interrupt_leaves_the_last_checkpoint_whole(arena, moment):
    """The first comes in step 8; the second while the checkpoint that it asked for is being saved."""
    config, folder, expected = arena
    path = folder / f"twice{moment}"

    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGINT)

    def before():
        on_call(offline.OfflineRun, "_step", 8, interrupt)
        first_of_third_save = {"_write": 7, "flush": 7, "_prune": 3, "mark": 3}[moment]
        on_call(checkpoint, moment, first_of_third_save, interrupt)

    stopped = run(config, path, folder, before)
    assert stopped.code == 130, stopped.message
    assert load_checkpoint(path / "checkpoints").step >= 6
    assert run(config, path, folder).code == 0
    assert faults_kills.digest(path) == expected
