"""Bars and lines of progress: the time in all after a few seconds, in a log a line a minute, 80 columns."""

import io
import time

import pytest
from rich.console import Console

from chibit.core import progress
from chibit.core.progress import byte_bar, step_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_log_is_told_the_time_in_all_soon_and_what_is_left_each_minute(clock, capsys):
    with step_bar("collecting it", True, 1_000) as advance:
        for _ in range(200):
            clock[0] += 0.5
            advance()
        clock[0] += 50
        advance(700)
    said = capsys.readouterr().err
    assert "\r" not in said and "\x1b" not in said
    assert said.splitlines() == [
        "collecting it: about 8 min for 1,000 steps",
        "  121 of 1,000 steps, about 7 min left",
        "  900 of 1,000 steps, about 17 s left",
    ]


def test_nothing_is_said_of_what_takes_less_than_a_minute_or_is_not_to_be_shown(clock, capsys):
    for shown, seconds in ((True, 0.05), (False, 5.0)):
        with step_bar("work", shown, 1_000) as advance:
            for _ in range(1_000):
                clock[0] += seconds
                advance()
    assert capsys.readouterr().err == ""


def test_bytes_that_were_there_before_are_not_counted_as_quick(clock, capsys):
    with byte_bar("downloading it", True) as show:
        for megabytes in (500, 501, 505, 506):
            show(completed=megabytes * 1_000_000, total=600_000_000)
            clock[0] += 2.0
    assert capsys.readouterr().err.splitlines() == ["downloading it: about 2 min for 100 MB"]


@pytest.mark.parametrize("bar", [step_bar, byte_bar])
def test_a_bar_is_one_line_of_80_columns_whatever_it_is_called(monkeypatch, bar):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "make_console", lambda **_: console)
    with bar("judging " + "n" * 200, True, 100_000_000) as update:
        update(**({} if bar is step_bar else {"advance": 12_345_678}))
    lines = [line for line in shown.getvalue().replace("\r", "\n").split("\n") if "judging" in line]
    drawn = [line.split("\x1b[2K")[-1] for line in lines]
    assert drawn and all(len(line) <= 80 and line.rstrip().endswith("left") for line in drawn), drawn
