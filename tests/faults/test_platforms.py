"""Systems without the modules and calls of Linux: what there is works, what there is not has a fallback."""

import os
import subprocess
import sys

from chibit.core import platform
from chibit.core.files import atomic_folder

HIDE = (
    "import sys, os\n"
    "for name in {hidden!r}: sys.modules[name] = None\n"
    "for name in {absent!r}:\n"
    "    if hasattr(os, name): delattr(os, name)\n"
)
WORK = """
import numpy as np, pathlib
from chibit.cli import main
folder = pathlib.Path({folder!r})
rng = np.random.default_rng(0)
np.savez(folder / "data.npz", observations=rng.normal(size=(60, 3)), actions=rng.normal(size=(60, 1)),
         rewards=rng.normal(size=60), terminals=np.arange(60) % 20 == 19)
arguments = ["--agent", "bc", "--data", str(folder / "data.npz"), "--num-steps", "3", "--num-episodes", "0",
             "--hidden-sizes", "8", "--batch-size", "4", "--quiet", "--device", "cpu"]
assert main(["train", *arguments, "--out", str(folder / "study" / "run")]) == 0
for _ in range(2):
    assert main(["export", str(folder / "study" / "run"), "--out", str(folder / "policy"), "--no-video"]) == 0
import pickle
from chibit.data.load import load_dataset
episode = {{"observations": np.zeros((4, 3)), "actions": np.zeros((4, 1)), "rewards": np.zeros(4),
           "terminals": np.array([False, False, False, True])}}
(folder / "list.pkl").write_bytes(pickle.dumps([episode]))
assert load_dataset(folder / "list.pkl", progress=False).num_steps == 4
import importlib, pkgutil, chibit
for module in pkgutil.walk_packages(chibit.__path__, "chibit."):
    if not module.name.endswith(("__main__", "ray_engine")): importlib.import_module(module.name)
print("done")
"""
ABSENT = ["sysconf", "O_NONBLOCK", "O_NOCTTY", "O_NOFOLLOW", "O_CLOEXEC", "getppid", "setpgrp"]


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_training_export_and_every_module_work_without_what_windows_lacks(tmp_path):
    hide = HIDE.format(hidden=["fcntl", "resource"], absent=ABSENT)
    done = run(hide + WORK.format(folder=str(tmp_path)), CHIBIT_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_folder_is_replaced_where_two_cannot_change_places(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "exchange", lambda one, other: False)
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "folder", replace=True) as temporary:
            (temporary / "ours").write_text(text)
        (tmp_path / "folder" / "theirs").write_text("x")
    assert (tmp_path / "folder" / "ours").read_text() == "second"
    assert (tmp_path / "folder" / "theirs").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
