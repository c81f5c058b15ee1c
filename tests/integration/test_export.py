"""`chibit export`: the folder, its card, and what happens where something is in its place."""

import json
import tracemalloc

import gymnasium as gym
import numpy as np
import pytest

import chibit
from chibit.cli import main
from chibit.core.shared_folder import MANIFEST
from chibit.evaluation import video
from chibit.policy.card import mean_interval

DT = ["--n-layer", "1", "--n-embd", "16", "--context-length", "4"]


@pytest.fixture(scope="module")
def runs(pendulum_file, tmp_path_factory):
    """Two seeds of one small agent."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    schedule = ["--num-steps", "4", "--evaluate-every", "2", "--num-episodes", "3", "--hidden-sizes", "8"]
    for seed in ("0", "1"):
        out = ["--out", str(folder / f"bc-{seed}"), "--quiet", "--device", "cpu", "--seed", seed]
        assert main(["train", "--agent", "bc", "--data", str(pendulum_file), *schedule, *out]) == 0
    return folder


def test_the_folder_has_model_configuration_and_a_card_with_scores_and_intervals(runs, tmp_path, capsys):
    out = tmp_path / "deep" / "policy"
    assert main(["export", str(runs / "bc-0"), "--out", str(out), "--no-video"]) == 0
    assert {path.name for path in out.iterdir()} == {
        MANIFEST,
        "README.md",
        "config.json",
        "model.safetensors",
    }
    card = (out / "README.md").read_text()
    assert card.startswith("---\n")
    scores = card[card.index("## Scores") : card.index("## Use")]
    assert "95% interval" in scores
    assert "bootstrap over 3 episodes of this one run" in scores
    assert "bootstrap over 2 seeds" in scores
    policy = chibit.Policy.from_pretrained(out)
    policy.reset()
    assert policy.act([0.1, 0.2, 0.3]).shape == (1,)
    assert main(["export", str(runs / "bc-0"), "--out", str(out), "--no-video"]) == 0  # in its own place


def test_where_nothing_can_draw_the_folder_is_written_and_says_so(runs, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise chibit.core.errors.ResourceError("video: nothing can draw here; install libosmesa6")

    monkeypatch.setattr(video, "record_video", refuse)
    assert main(["export", str(runs / "bc-0"), "--out", str(tmp_path / "policy")]) == 0
    assert "no video: nothing can draw here; install libosmesa6" in capsys.readouterr().out
    assert not (tmp_path / "policy" / "replay.mp4").exists()
    assert "replay" not in (tmp_path / "policy" / "README.md").read_text()


def test_a_film_is_in_the_folder_and_on_the_card(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "record_video", lambda policy, env, path, **_: path.write_bytes(b"film"))
    assert main(["export", str(runs / "bc-0"), "--out", str(tmp_path / "policy")]) == 0
    assert (tmp_path / "policy" / "replay.mp4").read_bytes() == b"film"
    assert "`replay.mp4`" in (tmp_path / "policy" / "README.md").read_text()


def test_another_folder_is_not_overwritten(runs, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    run = runs / "bc-0"
    for out, code in ((tmp_path / "thesis", 0), (run, 2), (run / "checkpoints", 2), (runs, 2)):
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
        assert main(["export", str(run), "--out", str(out), "--no-video"]) == code
        assert before.items() <= {path: path.stat().st_mtime_ns for path in out.rglob("*")}.items()
        error = capsys.readouterr().err
        assert error.count("\n") == (code == 2)
        assert ("no policy is written into it" in error) == (code == 2)


def test_one_seed_has_no_interval_over_seeds(runs, tmp_path):
    alone = tmp_path / "alone" / "bc-0"
    alone.parent.mkdir()
    (runs / "bc-0").rename(alone)
    try:
        assert main(["export", str(alone), "--no-video"]) == 0
        assert "one seed, so no interval over seeds" in (alone / "policy" / "README.md").read_text()
    finally:
        alone.rename(runs / "bc-0")


def test_the_interval_of_a_mean():
    assert mean_interval([3.0]) is None
    assert mean_interval([3.0, 3.0]) == (3.0, 3.0)
    low, high = mean_interval([0.0, 10.0] * 50)
    assert (low, high) == pytest.approx((4.0, 6.0), abs=0.15)  # 5 +- 1.96 * 5 / sqrt(100)
    tracemalloc.start()
    mean_interval(np.arange(1_000.0))  # of an evaluation of many episodes
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


@pytest.mark.slow
def test_the_graph_is_written_on_request(runs, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    assert main(["export", str(runs / "bc-1"), "--out", str(tmp_path / "p"), "--no-video", "--onnx"]) == 0
    assert (tmp_path / "p" / "policy.onnx").stat().st_size > 0
    assert json.loads((tmp_path / "p" / "config.json").read_text())["agent"] == "bc"


@pytest.mark.parametrize(
    ("env_id", "actions", "flags"),
    [
        ("Pendulum-v1", np.linspace(-0.5, 0.5, 40)[:, None], ["--agent", "bc"]),
        ("Hopper-v4", np.linspace(-0.5, 0.5, 120).reshape(40, 3), DT),
        ("CartPole-v1", np.zeros(40, int), DT),
    ],
)
def test_an_environment_named_at_export_leaves_what_was_learned_as_it_is(env_id, actions, flags, tmp_path):
    """Networks speak in units of the bounds and returns that they learned in, not of the environment's."""
    data, run, states = tmp_path / "log.npz", tmp_path / "run", {"Pendulum-v1": 3, "Hopper-v4": 11}
    seen = np.random.default_rng(0).normal(size=(40, states.get(env_id, 4))).astype(np.float32)
    ends = np.arange(40) % 10 == 9
    np.savez(data, observations=seen, actions=actions, rewards=np.arange(40.0) % 7, terminations=ends)
    short = ["--num-steps", "2", "--batch-size", "4", "--quiet", "--device", "cpu", "--no-judge"]
    assert main(["train", "--data", str(data), *flags, *short, "--out", str(run)]) == 0
    assert main(["evaluate", str(run), "--env-id", env_id, "--num-episodes", "1"]) == 0
    out = tmp_path / "policy"
    assert main(["export", str(run), "--out", str(out), "--no-video", "--env-id", env_id]) == 0
    policies = [chibit.Policy.from_pretrained(folder, target_return=9.0) if flags is DT else
                chibit.Policy.from_pretrained(folder) for folder in (run, out)]  # fmt: skip
    for policy in policies:
        policy.reset(seed=0)
    np.testing.assert_array_equal(*(policy.act(seen[0]) for policy in policies))
    assert policies[1].spec.env_id == env_id


def test_scores_on_a_card_are_of_the_environment_that_was_played(pendulum_file, tmp_path):
    chibit.register_env("test/Swing-v0", gym.envs.classic_control.PendulumEnv, max_episode_steps=9)
    run, out = tmp_path / "run", tmp_path / "policy"
    short = ["--num-steps", "1", "--num-episodes", "2", "--quiet", "--device", "cpu", "--out", str(run)]
    assert main(["train", "--agent", "bc", "--data", str(pendulum_file), *short]) == 0
    assert main(["export", str(run), "--out", str(out), "--no-video", "--env-id", "test/Swing-v0"]) == 0
    policy = chibit.Policy.from_pretrained(out)
    assert policy.spec.env_id == "test/Swing-v0"
    assert [score.env_id for score in policy.scores] == ["Pendulum-v1"]
