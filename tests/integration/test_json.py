"""What ``--json`` gives: one document that a strict reader takes, on standard output; all else elsewhere."""

import json

import pytest

from chibit.cli import main
from forked import forked_command

FLAGS = ("--n-layer", "1", "--n-embd", "16", "--context-length", "4", "--batch-size", "4")


@pytest.fixture(scope="module")
def study(pendulum_file, tmp_path_factory):
    """A study with a finished run."""
    path = tmp_path_factory.mktemp("runs") / "mine"
    schedule = ("--num-steps", "4", "--evaluate-every", "2", "--num-episodes", "1", "--device", "cpu")
    train = ["train", "--data", str(pendulum_file), *FLAGS, *schedule, "--out", str(path / "dt"), "--quiet"]
    assert main(train) == 0
    return path


def strictly(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def read(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    return strictly(capsys.readouterr().out)


def test_inspect(pendulum_file, capsys):
    found = read(capsys, "data", "inspect", pendulum_file)
    assert found["spec"]["env_id"] == "Pendulum-v1" and found["num_episodes"] > 0
    assert {"what", "value", "why"} <= set(found["choices"][0])
    assert any(one["what"] == "expected time" for one in found["choices"])


def test_evaluate_and_what_it_writes_are_the_same(study, tmp_path, capsys):
    out = tmp_path / "out.json"
    flags = ("--target-returns", "-100", "-500", "--num-episodes", "2", "--out", out)
    found = read(capsys, "evaluate", study / "dt", *flags)
    assert found == json.loads(out.read_text())
    assert [row["target_return"] for row in found["evaluations"]] == [-100.0, -500.0]


def test_progress_and_messages_of_an_evaluation_are_not_on_standard_output(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--num-episodes", 1, "--json", "--out", "x.json")
    code, output, messages = forked_command("-v", "evaluate", study / "dt", *flags, folder=tmp_path).wait()
    assert code == 0, messages
    assert strictly(output)["evaluations"]
    assert "written: x.json" in messages and "\r" not in messages


def test_report(study, tmp_path, capsys):
    found = read(capsys, "report", study, "--out", tmp_path / "report")
    assert found["verdict"]["sentence"] and found["scores"][0]["arm"] == "random"
    assert isinstance(found["scores"][0]["last4"], float)
    assert set(found["written"]) == {"html", "markdown", "csv", "comparisons", "latex"}
    assert (tmp_path / "report" / "report.html").is_file()


def test_recipes_and_their_groups(capsys):
    found = read(capsys, "recipes")
    assert found["chibit"]["group"] == "models" and found["cql"]["group"] == "baselines"
    assert set(read(capsys, "recipes", "memory")) < set(found)
    assert read(capsys, "recipes", "chibit")["agent_name"] == "dt"


def test_show(study, capsys):
    for what in ("chibit", study / "dt"):
        found = read(capsys, "show", what)
        assert found["parameters"]["total"] > found["parameters"]["blocks"] > 0
        assert found["config"]["learning_rate"] == 1e-4


def test_study(tmp_path, capsys):
    flags = ("--dry-run", "--data", "hopper-medium", "--arms", "random", "iid", "--seeds", "0", "1")
    found = read(capsys, "study", "table2", *flags, "--root", tmp_path)
    assert [run["state"] for run in found["runs"]] == ["to do"] * 4
    assert found["seconds_left"] > 0 and found["max_seeds"] is None and found["side_by_side"] == 1
    assert main(["study", "table2", "--json"]) == 2
    assert "--dry-run" in capsys.readouterr().err
