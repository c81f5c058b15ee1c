"""Files of a run that are JSON of the right kind and say something strange: one line, exit code 3."""

import dataclasses
import json
import os
import shutil

import faults_kills
import pytest
import torch

from chibit.cli import main
from chibit.core.run_records import ResultRecord, check_record
from chibit.training.offline import train
from chibit.training.run_config import to_record
from fault_guard import assert_refused, command, guarded
from fault_runs import reseal

TRAIN, SHOW, EVALUATE, EXPORT = "train", "show", "evaluate", "export"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, and the configuration beside it that gave it."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIBIT_HOME", str(folder / "home"))
        config = faults_kills.small_run(faults_kills.write_data(folder / "data.npz"))
        config = dataclasses.replace(config, num_steps=4, evaluate_every=2, checkpoint_every=2)
        (folder / "config.json").write_text(json.dumps(to_record(config)))
        train(config, folder / "run", progress=False)
    return folder


@pytest.fixture
def run(whole, tmp_path, monkeypatch):
    """Copies of both, and a function that gives a command's exit code."""
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    shutil.copytree(whole / "run", tmp_path / "run")
    shutil.copy(whole / "config.json", tmp_path)
    return tmp_path / "run"


def line(verb, run):
    rest = {
        TRAIN: ["--config", str(run.parent / "config.json"), "--out", str(run), "--quiet"],
        SHOW: [str(run)],
        EVALUATE: [str(run), "--num-episodes", "1", "--device", "cpu"],
        EXPORT: [str(run), "--no-video", "--out", str(run.parent / "policy")],
    }[verb]
    return [verb, *rest]


def change(run, name, *keys, value):
    """Set a field, however deep, of a file of JSON, or of the last line of one of JSON lines."""
    path = run / name
    *before, last = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    record = node = json.loads(last)
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text("\n".join([*before, json.dumps(record)]) + "\n" * (path.suffix == ".jsonl"))


def assert_damaged(capsys, arguments, *parts, code=3):
    assert main(arguments) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    for part in parts:
        assert part in said[0], said[0]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("scores",), "none"),
        (("scores", 0), 3),
        (("scores", 0, "last"), "12"),
        (("scores", 0, "last4"), None),
        (("scores", 0, "best_step"), 1.5),
        (("scores", 0, "target_return"), 10**400),
        (("scores", 0, "seconds_to_converge"), float("nan")),
        (("steps",), -1),
        (("score_unit",), "points"),
        (("behaviour_mean_return",), [1.0]),
    ],
)
def test_a_finished_run_whose_result_is_strange(run, capsys, keys, value):
    change(run, "result.json", *keys, value=value)
    assert_damaged(capsys, line(TRAIN, run), "result.json", str(keys[0]))


@pytest.mark.parametrize("verb", [TRAIN, SHOW, EVALUATE, EXPORT])
@pytest.mark.parametrize(
    ("key", "value"), [("config", "x"), ("config", None), ("arm", 3), ("study", ["runs"])]
)
def test_a_description_is_checked_by_every_command(run, capsys, verb, key, value):
    change(run, "config.json", key, value=value)
    assert_damaged(capsys, line(verb, run), f"config.json.{key}: ")


@pytest.mark.parametrize("verb", [TRAIN, SHOW, EVALUATE, EXPORT])
@pytest.mark.parametrize(
    ("key", "value"),
    [("dataset", []), ("parameters", {"total": "many"}), ("data_hash", 10**400), ("data_name", None)],
)
def test_a_provenance_is_checked_by_every_command(run, capsys, verb, key, value):
    change(run, "provenance.json", key, value=value)
    assert_damaged(capsys, line(verb, run), "provenance.json", key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("episode_returns", 3.0),
        ("episode_returns", ["x"]),
        ("episode_returns", [float("nan")]),
        ("episode_lengths", [1, 2]),
        ("normalized_score", "x"),
        ("target_return", 10**400),
        ("failed_episodes", [0.5]),
        ("failed_episodes", [-1]),
        ("failed_episodes", [10**6]),
        ("step", "x"),
    ],
)
@pytest.mark.parametrize("verb", [TRAIN, EXPORT])
def test_a_strange_evaluation(run, capsys, verb, key, value):
    (run / "result.json").unlink()
    change(run, "evaluations.jsonl", key, value=value)
    assert_damaged(capsys, line(verb, run), "evaluations.jsonl: line 2", key)


def test_a_log_of_nested_brackets(run, capsys):
    (run / "result.json").unlink()
    (run / "metrics.jsonl").write_text("[" * 100_000 + "\n")
    assert_damaged(capsys, line(TRAIN, run), "metrics.jsonl: line 1")


def test_a_log_without_lines_is_not_read_whole(run):
    """Two gigabytes of nothing."""
    os.truncate(run / "evaluations.jsonl", 2 << 30)
    verdict = guarded(command(*line(EXPORT, run)), run.parent)
    assert_refused(verdict, 3, "evaluations.jsonl", "line 3")


@pytest.mark.parametrize(
    "state", [{}, {"loop": {}}, {"loop": {"step": 3}}, {"loop": {"beat": 1}}, {"agent": None}, {"sampler": 3}]
)
def test_a_training_state_of_other_content_is_refused(run, capsys, state):
    """Its hash fits: somebody has written it so."""
    (run / "result.json").unlink()
    for checkpoint in (run / "checkpoints").glob("0*"):
        path = checkpoint / "training_state.pt"
        found = torch.load(path, weights_only=True)
        torch.save(found | state if state else {}, path)
        reseal(checkpoint)
    assert_damaged(capsys, line(TRAIN, run), "checkpoints")


def test_bytes_that_make_a_pickle_stumble_are_a_damaged_checkpoint(run, capsys):
    (run / "result.json").unlink()
    for checkpoint in (run / "checkpoints").glob("0*"):
        path = checkpoint / "training_state.pt"
        content = path.read_bytes()
        at = content.index(b"\x80\x02}q") + 2
        path.write_bytes(content[:at] + b"h\xff" + content[at + 2 :])  # a memo that was never written
        reseal(checkpoint)
    assert main(line(TRAIN, run)) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_fields_that_are_not_known_are_left_alone():
    record = {"status": "finished", "steps": 1, "score_unit": "return", "behaviour_mean_return": 0.0}
    record |= {"behaviour_score": None, "scores": [], "of a later version": 1}
    assert check_record(ResultRecord, record, "result.json") is record


@pytest.mark.parametrize("name", ["checkpoints", "attention"])
def test_a_folder_of_a_run_that_is_a_link_outside_is_not_written_into(run, outside, capsys, name):
    if (run / name).exists():
        shutil.move(run / name, outside / name)
    (run / name).symlink_to(outside)
    (run / "result.json").unlink()
    before = sorted(outside.rglob("*"))
    arguments = line(TRAIN, run) if name == "checkpoints" else ["attention", str(run), "--num-windows", "2"]
    assert_damaged(capsys, arguments, f"{name}: leads out of", code=2)
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize("verb", [SHOW, EVALUATE, EXPORT])
def test_a_model_larger_than_memory_is_not_built_to_be_looked_at(run, capsys, verb):
    change(run, "config.json", "config", "agent", "max_timesteps", value=10**12)
    assert_damaged(capsys, line(verb, run), "config.json: its model takes", "use a larger machine", code=4)
