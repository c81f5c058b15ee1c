"""`docs/faults.md` lists all faults, and each names a test that is there."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "faults.md"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| `(\w+\.py)::(\w+)` \|$", re.MULTILINE)


def test_each_fault_names_a_test_that_is_there():
    rows = ROW.findall(PAGE.read_text())
    assert len(rows) >= 52
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    faults = [(fault, name) for _, fault, _, _, _, name in rows]
    assert len(set(faults)) == len(faults), "a fault is listed twice"
    for number, _, _, _, file, name in rows:
        tree = ast.parse((HERE / file).read_text())
        found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in found, f"fault {number}: no {name} in {file}"


def test_every_test_of_a_fault_is_in_the_list_or_beside_one_that_is():
    listed = {file for *_, file, _ in ROW.findall(PAGE.read_text())}
    others = {"test_index.py", "test_campaigns.py", "test_syntax_tree.py"}
    assert {path.name for path in HERE.glob("test_*.py")} == listed | others
