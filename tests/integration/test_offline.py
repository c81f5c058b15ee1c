"""The offline loop on real data of a real environment: schedule, logs, exact resume, stops and divergence."""

import dataclasses
import json
import signal
import time
from unittest.mock import patch

import numpy as np
import pytest
import torch

from chibit.agents import AGENTS, require_finite
from chibit.core.checkpoint import checkpoint_steps, load_checkpoint, marked
from chibit.core.errors import DamagedFileError, DivergenceError, InputError, ResourceError
from chibit.core.run_dir import RunDir
from chibit.data.normalizer import StateNormalizer
from chibit.models.gpt import GPTShape
from chibit.training import attention
from chibit.training.attention import draw_attention
from chibit.training.loading import load_run
from chibit.training.offline import train
from chibit.training.run_config import RunConfig
from forked import forked_command

SMALL = {
    "dt": {"context_length": 4, "batch_size": 4, "gpt": GPTShape(n_layer=1, n_embd=16), "warmup_steps": 5},
    "td3_bc": {"hidden_sizes": (16, 16), "batch_size": 8},
}


def config_of(agent, data, **fields):
    known = {field.name for field in dataclasses.fields(AGENTS[agent].config)}
    small = {key: value for key, value in SMALL[agent].items() if key in known}
    defaults = {"num_steps": 12, "evaluate_every": 6, "num_episodes": 2, "log_every": 4, "device": "cpu"}
    return RunConfig(data=str(data), agent=AGENTS[agent].config(**small), **{**defaults, **fields})


def weights(path, step):
    checkpoint = load_checkpoint(path / "checkpoints", step)
    return checkpoint.tensors, checkpoint.state


def assert_equal_states(first, second, where=""):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            if "seconds" not in str(key):
                assert_equal_states(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal_states(a, b, f"{where}[{i}]")
    else:
        assert first == second, where


def log_without_times(path, name):
    records = RunDir(path).read_log(name)
    return [{key: value for key, value in record.items() if "seconds" not in key} for record in records]


@pytest.mark.parametrize("agent", SMALL)
def test_a_run_writes_exactly_its_directory(pendulum_file, tmp_path, agent):
    path = tmp_path / "run"
    result = train(config_of(agent, pendulum_file), path, progress=False)
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    steps = [f"checkpoints/{step:010d}/{name}" for step in (6, 12) for name in _CHECKPOINT]
    logs = ["metrics.jsonl", "evaluations.jsonl", "train.log"]
    ends = ["config.json", "provenance.json", "result.json", ".lock", "checkpoints/last", "checkpoints/best"]
    assert files == set(steps + logs + ends)
    assert [record["step"] for record in RunDir(path).read_log("metrics.jsonl")] == [4, 8, 12]
    targets = {record["target_return"] for record in RunDir(path).read_log("evaluations.jsonl")}
    assert len(targets) == (2 if AGENTS[agent].config().takes_target_returns else 1)
    for row in result["scores"]:
        curve = [
            np.mean(record["episode_returns"])
            for record in RunDir(path).read_log("evaluations.jsonl")
            if record["target_return"] == row["target_return"]
        ]
        assert row["last"] == pytest.approx(curve[-1])
        assert row["best"] == pytest.approx(max(curve))
    assert result["score_unit"] == "return"
    assert result["behaviour_mean_return"] < 0
    assert marked(path / "checkpoints", "last") == 12


_CHECKPOINT = ("model.safetensors", "training_state.pt", "manifest.json")


@pytest.mark.parametrize("agent", SMALL)
def test_resumed_equals_uninterrupted_to_the_bit(pendulum_file, tmp_path, agent):
    config = config_of(agent, pendulum_file, checkpoint_every=4, log_every=3)
    train(config, tmp_path / "whole", progress=False)
    _interrupt(config, tmp_path / "parts", after=4)
    assert checkpoint_steps(tmp_path / "parts" / "checkpoints") == [4]
    train(config, tmp_path / "parts", progress=False)
    for step in (8, 12):
        assert_equal_states(weights(tmp_path / "whole", step), weights(tmp_path / "parts", step))
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert log_without_times(tmp_path / "whole", name) == log_without_times(tmp_path / "parts", name)


def _interrupt(config, path, after):
    """Run past the checkpoint of step `after` and lose what came later, as a kill does."""
    from chibit.training import offline

    class Killed(BaseException):
        pass

    original = offline.OfflineRun._step

    def step(self):
        if self.state.step == after + 1:
            raise Killed
        original(self)

    offline.OfflineRun._step = step
    try:
        with pytest.raises(Killed):
            train(config, path, progress=False)
    finally:
        offline.OfflineRun._step = original


def test_a_finished_run_is_not_run_again(pendulum_file, tmp_path):
    config = config_of("td3_bc", pendulum_file)
    first = train(config, tmp_path / "run", progress=False)
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    assert train(config, tmp_path / "run", progress=False) == first
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before


def test_the_last_evaluation_replaces_a_regular_one_just_before_it(pendulum_file, tmp_path):
    config = config_of("td3_bc", pendulum_file, num_steps=13, evaluate_every=6)
    result = train(config, tmp_path / "run", progress=False)
    evaluations = RunDir(tmp_path / "run").read_log("evaluations.jsonl")
    assert [record["step"] for record in evaluations] == [6, 13]
    returns = [np.mean(record["episode_returns"]) for record in evaluations]
    assert result["scores"][0]["last4"] == pytest.approx(np.mean(returns))
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [6, 13]


def test_same_seed_same_run_other_seed_other_run(pendulum_file, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config_of("dt", pendulum_file, seed=seed), tmp_path / name, progress=False)
    logs = [log_without_times(tmp_path / name, "metrics.jsonl") for name in "abc"]
    assert logs[0] == logs[1] != logs[2]


def test_the_newest_damaged_checkpoint_is_passed_over(pendulum_file, tmp_path, caplog):
    config = config_of("dt", pendulum_file, checkpoint_every=3)
    train(config, tmp_path / "whole", progress=False)
    train(dataclasses.replace(config), tmp_path / "hurt", progress=False)
    (tmp_path / "hurt" / "result.json").unlink()
    newest = tmp_path / "hurt" / "checkpoints" / "0000000012" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x00\x00")
    train(config, tmp_path / "hurt", progress=False)
    assert_equal_states(weights(tmp_path / "whole", 12), weights(tmp_path / "hurt", 12))


def test_changed_data_is_noticed_on_resume(pendulum_file, tmp_path):
    data = tmp_path / "data.npz"
    data.write_bytes(pendulum_file.read_bytes())
    config = config_of("td3_bc", data)
    train(config, tmp_path / "run", progress=False)
    (tmp_path / "run" / "result.json").unlink()
    columns = dict(np.load(data))
    columns["rewards"] = columns["rewards"] + 1
    np.savez(data, **columns)
    with pytest.raises(DamagedFileError, match="has changed since this run began"):
        train(config, tmp_path / "run", progress=False)


@pytest.mark.parametrize("change", ["rewards", "one more episode", "env_id"])
def test_a_finished_run_is_not_returned_once_its_data_have_changed(pendulum_file, tmp_path, change):
    data = tmp_path / "data.npz"
    data.write_bytes(pendulum_file.read_bytes())
    config = config_of("td3_bc", data, num_steps=2, num_episodes=0)
    result = train(config, tmp_path / "run", progress=False)
    assert train(config, tmp_path / "run", progress=False) == result
    columns = dict(np.load(data))
    if change == "rewards":
        columns["rewards"] = columns["rewards"] * 2
        told = "content"
    elif change == "env_id":
        del columns["env_id"]
        told = "environment Pendulum-v1, now None"
    else:
        columns = {k: v if v.ndim == 0 else np.concatenate([v, v[-60:]]) for k, v in columns.items()}
        told = "episodes 6, now 7"
    np.savez(data, **columns)
    with pytest.raises(DamagedFileError, match=f"has changed since this run began .*{told}") as caught:
        train(config, tmp_path / "run", progress=False)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    data.unlink()  # a finished run needs its data no more
    assert train(config, tmp_path / "run", progress=False) == result


def test_a_finished_run_on_a_part_of_the_data_knows_its_part(pendulum_file, tmp_path):
    config = config_of("td3_bc", pendulum_file, num_steps=2, num_episodes=0, data_fraction=0.5)
    result = train(config, tmp_path / "run", progress=False)
    assert train(config, tmp_path / "run", progress=False) == result


def test_attention_is_not_drawn_of_data_that_have_changed(pendulum_file, tmp_path):
    data = tmp_path / "data.npz"
    data.write_bytes(pendulum_file.read_bytes())
    config = config_of("dt", data, num_steps=2, num_episodes=0, data_fraction=0.5)
    train(config, tmp_path / "run", progress=False)
    assert draw_attention(load_run(tmp_path / "run"), num_windows=2)
    columns = dict(np.load(data))
    np.savez(data, **{**columns, "observations": columns["observations"] + 1})
    with pytest.raises(DamagedFileError, match="has changed since this run began"):
        draw_attention(load_run(tmp_path / "run"), num_windows=2)
    assert draw_attention(load_run(tmp_path / "run"), str(data), num_windows=2)


def test_attention_to_other_data_is_that_to_states_as_the_model_sees_them(pendulum_file, tmp_path):
    train(config_of("dt", pendulum_file, num_steps=2, num_episodes=0), tmp_path / "run", progress=False)
    columns = dict(np.load(pendulum_file))
    longer = np.concatenate([columns["observations"], columns["observations"][-100:] + 5])
    rows = [*range(len(columns["actions"])), *range(len(columns["actions"]))[-100:]]
    more = {name: columns[name][rows] for name in ("actions", "rewards", "terminations", "truncations")}
    np.savez(tmp_path / "other.npz", observations=longer, **more)
    shown = []
    with (
        patch.object(attention, "attention_maps", lambda model, batch, **_: shown.append(batch)),
        patch.object(attention, "save_attention", lambda maps, folder: ()),
    ):
        attention.draw_attention(load_run(tmp_path / "run"), str(tmp_path / "other.npz"), num_windows=3)
    spec = load_run(tmp_path / "run").spec
    expected = StateNormalizer.from_spec(spec)(longer)
    for states, row in zip(shown[0].states.numpy(), shown[0].rows.tolist(), strict=True):
        np.testing.assert_allclose(states, expected[row : row + len(states)], atol=1e-4)


def test_divergence_stops_with_the_rows_of_the_batch(pendulum_file, tmp_path):
    config = config_of("dt", pendulum_file, checkpoint_every=2, num_steps=50)
    config = dataclasses.replace(
        config, agent=dataclasses.replace(config.agent, learning_rate=1e30, warmup_steps=0)
    )
    with pytest.raises(DivergenceError) as caught:
        train(config, tmp_path / "run", progress=False)
    assert caught.value.exit_code == 5
    record = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert len(record["rows"]) == 4
    assert str(tmp_path / "run") in str(caught.value)


@pytest.mark.parametrize(
    ("agent", "part"), [("bc", {"top_fraction": 0.4}), ("dt", {"reward_mode": "sparse"}), ("td3_bc", {})]
)
def test_divergence_names_rows_of_the_store(agent, part, tmp_path, monkeypatch):
    """The second episode is the best; the batch's own observations say where in the store it lies."""
    rewards = np.repeat([0.0, 1.0, -1.0], 20)
    np.savez(
        tmp_path / "data.npz",
        observations=np.arange(60.0)[:, None],
        actions=np.zeros((60, 1)),
        rewards=rewards,
        terminations=np.arange(60) % 20 == 19,
    )
    config = dataclasses.replace(
        config_of("dt", tmp_path / "data.npz", num_episodes=0),
        agent=AGENTS[agent].config(**{"batch_size": 8, **part}),
    )
    seen = []

    def diverge(self, batch):
        states = batch.states if batch.states.dim() == 2 else batch.states[:, 0]
        scale, mean = self.spec.state_std[0], self.spec.state_mean[0]
        seen.extend(round(float(value) * scale + mean) for value in states[:, 0])
        require_finite(0, batch.rows, loss=float("nan"))

    monkeypatch.setattr(AGENTS[agent].agent, "update", diverge)
    with pytest.raises(DivergenceError):
        train(config, tmp_path / "run", progress=False)
    record = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert record["rows"] == seen
    if agent == "bc":
        assert set(seen) <= set(range(20, 40))


def test_not_resuming_over_an_earlier_run_is_refused(pendulum_file, tmp_path):
    config = config_of("td3_bc", pendulum_file)
    train(config, tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="holds a finished run; use --resume or another --out"):
        train(config, tmp_path / "run", resume=False, progress=False)
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(InputError, match="holds a run at step 12"):
        train(config, tmp_path / "run", resume=False, progress=False)


def test_a_locked_run_is_refused(pendulum_file, tmp_path):
    config = config_of("td3_bc", pendulum_file)
    train(config, tmp_path / "run", progress=False)
    with RunDir.open(tmp_path / "run").lock(), pytest.raises(ResourceError, match="another process"):
        train(config, tmp_path / "run", progress=False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_it_ended(pendulum_file, tmp_path, number, code):
    path = tmp_path / "run"
    flags = ["--data", str(pendulum_file), "--out", str(path), "--num-steps", "1000000", "--batch-size", "4"]
    flags += ["--num-episodes", "0", "--log-every", "10", "--device", "cpu", "--quiet"]
    child = forked_command("train", "--agent", "td3_bc", *flags, folder=tmp_path)
    deadline = time.monotonic() + 120
    while not (path / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(number)
    ended, _, error = child.wait()
    assert ended == code, error
    assert "checkpoint saved" in error
    assert error.count("\n") == 1
    saved = load_checkpoint(path / "checkpoints")
    assert saved.state["loop"]["step"] == saved.step > 0
    assert not (path / "result.json").exists()
