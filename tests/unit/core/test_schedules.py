import math

import pytest

from chibit.core.schedules import cosine_decay, linear_decay, linear_to_zero, sigmoid_decay, warmup


def test_warmup_reaches_one_at_its_last_step():
    assert warmup(0, 5000) == 1 / 5000
    assert warmup(2499, 5000) == 0.5
    assert warmup(4999, 5000) == 1.0
    assert warmup(90_000, 5000) == 1.0
    assert warmup(0, 0) == 1.0


def test_paper_decay_is_zero_from_5000_on():
    assert [linear_to_zero(step, 5000) for step in (0, 2500, 5000, 9000)] == [1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("step", "value"), [(0, 0.993307), (1250, 0.924142), (2500, 0.5), (3750, 0.075858), (5000, 0.006693)]
)
def test_released_decay_has_the_published_values(step, value):
    assert sigmoid_decay(step, 5000) == pytest.approx(value, abs=1e-6)
    assert sigmoid_decay(10**9, 5000) == 0.0


def test_linear_and_cosine_decay_start_at_one_and_end_at_zero():
    for decay in (linear_decay, cosine_decay):
        assert decay(9, 100, 10) == 1.0
        assert decay(10, 100, 10) == pytest.approx(1.0)
        assert decay(100, 100, 10) == pytest.approx(0.0)
    assert linear_decay(55, 100, 10) == 0.5
    assert cosine_decay(55, 100, 10) == pytest.approx(0.5)
    assert cosine_decay(32, 100, 10, floor=0.1) == pytest.approx(
        0.1 + 0.9 * (1 + math.cos(math.pi * 22 / 90)) / 2
    )
