"""Faults 45 to 52: data and settings that make no sense are refused by place or name, with exit code 2."""

import json

import numpy as np
import pytest
import torch._dynamo  # noqa: F401 - optimizers import it; imported here, no forked run pays for it

from chibit.agents import AGENTS
from chibit.core.checkpoint import load_checkpoint
from chibit.environments.make import make_env
from fault_files import steps, write_h5
from fault_guard import TRAINING_MEGABYTES, assert_refused, command, guarded
from fault_runs import on_call

SMALL = ("--n-layer", 1, "--n-embd", 16, "--context-length", 4, "--batch-size", 4, "--warmup-steps", 1)


def write(place, **changes):
    columns = steps() | {"terminations": np.zeros(60, bool)}
    del columns["terminals"]
    columns = {name: column for name, column in (columns | changes).items() if column is not None}
    np.savez(place / "data.npz", **columns)
    return place / "data.npz"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["observations", "actions", "rewards"])
def test_values_that_are_not_finite_are_named_by_row(place, column, value):
    values = steps()[column].copy()
    values.reshape(60, -1)[41, 0] = value
    verdict = guarded(command("data", "inspect", write(place, **{column: values})), place)
    assert_refused(verdict, 2, "data", column, "row 41 (episode 2, step 1)", f"is {value}", "repair the data")


def test_returns_that_overflow_are_named(place):
    verdict = guarded(command("data", "inspect", write(place, rewards=np.full(60, 3e307))), place)
    assert_refused(verdict, 2, "rewards", "row", "expected finite numbers")


def test_columns_of_unequal_length(place):
    verdict = guarded(command("data", "inspect", write(place, rewards=np.zeros(59))), place)
    assert_refused(verdict, 2, "data.npz", "columns differ in length", "rewards 59")
    path = write_h5(place / "hopper_medium-v2.hdf5", steps(60, 11, 3) | {"rewards": np.zeros(59)})
    verdict = guarded(command("data", "inspect", path), place)
    assert_refused(verdict, 2, "hopper_medium-v2.hdf5", "columns differ in length")


def test_data_without_an_end(place):
    path = write(place, truncations=None, timeouts=None)
    assert_refused(
        guarded(command("data", "inspect", path), place), 2, "none of 60 steps ends an episode", "mark"
    )


def test_data_without_steps(place):
    empty = {name: column[:0] for name, column in steps().items() if name != "terminals"}
    path = write(place, **empty, terminations=np.zeros(0, bool))
    assert_refused(guarded(command("data", "inspect", path), place), 2, "data.npz: no steps")


def test_episodes_of_one_step_and_longer_than_the_limit_are_fine(place):
    ends = np.zeros(600, bool)
    ends[[0, 1, 599]] = True
    columns = steps(600, 4) | {"actions": np.zeros(600, int), "timeouts": ends, "terminals": None}
    path = write(place, **columns, terminations=np.zeros(600, bool), env_id="CartPole-v1")
    flags = ("--data", path, "--out", place / "run", "--num-steps", 2, "--num-episodes", 0, "--quiet")
    verdict = guarded(command("train", *flags, *SMALL), place)
    assert verdict.code == 0, verdict.message


@pytest.mark.parametrize(("state_dim", "act_dim"), [(12, 3), (11, 2)])
def test_sizes_unlike_the_environments(place, state_dim, act_dim):
    path = write_h5(place / "hopper_medium-v2.hdf5", steps(60, state_dim, act_dim))
    verdict = guarded(command("data", "inspect", path), place)
    assert_refused(verdict, 2, "Hopper-v4", str(state_dim if act_dim == 3 else act_dim), "correct the data")


def test_a_constant_dimension_trains(place):
    observations = steps()["observations"].copy()
    observations[:, 1] = 1e6
    flags = ("--data", write(place, observations=observations), "--out", place / "run", "--num-steps", 3)
    verdict = guarded(command("train", *flags, "--log-every", 1, "--quiet", *SMALL), place)
    assert verdict.code == 0, verdict.message
    losses = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < record["train/loss"] < 10 for record in losses)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_divergence_stops_with_the_batch_written_down(place, part):
    import torch

    agent = AGENTS["dt"].agent
    infinite = lambda *_, **__: torch.tensor(float("inf"))  # noqa: E731
    flags = ("--data", write(place), "--out", place / "run", "--num-steps", 9, "--checkpoint-every", 2)

    def before():
        if part == "loss":
            on_call(agent, "update", 6, lambda self, batch: _spoil(self))
        else:
            on_call(torch.nn.utils, "clip_grad_norm_", 6, infinite, before=False)

    def _spoil(self):
        with torch.no_grad():
            next(iter(self.modules().parameters())).fill_(float("nan"))

    verdict = guarded(command("train", *flags, "--quiet", *SMALL), place, before)
    assert_refused(verdict, 5, "divergence.json", megabytes=TRAINING_MEGABYTES)
    record = json.loads((place / "run" / "divergence.json").read_text())
    assert record["step"] == 5
    assert len(record["rows"]) == 4
    assert all(0 <= row < 60 for row in record["rows"])
    saved = load_checkpoint(place / "run" / "checkpoints")
    assert saved.step == 4
    assert all(torch.isfinite(tensor).all() for tensor in saved.tensors.values())


@pytest.mark.parametrize("how", ["raises", "gives NaN"])
def test_an_environment_that_breaks_ends_its_episode_and_the_run_goes_on(place, how):
    env_class = type(make_env("Pendulum-v1").unwrapped)

    def break_down(self, action):
        if how == "raises":
            raise RuntimeError("the solver gave up")
        return np.full(3, np.nan, np.float32), 0.0, False, False, {}

    flags = ("--data", write(place, env_id="Pendulum-v1"), "--out", place / "run", "--num-steps", 2)
    flags += ("--num-episodes", 2, "--target-returns", -100, "--quiet", *SMALL)
    before = lambda: on_call(env_class, "step", 7, break_down, before=False)  # noqa: E731
    verdict = guarded(command("train", *flags), place, before)
    assert verdict.code == 0, verdict.message
    assert "is not counted" in " ".join(verdict.message.split())
    record = json.loads((place / "run" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert record["failed_episodes"] == [0]
    assert record["episode_lengths"] == [3, 200]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--seed", -1), ("seed", "got -1", "expected 0 to")),
        (("--seed", 2**32), ("seed", "expected 0 to")),
        (("--num-steps", 0), ("num_steps", "got 0", "at least 1")),
        (("--batch-size", 0), ("batch_size", "0")),
        (("--learning-rate", "nan"), ("learning_rate", "nan")),
        (("--agent", "no_such"), ("got 'no_such'", "known")),
        (("--precision", "bf16", "--device", "gpu"), ("device", "'gpu'", "expected auto, cpu")),
        (("--target-returns", "nan"), ("target_returns", "expected a finite number")),
    ],
)
def test_settings_out_of_range_are_refused_by_name(place, flags, parts):
    out = (
        ("--out", place / "run", "--num-steps", 1, "--quiet") if "--num-steps" not in flags else ("--quiet",)
    )
    verdict = guarded(command("train", "--data", write(place), *out, *flags), place)
    assert_refused(verdict, 2, *parts)
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"num_stepz": 3}, ("unknown field 'num_stepz'", "did you mean 'num_steps'")),
        ({"num_steps": "many"}, ("num_steps", "got 'many'", "expected int")),
        ({"seed": 1.5}, ("seed", "got 1.5", "expected int")),
        ({"agent_name": "nobody"}, ("agent_name", "'nobody'", "known")),
        ({"agent_name": {}}, ("agent_name", "got {}", "known")),
        ({"agent": {"n_layers": 3}}, ("agent", "unknown field 'n_layers'", "did you mean")),
    ],
)
def test_settings_in_a_file_are_read_strictly(place, change, parts):
    path = place / "config.json"
    path.write_text(json.dumps({"agent_name": "dt", "data": "x", **change}))
    assert_refused(guarded(command("train", "--config", path), place), 2, "config.json", *parts)
