import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.data.load import load_dataset

ROWS = 6


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def write(path, times, name="timestamp", order=None, episodes=("a", "b"), **more):
    """Two episodes of six rows, whose observation is the place of a row in its episode."""
    lines = [",".join(["episode", name, "obs", "action", "reward", *more])]
    for episode in episodes:
        for i in order or range(len(times)):
            row = [episode, times[i], i + 0.5, -i - 0.5, i, *(column[i] for column in more.values())]
            lines.append(",".join(map(str, row)))
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path, **columns):
    dataset = load_dataset(path, columns=columns, progress=False)
    return dataset, " ".join(dataset.notes)


def npz_columns(order=tuple(range(ROWS))):
    order = np.array(order)
    return {
        "observations": order + 0.5,
        "actions": -order - 0.5,
        "rewards": order,
        "episode": np.zeros(ROWS, int),
    }


MINUTES = [f"2026-10-01T00:0{i}:00" for i in range(ROWS)]
SHUFFLED = [2, 0, 1, 5, 3, 4]


@pytest.mark.parametrize(
    "times",
    [
        [1.7e9 + 60 * i for i in range(ROWS)],
        MINUTES,
        [f"{minute}+02:00" for minute in MINUTES],
        [f"2026-10-0{i + 1}" for i in range(ROWS)],
        [f"0{i}:00:00" for i in range(ROWS)],
    ],
)
def test_rows_of_an_episode_are_sorted_by_their_time_and_it_is_said(tmp_path, times):
    dataset, notes = read(write(tmp_path / "log.csv", times, order=SHUFFLED), time="timestamp")
    assert dataset.observations[:, 0].tolist() == [i + 0.5 for i in range(ROWS)] * 2
    assert dataset.actions[:, 0].tolist() == [-i - 0.5 for i in range(ROWS)] * 2
    assert dataset.episode_starts.tolist() == [0, ROWS, 2 * ROWS]
    assert "sorted the rows of 2 of 2 episodes by timestamp" in notes
    assert "time between" not in notes


def test_rows_in_order_are_not_spoken_of(tmp_path):
    _, notes = read(write(tmp_path / "log.csv", MINUTES))
    assert "timestamp" not in notes


def test_none_takes_rows_as_they_come(tmp_path):
    dataset, notes = read(write(tmp_path / "log.csv", MINUTES, order=SHUFFLED), time="none")
    assert dataset.observations[:ROWS, 0].tolist() == [i + 0.5 for i in SHUFFLED]
    assert "sorted" not in notes


def test_equal_and_uneven_times_are_counted(tmp_path):
    times = [0, 60, 60, 120, 300, 360]
    _, notes = read(write(tmp_path / "log.csv", times))
    assert "at 2 of 10 steps timestamp is that of the step before" in notes
    assert "at 2 of 10 steps the time between rows (timestamp) is not 60, but up to 180" in notes
    _, notes = read(write(tmp_path / "day.csv", [*MINUTES[:4], "2026-10-01T00:05:00", "2026-10-01T00:06:00"]))
    assert "is not 60 s, but up to 120 s" in notes


@pytest.mark.parametrize(
    "times",
    [
        [5, 4, 3, 2, 1, 0],  # steps left
        [20.5, 20.1, 20.3, 20.9, 20.2, 20.4],  # a temperature
        ["23:58:00", "23:59:00", "00:00:00", "00:01:00", "00:02:00", "00:03:00"],
    ],
)
def test_rows_are_sorted_on_the_users_word_alone(tmp_path, times):
    """A usual name may mean something else; rows in their right order are left in it."""
    dataset, notes = read(write(tmp_path / "log.csv", times, "t"))
    assert dataset.observations[:ROWS, 0].tolist() == [i + 0.5 for i in range(ROWS)]
    assert "column t goes back in 2 of 2 episodes: rows are taken as they come; --columns time=t" in notes
    dataset, notes = read(write(tmp_path / "twice.csv", [0, 0, 1, 2, 3, 4], "t", SHUFFLED), time="t")
    assert dataset.observations[2:ROWS, 0].tolist() == [2.5, 3.5, 4.5, 5.5]
    assert "sorted the rows of 2 of 2 episodes by t" in notes


def test_what_stays_the_same_is_no_time(tmp_path):
    path = write(tmp_path / "log.csv", ["2026-10-01"] * ROWS, "date", SHUFFLED)
    dataset, notes = read(path)
    assert dataset.observations[:ROWS, 0].tolist() == [i + 0.5 for i in SHUFFLED]
    assert "date" not in notes


def test_what_is_no_time_is_refused_where_the_user_says_it(tmp_path):
    path = write(tmp_path / "log.csv", ["01.10.2026 00:00"] * ROWS, "time")
    _, notes = read(path)
    assert "time" not in notes
    with pytest.raises(InputError, match=r"time: not every row .* a zone or none; mend it, or say time=none"):
        read(path, time="time")


def test_two_that_may_be_meant_are_noted(tmp_path):
    path = write(tmp_path / "log.csv", MINUTES, "time", SHUFFLED, date=range(ROWS))
    dataset, notes = read(path)
    assert "time may be time or date: order is not checked; say --columns time=time" in notes
    assert dataset.observations[0, 0] == SHUFFLED[0] + 0.5
    dataset, _ = read(path, time="time")
    assert dataset.observations[0, 0] == 0.5


def test_a_column_that_is_used_otherwise_is_no_time(tmp_path):
    path = write(tmp_path / "log.csv", list(range(ROWS)), "t", SHUFFLED)
    dataset, _ = read(path, observations="t")
    assert dataset.observations[:ROWS, 0].tolist() == SHUFFLED


def test_without_a_column_of_episodes_only_their_ends_tell_them_apart(tmp_path):
    path = write(tmp_path / "log.csv", [*range(ROWS)], "step", SHUFFLED, done=[0, 0, 0, 0, 0, 1])
    path.write_text(path.read_text().replace("episode", "which"))
    with pytest.raises(InputError, match="goes back within episodes, .* sort the rows, or name episode="):
        read(path, time="step")
    _, notes = read(path)
    assert "step goes back in 2 of 2 episodes: rows are taken as they come; name episode=" in notes


def test_files_of_a_folder_are_sorted_each(tmp_path):
    folder = tmp_path / "episodes"
    folder.mkdir()
    for name in "ab":
        write(folder / f"{name}.csv", MINUTES, order=SHUFFLED, episodes=(name,))
    dataset, notes = read(folder, time="timestamp")
    assert dataset.observations[:, 0].tolist() == [i + 0.5 for i in range(ROWS)] * 2
    assert "sorted the rows of 2 of 2 episodes" in notes


def test_npz_files_have_times_too(tmp_path):
    columns = npz_columns(SHUFFLED)
    times = np.datetime64("2026-01-01") + np.array(SHUFFLED).astype("m8[m]")
    np.savez(tmp_path / "log.npz", **columns, time=times)
    dataset, notes = read(tmp_path / "log.npz", time="time")
    assert dataset.observations[:, 0].tolist() == [i + 0.5 for i in range(ROWS)]
    assert "sorted the rows of 1 of 1 episode by time" in notes


@pytest.mark.parametrize("kind", [str, "S"])
@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
def test_times_of_an_npz_file_may_be_text(tmp_path, kind, zone):
    columns, path = npz_columns(SHUFFLED), tmp_path / "text.npz"
    times = np.char.add(
        (np.datetime64("2026-01-01") + np.array(SHUFFLED).astype("m8[m]")).astype("U40"), zone
    )
    np.savez(path, **columns, time=times.astype(kind))
    dataset, notes = read(path)
    assert dataset.observations[:, 0].tolist() == [i + 0.5 for i in SHUFFLED]
    assert "column time goes back in 1 of 1 episode" in notes
    dataset, notes = read(path, time="time")
    assert dataset.observations[:, 0].tolist() == [i + 0.5 for i in range(ROWS)]
    for wrong in ("morning", "12", "", "2026-01-01T00:00" + ("" if zone else "Z")):
        times[0] = wrong
        np.savez(path, **columns, time=times.astype(kind))
        assert "column time" not in read(path)[1]
        with pytest.raises(InputError, match="time: not every row has a number, or a time as 2026"):
            read(path, time="time")


def test_formats_that_are_in_order_take_no_time(tmp_path):
    (tmp_path / "log.pkl").write_bytes(b"")
    with pytest.raises(InputError, match=r"time is for tables and \.npz files"):
        read(tmp_path / "log.pkl", time="t")


def test_times_of_an_npz_file_may_be_a_column_of_one(tmp_path):
    times = np.array(SHUFFLED)[:, None]
    np.savez(tmp_path / "log.npz", **npz_columns(SHUFFLED), time=times)
    dataset, notes = read(tmp_path / "log.npz", time="time")
    assert dataset.observations[:, 0].tolist() == [i + 0.5 for i in range(ROWS)]
    assert "sorted the rows of 1 of 1 episode by time" in notes
    np.savez(tmp_path / "two.npz", **npz_columns(), time=np.hstack([times, times]))
    with pytest.raises(InputError, match="it holds several numbers a row"):
        read(tmp_path / "two.npz", time="time")


@pytest.mark.parametrize("unit", ["M", "Y"])
def test_months_and_years_are_times(tmp_path, unit):
    times = np.array(SHUFFLED).astype(f"M8[{unit}]")
    np.savez(tmp_path / "log.npz", **npz_columns(SHUFFLED), date=times)
    _, notes = read(tmp_path / "log.npz")
    assert "column date goes back in 1 of 1 episode" in notes
    dataset, notes = read(tmp_path / "log.npz", time="date")
    assert dataset.observations[:, 0].tolist() == [i + 0.5 for i in range(ROWS)]
    assert "sorted the rows of 1 of 1 episode by date" in notes
