"""Readers of files run in the process of the unit tests: starting one costs more than what it reads.

That the process has limits, ends with its parent and takes nothing along is tested in tests/faults, with real
ones; so are commands, in tests/integration.
"""

import io
import subprocess
import sys
import traceback
import warnings
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest

from chibit.data.readers import sandbox


@pytest.fixture(autouse=True)
def _readers_in_this_process(request, monkeypatch):
    if request.node.get_closest_marker("apart"):
        return
    monkeypatch.setattr(sandbox, "limit", lambda max_bytes, max_seconds: None)
    monkeypatch.setattr(sandbox, "subprocess", SimpleNamespace(**vars(subprocess) | {"run": _run}))


def _run(program, **options):
    """As `subprocess.run` of a reader; the unpickler, a program of its own, is run."""
    if "-c" not in program:
        return subprocess.run(program, **options)
    arguments, messages = program[program.index("-c") + 4 :], io.StringIO()
    with redirect_stderr(messages), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = sandbox.main(arguments)
        except Exception:
            code = traceback.print_exc() or 1
    sys.stderr.flush()
    return subprocess.CompletedProcess(program, code, "", messages.getvalue())
