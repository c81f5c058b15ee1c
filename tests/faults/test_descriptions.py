"""Descriptions of data, in a store, a policy or in Python, are checked as a whole."""

import dataclasses
import json
import re

import pytest

from chibit.agents import AGENTS, make_agent
from chibit.core.config import from_json, to_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.runtime import Runtime
from chibit.data import store
from chibit.data.dataset import DatasetSpec
from chibit.data.load import load_dataset
from chibit.data.store import open_store
from chibit.policy.export import export_policy
from chibit.policy.format import read_policy

SPEC = DatasetSpec(
    name="x",
    state_dim=2,
    act_dim=1,
    num_actions=None,
    env_id=None,
    d4rl_physics=False,
    max_episode_steps=5,
    score_reference=(0, 1),
    state_mean=(0, 0),
    state_std=(1, 1),
    action_low=(-1,),
    action_high=(1,),
    default_target_returns=(1, 0.5),
)

CHANGES = [
    {"state_mean": (0.0,)},
    {"state_mean": (0.0, float("nan"))},
    {"state_mean": ("0", "1")},
    {"state_std": (1.0,) * 3},
    {"state_std": (1.0, 0.0)},
    {"state_std": (1.0, -1.0)},
    {"state_std": (1.0, float("inf"))},
    {"state_std": (1.0, 1e39)},
    {"action_low": ()},
    {"action_low": (1.0,)},
    {"action_low": (2.0,)},
    {"action_high": (-1.0,)},
    {"action_high": (True,)},
    {"max_episode_steps": 0},
    {"max_episode_steps": 2**63},
    {"max_episode_steps": 5.0},
    {"score_reference": (1.0, 1.0)},
    {"score_reference": (0.0, float("nan"))},
    {"default_target_returns": ()},
    {"default_target_returns": (float("nan"),)},
    {"state_dim": 0},
    {"state_dim": True},
    {"act_dim": -1},
    {"act_dim": 0},
    {"num_actions": 3},
    {"num_actions": 0},
    {"num_actions": 2**63 - 1, "act_dim": 0, "action_low": (), "action_high": ()},
    {"image_shape": (1, 2, 3)},
    {"image_shape": (-1, -2, 1)},
    {"name": 3},
    {"name": "\0"},
    {"d4rl_physics": 1},
]


@pytest.mark.parametrize(
    "change", CHANGES, ids=lambda change: " ".join(f"{k}={v!r}" for k, v in change.items())
)
def test_what_does_not_go_together_is_refused_however_it_comes(change, tmp_path):
    with pytest.raises(InputError) as error:
        dataclasses.replace(SPEC, **change)
    said = str(error.value)
    assert "\n" not in said
    config = AGENTS["bc"].config(hidden_sizes=(4,))
    folder = export_policy(make_agent(config, SPEC, Runtime()), SPEC, tmp_path / "policy")
    record = json.loads((folder / "config.json").read_text())
    record["spec"] |= json.loads(json.dumps(change))
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=rf"config\.json\.spec(: |\.){re.escape(said)}$"):
        read_policy(folder)


def test_whole_numbers_become_the_floats_that_are_due():
    assert from_json(DatasetSpec, json.loads(json.dumps(to_json(SPEC)))) == SPEC
    assert all(type(value) is float for value in SPEC.state_mean + SPEC.action_low + SPEC.score_reference)


def test_a_store_is_known_by_what_it_holds(pendulum_file, tmp_path):
    """Whoever signs a changed manifest anew cannot pass the data for others."""
    dataset = load_dataset(pendulum_file, cache=tmp_path, progress=False)
    path = dataset.folder / store.MANIFEST
    manifest = json.loads(path.read_text())
    for change in (
        {"content_hash": "0" * 64},
        {"spec": {**manifest["spec"], "max_episode_steps": 0}},
        {"notes": [["nested"]]},
    ):
        changed = {**manifest, **change}
        changed["manifest_sha256"] = store._manifest_hash(changed)
        path.write_text(json.dumps(changed))
        with pytest.raises(DamagedFileError, match="content_hash|max_episode_steps|notes"):
            open_store(dataset.folder, verify="hash")
