"""What docs/method.md and docs/deviations.md name exists: functions, tests, flags."""

from __future__ import annotations

import ast
import dataclasses
import re
from functools import cache
from pathlib import Path

from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.training.run_config import RunConfig

ROOT = Path(__file__).parents[2]
METHOD = (ROOT / "docs" / "method.md").read_text()
DEVIATIONS = (ROOT / "docs" / "deviations.md").read_text()
NAMED = [
    (path, name)
    for path, names in re.findall(r"`([\w/]+\.py)`:((?: `\w+`,?)+)", METHOD)
    for name in re.findall(r"`(\w+)`", names)
]
TESTS = sorted(
    set(re.findall(r"`((?:unit|golden|learning)/[\w/]+\.py)`", METHOD))
    | {f"unit/{path}" for path in re.findall(r"`(\w+/test_\w+\.py)`", DEVIATIONS)}
)
FLAGS = sorted(set(re.findall(r"`--([\w-]+)`", DEVIATIONS)) - {"recipe"})


@cache
def definitions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def test_enough_is_found_to_check() -> None:
    assert len(NAMED) > 40
    assert len(TESTS) > 15
    assert len(FLAGS) > 15


def test_named_functions_and_tests_exist() -> None:
    assert not [
        f"{path}:{name}"
        for path, name in NAMED
        if name
        not in definitions(ROOT / ("tests" if Path(path).name.startswith("test_") else "src/chibit") / path)
    ]


def test_named_test_files_exist() -> None:
    assert not [path for path in TESTS if not (ROOT / "tests" / path).is_file()]


def test_named_flags_are_settings() -> None:
    fields = {f.name for cls in (DecisionTransformerConfig, RunConfig) for f in dataclasses.fields(cls)}
    assert not [flag for flag in FLAGS if flag.replace("-", "_") not in fields]
