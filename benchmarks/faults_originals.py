"""Whole originals of everything that the campaigns spoil, small enough that most of their bytes matter."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import transformers
from faults_kills import small_run, write_data

from chibit.agents import AGENTS, make_agent
from chibit.cli import main
from chibit.core.runtime import Runtime
from chibit.data.load import load_dataset
from chibit.data.readers.dqn_replay import shard_path
from chibit.models.gpt import GPTConfig, GPTShape
from chibit.models.language_model import LanguageModel, LanguageModelConfig, save_language_model
from chibit.policy.policy import PolicyScore, export_policy
from chibit.training.offline import train
from chibit.training.run_config import to_record

PRETRAIN = [
    *("--corpus", "markov", "--num-states", "5", "--num-sequences", "20", "--sequence-length", "16"),
    *("--n-layer", "1", "--n-embd", "8", "--n-positions", "8", "--block-length", "8", "--batch-tokens", "16"),
    *("--micro-batch-tokens", "16", "--validation-tokens", "16", "--sample-tokens", "2", "--num-steps", "4"),
    *("--evaluate-every", "2", "--warmup-steps", "1", "--device", "cpu", "--quiet"),
]
"""Flags of a language model's run of a moment."""


def write_originals(folder: Path) -> Path:
    """Data of every format, a finished run and one that was stopped, policies, a language model, a store."""
    folder.mkdir()
    _write_hdf5(folder / "halfcheetah.hdf5")
    _write_minari(folder / "minari")
    _write_pendulum(folder / "pendulum.npz")
    _write_shards(folder / "shards")
    data = write_data(folder / "cartpole.npz")
    config = small_run(data)
    (folder / "config.json").write_text(json.dumps(to_record(config)))
    train(config, folder / "run", progress=False)
    _add_media(folder / "run")
    shutil.copytree(folder / "run", folder / "stopped")
    (folder / "stopped" / "result.json").unlink()
    shutil.rmtree(folder / "stopped" / "checkpoints" / f"{config.num_steps:010d}")
    gpt = GPTConfig(n_layer=1, n_head=1, n_embd=4)
    language_model = LanguageModel(LanguageModelConfig(vocab_size=5, n_positions=4, gpt=gpt))
    save_language_model(language_model, folder / "model")
    shutil.copytree(load_dataset(data, progress=False).folder, folder / "store")
    for agent, name in (("dt", "cartpole"), ("td3_bc", "pendulum"), ("discrete_bc", "cartpole")):
        _write_policy(folder / f"policy-{agent}", agent, folder / f"{name}.npz")
    main(["pretrain", *PRETRAIN, "--out", str(folder / "pretrained")])
    transformers.GPT2Config(
        n_layer=1, n_head=1, n_embd=8, n_positions=32, vocab_size=5, bos_token_id=0, eos_token_id=0
    ).save_pretrained(folder / "gpt2")
    _write_policy(
        folder / "policy-hf", "dt", folder / "cartpole.npz", initializer=f"hf_config:{folder / 'gpt2'}"
    )
    return folder


def _columns() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "observations": generator.normal(size=(30, 3)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (30, 2)).astype(np.float32),
        "rewards": generator.normal(size=30).astype(np.float32),
        "terminals": np.zeros(30, bool),
        "timeouts": np.arange(30) % 10 == 9,
    }


def _write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, column in _columns().items():
            file.create_dataset(name, data=column, compression="gzip", chunks=column.shape)


def _write_pendulum(path: Path) -> None:
    columns = _columns()
    np.savez(
        path,
        env_id="Pendulum-v1",
        observations=columns["observations"],
        actions=columns["actions"][:, :1],
        rewards=columns["rewards"],
        terminations=columns["terminals"],
        truncations=columns["timeouts"],
    )


def _write_minari(folder: Path) -> None:
    """A set whose metadata ask for a command to be run; mutants ask for it in other places."""
    columns = _columns()
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for index in range(3):
            rows, group = slice(10 * index, 10 * index + 10), file.create_group(f"episode_{index}")
            seen = columns["observations"][rows]
            group["observations"] = np.concatenate([seen, seen[-1:]])
            group["actions"], group["rewards"] = columns["actions"][rows], columns["rewards"][rows]
            group["terminations"] = columns["terminals"][rows]
            group["truncations"] = columns["timeouts"][rows]
    command = {"command": "touch executed"}
    spec = {"id": "Strange-v0", "entry_point": "os:system", "kwargs": command, "max_episode_steps": 10}
    space = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]}
    metadata = {
        "dataset_id": "a/b-v0", "env_spec": json.dumps(spec), "action_space": json.dumps(space),
        "observation_space": json.dumps(space), "total_episodes": 3, "total_steps": 30,
        "data_format": "hdf5", "minari_version": "0.5.3", "requirements": ["mujoco==3.2.3"],
    }  # fmt: skip
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))


def _write_shards(folder: Path) -> None:
    """One buffer of DQN-replay: two short games, three black pictures before each."""
    folder.mkdir()
    number = 40
    terminal = np.zeros(number, np.uint8)
    terminal[[19, 39]] = 1
    columns: dict[str, Any] = {
        "observation": np.random.default_rng(0).integers(0, 255, (number, 84, 84)).astype(np.uint8),
        "action": np.arange(number, dtype=np.int32) % 4,
        "reward": np.ones(number, np.float32),
        "terminal": terminal,
        "add_count": np.array(number),
    }
    for kind, values in columns.items():
        buffer = io.BytesIO()
        np.save(buffer, values)
        shard_path(folder, kind, 0).write_bytes(gzip.compress(buffer.getvalue(), 1))


def _add_media(run: Path) -> None:
    (run / "attention").mkdir()
    weights = np.full((1, 12, 12), 1 / 12, np.float32)
    np.savez(
        run / "attention" / "maps.npz",
        raw=weights, sharpened=weights, layers=np.array([0]), num_layers=np.array(1),
        temperature=np.array(0.1),
    )  # fmt: skip
    (run / "videos").mkdir()
    (run / "videos" / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))


def _write_policy(folder: Path, agent: str, data: Path, **settings: Any) -> None:
    spec = load_dataset(data, progress=False).spec
    small: dict[str, Any] = {"context_length": 3, "gpt": GPTShape(n_layer=1, n_embd=8)} | settings
    if agent != "dt":
        small = {"hidden_sizes": (8,)}
    elif "initializer" in small:
        small = {"context_length": 3} | settings
    made = make_agent(AGENTS[agent].config(**small), spec, Runtime())
    score = PolicyScore(
        env_id=spec.env_id or "", target_return=20.0 if agent == "dt" else None, num_episodes=3,
        mean_return=1.0, std_return=0.5, normalized_score=None,
    )  # fmt: skip
    export_policy(made, spec, folder, scores=[score])


def surround(work: Path, originals: Path) -> None:
    """Put beside a command what its words may name: data, a run, and things that are no files."""
    for name in ("cartpole.npz", "pendulum.npz"):
        shutil.copy(originals / name, work)
    for name in ("run", "shards"):
        shutil.copytree(originals / name, work / name)
    (work / "text.txt").write_text("some words of text, and some more words of text\n" * 20)
    (work / "folder").mkdir()
    os.mkfifo(work / "pipe")
    for name, target in (
        ("link-to-pipe", "pipe"),
        ("zero", "/dev/zero"),
        ("dangling", "nothing"),
        ("loop", "loop"),
    ):
        (work / name).symlink_to(target)
    here = os.getcwd()
    os.chdir(work)
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("socket")
    finally:
        os.chdir(here)
