import dataclasses

import pytest

from chibit.core.errors import InputError
from chibit.judging.judgement import Estimate
from chibit.judging.verdict import compare, compare_with_clone, rank, verdict
from judging_toys import Acts, home


@pytest.fixture(scope="module")
def judged(line_judge):
    """Makes a judgement whose members say what is wanted; the clone's say 10, 10, 11 and 11."""
    real = line_judge(Acts(home))
    assert not real.reasons
    clone = dataclasses.replace(real.log.clone, total=Estimate(members=(10.0, 10.0, 11.0, 11.0)))
    log = dataclasses.replace(real.log, clone=clone)

    def make(name, *members, clipped=0.0):
        played = dataclasses.replace(real.in_model, total=Estimate(members=members), clipped=clipped)
        return dataclasses.replace(real, name=name, in_model=played, log=log)

    return make


def test_members_decide_whether_two_can_be_told_apart(judged):
    base = judged("base", 9.0, 10.0, 11.0, 12.0)
    above = judged("above", 11.0, 12.0, 13.0, 14.0)
    mixed = judged("mixed", 15.0, 10.0, 15.0, 10.0)
    clear = compare(base, above)
    # All members agree on 2.0, and 10 % of 12.5 are 1.25.
    assert (clear.better, clear.difference, clear.half_width) == ("above", 2.0, pytest.approx(1.25))
    assert clear.is_clear and str(clear) == "above is better than base by 2.00 ± 1.25"
    unclear = compare(base, mixed)
    assert not unclear.is_clear
    assert str(unclear).startswith("cannot tell mixed and base apart (2.00 ± ")
    assert not compare(base, base).is_clear


def test_a_policy_without_a_number_is_compared_with_nothing(judged):
    outside = judged("outside", 15.0, 15.0, 15.0, 15.0, clipped=0.9)
    assert outside.reasons
    assert compare(outside, judged("base", 9.0, 9.0, 9.0, 9.0)) is None
    assert compare_with_clone(outside) is None


def test_what_was_judged_on_another_log_or_in_other_models_is_not_compared(judged):
    first, second = judged("first", 9.0, 9.0, 9.0, 9.0), judged("second", 8.0, 8.0, 8.0, 8.0)
    elsewhere = dataclasses.replace(second, log=dataclasses.replace(second.log, data="other"))
    for other in (elsewhere, judged("second", 8.0, 8.0, 8.0)):
        with pytest.raises(InputError, match="judged on different logs or by different models"):
            compare(first, other)
        with pytest.raises(InputError, match="first and second"):
            verdict([first, other])


def test_order(judged):
    names = [
        judgement.name
        for judgement in rank(
            [
                judged("outside", 99.0, clipped=0.9),
                judged("low", 8.0, 8.0, 8.0, 8.0),
                judged("high", 9.0, 9.0, 9.0, 9.0),
            ]
        )
    ]
    assert names == ["high", "low", "outside"]


def test_verdicts(judged):
    same = judged("a", 10.0, 10.0, 11.0, 11.0)
    better = judged("b", 15.0, 15.0, 16.0, 16.0)
    worse = judged("c", 6.0, 6.0, 7.0, 7.0)
    near = judged("d", 14.9, 15.0, 15.9, 16.0)
    outside = judged("e", 15.0, 15.0, 15.0, 15.0, clipped=0.9)
    assert verdict([same]) == "a cannot be told apart from the clone of the log."
    assert verdict([better]) == "b is judged better than the clone of the log."
    assert verdict([worse]) == "the clone of the log is judged better than c."
    assert verdict([worse, better]) == (
        "b comes first and is ahead of all others; it is judged better than the clone of the log."
    )
    assert verdict([worse, better, near, outside]) == (
        "b comes first and cannot be told apart from d; it is judged better than the clone of the log; "
        "1 of 4 judgements came to no number."
    )
    assert verdict([outside]).startswith("No number can be given: the policy leaves what the log covers")
