"""Columns of objects, as loggers of plants and robots write them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chibit.core.errors import InputError
from chibit.data.load import load_dataset
from chibit.data.readers.columns import NAMES

ROWS = [
    {
        "episode": episode,
        "obs": {"temp": float(10 * episode + step), "tank": {"level": 0.5 * step, "flow": [step, 2.0]}},
        "action": {"valve": 0.1 * step},
        "reward": 1.0,
    }
    for episode in range(2)
    for step in range(3)
]
STATES = [[10 * e + s, 0.5 * s, s, 2.0] for e in range(2) for s in range(3)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path, *columns):
    return load_dataset(path, columns=columns, progress=False)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_in_objects_stands_side_by_side_with_its_name(tmp_path, suffix):
    dataset = read(write(tmp_path / f"log{suffix}", ROWS))
    assert dataset.observations.tolist() == STATES
    np.testing.assert_allclose(dataset.actions[:, 0], [0.0, 0.1, 0.2] * 2, rtol=1e-6)
    assert dataset.provenance[NAMES] == {
        "observations": ["obs.temp", "obs.tank.level", "obs.tank.flow[0]", "obs.tank.flow[1]"],
        "actions": ["action.valve"],
    }
    assert not any("not used" in note for note in dataset.notes)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_one_entry_of_an_object_can_be_named_and_the_others_are_said_to_be_left(tmp_path, suffix):
    dataset = read(write(tmp_path / f"log{suffix}", ROWS), "observations=obs.tank.level,obs.temp")
    assert dataset.observations.tolist() == [[row[1], row[0]] for row in STATES]
    assert "columns that are not used: obs.tank.flow" in dataset.notes


def test_entries_are_known_by_name_in_whatever_order_a_row_or_a_file_has_them(tmp_path):
    def turned(rows):
        return [{**row, "obs": dict(reversed(row["obs"].items()))} for row in rows]

    write(tmp_path / "log" / "1.jsonl", [ROWS[0], *turned(ROWS[1:3])])
    write(tmp_path / "log" / "2.jsonl", turned(ROWS[3:]))
    assert read(tmp_path / "log").observations.tolist() == STATES


def test_a_file_with_other_entries_than_the_first_is_refused(tmp_path):
    write(tmp_path / "log" / "1.jsonl", ROWS[:3])
    write(tmp_path / "log" / "2.jsonl", [{**row, "obs": {"temp": 1.0}} for row in ROWS[3:]])
    said = r"2\.jsonl: has obs.temp for observations; expected obs.temp, obs.tank.level, .* in the first file"
    with pytest.raises(InputError, match=said):
        read(tmp_path / "log")


@pytest.mark.parametrize(
    ("obs", "said"),
    [
        ({"temp": 1.0}, r"obs.tank.level: line 7 is empty or NaN; fill it in"),
        (None, r"obs.temp: line 7 is empty or NaN; fill it in"),
        ({}, r"obs.temp: line 7 is empty or NaN; fill it in"),
    ],
)
def test_a_row_without_an_entry_is_refused_by_its_line(tmp_path, obs, said):
    with pytest.raises(InputError, match=said):
        read(write(tmp_path / "log.jsonl", [*ROWS, {**ROWS[0], "episode": 2, "obs": obs}]))


@pytest.mark.parametrize(
    ("obs", "said"),
    [
        ({}, "obs has objects with nothing in them; expected numbers"),
        ({"mode": "auto"}, r"obs.mode: line 1 is 'auto'; expected numbers"),
        ({"deep": [{"temp": 1.0}]}, r"obs.deep has type struct<temp: double>; expected numbers"),
    ],
)
def test_objects_without_numbers_are_refused(tmp_path, obs, said):
    with pytest.raises(InputError, match=said):
        read(write(tmp_path / "log.jsonl", [{**row, "obs": obs} for row in ROWS]))


def test_an_entry_that_is_not_there_is_refused_with_its_nearest(tmp_path):
    path = write(tmp_path / "log.jsonl", ROWS)
    with pytest.raises(InputError, match=r"no column 'obs.tmp' for observations; .*did you mean 'obs.temp'"):
        read(path, "observations=obs.tmp")


def test_an_object_that_nests_too_deep_is_refused(tmp_path):
    deep = 1.0
    for _ in range(40):
        deep = {"in": deep}
    with pytest.raises(InputError, match=r"obs\.in.* has type struct<.*; expected numbers"):
        read(write(tmp_path / "log.jsonl", [{**row, "obs": deep} for row in ROWS]))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_object_in_an_object_can_be_named(tmp_path, suffix):
    dataset = read(write(tmp_path / f"log{suffix}", ROWS), "observations=obs.tank,obs.temp")
    assert dataset.observations.tolist() == [[*row[1:], row[0]] for row in STATES]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_column_with_the_name_of_an_entry_is_refused_where_it_is_used(tmp_path, suffix):
    path = write(tmp_path / f"log{suffix}", [{**row, "obs.temp": 3.0} for row in ROWS])
    with pytest.raises(InputError, match=r"column 'obs.temp' is there in an object, too; rename one"):
        read(path)
    with pytest.raises(InputError, match=r"column 'obs.temp' is there 2 times; rename all but one"):
        read(path, "observations=obs.temp")
    assert read(path, "observations=obs.tank").observations.tolist() == [row[1:] for row in STATES]
