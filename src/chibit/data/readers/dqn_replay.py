"""DQN-replay (Agarwal et al., 2020): everything a DQN saw while it learned a game, as gzipped arrays.

A game's folder holds up to 50 buffers, `$store$_<kind>_ckpt.<number>.gz` with kind observation, action,
reward and terminal, each an .npy array of up to a million rows in the order of play, and
`add_count_ckpt.<number>.gz`, how many rows were ever written. Dopamine puts three black rows before each
episode; they are left out here.

The sample is that of Chen et al. (2021): buffers are visited at random, all of them, and a visit takes the
next eleven episodes of a buffer, within its first 100,000 rows, until there are enough steps. What differs is
in docs/deviations.md: episodes whose beginning lies in another buffer are left out.

Dimensions: R rows of a buffer · T steps of an episode.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chibit.core.config import as_field
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.fields import Count, Natural
from chibit.core.fingerprint import content_sample
from chibit.core.home import home_folder
from chibit.core.progress import step_bar
from chibit.data.collect.mujoco import require_space
from chibit.data.fetch import download
from chibit.data.frame_store import FrameEpisode, write_frame_store
from chibit.data.readers.dqn_replay_shards import REMEDY, ROW_SHAPES, open_shard, read_count
from chibit.data.readers.origin import Origin
from chibit.data.store import open_store
from chibit.environments.atari import IMAGE_SHAPE, MAX_EPISODE_STEPS
from chibit.environments.registry import find_game

KINDS = tuple(ROW_SHAPES)
NUM_BUFFERS = 50
"""Buffers of a whole game."""
TOTAL_STEPS = 50_000_000
"""Steps in them."""
ONE_PERCENT = 500_000
"""Steps of the sample of Table 1."""
ROWS_READ = 100_000
"""Rows at the beginning of a buffer from which episodes are taken."""
EPISODES_PER_VISIT = 11
"""Episodes taken at each visit to a buffer."""

_URL = "https://storage.googleapis.com/atari-replay-datasets/dqn"
_PADDING = 3
_SHARD = re.compile(rf"\$store\$_({'|'.join(KINDS)})_ckpt\.(\d+)\.gz")
Span = tuple[int, int]
"""First row of an episode, and one past its last."""


@dataclass(frozen=True)
class _Buffer:
    """One buffer and its episodes within the rows that are read."""

    folder: Path
    number: int
    episodes: list[Span]


def shard_path(folder: Path, kind: str, number: int) -> Path:
    """Path of a shard of a kind in `KINDS`, or of "add_count"."""
    return folder / (
        f"add_count_ckpt.{number}.gz" if kind == "add_count" else f"$store$_{kind}_ckpt.{number}.gz"
    )


def shards_folder(game: str, data_folder: Path | None) -> Path:
    """Where `find_or_download` looks for the shards of a game, and downloads them to."""
    return (data_folder or home_folder() / "dqn_replay") / game / "1" / "replay_logs"


def is_of_shards(store: Path, folder: Path) -> bool:
    """Whether a store was made of the shards that are in a folder; those that are gone are not asked for.

    A store of version 0.1 does not say what it was made of, and is taken to be.
    """
    then, now = open_store(store).provenance.get("shards", {}), _identify(folder)
    return all(then.get(name, digest) == digest for name, digest in now.items())


def _identify(folder: Path) -> dict[str, str]:
    """A hash of a part of each shard's content, by the shard's name."""
    files = sorted(path for path in folder.glob("*_ckpt.*.gz") if path.is_file())
    return {
        path.name: hashlib.sha256(content_sample(path, path.stat().st_size)).hexdigest()[:16]
        for path in files
    }


def find_or_download(
    game: str, data_folder: Path | None, *, allow_download: bool = True, progress: bool = True
) -> Path:
    """Find the shards of a game's first run, and fetch those that are not here.

    Args:
        game: one of `chibit.environments.registry.GAMES`.
        data_folder: where `<game>/1/replay_logs` is looked for and downloaded to; None is a folder of
            `home_folder`.
        allow_download: whether the network may be used.
        progress: show a bar for each file.

    Returns:
        The folder of the shards.

    Raises:
        InputError: if they are not here and must not be fetched.
    """
    folder = shards_folder(game, data_folder)
    for number in range(NUM_BUFFERS):
        for kind in (*KINDS, "add_count"):
            path = shard_path(folder, kind, number)
            if path.is_file():
                continue
            if not allow_download:
                raise InputError(f"{path}: missing shard; download it")
            url = f"{_URL}/{game}/1/replay_logs/{urllib.parse.quote(path.name)}"
            download(url, path, progress=progress)
    return folder


def convert_replay(
    folder: Path,
    game: str,
    out: Path,
    *,
    num_steps: int = ONE_PERCENT,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Draw a sample of a game's buffers and write it as a store.

    Shards are streamed: no more than one episode is in memory.

    Args:
        folder: the shards of one run of one game.
        game: one of `chibit.environments.registry.GAMES`; its name is not in the shards.
        out: the store to write; one that is there stays.
        num_steps: steps to take; the visit that reaches them is the last.
        seed: decides which buffers are visited.
        progress: show a bar.

    Returns:
        `out`.

    Raises:
        InputError: a missing shard, another game's actions, or a number out of range.
    """
    row = find_game(game)
    num_steps, seed = as_field(Count, num_steps, "num_steps"), as_field(Natural, seed, "seed")
    if out.exists():
        return out
    buffers = [_open_buffer(folder, number) for number in _find_buffers(folder)]
    chosen = _draw(buffers, num_steps, np.random.default_rng(seed))
    found = sum(end - start for spans in chosen for start, end in spans)
    notes = [f"{found:,} rows drawn from {len(buffers)} of {NUM_BUFFERS} buffers"]
    if found < num_steps:
        notes.append(
            f"{num_steps:,} were asked for: the first {ROWS_READ:,} rows of the buffers hold no more"
        )
    require_space(out, found, float(np.prod(IMAGE_SHAPE[1:])) + 12.0)
    made_of = {"kind": "dqn_replay", "game": game, "num_steps": num_steps, "seed": seed}
    origin = Origin(
        name=out.name if out.name.startswith(game) else game,
        env_id=row.ids[0],
        max_episode_steps=MAX_EPISODE_STEPS,
        target_returns=row.replay_target_returns,
        provenance={**made_of, "shards": _identify(folder)},
    )
    with step_bar(f"writing {out.name}", progress, found) as advance:
        episodes = (
            episode
            for buffer, spans in zip(buffers, chosen, strict=True)
            for episode in _read_episodes(buffer, spans, advance)
        )
        return write_frame_store(out, episodes, origin, notes=notes)


def _find_buffers(folder: Path) -> list[int]:
    """Numbers of the buffers, each of which must have all its shards."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    matches = [match for path in folder.iterdir() if (match := _SHARD.fullmatch(path.name))]
    if not matches:
        raise InputError(f"{folder}: no shards of DQN-replay ($store$_observation_ckpt.0.gz and so on)")
    present = {(match[1], int(match[2])) for match in matches}
    numbers = list(range(max(number for _, number in present) + 1))
    for number in numbers:
        for kind in KINDS:
            if (kind, number) not in present:
                raise InputError(f"{shard_path(folder, kind, number)}: missing shard; download it")
    return numbers


def _open_buffer(folder: Path, number: int) -> _Buffer:
    """Look for the episodes of a buffer, and check that its shards fit together."""
    lengths = {}
    for kind in KINDS:
        with open_shard(shard_path(folder, kind, number), kind) as shard:
            lengths[kind] = shard.num_rows
    for kind, rows in lengths.items():
        if rows != lengths["terminal"]:
            raise DamagedFileError(
                f"{shard_path(folder, kind, number)}: {rows} rows, but the terminal shard of buffer "
                f"{number} has {lengths['terminal']}; {REMEDY}"
            )
    capacity = lengths["terminal"]
    count = shard_path(folder, "add_count", number)
    written = read_count(count) if count.is_file() else capacity
    terminals = _read_rows(folder, "terminal", number, min(capacity, written, ROWS_READ))
    ends = np.flatnonzero(terminals) + 1
    starts = np.append(0, ends)[:-1]
    # Written around its end, a buffer has its newest row before its oldest.
    is_around = 0 < capacity < written
    seam = written % capacity if is_around else 0
    is_whole = (starts != 0) if number or is_around else np.ones(len(starts), bool)
    if seam:
        is_whole &= (seam < starts) | (seam >= ends)
    # Longer than a game can be: a game that was cut, which no row marks, and the next.
    is_whole &= ends - starts <= MAX_EPISODE_STEPS + _PADDING
    spans = zip(starts[is_whole].tolist(), ends[is_whole].tolist(), strict=True)
    return _Buffer(folder, number, list(spans))


def _draw(buffers: list[_Buffer], num_steps: int, generator: np.random.Generator) -> list[list[Span]]:
    """Visit buffers until there are enough rows, or no more; each is read from its beginning on."""
    chosen: list[list[Span]] = [[] for _ in buffers]
    taken, left = 0, [i for i, buffer in enumerate(buffers) if buffer.episodes]
    while taken < num_steps and left:
        visited = int(generator.integers(len(buffers)))
        if visited not in left:
            continue
        first = len(chosen[visited])
        spans = buffers[visited].episodes[first : first + EPISODES_PER_VISIT]
        chosen[visited] += spans
        taken += sum(end - start for start, end in spans)
        if len(chosen[visited]) == len(buffers[visited].episodes):
            left.remove(visited)
    return chosen


def _read_episodes(
    buffer: _Buffer, spans: list[Span], advance: Callable[[int], None]
) -> Iterator[FrameEpisode]:
    """Stream chosen episodes of a buffer, in order."""
    if not spans:
        return
    actions, rewards = (
        _read_rows(buffer.folder, kind, buffer.number, spans[-1][1]) for kind in ("action", "reward")
    )
    with open_shard(shard_path(buffer.folder, "observation", buffer.number), "observation") as shard:
        position = 0
        for start, end in spans:
            shard.skip(start - position)
            frames = shard.read(end - start)
            position = end
            first = _count_padding(frames, actions[start:end], rewards[start:end])
            if first < end - start:
                yield FrameEpisode(
                    frames=frames[first:],
                    actions=actions[start + first : end],
                    rewards=rewards[start + first : end],
                    terminated=True,
                )
            advance(end - start)


def _count_padding(frames: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> int:
    """How many of the first rows are padding: black, without action and without reward, three at most."""
    for row in range(min(_PADDING, len(frames))):
        if frames[row].any() or actions[row] or rewards[row]:
            return row
    return min(_PADDING, len(frames))


def _read_rows(folder: Path, kind: str, number: int, count: int) -> np.ndarray:
    with open_shard(shard_path(folder, kind, number), kind) as shard:
        return shard.read(count)
