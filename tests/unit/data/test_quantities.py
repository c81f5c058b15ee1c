"""Whole numbers as actions that are quantities: bids, watts, positions of valves."""

import json
from dataclasses import replace

import numpy as np
import pytest

import chibit
from chibit.cli import main
from chibit.core.errors import InputError
from chibit.data.load import load_dataset
from chibit.training.run_config import RunConfig, run_path, to_record
from chibit.training.run_data import open_data

STEPS = 40
WATTS = np.arange(STEPS) * 37 % 1000 - 20


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"{i // 10},{i % 7 + 0.5},{WATTS[i]},{i % 3}" for i in range(STEPS)]
    path.write_text("\n".join(["episode,obs,action,reward", *rows]) + "\n")
    return path


def test_a_table_of_whole_numbers_is_read_as_quantities(log):
    with pytest.raises(InputError, match="renumber actions, or say --continuous-actions"):
        load_dataset(log, progress=False)
    dataset = load_dataset(log, continuous_actions=True, progress=False)
    assert dataset.spec.num_actions is None and dataset.spec.act_dim == 1
    assert dataset.actions[:, 0].tolist() == WATTS.tolist()
    assert dataset.spec.action_low == (WATTS.min(),) and dataset.spec.action_high == (WATTS.max(),)


def test_several_columns_of_whole_numbers(tmp_path):
    two = np.stack([WATTS, WATTS[::-1]], axis=1)
    ends = np.arange(STEPS) % 10 == 9
    path = tmp_path / "two.npz"
    np.savez(path, observations=WATTS / 7, actions=two, rewards=np.arange(STEPS), terminations=ends)
    with pytest.raises(InputError, match="say --continuous-actions, or give floats"):
        load_dataset(path, progress=False)
    assert load_dataset(path, continuous_actions=True, progress=False).actions.tolist() == two.tolist()


def test_it_is_part_of_what_a_run_is(log, tmp_path):
    config = RunConfig(data=str(log), agent="bc", continuous_actions=True)
    dataset, _ = open_data(config)
    assert dataset.spec.act_dim == 1
    other = replace(config, continuous_actions=False)
    assert run_path(config, tmp_path, "runs") != run_path(other, tmp_path, "runs")
    assert "continuous_actions" not in to_record(other) and to_record(config)["continuous_actions"] is True


def test_fit_convert_and_inspect_take_it(log, tmp_path, capsys):
    result = chibit.fit(log, "bc", steps=2, out=tmp_path / "run", continuous_actions=True)
    assert isinstance(result.policy.act(np.zeros(1)), np.ndarray)
    out = tmp_path / "out.npz"
    main(["data", "convert", str(log), "--to", "npz", "--out", str(out), "--continuous-actions"])
    assert load_dataset(out, progress=False).actions[:, 0].tolist() == WATTS.tolist()
    capsys.readouterr()
    main(["data", "inspect", str(log), "--continuous-actions", "--json"])
    assert json.loads(capsys.readouterr().out)["spec"]["num_actions"] is None


def test_a_store_says_itself_what_its_actions_are(log):
    dataset = load_dataset(log, continuous_actions=True, progress=False)
    with pytest.raises(InputError, match="a store has columns, episodes and actions already"):
        load_dataset(dataset.folder, continuous_actions=True)
