"""Files as strangers send them."""

import h5py
import numpy as np


def steps(number=60, state_dim=3, act_dim=1, episode=20):
    """Columns in D4RL's layout."""
    generator = np.random.default_rng(0)
    return {
        "observations": generator.normal(size=(number, state_dim)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (number, act_dim)).astype(np.float32),
        "rewards": generator.normal(size=number).astype(np.float32),
        "terminals": np.zeros(number, bool),
        "timeouts": np.arange(number) % episode == episode - 1,
    }


def write_h5(path, columns, **options):
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, **options)
    return path
