import datetime
from decimal import Decimal

import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.core.numbers import as_numbers


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        (["up", "down"], "choices as whole numbers from 0, and other text as columns of 1 and 0"),
        ([b"up"], "choices as whole numbers from 0"),
        ([1.0, None], "a number in each place, by astype"),
        ([Decimal("1.5")], "a number in each place, by astype"),
        (np.array(["2024-03-01"], "datetime64[D]"), "seconds, hours or days as such"),
        ([datetime.timedelta(hours=1)], "a number in each place"),
    ],
)
def test_a_refusal_says_how_numbers_are_given(values, remedy):
    with pytest.raises(InputError, match=f"^rewards have type .*, expected numbers; give {remedy}"):
        as_numbers("rewards", values)
