"""What the one training loop does: the weights it begins with, the batches it draws, the episodes it plays,
the checkpoint it keeps as best. Nothing here is read from what the loop says about itself."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from chibit.agents import AGENTS
from chibit.core.checkpoint import load_checkpoint, marked
from chibit.data.transitions import TransitionSampler
from chibit.data.windows import WindowSampler
from chibit.evaluation import pool
from chibit.training.offline import train
from chibit.training.run_config import RunConfig

SMALL = {
    "dt": {"context_length": 3, "batch_size": 4, "n_layer": 1, "n_embd": 16, "warmup_steps": 0},
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
    if AGENTS[agent].agent.is_return_conditioned:
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
