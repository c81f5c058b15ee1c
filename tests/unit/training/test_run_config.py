import dataclasses
import json
from pathlib import Path

import pytest

from chibit.agents import AGENTS
from chibit.core.errors import InputError
from chibit.training.run_config import RunConfig, from_record, run_path, to_record


@pytest.mark.parametrize("name", AGENTS)
def test_json_round_trip_for_every_agent(name):
    config = RunConfig(
        data="hopper-medium", agent=AGENTS[name].config(), target_returns=(3600.0, 1800.0), seed=7
    )
    record = json.loads(json.dumps(to_record(config)))
    assert record["agent_name"] == name
    assert from_record(record) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent_name": "dtt"}, "config.agent_name: got 'dtt'; did you mean 'dt'"),
        ({"num_stps": 3}, "unknown field 'num_stps'; did you mean 'num_steps'"),
        ({"seed": "one"}, "config.seed: got 'one', expected int"),
        ({"agent": {"batch": 3}}, "config.agent: unknown field 'batch'"),
        ({"precision": "fp8"}, "expected one of fp32, bf16"),
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


def test_a_run_lives_where_its_content_says():
    config = RunConfig(data="hopper-medium", agent=AGENTS["dt"].config(), arm="dt")
    path = run_path(config, Path("runs"), "table2")
    assert path.parent == Path("runs/table2")
    assert path.name.startswith("dt-hopper-medium-s0-")
    assert path == run_path(dataclasses.replace(config, wandb="project"), Path("runs"), "table2")
    assert path != run_path(dataclasses.replace(config, num_steps=5), Path("runs"), "table2")
    with pytest.raises(InputError, match="study name"):
        run_path(config, Path("runs"), "../out")
    hostile = dataclasses.replace(config, data="../../etc/passwd\n#")
    assert run_path(hostile, Path("runs"), "s").parent == Path("runs/s")
