"""Success on splits, and synonym minus nonsense with what the words know beside it."""

import json

import pytest

from chibit.core.errors import DamagedFileError
from chibit.core.run_records import ResultRecord, read_record
from chibit.reporting.analysis import analyze
from chibit.reporting.page import render_page
from chibit.reporting.read.study import read_study

DATA = "hopper-medium-v2"  # the name decides nothing here


def words(nearest, known):
    return {"nearest": nearest, "random": 0.14, "known": known}


@pytest.fixture
def study(tmp_path, runs):
    """Two seeds of two arms: synonyms bring 50 and 25 points in one, nothing in the other."""
    for arm, gains in {"text_smollm2": (2, 1), "text_chibit": (0, 0)}.items():
        for seed, gain in enumerate(gains):
            run = runs.write_run(tmp_path, arm, DATA, seed, num_evaluations=2, return_conditioned=False)
            result = json.loads((run / "result.json").read_text())
            solved = {"seen": 4, "color_nonsense": 1, "color_synonym": 1 + gain, "blank": 1}
            result["splits"] = [
                {"split": split, "successes": [i < number for i in range(4)]}
                for split, number in solved.items()
            ]
            runs.write_json(run / "result.json", result)
            record = json.loads((run / "provenance.json").read_text())
            known = arm == "text_smollm2"
            record["initialiser"] = {"words": {"color": words(0.43 if known else 0.16, known)}}
            runs.write_json(run / "provenance.json", record)
    return tmp_path


def rows(table):
    return {row.cells[0].text: [(cell.text, cell.note) for cell in row.cells[1:]] for row in table.rows}


def test_each_split_has_a_row_and_each_arm_its_mean(study):
    analysis = analyze(read_study(study))
    success, signals = analysis.tables["splits"]
    place = {arm: i for i, arm in enumerate(analysis.study.arms)}
    found = rows(success)
    assert list(found) == ["seen", "color nonsense", "color synonym", "blank"]
    assert found["color synonym"][place["text_smollm2"]][0] == "62 ± 18"  # 75 and 50 %
    assert found["seen"][place["text_chibit"]][0] == "100 ± 0"
    assert [column.label for column in signals.columns] == ["Arm", "Color"]
    told = rows(signals)
    ((shown, note),) = told["SmolLM2's features, reads"]
    assert shown.startswith("+38 (") and note == "known (0.43, random 0.14)"
    ((shown, note),) = told["ChibiT, reads"]
    assert shown == "0", "two seeds that are alike have no interval"
    assert note == "not known: no evidence (0.16, random 0.14)"


def test_the_page_and_the_tables_show_them(study):
    analysis = analyze(read_study(study))
    page = render_page(analysis, {}, is_beside_runs=False)
    assert "Splits and other words" in page and "not known: no evidence" in page
    assert {"splits-0", "signals-0"} <= {table.key for table in analysis.flat_tables()}


def test_other_studies_have_none(tmp_path, runs):
    runs.write_study(tmp_path, {"dt": 0.0}, [DATA], [0, 1], num_evaluations=2)
    analysis = analyze(read_study(tmp_path))
    assert analysis.tables["splits"] == []
    assert "Splits and other words" not in render_page(analysis, {}, is_beside_runs=False)


@pytest.mark.parametrize(
    "splits", [[{"split": "seen", "successes": []}], [{"split": "", "successes": [True]}], 3]
)
def test_a_damaged_record_is_refused(study, splits):
    result = json.loads(next(study.glob("*/result.json")).read_text())
    with pytest.raises(DamagedFileError, match="splits"):
        read_record(ResultRecord, {**result, "splits": splits}, "result.json")
