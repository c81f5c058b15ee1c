"""Faults 23 to 30: own files that are damaged are found out by their SHA-256; the one before is used."""

import dataclasses
import logging
import os
import shutil
import sys

import faults_flips
import faults_kills
import pytest
import torch
import torch._dynamo  # optimizers import it; imported here, no forked run pays for it

from chibit.core.checkpoint import load_checkpoint
from chibit.core.errors import DamagedFileError, UserError
from chibit.data.load import load_dataset
from chibit.models.gpt import GPTConfig
from chibit.models.language_model import (
    LanguageModel,
    LanguageModelConfig,
    load_language_model,
    save_language_model,
)
from chibit.policy.policy import Policy
from chibit.training import offline
from chibit.training.run_config import RunConfig
from fault_guard import assert_refused, guarded
from fault_runs import reseal, save_two

NAMES = ("model.safetensors", "training_state.pt", "manifest.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A configuration and a run of it that has come to its end."""
    folder = tmp_path_factory.mktemp("finished")
    os.environ["CHIBIT_HOME"] = str(folder / "home")
    config = faults_kills.small_run(faults_kills.write_data(folder / "data.npz"))
    config = dataclasses.replace(config, num_episodes=0, target_returns=None)
    verdict = guarded(lambda: offline.train(config, folder / "run", progress=False), folder)
    assert verdict.code == 0, verdict.message
    return config, folder / "run"


@pytest.fixture
def broken(finished, place, monkeypatch):
    """The run without its result, as if it had been killed at its end; the newest checkpoint is of 36."""
    config, run = finished
    monkeypatch.setenv("CHIBIT_HOME", str(run.parent / "home"))
    shutil.copytree(run, place / "run")
    (place / "run" / "result.json").unlink()
    return config, place / "run"


def resume(config: RunConfig, path, **options):
    def train():
        logging.getLogger("chibit").handlers = [logging.StreamHandler(sys.stderr)]
        offline.train(config, path, progress=False, **options)

    return guarded(train, path.parent)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "gone"])
def test_the_checkpoint_before_is_used_and_the_end_is_the_same(finished, broken, name, damage):
    config, path = broken
    file = path / "checkpoints" / "0000000036" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "bit": content, "empty": b""}[damage])
    verdict = resume(config, path)
    assert verdict.code == 0, verdict.message
    assert "0000000036" in verdict.message
    assert "trying the one before" in verdict.message
    assert "resumed at step 33" in (path / "train.log").read_text()
    assert faults_kills.digest(path) == faults_kills.digest(finished[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_at_every_sixteenth_is_noticed(tmp_path, name):
    save_two(tmp_path)
    file = tmp_path / "0000000002" / name
    content = file.read_bytes()
    for sixteenths in range(16):
        file.write_bytes(content[: len(content) * sixteenths // 16])
        assert load_checkpoint(tmp_path).step == 1
        with pytest.raises(DamagedFileError, match=name):
            load_checkpoint(tmp_path, 2)


def test_every_flipped_bit_of_a_manifest_is_noticed_and_most_of_the_rest(tmp_path, monkeypatch):
    """Every seventh bit; `benchmarks/faults.py --parts flips` turns over all of them."""
    monkeypatch.setattr(faults_flips, "range", lambda stop: range(0, stop, 7), raising=False)
    table = faults_flips.flip_campaign(tmp_path)
    assert sorted(table) == sorted(NAMES)
    for bits, noticed, _ in table.values():
        assert noticed == -(-bits // 7)


def test_every_flipped_bit_of_a_language_model_changes_nothing_or_is_noticed(tmp_path):
    config = LanguageModelConfig(vocab_size=5, n_positions=4, gpt=GPTConfig(n_layer=1, n_head=1, n_embd=4))
    folder = save_language_model(LanguageModel(config), tmp_path / "model")
    saved = load_language_model(folder)
    for path in folder.iterdir():
        content = path.read_bytes()
        for bit in range(0, 8 * len(content), 31):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            try:
                loaded = load_language_model(folder)
            except UserError:
                continue
            assert loaded.config == saved.config
            for one, other in zip(loaded.parameters(), saved.parameters(), strict=True):
                assert torch.equal(one, other)
        path.write_bytes(content)


def damage_state(path, change):
    """Change the newest checkpoint's training state, with a manifest that fits."""
    newest = path / "checkpoints" / "0000000036"
    state = torch.load(newest / "training_state.pt", weights_only=True)
    change(state)
    torch.save(state, newest / "training_state.pt")
    reseal(newest)


def another_optimizer(state):
    def shrink(value):
        if isinstance(value, dict):
            return {key: shrink(item) for key, item in value.items() if key != "exp_avg"}
        return value

    state["agent"] = shrink(state["agent"])
    state["agent"].pop("optimizer", None)


def half_an_optimizer(state):
    """Torch would take it and miss the moment at the next step."""
    optimizers = state["agent"].get("optimizers") or {"only": state["agent"]["optimizer"]}
    next(iter(optimizers.values()))["state"][0].pop("exp_avg_sq")


@pytest.mark.parametrize("change", [another_optimizer, half_an_optimizer])
def test_an_optimizer_of_another_model_is_refused(broken, change):
    config, path = broken
    damage_state(path, change)
    assert_refused(
        resume(config, path), 3, "step 36 does not fit this run", "use another --out", megabytes=600
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("rng"),
        lambda state: state["rng"].update(cpu=state["rng"]["cpu"][:100]),
        lambda state: state["sampler"].clear(),
    ],
    ids=["no state", "short state", "no sampler"],
)
def test_a_generator_that_cannot_go_on_is_refused_unless_that_is_allowed(broken, change):
    config, path = broken
    damage_state(path, change)
    shutil.rmtree(path / "checkpoints" / "0000000033")
    assert_refused(
        resume(config, path), 3, "random numbers cannot go on", "--allow-inexact-resume", megabytes=600
    )
    assert resume(config, path, allow_inexact_resume=True).code == 0
    assert "not an exact one" in (path / "train.log").read_text()


def test_data_that_have_changed_are_noticed(broken, monkeypatch):
    import numpy as np

    config, path = broken
    columns = dict(np.load(config.data))
    columns["rewards"] = columns["rewards"] + 1
    np.savez(path.parent / "changed.npz", **columns)
    changed = dataclasses.replace(config, data=str(path.parent / "changed.npz"))
    load_dataset(changed.data, progress=False)  # the run itself then has nothing to write in the cache
    description = path / "config.json"
    description.write_text(description.read_text().replace(config.data, changed.data))
    assert_refused(resume(changed, path), 3, "has changed since this run began", "bring the old data back")


def test_newer_formats_are_refused_by_name(broken):
    config, path = broken
    for step in ("0000000033", "0000000036"):
        reseal(path / "checkpoints" / step, schema=99)
    verdict = resume(config, path)
    assert verdict.code == 3
    assert (
        verdict.message.count("schema 99, expected 1; written by another version?; trying the one before")
        == 2
    )
    assert "no whole checkpoint is left" in verdict.message.splitlines()[-1]
    description = path / "config.json"
    description.write_text(description.read_text().replace('"schema": 1', '"schema": 99'))
    assert_refused(resume(config, path), 3, "config.json: schema 99, expected 1")


def test_a_newer_policy_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match="schema 99, this version reads up to"):
        Policy.from_pretrained(tmp_path)
