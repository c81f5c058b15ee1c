"""Bounds of actions by a user's word: in Python, by flags, in files; they decide what a policy may do."""

import json

import h5py
import numpy as np
import pytest

from chibit.agents import AGENTS
from chibit.cli import main
from chibit.core.errors import InputError
from chibit.core.run_dir import RunDir
from chibit.data.bounds import bound_actions
from chibit.data.environment import evaluate_in
from chibit.data.inspect import find_notes
from chibit.data.load import from_arrays, load_dataset
from chibit.data.readers.origin import narrower, settled_bounds
from chibit.training.run_config import RunConfig, from_record
from chibit.training.run_data import open_data

NUM = 40


SHORT = ["--num-steps", "2", "--hidden-sizes", "8", "--batch-size", "8"]
SHORT += ["--quiet", "--no-judge", "--device", "cpu"]


def columns(low=(0.0, -2.0), high=(80.0, 3.0)):
    rng = np.random.default_rng(0)
    actions = rng.uniform(low, high, size=(NUM, len(low)))
    return {
        "observations": rng.normal(size=(NUM, 3)),
        "actions": actions,
        "rewards": rng.normal(size=NUM),
        "terminations": np.arange(NUM) % 10 == 9,
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_given_bounds_go_before_what_the_data_reach(folder):
    own = from_arrays(**columns()).spec
    spec = from_arrays(**columns(), action_low=[0, -np.inf], action_high=100).spec
    assert spec.action_low == (0.0, own.action_low[1])
    assert spec.action_high == (100.0, 100.0)
    assert from_arrays(**columns(), action_low=-5).spec.action_low == (-5.0, -5.0)


def test_bounds_stand_in_a_file_or_beside_it_or_in_a_flag(folder):
    np.savez("log.npz", **columns(), action_low=[0.0, -np.inf], action_high=np.array([100.0, 5.0]))
    in_file = load_dataset("log.npz", progress=False)
    assert in_file.spec.action_low[0] == 0.0 and in_file.spec.action_low[1] > -2.0
    assert in_file.spec.action_high == (100.0, 5.0)
    (folder / "log.toml").write_text("action_high = [200, 10]\n")
    beside = load_dataset("log.npz", progress=False)
    assert beside.spec.action_high == (200.0, 10.0) and beside.spec.action_low == in_file.spec.action_low
    given = load_dataset("log.npz", action_high=[300, 4], progress=False)
    assert given.spec.action_high == (300.0, 4.0) and given.folder == in_file.folder


def test_bounds_beside_data_are_taken_however_the_data_are_named(folder, monkeypatch):
    np.savez("log.npz", **columns())
    (folder / "log.toml").write_text("action_high = [200, 10]\n")
    monkeypatch.setenv("HOME", str(folder))
    assert load_dataset("~/log.npz", progress=False).spec.action_high == (200.0, 10.0)
    with h5py.File("lift.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        for name, column in {"actions": columns()["actions"], "rewards": columns()["rewards"]}.items():
            demo[name] = column
        demo["dones"], demo["obs/object"] = np.zeros(NUM), columns()["observations"]
        file["mask/train"] = np.array([b"demo_0"])
    (folder / "lift.toml").write_text("action_high = [300, 20]\n")
    assert load_dataset("lift.hdf5:train", progress=False).spec.action_high == (300.0, 20.0)


def test_a_file_narrows_its_environments_bounds_and_widens_none(folder):
    unit = columns((-0.4,), (0.4,))
    np.savez("log.npz", env_id="Pendulum-v1", **unit, action_low=[-0.5], action_high=[9.0])
    spec = load_dataset("log.npz", progress=False).spec
    assert spec.action_low == (-0.5,) and spec.action_high == (2.0,)


WRONG = {
    "shape (3,), expected (2,) or one number": {"action_low": [0, 1, 2]},
    "action_low of dimension 1 is 4, expected less than its action_high, 4": {
        "action_low": [0, 4],
        "action_high": [100, 4],
    },
    "action_low holds NaN": {"action_low": [0, float("nan")]},
    "something else than numbers": {"action_high": ["wide", 1]},
    "action dimension 0 spans": {"action_high": [50, 4]},
    "action_low of dimension 0 is 1e+08": {"action_low": 1e8, "action_high": 1e8 + 1},
}


@pytest.mark.parametrize("said", WRONG)
def test_bounds_that_make_no_sense_are_refused_in_one_line(said, folder):
    with pytest.raises(InputError) as refused:
        from_arrays(**columns(), **WRONG[said])
    assert said in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(InputError, match="choices"):
        from_arrays(**{**columns(), "actions": np.zeros(NUM, int)}, action_low=0)


def test_bounds_beside_data_that_make_no_sense_are_refused_too(folder):
    np.savez("log.npz", **columns())
    (folder / "log.toml").write_text("action_low = [[1]]\n")
    with pytest.raises(InputError, match="shape"):
        load_dataset("log.npz", progress=False)
    for wrong in ({"action_low": ["x"]}, {"action_low": np.zeros(3)}, {"action_low": np.zeros(1 << 17)}):
        np.savez("other.npz", **columns(), **wrong)
        with pytest.raises(InputError, match="action_low"):
            load_dataset("other.npz", progress=False)


def test_a_run_is_bound_by_its_flags(folder, capsys):
    np.savez("log.npz", **columns())
    run = ["train", "--agent", "bc", "--data", "log.npz", "--out", "run", *SHORT, "--num-episodes", "0"]
    assert main([*run, "--action-low", "-1", "-4", "--action-high", "120", "5"]) == 0
    spec = json.loads((folder / "run" / "provenance.json").read_text())["dataset"]
    assert spec["action_low"] == [-1.0, -4.0] and spec["action_high"] == [120.0, 5.0]
    assert main([*run, "--action-low", "-1", "-4"]) == 2  # another run
    assert main([*run[:-4], "--out", "other", "--action-high", "inf"]) == 2
    capsys.readouterr()
    assert main(["data", "inspect", "log.npz", "--action-high", "120", "5"]) == 0
    assert "to 120" in capsys.readouterr().out


def test_a_run_that_goes_on_keeps_the_bounds_that_it_began_with(folder):
    """As it must where an earlier version took others from the same data."""
    np.savez("log.npz", **columns())
    assert main(["train", "--agent", "bc", "--data", "log.npz", "--out", "run", *SHORT]) == 0
    run = RunDir.open(folder / "run")
    record = run.provenance()
    record["dataset"] |= {"action_low": [-1000.0, -3.0], "return_scale": 7.0}
    run.write_provenance(record)
    config = from_record(run.description()["config"])
    began, now = (open_data(config, run=at)[0].spec for at in (run, None))
    assert began.action_low == (-1000.0, -3.0) and began.return_scale == 7.0
    assert now.action_low[0] >= 0.0


def test_bounds_that_bound_nothing_are_none_and_wide_ones_are_noted(folder):
    largest = float(np.finfo(np.float32).max)
    own = from_arrays(**columns()).spec
    np.savez("log.npz", **columns(), action_low=[-largest, -1e7], action_high=[1e5, 400.0])
    dataset = load_dataset("log.npz", progress=False)
    assert dataset.spec.action_low == own.action_low and dataset.spec.action_high == (1e5, 400.0)
    [said] = [note for note in find_notes(dataset) if "less than 1 %" in note]
    assert "1 action dimension (0)" in said


def test_a_store_of_arrays_keeps_the_bounds_that_were_given(folder):
    dataset = from_arrays(**columns(), action_low=-5, action_high=[100, np.inf])
    again = load_dataset(dataset.folder)
    assert again.spec == dataset.spec and again.spec.action_low == (-5.0, -5.0)


SWING = {"observations": np.random.default_rng(0).normal(size=(NUM, 3)), "rewards": np.zeros(NUM),
         "terminations": np.arange(NUM) % 10 == 9}  # fmt: skip


@pytest.mark.parametrize(
    ("reached", "declared", "is_noted"),
    [(0.4, 0.5, True), (0.5, None, False), (np.inf, None, True), (0.4, 3.0, False), (np.inf, 1.99, False)],
)
def test_bounds_that_an_environment_takes_the_place_of_are_noted(reached, declared, is_noted, folder):
    """A robot's limits, declared or such that actions end there, are narrower than those of a simulator."""
    wanted = np.random.default_rng(1).normal(0, 2, (NUM, 1))
    limit = 0.5 if declared is None else declared
    actions = np.clip(wanted, -limit, limit) if reached == np.inf else reached * np.tanh(wanted)
    bounds = {} if declared is None else {"action_low": [-declared], "action_high": [declared]}
    np.savez("log.npz", **SWING, actions=actions, **bounds)
    dataset = load_dataset("log.npz", env_id="Pendulum-v1", progress=False)
    assert dataset.spec.action_high == (2.0,)
    said = [note for note in find_notes(dataset) if "own bounds" in note]
    assert len(said) == is_noted
    if said:
        assert (
            "as Pendulum-v1 has wider ones (dimension 0 -0.5 to 0.5, there -2 to 2); --action-low" in said[0]
        )
    kept = load_dataset("log.npz", env_id="Pendulum-v1", action_low=-4.0, action_high=4.0, progress=False)
    assert not any("own bounds" in note for note in find_notes(kept))


def test_bounds_that_leave_no_range_give_way_to_what_the_data_reach():
    """An unused dimension of an environment's, and limits of the data's that the environment has not."""
    low, high = settled_bounds(((-1.0, 0.0), (1.0, 0.0)), ((-0.5, 0.0), (0.5, 0.0)))
    assert (low, high) == ((-1.0, -0.001), (1.0, 0.001))
    apart = narrower(((2.0, None, -1.0), (3.0, 0.5, 1.0)), ((0.0, 0.0, -2.0), (1.0, 1.0, 0.5)))
    assert apart == ((0.0, 0.0, -1.0), (1.0, 0.5, 0.5))


def test_given_bounds_go_before_the_environments_of_several_sets_too(folder):
    for name in ("a", "b"):
        np.savez(f"{name}.npz", **SWING, actions=np.random.default_rng(1).uniform(-0.5, 0.5, (NUM, 1)))
    config = RunConfig(
        data="a.npz", more_data=("b.npz",), env_id="Pendulum-v1", action_low=(-0.5,), action_high=(0.75,),
        agent=AGENTS["bc"].config(),
    )  # fmt: skip
    dataset, _ = open_data(config)
    assert (dataset.spec.env_id, dataset.spec.action_low) == ("Pendulum-v1", (-0.5,))
    assert dataset.spec.action_high == (0.75,)


def test_what_lies_beyond_bounds_is_said_of_the_bounds_that_are_taken(folder):
    """Not of the environment's, in place of which others were given, and once."""
    wide = columns((-3.0,), (3.0,))
    inside = evaluate_in(from_arrays(**wide), "Pendulum-v1")
    note = next(note for note in inside.notes if "beyond their bounds" in note)
    assert evaluate_in(inside, "Pendulum-v1").notes.count(note) == 1
    assert note not in bound_actions(inside, -3, 3).notes
    given = from_arrays(**wide, env_id="Pendulum-v1", action_low=-3, action_high=3)
    assert given.spec.action_high == (3.0,) and not any("beyond" in said for said in given.notes)
