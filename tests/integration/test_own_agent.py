"""An agent with the members that docs/extend.md lists, and nothing else, trains, is exported and deployed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from chibit import recipes
from chibit.agents import AGENTS
from chibit.agents.base import Agent, AgentConfig, AgentEntry, AgentState
from chibit.agents.markov import MarkovPolicy
from chibit.agents.saved_policy import Policy
from chibit.cli import main
from chibit.core.fields import Count, Positive
from chibit.data.transitions import TransitionSampler


@dataclass(frozen=True, kw_only=True)
class MineConfig(AgentConfig):
    agent: ClassVar[str] = "mine"
    batch_size: Count = 4
    """Transitions in a batch."""
    learning_rate: Positive = 0.1
    """Step size."""


class Mine(Agent):
    def __init__(self, config, spec, runtime):
        self.config, self.spec, self.runtime, self.step = config, spec, runtime, 0
        self.net = nn.ModuleDict({"line": nn.Linear(spec.state_dim, spec.act_dim)})

    def sampler(self, dataset, generator):
        return TransitionSampler(dataset, batch_size=self.config.batch_size, generator=generator)

    def update(self, batch):
        loss = (self.net["line"](batch.states) - batch.actions).square().mean()
        for parameter, gradient in zip(
            self.net.parameters(), torch.autograd.grad(loss, self.net.parameters()), strict=True
        ):
            parameter.data -= self.config.learning_rate * gradient
        return {"train/loss": loss.item()}

    def policy(self, target_returns):
        return MarkovPolicy(self.spec, self.runtime.torch_device, self.net["line"])

    def action_error(self, batch):
        return (self.net["line"](batch.states) - batch.actions).square().mean().item()

    def modules(self):
        return self.net

    def state_dict(self):
        return AgentState(tensors=self.net.state_dict(), training={"step": 0})

    def load_state_dict(self, state):
        self.net.load_state_dict(state.tensors)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(AGENTS._entries, "mine", AgentEntry(MineConfig, Mine))


def test_it_trains_and_its_policy_is_deployed(registered, pendulum_file, tmp_path):
    run = tmp_path / "run"
    flags = ["--num-steps", "3", "--num-episodes", "1", "--quiet"]
    assert main(["train", "--agent", "mine", "--data", str(pendulum_file), "--out", str(run), *flags]) == 0
    assert main(["show", str(run)]) == 0
    assert main(["export", str(run), "--out", str(tmp_path / "policy"), "--no-video"]) == 0
    policy = Policy.from_pretrained(tmp_path / "policy")
    policy.reset()
    assert policy.act(np.zeros(policy.spec.state_dim, np.float32)).shape == (policy.spec.act_dim,)
    assert main(["train", "--agent", "mine", "--data", "x", "--learning-rate", "-1"]) == 2


def test_a_class_without_a_docstring_has_an_empty_summary():
    assert AgentEntry(MineConfig, Mine).summary == ""
    assert AGENTS["bc"].summary.startswith("A deterministic actor")
    assert recipes.RECIPES["bc"].summary.startswith("BC: A deterministic actor")


def test_what_inherits_nothing_is_refused_when_it_is_registered():
    with pytest.raises(TypeError, match="must inherit AgentConfig"):

        class Odd(Mine, config=dict):
            pass
