"""The shape of the house: import directions, file and function lengths.

Calls that are never made: `tests/faults/test_syntax_tree.py`.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "chibit"
FILES = sorted(SOURCE.rglob("*.py"))
SCRIPTS, TESTS = SOURCE.parents[1] / "scripts", SOURCE.parents[1] / "tests"
PAGE = SOURCE.parents[1] / "docs" / "architecture.md"
MAX_FILE_LINES, MAX_FUNCTION_LINES = 450, 60

ALLOWED = {
    "core": ("core",),
    "environments": ("core", "environments"),
    "data": ("core", "environments", "data"),
    "models": ("core", "models"),
    "losses": ("core", "losses"),
    "agents": (
        "core",
        "environments.data_names",
        "environments.instructions",
        "data",
        "losses",
        "models",
        "agents",
    ),
    "policy": ("core", "environments", "data", "models", "agents", "evaluation", "policy"),
    "evaluation": ("core", "environments", "data.samplers", "models", "agents.base", "evaluation"),
    "judging": ("core", "environments.scores", "data", "models", "agents.base", "policy", "judging"),
    "training": (
        "core",
        "environments",
        "data",
        "losses",
        "models",
        "agents",
        "policy",
        "evaluation",
        "training",
    ),
    "reporting": (
        "core",
        "environments",
        "evaluation.summary",
        "judging.judgement",
        "judging.verdict",
        "reporting",
    ),
    "recipes": ("core", "environments.data_names", "models.gpt", "agents", "training", "study"),
    "study": ("core",),
    "studies": ("core", "environments.registry", "models.gpt", "agents", "recipes", "training", "study"),
    "study_runs": ("core", "environments.registry", "recipes", "training", "study", "studies"),
    "sweep": ("core", "environments.own", "agents", "training", "evaluation.summary", "sweep"),
    "sweep.adaptive": ("core", "training", "sweep", "reporting"),
    "fitting": ("core", "environments", "data", "models", "agents", "policy", "recipes", "training"),
    "quickstart": ("core", "data", "recipes", "sweep", "training", "reporting"),
    "commands": ("",),
    "cli": ("core", "commands"),
    "__main__": ("cli",),
    "__init__": ("",),
}
"""Layer (or module) to what it may import from chibit; the longest matching key decides."""


def module_name(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports_of(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            assert node.level == 0, f"{path}: relative import"
    return {name.removeprefix("chibit.") for name in found if name == "chibit" or name.startswith("chibit.")}


def is_under(name, prefix):
    return prefix == "" or name == prefix or name.startswith(prefix + ".")


def wrong_imports(name, imports):
    """What a module may not import."""
    keys = [key for key in ALLOWED if is_under(name, key)]
    assert keys, f"{name} belongs to no layer"
    allowed = ALLOWED[max(keys, key=len)]
    return sorted(found for found in imports if not any(is_under(found, prefix) for prefix in allowed))


def long_parts(name, text):
    """Parts of a module that are too long: itself, and its functions."""
    if text.count("\n") > MAX_FILE_LINES:
        yield name
    for node in ast.walk(ast.parse(text)):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if is_function and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES:
            yield f"{name}: {node.name}"


def num_code_lines(text):
    """Lines without blanks, comments and strings that stand alone, as documentation does."""
    alone = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    return sum(i not in alone and not re.fullmatch(r"\s*(#.*)?", line) for i, line in lines)


def test_imports_point_down():
    offenders = {module_name(path): wrong_imports(module_name(path), imports_of(path)) for path in FILES}
    assert not {name: wrong for name, wrong in offenders.items() if wrong}


def test_files_and_functions_stay_short():
    assert not [part for path in FILES for part in long_parts(module_name(path), path.read_text())]


def test_a_baseline_is_a_file_that_is_read_in_a_minute():
    texts = [path.read_text() for path in FILES if path.parent.name == "agents"]
    baselines = [text for text in texts if re.search(r"^    agent: ClassVar.* = ", text, re.M)]
    assert len(baselines) >= 12 and max(text.count("\n") for text in baselines) <= 150


def test_the_checks_see():
    assert wrong_imports("core.files", {"data.store", "core.errors"}) == ["data.store"]
    assert wrong_imports("models.gpt", {"losses.value", "models.mlp"}) == ["losses.value"]
    body = "    pass\n"
    long_function = "def f():\n" + MAX_FUNCTION_LINES * body
    assert list(long_parts("a", long_function)) == ["a: f"]
    assert list(long_parts("a", "\n" * (MAX_FILE_LINES + 1))) == ["a"]
    assert not list(long_parts("a", "def f():\n" + (MAX_FUNCTION_LINES - 1) * body))


def test_only_agents_ask_which_agent_it_is_and_nobody_feels_for_its_parts():
    texts = {module_name(path): path.read_text() for path in FILES}
    outside = {name for name in texts if not is_under(name, "agents")}
    assert not {name for name in outside if re.search(r'[!=]= "dt"', texts[name])}
    near = {name for name in texts if is_under(name, "agents") or is_under(name, "policy")}
    assert not {name for name in near if re.search(r"\b(get|has)attr\(", texts[name])}


def test_there_are_no_drawers():
    assert not {path.stem for path in FILES} & {"utils", "common", "helpers", "misc", "util"}


def test_reporting_and_the_help_text_need_no_torch():
    code = (
        "import sys, chibit.reporting, chibit.cli, chibit.core.run_dir, chibit.environments.scores\n"
        "import importlib, pkgutil\n"
        "for module in pkgutil.walk_packages(chibit.reporting.__path__, 'chibit.reporting.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_picture_of_the_layers_is_that_of_the_code():
    script = SOURCE.parents[1] / "scripts" / "draw_layers.py"
    result = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_page_names_every_module_and_no_other():
    page = PAGE.read_text()
    stems = {path.stem for path in FILES if not path.stem.startswith("__")}
    assert not sorted(stem for stem in stems if not re.search(rf"\b{stem}\b", page))
    paths = [f"/{path}" for folder in (SOURCE, SCRIPTS, TESTS) for path in folder.rglob("*.py")]
    named = set(re.findall(r"[\w/]+\.py\b", page))
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in paths)]


def test_the_page_says_how_much_code_there_is():
    page = PAGE.read_text()
    said = int(re.search(r"([\d,]+) lines of code without", page)[1].replace(",", ""))
    assert said == pytest.approx(sum(num_code_lines(path.read_text()) for path in FILES), rel=0.03)
