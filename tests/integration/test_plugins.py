"""Modules of one's own that CHIBIT_PLUGINS names: whatever they add, and whichever part looks first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
EVERY_MODULE = """
import importlib, pkgutil, chibit
skipped = ("chibit.__main__",)
for module in pkgutil.walk_packages(chibit.__path__, "chibit."):
    if module.name not in skipped:
        importlib.import_module(module.name)
"""
RECIPES = """
from chibit.recipes import RECIPES, Recipe
RECIPES["mine"] = Recipe(summary="mine", agent="bc", settings={"hidden_sizes": (8,)})
RECIPES |= {"other": Recipe(summary="other", agent="bc")}
"""
PLAIN = """
import gymnasium
class Plain(gymnasium.Env):
    pass
gymnasium.register("Plain-v0", Plain)
"""


def python(code, modules):
    path = os.pathsep.join([str(EXAMPLES), *sys.path])
    environment = os.environ | {"CHIBIT_PLUGINS": modules, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_no_module_of_the_package_looks_for_them_while_it_is_imported():
    """They may import all of the package, which must be there whole."""
    found = python(EVERY_MODULE, "no_such_module")
    assert not found.returncode, found.stderr


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "from chibit import RECIPES; print([RECIPES[key].agent for key in ('mine', 'return_weighted')])",
            "['bc', 'return_weighted']",
        ),
        (
            "from chibit.cli import main; main(['study', 'my_study:orthogonal_or_not', '--dry-run'])",
            "6 runs: 0 finished",
        ),
        ("from chibit.cli import main; main(['recipes', 'other'])", '"agent_name": "bc"'),
        ("from chibit.environments.registry import own_ids; print(own_ids())", "['Tank-v0', 'Plain-v0']"),
    ],
)
def test_whatever_they_add_is_there_at_the_first_look(tmp_path, monkeypatch, code, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_recipes.py").write_text(RECIPES)
    (tmp_path / "my_plain.py").write_text(PLAIN)
    found = python(code, "my_study, my_agent,my_recipes,my_tank,my_plain")
    assert expected in found.stdout, found.stderr
