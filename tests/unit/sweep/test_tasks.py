import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from chibit.core.errors import InputError
from chibit.sweep.tasks import Task, outcome_of
from chibit.training.run_config import RunConfig


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


@pytest.mark.parametrize(
    ("folder", "asked"), [("tensorboard", {"tensorboard": True}), ("wandb", {"wandb": "p"})]
)
def test_a_finished_run_that_a_tracker_was_not_told_of_is_not_done(tmp_path, folder, asked):
    (tmp_path / "result.json").write_text("{}")
    plain, tracked = (
        Task(config=RunConfig(data="hopper-medium", agent="bc", **given), path=tmp_path, study="s")
        for given in ({}, asked)
    )
    assert plain.is_done and not tracked.is_done
    (tmp_path / folder).mkdir()
    assert plain.is_done and tracked.is_done
