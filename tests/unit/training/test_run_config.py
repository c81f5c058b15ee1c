import dataclasses
import json
from pathlib import Path

import pytest

from chibit.agents import AGENTS
from chibit.core.config import to_json
from chibit.core.errors import InputError
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.run_config import RunConfig, count_evaluations, from_record, run_path, to_record


@pytest.mark.parametrize("name", AGENTS)
def test_json_round_trip_for_every_agent(name):
    config = RunConfig(
        data="hopper-medium", agent=AGENTS[name].config(), target_returns=(3600.0, 1800.0), seed=7
    )
    record = json.loads(json.dumps(to_record(config)))
    assert record["agent_name"] == name
    assert to_record(from_record(record)) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent_name": "dtt"}, "config.agent_name: got 'dtt'; did you mean 'dt'"),
        ({"num_stps": 3}, "unknown field 'num_stps'; did you mean 'num_steps'"),
        ({"seed": "one"}, "config.seed: got 'one', expected int"),
        ({"agent": {"batch": 3}}, "config.agent: unknown field 'batch'"),
        ({"precision": "fp8"}, "expected one of fp32, tf32, bf16"),
    ],
)
def test_strict_reading(change, message):
    record = {**to_record(RunConfig(data="x", agent=AGENTS["dt"].config())), **change}
    with pytest.raises(InputError) as caught:
        from_record(record)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_steps": 0},
        {"evaluate_every": -1},
        {"seed": -1},
        {"seed": 2**32},
        {"target_returns": ()},
        {"target_returns": (float("nan"),)},
        {"log_every": 0},
        {"arm": "../up"},
    ],
)
def test_values_out_of_range_are_refused_by_name(fields):
    with pytest.raises(InputError) as caught:
        RunConfig(data="x", agent=AGENTS["dt"].config(), **fields)
    assert next(iter(fields)) in str(caught.value)


def test_many_columns_may_be_named_in_a_line():
    listed = ",".join(f"sensor_{number:02}" for number in range(60))
    config = RunConfig(data="log.csv", agent="bc", columns=(f"observations={listed}", "actions=valve"))
    assert from_record(to_record(config)).columns[0] == f"observations={listed}"
    with pytest.raises(InputError, match="at most 4,096 bytes, 255 between slashes or commas"):
        RunConfig(data="log.csv", agent="bc", columns=("observations=temp," + "x" * 256,))


def test_a_named_environment_is_part_of_a_run_and_none_leaves_earlier_runs_where_they_are():
    config = RunConfig(data="x.npz", agent=AGENTS["bc"].config(window_anchor="first"))  # as recorded
    assert "env_id" not in to_record(config)
    named = dataclasses.replace(config, env_id="Hopper-v4")
    assert from_record(json.loads(json.dumps(to_record(named)))) == named
    assert run_path(named, Path("runs"), "s") != run_path(config, Path("runs"), "s")


def test_a_run_of_pretraining_is_told_from_one_of_training():
    with pytest.raises(InputError, match="pt/config.json: is of chibit pretrain, expected"):
        from_record(to_json(PretrainConfig()), "pt/config.json")


def test_a_run_lives_where_its_content_says():
    config = RunConfig(data="hopper-medium", agent=AGENTS["dt"].config(), arm="dt")
    path = run_path(config, Path("runs"), "table2")
    assert path.parent == Path("runs/table2")
    assert path.name.startswith("dt-hopper-medium-s0-")
    assert path == run_path(dataclasses.replace(config, wandb="project"), Path("runs"), "table2")
    assert path != run_path(dataclasses.replace(config, num_steps=5), Path("runs"), "table2")
    with pytest.raises(InputError, match="study name"):
        run_path(config, Path("runs"), "../out")
    nested = run_path(dataclasses.replace(config, arm="mine/first"), Path("runs"), "s")
    assert nested.parent == Path("runs/s")  # where a report looks for runs
    hostile = dataclasses.replace(config, data="../../etc/passwd #")
    assert run_path(hostile, Path("runs"), "s").parent == Path("runs/s")


@pytest.mark.parametrize(
    ("num_steps", "every", "expected"),
    [
        (19_532, 3_906, [3_906, 7_812, 11_718, 15_624, 19_532]),  # Table 1: the one at 19,530 is not kept
        (12, 6, [6, 12]),
        (14, 6, [6, 14]),
        (15, 6, [6, 12, 15]),  # half an interval is left: a model of its own
        (17, 6, [6, 12, 17]),
        (5, 6, [5]),
        (7, 0, [7]),
    ],
)
def test_no_model_is_evaluated_twice_at_the_end(num_steps, every, expected):
    config = RunConfig(data="x", agent=AGENTS["bc"].config(), num_steps=num_steps, evaluate_every=every)
    assert [step for step in range(1, num_steps + 1) if config.evaluates_at(step)] == expected
    assert count_evaluations(num_steps, every) == len(expected)
