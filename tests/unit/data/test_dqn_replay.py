"""Shards of DQN-replay's format, written from real play, and everything that may be wrong with them."""

import gzip

import numpy as np
import pytest

from atari_toys import padded_rows, play_games, write_shard, write_shards
from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.data.load import load_dataset
from chibit.data.readers import dqn_replay as atari_replay
from chibit.data.readers.dqn_replay import convert_replay, find_or_download, shard_path


@pytest.fixture(scope="module")
def games():
    """Six whole games, and one that is not over."""
    whole = play_games("BreakoutNoFrameskip-v4", range(6))
    return [*whole, *play_games("BreakoutNoFrameskip-v4", [9], max_steps=25)]


@pytest.fixture
def shards(games, tmp_path):
    """Two buffers: three games, then the rest of one, two games, and the beginning of one."""
    folder = tmp_path / "Breakout" / "1" / "replay_logs"
    write_shards(folder, 0, padded_rows(games[:3]))
    rest = {kind: values[40:] for kind, values in padded_rows(games[3:4]).items()}
    later = padded_rows(games[4:])
    write_shards(folder, 1, {kind: np.concatenate([rest[kind], later[kind]]) for kind in later})
    return folder


def convert(shards, **options):
    return load_dataset(
        convert_replay(shards, "Breakout", shards.parent / "store", progress=False, **options)
    )


def test_whole_games_are_taken_without_their_padding(shards, games):
    dataset = convert(shards)
    expected = [*games[:3], *games[4:6]]
    assert dataset.episode_lengths.tolist() == [len(game.actions) for game in expected]
    np.testing.assert_array_equal(dataset.frames, np.concatenate([game.frames for game in expected]))
    np.testing.assert_array_equal(dataset.actions, np.concatenate([game.actions for game in expected]))
    np.testing.assert_array_equal(dataset.episode_returns, [game.rewards.sum() for game in expected])
    assert dataset.terminations.sum() == 5 and not dataset.truncations.any()
    assert dataset.spec.default_target_returns == (90.0,) and dataset.spec.max_episode_steps == 27_000
    assert dataset.timesteps[dataset.episode_starts[:-1]].tolist() == [0] * 5
    assert any("500,000 were asked for" in note for note in dataset.notes)


def test_a_smaller_fraction_is_drawn_by_the_seed(shards, monkeypatch):
    monkeypatch.setattr(atari_replay, "EPISODES_PER_VISIT", 1)
    one = convert(shards, num_steps=1, seed=3)
    assert one.num_episodes == 1
    again = load_dataset(
        convert_replay(shards, "Breakout", shards.parent / "b", num_steps=1, seed=3, progress=False)
    )
    assert again.frames.tobytes() == one.frames.tobytes()
    firsts = set()
    for seed in range(6):
        out = shards.parent / f"seed{seed}"
        firsts.add(
            int(
                load_dataset(
                    convert_replay(shards, "Breakout", out, num_steps=1, seed=seed, progress=False)
                ).num_steps
            )
        )
    assert len(firsts) == 2, "both buffers are visited"


def test_a_visit_takes_the_next_games_of_its_buffer(games, monkeypatch):
    monkeypatch.setattr(atari_replay, "EPISODES_PER_VISIT", 2)
    buffers = [atari_replay._Buffer(None, 0, [(i * 10, i * 10 + 10) for i in range(5)])]
    chosen = atari_replay._draw(buffers, 30, np.random.default_rng(0))
    assert chosen == [[(0, 10), (10, 20), (20, 30), (30, 40)]]
    assert atari_replay._draw(buffers, 10**6, np.random.default_rng(0)) == [buffers[0].episodes]


def test_a_buffer_that_was_never_filled_ends_at_its_count(shards, games):
    first = len(padded_rows(games[:1])["terminal"])
    write_shard(shard_path(shards, "add_count", 0), np.array(first + 5))
    dataset = convert(shards)
    assert dataset.episode_lengths.tolist() == [len(games[i].actions) for i in (0, 4, 5)]


def test_a_buffer_written_around_its_end_is_cut_at_the_seam(shards, games):
    lengths = [len(padded_rows([game])["terminal"]) for game in games[:3]]
    write_shard(shard_path(shards, "add_count", 0), np.array(sum(lengths) + lengths[0] + 7))
    dataset = convert(shards)
    # The first game's beginning is at the end of the buffer; the seam is in the second.
    assert dataset.episode_lengths.tolist() == [len(games[i].actions) for i in (2, 4, 5)]


def test_shards_without_a_count_are_whole(shards):
    shard_path(shards, "add_count", 0).unlink()
    assert convert(shards).num_episodes == 5


@pytest.mark.parametrize("rows", [20, 0])
def test_a_buffer_in_which_no_game_ends_has_none(tmp_path, rows):
    columns = {
        "observation": np.zeros((rows, 84, 84), np.uint8),
        "action": np.zeros(rows, np.int32),
        "reward": np.zeros(rows, np.float32),
        "terminal": np.zeros(rows, np.uint8),
    }
    write_shards(tmp_path / "shards", 0, columns, add_count=30)
    with pytest.raises(InputError, match="no whole episode; give more data"):
        convert_replay(tmp_path / "shards", "Breakout", tmp_path / "store", progress=False)


def refused(shards, error, match, game="Breakout"):
    out = shards.parent / "store"
    with pytest.raises(error, match=match) as caught:
        convert_replay(shards, game, out, progress=False)
    assert "\n" not in str(caught.value)
    assert {path.name for path in shards.parent.iterdir()} == {"replay_logs"}, "nothing is left behind"


def test_a_missing_shard_is_named(shards):
    shard_path(shards, "reward", 1).unlink()
    refused(shards, InputError, r"reward_ckpt\.1\.gz: missing shard")


def test_a_missing_buffer_is_named(shards, games):
    write_shards(shards, 3, padded_rows(games[:1]))
    refused(shards, InputError, r"observation_ckpt\.2\.gz: missing shard")


@pytest.mark.parametrize("kind", ["observation", "terminal"])
def test_a_truncated_gzip_is_named(shards, kind):
    path = shard_path(shards, kind, 1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(shards, DamagedFileError, rf"{kind}_ckpt\.1\.gz: damaged gzipped file .*download it again")


def test_what_is_no_gzip_or_another_array_is_named(shards, games):
    path = shard_path(shards, "action", 0)
    path.write_bytes(b"not a gzip file")
    refused(shards, DamagedFileError, r"action_ckpt\.0\.gz: damaged gzipped file")
    write_shard(path, np.zeros((4, 3), np.int32))
    refused(shards, DamagedFileError, r"expected rows of shape \(\); is it a shard of actions\?")
    path.write_bytes(gzip.compress(b"no array"))
    refused(shards, DamagedFileError, r"action_ckpt\.0\.gz: damaged gzipped file")


def test_shards_of_unlike_length_are_refused(shards, games):
    write_shard(shard_path(shards, "action", 0), padded_rows(games[:2])["action"])
    refused(
        shards, DamagedFileError, r"action_ckpt\.0\.gz: \d+ rows, but the terminal shard of buffer 0 has \d+"
    )


def test_pictures_of_another_size_are_refused(shards, games):
    rows = len(padded_rows(games[:3])["terminal"])
    write_shard(shard_path(shards, "observation", 0), np.zeros((rows, 42, 42), np.uint8))
    refused(shards, DamagedFileError, r"expected rows of shape \(84, 84\)")


def test_another_games_actions_are_refused(shards, games):
    columns = padded_rows(games[:3])
    columns["action"][10] = 5
    write_shards(shards, 0, columns)
    refused(shards, InputError, "is 5, expected 0 to 3")


def test_no_shards_no_folder_and_an_unknown_game_are_refused(shards, tmp_path):
    empty = tmp_path / "empty" / "replay_logs"
    empty.mkdir(parents=True)
    refused(empty, InputError, "no shards of DQN-replay")
    with pytest.raises(InputError, match="no such folder"):
        convert_replay(tmp_path / "nowhere", "Breakout", tmp_path / "store")
    refused(shards, InputError, "game 'Tetris'", game="Tetris")


def test_a_full_disk_is_refused_before_anything_is_read(shards, monkeypatch):
    import shutil
    from collections import namedtuple

    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1000))
    refused(shards, ResourceError, "free some space")


def test_a_name_finds_the_shards_and_a_fraction(games, tmp_path, monkeypatch):
    monkeypatch.setattr(atari_replay, "NUM_BUFFERS", 1)
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    write_shards(tmp_path / "dqn" / "Breakout" / "1" / "replay_logs", 0, padded_rows(games[:2]))
    dataset = load_dataset("Breakout-0.5pct", data_folder=tmp_path / "dqn", download=False, progress=False)
    assert dataset.num_episodes == 2 and dataset.provenance["num_steps"] == 250_000
    assert load_dataset("Breakout-0.5pct", download=False).content_hash == dataset.content_hash
    with pytest.raises(InputError, match="missing shard"):
        load_dataset("Pong", data_folder=tmp_path / "dqn", download=False)


def test_replaced_shards_are_noticed_and_those_that_are_gone_are_not_missed(games, tmp_path, monkeypatch):
    monkeypatch.setattr(atari_replay, "NUM_BUFFERS", 1)
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    shards = tmp_path / "home" / "dqn_replay" / "Breakout" / "1" / "replay_logs"

    def load():
        return load_dataset("Breakout-0.5pct", download=False, progress=False)

    write_shards(shards, 0, padded_rows(games[:2]))
    first = load()
    written = (first.folder / "manifest.json").stat()
    assert load().content_hash == first.content_hash
    assert (first.folder / "manifest.json").stat().st_ino == written.st_ino  # not converted anew
    write_shards(shards, 0, padded_rows(games[1:3]))
    second = load()
    assert second.content_hash != first.content_hash
    for path in shards.iterdir():
        path.unlink()
    assert load().content_hash == second.content_hash


def test_a_folder_of_shards_names_the_command_that_converts_it(shards):
    with pytest.raises(InputError, match="chibit data convert"):
        load_dataset(shards)


def test_shards_are_fetched_from_a_server_and_kept(shards, tmp_path, monkeypatch):
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    monkeypatch.setattr(atari_replay, "NUM_BUFFERS", 2)
    root = shards.parents[2]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(atari_replay, "_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        folder = find_or_download("Breakout", tmp_path / "fetched", progress=False)
    finally:
        server.shutdown()
        server.server_close()
    fetched = {path.name: path.read_bytes() for path in folder.glob("*.gz")}
    assert fetched == {path.name: path.read_bytes() for path in shards.glob("*.gz")} and len(fetched) == 10
