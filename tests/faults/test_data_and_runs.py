"""Data that are not what their name says, that changed behind a run, or whose numbers are no choices."""

import json
import os

import numpy as np
import torch._dynamo  # noqa: F401 - optimizers import it; imported here, no forked run pays for it

import chibit.training.offline  # noqa: F401 - the same
from fault_files import steps
from fault_guard import TRAINING_MEGABYTES, assert_refused, command, guarded

SMALL = (
    "--agent",
    "bc",
    "--batch-size",
    4,
    "--num-steps",
    2,
    "--num-episodes",
    0,
    "--device",
    "cpu",
    "--quiet",
)


def write(path, **changes):
    columns = steps() | {"terminations": np.arange(60) % 20 == 19} | changes
    np.savez(
        path, **{name: column for name, column in columns.items() if name not in ("terminals", "timeouts")}
    )
    return path


def train(place, data, *flags):
    return guarded(command("train", "--data", data, "--out", place / "run", *SMALL, *flags), place)


def test_a_finished_run_whose_data_changed(place):
    data = write(place / "log.npz")
    assert train(place, data).code == 0
    result = (place / "run" / "result.json").read_bytes()
    write(data, rewards=np.ones(60))
    parts = ("log.npz", "has changed since this run began", "content", "choose another --out")
    assert_refused(train(place, data), 3, *parts, megabytes=TRAINING_MEGABYTES)
    assert (place / "run" / "result.json").read_bytes() == result


def test_a_source_replaced_by_one_of_its_size_and_time(place):
    data = write(place / "log.npz", rewards=np.zeros(60))
    os.utime(data, ns=(5, 5))
    size = data.stat().st_size
    assert train(place, data).code == 0
    write(data, rewards=np.ones(60))
    os.utime(data, ns=(5, 5))
    assert data.stat().st_size == size
    assert_refused(train(place, data), 3, "has changed since this run began", megabytes=TRAINING_MEGABYTES)


def test_a_name_that_looks_like_a_published_data_set(place):
    data = write(place / "hopper-medium-v2.npz")
    assert train(place, data).code == 0
    provenance = json.loads((place / "run" / "provenance.json").read_text())
    assert provenance["data_name"] == "hopper-medium-v2.npz"
    assert provenance["dataset"]["env_id"] is None and provenance["dataset"]["score_reference"] is None


def test_a_named_environment_that_does_not_fit(place):
    data = write(place / "log.npz")
    verdict = train(place, data, "--env-id", "Hopper-v4")
    assert_refused(verdict, 2, "have 3 values, those of Hopper-v4 have 11", megabytes=TRAINING_MEGABYTES)
    assert not (place / "run").exists()
    verdict = guarded(command("data", "inspect", data, "--env-id", "os.system"), place)
    assert_refused(verdict, 2, "not one that can be built here", megabytes=TRAINING_MEGABYTES)


def test_an_action_number_beyond_all_choices(place):
    actions = np.arange(60) % 4
    actions[41] = 8_388_607
    verdict = guarded(command("data", "inspect", write(place / "log.npz", actions=actions)), place)
    assert_refused(verdict, 2, "row 41 (episode 2, step 1)", "is 8388607", "expected 0 to 65535")


def test_a_share_of_the_data_that_leaves_no_episode(place):
    verdict = train(place, write(place / "log.npz"), "--data-fraction", 0.1)
    assert_refused(
        verdict, 2, "fraction: 0.1 of 3 episodes is none; 0.33 is one", megabytes=TRAINING_MEGABYTES
    )
