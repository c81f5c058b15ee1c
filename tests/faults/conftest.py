"""Shared by the faults: files of strangers, a home for stores, and a folder that nothing may touch."""

import sys
from pathlib import Path

import numpy as np
import pytest

from chibit.environments.make import make_env
from fault_files import steps, write_h5

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session", autouse=True)
def _mujoco_is_known():
    """When MuJoCo's windows are first imported, they look for their library in a process of their own."""
    make_env("Hopper-v4").close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder that may be written, with a home in it; the process works there."""
    folder = tmp_path / "inside"
    folder.mkdir()
    monkeypatch.setenv("CHIBIT_HOME", str(folder / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def outside(tmp_path):
    """A folder with a secret, which nothing may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    np.full(1000, 7.0, np.float32).tofile(folder / "secret.bin")
    write_h5(folder / "secret.hdf5", steps())
    return folder
