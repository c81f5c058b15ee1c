"""Reports of runs of which only evaluations are kept, as a table for each arm and data set."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.reporting.analysis import analyze
from chibit.reporting.read.kept import _COLUMNS
from chibit.reporting.read.study import read_study
from chibit.reporting.report import build_report

RESULTS = Path(__file__).parents[3] / "results"
HEADER = ",".join(_COLUMNS) + "\n"


def keep(study, arm, lines, data="hopper-medium"):
    (study / arm).mkdir(parents=True, exist_ok=True)
    text = HEADER + "".join(",".join(map(str, line)) + "\n" for line in lines)
    (study / arm / f"{data}.csv").write_text(text)


def test_the_committed_results_make_a_report(tmp_path):
    paths = build_report(RESULTS / "initialisers", tmp_path)
    page, markdown = paths.html.read_text(), paths.markdown.read_text()
    assert "Random init, matched" in page and "hopper-medium-replay" in markdown
    assert 'id="returns"' not in page and "Learning curves" in page
    assert not list((RESULTS / "initialisers").glob("*.html"))
    tables = list(RESULTS.glob("*/*/*.csv"))
    assert sum(len(read_study(study).runs) for study in {path.parents[1] for path in tables}) > 100


def test_runs_come_from_lines_by_seed_and_target(tmp_path):
    lines = [(seed, step, step / 10, target, step + seed, 30 * step, 10)
             for step in (5, 10) for seed in (0, 3) for target in (3600, 1800)]  # fmt: skip
    keep(tmp_path, "chibit", lines)
    keep(tmp_path, "bc", [(0, 5, 1.5, "", "", -3.25, 10)])
    study = read_study(tmp_path)
    assert {(run.arm, run.seed) for run in study.runs} == {("chibit", 0), ("chibit", 3), ("bc", 0)}
    (one,) = [run for run in study.runs if run.seed == 3]
    assert [curve.target_return for curve in one.curves] == [3600, 1800]
    assert one.curves[0].steps.tolist() == [5, 10] and one.curves[0].scores.tolist() == [8, 13]
    assert one.curves[0].mean_returns.tolist() == [150, 300] and one.curves[0].final_returns.size == 0
    assert one.result.steps == 10 and one.result.train_seconds == 1.0
    assert study.environments == {"hopper-medium": "hopper"}
    (cloned,) = [run for run in study.runs if run.arm == "bc"]
    assert cloned.curves[0].target_return is None and cloned.curves[0].scores is None


def test_other_numbers_of_steps_are_told_of_kept_tables_too(tmp_path):
    for arm, steps in (("bc", 800), ("iql", 20_000)):
        keep(tmp_path, arm, [(0, steps, 1.0, "", 30.0, 900.0, 10)])
    caption = analyze(read_study(tmp_path)).tables["scores"]["last4"].caption
    assert caption.endswith(" Gradient steps differ: BC 800, IQL 20,000.")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0,5,1.0,3600,1.0,30.0", "6 values, expected 7"),
        ("0,5,1.0,3600,1.0,NaN,10", "mean_return"),
        ("0,5,1.0,3600,1.0,[30],10", "mean_return"),
        ("-1,5,1.0,3600,1.0,30.0,10", "seed: got -1"),
        ("0,5,1.0,3600,x,30.0,10", "damaged"),
        ("0,4,1.0,3600,1.0,30.0,10\n0,4,1.0,3600,1.0,30.0,10", "step 4 follows step 4"),
    ],
)
def test_a_damaged_table_is_listed_with_its_reason(tmp_path, line, reason):
    keep(tmp_path, "random", [(0, 5, 1.0, 3600, 1.0, 30.0, 10)])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "hopper-medium.csv").write_text(f"{HEADER}{line}\n")
    study = read_study(tmp_path)
    assert [run.arm for run in study.runs] == ["random"]
    (excluded,) = study.excluded
    assert excluded.name == "other/hopper-medium.csv" and excluded.kind == "damaged"
    assert reason in f"{excluded.kind} {excluded.reason}"


def test_a_damaged_table_counts_as_a_whole_or_not_at_all(tmp_path):
    lines = [(seed, step, 1.0, 3600, 1.0, 30.0, 10) for seed in range(5) for step in (5, 10)]
    keep(tmp_path, "random", lines)
    keep(tmp_path, "chibit", [*lines[:6], (3, 5, 1.0, 3600, 1.0, 30.0, 10), *lines[6:]])
    study = read_study(tmp_path)
    assert study.arms == ("random",)
    assert [one.name for one in study.excluded] == ["chibit/hopper-medium.csv"]


@pytest.mark.parametrize(
    ("arm", "data"),
    [
        (b"arm\xff", b"hopper-medium"),
        (b"arm", b"d\xff"),
        (b"ar\nm", b"hopper-medium"),
        (b"arm", "\u202ed".encode()),
        (b"a" * 201, b"hopper-medium"),
    ],
)
@pytest.mark.parametrize("line", ["0,5,1.0,3600,1.0,30.0,10", "x,y"])
def test_names_that_cannot_be_printed_make_no_traceback(tmp_path, arm, data, line):
    keep(tmp_path, "random", [(0, 5, 1.0, 3600, 1.0, 30.0, 10)])
    keep(tmp_path, os.fsdecode(arm), [line.split(",")], os.fsdecode(data))
    build_report(tmp_path)
    study = read_study(tmp_path)
    names = [*study.arms, *study.datasets, *(f"{one.name} {one.reason}" for one in study.excluded)]
    "".join(names).encode()  # which lone surrogates have no form in
    is_shown = line != "x,y" and b"\xff" in arm + data
    assert len(study.runs) == 1 + is_shown and len(study.excluded) == 1 - is_shown


def test_other_tables_are_nobodys_runs(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.csv").write_text("step,score\n1,2\n")
    (tmp_path / "a" / "y.csv").symlink_to("/dev/zero")
    (tmp_path / "a" / "z.csv").write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match="no run directories"):
        read_study(tmp_path)


def test_runs_and_kept_tables_stand_beside_each_other(tmp_path):
    run = next((RESULTS / "fair").glob("random-*"))
    shutil.copytree(run, tmp_path / run.name)
    keep(tmp_path, "markov", [(0, 5, 1.0, 3600, 1.0, 30.0, 10)])
    study = read_study(tmp_path)
    assert set(study.arms) == {"random", "markov"} and not study.excluded
    assert np.size(study.runs[0].curves[0].steps)
