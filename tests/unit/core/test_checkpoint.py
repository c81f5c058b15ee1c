import json
import os

import pytest
import torch

from chibit.core.checkpoint import checkpoint_steps, load_checkpoint, mark, marked, sweep
from chibit.core.errors import DamagedFileError, InputError
from fault_runs import save_checkpoint, save_two


def state_of(step):
    return {"step": step, "moments": [torch.arange(3.0) * step], "generator": {"state": 2**100 + step}}


def tensors_of(step):
    return {"weight": torch.full((2, 3), float(step)), "bias": torch.ones(3)}


def save(folder, step, **kwargs):
    return save_checkpoint(folder, step, tensors_of(step), state_of(step), **kwargs)


def test_round_trip(tmp_path):
    save(tmp_path, 7)
    loaded = load_checkpoint(tmp_path)
    assert loaded.step == 7
    assert torch.equal(loaded.tensors["weight"], torch.full((2, 3), 7.0))
    assert torch.equal(loaded.state["moments"][0], torch.tensor([0.0, 7.0, 14.0]))
    assert loaded.state["generator"]["state"] == 2**100 + 7


def test_tensors_that_share_memory_are_both_kept(tmp_path):
    weight = torch.arange(4.0)
    save_checkpoint(tmp_path, 1, {"a": weight, "b": weight}, {})
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(loaded.tensors["a"], weight)
    assert torch.equal(loaded.tensors["b"], weight)


def test_nothing_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None


def test_pruning_keeps_the_newest_and_the_marked(tmp_path):
    save(tmp_path, 1)
    mark(tmp_path, "best", 1)
    for step in (2, 3, 4):
        save(tmp_path, step, keep=2)
    assert checkpoint_steps(tmp_path) == [1, 3, 4]
    assert marked(tmp_path, "best") == 1
    assert marked(tmp_path, "last") is None


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 1)
    save_checkpoint(tmp_path, 1, {"weight": torch.zeros(1)}, {})
    assert load_checkpoint(tmp_path).tensors["weight"].shape == (1,)
    assert os.listdir(tmp_path) == ["0000000001"]


@pytest.mark.parametrize("name", ["model.safetensors", "training_state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog, name, damage):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "truncate" else b"")
    with caplog.at_level("WARNING", "chibit"):
        loaded = load_checkpoint(tmp_path)
    assert loaded.step == 1
    assert any("trying the one before" in record.getMessage() for record in caplog.records)
    with pytest.raises((DamagedFileError, InputError)):
        load_checkpoint(tmp_path, 2)


def test_when_every_one_is_damaged_it_says_so(tmp_path):
    (save(tmp_path, 1) / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        DamagedFileError, match="no whole checkpoint is left .*train again with another --out"
    ):
        load_checkpoint(tmp_path)


def test_a_checkpoint_under_another_step_is_refused(tmp_path):
    save(tmp_path, 1).rename(tmp_path / "0000000009")
    with pytest.raises(DamagedFileError, match="says step 1"):
        load_checkpoint(tmp_path, 9)


def test_a_newer_format_is_refused_by_name(tmp_path):
    path = save(tmp_path, 1) / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(DamagedFileError, match="schema 99, expected 1"):
        load_checkpoint(tmp_path, 1)


def test_a_missing_step_names_those_there(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(InputError, match="there are: 1"):
        load_checkpoint(tmp_path, 5)


def test_sweep_removes_leftovers_only(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".tmp-0000000002-abc").mkdir()
    (tmp_path / ".tmp-0000000002-abc" / "model.safetensors").write_bytes(b"half")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["0000000001"]


class Exploit:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return (os.mkdir, (self.sentinel,))


def test_code_in_a_training_state_does_not_run_even_with_a_matching_manifest(tmp_path):
    import hashlib

    path = save(tmp_path, 1)
    sentinel = str(tmp_path / "sentinel")
    torch.save(Exploit(sentinel), path / "training_state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["training_state.pt"] = hashlib.sha256(
        (path / "training_state.pt").read_bytes()
    ).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError):
        load_checkpoint(tmp_path, 1)
    assert not os.path.exists(sentinel)


def test_whatever_else_lies_among_checkpoints_is_ignored(tmp_path):
    save_two(tmp_path)
    (tmp_path / "Thumbs.db").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "notes.txt").write_text("learning rate 3e-4")
    for name in ("²", "12", "0000000099 copy", ".DS_Store.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "0000000009").write_text("a file")
    assert checkpoint_steps(tmp_path) == [1, 2]
    assert load_checkpoint(tmp_path).step == 2
    save_checkpoint(tmp_path, 3, {"w": torch.zeros(1)}, {}, keep=1)
    assert checkpoint_steps(tmp_path) == [3]
    assert (tmp_path / "notes.txt").exists()
    assert marked(tmp_path, "best") is None


def test_a_checkpoint_that_an_earlier_version_wrote_on_a_gpu_is_read_without_one(tmp_path, monkeypatch):
    """It holds tensors of cuda:0; a machine without CUDA has to put them elsewhere."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    save_checkpoint(tmp_path, 1, {"w": torch.ones(2)}, {"optimizer": {"moment": torch.arange(3.0)}})
    monkeypatch.undo()
    state = load_checkpoint(tmp_path).state
    assert state["optimizer"]["moment"].tolist() == [0.0, 1.0, 2.0]
    assert state["optimizer"]["moment"].device.type == "cpu"
