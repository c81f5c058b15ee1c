"""The tests on a pretend device, in a process that begins with it and is not forked."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "device"


def test_everything_runs_on_a_device_that_is_not_the_cpu():
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--confcutdir", FOLDER, FOLDER]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5_000:]
    assert " passed" in result.stdout
