"""Numbers as people read them: significant digits, shared decimals, no padding of what was chosen."""

import pytest

from chibit.core.formatting import count, format_mean, format_number, format_setting, listed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.027, "0.0270"),
        (-0.1034, "-0.103"),
        (27.34, "27.3"),
        (453.24, "453"),
        (3234.3, "3,234"),
        (-20.272305, "-20.3"),
        (0.0, "0"),
        (-0.0, "0"),
        (12_000_000.4, "12,000,000"),
        (2.5e-7, "2.50e-07"),
        (1e299, "1.00e+299"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_measured_numbers_have_three_significant_digits(value, expected):
    assert format_number(value) == expected


def test_numbers_side_by_side_share_their_decimals():
    assert format_number(0.4, like=[3000.0]) == "0"
    assert format_number(0.0031, like=[0.027]) == "0.0031"
    assert format_mean(0.027, 0.0031) == "0.0270 ± 0.0031"
    assert format_mean(3000.2, None) == "3,000"


def test_a_scale_of_known_unit_keeps_its_decimals():
    assert format_number(61.24, decimals=1) == "61.2"
    assert format_number(-0.02, decimals=1, signed=True) == "0.0"
    assert format_number(3.26, decimals=1, signed=True) == "+3.3"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3600.0, "3,600"),
        (0.5, "0.5"),
        (1.0, "1"),
        (-9.5, "-9.5"),
        (0.027, "0.027"),
        (-2_102_910.4, "-2,102,910"),
        (999_999.7, "1,000,000"),
        (3e14, "300,000,000,000,000"),
        (1e300, "1e+300"),
    ],
)
def test_what_was_chosen_is_shown_as_it_was_given(value, expected):
    assert format_setting(value) == expected


def test_counts():
    assert (count(1, "episode"), count(1200, "step")) == ("1 episode", "1,200 steps")


def test_long_lists_show_that_they_go_on():
    assert listed(range(3), 3) == "0, 1, 2"
    assert listed(iter("abcd"), 3, "; ") == "a; b; c; ..."
    assert listed([]) == ""
