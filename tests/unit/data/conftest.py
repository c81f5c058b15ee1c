"""Real episodes from real environments, and the files that their users would have made of them."""

import pickle
import warnings

import h5py
import numpy as np
import pytest

from chibit.environments.make import make_env


def roll_out(env_id, num_episodes, seed=0, max_episode_steps=None):
    """Episodes with random actions: a list of dictionaries, with one observation more than actions."""
    env = make_env(env_id, max_episode_steps=max_episode_steps)
    env.action_space.seed(seed)
    episodes = []
    for index in range(num_episodes):
        observations = [env.reset(seed=seed + index)[0]]
        steps = []
        while not steps or not (steps[-1][2] or steps[-1][3]):
            action = env.action_space.sample()
            observation, *step, _ = env.step(action)
            observations.append(observation)
            steps.append((action, *step))
        actions, rewards, terminations, truncations = (
            np.array(column) for column in zip(*steps, strict=True)
        )
        episodes.append(
            {
                "observations": np.array(observations),
                "actions": actions,
                "rewards": rewards,
                "terminations": terminations,
                "truncations": truncations,
            }
        )
    env.close()
    return episodes


@pytest.fixture(scope="session")
def hopper_episodes():
    """Eight episodes of Hopper-v5 with random actions; the limit of 25 steps cuts some and not others."""
    episodes = roll_out("Hopper-v5", 8, max_episode_steps=25)
    ends = {(bool(e["terminations"][-1]), bool(e["truncations"][-1])) for e in episodes}
    assert ends >= {(True, False), (False, True)}
    return episodes


@pytest.fixture(scope="session")
def cartpole_episodes():
    return roll_out("CartPole-v1", 5)


@pytest.fixture(scope="session")
def pendulum_episodes():
    return roll_out("Pendulum-v1", 3)


def flat_columns(episodes):
    """The episodes end to end, under the names that D4RL gives to columns."""
    join = np.concatenate
    return {
        "observations": join([e["observations"][:-1] for e in episodes]).astype(np.float32),
        "next_observations": join([e["observations"][1:] for e in episodes]).astype(np.float32),
        "actions": join([e["actions"] for e in episodes]),
        "rewards": join([e["rewards"] for e in episodes]).astype(np.float32),
        "terminals": join([e["terminations"] for e in episodes]),
        "timeouts": join([e["truncations"] for e in episodes]),
    }


@pytest.fixture
def hopper_columns(hopper_episodes):
    return flat_columns(hopper_episodes)


@pytest.fixture
def to_columns():
    return flat_columns


@pytest.fixture
def write_hdf5(tmp_path):
    """Write columns in D4RL's layout."""

    def write(columns, name="hopper_medium-v2.hdf5", **options):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, column in columns.items():
                file.create_dataset(key, data=column, **options)
            file.create_dataset("metadata/algorithm", data="SAC")
        return path

    return write


@pytest.fixture
def write_pickle(tmp_path):
    """Write episodes as Decision Transformer repositories do."""

    def write(episodes, name="hopper-medium-v2.pkl", protocol=4, with_next=True):
        trajectories = []
        for episode in episodes:
            trajectory = {
                "observations": episode["observations"][:-1].astype(np.float32),
                "next_observations": episode["observations"][1:].astype(np.float32),
                "actions": episode["actions"],
                "rewards": episode["rewards"].astype(np.float32),
                "terminals": episode["terminations"],
            }
            if not with_next:
                del trajectory["next_observations"]
            trajectories.append(trajectory)
        path = tmp_path / name
        path.write_bytes(pickle.dumps(trajectories, protocol=protocol))
        return path

    return write


@pytest.fixture
def write_minari(tmp_path, monkeypatch):
    """Write a Minari data set with Minari itself."""

    def write(episodes, env_id="Hopper-v5", dataset_id="test/hopper/random-v0", **metadata):
        from minari import create_dataset_from_buffers
        from minari.data_collector import EpisodeBuffer

        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
        buffers = [EpisodeBuffer(**{"infos": {}, **episode}) for episode in episodes]
        spaces = {key: metadata.pop(key) for key in ("observation_space", "action_space") if key in metadata}
        env = make_env(env_id) if env_id else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            create_dataset_from_buffers(dataset_id, buffers, env=env, **spaces, **metadata)
        return tmp_path / "minari" / dataset_id

    return write


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home for stores and data."""
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    return tmp_path / "home"
