"""What does not decide a run's numbers makes no other run of it: device, threads, logging, trackers."""

import dataclasses
import json
import sys
import types

import pytest

from chibit.agents import AGENTS
from chibit.core.config import config_hash
from chibit.core.errors import InputError, ResourceError
from chibit.core.run_dir import RunDir
from chibit.training.offline import train
from chibit.training.pretrain.config import PretrainConfig, pretrain_path
from chibit.training.run_config import RunConfig, run_path, to_record

ELSEWHERE = {"device": "cpu", "num_threads": 2, "log_every": 1, "checkpoint_every": 3, "tensorboard": True}


@pytest.fixture
def config(pendulum_file):
    agent = AGENTS["bc"].config(hidden_sizes=(8,), batch_size=4)
    return RunConfig(data=str(pendulum_file), agent=agent, num_steps=4, num_episodes=1, log_every=2)


def test_a_run_is_found_wherever_it_computed(config, tmp_path):
    path = run_path(config, tmp_path, "s")
    assert run_path(dataclasses.replace(config, **ELSEWHERE), tmp_path, "s") == path
    assert run_path(dataclasses.replace(config, precision="bf16"), tmp_path, "s") != path
    pretrain = PretrainConfig()
    path = pretrain_path(pretrain, tmp_path, "s")
    assert pretrain_path(dataclasses.replace(pretrain, device="cpu", log_every=1), tmp_path, "s") == path
    assert path.name.endswith(config_hash(pretrain))


def test_a_run_of_an_earlier_version_is_found_by_its_content(config, tmp_path):
    """Its name had a hash over every setting but the trackers."""
    old = dataclasses.replace(config, device="cpu", num_threads=2)
    new = run_path(old, tmp_path, "s")
    digest = config_hash({**to_record(old), "tensorboard": None, "wandb": None})
    earlier = new.with_name(f"{new.name[:-9]}-{digest}")
    assert earlier != new
    RunDir.create(earlier, arm=old.arm_name, study="s", config=to_record(old))
    (new.with_name(new.name[:-9] + "-somebody") / "config.json").mkdir(parents=True)
    assert run_path(config, tmp_path, "s") == earlier
    other = dataclasses.replace(config, num_steps=5)
    assert run_path(other, tmp_path, "s").parent == earlier.parent
    assert run_path(other, tmp_path, "s") != earlier


def test_a_finished_run_is_not_run_again_and_trackers_are_told_what_it_logged(config, tmp_path):
    result = train(config, tmp_path / "run", progress=False)
    assert train(dataclasses.replace(config, **ELSEWHERE), tmp_path / "run", progress=False) == result
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("train/loss")] == [
        (record["step"], record["train/loss"]) for record in logged
    ]
    assert [e.step for e in events.Scalars("eval/None/score")] == [4]
    with pytest.raises(InputError, match="another configuration"):
        train(dataclasses.replace(config, data_fraction=0.5), tmp_path / "run", progress=False)


@pytest.mark.parametrize(("name", "kind"), [("UsageError", InputError), ("CommError", ResourceError)])
def test_weights_and_biases_refuses_in_one_line(config, tmp_path, monkeypatch, name, kind):
    refusal = type(name, (Exception,), {})

    def init(**_):
        raise refusal("api_key not configured (no-tty).\n call wandb.login(key=[your_api_key])")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Error=refusal, init=init))
    with pytest.raises(kind, match="wandb: api_key not configured") as error:
        train(dataclasses.replace(config, wandb="project"), tmp_path / "run", progress=False)
    assert "\n" not in str(error.value)
