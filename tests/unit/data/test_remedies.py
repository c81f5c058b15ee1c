"""Logs that are not read as they are: each refusal says what to do, and what it says works."""

import json

import numpy as np
import pytest

from chibit.cli import main
from chibit.core.errors import InputError
from chibit.core.formatting import format_setting
from chibit.data.load import load_dataset

STEPS = 20


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))


def columns(**changes):
    rows = np.arange(STEPS)
    found = {"episode": rows // 10, "obs": rows + 0.5, "action": -rows - 0.5, "reward": rows % 3}
    return {**found, **changes}


def write(path, found, encoding="utf-8", names=None):
    lines = [names or list(found), *zip(*found.values(), strict=True)]
    path.write_bytes("".join(",".join(map(str, line)) + "\n" for line in lines).encode(encoding))
    return path


def refusal(path, **reading):
    with pytest.raises(InputError) as raised:
        load_dataset(path, progress=False, **reading)
    return str(raised.value)


def test_text_as_actions_is_to_be_numbered(tmp_path):
    labels = np.resize(["small", "large", "medium"], STEPS)
    said = refusal(write(tmp_path / "log.csv", columns(action=labels)))
    assert said.endswith(
        "action: line 2 is 'small'; expected numbers; write choices as whole numbers from 0 "
        "(large as 0, medium as 1, small as 2)"
    )
    mended = columns(action=[sorted(set(labels)).index(label) for label in labels])
    assert load_dataset(write(tmp_path / "log.csv", mended), progress=False).spec.num_actions == 3
    np.savez(tmp_path / "log.npz", **columns(action=labels))
    assert "choices as whole numbers from 0" in refusal(tmp_path / "log.npz")


def test_text_elsewhere(tmp_path):
    said = refusal(write(tmp_path / "log.csv", columns(obs=np.resize(["heat", "off"], STEPS))))
    assert (
        "write a column of 1 and 0 for each of heat, off, or name others by --columns observations=" in said
    )
    said = refusal(write(tmp_path / "log.csv", columns(done=np.resize(["yes", "no"], STEPS))))
    assert said.endswith("done: line 2 is 'yes'; expected numbers; write 1 and 0")
    said = refusal(write(tmp_path / "log.csv", columns(reward=["-", *range(STEPS - 1)])))
    assert said.endswith("reward: line 2 is '-'; expected numbers; write a number, or take the line out")


def test_times_are_no_numbers(tmp_path):
    times = np.datetime64("2026-10-01T00:00:00") + np.arange(STEPS).astype("m8[m]")
    said = refusal(write(tmp_path / "log.csv", columns(obs=times)))
    assert "write hours or days as such, or say --columns time=COLUMN" in said
    np.savez(tmp_path / "log.npz", **columns(obs=times))
    assert "write hours or days as such, or say --columns time=ARRAY" in refusal(tmp_path / "log.npz")


def test_an_empty_cell_is_found_by_its_line(tmp_path):
    found = columns(obs=["" if i == 13 else i + 0.5 for i in range(STEPS)])
    path = write(tmp_path / "log.csv", found)
    assert refusal(path).endswith(
        "obs: line 15 is empty or NaN; fill it in, or leave such episodes out by --skip-damaged"
    )
    assert path.read_text().splitlines()[15 - 1].startswith("1,,")
    assert load_dataset(path, skip_damaged=True, progress=False).num_episodes == 1
    rows = [dict(zip(found, row, strict=True)) for row in zip(*columns().values(), strict=True)]
    rows = [{name: float(value) for name, value in row.items()} for row in rows]
    rows[13]["obs"] = None
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "obs: line 14 is empty" in refusal(tmp_path / "log.jsonl")


def test_names_in_capitals_are_known(tmp_path):
    names = ["Episode", "Obs", "ACTION", "Reward"]
    dataset = load_dataset(write(tmp_path / "log.csv", columns(), names=names), progress=False)
    assert dataset.num_episodes == 2 and dataset.observations[:, 0].tolist() == columns()["obs"].tolist()
    exact = write(tmp_path / "two.csv", columns(Obs=np.zeros(STEPS)))
    dataset = load_dataset(exact, progress=False)
    assert dataset.observations[:, 0].tolist() == columns()["obs"].tolist()
    assert "columns that are not used: Obs" in dataset.notes
    both = write(tmp_path / "both.csv", columns(more=0 * np.arange(STEPS)), names=[*names, "OBS"])
    assert "observations may be Obs or OBS; rename one, or say which" in refusal(both)
    assert load_dataset(both, columns={"observations": "OBS"}, progress=False).num_episodes == 2


def test_a_log_without_ends_is_told_of_both_ways(tmp_path):
    path = write(
        tmp_path / "log.csv", columns(done=np.zeros(STEPS, int)), names=["who", *list(columns())[1:], "done"]
    )
    assert (
        "of a file which episode a step is of by --columns episode=COLUMN, or cut it by --episode-length N"
        in (refusal(path))
    )
    assert "cut it after fewer than 100 steps by --episode-length" in refusal(path, episode_length=100)
    assert load_dataset(path, columns={"episode": "who"}, progress=False).num_episodes == 2
    assert load_dataset(path, episode_length=5, progress=False).num_episodes == 4


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_in_another_encoding_is_to_be_saved_as_utf_8(tmp_path, capsys, encoding, suffix):
    path = tmp_path / f"log{suffix}"
    if suffix == ".csv":
        write(path, columns(), encoding, names=["episode", "temp °C", "action", "reward"])
    else:
        path.write_bytes('{"episode": 0, "temp °C": 1.5, "action": 0.5, "reward": 0}\n'.encode(encoding))
    assert main(["data", "inspect", str(path), "--columns", "observations=temp °C"]) == 2
    assert "text that is not UTF-8; save it as UTF-8" in capsys.readouterr().err


def test_labels_late_in_another_encoding(tmp_path):
    found = columns(episode=["a"] * 10 + ["b"] * 10, obs=[*range(STEPS - 1), "°"])
    path = write(tmp_path / "log.csv", found, "latin-1")
    path.write_bytes(
        path.read_bytes().replace(b"a,0,", b"a,0," + b" " * (1 << 16), 1)
    )  # behind what is looked at
    assert "obs is text, and not UTF-8; save the file as UTF-8" in refusal(path)


def test_numbers_agree_with_their_words(tmp_path, capsys):
    rewards = [0.0, -0.0]
    found = columns(episode=np.zeros(STEPS, int), reward=np.resize(rewards, STEPS), idle=np.full(STEPS, 3.5))
    path = write(tmp_path / "log.csv", found)
    main(["data", "inspect", str(path), "--columns", "observations=obs,idle"])
    page = " ".join(capsys.readouterr().out.split())
    assert "few data (1 episode):" in page
    assert "1 never changes (1)" in page and "1 observation dimension (1 idle) never changes" in page


def test_a_return_of_minus_zero_is_zero():
    assert [format_setting(value) for value in (-0.0, 0.0, -0.5, 3600)] == ["0", "0", "-0.5", "3,600"]
