"""Runs trained as one program: the directories, scores and checkpoints that each would have alone."""

import json
import signal
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from chibit.agents import AGENTS
from chibit.agents.dt.stack import SequenceStack
from chibit.core.checkpoint import load_checkpoint
from chibit.core.errors import DivergenceError, InputError, ResourceError
from chibit.core.signals import Stopped
from chibit.data.load import load_dataset
from chibit.environments.own import take_env
from chibit.sweep import run_all
from chibit.training import loop, stacked
from chibit.training.offline import OfflineRun, train
from chibit.training.run_config import RunConfig, run_path
from chibit.training.stacked import train_stack
from sequence_toys import SMALL


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two data sets of six episodes of ten steps of Pendulum's sizes."""
    paths, folder = [], tmp_path_factory.mktemp("data")
    for seed in range(2):
        draw = np.random.default_rng(seed)
        np.savez(
            folder / f"made{seed}.npz",
            env_id="Pendulum-v1",
            observations=draw.normal(size=(60, 3)),
            actions=draw.uniform(-2, 2, (60, 1)),
            rewards=draw.normal(size=60),
            terminations=np.arange(60) % 10 == 9,
        )
        paths.append(folder / f"made{seed}.npz")
    return paths


def config_of(path, seed=0, agent=(), **fields):
    """A run of eight steps, which logs and saves after four."""
    usual = {"num_steps": 8, "evaluate_every": 4, "num_episodes": 0, "log_every": 4, "device": "cpu"}
    usual["target_returns"] = (-10.0, -200.0)
    made = AGENTS["dt"].config(**{**SMALL, "return_scale": None, **dict(agent)})
    return RunConfig(data=str(path), agent=made, seed=seed, **{**usual, **fields})


def stack_of(configs, root, **arguments):
    """Train runs as a stack; how they ended, and their directories."""
    paths = [run_path(config, root, "s") for config in configs]
    return train_stack(list(zip(configs, paths, strict=True)), study="s", **arguments), paths


def lines(path, name):
    file = path / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def without_times(record):
    return {name: value for name, value in record.items() if "seconds" not in name}


def assert_alike(path, other, tolerance=1e-3):
    """Two directories hold the same run, up to what the order of sums makes of it in single precision."""
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        for here, there in zip(lines(path, name), lines(other, name), strict=True):
            here, there = without_times(here), without_times(there)
            assert here.keys() == there.keys()
            for key, value in there.items():
                assert here[key] == (
                    value if value is None else pytest.approx(value, rel=tolerance, abs=tolerance)
                ), key
    here, there = (load_checkpoint(each / "checkpoints") for each in (path, other))
    assert here.step == there.step
    torch.testing.assert_close(dict(here.tensors), dict(there.tensors), rtol=1e-3, atol=1e-4)
    assert here.state["sampler"] == there.state["sampler"]
    assert torch.equal(here.state["rng"]["cpu"], there.state["rng"]["cpu"])
    assert {each.name for each in path.iterdir()} == {each.name for each in other.iterdir()}


def test_a_study_is_the_same_by_every_engine(data, tmp_path):
    plays = {"num_episodes": 1, "evaluate_every": 0}
    configs = [config_of(path, seed, validation_share=0.2, **plays) for path in data for seed in range(2)]
    configs.append(replace(config_of(data[0]), agent=AGENTS["bc"].config(hidden_sizes=(8,))))
    configs.append(config_of(data[0], agent={"context_length": 3}))
    for engine, num_processes in (("process", None), ("stacked", 2)):
        options = {"engine": engine, "num_processes": num_processes, "progress": False}
        outcomes = run_all(configs, root=tmp_path / engine, study="s", **options)
        assert [outcome.status for outcome in outcomes] == ["finished"] * 6, outcomes
    assert len(lines(outcomes[0].path, "evaluations.jsonl")) == 2
    for config in configs:
        assert_alike(*(run_path(config, tmp_path / engine, "s") for engine in ("stacked", "process")))
    again = run_all(configs, root=tmp_path / "stacked", study="s", engine="stacked", progress=False)
    assert [outcome.status for outcome in again] == ["skipped"] * 6


def stopped_after(step):
    """A signal that reaches a stack in a step."""
    step_of_stack = stacked._Stack._step

    def stopping(self):
        step_of_stack(self)
        if self._first.state.step == step:
            self.stop.signal_number = signal.SIGTERM

    return mock.patch.object(stacked._Stack, "_step", stopping)


def test_runs_go_on_in_a_stack_alone_and_in_another_stack(data, tmp_path):
    configs = [config_of(data[0], seed, num_steps=12) for seed in range(3)]
    for config in configs:
        train(config, run_path(config, tmp_path / "alone", "s"), study="s", progress=False)
    with stopped_after(3):
        ended, paths = stack_of(configs, tmp_path)
    assert all(isinstance(error, Stopped) and error.exit_code == 143 for error in ended.values())
    assert [load_checkpoint(path / "checkpoints").step for path in paths] == [3] * 3
    original = OfflineRun._step

    def stopping(self):
        original(self)
        if self.state.step == 6:
            self.stop.signal_number = signal.SIGTERM

    with mock.patch.object(OfflineRun, "_step", stopping):
        for config, path in zip(configs[:2], paths[:2], strict=True):
            with pytest.raises(Stopped):
                train(config, path, study="s", progress=False)
    ended, _ = stack_of(configs, tmp_path)  # two at step 6, and one at step 3, which waits
    assert ended == dict.fromkeys(paths[:2])
    ended, _ = stack_of(configs, tmp_path)
    assert ended == dict.fromkeys(paths)
    for config, path in zip(configs, paths, strict=True):
        assert_alike(path, run_path(config, tmp_path / "alone", "s"))


def test_waiting_for_the_device_is_time_of_training(data, tmp_path, monkeypatch):
    """Steps come back at once there, and reading what they gave takes as long as they do."""
    clock, failures = [0.0], SequenceStack.failures
    for module in (stacked, loop):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def late(self):
        clock[0] += 3.0
        return failures(self)

    monkeypatch.setattr(SequenceStack, "failures", late)
    _, paths = stack_of([config_of(data[0], seed) for seed in range(2)], tmp_path)
    for path in paths:
        assert [line["seconds"] for line in lines(path, "metrics.jsonl")] == [1.5, 3.0]
        assert json.loads((path / "result.json").read_text())["train_seconds"] == 3.0


def test_one_run_diverges_and_the_others_finish(data, tmp_path):
    configs = [config_of(data[0], 0), config_of(data[1], 1), config_of(data[0], 2)]
    sample, drawn = stacked.StackedSampler.sample, []

    def spoil(self):
        batch = sample(self)
        if len(batch.rows) == 3:
            drawn.append(batch.rows[1].tolist())
            if len(drawn) == 3:
                batch.states[1, 0] = torch.inf
        return batch

    with mock.patch.object(stacked.StackedSampler, "sample", spoil):
        ended, paths = stack_of(configs, tmp_path)
    assert [ended[path] is None for path in paths] == [True, False, True]
    error = ended[paths[1]]
    assert isinstance(error, DivergenceError) and error.exit_code == 5
    assert "loss is nan at step 2" in str(error) and "divergence.json" in str(error)
    record = json.loads((paths[1] / "divergence.json").read_text())
    assert (record["step"], record["rows"]) == (2, drawn[2])
    assert not (paths[1] / "metrics.jsonl").exists()
    for seed in (0, 2):
        train(configs[seed], tmp_path / f"alone{seed}", study="s", progress=False)
        assert_alike(paths[seed], tmp_path / f"alone{seed}")


def test_a_run_whose_folder_takes_no_more_ends_and_the_others_finish(data, tmp_path):
    configs = [config_of(data[0], seed) for seed in range(2)]
    paths = [run_path(config, tmp_path, "s") for config in configs]
    append = stacked.OfflineRun.write_line

    def full(self, metrics):
        if self.run.path == paths[0]:
            raise ResourceError(f"{self.run.path}: cannot write")
        append(self, metrics)

    with mock.patch.object(stacked.OfflineRun, "write_line", full):
        ended, _ = stack_of(configs, tmp_path)
    assert str(ended[paths[0]]).endswith("cannot write") and ended[paths[1]] is None
    with pytest.raises(ResourceError):
        raise ended[paths[0]]


class Breaking(gym.Env):
    """Of Pendulum's sizes; breaks where its kind says so."""

    observation_space, action_space, error = Box(-9, 9, (3,)), Box(-2, 2, (1,)), None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if isinstance(self.error, RuntimeError):
            raise self.error
        return np.zeros(3, np.float32), {}

    def step(self, action):
        if self.error is not None:
            raise self.error
        return np.zeros(3, np.float32), 1.0, True, False, {}


class Unready(Breaking):
    error = RuntimeError("will not begin")


class Unforeseen(Breaking):
    error = TypeError("nobody foresaw it")


def test_a_run_whose_environment_breaks_ends_alone_and_the_others_finish(data, tmp_path):
    envs = [take_env(kind) for kind in (Breaking, Unready, Unforeseen, Breaking)]
    configs = [config_of(data[0], seed, env_id=env, num_episodes=1) for seed, env in enumerate(envs)]
    done = {}
    for engine, stack in (("process", None), ("stacked", 3)):
        options = {"engine": engine, "stack": stack, "progress": False}
        outcomes = run_all(configs, root=tmp_path / engine, study="s", **options)
        done[engine] = [(outcome.status, outcome.message) for outcome in outcomes]
    assert done["stacked"] == done["process"]
    assert [status for status, _ in done["stacked"]] == ["finished", "failed", "failed", "finished"]
    assert "will not begin" in done["stacked"][1][1] and "TypeError: nobody" in done["stacked"][2][1]
    assert_alike(*(run_path(configs[0], tmp_path / engine, "s") for engine in done))


def test_what_does_not_fit_one_stack_is_said(data, tmp_path, monkeypatch):
    configs = [config_of(data[0], seed) for seed in range(3)]
    with pytest.raises(InputError, match="context_length is 3, in the first run of the stack 4"):
        stack_of([configs[0], config_of(data[0], 1, agent={"context_length": 3})], tmp_path)
    with pytest.raises(InputError, match="num_steps is 9, in the first run of the stack 8"):
        stack_of([configs[0], config_of(data[0], 1, num_steps=9)], tmp_path)
    with pytest.raises(InputError, match="bc: trains by itself only"):
        stack_of([configs[0], replace(configs[1], agent=AGENTS["bc"].config())], tmp_path)
    with pytest.raises(InputError, match="device: 'cuda:7' is not on this machine"):
        stack_of([replace(config, device="cuda:7") for config in configs], tmp_path)
    size = stacked.memory_of_run(config_of(data[0]).agent, load_dataset(str(data[0])).spec)
    monkeypatch.setattr(stacked, "free_memory", lambda device: 2.5 * size)
    with pytest.raises(ResourceError, match=r"3 runs do not fit .* 2 would: use --stack 2"):
        stack_of(configs, tmp_path, most=3)
    ended, paths = stack_of(configs, tmp_path)
    assert ended == dict.fromkeys(paths[:2])  # as many as fit, where nobody asks for more


def test_engine_and_flags_that_do_nothing_are_refused(data, tmp_path):
    bc = replace(config_of(data[0]), agent=AGENTS["bc"].config())
    with pytest.raises(InputError, match="engine: got stacked, but every run trains by itself only"):
        run_all([bc], root=tmp_path, study="s", engine="stacked", progress=False)
    with pytest.raises(InputError, match="stack: got 0"):
        run_all([bc], root=tmp_path, study="s", engine="stacked", stack=0, progress=False)


def test_runs_that_do_not_fit_after_all_are_tried_again_fewer_at_a_time(data, tmp_path, monkeypatch):
    """As on a GPU, whose memory an estimate is held against."""
    configs, update, sizes = (
        [config_of(data[0], seed, num_steps=4) for seed in range(5)],
        SequenceStack.update,
        [],
    )

    def full(self, batch):
        sizes.append(len(self.agents))
        if len(self.agents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return update(self, batch)

    monkeypatch.setattr(SequenceStack, "update", full)
    outcomes = run_all(configs, root=tmp_path, study="s", engine="stacked", retries=0, progress=False)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 5, outcomes
    assert sizes == [5] + [2] * 8  # and the last one alone
    outcomes = run_all(configs, root=tmp_path / "asked", study="s", engine="stacked", stack=4, progress=False)
    assert [outcome.status for outcome in outcomes] == ["failed"] * 4 + ["finished"]
    assert "out of memory" in outcomes[0].message and "use --stack 2" in outcomes[0].message


def test_a_sweep_that_is_stopped_begins_no_more_stacks(data, tmp_path):
    configs = [config_of(data[0], seed, agent={"dropout": d}) for d in (0.1, 0.2) for seed in range(2)]
    with stopped_after(3):
        outcomes = run_all(configs, root=tmp_path, study="s", engine="stacked", progress=False)
    assert [outcome.status for outcome in outcomes] == ["stopped"] * 4
    assert [outcome.signal_number for outcome in outcomes] == [signal.SIGTERM] * 2 + [0] * 2
    outcomes = run_all(configs, root=tmp_path, study="s", engine="stacked", progress=False)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 4


def test_a_crash_of_a_stack_is_tried_again_from_its_checkpoints(data, tmp_path):
    configs = [config_of(data[0], seed) for seed in range(2)]
    step, count = stacked._Stack._step, []

    def crash(self):
        count.append(self._first.state.step)
        if len(count) == 6:
            raise RuntimeError("something nobody foresaw")
        step(self)

    with mock.patch.object(stacked._Stack, "_step", crash):
        outcomes = run_all(configs, root=tmp_path, study="s", engine="stacked", progress=False)
    assert [outcome.status for outcome in outcomes] == ["finished"] * 2
    assert count == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7]
    log = (run_path(configs[0], tmp_path, "s") / "train.log").read_text()
    assert "crashed: RuntimeError: something nobody foresaw" in log
