"""Change the code in small ways, one at a time, and see whether the quick tests notice (mutmut 3).

    make mutants                                   every group, about an hour of one core
    python scripts/mutants.py losses --jobs 2      some of them
    python scripts/mutants.py --table              only print what was found so far

It works on copies in build/mutants, where mutmut remembers what it has tried. It prints a table of modules
and every survivor as one line. Survivors that docs/testing.md lists are marked `alive`, or `=` where no test
can tell them from the program (equivalent ones, which do not count), others `new`. Exit code 1 where a module
is below the share that must die.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from difflib import ndiff
from pathlib import Path

import libcst
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import read_functions_from_index
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutants"
PAGE = ROOT / "docs" / "testing.md"
LEAST = 85.0
"""Per cent of the mutants of a module that must die, equivalent ones aside."""
DEAD = (1, 3)
"""Exit codes of pytest for a mutant that a test noticed."""
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "losses": (("losses/*",), ("tests/unit/losses",)),
    "data": (
        ("data/samplers/windows.py", "data/samplers/transitions.py"),
        ("tests/unit/data/test_windows.py", "tests/unit/data/test_transitions.py"),
    ),
    "baselines": (
        (
            "agents/off_policy.py",
            "agents/continuous.py",
            "agents/td3.py",
            "agents/td3_bc.py",
            "agents/iql.py",
            "agents/rewards.py",
        ),
        (
            "tests/unit/agents/test_baselines.py",
            "tests/unit/agents/test_baseline_losses.py",
            "tests/unit/agents/test_baseline_parts.py",
            "tests/unit/agents/test_data_scales.py",
            "tests/unit/training/test_held_out.py",
        ),
    ),
    "sequence": (
        ("agents/dt/agent.py",),
        ("tests/unit/agents/test_decision_transformer.py", "tests/unit/training/test_held_out.py"),
    ),
    "evaluation": (
        ("evaluation/rollout.py", "evaluation/stage.py", "evaluation/summary.py"),
        ("tests/unit/evaluation/test_rollout.py", "tests/unit/reporting/test_evaluation_summary.py"),
    ),
    "training": (
        ("training/loop.py", "training/offline.py", "training/result.py"),
        (
            "tests/unit/training/test_held_out.py",
            "tests/unit/training/test_loop.py",
            "tests/unit/training/test_offline_effects.py",
            "tests/unit/training/test_offline_parts.py",
            "tests/unit/training/test_result.py",
        ),
    ),
    "studies": (("studies.py",), ("tests/unit/test_studies.py", "tests/unit/reporting/test_targets.py")),
}
"""Modules that are changed, and the tests that must notice."""
CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {modules}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = [
  "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", "--hypothesis-profile=mutants",
  "-k", "not signal",
]
process_isolation = "forkserver"
timeout_multiplier = 5.0
timeout_constant = 6.0
also_copy = ["docs", "README.md"]
use_git_change_detection = false
"""
"""Torch's autograd does not survive a fork, so mutants are forked from a process that has only imported."""

COMMAND = "import h5py, mujoco, torch._dynamo; from mutmut.__main__ import cli; cli()"
"""Imports once what every process would with its first optimizer and data set, which takes a second."""


def run(group: str, jobs: int) -> None:
    """Try the mutants of a group that were not tried yet, and again those that lived."""
    modules, tests = GROUPS[group]
    folder = WORK / group
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("src", "tests", "docs"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", folder)
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)  # which tests reach which function
    config = CONFIG.format(modules=[f"src/chibit/{name}" for name in modules], tests=list(tests))
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + config)
    for meta in (folder / "mutants" / "src").rglob("*.py.meta"):
        record = json.loads(meta.read_text())
        codes = record["exit_code_by_key"]
        record["exit_code_by_key"] = {name: code if code in DEAD else None for name, code in codes.items()}
        meta.write_text(json.dumps(record))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-c", COMMAND, "run", "--max-children", str(jobs)]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def change(name: str, path: Path) -> str:
    """A mutant as one line: its function, the code, and what that was changed to."""
    functions = read_functions_from_index(name, path)
    assert functions is not None, name
    original, mutated = (
        [line.strip() for line in libcst.Module(body=[function]).code.splitlines() if line.strip()]
        for function in functions
    )
    lines = list(ndiff(original, mutated))
    old, new = (" ".join(line[2:] for line in lines if line.startswith(mark)) for mark in "-+")
    function, owner = orig_function_and_class_names_from_key(name)
    where = f"{owner}.{function}" if owner else function
    return f"{where}: {old} -> {new}".replace("|", "¦").replace("`", "'")


def listed() -> dict[str, str]:
    """Survivors that the page lists, by their line: "=" or "alive"."""
    rows = re.findall(r"^\| (=|alive) \| `(.+?)` \|", PAGE.read_text(), re.MULTILINE)
    return {line: kind for kind, line in rows}


def table(group: str) -> list[str]:
    """Print a group's rows; gives the modules in which too few died."""
    known, low, survivors = listed(), [], []
    os.chdir(WORK / group)
    for path in sorted(Path("mutants/src").rglob("*.py.meta")):
        source = path.relative_to("mutants").with_suffix("")
        found = SourceFileMutationData(path=source)
        found.load()
        counts: Counter[str] = Counter()
        for name, code in found.exit_code_by_key.items():
            status = status_by_exit_code[code]
            if status in ("survived", "no tests"):
                line = change(name, source)
                kind = known.get(line, "new")
                survivors.append(f"{kind:5} {source.relative_to('src/chibit')}: {line}")
                status = "equivalent" if kind == "=" else "survived"
            counts[status] += 1
        tried = sum(counts.values()) - counts["not checked"]
        if not tried:
            continue
        died = tried - counts["survived"] - counts["equivalent"]
        share = 100 * died / max(1, tried - counts["equivalent"])
        low += [source.name] if share < LEAST else []
        columns = [sum(counts.values()), tried, died]
        columns += [counts[status] for status in ("timeout", "survived", "equivalent")]
        print(f"| `{source.relative_to('src/chibit')}` | {' | '.join(map(str, columns))} | {share:.1f} % |")
    print(*survivors, sep="\n", file=sys.stderr)
    return low


def main() -> None:
    parser = argparse.ArgumentParser(description="see the head of this file")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at once")
    parser.add_argument("--table", action="store_true", help="try nothing")
    arguments = parser.parse_args()
    groups = arguments.groups or [group for group in GROUPS if not arguments.table or (WORK / group).is_dir()]
    if not arguments.table:
        for group in groups:
            run(group, arguments.jobs)
    print("| module | mutants | tried | died | of these by time | survived | equivalent | share that died |")
    print("|---|---|---|---|---|---|---|---|")
    low = [module for group in groups for module in table(group)]
    sys.exit(f"below {LEAST:.0f} %: {', '.join(low)}" if low else 0)


if __name__ == "__main__":
    main()
