"""Agents of others: with the members that docs/extend.md lists and nothing else, of a module, of a plugin."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from chibit import fit, recipes
from chibit.agents import AGENTS, BaselineConfig, ContinuousAgent, adam
from chibit.agents.base import Agent, AgentConfig, AgentState
from chibit.agents.markov import MarkovPolicy
from chibit.agents.registry import AgentEntry, register_agent
from chibit.cli import main
from chibit.core.checkpoint import load_checkpoint
from chibit.core.errors import InputError
from chibit.core.fields import Count, Positive
from chibit.core.runtime import resolve_runtime
from chibit.data.load import from_arrays
from chibit.data.samplers.transitions import TransitionBatch, TransitionSampler
from chibit.environments.registry import ENVIRONMENTS
from chibit.policy.policy import Policy


@dataclass(frozen=True, kw_only=True)
class MineConfig(AgentConfig):
    agent: ClassVar[str] = "mine"
    batch_size: Count = 4
    """Transitions in a batch."""
    learning_rate: Positive = 0.1
    """Step size."""


@dataclass(frozen=True, kw_only=True)
class WrongConfig(BaselineConfig):
    agent: ClassVar[str] = "wrong"
    batch_size: Count = 4
    """Transitions in a batch."""


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


EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
EXAMPLE = EXAMPLES / "my_agent.py"
ADDRESS = "my_agent:ReturnWeighted"


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers and imports is forgotten after it."""
    monkeypatch.setattr(AGENTS, "_entries", dict(AGENTS._entries))
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture
def registered():
    register_agent(MineConfig, Mine)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the example of the documentation, to work in."""
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def forget():
    """As a new process would find things."""
    del sys.modules["my_agent"]
    del AGENTS._entries["return_weighted"]


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


def test_a_config_of_networks_that_it_has_not_is_refused_before_anything_is_trained(pendulum_file, capsys):
    @dataclass(frozen=True, kw_only=True)
    class WideConfig(MineConfig):
        agent: ClassVar[str] = "wide"
        hidden_sizes: tuple[int, ...] = (8,)

    class Wide(Mine):
        pass

    register_agent(WideConfig, Wide)
    assert main(["train", "--agent", "wide", "--data", str(pendulum_file), "--num-steps", "3"]) == 2
    said = capsys.readouterr().err
    assert "'wide': 1 layers of widths up to 8, the weights beside it are 2 tensors of 4 numbers" in said
    assert "what it learned could not be loaded" in said


FLAGS = ["--num-steps", "4", "--num-episodes", "1", "--hidden-sizes", "8", "--device", "cpu", "--quiet"]


def test_the_example_goes_through_every_command(folder, pendulum_file, capsys):
    data = ["--data", str(pendulum_file), *FLAGS]
    assert main(["train", "--agent", ADDRESS, "--out", "run", "--validation-share", "0.34", *data]) == 0
    record = json.loads(Path("run/config.json").read_text())
    assert record["arm"] == "return_weighted"
    assert (record["config"]["agent_name"], record["config"]["agent_class"]) == ("return_weighted", ADDRESS)
    assert "held_out/action_error" in json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert main(["export", "run", "--no-video", "--out", "policy"]) == 0
    forget()
    for command in (["evaluate", "run"], ["show", "run"], ["export", "run", "--no-video"]):
        capsys.readouterr()
        assert main(command) == 2
        assert f"give --agent {ADDRESS} (in Python: import my_agent)" in capsys.readouterr().err
    with pytest.raises(InputError, match=f"agent: 'return_weighted' is not .* give --agent {ADDRESS}"):
        Policy.from_pretrained("policy")
    assert "my_agent" not in sys.modules  # no file causes an import
    assert main(["evaluate", "run", "--agent", ADDRESS, "--num-episodes", "1"]) == 0
    assert main(["show", "run"]) == 0
    assert main(["train", "--config", "run/config.json", "--agent", ADDRESS, "--out", "copy"]) == 0
    policies = [Policy.from_pretrained("policy")]
    assert main(["export", "copy", "--no-video", "--out", "again"]) == 0
    policies.append(Policy.from_pretrained("again"))
    seen = np.array([0.5, 0.1, -2.0], np.float32)
    for policy in policies:
        policy.reset()
    assert np.array_equal(policies[0].act(seen), policies[1].act(seen))


PARTS = {
    "build": lambda self: vars(self).update(net=nn.Linear(3, 1)) or {"net": adam(self.net, 1e-3)},
    "losses": lambda self, batch: {"net": (error(self, batch).mean(), {})},
    "act": lambda self, states: torch.tanh(self.net(states)),
}


def error(agent, batch):
    return (agent.net(batch.states) - batch.actions).square()


@pytest.mark.parametrize(
    ("part", "given", "words"),
    [
        ("build", lambda self: PARTS["build"](self)["net"], "build gave Adam, expected a dictionary of opt"),
        ("build", lambda self: PARTS["build"](self) | {"old": None}, "build gave Adam, NoneType, expected"),
        ("losses", lambda self, batch: error(self, batch).mean(), "losses gave Tensor, expected a dict"),
        ("losses", lambda self, batch: {"nett": (error(self, batch).mean(), {})},
         "losses gave 'nett', expected names of the optimizers of build: net"),
        ("losses", lambda self, batch: {"net": error(self, batch).mean()},
         "losses gave Tensor for 'net', expected a pair: the loss, and a dictionary"),
        ("losses", lambda self, batch: {"net": (error(self, batch), {})},
         "losses gave float32 of shape (4, 1) as 'net', expected a tensor without dimensions"),
        ("losses", lambda self, batch: {"net": (error(self, batch).mean().detach(), {})},
         "losses gave float32 of shape () without a gradient as 'net'"),
        ("losses", lambda self, batch: {"net": (torch.zeros((), requires_grad=True), {})},
         "losses gave 'net' without a parameter of its optimizer in it, expected at least one"),
        ("build", lambda self: {"net": adam(nn.Linear(3, 1).requires_grad_(False), 1e-3)},
         "build gave 'net' with frozen parameters alone, expected one to train"),
        ("losses", lambda self, batch: {"net": (error(self, batch).mean(), {"x": 1.0})},
         "losses logs a float as 'x', expected a tensor"),
        ("act", lambda self, states: self.net(states)[:, 0],
         "act gave float32 of shape (4,) for states (4, 3), expected numbers in [-1, 1] of shape (4, 1)"),
        ("act", lambda self, states: self.net(states).long(), "act gave int64 of shape (4, 1)"),
        ("act", None, "test_what_an_agent_should_not_give_is_refused_in_one_line.<locals>.Wrong does not"),
    ],
)  # fmt: skip
def test_what_an_agent_should_not_give_is_refused_in_one_line(part, given, words, pendulum_file, tmp_path):
    class Wrong(ContinuousAgent, config=WrongConfig):
        locals().update(PARTS | {part: given})

    with pytest.raises(InputError) as refused:
        fit(pendulum_file, Wrong, steps=3, out=tmp_path / "run", num_episodes=0)
    assert f"agent 'wrong': {words}" in str(refused.value)


@pytest.mark.parametrize(
    ("agent", "settings", "words"),
    [
        (
            "dt",
            {"agent": "bc"},
            "settings: 'agent' is no field of DecisionTransformerConfig; a method is chosen",
        ),
        ("bc", {"drop_out": 0.1}, "settings: 'drop_out' is no field of BCConfig; did you mean 'dropout'?"),
        ("bcc", {}, "agent: got 'bcc'; did you mean 'bc'"),
    ],
)
def test_a_recipe_that_no_method_fits_is_refused_in_one_line(monkeypatch, capsys, agent, settings, words):
    recipe = recipes.Recipe(summary="odd", agent=agent, settings=settings)
    monkeypatch.setitem(recipes.RECIPES, "odd", recipe)
    assert main(["train", "--recipe", "odd", "--data", "x"]) == 2
    assert f"recipe 'odd': {words}" in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class DroppingConfig(BaselineConfig):
    agent: ClassVar[str] = "dropping"
    batch_size: Count = 4
    """Transitions in a batch."""


def dropping(*layers):
    class Dropping(ContinuousAgent, config=DroppingConfig):
        losses, act = PARTS["losses"], PARTS["act"]

        def build(self):
            self.net = nn.Sequential(nn.Linear(3, 8), *(layer() for layer in layers), nn.Linear(8, 1))
            return {"net": adam(self.net, 1e-2)}

    return Dropping


def end_of(folder):
    return load_checkpoint(folder / "checkpoints").tensors


@pytest.mark.parametrize("layers", [(nn.Dropout,), (lambda: nn.BatchNorm1d(8),)])
def test_layers_that_act_otherwise_in_training_do_so_there_alone(layers, pendulum_file, tmp_path):
    agent, run = dropping(*layers), {"num_episodes": 0, "log_every": 1, "validation_share": 0.3}
    fit(pendulum_file, agent, steps=6, out=tmp_path / "whole", **run)
    rows = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    # Neither a policy in between, nor measuring more often, nor a resume makes a difference.
    told = []
    data = {"evaluate_every": 2, "on_evaluation": lambda now: told.append(now.policy)}
    fit(pendulum_file, agent, steps=6, out=tmp_path / "seldom", **data, **run | {"log_every": 6})
    fit(pendulum_file, agent, steps=3, out=tmp_path / "parts", **run)
    result = fit(pendulum_file, agent, steps=6, out=tmp_path / "parts", **run)
    assert len(told) == 3
    for name in ("seldom", "parts"):
        assert all(
            torch.equal(value, end_of(tmp_path / name)[key])
            for key, value in end_of(tmp_path / "whole").items()
        )
    again = (tmp_path / "parts/metrics.jsonl").read_text().splitlines()
    assert json.loads(again[-1])["held_out/action_error"] == rows[-1]["held_out/action_error"]
    seen = np.array([0.5, 0.1, -2.0], np.float32)
    acted = []
    for _ in range(2):
        result.policy.agent.update(batch_of(result.policy.agent))  # which has its networks train
        result.policy.agent.load_state_dict(AgentState(tensors=end_of(tmp_path / "whole"), training={}))
        result.policy.reset()
        acted.append(result.policy.act(seen))
    assert np.array_equal(*acted)


def batch_of(agent):
    return TransitionBatch(
        states=torch.randn(4, 3),
        actions=torch.rand(4, 1),
        rewards=torch.zeros(4),
        next_states=torch.randn(4, 3),
        terminations=torch.zeros(4),
        rows=torch.arange(4),
    )


def test_a_parameter_that_no_loss_uses_or_that_is_frozen_stays_as_it_is(pendulum_file, tmp_path):
    drawn = []

    class Spare(ContinuousAgent, config=WrongConfig):
        losses, act = PARTS["losses"], PARTS["act"]

        def build(self):
            self.net, self.spare = nn.Linear(3, 1), nn.Linear(2, 2)
            self.net.bias.requires_grad_(False)
            both = nn.ModuleList([self.net, self.spare])
            drawn.append({name: value.clone() for name, value in both.state_dict().items()})
            return {"net": adam(both, 1e-1)}

    agent = fit(pendulum_file, Spare, steps=3, out=tmp_path / "run", num_episodes=0).policy.agent
    now = nn.ModuleList([agent.net, agent.spare]).state_dict()
    moved = [name for name, value in drawn[0].items() if not torch.equal(value, now[name])]
    assert moved == ["0.weight"]


def test_losses_that_come_later_are_looked_at_too(pendulum_file, tmp_path):
    class Late(ContinuousAgent, config=WrongConfig):
        build, act = PARTS["build"], PARTS["act"]

        def losses(self, batch):
            return {"net" if self.step < 2 else "later": (error(self, batch).mean(), {})}

    with pytest.raises(InputError, match="losses gave 'later', expected names"):
        fit(pendulum_file, Late, steps=4, out=tmp_path / "run", num_episodes=0)


@pytest.mark.parametrize("base", [BaselineConfig, AgentConfig])
def test_rewards_that_an_own_agent_sees_have_the_size_1_and_the_table_says_so(base, tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class ValuedConfig(base):
        agent: ClassVar[str] = "valued"
        batch_size: Count = 64
        """Transitions in a batch."""

    class Valued(ContinuousAgent, config=ValuedConfig):
        def build(self):
            self.actor = nn.Linear(2, 1)
            return {"actor": adam(self.actor, 0.1)}

        losses = act = None

    draw = np.random.default_rng(0)
    rewards, ends = -3e5 + 1e4 * draw.standard_normal(700), np.arange(700) % 7 == 6
    states = draw.standard_normal((700, 2))
    data = from_arrays(states, states[:, :1], rewards, np.zeros(700, bool), ends, cache=tmp_path)
    agent = Valued(ValuedConfig(), data.spec, resolve_runtime("cpu"))
    seen = agent.sampler(data, draw).sample().rewards
    assert abs(seen.mean()) < 1 and 0.5 < seen.std() < 2
    said = [choice.text for choice in ValuedConfig().chosen(data)]
    assert [text.startswith("less -3") for text in said] == [True] * (base is BaselineConfig)
    assert not list(AGENTS["bc"].config().chosen(data))


def test_the_example_with_values_is_trained_in_units_that_users_choose(folder, pendulum_file):
    shutil.copy(EXAMPLES / "my_value_agent.py", ".")
    command = ["train", "--agent", "my_value_agent:Filtered", "--data", str(pendulum_file), *FLAGS]
    for name, scale in (("usual", []), ("as_they_are", ["--reward-scale", "1"])):
        assert main([*command, "--out", name, *scale]) == 0
    assert "rewards         less -" in Path("usual/train.log").read_text()
    losses = [
        json.loads(Path(name, "metrics.jsonl").read_text().splitlines()[-1])["train/critic_loss"]
        for name in ("usual", "as_they_are")
    ]
    assert losses[0] < 5 < losses[1]


def test_the_cards_example_runs_with_an_agent_and_an_environment_of_ones_own(folder, monkeypatch, capsys):
    shutil.copy(EXAMPLES / "my_tank.py", ".")
    monkeypatch.setattr(ENVIRONMENTS, "_entries", dict(ENVIRONMENTS._all()))
    monkeypatch.setenv("CHIBIT_PLUGINS", "")
    level = np.random.default_rng(0).uniform(size=(200, 1))
    ends = np.arange(200) % 20 == 19
    np.savez("log.npz", observations=level, actions=0.2 * level, rewards=level[:, 0], truncations=ends)
    modules = ["--env-module", "my_tank", "--env-id", "Tank-v0"]
    assert main(["train", "--agent", ADDRESS, "--data", "log.npz", "--out", "run", *modules, *FLAGS]) == 0
    assert main(["export", "run", "--no-video", "--out", "policy"]) == 0
    (code,) = re.findall(r"```python\n(.*?)```", Path("policy/README.md").read_text(), flags=re.DOTALL)
    assert code.startswith("import my_agent  # yours\nimport my_tank  # yours\nimport chibit\n")
    (folder / "card.py").write_text(code.replace('"."', '"policy"'))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, "."]), "CHIBIT_PLUGINS": ""}
    done = subprocess.run([sys.executable, "card.py"], env=environment, capture_output=True, text=True)
    assert np.isfinite(float(done.stdout)), done.stderr
    del ENVIRONMENTS._entries["Tank-v0"]
    gym.registry.pop("Tank-v0")
    assert main(["export", "run", "--no-video", "--out", "other"]) == 0
    assert "# import here what registers Tank-v0\nimport chibit" in Path("other/README.md").read_text()


def test_the_example_is_an_arm_of_a_study_and_of_its_report(folder, pendulum_file):
    flags = ["--num-steps", "4", "--num-episodes", "1", "--engine", "process", "--seeds", "0"]
    command = ["study", "baselines", "--agent", ADDRESS, "--data", str(pendulum_file), *flags]
    assert main([*command, "--arms", "bc", "return_weighted"]) == 0
    forget()
    assert main(["report", "runs/baselines", "--out", "page", "--baseline", "bc"]) == 0
    assert "return\\_weighted scores" in Path("page/report.md").read_text()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("no_such_module:MyAgent", "no_such_module cannot be imported (ModuleNotFoundError"),
        ("my_agent:Nothing", "my_agent:Nothing is no agent"),
        ("my_agent:ReturnWeightedConfig", "is no agent"),
        ("my_agent:", "expected a key or MODULE:NAME"),
        ("../my_agent:ReturnWeighted", "expected a key or MODULE:NAME"),
        ("my_broken:MyAgent", "my_broken cannot be imported (ZeroDivisionError"),
    ],
)
def test_what_is_no_agent_is_refused_in_one_line(folder, capsys, address, words):
    Path("my_broken.py").write_text("1 / 0")
    assert main(["train", "--agent", address, "--data", "x"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_an_unfinished_agent_and_a_taken_key_are_refused(folder, pendulum_file, capsys):
    text = EXAMPLE.read_text()
    Path("my_taken.py").write_text(text.replace('"return_weighted"', '"bc"'))
    assert main(["train", "--agent", "my_taken:ReturnWeighted", "--data", "x"]) == 2
    assert "agent 'bc' is chibit.agents.bc:BC already" in capsys.readouterr().err
    Path("my_unfinished.py").write_text(text.replace("def act(", "def acts("))
    command = ["train", "--agent", "my_unfinished:ReturnWeighted", "--data", str(pendulum_file)]
    assert main(command) == 2
    assert "agent 'return_weighted': ReturnWeighted does not define act" in capsys.readouterr().err


def test_agents_of_installed_packages_are_known_and_broken_ones_left_out(folder, monkeypatch, caplog):
    for name, target in (("my_plugin", ADDRESS), ("my_bad_plugin", "my_broken:MyAgent")):
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[chibit.agents]\nany = {target}\n")
    Path("my_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(AGENTS, "_has_plugins", False)
    monkeypatch.setattr(logging.getLogger("chibit"), "propagate", True)
    assert AGENTS["return_weighted"].address == ADDRESS
    assert "bc" in AGENTS and recipes.find_recipe("return_weighted", "").agent == "return_weighted"
    assert "my_broken:MyAgent is left out: division by zero" in caplog.text
