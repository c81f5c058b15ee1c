"""The runs of every study are what they were: arms, data, seeds, and a hash of what decides their numbers."""

import json

import pytest

from golden.make_studies import FILE, record

RECORDED = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def found():
    return record()


@pytest.mark.parametrize("name", RECORDED)
def test_runs_are_those_that_they_were(found, name):
    assert found[name] == RECORDED[name]
