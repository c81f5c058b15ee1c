"""Faults 31 to 44: files of strangers. Nothing in them is executed, nothing outside of them is touched."""

import io
import json
import os
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest
import torch

from chibit.models.gpt import GPTShape
from chibit.models.hub import read_weights
from chibit.models.language_model import load_language_model
from chibit.policy.policy import Policy
from fault_files import steps, write_h5
from fault_guard import assert_refused, command, guarded, untouched

NOT_TRUSTED = (
    "damaged",
    "refused",
    "trusted",
    "not a whole",
    "not a safetensors",
    "cannot be read",
    "pickle",
)


class Runs:
    """Pickled, it asks for a command to be run when it is opened."""

    def __init__(self, sentinel):
        self._sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self._sentinel),)


def inspect(path, place, outside):
    with untouched(outside):
        return guarded(command("data", "inspect", path), place)


@pytest.fixture
def payload(outside):
    """A pickle that would make a folder in the place that nothing may touch."""
    return pickle.dumps([Runs(outside / "executed")])


def packed(payload, form):
    """A pickle in one of the wrappings that get past a look at the first bytes."""
    if form == "plain":
        return payload
    archive = io.BytesIO()
    if form == "torch":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data.pkl", payload)
            file.writestr("archive/version", "3\n")
        return archive.getvalue()
    if form == "npy":
        header = np.lib.format.magic(1, 0) + struct.pack("<H", 118)
        text = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + "\n"
        payload = header + text.encode() + payload
    if form == "7z":
        return b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24) + payload
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("observations", "actions", "rewards", "terminations"):
            file.writestr(f"{name}.npy", payload)
    return archive.getvalue()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("list.pkl", "plain"),
        ("list.pickle", "plain"),
        ("data.npz", "npy"),
        ("data.npz", "plain"),
        ("data.npz", "zip"),
        ("data.npz", "7z"),
        ("data.pkl", "torch"),
        ("data.pkl", "7z"),
        ("data.hdf5", "plain"),
    ],
)
def test_pickles_in_every_wrapping_are_not_run(place, outside, payload, name, form):
    (place / name).write_bytes(packed(payload, form))
    verdict = inspect(place / name, place, outside)
    assert_refused(verdict, 3, name)
    assert any(word in verdict.message for word in NOT_TRUSTED)


@pytest.mark.parametrize("form", ["plain", "torch", "7z"])
@pytest.mark.parametrize("load", [load_language_model, read_weights, Policy.from_pretrained])
def test_pickles_named_as_weights_are_not_run(place, outside, payload, form, load):
    folder = model_folder(place, packed(payload, form))
    if load is load_language_model:
        (folder / "language_model.json").replace(folder / "config.json")
    with untouched(outside):
        verdict = guarded(lambda: load(folder), place)
    assert_refused(verdict, 3, "model.safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_folder_of_pickled_weights_is_refused_unopened(place, outside, payload, name):
    folder = model_folder(place, b"")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(payload)
    with untouched(outside):
        assert_refused(guarded(lambda: read_weights(folder), place), 3, name, "safetensors")


def test_code_in_a_training_state_is_not_run(place, outside):
    from chibit.core.checkpoint import load_checkpoint
    from fault_runs import reseal, save_two

    save_two(place / "checkpoints")
    newest = place / "checkpoints" / "0000000002"
    torch.save(Runs(outside / "executed"), newest / "training_state.pt")
    reseal(newest)
    with untouched(outside):
        assert_refused(guarded(lambda: load_checkpoint(place / "checkpoints", 2), place), 3, "cannot be read")


def model_folder(place, weights):
    """A folder that both a language model and a policy could be, but for its weights."""
    import hashlib

    from chibit.agents import AGENTS
    from chibit.core.config import to_json
    from chibit.data.dataset import DatasetSpec

    spec = DatasetSpec(
        name="x", state_dim=3, act_dim=1, num_actions=None, env_id=None, d4rl_physics=False,
        max_episode_steps=20, score_reference=None, state_mean=(0.0,) * 3, state_std=(1.0,) * 3,
        action_low=(-1.0,), action_high=(1.0,), default_target_returns=(1.0,),
    )  # fmt: skip
    config = AGENTS["dt"].config(context_length=4, gpt=GPTShape(n_layer=1, n_embd=16))
    policy = {"schema": 1, "chibit": "0.1.0", "agent": "dt", "config": to_json(config), "spec": to_json(spec)}
    policy |= {"target_return": 1.0, "sha256": hashlib.sha256(weights).hexdigest(), "scores": []}
    language_model = {"gpt": {"n_layer": 1, "n_head": 1, "n_embd": 16}, "vocab_size": 50, "n_positions": 8}
    folder = place / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(policy))
    (folder / "language_model.json").write_text(json.dumps(language_model))
    return folder


def header(entries, data=b"", length=None):
    """A safetensors file with a header that says what it likes."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape, begin, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


TWICE = b'{"w":%s,"w":%s}' % tuple(json.dumps(tensor([1], *at)).encode() for at in ((0, 4), (4, 8)))
SAFETENSORS = {
    "header of 2^62 bytes": header({}, length=1 << 62),
    "header of 150 MB": header(b"{" + b" " * 1000, length=150 << 20),
    "one name twice": header(TWICE, bytes(8)),
    "overlapping": header({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)),
    "a hole": header({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, bytes(12)),
    "shape of 2^80": header({"w": tensor([1 << 40, 1 << 40], 0, 4)}, bytes(4)),
    "shape of 2^64": header({"w": tensor([1 << 32, 1 << 32], 0, 0)}),
    "negative shape": header({"w": tensor([-1], 0, 4)}, bytes(4)),
    "beyond its end": header({"w": tensor([1 << 20], 0, 1 << 22)}, bytes(4)),
    "deeply nested": header(b"[" * 100_000),
}


@pytest.mark.parametrize("what", SAFETENSORS)
@pytest.mark.parametrize("load", [load_language_model, read_weights, Policy.from_pretrained])
def test_safetensors_that_lie_are_refused(place, outside, what, load):
    folder = model_folder(place, SAFETENSORS[what])
    if load is load_language_model:
        (folder / "language_model.json").replace(folder / "config.json")
    with untouched(outside):
        assert_refused(guarded(lambda: load(folder), place), 3, "model.safetensors")


@pytest.mark.parametrize("load", [load_language_model, Policy.from_pretrained])
def test_weights_larger_than_memory_are_not_read(place, load):
    folder = model_folder(place, b"")
    if load is load_language_model:
        (folder / "language_model.json").replace(folder / "config.json")
    with open(folder / "model.safetensors", "wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no space
    assert_refused(guarded(lambda: load(folder), place), 4, "model.safetensors", "more than half of")


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"n_layer": 2**62}, 2, "n_layer: got 4611686018427387904, expected 1 to 1000"),
        ({"n_layer": 999}, 3, "of another model"),
        ({"n_embd": 2**60}, 3, "of another model"),
    ],
)
def test_configurations_beyond_their_weights_build_nothing(place, change, code, reason):
    folder = model_folder(place, header({"w": tensor([1], 0, 4)}, bytes(4)))
    policy = json.loads((folder / "config.json").read_text())
    language_model = json.loads((folder / "language_model.json").read_text())
    policy["config"] |= change
    language_model["gpt"] |= change
    for load, config in ((Policy.from_pretrained, policy), (load_language_model, language_model)):
        (folder / "config.json").write_text(json.dumps(config))
        assert_refused(guarded(lambda load=load: load(folder), place), code, "config.json", reason)


def without_rewards(path):
    columns = steps()
    rewards = columns.pop("rewards")
    return write_h5(path, columns), rewards


def external_storage(file, rewards, outside):
    at = [(str(outside / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("rewards", rewards.shape, "f4", external=at)


def external_link(file, rewards, outside):
    file["rewards"] = h5py.ExternalLink(str(outside / "secret.hdf5"), "/rewards")


def soft_link(file, rewards, outside):
    file["rewards"] = h5py.SoftLink("/observations")


def virtual(file, rewards, outside):
    layout = h5py.VirtualLayout(rewards.shape, "f4")
    layout[:] = h5py.VirtualSource(str(outside / "secret.hdf5"), "rewards", rewards.shape)
    file.create_virtual_dataset("rewards", layout)


def unknown_filter(file, rewards, outside):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((10,))
    properties.set_filter(305, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple(rewards.shape)
    h5py.h5d.create(file.id, b"rewards", h5py.h5t.IEEE_F32LE, space, properties)


def huge_shape(file, rewards, outside):
    file.create_dataset("rewards", (4_000_000_000_000,), "f4", chunks=True)


def huge_chunk(file, rewards, outside):
    file.create_dataset("rewards", rewards.shape, "f4", maxshape=(None,), chunks=(100_000_000,))


def bomb(file, rewards, outside):
    del file["observations"]
    file.create_dataset(
        "observations", (30_000_000, 3), "f4", chunks=(1 << 20, 3), compression="gzip", fillvalue=0
    )
    file["rewards"] = rewards


def objects(file, rewards, outside):
    file.create_dataset("rewards", rewards.shape, h5py.string_dtype())


def variable_length(file, rewards, outside):
    file.create_dataset("rewards", rewards.shape, h5py.vlen_dtype(np.float32))


def compound(file, rewards, outside):
    file.create_dataset("rewards", rewards.shape, np.dtype([("a", "f4"), ("b", "i4")]))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (external_storage, ("rewards", "in another file")),
        (external_link, ("/rewards", "external link")),
        (soft_link, ("/rewards", "soft link")),
        (virtual, ("rewards", "virtual data set")),
        (unknown_filter, ("rewards", "needs filter 305")),
        (huge_shape, ("declares", "not to be trusted")),
        (huge_chunk, ("rewards", "chunks")),
        (bomb, ("declares", "not to be trusted")),
    ],
)
def test_hdf5_that_reaches_out_or_blows_up_is_refused(place, outside, monkeypatch, change, parts):
    path, rewards = without_rewards(place / "hopper_medium-v2.hdf5")
    with h5py.File(path, "a") as file:
        change(file, rewards, outside)
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(outside))
    assert_refused(inspect(path, place, outside), 3, path.name, *parts)


@pytest.mark.parametrize("change", [objects, variable_length, compound])
def test_hdf5_of_other_types_is_not_called_damaged(place, outside, change):
    path, rewards = without_rewards(place / "hopper_medium-v2.hdf5")
    with h5py.File(path, "a") as file:
        change(file, rewards, outside)
    assert_refused(inspect(path, place, outside), 2, path.name, "rewards", "expected plain numbers")


def test_hdf5_cut_short_is_refused(place, outside):
    whole = write_h5(place / "whole.hdf5", steps()).read_bytes()
    for sixteenths in (0, 5, 15):
        path = place / "cut.hdf5"
        path.write_bytes(whole[: len(whole) * sixteenths // 16])
        assert_refused(inspect(path, place, outside), 3, "cut.hdf5", "damaged HDF5 file", "again")


@pytest.mark.parametrize("kind", ["traversal", "absolute", "home", "windows", "link", "newline"])
def test_archives_with_members_elsewhere_are_refused(place, outside, kind):
    columns = steps()
    columns["terminations"] = columns.pop("terminals")
    np.savez(place / "data.npz", **columns)
    names = {
        "traversal": "../../outside/evil.npy",
        "absolute": str(outside / "evil.npy"),
        "home": "~/evil.npy",
        "windows": "..\\..\\evil.npy",
        "link": "link.npy",
        "newline": "a\nb.npy",
    }
    info = zipfile.ZipInfo(names[kind])
    if kind == "link":
        info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(place / "data.npz", "a") as file:
        file.writestr(info, str(outside / "secret.bin"))
    assert_refused(inspect(place / "data.npz", place, outside), 3, "data.npz", "not to be trusted")


@pytest.mark.parametrize(
    "name", ["../outside/secret", "a\0b", "a#b", "a\nb", "x" * 4096, "/etc/passwd", "-rf"]
)
@pytest.mark.parametrize("field", ["study", "data"])
def test_hostile_names_become_no_paths(place, outside, name, field):
    np.savez(place / "data.npz", **steps())
    flags = {"data": str(place / "data.npz"), field: name}
    arguments = [f"--{key}={value}" for key, value in flags.items()]
    with untouched(outside):
        verdict = guarded(command("train", *arguments, "--num-steps=1", "--quiet"), place)
    assert_refused(verdict, 2)
    assert len(verdict.message) < 700
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["data.npz"]


def write_minari(folder, env_spec, **metadata):
    """A Minari data set of three episodes of Hopper's shape."""
    columns = steps(60, 11, 3)
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for index in range(3):
            rows = slice(20 * index, 20 * index + 20)
            group = file.create_group(f"episode_{index}")
            observations = columns["observations"][rows]
            group["observations"] = np.concatenate([observations, observations[-1:]])
            group["actions"], group["rewards"] = columns["actions"][rows], columns["rewards"][rows]
            group["terminations"] = np.zeros(20, bool)
            group["truncations"] = np.arange(20) == 19
    spec = {"id": "Hopper-v5", "kwargs": {}, "additional_wrappers": [], **env_spec}
    text = {"dataset_id": "x/y-v0", "env_spec": json.dumps(spec), "total_episodes": 3, "total_steps": 60}
    (folder / "data" / "metadata.json").write_text(json.dumps(text | metadata))
    return folder


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Strange-v0", "evil_module:Strange-v0"])
@pytest.mark.parametrize("entry_point", ["os:system", "evil_module:make"])
def test_entry_points_are_never_imported(place, outside, monkeypatch, env_id, entry_point):
    (place / "evil_module.py").write_text(f"open({str(outside / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(str(place))
    wrapper = {"name": "evil", "entry_point": entry_point, "kwargs": {}}
    spec = {"id": env_id, "entry_point": entry_point, "kwargs": {"command": f"touch {outside}/executed"}}
    folder = write_minari(place / "set", spec | {"additional_wrappers": [wrapper]})
    verdict = inspect(folder, place, outside)
    assert verdict.code == 0, verdict.message
    assert verdict.misdeeds == ()
    if env_id != "Hopper-v5":
        assert "not one that can be built here" in " ".join(verdict.output.split())


def test_metadata_for_which_minari_would_build_the_environment_are_refused(place, outside):
    spec = {"entry_point": "os:system", "kwargs": {"command": f"touch {outside}/executed"}}
    folder = write_minari(place / "set", spec, data_format="arrow")
    assert_refused(inspect(folder, place, outside), 3, "metadata.json", "no observation_space", "again")


def test_the_guard_sees_what_it_must(place, outside):
    """A guard that sees nothing would pass everything."""

    def misbehave():
        (outside / "written").write_text("x")
        os.system("true")
        return 0

    verdict = guarded(misbehave, place)
    assert len(verdict.misdeeds) == 2
    with pytest.raises(AssertionError, match="was touched"), untouched(outside):
        os.waitpid(os.posix_spawn("/bin/cat", ["cat", str(outside / "secret.bin")], {}), 0)
    grown = guarded(lambda: len(bytearray(400 << 20)) * 0, place)
    assert grown.megabytes > MEGABYTES_SEEN


MEGABYTES_SEEN = 280
