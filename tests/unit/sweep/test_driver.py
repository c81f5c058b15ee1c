"""The driver's book-keeping with an engine whose tasks end as they are told to."""

import multiprocessing
import os
import signal
import socket
from dataclasses import replace

import pytest

from chibit.agents import AGENTS
from chibit.core.errors import InputError, ResourceError
from chibit.core.run_dir import RunDir
from chibit.sweep import driver, run_all
from chibit.sweep.engines import Crash, InProcess, LocalPool, crash
from chibit.sweep.ray_engine import require_reachable
from chibit.sweep.tasks import Outcome, Task, make_tasks, run_task
from chibit.training.run_config import RunConfig, run_path


def config_of(seed, agent="bc"):
    return RunConfig(data="hopper-medium", agent=AGENTS[agent].config(), seed=seed)


class Scripted:
    """Ends each task with the next entry of its script; seeds are the keys."""

    retries = 1
    was_interrupted = False

    def __init__(self, script, capacity=2):
        self.script, self.capacity = {seed: list(ends) for seed, ends in script.items()}, capacity
        self.held, self.most, self.interrupts, self.order = [], 0, 0, []

    def submit(self, task):
        self.held.append(task)
        self.order.append(task.config.seed)
        self.most = max(self.most, len(self.held))

    def collect(self, timeout):
        if not self.held:
            return []
        task = self.held.pop(0)
        end = self.script[task.config.seed].pop(0)
        if end == "signal":
            os.kill(os.getpid(), signal.SIGINT)
            end = "stopped"
        return [(task, Crash("it broke") if end == "crash" else Outcome(task.path, end, f"said {end}"))]

    def interrupt(self):
        self.interrupts += 1

    def close(self):
        self.closed = True


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    def run(script, **flags):
        engine = Scripted(script, **flags)
        monkeypatch.setattr(driver, "_make_engine", lambda *_: engine)
        configs = [config_of(seed) for seed in script]
        outcomes = run_all(configs, root=tmp_path, study="s", progress=False)
        assert engine.closed
        return [outcome.status for outcome in outcomes], engine, outcomes

    return run


def test_no_more_tasks_are_under_way_than_the_engine_takes(scripted):
    statuses, engine, _ = scripted({seed: ["finished"] for seed in range(5)})
    assert statuses == ["finished"] * 5
    assert (engine.most, engine.order) == (2, [0, 1, 2, 3, 4])


def test_a_crashed_task_is_tried_again_after_the_others_and_then_reported(scripted):
    statuses, engine, outcomes = scripted({0: ["crash", "finished"], 1: ["crash", "crash"], 2: ["finished"]})
    assert statuses == ["finished", "failed", "finished"]
    assert outcomes[1].message == "it broke"
    assert engine.order == [0, 1, 2, 0, 1]


def test_a_refused_task_is_not_tried_again(scripted):
    statuses, engine, _ = scripted({0: ["failed"], 1: ["finished"]})
    assert (statuses, engine.order) == (["failed", "finished"], [0, 1])


def test_a_run_whose_log_takes_nothing_stops_no_other(scripted, tmp_path):
    for seed in range(3):
        path = run_path(config_of(seed), tmp_path, "s")
        RunDir.create(path, arm="bc", study="s", config={})
        (path / "train.log").mkdir()  # as unwritable as on a full disk
    statuses, _, _ = scripted({0: ["failed"], 1: ["crash", "crash"], 2: ["finished"]})
    assert statuses == ["failed", "failed", "finished"]


def test_a_task_in_other_hands_is_asked_for_once_more_at_the_end(scripted):
    statuses, engine, _ = scripted({0: ["busy", "finished"], 1: ["busy", "busy"], 2: ["finished"]})
    assert statuses == ["finished", "busy", "finished"]
    assert engine.order == [0, 1, 2, 0, 1]


def test_after_a_request_to_stop_nothing_is_begun(scripted):
    statuses, engine, outcomes = scripted({0: ["signal"], 1: ["stopped"], 2: ["finished"]})
    assert statuses == ["stopped", "stopped", "stopped"]
    assert outcomes[2].message == "not started"
    assert engine.interrupts >= 1


def test_configurations_that_are_the_same_run_once(scripted, tmp_path):
    tasks = make_tasks([config_of(0), config_of(0), config_of(1)], root=tmp_path, study="s")
    assert len(tasks) == 2


def test_finished_runs_are_not_given_to_an_engine(monkeypatch, tmp_path):
    config = config_of(0)
    path = run_path(config, tmp_path, "s")
    path.mkdir(parents=True)
    (path / "result.json").write_text("{}")
    monkeypatch.setattr(driver, "_make_engine", lambda *_: pytest.fail("an engine was made"))
    assert [outcome.status for outcome in run_all([config], root=tmp_path, study="s", progress=False)] == [
        "skipped"
    ]


def test_a_run_without_the_maps_that_its_study_wants_is_not_done(tmp_path):
    plain, drawn = (
        make_tasks([config_of(0, "dt")], root=tmp_path, study="s", attention=draws)[0]
        for draws in (False, True)
    )
    plain.path.mkdir(parents=True)
    (plain.path / "result.json").write_text("{}")
    assert plain.is_done
    assert not drawn.is_done
    (plain.path / "attention").mkdir()
    (plain.path / "attention" / "maps.npz").write_text("")
    assert drawn.is_done
    assert not make_tasks([config_of(0)], root=tmp_path, study="s", attention=True)[0].attention


def test_a_crash_in_this_process_is_one_line_and_is_in_the_log(monkeypatch, tmp_path):
    task = Task(config=config_of(0), path=tmp_path / "run", study="s")
    RunDir.create(task.path, arm="bc", study="s", config={})
    engine = InProcess(retries=0)

    def broken(_):
        raise KeyError("a thing\nand more", os.fsdecode(b"\xff"))

    monkeypatch.setattr("chibit.sweep.engines.run_task", broken)
    engine.submit(task)
    [(ended, result)] = engine.collect(0.0)
    assert ended is task
    assert isinstance(result, Crash)
    assert "\n" not in result.message
    assert "KeyError" in result.message
    log = (task.path / "train.log").read_text()
    assert "broken" in log  # the traceback names the function
    assert r"\udcff" in log  # of a file whose name is not UTF-8


def test_a_crash_before_there_is_a_run_directory_is_still_a_crash(tmp_path):
    task = Task(config=config_of(0), path=tmp_path / "run", study="s")
    assert crash(task, ValueError("x")).message == "ValueError: x"
    assert not task.path.exists()


def test_a_task_of_unknown_data_is_refused_in_one_line(tmp_path):
    config = RunConfig(data="no such/../data set", agent=AGENTS["bc"].config())
    outcome = run_task(Task(config=config, path=tmp_path / "run", study="s"))
    assert outcome.status == "failed"
    assert "no such/../data set" in outcome.message and "\n" not in outcome.message


@pytest.mark.slow
def test_a_process_that_is_killed_takes_no_other_task_with_it(tmp_path):
    """Real processes: one is killed while it begins, the other's task goes on to its refusal."""
    pool = LocalPool(2, retries=0)
    doomed, other = (
        Task(
            config=RunConfig(data="absent.npz", agent=AGENTS["bc"].config()), path=tmp_path / name, study="s"
        )
        for name in ("doomed", "other")
    )
    pool.submit(doomed)
    [process] = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGKILL)
    pool.submit(other)
    ended = []
    while len(ended) < 2:
        ended += pool.collect(1.0)
    results = {task.path.name: result for task, result in ended}
    pool.submit(other)  # the place of the killed process has been filled
    while len(ended) < 3:
        ended += pool.collect(1.0)
    pool.close()
    assert isinstance(results["doomed"], Crash)
    assert "killed" in results["doomed"].message
    assert results["other"].status == "failed"
    assert "absent.npz" in results["other"].message


def test_a_ray_address_where_nobody_listens_is_refused_at_once():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        with pytest.raises(ResourceError, match=f"127.0.0.1:{port}: nobody answers"):
            require_reachable(f"127.0.0.1:{port}")  # bound, but it does not listen
        listening.listen()
        require_reachable(f"127.0.0.1:{port}")
        require_reachable(f"ray://127.0.0.1:{port}")
    require_reachable("auto")
    for address in ("127.0.0.1:port", "127.0.0.1:"):
        with pytest.raises(InputError, match="expected auto, HOST:PORT or ray://HOST:PORT"):
            require_reachable(address)
    with pytest.raises(ResourceError, match="nobody answers"):
        require_reachable("127.0.0.1:99999")


@pytest.mark.parametrize(
    ("devices", "num_processes", "stack", "engine"),
    [
        (["cuda:0", "cuda:0"], None, None, "stacked"),
        (["cuda:0", "cpu"], None, None, "pool"),
        (["cuda:0", "cuda:0"], 2, None, "pool"),
        (["cpu", "cpu"], None, None, "pool"),
        (["cpu", "cpu"], None, 2, "stacked"),
    ],
)
def test_runs_are_stacked_on_a_gpu_and_where_that_is_asked_for(
    devices, num_processes, stack, engine, tmp_path
):
    configs = [RunConfig(data="x", agent="dt", device=device, seed=i) for i, device in enumerate(devices)]
    tasks = make_tasks(configs, root=tmp_path, study="s")
    assert driver.usual_engine(tasks, num_processes, stack) == engine
    values = make_tasks([replace(config, agent="bc") for config in configs], root=tmp_path, study="s")
    assert driver.usual_engine(values, num_processes, stack) == ("stacked" if stack else "pool")
