import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chibit.core.errors import InputError
from chibit.data.dataset import returns_to_go
from chibit.data.load import from_arrays
from chibit.data.normalizer import StateNormalizer

REWARDS = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3))


def test_returns_to_go_by_hand():
    found = returns_to_go(np.array([1.0, 2.0, 3.0, 10.0, -4.0]), np.array([0, 3, 5]))
    assert found.dtype == np.float32
    assert found.tolist() == [6.0, 5.0, 3.0, 6.0, -4.0]


@given(rewards=REWARDS, cut=st.integers(0, 40))
def test_returns_to_go_obey_their_recurrence(rewards, cut):
    starts = np.unique([0, min(cut, len(rewards)), len(rewards)])
    found = returns_to_go(rewards, starts).astype(np.float64)
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        assert found[start] == pytest.approx(rewards[start:end].sum(), rel=1e-6, abs=1e-3)
        assert found[end - 1] == np.float32(rewards[end - 1])
        assert found[start : end - 1] == pytest.approx(
            rewards[start : end - 1] + found[start + 1 : end], rel=1e-5, abs=1e-2
        )


def test_a_huge_episode_does_not_disturb_its_neighbors():
    rewards = np.array([1e30, 0.1, 0.2])
    assert returns_to_go(rewards, np.array([0, 1, 3])).tolist() == np.float32([1e30, 0.3, 0.2]).tolist()


@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32)))
def test_normalizing_and_back(observations):
    normalizer = StateNormalizer(np.float32([1, -2, 3]), np.float32([0.5, 2, 1]))
    assert normalizer(observations) * [0.5, 2, 1] + [1, -2, 3] == pytest.approx(observations, abs=1e-4)
    tensors = StateNormalizer(torch.from_numpy(normalizer.mean), torch.from_numpy(normalizer.std))
    np.testing.assert_array_equal(
        tensors(torch.from_numpy(observations).float()).numpy(), normalizer(observations.astype(np.float32))
    )
    assert normalizer(observations).dtype == np.float32


@pytest.fixture
def dataset(tmp_path):
    """Three episodes: returns 3, 10 and 6, lengths 3, 2 and 4."""
    return from_arrays(
        observations=np.arange(18).reshape(9, 2),
        actions=np.linspace(-1, 1, 9)[:, None],
        rewards=[1, 1, 1, 4, 6, 0, 0, 0, 6],
        terminations=[0, 0, 1, 0, 0, 0, 0, 0, 1],
        truncations=[0, 0, 0, 0, 1, 0, 0, 0, 0],
        cache=tmp_path,
    )


def test_columns_and_episodes(dataset):
    assert (dataset.num_steps, dataset.num_episodes) == (9, 3)
    assert dataset.episode_returns.tolist() == [3, 10, 6]
    assert dataset.episode_lengths.tolist() == [3, 2, 4]
    assert dataset.timesteps.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert dataset.returns_to_go.tolist() == [3, 2, 1, 10, 6, 6, 6, 6, 6]
    assert np.flatnonzero(dataset.terminations).tolist() == [2, 8]
    assert np.flatnonzero(dataset.truncations).tolist() == [4]
    assert dataset.observations.tolist() == np.arange(18).reshape(9, 2).tolist()
    assert dataset.actions.shape == (9, 1)


def test_one_trajectory(dataset):
    trajectory = dataset.trajectory(-2)
    assert trajectory.observations.tolist() == [[6, 7], [8, 9]]
    assert trajectory.rewards.tolist() == [4, 6]
    assert trajectory.truncations.tolist() == [False, True]
    assert not trajectory.terminations.any()
    assert trajectory.final_observation is None
    with pytest.raises(IndexError):
        dataset.trajectory(3)


@pytest.mark.parametrize(
    ("fraction", "returns"), [(1.0, [3, 10, 6]), (0.7, [10, 6]), (0.3, [10]), (0.01, [10]), (6 / 9, [10, 6])]
)
def test_top_fraction_keeps_whole_episodes_from_the_best_down(dataset, fraction, returns):
    best = dataset.top_fraction(fraction)
    assert best.episode_returns.tolist() == returns
    assert best.spec == dataset.spec
    assert best.num_steps == best.episode_starts[-1] == len(best.observations)
    assert (best.content_hash == dataset.content_hash) is False


def test_top_fraction_refuses_what_is_no_fraction(dataset):
    for fraction in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="fraction"):
            dataset.top_fraction(fraction)


def test_delayed_rewards_keep_the_returns(dataset):
    delayed = dataset.delay_rewards()
    assert delayed.rewards.tolist() == [0, 0, 3, 0, 10, 0, 0, 0, 6]
    assert delayed.returns_to_go.tolist() == [3, 3, 3, 10, 10, 6, 6, 6, 6]
    assert dataset.rewards.tolist() == [1, 1, 1, 4, 6, 0, 0, 0, 6]
    assert delayed.content_hash not in (dataset.content_hash, dataset.top_fraction(1.0).content_hash)


def test_opened_data_cannot_be_changed(dataset):
    with pytest.raises(ValueError, match="read-only"):
        dataset.rewards[0] = 1.0
