"""What the one training loop does: the weights it begins with, the batches it draws, the episodes it plays,
the checkpoint it keeps as best. Nothing here is read from what the loop says about itself."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time

import gymnasium as gym
import numpy as np
import pytest
import torch

from chibit.agents import AGENTS
from chibit.core.checkpoint import CheckpointSaver, load_checkpoint, marked
from chibit.core.run_dir import RunDir
from chibit.data.load import load_dataset
from chibit.data.samplers.transitions import TransitionSampler
from chibit.data.samplers.windows import WindowSampler
from chibit.evaluation import pool
from chibit.models.gpt import GPTShape
from chibit.training import offline
from chibit.training.offline import train
from chibit.training.run_config import RunConfig

SMALL = {
    "dt": {"context_length": 3, "batch_size": 4, "gpt": GPTShape(n_layer=1, n_embd=16), "warmup_steps": 0},
    "td3_bc": {"hidden_sizes": (16, 16), "batch_size": 8},
}
EPISODES = 2
"""For each target at each evaluation."""


class Stage:
    """Environments of Pendulum's sizes that play what they are told, and remember how they began."""

    def __init__(self) -> None:
        self.returns: list[list[float | None]] = []
        """By evaluation and episode; None fails at its second step. Where the list ends it is 0."""
        self.starts: list[tuple[float, ...]] = []
        """First observation of every episode, in the order of play."""
        self.num_draws = 0
        """Numbers that each step takes from torch's generator."""

    def begin(self, start: np.ndarray) -> float | None:
        number = len(self.starts)
        self.starts.append(tuple(float(value) for value in start))
        planned = [value for evaluation in self.returns for value in evaluation]
        return planned[number] if number < len(planned) else 0.0


class Scripted(gym.Env):
    """Three steps; the whole return comes at the last."""

    observation_space = gym.spaces.Box(-8.0, 8.0, (3,))
    action_space = gym.spaces.Box(-2.0, 2.0, (1,))

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, start = 3, self.np_random.uniform(-1, 1, 3)
        self.planned = self.stage.begin(start)
        return start, {}

    def step(self, action):
        torch.rand(self.stage.num_draws)
        self.left -= 1
        if self.planned is None and self.left == 1:
            raise RuntimeError("the simulation broke down")
        return np.zeros(3), float(self.planned or 0.0) * (self.left == 0), self.left == 0, False, {}


@pytest.fixture
def stage(monkeypatch):
    stage = Stage()
    monkeypatch.setattr(pool, "make_env", lambda env_id, **_: Scripted(stage))
    return stage


@pytest.fixture
def drawn(monkeypatch):
    """Rows of every batch that is drawn."""
    rows: list[list[int]] = []
    for sampler in (TransitionSampler, WindowSampler):
        monkeypatch.setattr(sampler, "sample", _remember(sampler.sample, rows))
    return rows


def _remember(sample, rows):
    def remembered(self):
        batch = sample(self)
        rows.append(batch.rows.tolist())
        return batch

    return remembered


def config_of(agent, data, *, settings=None, **fields):
    config = AGENTS[agent].config(**{**SMALL[agent], **(settings or {})})
    given = {"num_steps": 4, "evaluate_every": 1, "num_episodes": EPISODES, "device": "cpu", **fields}
    if AGENTS[agent].config().takes_target_returns:
        given.setdefault("target_returns", (-500.0,))
    return RunConfig(data=str(data), agent=config, **given)


def weights(path, step=None):
    return load_checkpoint(path / "checkpoints", step).tensors


def distance(first, second):
    """Largest difference of any weight."""
    return max(
        float((first[name] - second[name]).abs().max()) for name in first if first[name].is_floating_point()
    )


def are_equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("agent", SMALL)
def test_another_seed_begins_from_other_weights(pendulum_file, tmp_path, agent):
    """One step of Adam moves a weight by 1e-4 here: what is further apart began apart."""
    slow = {"learning_rate": 1e-4}
    for seed in (3, 4):
        config = config_of(agent, pendulum_file, settings=slow, seed=seed, num_steps=1, num_episodes=0)
        train(config, tmp_path / str(seed), progress=False)
    assert distance(weights(tmp_path / "3"), weights(tmp_path / "4")) > 0.01


@pytest.mark.parametrize("agent", SMALL)
def test_batches_belong_to_the_seed(pendulum_file, tmp_path, drawn, agent):
    for name, seed in (("a", 3), ("b", 4), ("c", 3)):
        config = config_of(agent, pendulum_file, seed=seed, num_episodes=0)
        train(config, tmp_path / name, progress=False)
    a, b, c = drawn[:4], drawn[4:8], drawn[8:]
    assert a == c
    assert all(first != second for first, second in zip(a, b, strict=True))
    assert len({tuple(rows) for rows in a}) == 4


def test_arms_that_share_a_seed_play_the_same_episodes(pendulum_file, tmp_path, stage):
    """At each evaluation, whatever its step: arms are compared on equal starts."""
    for agent, every in (("td3_bc", 1), ("dt", 3)):
        config = config_of(agent, pendulum_file, seed=3, num_steps=3 * every, evaluate_every=every)
        train(config, tmp_path / agent, progress=False)
    played = 3 * EPISODES
    assert len(stage.starts) == 2 * played
    assert stage.starts[:played] == stage.starts[played:]


def test_every_evaluation_plays_other_episodes(pendulum_file, tmp_path, stage):
    train(config_of("td3_bc", pendulum_file), tmp_path / "run", progress=False)
    assert len(set(stage.starts)) == len(stage.starts) == 4 * EPISODES


def test_every_target_plays_the_same_episodes(pendulum_file, tmp_path, stage):
    config = config_of("dt", pendulum_file, num_steps=1, target_returns=(-500.0, -900.0, 0.0))
    train(config, tmp_path / "run", progress=False)
    first, second, third = (stage.starts[EPISODES * i : EPISODES * (i + 1)] for i in range(3))
    assert first == second == third
    assert len(set(first)) == EPISODES


def test_another_seed_plays_other_episodes(pendulum_file, tmp_path, stage):
    for seed in (3, 4):
        train(config_of("td3_bc", pendulum_file, seed=seed), tmp_path / str(seed), progress=False)
    played = 4 * EPISODES
    assert len(stage.starts) == 2 * played
    assert not set(stage.starts[:played]) & set(stage.starts[played:])


def test_best_holds_the_weights_of_the_best_evaluation(pendulum_file, tmp_path, stage):
    """The first of those that are equally good, also where checkpoints are rarer than evaluations."""
    stage.returns = [[3.0, 5.0], [7.0, 9.0], [8.0, 8.0], [-4.0, 2.0], [7.0, 8.0], [1.0, 0.0]]
    config = config_of("td3_bc", pendulum_file, num_steps=6, checkpoint_every=6)
    train(config, tmp_path / "run", progress=False)
    assert marked(tmp_path / "run" / "checkpoints", "best") == 2
    train(dataclasses.replace(config, num_steps=2), tmp_path / "short", progress=False)
    assert are_equal(weights(tmp_path / "run", 2), weights(tmp_path / "short", 2))
    assert marked(tmp_path / "run" / "checkpoints", "last") == 6


def test_the_first_target_decides_what_is_best(pendulum_file, tmp_path, stage):
    stage.returns = [[1.0, 1.0, 9.0, 9.0], [2.0, 2.0, 3.0, 3.0], [0.0, 0.0, 99.0, 99.0]]
    config = config_of("dt", pendulum_file, num_steps=3, target_returns=(-500.0, -900.0))
    train(config, tmp_path / "run", progress=False)
    assert marked(tmp_path / "run" / "checkpoints", "best") == 2


def test_failed_episodes_count_nowhere(pendulum_file, tmp_path, stage):
    """Neither in what is best nor in the result: 12 beside a failure beats 10 and 11."""
    stage.returns = [[10.0, 11.0], [12.0, None], [None, None], [4.0, None]]
    result = train(config_of("td3_bc", pendulum_file), tmp_path / "run", progress=False)
    assert marked(tmp_path / "run" / "checkpoints", "best") == 2
    [row] = result["scores"]
    assert (row["best"], row["best_step"]) == (12.0, 2)
    assert row["last"] == row["mean_return_last"] == 4.0


@pytest.mark.parametrize("agent", SMALL)
def test_evaluating_changes_nothing_in_training(pendulum_file, tmp_path, stage, drawn, agent):
    """Not even where playing draws from torch's generators, which dropout and noise draw from too."""
    settings = {"dropout": 0.2} if agent == "dt" else {}
    stage.num_draws = 3
    for name, num_episodes in (("with", EPISODES), ("without", 0)):
        config = config_of(agent, pendulum_file, settings=settings, num_episodes=num_episodes)
        train(config, tmp_path / name, progress=False)
    assert len(stage.starts) == 4 * EPISODES
    assert drawn[:4] == drawn[4:]
    assert are_equal(weights(tmp_path / "with"), weights(tmp_path / "without"))


@pytest.mark.parametrize("agent", SMALL)
def test_the_precision_reaches_the_computation(pendulum_file, tmp_path, agent):
    for precision in ("fp32", "bf16"):
        config = config_of(agent, pendulum_file, precision=precision, num_episodes=0)
        train(config, tmp_path / precision, progress=False)
    exact, rounded = weights(tmp_path / "fp32"), weights(tmp_path / "bf16")
    assert 0 < distance(exact, rounded) < 0.01
    assert {tensor.dtype for tensor in rounded.values() if tensor.is_floating_point()} == {torch.float32}


class Told:
    """Stands in for the progress bar and for a tracker, and remembers what it is told."""

    def __init__(self, num_steps, name, *, enabled):
        self.made, self.steps, self.said = (num_steps, name, enabled), [], []
        self.began, self.bar, self.num_evaluations = None, self, 0
        self.is_shown = enabled

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def start(self, step):
        self.began = step

    def say(self, message):
        self.said.append(message)

    def advance(self, loss):
        self.steps.append(loss)

    @contextlib.contextmanager
    def evaluating(self):
        yield
        self.num_evaluations += 1


@pytest.fixture
def told(monkeypatch):
    """The progress bars that runs made."""
    bars = []

    def make(*arguments, **settings):
        bars.append(Told(*arguments, **settings))
        return bars[-1]

    monkeypatch.setattr(offline, "RunProgress", make)
    return bars


@pytest.fixture
def tracked(monkeypatch):
    """(step, metrics) that trackers were told."""
    heard = []
    monkeypatch.setattr(
        offline, "make_trackers", lambda *_, **__: [lambda step, metrics: heard.append((step, dict(metrics)))]
    )
    return heard


def test_the_log_has_the_means_since_the_line_before_and_trackers_hear_them(
    pendulum_file, tmp_path, stage, told, tracked
):
    stage.returns = [[3.0, 5.0], [7.0, 8.0]]
    config = config_of("td3_bc", pendulum_file, num_steps=6, log_every=2, evaluate_every=3)
    started = time.perf_counter()
    result = train(config, tmp_path / "run", progress=True)
    passed = time.perf_counter() - started
    [bar] = told
    assert bar.made == (6, "run", True)
    assert (bar.began, len(bar.steps), bar.closed) == (0, 6, True)
    log = RunDir(tmp_path / "run").read_log("metrics.jsonl")
    assert [record["step"] for record in log] == [2, 4, 6]
    for i, record in enumerate(log):
        assert record["train/loss"] == pytest.approx(np.mean(bar.steps[2 * i : 2 * i + 2]), rel=1e-6)
    assert 0 < log[0]["seconds"] < log[1]["seconds"] < log[2]["seconds"] < passed
    assert log[2]["seconds"] == pytest.approx(result["train_seconds"], abs=1e-9)
    assert 0 < result["evaluation_seconds"] < passed
    plays = [(step, metrics) for step, metrics in tracked if "eval/None/score" in metrics]
    assert plays == [(3, {"eval/None/score": 4.0}), (6, {"eval/None/score": 7.5})]
    lines = [(step, metrics) for step, metrics in tracked if "train/loss" in metrics]
    told_of = [{k: v for k, v in record.items() if "/" in k} for record in log]
    assert lines == list(zip((2, 4, 6), told_of, strict=True))
    said = [line.split(" ±")[0] for line in bar.said if line.startswith("  step")]
    assert said == ["  step 3: return 4.00", "  step 6: return 7.50"]
    assert bar.num_evaluations == 2


def test_a_metric_of_some_steps_is_the_mean_over_those(pendulum_file, tmp_path, monkeypatch):
    """As the actor's of methods that move it at every other step only."""
    updates = []
    original = AGENTS["td3_bc"].agent.update

    def update(self, batch):
        metrics = {**original(self, batch), "train/step": float(len(updates))}
        if len(updates) % 2:
            metrics["train/odd"] = float(len(updates))
        updates.append(metrics)
        return metrics

    monkeypatch.setattr(AGENTS["td3_bc"].agent, "update", update)
    config = config_of("td3_bc", pendulum_file, num_steps=8, log_every=4, num_episodes=0)
    train(config, tmp_path / "run", progress=False)
    first, second = RunDir(tmp_path / "run").read_log("metrics.jsonl")
    assert (first["train/odd"], second["train/odd"]) == (2.0, 6.0)
    assert (first["train/step"], second["train/step"]) == (1.5, 5.5)


def test_an_evaluation_is_recorded_whole(pendulum_file, tmp_path, stage):
    stage.returns = [[3.0, None, 4.0, 5.0]]
    config = config_of("dt", pendulum_file, num_steps=2, evaluate_every=2, target_returns=(-500.0, -900.0))
    train(config, tmp_path / "run", progress=False)
    first, second = RunDir(tmp_path / "run").read_log("evaluations.jsonl")
    assert (first["step"], first["target_return"], second["target_return"]) == (2, -500.0, -900.0)
    assert (first["episode_returns"], second["episode_returns"]) == ([3.0, 0.0], [4.0, 5.0])
    assert (first["episode_lengths"], second["episode_lengths"]) == ([3, 1], [3, 3])
    assert (first["failed_episodes"], second["failed_episodes"]) == ([1], [])
    assert first["env_seeds"] == second["env_seeds"]
    assert len(set(first["env_seeds"])) == 2
    assert first["normalized_score"] is None
    [line] = RunDir(tmp_path / "run").read_log("metrics.jsonl")
    assert first["seconds"] == line["seconds"]
    assert 0 <= first["evaluation_seconds"] < 60


def test_checkpoints_come_at_their_cadence(pendulum_file, tmp_path, stage, monkeypatch):
    """Each holds the step that it was taken at, and the sums that are not yet in the log."""
    stage.returns = [[9.0, 9.0]]
    saved = []
    original = CheckpointSaver.save

    def save(self, step, tensors, state, *, marks):
        saved.append((step, tuple(marks), copy.deepcopy(state["loop"])))
        return original(self, step, tensors, state, marks=marks)

    monkeypatch.setattr(CheckpointSaver, "save", save)
    config = config_of(
        "td3_bc", pendulum_file, num_steps=6, checkpoint_every=4, evaluate_every=3, log_every=5
    )
    train(config, tmp_path / "run", progress=False)
    # The best evaluation is kept whatever the cadence, and so is the end.
    assert [(step, marks) for step, marks, _ in saved] == [
        (3, ("last", "best")),
        (4, ("last",)),
        (6, ("last",)),
    ]
    loops = [loop for _, _, loop in saved]
    assert [loop["step"] for loop in loops] == [3, 4, 6]
    assert [loop["best_score"] for loop in loops] == [9.0, 9.0, 9.0]
    assert [set(loop["counts"].values()) for loop in loops] == [{3}, {4}, set()]
    assert loops[0]["sums"].keys() == loops[0]["counts"].keys()
    assert loops[0]["train_seconds"] > 0


def test_without_episodes_or_an_environment_nothing_is_played(pendulum_file, tmp_path, stage):
    columns = {name: values for name, values in np.load(pendulum_file).items() if name != "env_id"}
    np.savez(tmp_path / "bare.npz", **columns)
    for name, data, episodes in (("none", pendulum_file, 0), ("bare", tmp_path / "bare.npz", 2)):
        result = train(config_of("td3_bc", data, num_episodes=episodes), tmp_path / name, progress=False)
        assert result["scores"] == []
        assert marked(tmp_path / name / "checkpoints", "last") == 4
        assert marked(tmp_path / name / "checkpoints", "best") is None
    assert stage.starts == []


def test_targets_are_the_runs_or_the_datas_own(pendulum_file, tmp_path, stage):
    config = config_of("dt", pendulum_file, num_steps=1)
    own = load_dataset(str(pendulum_file), progress=False).spec.default_target_returns
    for name, given, expected in (("given", (-7.0,), (-7.0,)), ("own", None, own)):
        train(dataclasses.replace(config, target_returns=given), tmp_path / name, progress=False)
        records = RunDir(tmp_path / name).read_log("evaluations.jsonl")
        assert tuple(record["target_return"] for record in records) == expected


def test_a_run_begins_with_notes_on_its_data(pendulum_file, tmp_path, told, monkeypatch):
    monkeypatch.setattr(offline, "find_notes", lambda data: [f"{data.num_episodes} odd episodes", "more"])
    for _ in range(2):  # the second time it only returns what is there
        train(config_of("td3_bc", pendulum_file, num_episodes=0), tmp_path / "run", progress=False)
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("data: 6 odd episodes") == log.count("data: more") == 1
    assert told[0].said[:2] == ["data: 6 odd episodes", "data: more"]
    assert "chosen for this run:" in told[0].said
