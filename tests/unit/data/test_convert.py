"""Data sets written in another form and read again."""

import hashlib
import shutil
from pathlib import Path

import minari
import numpy as np
import pytest

from chibit.cli import main
from chibit.core.errors import InputError
from chibit.data.convert import convert
from chibit.data.load import load_dataset
from log_files import write_lerobot

FORMS = ("store", "minari", "npz")
DUMP = Path(__file__).parent / "files" / "d3rlpy_2_8_1.h5"


def written(form, folder, name="again"):
    return folder / (f"{name}.npz" if form == "npz" else f"{name}-v0")


def content(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def plant(path, **more):
    """A log in double precision, whose rewards single precision would round."""
    rng = np.random.default_rng(0)
    columns = {
        "observations": 50 + 1e-4 * rng.normal(size=(30, 3)),
        "actions": rng.uniform(10, 90, (30, 2)),
        "rewards": rng.normal(size=30) / 3,
        "terminations": np.isin(np.arange(30), [9]),
        "truncations": np.isin(np.arange(30), [16, 29]),
        **more,
    }
    np.savez(path, **columns)
    return path


def pictures(path, depth):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (20, 40, 48), dtype=np.uint8)
    if depth > 1:
        before = np.concatenate([np.zeros_like(frames[:1]), frames[:-1]])
        before[10] = 0
        frames = np.stack([before, frames], axis=1)
    choices = rng.integers(0, 3, 20)
    np.savez(path, obs=frames, action=choices, reward=np.ones(20), done=np.arange(20) % 10 == 9)
    return path


SOURCES = {
    "double precision": lambda folder: plant(folder / "log.npz"),
    "last seen known": lambda folder: plant(folder / "log.npz", next_observations=np.ones((30, 3))),
    "d3rlpy": lambda folder: shutil.copy(DUMP, folder / "dump.h5"),
    "pictures": lambda folder: pictures(folder / "log.npz", 1),
    "stacks": lambda folder: pictures(folder / "log.npz", 2),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_lost_on_the_way_there_and_to_every_other_form(form, source, tmp_path, home):
    path = Path(SOURCES[source](tmp_path))
    before = content(path)
    out = written(form, tmp_path / "made")
    assert convert(path, out, form, progress=False) == ()
    first, again = load_dataset(path, progress=False), load_dataset(out, progress=False)
    assert again.content_hash == first.content_hash
    assert content(path) == before
    if form == "minari":
        other = written("npz", tmp_path, "third")
        assert convert(out, other, "npz", progress=False) == ()
        assert load_dataset(other, progress=False).content_hash == first.content_hash
    if form == "store" and source not in ("double precision", "last seen known"):  # a store rounds those
        assert convert(out, tmp_path / "third-v0", "minari", progress=False) == ()


def test_minari_and_numpy_read_what_was_written(tmp_path, home, write_hdf5, hopper_columns):
    path = write_hdf5(hopper_columns)
    lost = convert(path, tmp_path / "hopper-v0", "minari", progress=False)
    assert lost == ()
    again = load_dataset(tmp_path / "hopper-v0", progress=False).spec
    assert (again.env_id, again.d4rl_physics, again.score_reference[1]) == ("Hopper-v4", True, 3234.3)
    loaded = minari.MinariDataset(tmp_path / "hopper-v0" / "data")
    assert loaded.total_steps == len(hopper_columns["rewards"])
    assert np.allclose(loaded[0].observations[0], hopper_columns["observations"][0])
    assert loaded.env_spec.id == "Hopper-v4"
    lost = convert(path, tmp_path / "hopper.npz", "npz", progress=False)
    assert lost == ("d4rl_physics was True and is False",)
    with np.load(tmp_path / "hopper.npz") as archive:
        assert str(archive["env_id"]) == "Hopper-v4"
        assert np.array_equal(archive["actions"], hopper_columns["actions"])


def test_what_a_form_cannot_hold_is_said(tmp_path, home, capsys):
    root = write_lerobot(tmp_path / "pusht", "v2.1")
    assert main(["data", "convert", str(root), "--to", "npz", "--out", str(tmp_path / "pusht.npz")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["not kept: the texts of what episodes are for are lost", str(tmp_path / "pusht.npz")]
    assert main(["data", "convert", str(root), "--to", "minari", "--out", str(tmp_path / "pusht-v0")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "nothing lost: read again, it is the same data set"
    again = load_dataset(tmp_path / "pusht-v0", progress=False)
    assert again.missions.tolist() == ["Push the T", "Lift it", "Push the T"]


def test_what_is_said_of_a_file_is_converted_with_it(tmp_path, home):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "log.npz", seen=rng.normal(size=(30, 3)), valve=rng.normal(size=30), r=np.ones(30))
    columns = ["observations=seen", "actions=valve", "rewards=r"]
    out = tmp_path / "cut-v0"
    assert (
        convert(tmp_path / "log.npz", out, "minari", columns=columns, episode_length=10, progress=False) == ()
    )
    assert load_dataset(out, progress=False).episode_starts.tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("log.npz", "npz", "is there already"),
        ("again", "npz", r"expected a name that ends in \.npz"),
        ("again.npz", "store", "expected the name of a folder"),
        ("again", "minari", "expected a name that ends in a version as Minari's ids do: again-v0"),
    ],
)
def test_names_that_do_not_fit_are_refused_and_nothing_is_written_over(name, form, message, tmp_path, home):
    path = plant(tmp_path / "log.npz")
    before = content(path)
    with pytest.raises(InputError, match=message):
        convert(path, tmp_path / name, form, progress=False)
    assert content(path) == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "home"] == ["log.npz"]


def test_flags_of_other_conversions_are_refused(tmp_path, home, capsys):
    path = str(plant(tmp_path / "log.npz"))
    assert main(["data", "convert", path, "--num-steps", "5", "--out", str(tmp_path / "x")]) == 2
    assert "--num-steps and --seed are for DQN-replay" in capsys.readouterr().err
    words = ["data", "convert", path, "--game", "Pong", "--to", "npz", "--out", str(tmp_path / "x.npz")]
    assert main(words) == 2
    assert "to: got 'npz', expected store" in capsys.readouterr().err
    words = ["data", "convert", path, "--game", "Pong", "--skip-damaged", "--out", str(tmp_path / "x")]
    assert main(words) == 2
    assert "shards say themselves what is in them" in capsys.readouterr().err
