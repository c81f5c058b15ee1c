"""Shared by all tests: one thread, a cache of their own, and real data from real environments."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import signal

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import Phase, settings

# Where a failure is all that is asked for, it need not be made small: `make mutants` runs thousands of them.
settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None)
# No test is timed: a busy machine is no fault of the code.
settings.register_profile("usual", deadline=None)
settings.load_profile("usual")

# A shell that starts the tests in the background has them ignore Ctrl-C, nohup a closed terminal, and every
# process they start does as they do.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

collect_ignore = ["device"]  # has a process of its own: unit/test_device.py


@pytest.fixture(autouse=True)
def _plain_logger():
    """The command line routes warnings to standard error for good; a test begins without what others left."""
    log = logging.getLogger("chibit")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_their_own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    os.environ["CHIBIT_HOME"] = str(folder / "chibit")
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")


def play(env_id, num_episodes, seed, **kwargs):
    """Columns of real episodes with random actions, in the layout of `chibit.from_arrays`."""
    env = gym.make(env_id, **kwargs)
    env.action_space.seed(seed)
    columns = {name: [] for name in ("observations", "actions", "rewards", "terminations", "truncations")}
    columns["next_observations"] = []
    for episode in range(num_episodes):
        observation, _ = env.reset(seed=seed + episode)
        done = False
        while not done:
            action = env.action_space.sample()
            following, reward, terminated, truncated, _ = env.step(action)
            row = (observation, action, reward, terminated, truncated, following)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
            observation, done = following, terminated or truncated
    env.close()
    return {name: np.array(values) for name, values in columns.items()}


@pytest.fixture(scope="session")
def pendulum_file(tmp_path_factory):
    """An .npz file with six episodes of Pendulum-v1 of 60 steps."""
    path = tmp_path_factory.mktemp("data") / "pendulum.npz"
    np.savez(path, env_id="Pendulum-v1", **play("Pendulum-v1", 6, seed=0, max_episode_steps=60))
    return path
