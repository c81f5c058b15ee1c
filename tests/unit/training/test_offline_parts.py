"""What the training loop hands to its parts and does with what they give back: stops, resumed runs, damaged
states, clocks, evaluations. The parts that take long are stood in for; what is looked at is on the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from chibit.agents import AGENTS, cql, require_finite
from chibit.core.checkpoint import (
    CheckpointSaver,
    checkpoint_steps,
    load_checkpoint,
    mark,
    marked,
)
from chibit.core.errors import DamagedFileError, DivergenceError, InputError, ResourceError
from chibit.core.run_dir import RunDir
from chibit.core.signals import Interrupted, Stopped, interruptible
from chibit.data.dataset import DatasetSpec
from chibit.data.load import load_dataset
from chibit.data.samplers.transitions import TransitionSampler
from chibit.evaluation.rollout import Evaluation
from chibit.models.gpt import GPTShape
from chibit.policy.policy import Policy
from chibit.policy.run import load_run_agent
from chibit.training import loop, offline, trackers
from chibit.training.held_out import HeldOutError
from chibit.training.loading import load_run
from chibit.training.longer import GoingOn
from chibit.training.offline import train
from chibit.training.run_config import RunConfig, to_record
from fault_runs import save_checkpoint

AGENT = AGENTS["td3_bc"].agent
EXACTLY = {"rel": 0, "abs": 1e-9}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six episodes of ten steps; the last step of each is a termination."""
    path = tmp_path_factory.mktemp("data") / "made.npz"
    draw = np.random.default_rng(0)
    np.savez(
        path,
        env_id="Pendulum-v1",
        observations=draw.normal(size=(60, 3)),
        actions=draw.uniform(-2, 2, (60, 1)),
        rewards=draw.normal(size=60),
        terminations=np.arange(60) % 10 == 9,
    )
    return path


def config_of(data, *, agent="td3_bc", **fields):
    settings = {
        "td3_bc": {"hidden_sizes": (8,), "batch_size": 4},
        "dt": {"context_length": 2, "batch_size": 2, "gpt": GPTShape(n_layer=1, n_embd=8)},
    }
    given = {"num_steps": 6, "evaluate_every": 0, "num_episodes": 0, "device": "cpu", "seed": 3, **fields}
    return RunConfig(data=str(data), agent=AGENTS[agent].config(**settings[agent]), **given)


def run(config, path, **settings):
    return train(config, path, progress=False, **settings)


def weights(path, step=None):
    return load_checkpoint(path / "checkpoints", step).tensors


def are_equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def lines(path, name="metrics.jsonl"):
    """A log without its times."""
    return [
        {key: value for key, value in record.items() if "seconds" not in key}
        for record in RunDir(path).read_log(name)
    ]


class Killed(BaseException):
    """Ends a run at once, as SIGKILL does."""


@contextlib.contextmanager
def before_update(step, act):
    """Call `act` just before the update that is number `step`, from 1."""
    update = AGENT.update

    def watched(self, batch):
        if self.step == step - 1:
            act()
        return update(self, batch)

    with patch.object(AGENT, "update", watched):
        yield


def kill(config, path, step):
    """Run until just before an update, and no further."""

    def die():
        raise Killed

    with before_update(step, die), pytest.raises(Killed):
        run(config, path)


class Pool:
    """Stands in for the environments of a run."""

    made: list[Pool]

    def __init__(self, env_id, *, d4rl_physics, max_episode_steps):
        self.env_id, self.d4rl_physics, self.max_episode_steps = env_id, d4rl_physics, max_episode_steps
        self.is_open = False
        self.made.append(self)

    def check_sizes(self, **sizes):
        self.sizes = sizes

    def __enter__(self):
        self.is_open = True
        return self

    def __exit__(self, *_):
        self.is_open = False


def evaluation_of(target, returns, **fields):
    given = {
        "episode_lengths": (7,) * len(returns),
        "env_seeds": tuple(range(len(returns))),
        "normalized_score": None,
        "failed_episodes": (),
        "seconds": 0.25,
    }
    return Evaluation(target_return=target, episode_returns=returns, **{**given, **fields})


@pytest.fixture
def stage(monkeypatch):
    """Evaluations that score what they are told, take 0.25 s, and remember what they were asked."""
    told = SimpleNamespace(scores=[], asked=[], pools=[])
    monkeypatch.setattr(Pool, "made", told.pools, raising=False)

    def play(policy, env_id, *, target_returns, seed, environments, **asked):
        assert environments.is_open
        score = told.scores[len(told.asked)] if len(told.asked) < len(told.scores) else 0.0
        told.asked.append({"env_id": env_id, "targets": target_returns, "seed": seed, **asked})
        return [
            evaluation_of(target, (score,), env_seeds=(seed,), seconds=0.25 + i)
            for i, target in enumerate(target_returns)
        ]

    monkeypatch.setattr(offline, "EnvironmentPool", Pool)
    monkeypatch.setattr(offline, "evaluate", play)
    return told


@pytest.fixture
def clock(monkeypatch):
    """The loop's clock, which goes on only where the test says so."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now.time))
    update = AGENT.update

    def slow(self, batch):
        now.time += 1.0
        return update(self, batch)

    monkeypatch.setattr(AGENT, "update", slow)
    return now


@pytest.fixture
def outer():
    """A handler of SIGTERM around the run's own."""
    caught = []
    previous = signal.signal(signal.SIGTERM, lambda *_: caught.append("outer"))
    yield caught
    signal.signal(signal.SIGTERM, previous)


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_is_asked_to_stop_saves_and_can_go_on(data, tmp_path, outer):
    config = config_of(data, log_every=4, checkpoint_every=100)
    run(config, tmp_path / "whole")
    path = tmp_path / "parts"
    with before_update(3, ask_to_stop), pytest.raises(Stopped) as caught:
        run(config, path)
    assert caught.value.exit_code == 143
    assert str(caught.value) == f"{path}: stopped after step 3, checkpoint saved"
    assert outer == []
    assert checkpoint_steps(path / "checkpoints") == [3]
    assert (marked(path / "checkpoints", "last"), marked(path / "checkpoints", "best")) == (3, None)
    assert not RunDir(path).is_finished and lines(path) == []
    run(config, path)
    assert are_equal(weights(tmp_path / "whole", 6), weights(path, 6))
    assert lines(path) == lines(tmp_path / "whole") != []


def test_a_run_that_is_asked_to_stop_in_its_last_step_is_finished(data, tmp_path, outer):
    with before_update(6, ask_to_stop):
        result = run(config_of(data), tmp_path / "run")
    assert result["status"] == "finished" and result["steps"] == 6
    ask_to_stop()
    assert outer == ["outer"]


def test_the_checkpoint_is_on_the_disk_before_the_run_says_that_it_stopped(data, tmp_path, outer):
    path, seen = tmp_path / "run", []
    stopped = Stopped.__init__

    def look(self, number, message):
        seen.extend(checkpoint_steps(path / "checkpoints"))
        stopped(self, number, message)

    original = CheckpointSaver._save

    def late(self, *arguments):
        import time

        time.sleep(0.2)
        original(self, *arguments)

    with (
        patch.object(Stopped, "__init__", look),
        patch.object(CheckpointSaver, "_save", late),
        before_update(2, ask_to_stop),
        pytest.raises(Stopped),
    ):
        run(config_of(data), path)
    assert seen == [2]


def test_a_killed_run_goes_on_from_its_newest_checkpoint(data, tmp_path, stage, clock):
    """Bits, logs, sums that were not written yet, the best score and the times so far."""
    stage.scores = [1.0, 9.0, 2.0, 1.0, 9.0, 2.0]
    config = config_of(data, log_every=3, checkpoint_every=2, evaluate_every=2, num_episodes=1)
    run(config, tmp_path / "whole")
    stage.asked.clear()
    kill(config, tmp_path / "parts", step=6)
    run_dir = RunDir(tmp_path / "parts")
    begun = run_dir.provenance()
    saved = load_checkpoint(run_dir.checkpoints).state["loop"]
    assert saved["step"] == 4
    run_dir.append_metrics({"step": 5, "seconds": 1.0, "train/loss": 7.0})  # after the checkpoint
    leftover = run_dir.checkpoints / ".tmp-old"
    leftover.mkdir()
    result = run(config, tmp_path / "parts")
    assert not leftover.exists()
    assert are_equal(weights(tmp_path / "whole", 6), weights(tmp_path / "parts", 6))
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert lines(tmp_path / "parts", name) == lines(tmp_path / "whole", name) != []
    assert marked(run_dir.checkpoints, "best") == 4
    # The fifth step was taken twice and counts once; three evaluations took 0.25 s each.
    assert (saved["train_seconds"], result["train_seconds"]) == (4.0, 6.0)
    assert (saved["evaluation_seconds"], result["evaluation_seconds"]) == (0.5, 0.75)
    assert run_dir.provenance() == begun
    assert (run_dir.path / "train.log").read_text().splitlines()[-1] == "resumed at step 4"


def test_a_kill_between_a_checkpoint_and_its_marks_loses_neither(data, tmp_path, stage):
    stage.scores = [1.0, 9.0, 2.0]
    config = config_of(data, evaluate_every=2, num_episodes=1)
    kill(config, tmp_path / "run", step=5)
    folder = RunDir(tmp_path / "run").checkpoints
    assert (marked(folder, "last"), marked(folder, "best")) == (4, 4)
    for name in ("last", "best"):
        mark(folder, name, 2)  # as they were when that of step 4 was on the disk
    stage.asked.clear()
    stage.scores = [2.0]
    run(config, tmp_path / "run")
    assert (marked(folder, "last"), marked(folder, "best")) == (6, 4)


def test_a_checkpoint_of_an_earlier_version_keeps_the_marks_that_are_there(data, tmp_path, stage):
    stage.scores = [9.0, 1.0, 2.0]
    config = config_of(data, evaluate_every=2, num_episodes=1)
    kill(config, tmp_path / "run", step=5)
    change(tmp_path / "run", lambda state: state["loop"].pop("best_step"))
    stage.asked.clear()
    stage.scores = [2.0]
    run(config, tmp_path / "run")
    assert marked(RunDir(tmp_path / "run").checkpoints, "best") == 2


def change(path, edit):
    """Change the state in a run's newest checkpoint, as another program could."""
    checkpoint = load_checkpoint(path / "checkpoints")
    state = dict(checkpoint.state)
    edit(state)
    save_checkpoint(path / "checkpoints", checkpoint.step, checkpoint.tensors, state)


def half(state):
    state["rng"] = {"cpu": state["rng"]["cpu"][:9].clone()}


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (half, "the state of torch's generator is missing or of the wrong length"),
        (lambda state: state.pop("rng"), "'rng'"),
        (lambda state: state.pop("sampler"), "'sampler'"),
        (lambda state: state.update(sampler={"bit_generator": "MT19937"}), ""),
    ],
)
def test_random_numbers_that_cannot_go_on_are_begun_anew_only_where_that_is_allowed(
    data, tmp_path, edit, reason
):
    config, path = config_of(data, checkpoint_every=2), tmp_path / "run"
    kill(config, path, step=4)
    change(path, edit)
    before, logged = weights(path), (path / "train.log").read_text()
    with pytest.raises(DamagedFileError) as caught:
        run(config, path)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert message.startswith(f"{path / 'checkpoints'}: random numbers cannot go on as they were ({reason}")
    assert message.endswith("); use another --out, or --allow-inexact-resume")
    assert (path / "train.log").read_text() == logged
    with before_update(3, lambda: None):
        result = run(config, path, allow_inexact_resume=True)
    assert result["steps"] == 6
    log = (path / "train.log").read_text()[len(logged) :].splitlines()
    assert log[0].startswith(f"random numbers begin anew, the run is not an exact one any more ({reason}")
    assert log[1:] == ["resumed at step 2"]
    after = weights(path, 6)
    moved = max(
        float((after[name] - before[name]).abs().max()) for name in before if name.startswith("actor.")
    )
    assert 0 < moved < 0.01  # four steps of Adam from those weights, not six from others


def test_allowing_an_inexact_resume_changes_nothing_where_it_is_exact(data, tmp_path):
    config = config_of(data, checkpoint_every=2)
    run(config, tmp_path / "whole")
    kill(config, tmp_path / "parts", step=4)
    run(config, tmp_path / "parts", allow_inexact_resume=True)
    assert are_equal(weights(tmp_path / "whole", 6), weights(tmp_path / "parts", 6))
    assert "anew" not in (tmp_path / "parts" / "train.log").read_text()


def test_data_that_changed_since_a_run_began_are_refused(data, tmp_path):
    mine = tmp_path / "mine.npz"
    columns = dict(np.load(data))
    np.savez(mine, **columns)
    config, path = config_of(mine, checkpoint_every=2), tmp_path / "run"
    kill(config, path, step=4)
    np.savez(mine, **{**columns, "rewards": columns["rewards"] + 1})
    with pytest.raises(DamagedFileError) as caught:
        run(config, path)
    said = f"{path}: the data set {mine} has changed since this run began (content "
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda state: state.update(agent=None), "it holds no state of the training"),
        (lambda state: state["loop"].update(step=5), "it holds step 5"),
        (lambda state: state.pop("loop"), "'loop'"),
        (lambda state: state["loop"].update(steps=1), ""),
        (lambda state: state["agent"].pop("optimizers"), "'optimizers'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(data, tmp_path, edit, reason):
    config, path = config_of(data, checkpoint_every=2), tmp_path / "run"
    kill(config, path, step=4)
    change(path, edit)
    with pytest.raises(DamagedFileError) as caught:
        run(config, path, allow_inexact_resume=True)
    message = str(caught.value)
    assert message.startswith(f"{path / 'checkpoints'}: step 2 does not fit this run (")
    assert (f"({reason})" if reason else "(") in message and message.endswith("); use another --out")
    assert checkpoint_steps(path / "checkpoints") == [2]


def test_beginning_anew_is_refused_over_a_run_only(data, tmp_path):
    config, path = config_of(data, checkpoint_every=2), tmp_path / "run"
    with before_update(4, lambda: (_ for _ in ()).throw(Killed)), pytest.raises(Killed):
        run(config, path, resume=False)
    with pytest.raises(InputError) as caught:
        run(config, path, resume=False)
    assert str(caught.value) == f"{path}: holds a run at step 2; use --resume or another --out"
    assert checkpoint_steps(path / "checkpoints") == [2]


def test_a_run_without_a_checkpoint_begins_with_empty_logs(data, tmp_path):
    config, path = config_of(data, log_every=1, checkpoint_every=6), tmp_path / "run"
    kill(config, path, step=4)
    assert len(lines(path)) == 3
    run(config, path)
    assert [line["step"] for line in lines(path)] == [1, 2, 3, 4, 5, 6]


def test_divergence_leaves_its_rows_and_the_checkpoints_before_it(data, tmp_path):
    path, rows = tmp_path / "run", torch.tensor([5, 1, 5])
    config = config_of(data, checkpoint_every=2, data_fraction=0.5)
    part = offline.open_data(config)[0]
    with (
        before_update(4, lambda: require_finite(3, rows, loss=float("inf"))),
        pytest.raises(DivergenceError) as caught,
    ):
        run(config, path)
    record = json.loads((path / "divergence.json").read_text())
    assert record.keys() == {"step", "message", "rows"}
    assert (record["step"], record["rows"]) == (3, part.in_store(np.array([5, 1, 5])).tolist())
    assert record["message"].startswith("loss is inf at step 3, expected a finite number")
    said = f"{record['message']}; the rows of its batch are in {path / 'divergence.json'}"
    assert str(caught.value) == said
    assert checkpoint_steps(path / "checkpoints") == [2]


def test_training_and_measuring_are_timed_apart(data, tmp_path, clock, stage):
    held_out = offline.HeldOut.__call__

    def slow(self):
        clock.time += 10.0
        return held_out(self)

    config = config_of(
        data, log_every=2, evaluate_every=3, num_episodes=1, validation_share=0.34, checkpoint_every=6
    )
    with patch.object(offline.HeldOut, "__call__", slow):
        result = run(config, tmp_path / "run")
    log = RunDir(tmp_path / "run").read_log("metrics.jsonl")
    assert [line["seconds"] for line in log] == [2.0, 4.0, 6.0]
    assert all(0 < line["held_out/action_error"] < 10 for line in log)
    plays = RunDir(tmp_path / "run").read_log("evaluations.jsonl")
    assert [(play["seconds"], play["evaluation_seconds"]) for play in plays] == [(3.0, 0.25), (6.0, 0.25)]
    assert (result["train_seconds"], result["evaluation_seconds"]) == (6.0, 30.5)
    loop = load_checkpoint(tmp_path / "run" / "checkpoints").state["loop"]
    assert (loop["train_seconds"], loop["evaluation_seconds"]) == (6.0, 30.5)


def test_only_the_first_target_is_timed_since_all_are_played_at_once(data, tmp_path, clock, stage):
    config = config_of(data, agent="dt", num_episodes=1, target_returns=(-5.0, -9.0))
    assert run(config, tmp_path / "run")["evaluation_seconds"] == 0.25


def test_the_held_out_error_is_that_of_the_runs_seed(data, tmp_path):
    config = config_of(data, num_steps=1, validation_share=0.34)
    run(config, tmp_path / "run")
    [line] = lines(tmp_path / "run")
    assert line["train/loss"] > 0
    dataset, held_out = offline.open_data(config)
    agent = offline.make_agent(config.agent, dataset.spec, offline.resolve_runtime("cpu"))
    agent.load_state_dict(offline.AgentState(tensors=weights(tmp_path / "run"), training={}))
    for seed, is_equal in ((3, True), (4, False)):
        error = HeldOutError(agent, held_out, seed)()
        assert (line["held_out/action_error"] == pytest.approx(error, rel=1e-6)) == is_equal


@pytest.mark.parametrize(
    ("num_steps", "every", "expected"), [(6, 2, {2: 1, 4: 2, 6: 3}), (7, 3, {3: 1, 7: 3}), (5, 0, {5: 1})]
)
def test_an_evaluation_has_the_seed_of_its_place_in_the_schedule(
    data, tmp_path, stage, num_steps, every, expected
):
    config = config_of(data, num_steps=num_steps, evaluate_every=every, num_episodes=4)
    run(config, tmp_path / "run")
    plays = lines(tmp_path / "run", "evaluations.jsonl")
    assert [play["step"] for play in plays] == list(expected)
    assert [one["seed"] for one in stage.asked] == [offline.evaluation_seed(3, i) for i in expected.values()]
    assert {one["num_episodes"] for one in stage.asked} == {4}
    assert {one["env_id"] for one in stage.asked} == {"Pendulum-v1"}
    [pool] = stage.pools
    assert not pool.is_open
    assert pool.sizes == {"observation_shape": (3,), "act_dim": 1, "num_actions": None}


@pytest.mark.parametrize(
    ("lengths", "every", "expected"),
    [
        ((7, 12), 3, {3: (1, 0), 7: (3, 0), 9: (3, 1), 12: (4, 0)}),
        ((7, 8, 12), 3, {3: (1, 0), 7: (3, 0), 8: (3, 1), 9: (3, 2), 12: (4, 0)}),
        ((6, 9), 3, {3: (1, 0), 6: (2, 0), 9: (3, 0)}),
        ((2, 3, 5), 0, {2: (1, 0), 3: (1, 1), 5: (1, 2)}),
    ],
)
def test_the_end_of_a_run_that_is_carried_on_shares_its_starts_with_no_other_evaluation(
    data, tmp_path, stage, lengths, every, expected
):
    for num_steps in lengths:
        run(config_of(data, num_steps=num_steps, evaluate_every=every, num_episodes=4), tmp_path / "run")
    assert [play["step"] for play in lines(tmp_path / "run", "evaluations.jsonl")] == list(expected)
    seeds = [offline.evaluation_seed(3, *place) for place in expected.values()]
    assert [one["seed"] for one in stage.asked] == seeds and len({*seeds}) == len(seeds)


def test_what_a_run_learns_before_its_first_step_is_no_training_time_and_can_be_stopped(
    data, tmp_path, monkeypatch, clock
):
    config = RunConfig(
        data=str(data),
        agent=AGENTS["cql"].config(hidden_sizes=(8,), batch_size=4, pretraining="iid", pretraining_steps=2),
        **{"num_steps": 2, "num_episodes": 0, "device": "cpu", "checkpoint_every": 1},
    )
    calls = []

    def pretrain(*_, **asked):
        calls.append(asked["num_steps"])
        clock.time += 1000.0
        if len(calls) == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(cql, "pretrain_critics", pretrain)
    with interruptible(), pytest.raises(Interrupted):
        run(config, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run/checkpoints") == []
    with patch.object(AGENTS["cql"].agent, "update", side_effect=Killed), pytest.raises(Killed):
        run(config, tmp_path / "run")
    assert run(config, tmp_path / "run")["train_seconds"] < 1000.0
    assert run(dataclasses.replace(config, num_steps=3), tmp_path / "run")["steps"] == 3
    assert calls == [2, 2, 2]  # not again once there is a checkpoint


def test_what_a_stack_plays_for_a_run_is_what_it_would_play_itself(data, tmp_path, stage):
    config = config_of(data, evaluate_every=3, num_episodes=4)
    with offline.opened(GoingOn(config, config), tmp_path / "run", study="s") as held:
        made = offline.OfflineRun(config, held, offline.resolve_runtime("cpu"), None, (), progress=False)
    made.state.step, made.spec = 6, dataclasses.replace(made.spec, score_reference=(0.0, 9.0))
    played = made.to_play()
    assert played.environments is made.environments and played.num_episodes == 4
    assert (played.seed, played.score_reference) == (offline.evaluation_seed(3, 2), (0.0, 9.0))
    assert played.target_returns == (None,)
    made.targets = (5.0,)
    assert made.to_play().target_returns == (5.0,)
    made.environments = None
    assert made.to_play() is None


def test_seeds_of_evaluations_are_those_of_earlier_versions():
    expected = {(0, 1): 3964924996, (3, 1): 457190280, (3, 2): 960329833}
    assert {key: offline.evaluation_seed(*key) for key in expected} == expected


def test_batches_are_those_of_earlier_versions(data, tmp_path):
    """Drawn from the run's seed and the number 1, so that results on disk can be had again."""
    config, drawn = config_of(data, num_steps=2), []
    sample = TransitionSampler.sample

    def remembered(self):
        batch = sample(self)
        drawn.append(batch.rows.tolist())
        return batch

    with patch.object(TransitionSampler, "sample", remembered):
        run(config, tmp_path / "run")
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 1])))
    sampler = TransitionSampler(load_dataset(str(data), progress=False), batch_size=4, generator=generator)
    assert drawn == [sampler.sample().rows.tolist() for _ in range(2)]


def test_evaluations_get_the_physics_limit_and_reference_of_the_data(stage):
    spec = DatasetSpec(
        name="x",
        state_dim=3,
        act_dim=1,
        num_actions=None,
        default_target_returns=(100.0,),
        action_low=(-2.0,),
        action_high=(2.0,),
        state_mean=(0.0,) * 3,
        state_std=(1.0,) * 3,
        env_id="Hopper-v4",
        d4rl_physics=True,
        max_episode_steps=77,
        score_reference=(1.0, 5.0),
    )
    pool = offline.open_environments(spec)
    assert (pool.env_id, pool.d4rl_physics, pool.max_episode_steps) == ("Hopper-v4", True, 77)
    assert pool.sizes == {"observation_shape": (3,), "act_dim": 1, "num_actions": None}
    assert offline.open_environments(dataclasses.replace(spec, env_id=None, d4rl_physics=False)) is None
    discrete = dataclasses.replace(spec, act_dim=0, num_actions=4, action_low=(), action_high=())
    assert offline.open_environments(discrete).sizes["num_actions"] == 4
    asked = []
    agent = SimpleNamespace(policy=lambda targets: asked.append(targets))
    for targets, given in ((None, (None,)), ((3.0, 4.0), (3.0, 4.0))):
        with pool:
            offline.evaluate_agent(
                agent, spec, targets, num_episodes=2, seed=5, environments=pool, progress="told"
            )
        assert stage.asked.pop() == {
            "env_id": "Hopper-v4",
            "targets": given,
            "seed": 5,
            "num_episodes": 2,
            "d4rl_physics": True,
            "max_episode_steps": 77,
            "score_reference": (1.0, 5.0),
            "progress": "told",
        }
    assert asked == [None, (3.0, 4.0)]


def test_a_line_of_the_evaluations():
    played = evaluation_of(
        -5.0,
        (1.5, np.float64(2.0)),
        episode_lengths=(np.int64(3), 4),
        env_seeds=(8, np.int64(9)),
        normalized_score=50.0,
        failed_episodes=(np.int64(1),),
        seconds=0.12345,
    )
    record = offline.evaluation_record(played, 6, 1.23456)
    assert json.loads(json.dumps(record)) == {
        "step": 6,
        "seconds": 1.235,
        "target_return": -5.0,
        "normalized_score": 50.0,
        "episode_returns": [1.5, 2.0],
        "episode_lengths": [3, 4],
        "env_seeds": [8, 9],
        "failed_episodes": [1],
        "evaluation_seconds": 0.123,
    }
    assert offline.evaluation_score(played) == 50.0
    failed = dataclasses.replace(played, failed_episodes=(0, 1), normalized_score=None)
    assert offline.evaluation_score(failed) == -np.inf


def test_a_run_that_would_not_fit_is_refused_before_anything_is_built(data, tmp_path):
    config = config_of(data)
    with (
        patch.object(type(config.agent), "num_bytes", lambda self, spec: 10**12 * spec.act_dim),
        patch.object(offline, "make_agent", side_effect=AssertionError("built")),
        pytest.raises(ResourceError) as caught,
    ):
        run(config, tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("this model with a batch takes 1,000 GB, more than there is on the device (")
    assert message.endswith("; lower batch_size, context_length or the model's size")


def test_the_schedules_are_those_of_the_runs_steps(data, tmp_path):
    """Warm-up is a share of the run: the first steps of a long one are smaller than of a short one."""
    moved = {}
    for steps in (1, 6):
        path = tmp_path / str(steps)
        config = config_of(data, agent="dt", num_steps=steps, checkpoint_every=1, data_fraction=0.5)
        whole = dataclasses.replace(config.agent, warmup_steps=None)
        run(dataclasses.replace(config, agent=whole), path)
        record = RunDir(path).description()["config"]["agent"]
        moved[steps] = record["warmup_steps"]
        assert record == to_record(dataclasses.replace(config, agent=whole.for_steps(steps)))["agent"]
    built = []
    make = offline.make_agent

    def remember(config, spec, runtime):
        built.append(config)
        return make(config, spec, runtime)

    with patch.object(offline, "make_agent", remember):
        config = config_of(data, agent="dt", num_steps=40)
        run(dataclasses.replace(config, num_steps=40), tmp_path / "built")
    assert built == [config.agent.for_steps(40)]


def test_what_a_run_is_asked_for_reaches_its_parts(data, tmp_path, monkeypatch):
    told = []

    def remember(name):
        original = getattr(offline, name)

        def call(*arguments, **settings):
            told.append((name, arguments, settings))
            return original(*arguments, **settings)

        monkeypatch.setattr(offline, name, call)

    names = (
        "train_sources",
        "limited_memory",
        "open_data",
        "RunProgress",
        "make_trackers",
        "resolve_runtime",
    )
    for name in (*names, "refuse_changed_if_here"):
        remember(name)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: told.append(("threads", number)))
    config, path = config_of(data, arm="mine", precision="bf16", num_threads=2), tmp_path / "run"
    result = train(config, path, study="rates", progress=False)
    description = RunDir(path).description()
    assert (description["arm"], description["study"]) == ("mine", "rates")
    assert description["config"] == json.loads(json.dumps(to_record(config)))
    calls = {call[0]: call[1:] for call in told}
    assert calls["train_sources"] == ((config.agent,), {"progress": False})
    assert calls["limited_memory"] == (("cpu",), {})
    assert calls["resolve_runtime"] == (("cpu", "bf16", 2), {})
    assert calls["threads"] == (2,)
    assert calls["open_data"][0] == (config, None)
    assert calls["open_data"][1]["run"].path == path and calls["open_data"][1]["progress"] is False
    assert calls["RunProgress"] == ((6, "run"), {"enabled": False})
    assert calls["make_trackers"][0][0].path == path and calls["make_trackers"][0][1] is config
    told.clear()
    assert train(config, path, study="rates", progress=False) == result
    assert [call[0] for call in told] == ["refuse_changed_if_here", "make_trackers"]
    assert told[0][1][0].path == path and told[0][1][1] is config
    assert told[1][1][0].path == path and told[1][1][1] is config


def test_a_run_shows_its_progress_unless_told_otherwise_and_is_of_the_study_runs(data, tmp_path, monkeypatch):
    shown, bar = [], offline.RunProgress

    def make(*arguments, enabled):
        shown.append(enabled)
        return bar(*arguments, enabled=False)

    monkeypatch.setattr(offline, "RunProgress", make)
    monkeypatch.setattr(offline, "find_notes", lambda data: [])
    train(config_of(data, num_steps=1), tmp_path / "run")
    assert shown == [True]
    assert RunDir(tmp_path / "run").description()["study"] == "runs"


def test_trackers_of_a_run_are_those_that_its_settings_name(data, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(trackers, "_tensorboard", lambda run: lambda *_: heard.append("tensorboard"))
    monkeypatch.setattr(trackers, "_wandb", lambda *given: lambda *_: heard.append(given[1:]))
    config = config_of(data, num_steps=1, tensorboard=True, wandb="project")
    run(config, tmp_path / "run")
    assert heard == ["tensorboard", ("project", to_record(config))]


def test_a_run_is_held_while_it_trains_and_no_longer(data, tmp_path):
    path, seen = tmp_path / "run", []

    def try_it():
        with pytest.raises(ResourceError, match="another process works on this run"), RunDir(path).lock():
            seen.append("not held")
        seen.append("held")

    with before_update(2, try_it):
        run(config_of(data), path)
    assert seen == ["held"]
    with RunDir(path).lock():
        pass


def test_a_checkpoint_knows_its_data(data, tmp_path):
    config = config_of(data, data_fraction=0.5)
    run(config, tmp_path / "run")
    state = load_checkpoint(tmp_path / "run" / "checkpoints").state
    assert state["data_hash"] == offline.open_data(config)[0].content_hash
    assert state.keys() == {"loop", "agent", "sampler", "rng", "data_hash", "held_out"}


def test_logs_are_on_the_disk_before_the_checkpoint_that_follows_them(data, tmp_path, monkeypatch):
    order = []
    sync, save = RunDir.sync, CheckpointSaver.save

    def first(self):
        order.append("logs")
        return sync(self)

    def second(self, *arguments, **settings):
        order.append("checkpoint")
        return save(self, *arguments, **settings)

    monkeypatch.setattr(RunDir, "sync", first)
    monkeypatch.setattr(CheckpointSaver, "save", second)
    run(config_of(data, checkpoint_every=3), tmp_path / "run")
    assert order[:4] == ["logs", "checkpoint", "logs", "checkpoint"]
    assert Path(tmp_path / "run" / "result.json").exists()


def test_a_run_in_tf32_acts_on_machines_that_have_none(data, tmp_path):
    run(config_of(data, num_steps=2), tmp_path / "run")
    description = json.loads((tmp_path / "run" / "config.json").read_text())
    description["config"]["precision"] = "tf32"
    (tmp_path / "run" / "config.json").write_text(json.dumps(description))
    assert load_run_agent(tmp_path / "run", device="cpu").agent.runtime.precision == "fp32"


def test_acting_leaves_the_callers_number_of_threads_and_commands_take_the_runs(data, tmp_path):
    run(config_of(data, num_steps=2, num_threads=2), tmp_path / "run")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        Policy.from_pretrained(tmp_path / "run")
        assert torch.get_num_threads() == 3
        load_run(tmp_path / "run", device="cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_line_of_an_evaluation_has_all_of_its_targets():
    evaluations = [SimpleNamespace(summary=text) for text in ("target 3: return 1", "target 5: return 2")]
    line = offline.evaluation_line(evaluations, 40)
    assert line == "  step 40: target 3: return 1; target 5: return 2"


def test_callbacks_are_told_of_each_evaluation_and_change_nothing(data, tmp_path, stage):
    told = []

    def listen(found):
        told.append((found.step, [one.target_return for one in found.evaluations], found.policy))
        torch.rand(5)

    config = config_of(data, agent="dt", evaluate_every=3, num_episodes=1, target_returns=(-400.0, -900.0))
    run(config, tmp_path / "heard", on_evaluation=[listen, lambda found: torch.rand(3)])
    run(config, tmp_path / "plain")
    assert [step for step, _, _ in told] == [3, 6] and told[0][1] == [-400.0, -900.0]
    assert told[1][2].target_return == -400.0
    told[1][2].reset()
    assert told[1][2].act(np.zeros(3)).shape == (1,)
    assert are_equal(weights(tmp_path / "heard", 6), weights(tmp_path / "plain", 6))
    run(config_of(data, evaluate_every=6, num_episodes=1), tmp_path / "bc", on_evaluation=listen)
    assert told[2][:2] == (6, [None]) and told[2][2].target_return is None


def test_the_best_checkpoint_is_by_the_held_out_error_where_asked(data, tmp_path, stage, monkeypatch):
    by_step = {2: 3.0, 4: 1.0, 6: 2.0}
    monkeypatch.setattr(HeldOutError, "__call__", lambda self: by_step[self._agent.step])
    stage.scores = [1.0, 2.0, 9.0]
    given = {"evaluate_every": 2, "num_episodes": 1, "validation_share": 0.3}
    run(config_of(data, best_by="held_out", **given), tmp_path / "by_error")
    assert marked(RunDir(tmp_path / "by_error").checkpoints, "best") == 4
    stage.asked.clear()
    run(config_of(data, **given), tmp_path / "by_return")
    assert marked(RunDir(tmp_path / "by_return").checkpoints, "best") == 6


def test_the_log_says_once_how_long_the_rest_will_take(data, tmp_path, clock):
    run(config_of(data, num_steps=6, log_every=2), tmp_path / "run")
    lines_of_log = (tmp_path / "run" / "train.log").read_text().splitlines()
    said = [line for line in lines_of_log if line.startswith("measured over")]
    assert said == ["measured over 2 steps: 1e+03 ms each, about 4 s for the 4 left, without evaluations"]


def test_successes_are_kept_in_records_and_in_the_result(data, tmp_path, stage, monkeypatch):
    def play(policy, env_id, *, target_returns, **asked):
        return [evaluation_of(None, (1.0, 0.0), successes=(True, False))]

    monkeypatch.setattr(offline, "evaluate", play)
    result = run(config_of(data, evaluate_every=6, num_episodes=2), tmp_path / "run")
    assert RunDir(tmp_path / "run").read_log("evaluations.jsonl")[0]["successes"] == [True, False]
    assert result["scores"][0]["success_rate_last"] == 0.5
