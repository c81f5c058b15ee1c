"""The shape of the house: import directions, file and function lengths, and calls that are never made."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "chibit"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60

BATCH_MODULES = ("data.trajectory", "data.windows", "data.transitions", "data.text", "data.scores")
ALLOWED = {
    "core": ("core",),
    "data": ("core", "data"),
    "data.collect": ("core", "data", "behaviour", "envs"),
    "data.atari_collect": ("core", "data", "behaviour", "envs", "atari"),
    "data.atari_frames": ("core", "data", "atari"),
    "data.atari_replay": ("core", "data", "atari"),
    "data.atari_shards": ("core", "data", "atari"),
    "data.catalog": ("core", "data", "envs", "atari"),
    "data.sources": ("core", "data", "atari"),
    "data.environment": ("core", "data", "envs"),
    "data.minari": ("core", "data", "envs"),
    "models": ("core", "models"),
    "losses": ("core", "losses"),
    "behaviour": ("core", "behaviour"),
    "atari": ("core",),
    "envs": ("core", "atari"),
    "agents": ("core", "data", "losses", "models", "agents"),
    "evaluation": (
        "core",
        "atari",
        "envs",
        "evaluation",
        "models",
        "agents.base",
        "data.scores",
        "data.windows",
    ),
    "training": ("core", "data", "losses", "models", "envs", "agents", "evaluation", "training"),
    "reporting": ("core", "data.scores", "reporting"),
    "recipes": ("core", "agents", "training"),
    "studies": ("core", "recipes", "training"),
    "sweep": ("core", "training", "sweep"),
    "quickstart": ("core", "data", "recipes", "sweep", "training", "verbs.report"),
    "verbs": ("",),
    "cli": ("core", "verbs"),
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


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path):
    name = module_name(path)
    keys = [key for key in ALLOWED if is_under(name, key)]
    assert keys, f"{name} belongs to no layer"
    allowed = ALLOWED[max(keys, key=len)]
    wrong = {found for found in imports_of(path) if not any(is_under(found, prefix) for prefix in allowed)}
    assert not wrong, f"{name} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{path}: {node.name}"


def calls_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords},
            )


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_dangerous_calls_are_never_made(path):
    name = module_name(path)
    for function, keywords in calls_of(ast.parse(path.read_text())):
        where = f"{path}: {function}"
        assert function not in {"pickle.load", "pickle.loads", "eval", "exec", "os.system", "os.popen"}, where
        if function == "torch.load":
            assert keywords.get("weights_only") == "True", where
        if function.endswith("extractall"):
            assert "filter" in keywords, where
        assert keywords.get("shell") in (None, "False"), where
        if function in {"np.load", "numpy.load"}:
            assert keywords.get("allow_pickle") in (None, "False"), where
        if function in {"gym.make", "gymnasium.make", "gym.make_vec"}:
            assert name == "envs", f"{where}: environments are made in envs.py, behind the allow-list"


def test_there_are_no_drawers():
    assert not {path.stem for path in FILES} & {"utils", "common", "helpers", "misc", "util"}


def test_reporting_and_the_help_text_need_no_torch():
    code = (
        "import sys, chibit.reporting, chibit.cli, chibit.core.run_dir, chibit.data.scores\n"
        "import importlib, pkgutil\n"
        "for module in pkgutil.iter_modules(chibit.reporting.__path__):\n"
        "    importlib.import_module('chibit.reporting.' + module.name)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
