"""What both trainings share beside their steps: the state of earlier versions, and what a person sees."""

import time

import pytest
import torch

from chibit.training import loop
from chibit.training.loop import LoopState, RunProgress, _read_state


def test_one_count_of_an_earlier_version_is_that_of_every_sum():
    saved = vars(LoopState(step=7, sums={"a": 2.0, "b": 3.0}, counts={}))
    old = {name: value for name, value in saved.items() if name != "counts"} | {"count": 4}
    assert _read_state(old) == LoopState(**{**saved, "counts": {"a": 4, "b": 4}})
    assert _read_state(saved) == LoopState(**saved)
    assert "count" in old


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def shown(progress):
    task = progress.bar.tasks[0]
    return task.completed, task.fields["rate"], task.fields["loss"], task.fields["note"]


def test_a_bar_counts_steps_and_shows_their_rate_and_smoothed_loss(clock):
    progress = RunProgress(50, "run", enabled=True, units_a_step=8)
    progress.start(10)
    assert shown(progress) == (10, 0.0, 0.0, "")
    for loss in (2.0, torch.tensor(4.0), None):
        progress.advance(loss)
    assert shown(progress)[0] == 10  # it is drawn a few times a second, not each step
    clock[0] += loop._REDRAW_SECONDS + 0.5
    progress.advance(None)
    completed, rate, loss, note = shown(progress)
    assert (completed, note) == (14, "")
    assert rate == pytest.approx(8 * 4 / (loop._REDRAW_SECONDS + 0.5))
    assert loss == pytest.approx(loop._SMOOTHING * 2.0 + (1 - loop._SMOOTHING) * 4.0)
    clock[0] += 2.0
    progress.advance(None)
    assert shown(progress)[:2] == (15, pytest.approx(8 / 2.0))  # counted anew since it was drawn


def test_it_says_that_a_run_evaluates_while_it_does(clock):
    progress = RunProgress(50, "run", enabled=True)
    progress.start(0)
    progress.advance(1.0)
    with progress.evaluating():
        assert shown(progress)[0] == 1 and shown(progress)[3] == "evaluating"
    assert shown(progress)[3] == ""


def test_lines_stand_above_a_bar_whole_and_nowhere_without_one(capsys):
    line = "a line that is longer than eighty columns and is not broken there " * 2
    RunProgress(5, "run", enabled=True).say(line)
    assert line in capsys.readouterr().out
    RunProgress(5, "run", enabled=False).say(line)
    assert capsys.readouterr().out == ""
