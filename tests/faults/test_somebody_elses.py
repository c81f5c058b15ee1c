"""Nothing that is somebody else's is destroyed, and nothing outside of what was given is read."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from chibit.agents import make_agent
from chibit.agents.bc import BCConfig
from chibit.cli import main
from chibit.core.checkpoint import load_checkpoint
from chibit.core.config import read_json
from chibit.core.errors import DamagedFileError, InputError, UserError
from chibit.core.files import append, atomic_folder, open_regular, read_regular
from chibit.core.run_dir import RunDir
from chibit.core.runtime import Runtime
from chibit.core.shared_folder import MANIFEST, shared_folder
from chibit.core.temporary import TEMPORARY_PREFIX, sweep_unlocked
from chibit.data.dataset import DatasetSpec
from chibit.data.store import open_store
from chibit.models.gpt import GPTConfig
from chibit.models.language_model import LanguageModel, LanguageModelConfig, save_language_model
from chibit.policy.policy import Policy
from fault_files import steps
from fault_runs import save_checkpoint

WRITTEN = Path(__file__).parents[1] / "golden" / "v0_1"

SPEC = DatasetSpec(
    name="toy", state_dim=3, act_dim=1, num_actions=None, env_id=None, d4rl_physics=False,
    max_episode_steps=20, score_reference=None, state_mean=(0.0,) * 3, state_std=(1.0,) * 3,
    action_low=(-1.0,), action_high=(1.0,), default_target_returns=(1.0, 0.5),
)  # fmt: skip


def policy(seed=0):
    torch.manual_seed(seed)
    return Policy(make_agent(BCConfig(), SPEC, Runtime()), SPEC)


def content(folder):
    """Everything below a folder: names, and what files and links hold."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    return folder


def run_folder(folder):
    record = {"schema": 1, "arm": "bc", "study": "s", "config": {}}
    fill(folder, "metrics.jsonl", "checkpoints/notes")
    (folder / "config.json").write_text(json.dumps(record))
    return folder


NEIGHBORS = {
    "a thesis": lambda f: fill(f, "thesis.txt", "sub/chapter.tex"),
    "a git clone": lambda f: fill(f, ".git/HEAD", ".gitattributes"),
    "hidden files": lambda f: fill(f, ".env", ".tmp-notes", ".tmp-mine/x"),
    "nothing": lambda f: f.mkdir(),
    "a link": lambda f: (fill(f, "x"), (f / "link").symlink_to("/etc/hosts")),
}
IN_THE_WAY = {
    "somebody's GPT-2": lambda f: fill(f, "config.json", "model.safetensors", "tokenizer.json"),
    "a card": lambda f: fill(f, "README.md"),
    "a link of our name": lambda f: (fill(f, "x"), (f / "README.md").symlink_to(f / "x")),
    "a link to nothing": lambda f: (f.mkdir(), (f / "config.json").symlink_to(f / "absent")),
    "a folder of our name": lambda f: fill(f, "model.safetensors/x"),
    "a pipe of our name": lambda f: (f.mkdir(), os.mkfifo(f / "config.json")),
    "a run": run_folder,
    "a study": lambda f: run_folder(f / "bc-toy-s0"),
    "a checkpoint": lambda f: fill(f, "manifest.json", "training_state.pt"),
    "a run's checkpoints": lambda f: fill(f / "0000000010", "manifest.json"),
    "a data set": lambda f: fill(f, "manifest.json", "records.npy"),
    "a corpus": lambda f: fill(f, "manifest.json", "tokens.u16"),
    "a Minari data set": lambda f: fill(f / "data", "metadata.json", "main_data.hdf5"),
    "a folder of Minari data sets": lambda f: fill(f, "namespace_metadata.json"),
    "a language model": lambda f: save_language_model(tiny_language_model(), f),
    "a file": lambda f: f.write_text("mine"),
}


def tiny_language_model():
    shape = GPTConfig(n_layer=1, n_head=1, n_embd=8, n_inner=8)
    return LanguageModel(LanguageModelConfig(gpt=shape, vocab_size=11, n_positions=8))


@pytest.mark.parametrize("neighbor", NEIGHBORS)
def test_what_lies_beside_a_policy_stays(tmp_path, neighbor):
    folder = tmp_path / "out"
    NEIGHBORS[neighbor](folder)
    before = content(folder)
    policy().save_pretrained(folder)
    policy(1).save_pretrained(folder)
    after = content(folder)
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {MANIFEST, "README.md", "config.json", "model.safetensors"}
    Policy.from_pretrained(folder)


@pytest.mark.parametrize("thing", IN_THE_WAY)
def test_a_policy_takes_nobodys_place(tmp_path, thing):
    folder = tmp_path / "out"
    IN_THE_WAY[thing](folder)
    before = content(tmp_path)
    with pytest.raises(InputError) as refusal:
        policy().save_pretrained(folder)
    assert "\n" not in str(refusal.value)
    assert content(tmp_path) == before


@pytest.mark.parametrize("thing", ["somebody's GPT-2", "a run", "a data set", "a file"])
def test_a_language_model_takes_nobodys_place(tmp_path, thing):
    folder = tmp_path / "out"
    IN_THE_WAY[thing](folder)
    before = content(tmp_path)
    with pytest.raises(InputError):
        save_language_model(tiny_language_model(), folder)
    assert content(tmp_path) == before


def test_a_file_of_ours_that_was_changed_since_is_not_replaced(tmp_path):
    folder = policy().save_pretrained(tmp_path / "out")
    with open(folder / "README.md", "a") as card:
        card.write("What I found with it.\n")
    before = content(folder)
    with pytest.raises(InputError, match=r"README.md: was changed since it was written; move it away"):
        policy(1).save_pretrained(folder)
    assert content(folder) == before


def test_files_of_an_earlier_export_go_unless_they_were_changed(tmp_path):
    with shared_folder(tmp_path / "out", "policy") as new:
        fill(new, "policy.onnx", "backbone/config.json")
    with shared_folder(tmp_path / "out", "policy") as new:
        fill(new, "policy.onnx")
    assert not (tmp_path / "out" / "backbone" / "config.json").exists()
    (tmp_path / "out" / "policy.onnx").write_text("changed")
    with (
        pytest.raises(InputError, match="policy.onnx: was changed"),
        shared_folder(tmp_path / "out", "policy") as new,
    ):
        fill(new, "other")
    assert (tmp_path / "out" / "policy.onnx").read_text() == "changed"
    assert not (tmp_path / "out" / "other").exists()


def test_nothing_is_written_through_a_link_out_of_the_folder(tmp_path):
    outside = fill(tmp_path / "outside", "other")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "backbone").symlink_to(outside)
    with pytest.raises(InputError, match="leads out of"), shared_folder(tmp_path / "out", "policy") as new:
        fill(new, "backbone/config.json")
    assert [path.name for path in outside.iterdir()] == ["other"]


@pytest.mark.parametrize("name", ["../thesis.txt", "/etc/hosts", "sub/../../thesis.txt"])
def test_a_list_of_files_that_points_outside_is_not_believed(tmp_path, name):
    fill(tmp_path, "thesis.txt")
    folder = policy().save_pretrained(tmp_path / "out")
    record = json.loads((folder / MANIFEST).read_text())
    digest = hashlib.sha256((tmp_path / "thesis.txt").read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(record | {"files": {name: [digest]}}))
    with pytest.raises(InputError, match="not a list of files"):
        policy().save_pretrained(folder)
    assert (tmp_path / "thesis.txt").exists()


def test_an_export_that_was_killed_half_way_is_done_again(tmp_path, monkeypatch):
    from chibit.core import shared_folder as module

    folder = policy().save_pretrained(tmp_path / "out")
    replace = os.replace

    def fail(source, target):
        if Path(target) == folder / "config.json":
            raise OSError(5, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", fail)
        with pytest.raises(UserError):
            policy(1).save_pretrained(folder)
    with pytest.raises(UserError):
        Policy.from_pretrained(folder)  # the new weights with the old configuration: refused, not believed
    policy(1).save_pretrained(folder)
    Policy.from_pretrained(folder)
    assert not list(folder.glob(".tmp-*"))


def test_what_somebody_put_into_a_checkpoint_stays(tmp_path):
    def save(step):
        save_checkpoint(tmp_path, step, {"w": torch.zeros(1)}, {"step": step}, keep=1)

    save(1)
    fill(tmp_path / "0000000001", "notes.txt")
    save(2)
    assert (tmp_path / "0000000001" / "notes.txt").exists()
    save(1)  # the same step again: the checkpoint is replaced, the notes move over
    assert (tmp_path / "0000000001" / "notes.txt").exists()
    save(3)
    assert not (tmp_path / "0000000002").exists()


def odd_files(folder):
    """Paths that are no regular files, or none that can be read to an end."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to(folder / "absent")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "to_pipe").symlink_to(folder / "pipe")
    (folder / "to_zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)  # names of sockets are short
        listener.bind("socket")
    names = ["pipe", "folder", "dangling", "loop", "to_pipe", "to_zero", "socket", "absent", "x" * 300]
    return [*(folder / name for name in names), *map(Path, ("/dev/zero", "/dev/stdin", "/proc/self/status"))]


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    for path in [*odd_files(tmp_path), Path("a\0b")]:
        for read in (read_json, lambda path: read_regular(path, most=1 << 20), open_regular):
            with pytest.raises(UserError) as refusal:
                read(path)
            assert refusal.value.exit_code in (2, 3)
            assert "\n" not in str(refusal.value)
            assert str(path)[:60].split("\0")[0] in str(refusal.value)
    assert time.monotonic() - started < 5


def test_a_file_must_lie_in_its_folder_once_links_are_followed(tmp_path):
    outside = fill(tmp_path / "outside", "secret")
    inside = fill(tmp_path / "inside", "own")
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside)
    (inside / "alias").symlink_to("own")
    assert read_regular(inside / "alias", most=100, inside=inside) == b"mine: own"
    for name in ("link", "folder/secret", "../outside/secret"):
        with pytest.raises(InputError, match="leads out of"):
            read_regular(inside / name, most=100, inside=inside)


def test_a_file_larger_than_allowed_is_not_read(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedFileError, match="more than any file of its kind"):
        read_regular(tmp_path / "sparse", most=1 << 20)


def test_a_log_that_is_a_link_is_not_written_through(tmp_path):
    profile = fill(tmp_path, "profile") / "profile"
    (tmp_path / "train.log").symlink_to(profile)
    with pytest.raises(UserError):
        append(tmp_path / "train.log", "text")
    assert profile.read_text() == "mine: profile"


def test_leftovers_of_dead_writers_are_swept_and_those_of_living_ones_are_not(tmp_path):
    code = (
        "import sys, time, pathlib\n"
        "from chibit.core.files import atomic_folder, replacing\n"
        f"with atomic_folder(pathlib.Path({str(tmp_path)!r}) / 'a') as folder:\n"
        f"    with replacing(pathlib.Path({str(tmp_path)!r}) / 'b') as file:\n"
        "        print(folder, flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        temporary = Path(writer.stdout.readline().strip())
        (tmp_path / ".tmp-notes").write_text("the user's")
        with atomic_folder(tmp_path / "c"):
            pass
        assert temporary.exists()
        assert len(list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))) == 2
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert temporary.exists()
    with atomic_folder(tmp_path / "d"):
        pass
    assert not list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))
    assert (tmp_path / ".tmp-notes").exists()


ODD = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("absent"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to /proc": lambda path: path.symlink_to("/proc/self/environ"),
}


@pytest.mark.parametrize("odd", ODD)
def test_commands_refuse_what_is_no_file_at_once(place, odd, capsys):
    def made(name):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        ODD[odd](place / name)
        return place / name

    np.savez(place / "good.npz", **steps())
    run = made("run/config.json").parent
    minari = made("minari/data/main_data.hdf5").parents[1]
    (minari / "data" / "metadata.json").write_text("{}")
    model = made("model/config.json").parent
    data = ["--data", place / "good.npz", "--out", place / "out"]
    started = time.monotonic()
    for arguments in (
        *(["data", "inspect", made(f"data.{suffix}")] for suffix in ("npz", "hdf5", "pkl")),
        ["data", "inspect", minari],
        ["train", "--config", made("settings.json")],
        ["train", *data[:2], "--out", run],
        ["train", *data, "--initializer", f"hf:{model}"],
        ["train", *data, "--initializer", model],
        ["pretrain", "--corpus", made("text.txt"), "--out", place / "out"],
        *([verb, run] for verb in ("evaluate", "export", "report", "show")),
    ):
        capsys.readouterr()
        assert main([*map(str, arguments)]) in (2, 3), arguments
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("converting ")]
        assert len(lines) == 1, lines
    assert time.monotonic() - started < 30


def test_an_evaluation_replaces_no_file_of_somebody_elses(place, capsys):
    thesis = fill(place, "thesis.json") / "thesis.json"
    (place / "mine.json").write_text('{"run": 1}')
    for path in (thesis, place / "mine.json"):
        before = path.read_bytes()
        assert main(["evaluate", str(place / "run"), "--out", str(path)]) == 2
        assert "was not written by this command" in capsys.readouterr().err
        assert path.read_bytes() == before


OURS = {
    "a run": ("run", lambda f: [r(RunDir(f)) for r in READ]),
    "a checkpoint": ("run", lambda f: load_checkpoint(RunDir(f).checkpoints, 8)),
    "a store": ("store", lambda f: open_store(f, verify="hash")),
    "a policy": ("policy", Policy.from_pretrained),
}
LINKED = {
    "a run": ["config.json", "result.json", "evaluations.jsonl"],
    "a checkpoint": [
        *("checkpoints", "checkpoints/0000000008", "checkpoints/0000000008/manifest.json"),
        *("checkpoints/0000000008/training_state.pt", "checkpoints/0000000008/model.safetensors"),
    ],
    "a store": ["manifest.json", "records.npy", "episode_starts.npy"],
    "a policy": ["config.json", "model.safetensors"],
}
READ = (RunDir.description, RunDir.result, lambda run: run.read_log("evaluations.jsonl"))


@pytest.mark.parametrize(("thing", "name"), [(thing, name) for thing in LINKED for name in LINKED[thing]])
def test_nothing_is_read_through_a_link_out_of_what_is_ours(tmp_path, thing, name):
    folder, read = OURS[thing]
    place = tmp_path / "place"
    shutil.copytree(WRITTEN / folder, place)
    read(place)
    (place / name).rename(tmp_path / "outside")
    (place / name).symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of"):
        read(place)


@pytest.mark.parametrize("thing", OURS)
def test_what_is_ours_is_read_where_the_whole_of_it_is_a_link(tmp_path, thing):
    folder, read = OURS[thing]
    (tmp_path / "place").symlink_to(WRITTEN / folder)
    assert read(tmp_path / "place") is not None


def test_a_policy_in_the_cache_of_the_hub_is_read_and_leads_no_further(tmp_path):
    repository = tmp_path / "models--somebody--policy"
    snapshot = repository / "snapshots" / "0123abcd"
    shutil.copytree(WRITTEN / "policy", snapshot)
    (repository / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).rename(repository / "blobs" / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    Policy.from_pretrained(snapshot)
    (repository / "blobs" / "config.json").rename(tmp_path / "config.json")
    (repository / "blobs" / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(InputError, match="leads out of"):
        Policy.from_pretrained(snapshot)


@pytest.mark.parametrize(
    ("command", "name"),
    [(["export", "--no-video"], "policy"), (["attention", "--num-windows", "2"], "attention")],
)
def test_a_run_is_not_written_into_through_a_link_out_of_it(tmp_path, monkeypatch, capfd, command, name):
    shutil.copytree(WRITTEN, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    outside = fill(tmp_path / "outside", "mine")
    shutil.rmtree(Path("run", name), ignore_errors=True)
    Path("run", name).symlink_to(outside)
    assert main([command[0], "run", *command[1:]]) == 2
    assert "leads out of" in capfd.readouterr().err
    assert [path.name for path in outside.iterdir()] == ["mine"]


def test_what_the_earlier_version_left_beside_a_collection_goes_after_a_day(tmp_path):
    def leave(name, *files, days):
        folder = fill(tmp_path / name, *files)
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (time.time() - 86_400 * days,) * 2)
        return folder

    known = ("data/main_data.hdf5", "data/metadata.json")
    leave(".tmp-medium-v0-ab12_z9q", *known, days=2)
    stay = {
        leave(".tmp-medium-v0-ab12_z9r", *known, days=0.5),
        leave(".tmp-medium-v0-ab12_z9s", *known, "notes.txt", days=2),
        leave(".tmp-medium-v0-mine", *known, days=2),
        leave(".tmp-expert-v0-ab12_z9t", *known, days=2),
    }
    sweep_unlocked(tmp_path / "medium-v0", ("data", *known))
    assert set(tmp_path.iterdir()) == stay
