import pickle
from dataclasses import replace

import numpy as np
import pytest

from chibit.agents.bc import BCConfig
from chibit.cli import main
from chibit.core.errors import InputError
from chibit.core.run_dir import RunDir
from chibit.data.load import from_arrays, load_dataset
from chibit.data.readers.columns import Reading, join, locate_columns, parse_columns
from chibit.fitting import _by_our_names
from chibit.training.run_config import RunConfig, from_record, run_path, to_record

EPISODES, STEPS = 3, 5
NUM = EPISODES * STEPS
PLANT = ["observations=obs,temp", "actions=valve", "rewards=r", "episode=batch"]


def plant(**changes):
    """A log under names that nobody knows: three batches of five steps."""
    rng = np.random.default_rng(0)
    columns = {
        "obs": rng.normal(size=(NUM, 2)),
        "temp": rng.normal(size=NUM),
        "valve": rng.uniform(size=(NUM, 1)),
        "r": rng.normal(size=NUM),
        "batch": np.repeat([7, 3, 9], STEPS),
    }
    return {name: column for name, column in {**columns, **changes}.items() if column is not None}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    return tmp_path / "log.npz"


def load(path, columns=(), **changes):
    return load_dataset(path, columns=columns, progress=False, **changes)


def test_a_mapping_gives_the_steps_and_episodes_of_a_log(path):
    columns = plant()
    np.savez(path, **columns)
    dataset = load(path, PLANT)
    expected = np.column_stack([columns["obs"], columns["temp"]]).astype(np.float32)
    assert np.array_equal(dataset.observations, expected)
    assert np.array_equal(dataset.actions, columns["valve"].astype(np.float32))
    np.testing.assert_allclose(dataset.rewards, columns["r"], rtol=1e-6)
    assert dataset.episode_starts.tolist() == [0, 5, 10, 15]
    assert "no terminations recorded: every episode counts as cut" in dataset.notes
    by_name = {"observations": ["obs", "temp"], "actions": "valve", "rewards": "r", "episode": "batch"}
    assert load(path, by_name).folder == dataset.folder
    assert load(path, ["observations=obs", *PLANT[1:]]).folder != dataset.folder


def test_a_flag_within_an_episode_splits_it_and_is_said(path):
    done = np.zeros(NUM, int)
    done[[1, 3, 4]] = 1
    np.savez(path, **plant(done=done))
    dataset = load(path, PLANT)
    assert dataset.episode_starts.tolist() == [0, 2, 4, 5, 10, 15]
    assert "1 of 3 logged episodes end by a flag and go on: split there" in dataset.notes
    np.savez(path, **plant(done=np.arange(NUM) % STEPS == STEPS - 1))
    assert not any("split" in note for note in load(path, PLANT).notes)


def test_episodes_may_be_dates(path):
    days = np.repeat(np.array(["2026-01-02", "2026-01-01", "2026-02-01"], "datetime64[D]"), STEPS)
    np.savez(path, **plant(batch=days))
    assert load(path, PLANT).episode_starts.tolist() == [0, 5, 10, 15]
    days[6] = "NaT"
    np.savez(path, **plant(batch=days))
    with pytest.raises(InputError, match="episode: row 6 is not finite"):
        load(path, PLANT)
    np.savez(path, **plant(r=days))
    with pytest.raises(InputError, match=r"r has type datetime64\[D\]; expected plain numbers"):
        load(path, PLANT)


def test_a_mapping_beside_the_data_is_taken_and_a_change_of_it_seen(path):
    np.savez(path, **plant())
    toml = path.with_suffix(".toml")
    lines = 'actions = "valve"\nrewards = "r"\nepisode = "batch"\n'
    toml.write_text('observations = ["obs", "temp"]\n' + lines)
    assert load(path).spec.state_dim == 3
    toml.write_text('observations = "temp"\n' + lines)
    assert load(path).spec.state_dim == 1
    toml.write_bytes(b"\xef\xbb\xbf" + f"observations = 'obs'\n{lines}".replace("\n", "\r\n").encode())
    assert load(path).spec.state_dim == 2  # as editors on Windows write it
    toml.write_text("observations = [")
    with pytest.raises(InputError, match=r"log\.toml: not a mapping of columns .*; mend or rename"):
        load(path)
    toml.write_text('reward = "r"')
    with pytest.raises(InputError, match=r"log\.toml: columns: unknown name 'reward'.*mean 'rewards'"):
        load(path)


def test_usual_names_need_no_mapping(path):
    log = plant()
    flags = np.repeat([[0, 0, 0, 0, 1]], EPISODES, axis=0).reshape(-1)
    names = {"obs": log["obs"], "act": log["valve"], "reward": log["r"], "done": flags}
    np.savez(path, **names, next_obs=log["obs"] + 1, extra=np.array(["x"]))
    dataset = load(path)
    assert dataset.num_episodes == 3
    assert dataset.final_observations is not None
    episodes = [{name: column[at : at + STEPS] for name, column in names.items()} for at in (0, 5, 10)]
    as_pickle = path.with_suffix(".pkl")
    as_pickle.write_bytes(pickle.dumps(episodes))
    assert np.array_equal(load(as_pickle).observations, dataset.observations)


def test_pickles_are_read_by_a_mapping(path):
    log = plant(end=np.zeros(NUM, bool))
    as_pickle = path.with_suffix(".pkl")
    as_pickle.write_bytes(
        pickle.dumps([{name: column[at : at + STEPS] for name, column in log.items()} for at in (0, 5, 10)])
    )
    columns = [*PLANT[:3], "terminations=end"]
    dataset = load(as_pickle, columns)
    assert np.array_equal(dataset.observations[:, 2], log["temp"].astype(np.float32))
    assert dataset.num_episodes == 3
    with pytest.raises(InputError, match="trajectory 0 has no 'tmp' for observations; found 'batch', 'end'"):
        load(as_pickle, ["observations=tmp", *columns[1:]])
    with pytest.raises(InputError, match="every trajectory is an episode"):
        load(as_pickle, PLANT)


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ({}, ["observations=obs,tmp", *PLANT[1:]], "no column 'tmp' for observations; found.*mean 'temp'"),
        ({}, PLANT[1:-1], "no column|no terminations; found batch, obs, r, temp, valve; name it by"),
        ({"batch": np.repeat([1, 2, 1], STEPS)}, PLANT, "episode: 1 comes back in row 10.*sort the rows"),
        ({"temp": np.zeros(4)}, PLANT, r"observations: columns of shapes \(15, 2\), \(4,\) cannot"),
        ({"r": np.zeros(4)}, PLANT, "columns differ in length .*rewards 4"),
        ({"temp": np.full(NUM, "hot")}, PLANT, "temp has type <U3; expected plain numbers"),
        (
            {"temp": np.full(NUM, 1e300)},
            PLANT,
            "observations, column 2 of row 0 .* is inf; expected finite numbers below 1.7e38",
        ),
        ({"batch": np.full(NUM, np.nan)}, PLANT, "episode: row 0 is not finite"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(path, changes, columns, message):
    np.savez(path, **plant(**changes))
    with pytest.raises(InputError, match=message):
        load(path, columns)


def test_whole_numbers_side_by_side_are_no_quantities_in_arrays_and_pickles_either(path):
    log = plant(valve=None, low=np.arange(NUM) % 2, high=np.arange(NUM) % 3)
    words = [PLANT[0], "actions=low,high", PLANT[2]]
    np.savez(path, **log)
    path.with_suffix(".pkl").write_bytes(pickle.dumps([log]))
    for file, columns in ((path, [*words, PLANT[3]]), (path.with_suffix(".pkl"), words)):
        with pytest.raises(InputError, match=r"actions are integers of shape \(15, 2\)"):
            load(file, columns)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["obs"], "got 'obs', expected NAME=COLUMN"),
        (["observation=x"], "unknown name 'observation'.*did you mean 'observations'"),
        (["actions=a", "actions=b"], "actions is given twice"),
        (["actions=a,a"], "actions names a column twice"),
        (["actions=a,"], "expected names of columns"),
        (["rewards=a,b"], "rewards got a, b; expected one column"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        parse_columns(words)
    with pytest.raises(InputError, match=message):
        RunConfig(data="x", agent=BCConfig(), columns=tuple(words))


def test_numbered_columns_are_put_side_by_side_in_their_order():
    names = [*(f"observation_{number}" for number in range(11)), "act.1", "act.2", "reward", "done"]
    found = locate_columns(names, "x", Reading())
    assert found["observations"] == tuple(names[:11])
    assert found["actions"] == ("act.1", "act.2")
    with pytest.raises(InputError, match="observation 3 is missing among observation_0, observation_1"):
        locate_columns([name for name in names if name != "observation_3"], "x", Reading())
    with pytest.raises(InputError, match="'reward' is there 2 times"):
        locate_columns([*names, "reward"], "x", Reading())
    with pytest.raises(InputError, match="x: act_1 and act_01 have one number"):
        locate_columns(["obs", "act_0", "act_1", "act_01", "reward"], "x", Reading())
    joined = join([np.arange(4), np.ones((4, 2))], "x")
    assert joined[1:3].tolist() == [[1, 1, 1], [2, 1, 1]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["obs_0", "obs_1", "state", "action", "reward"],
            r"x: observations may be state or obs_0\+obs_1; say",
        ),
        (["obs", "observation", "action", "reward"], "observations may be observation or obs; say"),
        (
            ["obs", "action", "action_0", "reward"],
            "actions may be action or action_0; .*--columns actions=act",
        ),
        (["obs", "action", "reward", "done", "terminated"], "terminations may be terminated or done"),
    ],
)
def test_where_several_columns_may_be_meant_the_user_says_which(names, message):
    with pytest.raises(InputError, match=message):
        locate_columns(names, "x", Reading())
    said = {"observations": (names[0],), "actions": ("action",), "terminations": (names[-1],)}
    found = locate_columns(names, "x", Reading(said))
    assert {name: found[name] for name in said} == said


def test_the_same_columns_are_known_in_a_pickle(path):
    log, as_pickle = plant(), path.with_suffix(".pkl")
    columns = {"obs_0": log["obs"][:, 0], "obs_1": log["obs"][:, 1], "act": log["valve"], "rew": log["r"]}
    as_pickle.write_bytes(pickle.dumps([columns]))
    assert np.array_equal(load(as_pickle).observations, log["obs"].astype(np.float32))
    as_pickle.write_bytes(pickle.dumps([{**columns, "state": log["temp"]}]))
    with pytest.raises(
        InputError, match=r"trajectory 0: observations may be state or obs_0\+obs_1; say which"
    ):
        load(as_pickle)
    assert load(as_pickle, ["observations=state"]).spec.state_dim == 1


def test_data_that_name_their_own_columns_take_no_mapping(path):
    np.savez(path, **plant())
    store = load(path, PLANT).folder
    with pytest.raises(InputError, match="a store has columns, episodes and actions already"):
        load(store, PLANT)


def test_an_unbroken_log_is_cut(path):
    np.savez(path, **plant(batch=None))
    dataset = load(path, PLANT[:3], episode_length=4)
    assert dataset.episode_starts.tolist() == [0, 4, 8, 12]
    assert "cut 3 times after 4 steps without an end" in dataset.notes
    assert "left out the last 3 steps: an episode without an end" in dataset.notes
    with pytest.raises(InputError, match="episode_length: got 0"):
        load(path, PLANT[:3], episode_length=0)


def test_damaged_episodes_are_left_out_and_counted_where_asked(path):
    log = plant()
    log["temp"][6], log["r"][7] = np.nan, np.inf
    np.savez(path, **log)
    with pytest.raises(InputError, match="row 7 .* is inf; expected finite"):
        load(path, PLANT)
    dataset = load(path, PLANT, skip_damaged=True)
    assert dataset.episode_starts.tolist() == [0, 5, 10]
    kept = np.r_[0:5, 10:15]
    assert np.array_equal(dataset.observations[:, 2], log["temp"][kept].astype(np.float32))
    assert np.array_equal(dataset.actions, log["valve"][kept].astype(np.float32))
    np.testing.assert_allclose(dataset.rewards, log["r"][kept], rtol=1e-6)
    assert "left out 1 of 3 episodes: values that are not finite" in dataset.notes
    np.savez(path, **plant(temp=np.full(NUM, 1e300)))
    with pytest.raises(InputError, match="all 3 episodes have values that are not finite"):
        load(path, PLANT, skip_damaged=True)


def test_what_the_store_refuses_for_its_size_is_damaged_too(path):
    large = {"obs": np.zeros((NUM, 2)), "r": np.zeros(NUM), "valve": np.zeros((NUM, 1))}
    large["obs"][1, 0] = 2e38
    large["r"][5:9] = 1e38  # whose sum is too large
    np.savez(path, **plant(**large))
    with pytest.raises(InputError, match="expected finite numbers below"):
        load(path, PLANT)
    assert load(path, PLANT, skip_damaged=True).episode_starts.tolist() == [0, 5]
    large["obs"][1, 0], large["valve"][0, 0] = 0, -3e38
    np.savez(path, **plant(**large))
    dataset = load(path, PLANT, skip_damaged=True)
    assert dataset.episode_starts.tolist() == [0, 5] and not dataset.rewards.any()


def test_a_mapping_is_part_of_what_a_run_is(path, tmp_path, capsys):
    np.savez(path, **plant())
    config = RunConfig(data=str(path), agent=BCConfig(warmup_steps=0), columns=tuple(PLANT))
    assert from_record(to_record(config)).columns == config.columns
    plain = replace(config, columns=())
    assert "columns" not in to_record(plain) and "episode_length" not in to_record(plain)
    assert run_path(config, tmp_path, "s") != run_path(plain, tmp_path, "s")
    out = tmp_path / "run"
    flags = ["--agent", "bc", "--data", str(path), "--num-steps", "2", "--out", str(out), "--quiet"]
    assert main(["train", *flags, "--columns", *PLANT]) == 0
    assert RunDir(out).provenance()["data_episodes"] == 3
    assert main(["data", "inspect", str(path), "--columns", *PLANT]) == 0
    assert "3: 0 terminated, 3 truncated" in capsys.readouterr().out


@pytest.mark.parametrize(
    "names",
    [
        [7, 7, 7, 2, 2],
        ["b", "b", "b", "ä", "ä"],
        np.array(["2026-01-02"] * 3 + ["2026-01-01"] * 2, "M8[D]"),
    ],
)
def test_arrays_may_say_which_episode_a_step_is_of(names, path):
    steps = {"observations": np.ones((5, 1)), "actions": np.ones((5, 1)) / 2, "rewards": np.arange(5)}
    dataset = from_arrays(**steps, episode=names)
    assert dataset.episode_starts.tolist() == [0, 3, 5] and not dataset.terminations.any()
    dataset = from_arrays(**steps, episode=names, terminations=[0, 0, 1, 0, 0])
    assert dataset.episode_ends.tolist() == [[True, False], [False, True]]
    back = [*names[:4], names[0]]
    refusals = {"comes back in row 4": back, "differ in length": names[:3], "type object": [{}] * 5}
    refusals["step 4 has none"] = [1.0, 1, 1, 2, np.nan]
    for message, wrong in refusals.items():
        with pytest.raises(InputError, match=message):
            from_arrays(**steps, episode=wrong)
    with pytest.raises(InputError, match="no terminations, truncations or episode; say where episodes end"):
        from_arrays(**steps)
    assert _by_our_names({**steps, "episode_id": names}).keys() == {*steps, "episode"}
