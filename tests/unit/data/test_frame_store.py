"""Stores of real play: what is read back is what was seen."""

import numpy as np
import pytest

from atari_toys import play_games
from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.data.frame_store import FrameEpisode, write_frame_store
from chibit.data.inspect import describe, render_summary
from chibit.data.load import load_dataset
from chibit.data.readers.origin import Origin
from chibit.data.samplers.transitions import TransitionSampler
from chibit.data.samplers.windows import WindowSampler
from chibit.data.store import open_store
from chibit.environments.atari import AtariEnv

ORIGIN = Origin(name="Breakout", env_id="BreakoutNoFrameskip-v4", max_episode_steps=27_000)


@pytest.fixture(scope="module")
def games():
    return play_games("BreakoutNoFrameskip-v4", [0, 1], max_steps=60) + play_games(
        "BreakoutNoFrameskip-v4", [2]
    )


@pytest.fixture(scope="module")
def dataset(games, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / "breakout"
    return load_dataset(write_frame_store(folder, iter(games), ORIGIN))


def sampler(dataset, **options):
    return WindowSampler(dataset, batch_size=4, generator=np.random.default_rng(0), **options)


def test_columns_are_those_of_the_play(dataset, games):
    assert dataset.num_episodes == 3 and dataset.episode_ends.tolist() == [[0, 1], [0, 1], [1, 0]]
    np.testing.assert_array_equal(dataset.frames, np.concatenate([game.frames for game in games]))
    np.testing.assert_array_equal(dataset.actions, np.concatenate([game.actions for game in games]))
    np.testing.assert_array_equal(dataset.episode_returns, [game.rewards.sum() for game in games])
    assert dataset.spec.image_shape == (4, 84, 84) and dataset.spec.state_dim == 4 * 84 * 84
    assert dataset.spec.num_actions == 4 and dataset.spec.score_reference == (1.7, 30.5)
    assert dataset.trajectory(1).observations.shape == (60, 84, 84)
    for game, start in zip(games, dataset.episode_starts[:-1], strict=True):
        expected = np.cumsum(game.rewards[::-1])[::-1]
        np.testing.assert_array_equal(dataset.returns_to_go[start : start + len(expected)], expected)


def test_windows_show_what_the_environment_showed(dataset, games):
    """The same game played again gives the stacks of every step, timesteps and returns from the episode."""
    env = AtariEnv("BreakoutNoFrameskip-v4")
    observation, _ = env.reset(seed=1)
    seen = []
    for action in games[1].actions[:12]:
        seen.append(observation)
        observation = env.step(action)[0]
    start = int(dataset.episode_starts[1])
    batch = sampler(dataset, context_length=10).windows(np.array([start, start + 2]))
    np.testing.assert_array_equal(batch.states[0].numpy(), np.stack(seen[:10]))
    np.testing.assert_array_equal(batch.states[1].numpy(), np.stack(seen[2:12]))
    assert batch.timesteps.tolist() == [list(range(10)), list(range(2, 12))]
    assert batch.states.dtype.is_floating_point is False and batch.attention_mask.all()


def test_a_window_ends_with_its_episode(dataset):
    last = int(dataset.episode_starts[1]) - 1
    batch = sampler(dataset, context_length=5).windows(np.array([last]))
    assert batch.attention_mask.tolist() == [[True, False, False, False, False]]
    assert not batch.returns_to_go[0, 1:].any() and not batch.timesteps[0, 1:].any()


def test_transitions_leave_out_what_follows_a_cut(dataset):
    draws = TransitionSampler(dataset, batch_size=8, generator=np.random.default_rng(0))
    assert draws.num_left_out == 2
    last = dataset.num_steps - 1
    batch = draws.transitions(np.array([5, last]))
    np.testing.assert_array_equal(batch.next_states[0, :3], batch.states[0, 1:])
    np.testing.assert_array_equal(batch.next_states[0, 3], dataset.frames[6])
    assert batch.terminations.tolist() == [0.0, 1.0] and batch.states.shape == (2, 4, 84, 84)


def test_the_best_part_keeps_its_own_pictures(dataset):
    best = dataset.top_fraction(0.01)
    episode = int(np.argmax(dataset.episode_returns))
    np.testing.assert_array_equal(best.frames, dataset.trajectory(episode).observations)


def test_a_summary_speaks_of_pictures(dataset):
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as captured:
        console.print(render_summary(describe(dataset)))
    assert "the last 4 pictures of 84 x 84" in captured.get()


def test_damage_to_a_picture_is_found(dataset, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(dataset.folder, copy)
    content = bytearray((copy / "frames.npy").read_bytes())
    content[5000] ^= 1
    (copy / "frames.npy").write_bytes(content)
    with pytest.raises(DamagedFileError, match="frames.npy: content differs"):
        open_store(copy, verify="hash")
    (copy / "frames.npy").unlink()
    with pytest.raises(DamagedFileError, match=r"frames.npy"):
        open_store(copy)


def refused(folder, episodes, error, match):
    with pytest.raises(error, match=match):
        write_frame_store(folder, iter(episodes), ORIGIN)
    assert not list(folder.parent.iterdir()), "nothing is left behind"


def test_an_action_outside_the_set_is_refused(games, tmp_path):
    other = FrameEpisode(games[0].frames, np.full(60, 5), games[0].rewards, True)
    refused(tmp_path / "x", [games[1], other], InputError, "is 5, expected 0 to 3")


def test_no_episode_is_refused(tmp_path):
    refused(tmp_path / "x", [], InputError, "no whole episode")


def test_a_disk_without_space_leaves_nothing(games, tmp_path):
    import resource
    import signal

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, old[1]))
    try:
        refused(tmp_path / "x", games, ResourceError, "cannot write")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
