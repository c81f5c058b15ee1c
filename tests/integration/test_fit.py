"""Training in one call: from arrays, a name or a data set to a policy that acts, in Python alone."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import chibit
from chibit.agents.bc import BC, BCConfig
from chibit.cli import main
from chibit.core.config import to_json
from chibit.core.errors import DamagedFileError, DivergenceError, InputError

SMALL = {"batch_size": 4, "context_length": 3, "n_layer": 1, "n_embd": 16}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def arrays():
    generator, steps = np.random.default_rng(0), 60
    return {
        "observations": generator.normal(size=(steps, 4)),
        "actions": generator.uniform(-1, 1, size=(steps, 2)),
        "rewards": generator.normal(size=steps),
        "terminations": np.arange(1, steps + 1) % 10 == 0,
    }


class Recurrent(torch.nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.width, self.cell = width, torch.nn.GRU(width, width, batch_first=True)

    def forward(self, embeddings):
        return self.cell(embeddings)[0]


def test_three_lines_train_and_act(arrays):
    dataset = chibit.from_arrays(**arrays)
    result = chibit.fit(dataset, "random", steps=3, seed=0, out="runs/x", **SMALL)
    action = result.policy.act(arrays["observations"][0])
    assert action.shape == (2,)
    assert result.record["steps"] == 3 and result.scores == [] and result.path == Path("runs/x")
    config = json.loads(Path("runs/x/config.json").read_text())
    assert (config["arm"], config["config"]["agent"]["n_layer"], config["config"]["data"]) == (
        "random", 1, str(dataset.folder),
    )  # fmt: skip
    with pytest.raises(InputError, match="steps, num_steps: mean the same"):
        chibit.fit(dataset, "random", steps=3, num_steps=4, out="runs/y", **SMALL)
    again = chibit.fit(str(dataset.folder), "random", steps=3, seed=0, out="runs/x", **SMALL)
    assert np.array_equal(again.policy.act(arrays["observations"][0]), action)
    assert main(["export", "runs/x", "--out", "policy", "--no-video"]) == 0  # a run as any other


def test_a_run_loads_as_a_policy_and_acts_as_its_export(arrays):
    result = chibit.fit(arrays, "random", steps=3, out="run", target_returns=(2.0,), **SMALL)
    assert main(["report", "run"]) == 0  # which writes into it
    policies = [chibit.Policy.from_pretrained("run"), result.policy]
    policies.append(chibit.Policy.from_pretrained(result.policy.save_pretrained("policy")))
    actions = []
    for policy in policies:
        policy.reset()
        actions.append(policy.act(arrays["observations"][5]))
    assert policies[0].target_return == 2.0
    assert np.array_equal(actions[0], actions[1]) and np.array_equal(actions[0], actions[2])
    assert chibit.Policy.from_pretrained("run", target_return=-1.0).target_return == -1.0


@pytest.mark.parametrize(
    ("change", "given", "words"),
    [
        ({"rewardz": 0}, {}, "data: unknown 'rewardz'; did you mean 'reward' or 'rewards'"),
        ({"rewards": None}, {}, "data: no rewards; got observations, actions, terminations, expected arrays"),
        ({}, {"out": 3}, "out: got 3, expected a path"),
        ({}, {"init_from": 3}, "init_from: got 3, expected a path"),
        ({}, {"on_evaluation": 3}, "on_evaluation: got 3, expected a function, or a list of them"),
        ({}, {"on_evaluation": ["a"]}, r"on_evaluation: got \['a'\], expected a function"),
        ({}, {"target_returns": [3]}, "target_returns: agent bc takes none; leave them out"),
        ({}, {"backbone": torch.nn.ReLU}, "backbone: agent bc has none; use dt, or a recipe of it"),
        ({}, {"agent": "dt", "backbone": torch.nn.GRU}, "backbone: GRU cannot be made without arguments"),
    ],
)
def test_what_does_not_fit_is_refused_at_once_in_a_line(arrays, change, given, words):
    data = {**arrays, **{name: arrays["rewards"] for name in change if change[name] is not None}}
    data = {name: values for name, values in data.items() if change.get(name, 0) is not None}
    with pytest.raises(InputError, match=words) as refused:
        chibit.fit(data, **{"agent": "bc", "steps": 2, "out": "run", **given})
    assert "\n" not in str(refused.value) and not Path("run").exists()


def test_arrays_go_by_usual_names_too_and_a_lambda_makes_a_backbone(arrays):
    usual = dict(zip(("obs", "act", "reward", "timeout"), arrays.values(), strict=True))
    result = chibit.fit(
        usual, "dt", steps=1, out="run", backbone=lambda: Recurrent(8), target_returns=np.array([1.0, 2.0]),
        context_length=2,
    )  # fmt: skip
    assert result.policy.act(arrays["observations"][0]).shape == (2,)
    assert result.policy.agent.config.initializer == "own:Recurrent"
    assert not chibit.load_dataset(json.loads(
        Path("run/config.json").read_text())["config"]["data"]).terminations.any()  # fmt: skip


def test_a_run_that_cannot_act_yet_is_refused(arrays):
    chibit.fit(arrays, "bc", steps=2, out="run")
    Path("run/checkpoints").rename("elsewhere")
    with pytest.raises(InputError, match="run: has no checkpoint yet; let it train on"):
        chibit.Policy.from_pretrained("run")
    record = json.loads(Path("run/config.json").read_text())
    record["config"]["precision"] = 3
    Path("run/config.json").write_text(json.dumps(record))
    with pytest.raises(DamagedFileError, match=r"config\.json\.precision: got 3"):
        chibit.Policy.from_pretrained("run")


def test_arrays_by_name_classes_and_configs_of_agents_are_taken(arrays):
    results = [
        chibit.fit(**arrays, agent="bc", steps=2, hidden_sizes=(8,), out="a"),
        chibit.fit(arrays, BC, steps=2, hidden_sizes=(8,), out="b"),
        chibit.fit(arrays, BCConfig(hidden_sizes=(8,)), steps=2, out="c"),
        chibit.fit(arrays, "chibit.agents.bc:BC", steps=2, hidden_sizes=(8,), out="d"),
    ]
    actions = [result.policy.act(arrays["observations"][0]) for result in results]
    assert all(np.array_equal(actions[0], action) for action in actions)
    longer = chibit.fit(
        arrays, "bc", steps=3, hidden_sizes=(8,), out="b"
    )  # the same run, however it is named
    assert longer.record["steps"] == 3
    with pytest.raises(InputError, match=r"another configuration \(.*hidden_sizes \[8\], now \[9\]"):
        chibit.fit(arrays, BC, steps=3, hidden_sizes=(9,), out="b")


def test_what_follows_an_evaluation_sees_it_and_does_not_change_the_run(pendulum_file):
    told, drawn = [], []
    run = {"steps": 4, "evaluate_every": 2, "num_episodes": 1, "target_returns": (-100.0,), **SMALL}
    plain = chibit.fit(str(pendulum_file), "random", out="plain", env="Pendulum-v1", **run)

    def look(event):
        event.policy.reset()
        told.append((event.step, event.evaluations[0].mean_return, event.policy.act(np.ones(3))))
        drawn.append(torch.rand(3))

    watched = chibit.fit(
        pendulum_file,
        "random",
        out="watched",
        env="Pendulum-v1",
        on_evaluation=[look, drawn.append],
        **run,
    )
    assert [step for step, _, _ in told] == [2, 4] and len(drawn) == 4
    assert not np.array_equal(told[0][2], told[1][2])  # what had been learned by then
    assert told[1][1] == watched.scores[0]["mean_return_last"] == plain.scores[0]["mean_return_last"]
    state = [result.policy.agent.modules().state_dict() for result in (plain, watched)]
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])


def test_what_follows_evaluations_is_called_without_an_environment_too(arrays):
    told = []
    chibit.fit(arrays, "bc", steps=4, evaluate_every=2, out="run", on_evaluation=told.append)
    assert [(event.step, event.evaluations) for event in told] == [(2, ()), (4, ())]


def test_a_part_of_a_data_set_is_trained_on_and_another_part_refused(arrays):
    dataset = chibit.from_arrays(**arrays)
    first, second = dataset.held_out_split(0.5, seed=0)
    chibit.fit(first, "bc", steps=2, out="run")
    record = json.loads(Path("run/provenance.json").read_text())
    assert record["data_episodes"] == 3 and record["dataset"]["state_mean"] == to_json(first.spec.state_mean)
    with pytest.raises(DamagedFileError, match="has changed since this run began"):
        chibit.fit(second, "bc", steps=2, out="run")


@pytest.mark.parametrize("name", ["log", "a" * 230, "log\u00a0of\u202ewords"])
def test_a_run_ends_whatever_its_data_and_its_command_are_called(arrays, monkeypatch, name):
    command = ["my.py", "several\nlines", "x" * 300]
    monkeypatch.setattr(sys, "argv", command)
    np.savez(f"{name}.npz", **arrays)
    for steps in (1, 2):  # and goes on
        assert (
            chibit.fit(f"{name}.npz", "bc", steps=steps, out="run", hidden_sizes=(8,)).record["steps"]
            == steps
        )
    provenance = json.loads(Path("run/provenance.json").read_text())
    assert provenance["argv"] == command and provenance["data_name"].isprintable()
    assert provenance["dataset"]["name"] == name


def test_what_is_not_finite_is_left_out_of_the_log_and_a_loss_that_is_not_ends_the_run(arrays, monkeypatch):
    settings = {"hidden_sizes": (8,), "log_every": 1, "steps": 2}
    huge = arrays | {"actions": 1e20 * arrays["actions"]}  # whose square is above single precision
    chibit.fit(huge, "bc", out="huge", validation_share=0.3, **settings)
    lines = [json.loads(line) for line in Path("huge/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all("train/loss" in line for line in lines)
    assert not any("held_out/action_error" in line for line in lines)
    log = Path("huge/train.log").read_text()
    assert log.count("held_out/action_error is inf at step 1; metrics.jsonl has it where it is finite") == 1
    update = BC.update
    monkeypatch.setattr(BC, "update", lambda self, batch: {**update(self, batch), "train/loss": np.nan})
    with pytest.raises(DivergenceError, match="loss is nan at step 1, expected a finite number"):
        chibit.fit(arrays, "bc", out="nan", **settings)


def test_a_run_may_be_written_below_home(arrays, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "home"))
    result = chibit.fit(arrays, "bc", steps=1, out="~/run", hidden_sizes=(8,))
    assert result.path == folder / "home" / "run" and result.policy.act(arrays["observations"][0]).shape == (
        2,
    )
    config = chibit.RunConfig(data=str(result.policy.spec.name), agent="bc", num_steps=1)
    with pytest.raises(InputError, match=f"{folder}/home/run: holds a run with another configuration"):
        chibit.train(config, "~/run")
    result.policy.save_pretrained("~/policy")
    chibit.Policy.from_pretrained("~/policy")
    chibit.build_report("~/run", out="~/page", formats=["md"])
    assert {path.name for path in (folder / "home").iterdir()} >= {"run", "policy", "page"}
    assert not (folder / "~").exists()


@pytest.mark.parametrize("more", ["b.npz", ("b.npz",)])
def test_more_data_are_trained_on(arrays, more):
    np.savez("a.npz", **arrays)
    np.savez("b.npz", **{name: values[:20] for name, values in arrays.items()})
    chibit.fit("a.npz", "bc", steps=1, out="run", more_data=more, data_weights=(1, 2), hidden_sizes=(8,))
    config, provenance = (
        json.loads(Path("run", name).read_text()) for name in ("config.json", "provenance.json")
    )
    assert provenance["data_episodes"] == 8 and len(provenance["mixed"]) == 2
    assert len(config["config"]["more_data"]) == 1 and config["config"]["data_weights"] == [1.0, 2.0]


def test_a_backbone_of_ones_own_is_trained_saved_and_needed_again(arrays):
    torch.manual_seed(5)
    backbone = Recurrent()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    result = chibit.fit(arrays, "dt", steps=3, backbone=backbone, batch_size=4, context_length=3, out="run")
    trained = result.policy.agent.model.backbone.body.state_dict()
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert any(not torch.equal(before[name], trained[name]) for name in before)
    assert (trained["cell.bias_ih_l0"] - before["cell.bias_ih_l0"]).abs().max() < 0.01  # its weights, moved
    record = json.loads(Path("run/config.json").read_text())
    assert (record["arm"], record["config"]["agent"]["init"]) == ("Recurrent", "own:Recurrent")
    result.policy.save_pretrained("policy")
    action = result.policy.act(arrays["observations"][0])
    code = (
        "import sys, numpy as np, chibit, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "for source in ('policy', 'run'):\n"
        "    try:\n        chibit.Policy.from_pretrained(source)\n"
        "    except chibit.UserError as error:\n        print(error)\n"
        "from test_fit import Recurrent\n"
        "chibit.register_backbone(Recurrent)\n"
        "policy = chibit.Policy.from_pretrained('policy')\npolicy.reset()\n"
        f"print(np.array_equal(policy.act({arrays['observations'][0].tolist()}), {action.tolist()}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    said = "initializer 'own:Recurrent' is a backbone of somebody's own; call chibit.register_backbone"
    assert [line.startswith(said) for line in lines] == [True, True, False] and lines[2] == "True"


def test_a_class_makes_a_backbone_anew_for_each_seed(arrays):
    weights = []
    for seed in (0, 0, 1):
        out = f"run{len(weights)}"
        run = {"batch_size": 4, "context_length": 3, "steps": 1, "learning_rate": 1e-9}
        result = chibit.fit(arrays, "dt", backbone=Recurrent, seed=seed, out=out, **run)
        weights.append(result.policy.agent.model.backbone.body.cell.weight_hh_l0)
    assert torch.equal(weights[0], weights[1]) and not torch.allclose(weights[0], weights[2], atol=1e-3)


class Ahead(Recurrent):
    def forward(self, embeddings):
        return self.cell(embeddings.flip(1))[0].flip(1)


class Narrow(Recurrent):
    def forward(self, embeddings):
        return self.cell(embeddings)[0][..., :3]


class Broken(Recurrent):
    def forward(self, embeddings):
        return self.cell(embeddings[..., :5])[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": Ahead()}, "Ahead looks at later tokens"),
        ({"backbone": Narrow}, r"Narrow maps \(2, 7, 16\) to \(2, 7, 3\), expected the same shape"),
        ({"backbone": Broken()}, r"Broken does not take \(2, 7, 16\) \("),
        ({"backbone": torch.nn.Linear(3, 3)}, "Linear.width is None"),
        ({"backbone": 3}, "got int, expected a torch.nn.Module"),
        ({"backbone": dict}, "dict makes a dict, expected a torch.nn.Module"),
        ({"backbone": Recurrent, "initializer": "gpt2"}, "initializer: got 'gpt2' beside backbone"),
        ({"stepss": 1}, "unknown setting 'stepss'; did you mean 'steps'"),
        ({"learning_rat": 1}, "unknown setting 'learning_rat'; did you mean 'learning_rate'"),
        ({"data": "x"}, "got str"),
        ({"steps": "5"}, "num_steps: got '5', expected int"),
        ({"steps": 0}, "num_steps: got 0"),
        ({"learning_rate": "x"}, "learning_rate: got 'x', expected float"),
        ({"n_layer": 1.5}, "n_layer: got 1.5, expected int"),
        ({"agent": "chibitt"}, "agent: unknown 'chibitt'; did you mean 'chibit'"),
        ({"agent": int}, "agent: got <class 'int'>, expected a config, the key or the class"),
        ({"columns": ["a=b"]}, "columns: acts where data is a name or a path"),
        ({"data": None}, "data: no actions; got observations, expected arrays observations, actions"),
        ({"data": {"obs": [1]}}, "data: observations are given twice"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once_in_one_line(arrays, settings, words):
    settings = {"agent": "dt", "steps": 1, "out": "run", **settings}
    if "data" in settings and settings["data"] is None:
        settings |= {"observations": arrays["observations"]}
    elif "data" in settings:
        settings |= arrays
    else:
        settings["data"] = arrays
    with pytest.raises(InputError, match=words) as refusal:
        chibit.fit(**settings)
    assert "\n" not in str(refusal.value) and not Path("run").exists()


def test_no_setting_of_a_run_is_one_of_an_agent():
    from chibit.core.config import settings_of
    from chibit.training.run_config import RunConfig

    run = settings_of(RunConfig).keys()
    for entry in chibit.AGENTS.values():
        assert not run & settings_of(entry.config).keys()


def test_a_run_is_configured_by_the_name_of_its_agent():
    assert chibit.RunConfig(data="x", agent="td3_bc").agent == chibit.AGENTS["td3_bc"].config()
    assert chibit.RunConfig(data="x", agent=BC).agent == BCConfig()
    assert chibit.RunConfig(data=Path("a") / "b", agent="bc").data == "a/b"
    for agent in ("tdd", 3, None, int):
        with pytest.raises(InputError, match="^agent: got"):
            chibit.RunConfig(data="x", agent=agent)


@pytest.mark.parametrize("name", [name for name in chibit.__all__ if name != "FitResult"])
def test_wherever_a_path_is_text_is_taken(name):
    value = getattr(chibit, name)
    function = value.__init__ if inspect.isclass(value) else value
    hints = inspect.get_annotations(function) if inspect.isfunction(inspect.unwrap(function)) else {}
    for parameter, hint in hints.items():
        if parameter != "return" and "Path" in str(hint):
            assert "str" in str(hint), f"{name}({parameter}: {hint})"
