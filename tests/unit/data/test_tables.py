import json
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chibit.cli import main
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.load import load_dataset
from chibit.data.readers.columns import Reading, parse_columns
from chibit.data.readers.damage import without_damaged
from chibit.data.resolve import all_formats

EPISODES, STEPS = 3, 5
NUM = EPISODES * STEPS
PLANT = ["observations=obs_0,obs_1,temp", "actions=valve", "rewards=r", "episode=batch"]


def plant():
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=NUM) for name in ("obs_0", "obs_1", "temp", "valve", "r")}
    return {**columns, "batch": np.repeat(["b", "a", "c"], STEPS)}


def write_csv(path, columns, delimiter=","):
    lines = [list(columns), *zip(*columns.values(), strict=True)]
    path.write_text("".join(delimiter.join(map(str, line)) + "\n" for line in lines))


def write_parquet(path, columns):
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)


def write_jsonl(path, columns):
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))


WRITERS = {".csv": write_csv, ".parquet": write_parquet, ".jsonl": write_jsonl}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def read(path, columns=(), episode_length=None):
    """The recording of a file, read in this process, and its observations."""
    format = next(format for format in all_formats().values() if format.claim(path) is not None)
    with format.read_here_as(path, Reading(parse_columns(columns), episode_length)) as (recording, _):
        blocks = list(recording.blocks())
        return recording, *(
            np.concatenate([getattr(block, name) for block in blocks]) for name in ("observations", "actions")
        )


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_table_with_a_column_of_episodes_becomes_a_data_set(tmp_path, suffix):
    path, columns = tmp_path / f"log{suffix}", plant()
    WRITERS[suffix](path, columns)
    dataset = load_dataset(path, columns=PLANT, progress=False)
    states = np.column_stack([columns["obs_0"], columns["obs_1"], columns["temp"]])
    assert np.array_equal(dataset.observations, states.astype(np.float32))
    assert np.array_equal(dataset.actions[:, 0], columns["valve"].astype(np.float32))
    np.testing.assert_allclose(dataset.rewards, columns["r"], rtol=1e-6)
    assert dataset.episode_starts.tolist() == [0, 5, 10, 15]
    assert dataset.spec.name == "log"


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_folder_holds_an_episode_a_file(tmp_path, suffix):
    folder = tmp_path / "episodes"
    folder.mkdir()
    (folder / "columns.toml").write_text(
        'observations = ["obs_0", "obs_1"]\nactions = "valve"\nrewards = "r"'
    )
    (folder / "readme.txt").write_text("no table")
    columns = plant()
    for number, length in enumerate((2, 7, 6)):
        part = {name: column[:length] for name, column in columns.items() if name != "batch"}
        WRITERS[suffix](folder / f"{number}{suffix}", part)
    dataset = load_dataset(folder, progress=False)
    assert dataset.episode_starts.tolist() == [0, 2, 9, 15]
    assert dataset.spec.state_dim == 2


def test_files_of_a_folder_may_have_episodes_of_their_own(tmp_path):
    columns = {**plant(), "done": np.tile([0, 0, 0, 0, 1], EPISODES)}
    for number in range(2):
        write_csv(tmp_path / f"{number}.csv", columns)
    recording, *_ = read(tmp_path, PLANT)
    assert recording.episode_starts.tolist() == [0, 5, 10, 15, 20, 25, 30]
    assert recording.episode_ends[:, 0].all()


def test_files_of_a_folder_may_lack_a_time_that_nobody_asked_for(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    for number, more in enumerate(({}, {"t": np.arange(NUM)}, {})):
        write_parquet(folder / f"{number}.parquet", plant() | more)
    assert load_dataset(folder, columns=PLANT, progress=False).num_episodes == 9
    (folder / "0.parquet").unlink()  # the first has it, now
    assert load_dataset(folder, columns=PLANT, progress=False).num_episodes == 6
    with pytest.raises(InputError, match=r"2\.parquet: no column 't' for time"):
        load_dataset(folder, columns=[*PLANT, "time=t"], progress=False)


@pytest.mark.parametrize(("value", "said"), [("oops", "is 'oops'"), ("", "is empty")])
def test_lines_are_counted_as_an_editor_does(tmp_path, value, said):
    """Readers pass over empty ones."""
    path = tmp_path / "log.csv"
    path.write_text(f"obs,action,reward,done\n\n1,0.5,0,0\n\n\n2,0.5,{value},1\n")
    with pytest.raises(InputError, match=f"reward: line 6 {said}"):
        read(path)


def test_a_damaged_file_of_a_folder_is_left_out_and_counted_where_asked(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    for number in range(3):
        write_parquet(folder / f"{number}.parquet", plant())
    (folder / "1.parquet").write_bytes((folder / "1.parquet").read_bytes()[:-50])
    with pytest.raises(DamagedFileError, match=r"1\.parquet: damaged"):
        load_dataset(folder, columns=PLANT, progress=False)
    dataset = load_dataset(folder, columns=PLANT, skip_damaged=True, progress=False)
    assert dataset.num_episodes == 6
    assert "left out 1 of 3 files: damaged" in dataset.notes


@pytest.mark.parametrize("cell", ["", "nan", "1e300"])
def test_an_episode_with_an_empty_cell_is_left_out_where_asked(tmp_path, cell):
    columns = plant()
    write_csv(tmp_path / "log.csv", {**columns, "temp": [*columns["temp"][:7], cell, *columns["temp"][8:]]})
    with pytest.raises(InputError, match=r"line 9 is empty|row 7 \(episode 1"):
        load_dataset(tmp_path / "log.csv", columns=PLANT, progress=False)
    dataset = load_dataset(tmp_path / "log.csv", columns=PLANT, skip_damaged=True, progress=False)
    assert dataset.episode_starts.tolist() == [0, 5, 10]


def test_whatever_cell_is_empty_in_a_damaged_episode_it_is_left_out_where_asked(tmp_path):
    columns = {"obs": [[float(n), 1.0] for n in range(9)], "temp": list(range(9)), "u": [0, 1, 2] * 3}
    columns |= {"r": [1] * 9, "batch": np.repeat([7, -1, 4], 3), "done": [False, False, True] * 3}
    table = pa.table(columns)
    names = [f"{ours}={theirs}" for ours, theirs in (("observations", "obs,temp"), ("actions", "u"))]
    names += ["rewards=r", "episode=batch"]
    empty = {"obs": [[5.0, None], None], "temp": [None], "u": [None], "r": [None], "done": [None]}
    for name, cell in ((name, cell) for name, cells in empty.items() for cell in cells):
        values = table[name].to_pylist()
        values[5] = cell
        column = pa.array(values, table[name].type)
        pq.write_table(
            table.set_column(table.column_names.index(name), name, column), tmp_path / "log.parquet"
        )
        with pytest.raises(InputError, match=rf"{name}: row 5 \(from 0\) is empty or NaN"):
            read(tmp_path / "log.parquet", names)
        reading = Reading(parse_columns(names), skip_damaged=True)
        with all_formats()["parquet"].read_here_as(tmp_path / "log.parquet", reading) as (found, _):
            whole = without_damaged(found, "log")
        assert whole.is_discrete
        assert whole.episode_starts.tolist() == [0, 3, 6]
        assert next(whole.blocks()).observations[:, 0].tolist() == [0, 1, 2, 6, 7, 8]
        assert "left out 1 of 3 episodes: values that are not finite" in whole.notes


def test_numbers_and_episodes_of_databases_are_read(tmp_path):
    columns = {"obs": [[[1.0, 2.0], [3.0, 4.0]]] * 4, "action": [0.5] * 4}
    columns["reward"] = [Decimal("1.25"), Decimal("2"), Decimal("3"), Decimal("4")]
    columns["episode"] = [date(2026, 1, 2)] * 3 + [date(2026, 1, 1)]
    write_parquet(tmp_path / "log.parquet", columns)
    recording, observations, _ = read(tmp_path / "log.parquet")
    assert observations.tolist() == [[1.0, 2.0, 3.0, 4.0]] * 4
    assert recording.rewards.tolist() == [1.25, 2, 3, 4]
    assert recording.episode_starts.tolist() == [0, 3, 4]


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_without_rows_are_left_out_of_a_folder_and_counted(tmp_path, suffix):
    for number, length in enumerate((2, 0, 3)):
        part = {name: column[:length] for name, column in plant().items()}
        WRITERS[suffix](tmp_path / f"{number}{suffix}", part)
    if suffix == ".jsonl":  # without a row it has no bytes either
        with pytest.raises(DamagedFileError, match=r"1\.jsonl: is empty; copy or write it again"):
            read(tmp_path, PLANT)
        return
    recording, *_ = read(tmp_path, PLANT)
    assert recording.episode_starts.tolist() == [0, 2, 5]
    assert "left out 1 of 3 files: they have no rows" in recording_notes(tmp_path)


def test_a_line_of_names_that_does_not_end_is_a_file_without_rows(tmp_path):
    write_csv(tmp_path / "0.csv", plant())
    (tmp_path / "1.csv").write_text(",".join(plant()))
    assert read(tmp_path, PLANT)[0].episode_starts.tolist() == [0, 5, 10, 15]
    assert "left out 1 of 2 files: they have no rows" in recording_notes(tmp_path)
    with pytest.raises(InputError, match=r"1\.csv: no steps"):
        read(tmp_path / "1.csv", PLANT)


def recording_notes(folder):
    format = next(format for format in all_formats().values() if format.claim(folder) is not None)
    with format.read_here_as(folder, Reading(parse_columns(PLANT))) as (_, origin):
        return origin.notes


def test_an_episode_that_two_files_share_is_said_and_tables_of_two_kinds_are_refused(tmp_path):
    for number, rows in enumerate((slice(0, 7), slice(7, 15))):
        write_csv(tmp_path / f"{number}.csv", {name: column[rows] for name, column in plant().items()})
    assert read(tmp_path, PLANT)[0].episode_starts.tolist() == [0, 5, 7, 10, 15]
    assert "1 files begin with the episode of the file before: taken as another one" in recording_notes(
        tmp_path
    )
    write_parquet(tmp_path / "2.parquet", plant())
    with pytest.raises(InputError, match=r"tables of several kinds \(\.csv, \.parquet\)"):
        read(tmp_path, PLANT)


def test_decimal_commas_are_read_where_commas_do_not_separate(tmp_path):
    rows = ["temp;obs;valve;r;batch", "20;1,5;0,25;-1;a", "21;-2,5;0,5;2;a"]
    (tmp_path / "log.csv").write_text("\r\n".join(rows))
    names = ["observations=temp,obs", "actions=valve", "rewards=r", "episode=batch"]
    recording, observations, actions = read(tmp_path / "log.csv", names)
    assert observations.tolist() == [[20, 1.5], [21, -2.5]]
    assert actions.tolist() == [[0.25], [0.5]]
    assert recording.rewards.tolist() == [-1, 2]


def test_a_comma_within_text_makes_no_decimal_commas(tmp_path):
    rows = ["obs;time;act;rew;batch", "1.5;10:00:00,123;0.25;-1;a", "-2.5;10:00:01,5;0.5;2;a"]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    _, observations, actions = read(tmp_path / "log.csv", ["episode=batch"])
    assert observations.tolist() == [[1.5], [-2.5]] and actions.tolist() == [[0.25], [0.5]]


@pytest.mark.parametrize("separator", [", ", ",", " ; ", "\t "])
def test_spaces_around_names_are_none_of_them(tmp_path, separator):
    columns = {"obs_0": [1.5, 2.5], '"obs_1"': [3.5, 4.5], "act": [0.5, 0.25], "rew": [1, 2], "done": [0, 1]}
    rows = zip(*columns.values(), strict=True)
    lines = [separator.join(columns) + " ", *(separator.join(map(str, row)) for row in rows)]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    recording, observations, _ = read(tmp_path / "log.csv")
    assert observations.tolist() == [[1.5, 3.5], [2.5, 4.5]] and recording.rewards.tolist() == [1, 2]


def test_columns_that_nobody_asks_for_may_share_a_name(tmp_path):
    write_csv(tmp_path / "log.csv", plant())
    lines = (tmp_path / "log.csv").read_text().splitlines()
    more = [",,x,x", *(f",{n},1,2" for n in range(NUM))]
    (tmp_path / "log.csv").write_text("\n".join(map("".join, zip(lines, more, strict=True))))
    assert np.array_equal(read(tmp_path / "log.csv", PLANT)[1][:, 2], plant()["temp"])
    with pytest.raises(InputError, match="column 'x' is there 2 times; rename all but one"):
        read(tmp_path / "log.csv", ["observations=x", *PLANT[1:]])


def test_a_log_without_ends_is_told_what_to_say(tmp_path):
    write_csv(tmp_path / "log.csv", plant())
    with pytest.raises(InputError, match=r"episode=COLUMN, or cut it by --episode-length N"):
        read(tmp_path / "log.csv", PLANT[:3])
    with pytest.raises(InputError, match=r"cut it after fewer than 16 steps by --episode-length"):
        read(tmp_path / "log.csv", PLANT[:3], episode_length=16)


@pytest.mark.parametrize("delimiter", ",;\t")
def test_separators_and_a_mark_of_byte_order_are_known(tmp_path, delimiter):
    path = tmp_path / "log.csv"
    write_csv(path, plant(), delimiter)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert np.array_equal(read(path, PLANT)[1][:, 2], plant()["temp"])


def test_vectors_in_a_column_and_whole_numbers_as_actions(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    columns = {"obs": vectors, "action": [0, 1, 2, 1], "reward": [1, 2.5, 3, 4], "done": [False] * 3 + [True]}
    for suffix in (".parquet", ".jsonl"):
        WRITERS[suffix](tmp_path / f"log{suffix}", columns)
        recording, observations, actions = read(tmp_path / f"log{suffix}")
        assert np.array_equal(observations, vectors)
        assert recording.is_discrete
        assert actions[:, 0].tolist() == [0, 1, 2, 1]
        assert recording.rewards.tolist() == [1, 2.5, 3, 4]


@pytest.mark.parametrize("suffix", WRITERS)
def test_whole_numbers_side_by_side_are_no_quantities_unless_they_are_written_so(tmp_path, suffix):
    path, columns = tmp_path / f"log{suffix}", plant()
    valves = {"act_0": np.arange(NUM) % 2, "act_1": np.arange(NUM) % 3}
    said = [*(word for word in PLANT if not word.startswith("actions"))]
    WRITERS[suffix](path, {**columns, **valves})
    with pytest.raises(InputError, match=r"actions are integers of shape \(15, 2\); expected floats"):
        read(path, said)
    WRITERS[suffix](path, {**columns, **{name: valve.astype(float) for name, valve in valves.items()}})
    recording, _, actions = read(path, said)
    assert not recording.is_discrete and actions.tolist() == np.column_stack(list(valves.values())).tolist()


def test_a_table_without_ends_is_cut(tmp_path):
    write_csv(tmp_path / "log.csv", plant())
    assert read(tmp_path / "log.csv", PLANT[:3], 4)[0].episode_starts.tolist() == [0, 4, 8, 12]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("valve", "temp", "column 'temp' is there 2 times"),
        ("valve", "volve", "no column 'valve' for actions; found batch, .*mean 'volve'"),
        ("\nend", ",,hot,1,1,c\n", "obs_0: line 17 is empty or NaN"),
        ("\nend", "1,1,hot,1,1,c\n", "temp: line 17 is 'hot'; expected numbers"),
        ("\nend", "1,1,1_9,1,1,c\n", "temp: line 17 is '1_9'; expected numbers"),
        ("\nend", "1,1,\u0661\u0669,1,1,c\n", "temp: line 17 is '\u0661\u0669'; expected numbers"),
        ("\nend", "1,1,1,1,1,b\n", "episode: b comes back in row 15"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_name(tmp_path, old, new, message):
    path = tmp_path / "log.csv"
    write_csv(path, plant())
    text = path.read_text() + "\nend"
    path.write_text((text[:-4] + new) if old == "\nend" else text[:-4].replace(old, new))
    with pytest.raises(InputError, match=message):
        read(path, PLANT)


def test_too_large_numbers_and_lists_of_other_lengths_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    write_csv(path, {**plant(), "temp": np.full(NUM, 1e300)})
    with pytest.raises(InputError, match="column 2 of row 0 .* is inf; expected finite numbers below"):
        load_dataset(path, columns=PLANT, progress=False)
    lists = {"obs": [[1.0], [1.0, 2.0]], "action": [0.5, 0.5], "reward": [1, 1], "done": [0, 1]}
    pq.write_table(pa.table(lists), tmp_path / "log.parquet")
    with pytest.raises(InputError, match="obs: lists of 1 to 2 numbers; expected one length"):
        read(tmp_path / "log.parquet")


@pytest.mark.parametrize("suffix", WRITERS)
def test_damaged_tables_are_said_to_be(tmp_path, suffix):
    path = tmp_path / f"log{suffix}"
    WRITERS[suffix](path, plant())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b',{"\n1' + (b"" if suffix != ".csv" else b"\n1,2\n"))
    with pytest.raises(DamagedFileError, match=rf"log{suffix}: damaged {suffix} file"):
        read(path, PLANT)
    path.write_bytes(b"")
    with pytest.raises((InputError, DamagedFileError), match=rf"log{suffix}: "):
        read(path, PLANT)


def test_ends_may_be_time_limits_alone_and_a_table_without_rows_is_said(tmp_path):
    columns = {**plant(), "timeouts": np.arange(NUM) % 5 == 4}
    write_parquet(tmp_path / "log.parquet", columns)
    assert read(tmp_path / "log.parquet", PLANT[:3])[0].episode_starts.tolist() == [0, 5, 10, 15]
    (tmp_path / "log.csv").write_text(",".join(plant()) + "\n")
    with pytest.raises(InputError, match=r"log\.csv: no steps"):
        read(tmp_path / "log.csv", PLANT)


def test_a_pipe_and_a_link_out_of_the_folder_are_not_opened(tmp_path):
    write_csv(tmp_path / "outside.csv", plant())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "in.csv").symlink_to(tmp_path / "outside.csv")
    with pytest.raises(InputError, match=r"in\.csv: leads out of"):
        read(folder, PLANT)


def test_a_table_is_trained_on(tmp_path):
    write_csv(tmp_path / "log.csv", plant())
    flags = ["--agent", "bc", "--num-steps", "2", "--quiet", "--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(tmp_path / "log.csv"), *flags, "--columns", *PLANT]) == 0
