"""From an actor's file and from shards to a trained and evaluated run, by the command line."""

import json

import numpy as np
import pytest

from atari_toys import padded_rows, play_games, write_actor, write_shards
from chibit.cli import main
from chibit.data.load import load_dataset
from chibit.training.loading import LoadedRun


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    for module in ("chibit.environments.atari", "chibit.data.collect.atari"):
        monkeypatch.setattr(f"{module}.MAX_EPISODE_STEPS", 25)  # half an hour of play is too long for a test
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_collect_train_and_evaluate_with_and_without_sticky_actions(home, capsys, monkeypatch):
    filmed = []
    monkeypatch.setattr(LoadedRun, "film", lambda run, *_: filmed.append(run.spec.env_id) or [])
    write_actor(home / "actor.safetensors", 6)
    assert main(["data", "collect", "pong-expert", "--policy", "actor.safetensors", "--num-steps", "60"]) == 0
    assert main(["data", "inspect", "pong-expert"]) == 0
    assert "84 x 84" in capsys.readouterr().out
    arguments = ["train", "--recipe", "qr_dqn_atari", "--data", "pong-expert", "--out", "run", "--quiet"]
    arguments += [
        "--batch-size",
        "2",
        "--num-steps",
        "2",
        "--num-episodes",
        "1",
        "--device",
        "cpu",
        "--quiet",
    ]
    assert main(arguments) == 0
    for flag in ([], ["--sticky-actions"]):
        out = home / "evaluation.json"
        assert main(["evaluate", "run", "--num-episodes", "2", "--out", str(out), "--video", *flag]) == 0
        evaluations = json.loads(out.read_text())["evaluations"]
        assert len(evaluations[0]["episode_returns"]) == 2
    assert "ALE/Pong-v5" in capsys.readouterr().out
    assert filmed == ["PongNoFrameskip-v4", "ALE/Pong-v5"]


def test_convert_shards(home, capsys):
    write_shards(home / "logs", 0, padded_rows(play_games("BreakoutNoFrameskip-v4", range(2))))
    assert main(["data", "convert", "logs", "--game", "Breakout", "--num-steps", "50", "--out", "store"]) == 0
    assert load_dataset(home / "store").num_episodes == 2
    assert main(["train", "--data", "logs"]) == 2
    assert main(["data", "convert", "logs", "--game", "Tetris", "--out", "other"]) == 2
    assert main(["data", "collect", "breakout-expert"]) == 2
    assert main(["data", "collect", "hopper-medium", "--policy", "x"]) == 2
    (home / "logs" / "$store$_action_ckpt.0.gz").write_bytes(b"x")
    assert main(["data", "convert", "logs", "--game", "Breakout", "--out", "other"]) == 3
    errors = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("chibit:") for line in errors) == 5
    assert np.all([not (home / name).exists() for name in ("other",)])
