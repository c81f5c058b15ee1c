"""Episodes that fail, and target returns that nobody asked for."""

import importlib.util
import json
from pathlib import Path

import pytest

from chibit.cli import main
from chibit.reporting.read.run import Run, read_run
from chibit.reporting.read.study import read_study
from chibit.training.result import target_scores

_SPEC = importlib.util.spec_from_file_location(
    "synthetic_runs", Path(__file__).parents[1] / "unit" / "reporting" / "synthetic_runs.py"
)
synthetic_runs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(synthetic_runs)
HOPPER = "hopper-medium-v2"


def fail(run, lines):
    """Let every episode of some evaluations fail, and write result.json as a run does that saw it."""
    path = run / "evaluations.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for number in lines:
        records[number] |= {"failed_episodes": list(range(10)), "normalized_score": None}
    synthetic_runs.write_lines(path, records)
    result = json.loads((run / "result.json").read_text())
    result["scores"] = [target_scores(3600.0, records)]
    synthetic_runs.write_json(run / "result.json", result)
    return records


@pytest.fixture
def run(tmp_path):
    return synthetic_runs.write_run(tmp_path / "s", "dt", HOPPER, 0, targets=(3600.0,), num_evaluations=4)


def test_an_evaluation_whose_episodes_all_failed_is_in_no_score(run):
    records = fail(run, [3])
    kept = [record["normalized_score"] for record in records[:3]]
    found = read_run(run)
    assert isinstance(found, Run)
    assert found.curves[0].rules.last == kept[-1]
    assert found.curves[0].rules.last4 == pytest.approx(sum(kept) / 3)
    assert main(["report", str(run.parent), "--formats", "md"]) == 0
    text = (run.parent / "report.md").read_text()
    assert "mean of the last 3 evaluations" in text
    assert "In 10 episodes the environment failed" in text


def test_a_target_without_an_episode_that_counts_has_no_score(run):
    fail(run, range(4))
    (excluded,) = read_study(run.parent).excluded
    assert excluded.kind == "not evaluated"


def test_targets_that_nobody_asked_for_are_refused(run, tmp_path, capsys):
    study = ["study", "table3", "--dry-run", "--root", str(tmp_path / "r")]
    for flags in (["report", str(run.parent), "--target"], [*study, "--target-returns"]):
        assert main([*flags, "ant=3"]) == 2
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1
        assert "'ant'" in error and "hopper" in error
    assert main(["report", str(run.parent), "--target", "1800"]) == 2
    assert "3,600" in capsys.readouterr().err
    assert not (run.parent / "report.md").exists()
