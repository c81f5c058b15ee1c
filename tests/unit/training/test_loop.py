"""What both trainings share beside their steps: the state of earlier versions, and what a person sees."""

import io
import time
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

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


def test_what_a_loss_was_computed_from_is_not_kept():
    weight, progress = torch.ones((), requires_grad=True), RunProgress(50, "run", enabled=True)
    update = lambda: {"train/loss": 2 * weight}  # noqa: E731
    run = SimpleNamespace(state=LoopState(), update=update, progress=progress, _unread=[])
    for _ in range(3):
        loop.Loop._step(run)
    assert not any(metrics["train/loss"].requires_grad for metrics in run._unread)
    assert progress._loss == 2 and not progress._loss.requires_grad


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
    said = capsys.readouterr()
    assert line in said.err and not said.out
    RunProgress(5, "run", enabled=False).say(line)
    assert capsys.readouterr().err == ""


def test_a_log_has_a_line_a_minute_with_the_time_left_and_no_bar(clock, capsys):
    progress = RunProgress(1_000, "run", enabled=True)
    with progress.bar:
        progress.start(100)
        for _ in range(100):
            clock[0] += 1.0
            progress.advance(0.5)
    said = capsys.readouterr().err
    assert "\r" not in said and "\x1b" not in said
    assert said.splitlines() == [
        "run: 900 of 1,000 steps to do",
        "run: about 15 min for 900 steps, evaluations not counted",
        "  161 of 1,000 steps, loss 0.5000, about 14 min left",
    ]


@pytest.mark.parametrize("note", ["", "evaluating"])
def test_a_bar_fits_80_columns_whatever_the_run_is_called(clock, note):
    progress = RunProgress(10_000_000, "n" * 200, enabled=True, unit="tokens", units_a_step=65_536)
    progress.start(123_456)
    clock[0] += 100
    progress.advance(10.5)
    progress._show(note=note)
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(progress.bar.get_renderable())
    lines = console.file.getvalue().rstrip("\n").split("\n")
    assert len(lines) == 1 and len(lines[0]) <= 80 and "…" not in lines[0], lines
