"""The verbs, one after the other, on real data: what a user with a log of trajectories does."""

import importlib.util
import json

import gymnasium as gym
import numpy as np
import pytest

import chibit
from chibit.cli import main
from chibit.data.inspect import find_notes
from chibit.training import offline


@pytest.fixture(scope="module")
def run(pendulum_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mine" / "dt"
    flags = ["--n-layer", "1", "--n-embd", "16", "--context-length", "4", "--batch-size", "4"]
    schedule = ["--num-steps", "6", "--evaluate-every", "3", "--num-episodes", "2", "--log-every", "2"]
    arguments = ["train", "--data", str(pendulum_file), *flags, *schedule, "--out", str(path), "--quiet"]
    assert main([*arguments, "--device", "cpu"]) == 0
    return path


def test_train_prints_scores_and_where_the_run_is(run, pendulum_file, capsys):
    record = json.loads((run / "config.json").read_text())
    (run.parent / "again.json").write_text(json.dumps(record))
    assert (
        main(
            [
                "train",
                "--config",
                str(run.parent / "again.json"),
                "--data",
                str(pendulum_file),
                "--out",
                str(run),
            ]
        )
        == 0
    )
    output = capsys.readouterr().out
    assert "raw return" in output
    assert str(run) in output.replace("\n", "")


def test_a_refused_run_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "missing.hdf5"]) == 2
    assert "missing.hdf5" in capsys.readouterr().err
    assert not list(tmp_path.rglob("config.json"))


def test_a_users_word_names_the_environment(pendulum_file, tmp_path, capsys):
    """Data without an environment are trained on alone; --env-id lets them be evaluated, then or later."""
    columns = {key: value for key, value in np.load(pendulum_file).items() if key != "env_id"}
    data = tmp_path / "hopper-medium-like.npz"
    np.savez(data, **columns)
    train = ["train", "--agent", "bc", "--data", str(data), "--num-steps", "2", "--num-episodes", "1"]
    named, nameless = tmp_path / "named", tmp_path / "nameless"
    assert main([*train, "--quiet", "--env-id", "Pendulum-v1", "--out", str(named)]) == 0
    evaluation = json.loads((named / "evaluations.jsonl").read_text())
    assert evaluation["episode_lengths"] == [200] and evaluation["normalized_score"] is None
    assert main([*train, "--quiet", "--out", str(nameless)]) == 0
    assert not (nameless / "evaluations.jsonl").exists()
    assert main(["evaluate", str(nameless), "--num-episodes", "1"]) == 2
    assert "--env-id" in capsys.readouterr().err
    out = tmp_path / "played.json"
    play = ["evaluate", str(nameless), "--num-episodes", "1", "--env-id", "Pendulum-v1", "--out", str(out)]
    assert main(play) == 0
    assert json.loads(out.read_text())["evaluations"][0]["episode_lengths"] == [200]
    assert main(["evaluate", str(nameless), "--env-id", "Hopper-v4"]) == 2
    assert "observations have 3 values" in capsys.readouterr().err
    assert main(["data", "inspect", str(data), "--env-id", "Pendulum-v1"]) == 0
    assert "Pendulum-v1; at most 200 steps" in capsys.readouterr().out


def test_what_inspect_notes_is_said_at_the_start_of_training_too(tmp_path, capsys):
    data = tmp_path / "log.npz"
    observations = np.random.default_rng(0).normal(size=(40, 3))
    observations[:, 1] = 7.0
    np.savez(
        data,
        observations=observations,
        actions=np.zeros((40, 1)),
        rewards=np.zeros(40),
        terminations=np.arange(40) % 10 > 7,
    )
    notes = find_notes(chibit.load_dataset(data, progress=False))
    assert len(notes) >= 6
    assert main(["data", "inspect", str(data)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    train = ["train", "--agent", "bc", "--data", str(data), "--num-steps", "1", "--batch-size", "4"]
    assert main([*train, "--out", str(tmp_path / "run")]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    log = (tmp_path / "run" / "train.log").read_text()
    for note in notes:
        assert note in shown, note
        assert f"data: {note}" in printed, note
        assert f"data: {note}\n" in log, note


def test_evaluate_plays_and_writes_every_return(run, tmp_path, capsys):
    out = tmp_path / "deep" / "returns.json"
    flags = ["--target-returns", "-100", "-500", "--num-episodes", "3", "--out", str(out)]
    assert main(["evaluate", str(run), *flags]) == 0
    assert "Pendulum-v1" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert [row["target_return"] for row in record["evaluations"]] == [-100.0, -500.0]
    assert all(len(row["episode_returns"]) == 3 for row in record["evaluations"])
    for row in record["evaluations"]:  # rewards are negative: a discount makes less of them
        assert all(
            value < later < 0
            for value, later in zip(row["episode_returns"], row["discounted_returns"], strict=True)
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "5"], "no checkpoint of step 5; there are: 3, 6"),
        (["--checkpoint", "newest"], "expected last, best or a step"),
        (["--num-episodes", "0"], "expected 1 to"),
    ],
)
def test_evaluate_refuses_in_one_line(run, flags, message, capsys):
    assert main(["evaluate", str(run), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_film_that_cannot_be_is_refused_before_any_episode(run, monkeypatch, capsys):
    find = importlib.util.find_spec
    there = {"imageio_ffmpeg": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there.get(name, name) and find(name))
    monkeypatch.setattr(offline, "evaluate_agent", lambda *_, **__: pytest.fail("has played"))
    assert main(["evaluate", str(run), "--video"]) == 2
    assert "pip install 'chibit[video]'" in capsys.readouterr().err


def test_an_exported_policy_acts_as_the_run_does(run, tmp_path):
    assert main(["export", str(run), "--out", str(tmp_path / "policy"), "--target-return", "-200"]) == 0
    policy = chibit.Policy.from_pretrained(tmp_path / "policy")
    assert policy.target_return == -200
    of_the_run = chibit.Policy.from_pretrained(run, target_return=-200)
    env = gym.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    policy.reset()
    of_the_run.reset()
    for _ in range(5):
        action = policy.act(observation)
        assert action.shape == (1,)
        assert np.abs(action).max() <= 2.0
        np.testing.assert_allclose(action, of_the_run.act(observation), rtol=1e-5)
        observation, reward, terminated, truncated, _ = env.step(action)
        for each in (policy, of_the_run):
            each.observe(np.array([reward]), np.array([terminated or truncated]))
    env.close()


def test_attention_draws_arrays_and_a_figure(run):
    assert main(["attention", str(run), "--num-windows", "5"]) == 0
    assert {path.suffix for path in (run / "attention").iterdir()} == {".npz", ".png"}


def test_report_and_show(run, capsys):
    assert main(["report", str(run.parent)]) == 0
    assert (run.parent / "report.html").is_file()
    assert main(["show", str(run)]) == 0
    assert "blocks" in capsys.readouterr().out


def test_show_counts_the_blocks_as_the_paper_does(capsys):
    assert main(["show", "dt"]) == 0
    assert "594,816" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "dt"], ["study"], ["data", "list"]])
def test_listings(arguments, capsys):
    assert main(arguments) == 0
    assert capsys.readouterr().out


def test_inspect(pendulum_file, capsys):
    assert main(["data", "inspect", str(pendulum_file)]) == 0
    output = capsys.readouterr().out
    assert "Pendulum-v1" in output
    assert "360" in output


def test_inspecting_what_is_not_there(capsys):
    assert main(["data", "inspect", "hoper-medium"]) == 2
    error = capsys.readouterr().err
    assert "hopper-medium" in error
    assert error.count("\n") == 1
