import h5py
import numpy as np
import pytest
from tests.unit.data.test_inspect import shown

from chibit.data.inspect import describe, find_notes, render_summary
from chibit.data.load import from_arrays, load_dataset

STEPS = 60


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def columns(**changes):
    rng = np.random.default_rng(0)
    found = {
        "temp": rng.normal(20, 2, STEPS),
        "hour": np.arange(STEPS) % 24,
        "idle": np.full(STEPS, 3.5),
        "valve": rng.normal(size=STEPS),
        "r": rng.normal(size=STEPS),
        "batch": np.repeat([0, 1], STEPS // 2),
    }
    return {**found, **changes}


MAPPING = {
    "observations": ("temp", "hour", "idle"),
    "actions": "valve",
    "rewards": "r",
    "episode": "batch",
}


def write(path, found):
    if path.suffix == ".npz":
        np.savez(path, **found)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, values in found.items():
                file[name] = values
    else:
        lines = [list(found), *zip(*found.values(), strict=True)]
        path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


def open_log(path, found, mapping=MAPPING):
    return load_dataset(write(path, found), columns=mapping, progress=False)


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".h5"])
def test_dimensions_have_the_names_of_their_source_and_their_ranges(tmp_path, suffix):
    found = columns()
    dataset = open_log(tmp_path / f"log{suffix}", found)
    summary = describe(dataset)
    assert [(one.what, one.index, one.name) for one in summary.dimensions] == [
        ("observation", 0, "temp"),
        ("observation", 1, "hour"),
        ("observation", 2, "idle"),
        ("action", 0, "valve"),
    ]
    for one, name in zip(summary.dimensions, ("temp", "hour", "idle", "valve"), strict=True):
        expected = found[name].min(), found[name].mean(), found[name].max()
        np.testing.assert_allclose((one.min, one.mean, one.max), expected, rtol=1e-6)
    page = " ".join(shown(summary).split())
    assert "dimension name min mean max" in page and "observation 1 hour 0 " in page
    assert "1 observation dimension (2 idle) never changes" in page
    assert "constant ones 2 idle" in page


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".h5"])
def test_columns_that_are_not_used_are_named(tmp_path, suffix):
    dataset = open_log(tmp_path / f"log{suffix}", columns(mode=np.ones(STEPS), other=np.ones(STEPS)))
    assert any(note == "columns that are not used: mode, other" for note in find_notes(dataset))
    assert not any("not used" in note for note in find_notes(open_log(tmp_path / f"b{suffix}", columns())))


@pytest.mark.parametrize(("offset", "shown_as"), [(0.0, "-9,999"), (1e8, "99,990,001")])
def test_a_value_far_outside_the_rest_is_noted(tmp_path, offset, shown_as):
    found = columns()
    found["temp"][[3, 17]] = -9999.0
    found["temp"] += offset  # of a large one differences from the mean are kept
    found["valve"][5] = 1e6
    notes = [note for note in find_notes(open_log(tmp_path / "log.csv", found)) if "far outside" in note]
    assert len(notes) == 2
    assert notes[0].startswith(f"observation dimension 0 (temp) is {shown_as} at 2 steps")
    assert notes[1].startswith("action dimension 0 (valve) is 1,000,000 at 1 step,")


def test_usual_values_are_not_far_out(tmp_path):
    found = columns(hour=np.where(np.arange(STEPS) % 20 == 3, 100.0, 0.0))  # two values
    assert not any("far outside" in note for note in find_notes(open_log(tmp_path / "log.csv", found)))


def test_wide_data_are_shown_in_part(tmp_path):
    wide = np.random.default_rng(0).normal(size=(40, 1200))
    dataset = from_arrays(wide, wide[:, :30], np.arange(40), np.arange(40) % 20 == 19, cache=tmp_path)
    summary = describe(dataset)
    assert len(summary.dimensions) == 1030
    page = shown(summary)
    assert "observation 19 " in page and "observation 20 " not in page and "action 20 " not in page
    assert page.count("see --json") == 2 and "the first 1,000" in page
    assert render_summary(summary)
