"""Shell blocks of README and docs pass the command line's own parser, cheap ones run; TOML is read.

Python blocks run in `tests/integration/test_docs.py`, those of the tutorial when the site is built.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from chibit import cli
from chibit.agents import AGENTS
from chibit.commands import parsing
from chibit.environments.registry import ENVIRONMENTS
from chibit.models.initializers import INITIALIZERS
from chibit.recipes import RECIPES
from chibit.studies import STUDIES

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\{[\w-]+\}|\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = {"text", "{toctree}", "{eval-rst}"}
"""Blocks that are no code; Sphinx reads its own."""
BLOCKS = [(page.name, *match.groups()) for page in PAGES for match in BLOCK.finditer(page.read_text())]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
OTHERS = {"#SBATCH", ".", "export", "head=", "sleep", "srun"}
"""First words of lines that are of other programs; whether those understand them is not looked at."""
CHEAP = re.compile(r"data list|recipes|study( \w+ .*--dry-run)?|--version")
"""Commands that are run."""
RUN_ELSEWHERE = {"README.md": "test_readme_policy.py", "no_simulator.md": "test_no_simulator_guide.py"}
"""Pages whose blocks need each other."""


class Parsed(BaseException):
    """Raised where a command has read its flags and would begin to work."""


def code_of(language):
    """Blocks of a language, as parameters of a test that are named by their page and place."""
    found = [(page, code) for page, kind, code in BLOCKS if kind == language]
    return [pytest.param(page, code, id=f"{page}-{i}") for i, (page, code) in enumerate(found)]


def lines_of(code):
    """The lines of a shell block as lists of words, without comments and without what is set before them."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.split(" && ")[-1], comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            yield words[words.index("chibit") :] if "chibit" in words and words[0] != "export" else words


SHELL = [words for _, kind, code in BLOCKS if kind == "sh" for words in lines_of(code)]
OURS = sorted({shlex.join(words[1:]) for words in SHELL if words[0] == "chibit"})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the examples and what the placeholders of the pages stand for."""
    for example in (ROOT / "docs" / "examples").glob("*.py"):
        shutil.copy(example, tmp_path)
    shutil.copytree(ROOT / "tests" / "golden" / "v0_1" / "run", tmp_path / "RUN")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in (AGENTS, INITIALIZERS, STUDIES, ENVIRONMENTS):
        monkeypatch.setattr(registry, "_entries", dict(registry._all()))
    for registry in (AGENTS, INITIALIZERS, STUDIES):
        monkeypatch.setattr(registry, "_sources", dict(registry._sources))
    recipes = dict(RECIPES)
    yield tmp_path
    RECIPES.clear()
    RECIPES.update(recipes)
    gym.registry.pop("Tank-v0", None)
    for example in tmp_path.glob("*.py"):
        sys.modules.pop(example.stem, None)


def test_every_block_says_what_it_is():
    assert not [
        (page, kind, code)
        for page, kind, code in BLOCKS
        if kind not in {"python", "sh", "toml", "{code-cell}", *TEXT}
    ]


@pytest.mark.parametrize("command", OURS)
def test_commands_are_understood(command, place, monkeypatch):
    def stop(parsed, default=None):
        assert not list(find_idle(parsed, default))
        raise Parsed

    find_idle = parsing.find_idle
    monkeypatch.setattr(parsing, "find_idle", stop)
    with pytest.raises((Parsed, SystemExit)) as ended:
        print(cli.main(shlex.split(command)))
    assert ended.type is Parsed or (command.endswith(("--help", "--help-all")) and ended.value.code == 0)


@pytest.mark.parametrize("command", [command for command in OURS if CHEAP.fullmatch(command)])
def test_cheap_commands_run(command, place, capsys):
    assert cli.main(shlex.split(command)) == 0
    assert capsys.readouterr().out


def test_columns_are_named_as_the_page_says(place, capsys):
    """The command and the file of docs/data.md, on a log with those columns."""
    rng, steps = np.random.default_rng(0), 40
    columns = {"obs": rng.normal(size=(steps, 2)), "temp": rng.normal(size=steps)}
    np.savez(
        "log.npz", **columns, valve=rng.uniform(size=steps), r=np.ones(steps), batch=np.arange(steps) // 10
    )
    (command,) = [command for command in OURS if command.startswith("data inspect log.npz")]
    assert cli.main(shlex.split(command)) == 0
    said = capsys.readouterr().out
    (mapping,) = [code for page, kind, code in BLOCKS if kind == "toml" and "temp" in code]
    Path("log.toml").write_text(mapping)
    assert cli.main(["data", "inspect", "log.npz"]) == 0
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("words", [words for words in SHELL if words[0] != "chibit"], ids=" ".join)
def test_other_lines_name_what_is_there(words):
    program, *rest = words
    if program == "make":
        assert set(rest) <= set(TARGETS)
    elif program == "pip" or words[:3] == ["python", "-m", "pip"]:
        named = [
            extra
            for word in rest
            if (extras := re.search(r"\[(.*)\]", word))
            for extra in extras[1].split(",")
        ]
        assert set(named) <= set(EXTRAS)
    elif program.endswith(("python", "pytest", "mypy")):
        files = [word for word in rest if word.startswith(("tests/", "scripts/", "benchmarks/"))]
        assert all((ROOT / file).exists() for file in files), files
    else:
        assert any(program.startswith(other) for other in OTHERS), program


@pytest.mark.parametrize(("page", "code"), code_of("toml"))
def test_toml_is_read(page, code):
    data = tomllib.loads(code)
    groups = data.get("project", {}).get("entry-points", {})
    assert set(groups) <= {registry.group for registry in (AGENTS, INITIALIZERS, STUDIES, ENVIRONMENTS)}
