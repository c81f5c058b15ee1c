"""How a program that reads a file ends decides what is said, whatever the program."""

import sys

import pytest

from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.data.load import load_dataset
from chibit.data.readers import sandbox
from chibit.data.readers.sandbox import run_apart

pytestmark = pytest.mark.apart


def run(code, folder, **limits):
    given = {"max_bytes": 1 << 30, "max_seconds": 60, **limits}
    run_apart(["-c", f"import os, sys, time; {code}"], folder / "file", folder, **given)


def test_it_is_told_what_to_read_and_its_limits(tmp_path):
    code = "open(sys.argv[2] + '/seen', 'w').write(repr([*sys.argv[1:], sys.flags.isolated]))"
    run(code, tmp_path)
    seen = [str(tmp_path / "file"), str(tmp_path), str(1 << 30), "60", 1]
    assert (tmp_path / "seen").read_text() == repr(seen)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("print('x\\nbad columns', file=sys.stderr); sys.exit(2)", InputError, "^bad columns$"),
        ("print('damaged', file=sys.stderr); sys.exit(3)", DamagedFileError, "^damaged$"),
        ("print('disk full', file=sys.stderr); sys.exit(4)", ResourceError, "^disk full$"),
        ("sys.exit(2)", DamagedFileError, "refused: reading it ended with an error; the file is damaged"),
        ("1 / 0", DamagedFileError, "ended with ZeroDivisionError: division by zero; the file is damaged"),
        ("os.abort()", DamagedFileError, "ended with signal 6; the file is damaged or not to be trusted"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_its_end_decides_the_refusal(tmp_path, code, kind, message):
    with pytest.raises(kind, match=message) as caught:
        run(code, tmp_path)
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_one_that_waits_for_ever_is_ended(tmp_path):
    with pytest.raises(DamagedFileError, match="file: refused: reading it ended with no end in sight"):
        run("time.sleep(60)", tmp_path, max_seconds=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit of the address space")
def test_a_reader_has_the_memory_that_it_is_given_and_no_more(write_hdf5, hopper_columns, home, monkeypatch):
    path = write_hdf5(hopper_columns)
    with monkeypatch.context() as small:
        small.setattr(sandbox, "_BASE_BYTES", 1 << 20)
        small.setattr(sandbox, "memory_budget", lambda: 0)
        with pytest.raises(
            DamagedFileError, match="refused: reading it ended|more memory than any such file"
        ):
            load_dataset(path, progress=False)
    assert load_dataset(path, progress=False).num_steps
