import errno
import os
import pwd
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chibit.core.errors import InputError, ResourceError
from chibit.core.files import (
    atomic_folder,
    check_name,
    make_folder,
    nearest,
    open_regular,
    sha256_file,
    user_path,
    write_atomic,
)
from chibit.core.home import home_folder
from chibit.core.temporary import temporary_folder
from chibit.data.collect.minari_writer import minari_root
from chibit.data.readers.d4rl import find_file


def test_write_atomic_replaces_whole_content_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "first")
    write_atomic(path, b"second")
    assert path.read_text() == "second"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_write_atomic_keeps_the_old_file_when_the_disk_refuses(tmp_path):
    code = (
        "import resource, sys, pathlib\n"
        "from chibit.core.files import write_atomic\n"
        "from chibit.core.errors import ResourceError\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"path = pathlib.Path({str(tmp_path / 'a.bin')!r})\n"
        "write_atomic(path, b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "try:\n    write_atomic(path, b'x' * 5000)\n"
        "except ResourceError as error:\n    print(error.exit_code, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("4 ")
    assert "a.bin: cannot write" in done.stdout
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "a pipe"), ("null", "a device"), ("folder", "a folder")):
        with pytest.raises(InputError, match=f"{name}: is {kind}, expected a regular file"):
            write_atomic(tmp_path / name, "x")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "null").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["folder", "null", "pipe"]


def test_a_refusal_is_said_once(tmp_path):
    with pytest.raises(InputError) as refused:
        open_regular(tmp_path)
    assert str(refused.value) == f"{tmp_path}: is a folder, expected a regular file; check the path"


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "set") as folder:
        (folder / "part").write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with atomic_folder(tmp_path / "set") as folder:
        (folder / "part").write_text("whole")
        assert not (tmp_path / "set").exists()
    assert (tmp_path / "set" / "part").read_text() == "whole"


def test_a_folder_has_the_mode_of_the_umask_which_nobody_changes(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads have it too"))
        with atomic_folder(tmp_path / "set"), temporary_folder(tmp_path) as own:
            assert own.stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "set").stat().st_mode & 0o777 == 0o750
    finally:
        monkeypatch.undo()
        os.umask(before)


def test_a_user_without_a_home_is_told_so(monkeypatch):
    """As in a container whose user has no entry in passwd."""
    for name in ("HOME", "CHIBIT_HOME", "MINARI_DATASETS_PATH", "D4RL_DATASET_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    for look in (home_folder, minari_root, lambda: user_path("~/data")):
        with pytest.raises(InputError, match="this user has no home folder; set HOME"):
            look()
    assert home_folder("here") == Path("here") and find_file("hopper-medium-v2", Path("here")) is None


def test_of_two_writers_the_first_wins_unless_replacing(tmp_path):
    for text, replace in (("a", False), ("b", False), ("c", True)):
        with atomic_folder(tmp_path / "set", replace=replace) as folder:
            (folder / "part").write_text(text)
        assert (tmp_path / "set" / "part").read_text() == {"a": "a", "b": "a", "c": "c"}[text]
    assert os.listdir(tmp_path) == ["set"]


def test_many_concurrent_writers_leave_one_whole_folder(tmp_path):
    def fill(number):
        with atomic_folder(tmp_path / "set") as folder:
            for part in range(5):
                (folder / f"{part}").write_text(str(number))

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(tmp_path / "set" / f"{part}").read_text() for part in range(5)}) == 1
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_is_a_resource_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="no permission"):
        make_folder(tmp_path / "new")


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="in the way"):
        make_folder(tmp_path / "f")


def test_resource_error_names_the_remedy():
    from chibit.core.files import resource_error

    assert "free some space" in str(resource_error("x", OSError(errno.ENOSPC, "No space left on device")))


@pytest.mark.parametrize("name", ["hopper-medium-v2", "mujoco/hopper/medium-v0", "a_b.c+d", "x" * 200])
def test_plain_names_pass(name):
    assert check_name(name, "data set") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../x",
        "a/../b",
        "/etc",
        "a//b",
        "a\0b",
        "a#b",
        "a\nb",
        ".hidden",
        "a b",
        "x" * 4096,
        "-rf",
        "a/",
        "é",
    ],
)
def test_names_that_could_leave_a_folder_are_refused_in_one_line(name):
    with pytest.raises(InputError) as caught:
        check_name(name, "data set")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_nearest_names():
    assert nearest("hoper-medium", ["hopper-medium", "walker2d-medium"]).startswith(
        "; did you mean 'hopper-medium'"
    )
    assert nearest("zzz", ["hopper"]) == ""


def test_hints_are_close_ones():
    assert nearest("AdroitHandDoor-v1", ["Acrobot-v1", "Ant-v4"]) == ""
    assert nearest("antmaze-umaze-v2", ["ant-medium", "ant-medium-v2"]) == ""
    assert nearest("hoper-medium", ["hopper-medium"]) == "; did you mean 'hopper-medium'?"
