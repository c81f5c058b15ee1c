"""Values outside a field's range, of another type, or longer than anything: one line, exit code 2.

A range is declared at its field and holds however a configuration is made: by flags, from JSON, in Python.
"""

import dataclasses
import json
import types
import typing
from pathlib import Path

import numpy as np
import pytest

import chibit
from chibit.agents import AGENTS
from chibit.cli import main
from chibit.core.config import config_hash, from_json
from chibit.core.errors import InputError
from chibit.data.convert import convert
from chibit.data.text.synthetic import SyntheticConfig
from chibit.models.decision_transformer import DecisionTransformerModelConfig
from chibit.models.gpt import GPTConfig, GPTShape
from chibit.models.language_model import LanguageModelConfig
from chibit.recipes import RECIPES
from chibit.reporting.read.study import Study
from chibit.reporting.read.targets import check_choice
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.run_config import RunConfig, from_record, to_record

HOSTILE = (
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    10**400,
    2**300,
    "a",
    True,
    b"",
    [],
    {},
    "\ud800",
)
OTHERS = (
    SyntheticConfig,
    DecisionTransformerModelConfig,
    GPTShape,
    GPTConfig,
    LanguageModelConfig,
    PretrainConfig,
)
CLASSES = [entry.config for entry in AGENTS.values()] + list(OTHERS)


def is_number(kind):
    """Whether a field of this type holds a number, or a number or None."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(is_number(part) for part in typing.get_args(kind))
    return kind in (int, float)


def numbers(kind):
    """Names of the fields that hold a number, those that are None unless given among them."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if is_number(hints[field.name])]
    assert names, kind
    return names


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_no_number_takes_what_is_no_finite_number_of_its_type(kind):
    base = kind()
    for name in numbers(kind):
        for hostile in HOSTILE:
            with pytest.raises(InputError, match=rf"^{name}: ") as error:
                dataclasses.replace(base, **{name: hostile})
            assert one_line(error)
            with pytest.raises(InputError, match=rf"^config\.{name}: ") as error:
                from_json(kind, {name: hostile}, "config")
            assert one_line(error)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_no_size_rate_or_probability_is_negative(kind):
    base = kind()
    for name in numbers(kind):
        with pytest.raises(InputError, match=rf"^{name}: "):
            dataclasses.replace(base, **{name: -1})


@pytest.mark.parametrize(
    ("agent", "settings"),
    [
        ("dt", {"gpt": {"norm_eps": 1e308}}),
        ("dt", {"gpt": {"norm_eps": 2.0}}),
        ("dt", {"lora_dropout": 1.5}),
        ("dt", {"lora_dropout": 1}),
        ("dt", {"lora_alpha": 0}),
        ("dt", {"attention_dropout": 1.0}),
        ("dt", {"gpt": {"n_inner": 0}}),
        ("dt", {"language_block": 1}),
        ("dt", {"head": "tied", "projections": "residual_mlp"}),
        ("dt", {"initializer": "x\0"}),
        ("dt", {"initializer": "x" * 256}),
        ("dt", {"initializer": "y/" * 3000}),
        ("bc", {"warmup_steps": -1}),
        ("bc", {"hidden_sizes": ()}),
        ("bc", {"hidden_sizes": (256, 0)}),
        ("bc", {"top_fraction": 0.0}),
        ("iql", {"max_weight": 1e308}),
        ("awr", {"discount": 1.0}),
        ("awr", {"temperature": 0.0}),
        ("cql", {"pretraining": "text"}),
        ("rem", {"reward_clip": 0.0}),
    ],
)
def test_settings_of_an_agent(agent, settings):
    with pytest.raises(InputError) as error:
        AGENTS[agent].config(**settings)
    assert one_line(error)
    record = {"agent_name": agent, "data": "x", "agent": settings}
    with pytest.raises(InputError, match=r"here\.agent") as error:
        from_record(json.loads(json.dumps(record)), "here")
    assert one_line(error)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_steps": "a"},
        {"num_steps": True},
        {"num_steps": 2.0},
        {"seed": 2**32},
        {"num_threads": 100_000},
        {"target_returns": ()},
        {"target_returns": (10, 10)},
        {"target_returns": (float("nan"),)},
        {"target_returns": "12"},
        {"precision": "fp16"},
        {"tensorboard": 1},
        {"agent": "dtt"},
        {"data_weights": (1.0, 2.0)},
        {"agent": None},
        {"arm": "../x"},
        {"data": "\ud800"},
        {"data": None},
        {"wandb": "x" * 300},
    ],
)
def test_settings_of_a_run(settings):
    with pytest.raises(InputError, match=next(iter(settings))) as error:
        RunConfig(**{"data": "x", "agent": AGENTS["dt"].config()} | settings)
    assert one_line(error)


def test_numbers_of_numpy_and_whole_numbers_become_plain_ones():
    config = RunConfig(
        data="x",
        agent=AGENTS["bc"].config(learning_rate=1),
        seed=np.int64(3),
        target_returns=[np.float32(0.5)],
    )
    assert (type(config.seed), config.seed, config.target_returns) == (int, 3, (0.5,))
    assert type(config.agent.learning_rate) is float
    json.dumps(to_record(config))


LOG = {
    "observations": np.zeros((6, 2)),
    "actions": np.zeros((6, 1)),
    "rewards": np.arange(6.0),
    "terminations": np.arange(6) % 3 == 2,
}
BAD_ARGUMENTS = [
    ("load_dataset", {"episode_length": 2.5}, "episode_length: got 2.5, expected int"),
    ("load_dataset", {"episode_length": "10"}, "episode_length: got '10', expected int"),
    ("load_dataset", {"episode_length": True}, "episode_length: got True, expected int"),
    ("load_dataset", {"skip_damaged": "no"}, "skip_damaged: got 'no', expected bool"),
    ("load_dataset", {"continuous_actions": 2}, "continuous_actions: got 2, expected bool"),
    ("load_dataset", {"columns": 5}, "columns: got 5, expected a list"),
    ("load_dataset", {"columns": [5]}, "columns[0]: got 5, expected"),
    ("load_dataset", {"columns": {5: "x"}}, "columns: unknown name 5"),
    ("load_dataset", {"columns": {"actions": 5}}, "columns: actions got 5, expected names"),
    ("load_dataset", {"env_id": 5}, "environment '5' is not one"),
    ("load_dataset", {"data_folder": 5}, "got 5, expected a path"),
    ("load_dataset", {"cache": "a\0"}, "got 'a\\x00', expected a path"),
    ("load_dataset", {"name_or_path": None}, "got None, expected a path"),
    ("load_dataset", {"name_or_path": ["log.npz"]}, "got ['log.npz'], expected a path"),
    ("from_arrays", {"name": 5}, "data set name 5 is not allowed"),
    ("from_arrays", {"score_reference": np.zeros(3)}, "score_reference: got"),
    ("from_arrays", {"score_reference": (0.0, np.nan)}, "score_reference[1]: got nan"),
    ("from_arrays", {"env_id": 5}, "env_id: got 5, expected str"),
    ("from_arrays", {"action_low": np.ma.masked_array([-1.0], [True])}, "action_low holds masked values"),
    ("collect", {"num_steps": 2.5}, "num_steps: got 2.5, expected int"),
    ("collect", {"num_steps": "5"}, "num_steps: got '5', expected int"),
    ("collect", {"seed": 1.5}, "seed: got 1.5, expected int"),
    ("collect", {"num_processes": 10**6}, "num_processes: got 1000000, expected 1 to 1024"),
    ("collect", {"out": 5}, "got 5, expected a path"),
    ("load_dataset", {"name_or_path": b"x"}, "got b'x', expected a path"),
    ("make_env", {"env_id": 5}, "environment '5' is not one"),
    ("make_env", {"max_episode_steps": 0}, "max_episode_steps: got 0, expected at least 1"),
    ("register_env", {"env_id": 5}, "env_id: got 5, expected str"),
    ("register_env", {"max_episode_steps": 0}, "max_episode_steps: got 0, expected at least 1"),
    ("convert", {"to": "csv"}, "to: got 'csv', expected one of store, minari, npz"),
    ("convert", {"out": "a\0"}, "expected a path"),
    ("build_report", {"formats": None}, "formats: got None, expected a list"),
    ("build_report", {"folder": None}, "got None, expected a path"),
    ("build_report", {"out": "a\0"}, "expected a path"),
]


@pytest.mark.parametrize(("name", "arguments", "says"), BAD_ARGUMENTS)
def test_arguments_in_python(name, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    np.savez("log.npz", **LOG)
    usual = {
        "load_dataset": {"name_or_path": "log.npz", "progress": False},
        "from_arrays": LOG,
        "collect": {"dataset": "hopper-medium", "num_steps": 5, "out": "made", "progress": False},
        "make_env": {"env_id": "Pendulum-v1"},
        "register_env": {"env_id": "own/Never-v0", "make": lambda: None},
        "convert": {"name_or_path": "log.npz", "out": "other", "to": "store", "progress": False},
        "build_report": {"folder": "."},
    }
    call = convert if name == "convert" else getattr(chibit, name)
    with pytest.raises(InputError) as error:
        call(**{**usual[name], **arguments})
    assert says in str(error.value) and one_line(error)
    assert {path.name for path in tmp_path.iterdir()} <= {"log.npz", "home"}


@pytest.mark.parametrize("target", [None, True, [3600.0], {"hopper": "x"}, {"hopper": None}, {1: 2.0}])
def test_targets_of_a_report_in_python(target):
    study = Study(folder=Path("."), runs=(), excluded=())
    with pytest.raises(InputError, match="^target: "):
        check_choice(study, target)


def test_numbers_of_numpy_are_arguments_too(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    np.savez(tmp_path / "log.npz", **LOG)
    cut = chibit.load_dataset(tmp_path / "log.npz", episode_length=np.int64(2), progress=False)
    assert cut.num_episodes == 4
    reference = np.array([0.0, 10.0])
    assert chibit.from_arrays(**LOG, score_reference=reference).spec.score_reference == (0.0, 10.0)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("train --data x --norm-eps nan", "norm_eps: got nan"),
        ("train --data x --weight-decay inf", "weight_decay: got inf"),
        ("train --data x --lora-alpha nan", "lora_alpha: got nan"),
        ("train --data x --similarity-weight -inf", "similarity_weight: got -inf"),
        ("train --data x --lora-dropout 1.5", "lora_dropout: got 1.5"),
        ("train --data x --norm-eps 1e308", "norm_eps: got 1e+308"),
        (f"train --data x --num-steps {2**63}", "num_steps: got"),
        (f"train --data x --num-steps 1{'0' * 400}", "num_steps: got an integer of"),
        (f"train --data x --num-steps {'9' * 5000}", "num-steps"),
        ("train --data x --num-threads 100000", "num_threads: got 100000, expected 1 to 1024"),
        (
            "train --data x --target-returns 10 10",
            "target_returns: got [10.0, 10.0], expected each",
        ),
        ("train --agent bc --data x --warmup-steps -1", "warmup_steps: got -1"),
        ("train --agent iql --data x --max-weight 1e308", "max_weight: got 1e+308"),
        (f"train --data {'x' * 300}", "data: got"),
        (f"train --data x --out {'x' * 256}", "out: got"),
        ("evaluate run --num-episodes 0", "num_episodes: got 0"),
        ("evaluate run --target-returns 5 5", "target_returns"),
        ("attention run --temperature 0", "temperature: got 0.0"),
        ("export run --target-return nan", "target_return: got nan"),
        ("quickstart --num-steps -1", "num_steps: got -1"),
        ("quickstart --seed -1", "seed: got -1"),
        ("data collect hopper-medium --num-processes 0", "num_processes: got 0"),
        ("data convert x --game Pong --out y --num-steps 0", "num_steps: got 0"),
        ("study table2 --dry-run --num-processes 0", "num_processes: got 0"),
        ("study table2 --dry-run --precision fp16", "precision"),
        ("study table2 --dry-run --retries -1", "retries: got -1"),
        ("study table2 --dry-run --seeds 0 0", "seeds: got [0, 0]"),
        ("study table2 --dry-run --target-returns nan", "target-returns"),
        ("pretrain --learning-rate nan", "learning_rate: got nan"),
        ("pretrain --temperature inf", "temperature: got inf"),
        ("pretrain --adam-betas 0.9 1", "adam_betas[1]: got 1.0"),
    ],
)
def test_flags(flags, says, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(flags.split()) == 2
    said = capfd.readouterr().err.strip()
    assert says in said
    assert said.count("\n") == 0
    assert not list(tmp_path.iterdir())


HASHES = {"dt": "16316d35", "chibit_lora": "4f90ca3c", "cql_tuned": "0cddd5a8", "rem": "b56c8e18"}


def test_the_same_settings_have_the_same_hash_as_before():
    records = {name: to_record(RECIPES[name].run(data="hopper-medium-v2")) for name in HASHES}
    assert {
        name: config_hash({**record, "tensorboard": None, "wandb": None}) for name, record in records.items()
    } == HASHES
