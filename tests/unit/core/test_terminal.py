"""Tables in consoles that are too narrow for them."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from chibit.commands.evaluate import _evaluation_table
from chibit.commands.train import result_table
from chibit.core.terminal import print_table
from chibit.evaluation.summary import summarize
from chibit.judging.judgement import ActionError


def printed(table, width):
    console = Console(width=width, file=io.StringIO())
    print_table(console, table)
    return console.file.getvalue()


ROW = {"target_return": -2_102_910.0, "num_evaluations": 4, "last": -2_118_564.0, "last4": -2_144_876.0}
ROW |= {"best": -2_113_001.0, "best_step": 600, "mean_return_last": -2_118_564.0, "num_episodes_last": 5}
FAILED = {"target_return": None, "last": None}
RESULT = {"score_unit": "return", "steps": 600, "scores": [ROW, FAILED]}
RESULT |= {"behaviour_mean_return": -2_245_667.0, "behaviour_score": None}


@pytest.mark.parametrize("width", [160, 80, 40])
def test_no_number_is_cut_by_a_narrow_console(width):
    text = printed(result_table(RESULT), width)
    for number in ("-2,102,910", "-2,118,564", "-2,144,876", "-2,113,001", "-2,245,667"):
        assert number in text
    assert "…" not in text and "failed" in text
    assert ("┃" in text) == (width == 160), "with headings where there is room"


def test_returns_of_seven_digits_are_evaluated_on_80_columns():
    summary = summarize((-2_118_564.0, -3_675_435.0), episode_lengths=(7, 7), target_return=-2_102_910.0)
    spec = SimpleNamespace(env_id="my/Kiln-v0", score_reference=None)
    text = printed(_evaluation_table([SimpleNamespace(summary=summary)], spec, 600), 60)
    assert "-3,675,435" in text and "-2,102,910" in text and "…" not in text


def test_a_judged_action_error_is_in_units_of_the_logs_spread():
    error = ActionError(mean=801_179.0, by_dimension=(0.3, 0.4))
    assert error.relative == pytest.approx(0.125**0.5)
    assert ActionError(mean=0.2, by_dimension=()).relative == 0.2
