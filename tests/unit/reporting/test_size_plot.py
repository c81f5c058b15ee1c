"""Score against model size: only where kinds of arms come in sizes, each point where it belongs."""

import json

import pytest

from chibit.reporting import build_report
from chibit.reporting.analysis import analyze
from chibit.reporting.figures.sizes import size_plot
from chibit.reporting.read.study import read_study


def resize(study, arm, blocks):
    for run in study.glob(f"{arm}-hopper*"):
        result = json.loads((run / "result.json").read_text())
        result["parameters"]["blocks"] = blocks
        (run / "result.json").write_text(json.dumps(result))


@pytest.fixture
def sized(tmp_path, runs):
    study = tmp_path / "figure3"
    arms = {"random": 0.0, "random_3M": -3.0, "chibit": 4.0, "chibit_3M": 6.0}
    runs.write_study(study, arms, ["hopper-medium-expert-v2"], range(3), num_evaluations=4)
    for arm in ("random_3M", "chibit_3M"):
        resize(study, arm, 3_159_040)
    return study


def plot(study):
    analysis = analyze(read_study(study))
    return size_plot(analysis.scores["last4"], analysis.aggregates["last4"], "sizes"), analysis


def test_each_kind_has_its_sizes_in_rising_order(sized):
    panel, analysis = plot(sized)
    description = panel.svg[: panel.svg.index("viewBox")]
    means = {arm: found.mean.value for arm, found in analysis.aggregates["last4"].items()}
    for kind, label in (("random", "Random init"), ("chibit", "ChibiT")):
        expected = f"{label} {means[kind]:.1f} at 0.6M, {means[kind + '_3M']:.1f} at 3.2M"
        assert expected in description
    for place in range(4):
        assert f'data-arm="{place}"' in panel.svg


def test_without_sizes_there_is_no_plot(tmp_path, runs):
    study = runs.write_study(
        tmp_path / "s", {"random": 0.0, "chibit": 1.0}, ["hopper-medium-v2"], (0, 1), num_evaluations=4
    )
    panel, _ = plot(study)
    assert panel is None
    assert "Model size" not in build_report(study).html.read_text()


def test_the_page_shows_it_once_for_each_rule(sized):
    page = build_report(sized).html.read_text()
    assert page.count("Score against model size") == 3


@pytest.mark.parametrize("blocks", [None, "many", -3, 0])
def test_runs_that_do_not_say_their_size_are_left_out(sized, blocks):
    for arm in ("random_3M", "chibit_3M"):
        resize(sized, arm, blocks)
    assert plot(sized)[0] is None
