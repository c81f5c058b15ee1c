"""Fixed runs of every agent, evaluations and a report, against what was recorded."""

from __future__ import annotations

import json

import pytest

from golden.environment import fingerprint
from golden.make_runs import FILE, bits, numbers, report

RECORDED = json.loads(FILE.read_text())


def test_losses_and_evaluations_are_those_recorded() -> None:
    """To the bit where they were recorded; elsewhere other kernels moved them by up to 4e-7."""
    found = numbers()
    assert found.keys() == RECORDED["numbers"].keys()
    changed = [
        name for name, values in found.items() if values != pytest.approx(RECORDED["numbers"][name], rel=1e-5)
    ]
    assert not changed
    if fingerprint() == RECORDED["environment"]:
        assert [name for name, digest in bits(found).items() if digest != RECORDED["bits"][name]] == []


def test_the_report_is_the_one_recorded() -> None:
    assert report() == RECORDED["report"]
