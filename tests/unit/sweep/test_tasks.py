import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from chibit.core.errors import InputError
from chibit.sweep.tasks import outcome_of


class Circle:
    def __init__(self):
        self.me = self


@pytest.mark.parametrize(("error", "status"), [(None, "finished"), (InputError("no"), "failed")])
def test_what_a_run_held_in_circles_is_gone_after_it(error, status):
    held = []

    def do():
        held.append(weakref.ref(Circle()))
        if error is not None:
            raise error

    gc.disable()
    try:
        assert outcome_of(SimpleNamespace(path=Path("run")), do).status == status
        assert held[0]() is None
    finally:
        gc.enable()
