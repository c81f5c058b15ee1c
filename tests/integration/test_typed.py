"""The package is typed for its users: what mypy says of a script that calls it, and what the wheel holds."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import chibit

ROOT = Path(__file__).parents[2]
SCRIPT = """\
import chibit
import numpy as np

dataset = chibit.load_dataset("log.npz")
reveal_type(dataset)
result = chibit.fit(dataset, "chibit", steps=5, seed=0, out="runs/x")
reveal_type(result.policy.act(np.zeros(3)))
config = chibit.RunConfig(data="log.npz", agent="dt", num_steps=10)
reveal_type(chibit.train(config, "runs/y", on_evaluation=lambda event: event.step))
reveal_type(chibit.__version__)
chibit.fit(dataset, steps="5")
chibit.RunConfig(data="log.npz", agent="dt", num_steps="5")
chibit.Policy.from_pretrained(3)
chibit.absent
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_mypy_sees_the_types(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "script.py"]
    place = str(Path(chibit.__file__).parents[1])
    done = subprocess.run(
        command, cwd=tmp_path, env={"MYPYPATH": place, "PATH": ""}, capture_output=True, text=True
    )
    said = re.findall(r"^script\.py:(\d+): (\w+): (.*)$", done.stdout, flags=re.MULTILINE)
    lines = SCRIPT.splitlines()
    notes = [text for _, kind, text in said if kind == "note" and text.startswith("Revealed")]
    words = ("TrajectoryDataset", "ndarray", "dict[", "str")
    assert [word in note for word, note in zip(words, notes, strict=True)] == [True] * 4, done.stdout
    wrong = {lines[int(number) - 1] for number, kind, _ in said if kind == "error"}
    assert wrong == set(lines[-4:]), done.stdout + done.stderr


def test_the_version_is_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    text = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text()
    assert f'__version__ = "{chibit.__version__}"' in text
    others = [
        path
        for path in (ROOT / "src").rglob("*.py")
        if re.search(rf'["\']{re.escape(chibit.__version__)}["\']', path.read_text())
    ]
    assert [path.name for path in others] == ["version.py"]


@pytest.mark.slow
def test_the_wheel_says_that_it_is_typed(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"chibit-{chibit.__version__}-")
    assert "chibit/py.typed" in zipfile.ZipFile(wheel).namelist()
