"""Output that nobody reads, or for which there is no room."""

import os
import sys

import numpy as np
import pytest

from chibit.cli import main
from fault_files import steps
from forked import Forked

TRAIN = ["train", "--agent", "bc", "--num-steps", "9", "--num-episodes", "0", "--hidden-sizes", "8"]
TRAIN += ["--log-every", "1", "--batch-size", "4", "--device", "cpu"]


def full():
    return os.open("/dev/full", os.O_WRONLY)


def unread():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def ended(stream, made, arguments, folder):
    """Exit code, output and messages of a command with such a stream, to the interpreter's last flush."""

    def act():
        os.dup2(made(), stream)
        name = {1: "stdout", 2: "stderr"}[stream]
        setattr(sys, name, open(stream, "w", closefd=False))  # noqa: SIM115 - until the process ends
        code = main(list(map(str, arguments)))
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    return Forked(act, folder, environment={"CHIBIT_HOME": str(folder / "home")}).wait()


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "data.npz", **steps())
    return tmp_path / "data.npz"


@pytest.mark.parametrize("arguments", [["inspect"], ["inspect", "--json"], ["train", "--help"], ["data"]])
@pytest.mark.parametrize(("made", "expected"), [(full, 4), (unread, 0)])
def test_output_without_room_is_one_line_and_without_a_reader_none(tmp_path, data, made, expected, arguments):
    if arguments[0] == "inspect":
        arguments = ["data", "inspect", data, *arguments[1:]]
    code, _, messages = ended(1, made, arguments, tmp_path)
    lines = [line for line in messages.splitlines() if not line.startswith("converting")]
    assert code == expected, messages
    assert len(lines) == (expected == 4) and all("No space left on device" in line for line in lines)


def test_a_run_whose_progress_nobody_reads_goes_on_to_its_end(tmp_path, data):
    code, _, _ = ended(2, unread, [*TRAIN, "--data", data, "--out", tmp_path / "run"], tmp_path)
    assert code == 0 and (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("made", [full, unread])
def test_a_refusal_that_cannot_be_printed_keeps_its_exit_code(tmp_path, made):
    assert ended(2, made, ["data", "inspect", tmp_path / "absent.npz"], tmp_path)[0] == 2
