"""Real Atari play for tests: short games, an actor with random weights, and shards as DQN-replay has them."""

import gzip
import io

import numpy as np
import torch
from safetensors.torch import save_file

from chibit.data.frame_store import FrameEpisode, write_frame_store
from chibit.data.readers.dqn_replay import shard_path
from chibit.data.readers.origin import Origin
from chibit.data.store import open_store
from chibit.environments.atari import AtariEnv


def play_game(env, seed, *, max_steps=10_000):
    """One game with random actions, in the form that stores and shards are made of."""
    generator = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    frames, actions, rewards, over = [], [], [], False
    while not over and len(frames) < max_steps:
        action = int(generator.integers(env.action_space.n))
        frames.append(observation[-1])
        actions.append(action)
        observation, reward, over, _, _ = env.step(action)
        rewards.append(reward)
    return FrameEpisode(
        frames=np.stack(frames), actions=np.array(actions), rewards=np.array(rewards), terminated=over
    )


def play_games(env_id, seeds, **options):
    env = AtariEnv(env_id)
    return [play_game(env, seed, **options) for seed in seeds]


def numbered_pictures(folder, lengths):
    """A data set of pictures that show the number of their row from 1, in episodes that terminate."""
    first = np.cumsum([1, *lengths])
    episodes = [
        FrameEpisode(
            frames=np.broadcast_to(
                np.arange(start, start + length, dtype=np.uint8)[:, None, None], (length, 84, 84)
            ),
            actions=np.arange(length) % 4,
            rewards=np.ones(length),
            terminated=True,
        )
        for start, length in zip(first[:-1], lengths, strict=True)
    ]
    origin = Origin(name="Breakout", env_id="BreakoutNoFrameskip-v4", max_episode_steps=100)
    return open_store(write_frame_store(folder, iter(episodes), origin))


def padded_rows(episodes):
    """Columns of a buffer: three black rows before each episode, as Dopamine writes them."""
    columns = {"observation": [], "action": [], "reward": [], "terminal": []}
    for episode in episodes:
        length = len(episode.actions)
        terminal = np.zeros(length, np.uint8)
        terminal[-1] = episode.terminated
        rows = (
            episode.frames,
            episode.actions.astype(np.int32),
            episode.rewards.astype(np.float32),
            terminal,
        )
        for column, values in zip(columns.values(), rows, strict=True):
            column.append(np.zeros((3, *values.shape[1:]), values.dtype))
            column.append(values)
    return {kind: np.concatenate(parts) for kind, parts in columns.items()}


def write_shards(folder, number, columns, add_count=None):
    """One buffer on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    counted = len(columns["terminal"]) if add_count is None else add_count
    for kind, values in {**columns, "add_count": np.array(counted)}.items():
        write_shard(shard_path(folder, kind, number), values)


def write_shard(path, values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    path.write_bytes(gzip.compress(buffer.getvalue(), 1))


def write_actor(path, num_actions, *, seed=0, aliases=False):
    """A small actor with random weights; `aliases` gives it the names and shapes of the ACKTR files."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "conv1": (4, 4, 8, 8),
        "conv2": (8, 4, 4, 4),
        "conv3": (4, 8, 3, 3),
        "linear": (16, 196),
        "actor": (num_actions, 16),
    }
    tensors = {}
    biases = {"conv1": "ab1", "conv2": "ab2", "conv3": "ab3", "linear": "ab_fc1", "actor": "ab_fc3"}
    weights = {"linear": "linear1", "actor": "actor_linear"}
    for name, shape in shapes.items():
        scale = 2.0 / np.sqrt(np.prod(shape[1:]))
        weight, bias = (
            torch.randn(shape, generator=generator) * scale,
            0.1 * torch.randn(shape[0], generator=generator),
        )
        tensors[f"{weights.get(name, name) if aliases else name}.weight"] = weight
        tensors[f"{biases[name] if aliases else name}.bias"] = bias[:, None] if aliases else bias
    save_file(tensors, path)
    return tensors
