"""Short fixed runs of the sequence agent, against the losses that were recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden.make_sequence_losses import FILE, RUNS, losses

RECORDED = json.loads(Path(FILE).read_text())


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_recorded(name: str) -> None:
    """To rounding, which differs between processors; `make_sequence_losses.py --check` compares bits."""
    assert losses(RUNS[name]) == pytest.approx(RECORDED[name], rel=1e-3)
