"""Parts of a data set: whole trajectories, drawn by a seed, that still know where in the store they lie."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chibit.core import memory
from chibit.core.errors import InputError, ResourceError
from chibit.data.inspect import find_notes
from chibit.data.load import from_arrays
from chibit.data.samplers.transitions import TransitionSampler
from chibit.data.samplers.windows import WindowSampler
from chibit.data.statistics import best_and_high, units_of_returns

LENGTHS = [3, 1, 5, 2, 4, 1, 6, 2, 3, 4]
COLUMNS = ("observations", "actions", "rewards", "returns_to_go", "terminations", "truncations", "timesteps")
reuse_dataset = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Ten episodes; each row is told from every other by its first observation, which is its number."""
    rng = np.random.default_rng(0)
    num_steps = sum(LENGTHS)
    ends = np.zeros(num_steps, bool)
    ends[np.cumsum(LENGTHS) - 1] = True
    observations = np.stack([np.arange(num_steps), rng.normal(3, 5, num_steps)], axis=1)
    return from_arrays(
        observations=observations,
        next_observations=observations + 0.5,
        actions=rng.uniform(-1, 1, (num_steps, 1)),
        rewards=rng.normal(size=num_steps),
        terminations=ends & (np.arange(num_steps) % 2 == 0),
        truncations=ends & (np.arange(num_steps) % 2 == 1),
        cache=tmp_path_factory.mktemp("cache"),
    )


def episodes_of(part):
    """The numbers of the whole set's episodes that a part holds, checked to be whole and equal."""
    lengths = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    found = [lengths[int(part.observations[start, 0])] for start in part.episode_starts[:-1]]
    assert [LENGTHS[e] for e in found] == part.episode_lengths.tolist()
    return found


def assert_is_part(part, dataset):
    rows = part.in_store(np.arange(part.num_steps))
    assert rows.tolist() == part.observations[:, 0].tolist()
    for name in COLUMNS:
        assert np.array_equal(getattr(part, name), getattr(dataset, name)[rows]), name
    kept = episodes_of(part)
    assert kept == sorted(set(kept))
    assert np.array_equal(part.final_observations, dataset.final_observations[kept])


@reuse_dataset
@given(fraction=st.floats(0.05, 1.0), seed=st.integers(0, 2**32 - 1))
def test_a_random_fraction_is_whole_episodes_of_the_data(dataset, fraction, seed):
    part = dataset.random_fraction(fraction, seed)
    assert_is_part(part, dataset)
    assert part.num_episodes == int(fraction * 10 + 0.5)
    again = dataset.random_fraction(fraction, seed)
    assert np.array_equal(again.records, part.records) and again.content_hash == part.content_hash


@reuse_dataset
@given(small=st.floats(0.05, 1.0), large=st.floats(0.05, 1.0), seed=st.integers(0, 1000))
def test_a_smaller_fraction_is_part_of_a_larger_one(dataset, small, large, seed):
    small, large = sorted([small, large])
    few, many = dataset.random_fraction(small, seed), dataset.random_fraction(large, seed)
    assert set(episodes_of(few)) <= set(episodes_of(many))


@reuse_dataset
@given(share=st.floats(0.05, 0.94), seed=st.integers(0, 2**32 - 1))
def test_a_split_is_two_disjoint_parts_that_make_up_the_whole(dataset, share, seed):
    train, held_out = dataset.held_out_split(share, seed)
    assert_is_part(train, dataset)
    assert_is_part(held_out, dataset)
    assert sorted(episodes_of(train) + episodes_of(held_out)) == list(range(10))
    assert held_out.num_episodes == int(share * 10 + 0.5)
    assert train.spec == held_out.spec
    assert len({train.content_hash, held_out.content_hash, dataset.content_hash}) == 3


@reuse_dataset
@given(fraction=st.floats(0.2, 0.94), share=st.floats(0.3, 0.6), seed=st.integers(0, 1000))
def test_parts_of_parts_name_rows_of_the_store(dataset, fraction, share, seed):
    train, held_out = dataset.held_out_split(share, seed)
    part = train.random_fraction(fraction, seed)
    assert_is_part(part, dataset)
    assert set(episodes_of(part)).isdisjoint(episodes_of(held_out))
    assert_is_part(part.top_fraction(0.6), dataset)
    rows = np.arange(part.num_steps)
    assert np.array_equal(part.delay_rewards().in_store(rows), part.in_store(rows))


def test_every_episode_is_drawn_equally_often(dataset):
    draws = 2000
    counts = np.bincount(
        [e for seed in range(draws) for e in episodes_of(dataset.random_fraction(0.3, seed))], minlength=10
    )
    assert np.abs(counts / draws - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / draws)


def test_who_has_little_data_knows_only_their_statistics(dataset):
    part = dataset.random_fraction(0.3, 1)
    assert part.spec.state_mean == pytest.approx(part.observations.mean(axis=0, dtype=np.float64))
    assert part.spec.state_std == pytest.approx(part.observations.std(axis=0, dtype=np.float64) + 1e-6)
    assert part.spec.state_mean != dataset.spec.state_mean
    kept = ("default_target_returns", "score_reference", "max_episode_steps", "env_id", "action_low", "name")
    assert all(getattr(part.spec, name) == getattr(dataset.spec, name) for name in kept)


def test_held_out_data_are_described_by_those_trained_on(dataset):
    train, held_out = dataset.held_out_split(0.3, 1)
    assert held_out.spec.state_mean == pytest.approx(train.observations.mean(axis=0, dtype=np.float64))
    batch = WindowSampler(
        held_out, context_length=1, batch_size=4, generator=np.random.default_rng(0)
    ).windows(np.arange(4))
    expected = (held_out.observations[:4] - np.float32(train.spec.state_mean)) / np.float32(
        train.spec.state_std
    )
    assert batch.states[:, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_copies_of_an_episode_are_held_out_together(tmp_path):
    """Ten episodes: three of one kind, two of another, five that are there once."""
    kinds = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6]
    steps = 4 * len(kinds)
    copied = from_arrays(
        np.repeat(kinds, 4)[:, None] + np.tile(np.arange(4.0), len(kinds))[:, None],
        np.zeros((steps, 1)),
        np.repeat(kinds, 4),
        np.tile([False, False, False, True], len(kinds)),
        cache=tmp_path,
    )
    for seed in range(30):
        train, held_out = copied.held_out_split(0.3, seed)
        sides = [set(part.observations[part.episode_starts[:-1], 0].tolist()) for part in (train, held_out)]
        assert not sides[0] & sides[1]
        assert train.num_episodes + held_out.num_episodes == 10
        assert 1 <= held_out.num_episodes <= 3
        assert train.spec.default_target_returns == best_and_high(train.episode_returns)
    alike = from_arrays(
        np.ones((40, 1)), np.zeros((40, 1)), np.ones(40), np.arange(40) % 4 == 3, cache=tmp_path
    )
    with pytest.raises(InputError, match="copies of an episode stay together"):
        alike.held_out_split(0.3, 0)


def test_episodes_that_differ_in_their_pictures_alone_are_no_copies(tmp_path):
    """Three of twelve episodes of one step have the first one's picture."""
    pictures = np.random.default_rng(0).integers(0, 256, (12, 36, 36, 1), dtype=np.uint8)
    pictures[[3, 5, 8]] = pictures[0]

    def decisions(rows):
        arrays = (pictures[rows], np.zeros(len(rows), np.int64), np.ones(len(rows)), np.ones(len(rows), bool))
        return from_arrays(*arrays, cache=tmp_path)

    dataset = decisions(range(12))
    assert dataset.num_episodes == 12 and dataset.frames is not None
    assert any("3 of 12 episodes are copies" in note for note in find_notes(dataset))
    for train, held_out in (dataset.held_out_split(0.3, 0), dataset.held_out_fold(0, 9)):
        seen = [{frame.tobytes() for frame in part.frames} for part in (train, held_out)]
        assert not seen[0] & seen[1] and len(seen[0]) + len(seen[1]) == 9
    kept = dataset.without_copies_of(decisions([0, 1]))
    assert kept.num_episodes == 7


def test_targets_that_are_the_best_return_are_those_of_the_part_trained_on(dataset):
    for seed in range(10):
        train, _ = dataset.held_out_split(0.5, seed)
        assert train.spec.default_target_returns == best_and_high(train.episode_returns)
        assert train.spec.default_target_returns[0] == train.episode_returns.max()


def test_the_scale_of_returns_is_that_of_the_part_trained_on(dataset):
    for train, held_out in (dataset.held_out_split(0.3, 0), dataset.held_out_fold(2, 3)):
        units = units_of_returns(train.returns_to_go, train.episode_starts)
        assert (train.spec.return_scale, train.spec.return_baseline) == units
        assert train.spec.return_scale != dataset.spec.return_scale
        assert held_out.spec == train.spec
    described = replace(dataset, spec=replace(dataset.spec, return_scale=1000.0))
    assert described.held_out_split(0.3, 0)[0].spec.return_scale == 1000.0


@pytest.mark.parametrize("number", [2, 3, 10])
def test_each_episode_is_in_one_fold(dataset, number):
    held_out = [episodes_of(dataset.held_out_fold(seed, number)[1]) for seed in range(number)]
    assert sorted(sum(held_out, [])) == list(range(10))
    assert {len(fold) for fold in held_out} <= {10 // number, -(-10 // number)}
    train, again = dataset.held_out_fold(number + 1, number)
    assert episodes_of(again) == held_out[1]
    assert sorted(episodes_of(train) + episodes_of(again)) == list(range(10))
    assert train.content_hash != dataset.held_out_fold(0, number)[0].content_hash


def test_copies_of_an_episode_are_in_one_fold_and_more_folds_are_refused(tmp_path):
    kinds = [0, 0, 0, 1, 2, 3]
    copied = from_arrays(
        np.repeat(kinds, 2)[:, None].astype(float),
        np.zeros((12, 1)),
        np.ones(12),
        np.tile([False, True], 6),
        cache=tmp_path,
    )
    for fold in range(4):
        train, held_out = copied.held_out_fold(fold, 4)
        assert set(train.observations[:, 0]).isdisjoint(held_out.observations[:, 0])
    for folds in (1, 5):
        with pytest.raises(InputError, match=f"folds: got {folds}, expected 2 to 4"):
            copied.held_out_fold(0, folds)


def test_all_of_the_data_are_the_data(dataset):
    assert dataset.random_fraction(1.0, 3) is dataset
    assert dataset.random_fraction(0.96, 3) is dataset


def test_draws_for_different_seeds_and_purposes_differ(dataset):
    drawn = [tuple(episodes_of(dataset.random_fraction(0.5, seed))) for seed in range(20)]
    assert len(set(drawn)) > 10
    held_out = [tuple(episodes_of(dataset.held_out_split(0.5, seed)[1])) for seed in range(20)]
    assert drawn != held_out


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan"), float("inf"), 0.04, 1e-300])
def test_a_fraction_that_is_none_or_leaves_no_episode_is_refused(dataset, fraction):
    with pytest.raises(InputError, match=r"^fraction: .*(at most 1|is none; 0\.1 is one)$"):
        dataset.random_fraction(fraction, 0)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan"), 0.04, 0.96])
def test_a_share_that_leaves_a_part_without_episodes_is_refused(dataset, share):
    with pytest.raises(InputError, match=r"^share: "):
        dataset.held_out_split(share, 0)


def test_a_negative_seed_is_refused(dataset):
    with pytest.raises(InputError, match="seed"):
        dataset.random_fraction(0.5, -1)


def test_samplers_of_a_part_know_its_place_in_the_store(dataset):
    part = dataset.random_fraction(0.4, 2)
    for sampler in (
        TransitionSampler(part, batch_size=16, generator=np.random.default_rng(0)),
        WindowSampler(part, context_length=2, batch_size=16, generator=np.random.default_rng(0)),
    ):
        rows = sampler.dataset.in_store(sampler.sample().rows.numpy())
        assert set(rows.tolist()) <= set(part.observations[:, 0].astype(int).tolist())


def test_the_best_episodes_are_as_many_as_fit_whatever_floats_make_of_the_share(tmp_path):
    """0.29 of 100 is 28.999999999999996 in floats."""
    rewards = np.arange(100.0)
    one_step = {"observations": rewards, "actions": -rewards, "rewards": rewards}
    dataset = from_arrays(**one_step, terminations=np.ones(100, bool), cache=tmp_path)
    for percent in range(1, 101):
        kept = dataset.top_fraction(percent / 100)
        assert kept.rewards.tolist() == list(range(100 - percent, 100))


def test_a_copy_with_delayed_rewards_is_refused_where_memory_is_short(dataset, monkeypatch):
    monkeypatch.setattr(memory, "memory_budget", lambda: 100)
    with pytest.raises(ResourceError, match="a copy of 31 steps of arrays takes"):
        dataset.delay_rewards()
