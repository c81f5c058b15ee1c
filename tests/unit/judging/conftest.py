"""One log of the line, and one judge of it, for all tests."""

import pytest

from chibit.judging.judge import Judge
from judging_toys import SETTINGS, make_log


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("judging")


@pytest.fixture(scope="session")
def line_log(cache):
    return make_log(cache)


@pytest.fixture(scope="session")
def line_judge(line_log, cache):
    return Judge(line_log, config=SETTINGS, cache=cache)
