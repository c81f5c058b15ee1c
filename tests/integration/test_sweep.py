"""Many runs side by side in real processes."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chibit.agents import AGENTS
from chibit.core.checkpoint import checkpoint_steps
from chibit.core.errors import BusyError, InputError
from chibit.core.run_dir import RunDir
from chibit.studies import STUDIES
from chibit.study_runs import study_configs
from chibit.sweep import run_all
from chibit.sweep.progress import last_record
from chibit.training.run_config import RunConfig, run_path, to_record
from forked import Forked

DRIVER = (
    "import sys, json\nfrom pathlib import Path\nfrom chibit.sweep import run_all\n"
    "from chibit.training.run_config import from_record\n"
    "if __name__ == '__main__':\n"
    "    configs = [from_record(record) for record in json.loads(sys.argv[1])]\n"
    "    root = Path(sys.argv[2])\n"
    "    outcomes = run_all(configs, root=root, study='s', num_processes=2, progress=False)\n"
    "    print(json.dumps([outcome.status for outcome in outcomes]))\n"
)
"""A study's driver as a program of its own: configurations, root."""


def config_of(data, **fields):
    agent = AGENTS["td3_bc"].config(hidden_sizes=(8, 8), batch_size=4)
    defaults = {"num_steps": 6, "evaluate_every": 3, "num_episodes": 1, "log_every": 3, "device": "cpu"}
    return RunConfig(data=str(data), agent=agent, **{**defaults, **fields})


@pytest.fixture(scope="module")
def pooled(two_runs, tmp_path_factory):
    """The two runs, one of them twice, and one without data, in a process of a pool."""
    root = tmp_path_factory.mktemp("pooled")
    configs = [two_runs[0], config_of(root / "absent.npz"), two_runs[1], two_runs[0]]
    outcomes = run_all(configs, root=root, study="s", engine="pool", num_processes=1, progress=False)
    return root, configs, outcomes


def test_runs_finish_fail_and_are_skipped_each_on_its_own(pooled):
    root, configs, first = pooled
    assert [outcome.status for outcome in first] == ["finished", "failed", "finished", "finished"]
    assert "absent.npz" in first[1].message
    assert "\n" not in first[1].message
    assert first[0].path == first[3].path == run_path(configs[0], root, "s")
    before = {
        outcome.path: (outcome.path / "result.json").read_bytes() for outcome in first if not outcome.message
    }
    second = run_all(configs, root=root, study="s", engine="process", progress=False)
    assert [outcome.status for outcome in second] == ["skipped", "failed", "skipped", "skipped"]
    assert before == {path: (path / "result.json").read_bytes() for path in before}


def test_a_stopped_sweep_saves_and_goes_on_where_it_was(pendulum_file, tmp_path):
    configs = [config_of(pendulum_file, seed=seed, num_steps=10**6, num_episodes=0) for seed in range(3)]

    def drive():
        outcomes = run_all(configs, root=tmp_path, study="s", engine="pool", num_processes=1, progress=False)
        print(json.dumps([outcome.status for outcome in outcomes]))

    child = Forked(drive, tmp_path)
    first = run_path(configs[0], tmp_path, "s")
    deadline = time.monotonic() + 120
    while not (first / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    code, output, messages = child.wait()
    assert (code, json.loads(output)) == (0, ["stopped", "stopped", "stopped"]), messages
    assert checkpoint_steps(first / "checkpoints")


SLOW_AGENT = """
import os
import time
from pathlib import Path
from dataclasses import dataclass
from typing import ClassVar

from chibit.agents.bc import BC, BCConfig


@dataclass(frozen=True, kw_only=True)
class SlowConfig(BCConfig):
    agent: ClassVar[str] = "slow"


class Slow(BC, config=SlowConfig):
    def update(self, batch):
        time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
        return super().update(batch)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_to_the_driver_and_its_processes_lets_all_runs_save(
    pendulum_file, tmp_path, monkeypatch, number
):
    """As a batch system sends it: what the driver passes on then is no second request."""
    (tmp_path / "slow_agent.py").write_text(SLOW_AGENT)
    monkeypatch.syspath_prepend(tmp_path)
    agent = importlib.import_module("slow_agent").SlowConfig()
    shape = {"num_steps": 6, "num_episodes": 0, "evaluate_every": 0, "log_every": 1}
    configs = [RunConfig(data=str(pendulum_file), agent=agent, seed=seed, **shape) for seed in range(2)]
    runs = [run_path(config, tmp_path, "s") for config in configs]

    def drive():
        outcomes = run_all(configs, root=tmp_path, study="s", engine="pool", num_processes=2, progress=False)
        print(json.dumps([[outcome.status, outcome.message] for outcome in outcomes]))

    child = Forked(drive, tmp_path, environment={"SECONDS_A_STEP": "2"})
    deadline = time.monotonic() + 120
    while not all((run / "metrics.jsonl").exists() for run in runs) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in [child.pid, *Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]:
        os.kill(int(pid), number)
    code, output, messages = child.wait()
    assert code == 0, messages
    for run, (status, message) in zip(runs, json.loads(output), strict=True):
        (step,) = checkpoint_steps(run / "checkpoints")
        assert status == "stopped" and f"stopped after step {step}, checkpoint saved" in message
    monkeypatch.setenv("SECONDS_A_STEP", "0")
    outcomes = run_all(configs, root=tmp_path, study="s", engine="process", progress=False)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    assert all("resumed at step" in (run / "train.log").read_text() for run in runs)


@pytest.mark.slow
def test_after_its_driver_was_killed_a_sweep_goes_on_and_repeats_nothing(pendulum_file, tmp_path):
    configs = [
        config_of(pendulum_file, seed=0),
        config_of(pendulum_file, seed=1, num_steps=4000, evaluate_every=0),
    ]
    first, second = (run_path(config, tmp_path, "s") for config in configs)
    (tmp_path / "driver.py").write_text(DRIVER)
    arguments = [json.dumps([to_record(config) for config in configs]), str(tmp_path)]
    child = subprocess.Popen([sys.executable, str(tmp_path / "driver.py"), *arguments])
    deadline = time.monotonic() + 200
    while not ((first / "result.json").exists() and (second / "metrics.jsonl").exists()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.kill()
    child.wait()
    written = (first / "result.json").stat().st_mtime_ns
    while time.monotonic() < deadline:  # its process saves and ends by itself
        try:
            with RunDir.open(second).lock():
                break
        except BusyError:
            time.sleep(0.1)
    assert checkpoint_steps(second / "checkpoints")
    assert not (second / "result.json").exists()
    outcomes = run_all(configs, root=tmp_path, study="s", engine="process", progress=False)
    assert [outcome.status for outcome in outcomes] == ["skipped", "finished"]
    assert (first / "result.json").stat().st_mtime_ns == written
    assert "resumed at step" in (second / "train.log").read_text()


def test_last_record_reads_the_end_of_a_log(tmp_path):
    path = tmp_path / "log.jsonl"
    assert last_record(path) is None
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3')
    assert last_record(path) == {"step": 2}
    path.write_text("".join(f'{{"step": {i}, "pad": "{"x" * 100}"}}\n' for i in range(2000)))
    assert last_record(path)["step"] == 1999


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_expands_to_distinct_runs_that_can_be_parsed(name, tmp_path):
    study = STUDIES[name]
    configs = study_configs(name, seeds=(0, 1), rates=dict.fromkeys(study.arms, 1e-3))
    assert len(configs) == 2 * len(study.arms) * len(study.data) * len(study.fractions)
    assert len({run_path(config, tmp_path, name) for config in configs}) == len(configs)
    assert {config.num_steps for config in configs} == {study.num_steps}
    assert {config.arm for config in configs} == set(study.arms)


def test_a_study_scales_down_by_flags():
    configs = study_configs("table2", seeds=(0,), arms=("dt",), data=("hopper-medium",), num_steps=200)
    assert len(configs) == 1
    assert configs[0] == dataclasses.replace(configs[0], num_steps=200, data="hopper-medium", arm="dt")


def test_text_in_place_of_a_studys_own_goes_to_the_arms_that_read_it():
    arms = ("random", "chibit_language")
    random, language = study_configs("initializers", seeds=(0,), arms=arms, language_corpus="my_text")
    assert (random.agent.language_corpus, random.agent.language_block) == ("", 1024)
    assert (language.agent.language_corpus, language.agent.language_block) == ("my_text", 256)


@pytest.fixture(scope="module")
def two_runs(pendulum_file):
    return [config_of(pendulum_file, seed=seed) for seed in (0, 1)]


def comparable(folder):
    """What a run wrote that depends on its configuration alone, not on the clock."""
    result = json.loads((folder / "result.json").read_text())
    clocks = ("train_seconds", "evaluation_seconds")
    result = {key: value for key, value in result.items() if key not in clocks}
    for row in result["scores"]:
        row.pop("seconds_to_converge")
    logs = {}
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        logs[name] = [{k: v for k, v in record.items() if "seconds" not in k} for record in records]
    return result, logs


@pytest.fixture(scope="module")
def in_process(two_runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("process")
    outcomes = run_all(two_runs, root=root, study="s", engine="process", progress=False)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    return [comparable(outcome.path) for outcome in outcomes]


def test_a_pool_gives_the_same_results_as_this_process_to_the_bit(pooled, in_process):
    first, _, second, _ = pooled[2]
    assert [comparable(outcome.path) for outcome in (first, second)] == in_process


@pytest.mark.slow
def test_ray_gives_the_same_results_as_this_process_to_the_bit(two_runs, in_process, pendulum_file, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    absent = config_of(tmp_path / "absent.npz")
    outcomes = run_all([*two_runs, absent], root=tmp_path, study="s", engine="ray", progress=False)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished", "failed"]
    assert "absent.npz" in outcomes[2].message
    assert [comparable(outcome.path) for outcome in outcomes[:2]] == in_process
    assert all(outcome.path.is_relative_to(tmp_path) for outcome in outcomes)


def test_a_run_in_the_hands_of_another_driver_is_left_to_it(two_runs, tmp_path):
    path = run_path(two_runs[0], tmp_path, "s")
    run = RunDir.create(path, arm=two_runs[0].arm_name, study="s", config=to_record(two_runs[0]))
    with run.lock():
        outcomes = run_all(two_runs, root=tmp_path, study="s", engine="process", progress=False)
    assert [outcome.status for outcome in outcomes] == ["busy", "finished"]
    assert "another process works on this run" in outcomes[0].message
    again = run_all(two_runs, root=tmp_path, study="s", engine="process", progress=False)
    assert [outcome.status for outcome in again] == ["finished", "skipped"]


def test_an_unknown_engine_is_refused(two_runs, tmp_path):
    with pytest.raises(InputError, match="unknown 'rey'; did you mean 'ray'"):
        run_all(two_runs, root=tmp_path, study="s", engine="rey", progress=False)
    with pytest.raises(InputError, match="expected at least 1"):
        run_all(two_runs, root=tmp_path, study="s", num_processes=0, progress=False)
