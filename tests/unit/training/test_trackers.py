"""What a run tells TensorBoard, and Weights & Biases, with a stand-in for the service."""

import gc
import sys
import threading
import types

import pytest

from chibit.commands.study import StudyArguments, _config_maker
from chibit.core.errors import InputError
from chibit.core.run_dir import RunDir
from chibit.training.run_config import RunConfig, run_path, to_record
from chibit.training.trackers import make_trackers


@pytest.fixture
def service(monkeypatch):
    started = []

    def init(**given):
        started.append(given)
        return types.SimpleNamespace(resumed=True, log=lambda *_, **__: None)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Error=OSError, init=init))
    return started


def test_runs_of_a_study_are_grouped_by_it_and_one_ends_where_the_next_begins(service, tmp_path):
    flags = {"name": "table2", "data": ("hopper-medium",), "arms": ("random",), "num_steps": 4}
    plain = _config_maker(StudyArguments(**flags))([0, 1])
    tracked = _config_maker(StudyArguments(**flags, wandb="project", tensorboard=True))([0, 1])
    for before, config in zip(plain, tracked, strict=True):
        assert (config.wandb, config.tensorboard, before.wandb, before.tensorboard) == (
            *("project", True),
            *(None, False),
        )
        path = run_path(config, tmp_path, "table2")
        assert path == run_path(before, tmp_path, "table2")  # it stays the same run
        run = RunDir.create(path, arm="random", study="table2", config=to_record(config))
        make_trackers(run, config)
    assert [(one["project"], one["group"]) for one in service] == [("project", "table2")] * 2
    assert {one["reinit"] for one in service} == {"finish_previous"}
    assert service[0]["id"] != service[1]["id"] and service[0]["name"].startswith("random-hopper-medium-s0-")


def test_no_thread_of_tensorboard_outlives_its_run(tmp_path):
    gc.collect()  # of other tests
    before = threading.active_count()
    config = RunConfig(data="x", agent="bc", tensorboard=True)
    trackers = make_trackers(RunDir.create(tmp_path, arm="bc", study="s", config={}), config)
    trackers[0](1, {"train/loss": 0.5})
    assert threading.active_count() > before
    del trackers
    gc.collect()
    assert threading.active_count() == before


def test_a_new_tracker_is_told_of_steps_in_their_order(monkeypatch, tmp_path):
    """Weights & Biases ignores what is before the last step that it was told."""
    told = []
    there = types.SimpleNamespace(resumed=False, log=lambda metrics, step: told.append((step, *metrics)))
    stand_in = types.SimpleNamespace(Error=OSError, init=lambda **_: there)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    run = RunDir.create(tmp_path / "run", arm="bc", study="s", config={})
    for step in (1, 2, 3):
        run.append_metrics({"step": step, "seconds": 1.0, "train/loss": 0.5})
    for step in (1, 2):
        run.append_evaluation(
            {"step": step, "seconds": 1.0, "target_return": None, "episode_returns": [1.0],
             "episode_lengths": [3], "normalized_score": 5.0, "env_seeds": [0]}
        )  # fmt: skip
    make_trackers(run, RunConfig(data="x", agent="bc", wandb="project"))
    loss, score = "train/loss", "eval/None/score"
    assert told == [(1, loss), (1, score), (2, loss), (2, score), (3, loss)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_no_tracker_writes_where_a_link_leads_out_of_the_run(service, tmp_path, name):
    run = RunDir.create(tmp_path / "run", arm="bc", study="s", config={})
    (tmp_path / "others").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "others")
    asked = {"tensorboard": True} if name == "tensorboard" else {"wandb": "project"}
    with pytest.raises(InputError, match=name):
        make_trackers(run, RunConfig(data="x", agent="bc", **asked))
    assert not service and not list((tmp_path / "others").iterdir())
