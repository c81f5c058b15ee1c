"""Logs with odd contents that somebody may well have: each means what they mean, or is refused in a line."""

import datetime
import os
from decimal import Decimal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chibit.core.errors import InputError
from chibit.data.inspect import find_notes
from chibit.data.load import load_dataset
from chibit.data.readers.columns import Reading, parse_columns
from chibit.data.resolve import all_formats
from log_files import neorl, write_demos, write_ogbench

STEPS, EPISODES = 4, 3
ROWS = range(STEPS * EPISODES)
EACH = [0, STEPS, 2 * STEPS, 3 * STEPS]
"""Where episodes begin."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def log(**changes):
    columns = {
        "episode": [i // STEPS for i in ROWS],
        "obs": [i + 0.5 for i in ROWS],
        "action": [0.25 * i for i in ROWS],
        "reward": [float(i) for i in ROWS],
        **changes,
    }
    return {name: column for name, column in columns.items() if column is not None}


def csv_text(separator=",", end="\n", **changes):
    columns = log(**changes)
    lines = [list(columns), *zip(*columns.values(), strict=True)]
    return "".join(separator.join(map(str, line)) + end for line in lines)


def read(path, text="", columns=()):
    """Episode starts, observations, actions, all notes of a file, read in this process."""
    if text:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    format = next(f for f in sorted(all_formats().values(), key=lambda f: bool(f.suffixes)) if f.claim(path))
    reader = getattr(format, "read_here_as", format.read_as)
    with reader(path, Reading(parse_columns(columns))) as (recording, origin):
        blocks = list(recording.blocks())
        seen, done = (np.concatenate([getattr(b, n) for b in blocks]) for n in ("observations", "actions"))
        return recording.episode_starts.tolist(), seen, done, (*origin.notes, *recording.notes)


def parquet(path, columns=(), **changes):
    pq.write_table(pa.table(log(**changes)), path)
    return read(path, columns=columns)


def test_whole_numbers_beyond_64_bits_of_a_csv_file_tell_episodes_apart(tmp_path):
    large = [12345678901234567890 + i // STEPS for i in ROWS]
    assert read(tmp_path / "log.csv", csv_text(episode=large))[0] == EACH
    unequal = [f"{2**53 + i // STEPS}.0" for i in ROWS]
    assert read(tmp_path / "log.csv", csv_text(episode=unequal))[0] == EACH


def test_decimals_and_bytes_of_databases_tell_episodes_apart(tmp_path):
    numbers = pa.array([Decimal(10**30 + i // STEPS) for i in ROWS], pa.decimal128(38, 0))
    assert parquet(tmp_path / "log.parquet", episode=numbers)[0] == EACH
    for kind in (pa.binary(), pa.binary(2), pa.large_binary()):
        keys = pa.array([bytes([200, i // STEPS]) for i in ROWS], kind)
        assert parquet(tmp_path / "log.parquet", episode=keys)[0] == EACH
    with pytest.raises(InputError, match=r"episode has type map<string, int64.*>; expected numbers or text"):
        parquet(
            tmp_path / "log.parquet", episode=pa.array([[("a", 1)]] * 12, pa.map_(pa.string(), pa.int64()))
        )
    with pytest.raises(InputError, match=r"episode: shape \(12, 2\), expected \(12,\)"):
        parquet(tmp_path / "log.parquet", episode=[[1, i // STEPS] for i in ROWS])


def test_types_of_arrows_own_are_what_they_are_stored_as(tmp_path):
    pictures = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(24.0).reshape(12, 2))
    starts, seen, *_ = parquet(tmp_path / "log.parquet", obs=pictures)
    assert starts == EACH and seen[1].tolist() == [2, 3]


def test_names_of_episodes_in_another_encoding_tell_them_apart(tmp_path):
    names = [b"\xe4", b"\xf6", b"b"]
    rows = b"".join(b"%s,%d.5,0.5,1\n" % (names[i // STEPS], i) for i in ROWS)
    text = b"episode,obs,action,reward\n" + b"a,0.5,0.5,1\n" * 9000 + rows
    assert read(tmp_path / "log.csv", text)[0] == [0, 9000, 9004, 9008, 9012]
    with h5py.File(tmp_path / "log.h5", "w") as file:
        for name, column in log(episode=np.repeat(names, STEPS)).items():
            file[name] = column
    assert read(tmp_path / "log.h5")[0] == EACH


@pytest.mark.parametrize(("kind", "first"), [(np.float16, 2048), (np.float32, 2**24), (np.float64, 2**53)])
def test_floats_that_tell_no_episodes_apart_are_refused(tmp_path, kind, first):
    names = np.array([0] * STEPS + [first] * STEPS + [first + 1] * STEPS, kind)
    message = (
        rf"episode: row 4 is {first}, which {np.dtype(kind).name} does not tell from its neighbors; write "
    )
    np.savez(tmp_path / "log.npz", **log(episode=names))
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "log.npz", progress=False)
    with pytest.raises(InputError, match=message):
        parquet(tmp_path / "log.parquet", episode=pa.array(names))
    np.savez(tmp_path / "log.npz", **log(episode=np.minimum(names, first - 1)))
    assert load_dataset(tmp_path / "log.npz", progress=False).num_episodes == 2


def test_json_numbers_that_tell_no_episodes_apart_are_refused(tmp_path):
    lines = [
        f'{{"episode": {12345678901234567890 + i // STEPS}, "obs": 1.5, "action": 0.5, "reward": 1}}\n'
        for i in ROWS
    ]
    with pytest.raises(InputError, match="which float64 does not tell from its neighbors; write such names"):
        read(tmp_path / "log.jsonl", "".join(lines))


def test_an_episode_without_a_name_is_refused(tmp_path):
    names = ["a"] * 6 + ["b"] * 5
    for empty in ("", " "):
        with pytest.raises(InputError, match="episode: line 13 is empty or NaN; fill it in"):
            read(tmp_path / "log.csv", csv_text(episode=[*names, empty]))
        with pytest.raises(InputError, match=r"episode: row 11 \(from 0\) is empty or NaN; fill it in"):
            parquet(tmp_path / "log.parquet", episode=[*names, empty])
        np.savez(tmp_path / "log.npz", **log(episode=np.array([*names, empty])))
        with pytest.raises(InputError, match="episode: row 11 is empty; fill it in"):
            load_dataset(tmp_path / "log.npz", progress=False)
    np.savez(tmp_path / "log.npz", **log(episode=np.array([b"", *map(str.encode, names)])))
    with pytest.raises(InputError, match="episode: row 0 is empty; fill it in"):
        load_dataset(tmp_path / "log.npz", progress=False)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1790000000 * 10**9 - i for i in ROWS], pa.timestamp("ns")),
        pa.array([1790000000 * 10**9 - i for i in ROWS], pa.timestamp("ns", tz="Europe/Berlin")),
        pa.array([12 - i for i in ROWS], pa.time64("ns")),
        pa.array([12 - i for i in ROWS], pa.time32("ms")),
        pa.array([12 - i for i in ROWS], pa.duration("ns")),
        pa.array([12 - i for i in ROWS], pa.duration("s")),
        pa.array([Decimal(12 - i) / 10 for i in ROWS]),
        pa.array([datetime.date(2026, 1, 20 - i) for i in ROWS]),
        pa.array([f"2026-10-25T00:00:00.{123456789 - i:09d}" for i in ROWS]),
        pa.array([f"2026-10-25T00:00:00.{123456789 - i:09d}+02:00" for i in ROWS]),
    ],
)
def test_times_of_every_unit_are_times(tmp_path, times):
    starts, seen, _, notes = parquet(tmp_path / "log.parquet", ["time=logged"], logged=times)
    assert starts == EACH and "sorted the rows of 3 of 3 episodes by logged" in notes
    assert seen[:, 0].tolist() == [i + 0.5 for first in EACH[:-1] for i in range(first + 3, first - 1, -1)]


def test_texts_as_times_of_arrays_are_times(tmp_path):
    texts = np.array([f"2026-01-01T00:00:{12 - i:02d}" for i in ROWS])
    for times in (texts, texts.astype("datetime64[us]")):
        np.savez(tmp_path / "log.npz", **log(time=times))
        dataset = load_dataset(tmp_path / "log.npz", columns=["time=time"], progress=False)
        assert dataset.observations[:STEPS, 0].tolist() == [3.5, 2.5, 1.5, 0.5]


def test_whole_decimals_are_choices(tmp_path):
    whole = pa.array([Decimal(i % 3) for i in ROWS], pa.decimal128(38, 0))
    *_, actions, _ = parquet(tmp_path / "log.parquet", action=whole)
    assert actions.dtype.kind == "i" and actions[:4, 0].tolist() == [0, 1, 2, 0]
    part = pa.array([Decimal(i % 3) for i in ROWS], pa.decimal128(10, 2))
    *_, actions, _ = parquet(tmp_path / "log.parquet", action=part)
    assert actions.dtype.kind == "f"


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_lines_end_as_on_any_system(tmp_path, end):
    starts, seen, *_ = read(tmp_path / "log.csv", csv_text(end=end))
    assert starts == EACH and seen[:, 0].tolist() == [i + 0.5 for i in ROWS]


@pytest.mark.parametrize(("separator", "suffix"), [(";", ".csv"), ("\t", ".tsv")])
def test_marks_within_names_of_columns_separate_nothing(tmp_path, separator, suffix):
    text = csv_text(separator, **{"place (x, y, z, u, v, w)": [1] * len(ROWS)})
    starts, seen, *_ = read(tmp_path / f"log{suffix}", text)
    assert starts == EACH and seen[:, 0].tolist() == [i + 0.5 for i in ROWS]


def test_decimal_commas_are_looked_for_in_columns_that_are_used(tmp_path):
    spots = ["1,2"] * len(ROWS)
    assert read(tmp_path / "log.csv", csv_text(";", spot=spots))[1][1, 0] == 1.5
    quoted = [f'"{i},5"' for i in ROWS]
    assert read(tmp_path / "log.csv", csv_text(";", obs=quoted, action=quoted, reward=quoted))[1][1, 0] == 1.5
    small = [f"{i},5e-3" for i in ROWS]
    assert read(tmp_path / "log.csv", csv_text(";", obs=small, action=small, reward=small))[1][1, 0] == 1.5e-3
    with pytest.raises(InputError, match="action: line 2 is '0.0'; .*; write decimals with points in all"):
        read(tmp_path / "log.csv", csv_text(";", obs=small))


def test_what_is_in_cells_says_what_to_write(tmp_path):
    with pytest.raises(
        InputError, match=r"is '\[1, 2\]'; .*; write a column for each number: obs_0, obs_1, "
    ):
        read(tmp_path / "log.csv", csv_text(obs=['"[1, 2]"'] * len(ROWS)))
    with pytest.raises(InputError, match=r"obs: line 2 is '\[m\]'; .*; write a number, or take the line out"):
        read(tmp_path / "log.csv", csv_text().replace("\n", "\n[-],[m],[V],[-]\n", 1))
    actions = [i % 3 if i < 11 else "none" for i in ROWS]
    with pytest.raises(
        InputError, match="action: line 13 is 'none'; .*; write a number, or take the line out"
    ):
        read(tmp_path / "log.csv", csv_text(action=actions))


def test_files_of_a_folder_that_are_not_read_are_said(tmp_path):
    folder = tmp_path / "plant"
    (folder / "day 3").mkdir(parents=True)
    for name in ("a.csv", "b.npz", "notes.txt", "columns.toml", ".c.csv.swp"):
        (folder / name).write_text("" if name == "columns.toml" else csv_text())
    (folder / "c.csv.gz").write_bytes(b"\x1f\x8b")
    starts, *_, notes = read(folder)
    assert starts == EACH
    said = "not read in this folder: b.npz, c.csv.gz, day 3; unpack, rename or move what belongs to it"
    assert said in notes
    (folder / "b.npz").unlink(), (folder / "c.csv.gz").unlink(), (folder / "day 3").rmdir()
    assert not any("not read" in note for note in read(folder)[-1])


def test_suffixes_may_be_in_upper_case_and_hidden_files_are_no_part(tmp_path):
    text = csv_text()
    alone = read(tmp_path / "LOG.CSV", text)
    folder = tmp_path / "plant"
    folder.mkdir()
    (folder / "a.CSV").write_text(text)
    (folder / "b.csv").write_text(text)
    (folder / "._a.CSV").write_bytes(b"\x00\x05\x16\x07")  # as macOS writes one beside each file
    both = read(folder)
    assert alone[0] == EACH and len(both[0]) == 2 * len(alone[0]) - 1
    np.savez(tmp_path / "log.npz", **neorl(index=np.arange(len(ROWS))))
    (tmp_path / "log.npz").rename(tmp_path / "LOG.NPZ")
    assert load_dataset(tmp_path / "LOG.NPZ", progress=False).num_steps
    assert load_dataset(tmp_path / "LOG.CSV", progress=False).spec.name == "LOG"


def test_numbers_of_rows_are_no_beginnings_of_neorl(tmp_path):
    rows = len(neorl(index=np.array([0]))["reward"])
    np.savez(tmp_path / "log.npz", **neorl(index=np.arange(rows)))
    dataset = load_dataset(tmp_path / "log.npz", progress=False)
    assert (dataset.episode_lengths > 1).any()
    assert any("columns that are not used: index" in note for note in dataset.notes)


def test_a_name_with_a_version_makes_no_walks_of_ogbench(tmp_path):
    write_ogbench(tmp_path / "walks.npz")
    with np.load(tmp_path / "walks.npz") as walks:
        arrays = {name: walks[name] for name in ("observations", "actions", "terminals")}
    np.savez(tmp_path / "plant-v2.npz", **arrays)
    with pytest.raises(InputError, match="no rewards; .*; name it by --columns rewards=COLUMN"):
        load_dataset(tmp_path / "plant-v2.npz", progress=False)


def test_groups_that_are_no_demonstrations_are_said(tmp_path):
    write_demos(tmp_path / "lift.hdf5")
    with h5py.File(tmp_path / "lift.hdf5", "a") as file:
        file.copy("data/demo_0", "data/retry_1")
    assert "not read, since only demo_0, demo_1, ... are: retry_1" in read(tmp_path / "lift.hdf5")[-1]


def test_a_group_of_observations_is_no_damage(tmp_path):
    with h5py.File(tmp_path / "log.h5", "w") as file:
        for name, column in log().items():
            file["obs/flow" if name == "obs" else name] = column
        file["obs/temp"] = log()["obs"]
    with pytest.raises(InputError, match="/obs is a group of flow, temp; expected an array; write them"):
        read(tmp_path / "log.h5")


def test_an_empty_next_observation_may_be_taken_out(tmp_path):
    following = [i + 1.5 if i % STEPS < 3 else "" for i in ROWS]
    with pytest.raises(
        InputError, match="next_obs: line 5 is empty or NaN; fill it in, take the column out, or"
    ):
        read(tmp_path / "log.csv", csv_text(next_obs=following))


def test_a_reward_that_stands_for_a_missing_one_is_said(tmp_path):
    rewards = np.random.default_rng(0).normal(size=40)

    def notes(**changes):
        ends = np.arange(40) % 10 == 9
        columns = {"obs": np.arange(40.0), "action": np.arange(40.0), "done": ends, "reward": rewards}
        np.savez(tmp_path / "log.npz", **columns | changes)
        return [
            n for n in find_notes(load_dataset(tmp_path / "log.npz", progress=False)) if "reward within" in n
        ]

    assert notes() == []
    (said,) = notes(reward=np.where(np.arange(40) == 13, -9999, rewards))
    assert said.startswith("reward within episodes is -9,999 at 1 step, far outside all others (")
    assert notes(reward=np.where(np.arange(40) % 10 == 9, -9999, rewards)) == []  # of ends, as a crash costs


def test_one_choice_alone_is_said(tmp_path):
    np.savez(tmp_path / "log.npz", **log(action=np.zeros(len(ROWS), int)))
    said = find_notes(load_dataset(tmp_path / "log.npz", progress=False))
    assert "every step has action 0: there is no other choice to learn from" in said
    np.savez(tmp_path / "two.npz", **log(action=np.array(ROWS) % 2))
    assert not any("every step" in note for note in find_notes(load_dataset(tmp_path / "two.npz")))


def test_one_dimension_varies(tmp_path):
    np.savez(tmp_path / "log.npz", **log(obs=np.array([52 + 3e-6 * i for i in ROWS])))
    notes = find_notes(load_dataset(tmp_path / "log.npz", progress=False))
    assert any("1 observation dimension (0 obs) varies by less than 1e-4" in note for note in notes)


@pytest.mark.parametrize("suffix", ["csv", "npz"])
@pytest.mark.parametrize("name", [b"lo\xe9g", b"lo\ng", "läng ü [x]:1".encode()])
def test_whatever_a_file_is_called_it_is_read(tmp_path, name, suffix):
    path = tmp_path / f"{os.fsdecode(name)}.{suffix}"
    if suffix == "csv":
        path.write_text(csv_text())
    else:
        with open(path, "wb") as file:
            np.savez(file, **log())
    dataset = load_dataset(path, progress=False)
    assert dataset.episode_starts.tolist() == EACH
    escaped = {b"lo\xe9g": r"lo\udce9g", b"lo\ng": r"lo\ng"}
    assert dataset.spec.name == escaped.get(name, path.stem)
