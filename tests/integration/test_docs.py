"""Every block of Python in README and docs runs, page by page; `unit/test_docs_code.py` has the others."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import chibit
from chibit.agents import AGENTS
from chibit.cli import main
from chibit.environments.registry import ENVIRONMENTS
from chibit.judging.fitting import FitConfig
from chibit.judging.world import WorldConfig
from chibit.models.initializers import INITIALIZERS
from chibit.recipes import RECIPES
from chibit.studies import STUDIES

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
ELSEWHERE = {"README.md": "tests/integration/test_readme_policy.py"}
"""Pages whose Python has a test of its own, for what it needs."""
SLOW = ("judging.md", "your_data.md")
SHORT = ["--num-steps", "2", "--device", "cpu", "--quiet"]


def blocks(page, *languages):
    """(language, code) of the blocks of a page, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    return [(language, code) for language, code in found if language in languages]


def commands(code):
    """The words of each line that calls chibit."""
    lines = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[line.index("chibit") + 1 :] for line in words if "chibit" in line[:2]]


def with_python():
    pages = [page for page in PAGES if blocks(page, "python") and page not in ELSEWHERE]
    return [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in pages]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the examples and a log; what is registered and imported is forgotten after it."""
    for example in (ROOT / "docs" / "examples").glob("*.py"):
        shutil.copy(example, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for registry in (AGENTS, INITIALIZERS, STUDIES):
        monkeypatch.setattr(registry, "_entries", dict(registry._all()))
        monkeypatch.setattr(registry, "_sources", dict(registry._sources))
    monkeypatch.setattr("chibit.recipes.RECIPES", dict(RECIPES))
    modules = set(sys.modules)
    generator = np.random.default_rng(0)
    columns = {"observations": generator.normal(size=(600, 3)), "actions": generator.uniform(-1, 1, (600, 1))}
    columns |= {"rewards": columns["observations"][:, 0], "terminations": np.arange(1, 601) % 30 == 0}
    np.savez("plant.npz", **columns)
    monkeypatch.setattr(ENVIRONMENTS, "_entries", dict(ENVIRONMENTS._all()))
    level = generator.uniform(size=(200, 1))
    np.savez("log.npz", observations=level, actions=0.2 * level, rewards=1 - np.abs(level[:, 0] - 0.5))
    yield tmp_path
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


def run(command):
    """One command of a page on the log, short."""
    words = [{"PATH": "plant.npz", "RUN": "runs/first"}.get(word, word) for word in command]
    if words[0] == "train":
        words = [word for i, word in enumerate(words) if "--num-steps" not in (word, words[max(0, i - 1)])]
        words += SHORT
    assert main(words) == 0, shlex.join(words)


@pytest.mark.parametrize("page", with_python())
def test_the_code_of_a_page_runs_from_top_to_bottom(folder, monkeypatch, page):
    import my_tank

    short = {"world": WorldConfig(num_steps=20), "clone_steps": 20}
    monkeypatch.setattr(FitConfig.__init__, "__kwdefaults__", FitConfig.__init__.__kwdefaults__ | short)

    names = {"chibit": chibit, "Tank": my_tank.Tank}  # what a page has just spoken of
    runs_commands = page in ("your_data.md", "judging.md")
    for language, code in blocks(page, "python", "sh"):
        if language == "python":
            code = re.sub(r"\bsteps=[\d_]+", "steps=2", code).replace("steps = 60, 40", "steps = 12, 9")
            exec(compile(code, page, "exec"), names)
        elif runs_commands:
            for command in commands(code):
                run(command)
