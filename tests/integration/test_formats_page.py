"""The table of docs/formats.md: every command trains, and the run evaluates where it can and exports."""

import json
import pickle
import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chibit import Policy
from chibit.cli import main
from chibit.environments.d4rl import D4RL_SETS
from log_files import neorl, write_demos, write_lerobot, write_ogbench

ROOT = Path(__file__).parents[2]
ROWS = re.findall(
    r"^\| ([^|]+) \|[^|]+\| `(chibit train [^`]+)` \|$", (ROOT / "docs/formats.md").read_text(), re.M
)
STEPS = 60
TINY = {
    "dt": "--initializer random --n-layer 1 --n-embd 32 --context-length 4",
    "bc": "",
    "discrete_bc": "",
}


def log(state=3, actions=2, discrete=0, episode=20):
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(STEPS, state)).astype(np.float32),
        "actions": rng.integers(0, discrete, STEPS) if discrete else rng.uniform(-1, 1, (STEPS, actions)),
        "rewards": rng.normal(size=STEPS),
        "terminals": np.arange(STEPS) % episode == episode - 1,
    }


def write_hdf5(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column


def d4rl(name, state, actions, **more):
    write_hdf5(Path("d4rl") / f"{D4RL_SETS[name].stem}.hdf5", {**log(state, actions), **more})


def csv(path):
    columns = {"level": 0.0, "temp": 1.0, "valve": 0.5, "r": 2.0}
    rows = [",".join([*columns, "batch"])]
    for step in range(STEPS):
        rows.append(",".join([*(str(value + step % 7) for value in columns.values()), f"b{step // 20}"]))
    Path(path).write_text("\n".join(rows) + "\n")


def parquet_folder():
    Path("plant").mkdir()
    for number in range(3):
        columns = {name: list(column[:20]) for name, column in log().items() if name != "terminals"}
        pq.write_table(pa.table(columns), f"plant/{number}.parquet")


def json_lines():
    columns = log(discrete=3)
    names = {"obs": "observations", "action": "actions", "reward": "rewards", "done": "terminals"}
    lines = [
        json.dumps({name: columns[ours][step].tolist() for name, ours in names.items()})
        for step in range(STEPS)
    ]
    Path("log.jsonl").write_text("\n".join(lines))


def npz():
    columns = {"obs": log()["observations"], "temp": np.ones(STEPS), "valve": np.arange(STEPS) / STEPS}
    np.savez("log.npz", **columns, r=np.ones(STEPS), batch=np.arange(STEPS) // 20)


def trajectories():
    columns = log(11, 3)
    parts = [{name: column[at : at + 20] for name, column in columns.items()} for at in (0, 20, 40)]
    Path("hopper-medium-v2.pkl").write_bytes(pickle.dumps(parts))


def minari_set(name, observations, space, actions, num_actions, env=None):
    from minari import create_dataset_from_buffers
    from minari.data_collector import EpisodeBuffer

    ends = np.arange(10) == 9
    buffers = [
        EpisodeBuffer(
            observations=observations,
            actions=actions,
            rewards=np.ones(10),
            terminations=ends,
            truncations=ends & False,
            infos={},
        )
        for _ in range(4)
    ]
    spaces = {} if env else {"observation_space": space, "action_space": gym.spaces.Discrete(num_actions)}
    create_dataset_from_buffers(name, buffers, env=env and gym.make(env), **spaces)


def cartpole():
    seen = np.random.default_rng(0).uniform(-0.05, 0.05, (11, 4)).astype(np.float32)
    minari_set("test/cartpole-v0", seen, None, np.arange(10) % 2, 2, env="CartPole-v1")


def minari_pictures():
    seen = np.random.default_rng(0).integers(0, 256, (11, 40, 40), dtype=np.uint8)
    minari_set("test/pictures-v0", seen, gym.spaces.Box(0, 255, (40, 40), np.uint8), np.arange(10) % 3, 3)


def missions():
    parts = {"direction": gym.spaces.Discrete(4), "image": gym.spaces.Box(0, 255, (7, 7, 3), np.uint8)}
    space = gym.spaces.Dict({**parts, "mission": gym.spaces.Text(32)})
    grid = np.random.default_rng(0).integers(0, 10, (11, 7, 7, 3), dtype=np.uint8)
    seen = {"direction": np.arange(11) % 4, "image": grid, "mission": ["go to the red ball"] * 11}
    minari_set("test/missions-v0", seen, space, np.arange(10) % 7, 7)


def own_store():
    json_lines()
    assert main(["data", "convert", "log.jsonl", "--out", "my-store"]) == 0


def maze(name, state, actions):
    goal = np.repeat([[0, 0], [1, 1], [2, 2]], 20, axis=0).astype(np.float32)
    none = np.zeros(STEPS, bool)
    d4rl(name, state, actions, **{"infos/goal": goal, "terminals": none, "timeouts": none})


FILES = {
    "CSV, TSV": lambda: csv("log.csv"),
    "Parquet": parquet_folder,
    "JSON lines": json_lines,
    "`.npz`": npz,
    "pickle": trajectories,
    "D4RL, locomotion": lambda: write_hdf5(Path("hopper_medium-v2.hdf5"), log(11, 3)),
    "D4RL, AntMaze": lambda: maze("antmaze-umaze-v2", 29, 8),
    "D4RL, Maze2d": lambda: maze("maze2d-large-v1", 4, 2),
    "D4RL, Adroit": lambda: d4rl("door-human-v1", 39, 28),
    "D4RL, Kitchen": lambda: d4rl("kitchen-mixed-v0", 60, 9),
    "robomimic": lambda: write_demos(Path("lift.hdf5")),
    "d3rlpy": lambda: shutil.copy(ROOT / "tests/unit/data/files/d3rlpy_2_8_1.h5", "dump.h5"),
    "OGBench": lambda: [
        write_ogbench(f"pointmaze-medium-navigate-v0{end}.npz", walks)
        for end, walks in (("", 4), ("-val", 2))
    ],
    "NeoRL, NeoRL-2": lambda: [
        np.savez(f"Pipeline-{part}.npz", **neorl(steps, truncated=np.arange(steps) % 30 == 29))
        for part, steps in (("train", 90), ("val", 60))
    ],
    "LeRobot 2 and 3": lambda: write_lerobot(Path("pusht"), "v3.0"),
    "Minari": cartpole,
    "Minari, pictures": minari_pictures,
    "Minari, texts": missions,
    "a store": own_store,
}
SLOW = {"pickle", "D4RL, locomotion", "D4RL, Maze2d", "D4RL, Kitchen", "Parquet", "a store"}
"""Whose likes are tested by the others and elsewhere."""
EVALUATED = {"pickle", "D4RL, locomotion", "Minari"}
if find_spec("gymnasium_robotics"):
    EVALUATED.add("D4RL, Adroit")
"""Formats whose files here are of an environment that can be played."""


def test_every_row_has_a_command_and_every_format_a_row():
    assert [name for name, _ in ROWS] == [*list(FILES)[:-1], "DQN-replay", "a store"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "command"),
    [
        pytest.param(name, command, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, command in ROWS
        if name in FILES
    ],
)
def test_a_format_trains_evaluates_and_exports_from_a_fresh_folder(
    name, command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    FILES[name]()
    words = shlex.split(command)[1:]
    agent = words[words.index("--agent") + 1] if "--agent" in words else "dt"
    quick = f"--num-steps 2 --batch-size 4 --num-episodes 1 --device cpu --quiet --out run {TINY[agent]}"
    assert main([*words, *shlex.split(quick)]) == 0, capsys.readouterr().err
    evaluations = Path("run/evaluations.jsonl")
    is_evaluated = evaluations.exists() and evaluations.stat().st_size > 0
    assert is_evaluated == (name in EVALUATED)
    if is_evaluated:
        assert main(["evaluate", "run", "--num-episodes", "1"]) == 0
    assert main(["export", "run", "--out", "policy"]) == 0
    policy = Policy.from_pretrained("policy")
    policy.reset()
    shape = policy.spec.observation_shape
    assert np.isfinite(policy.act(np.zeros(shape, np.uint8 if len(shape) > 1 else np.float32))).all()
