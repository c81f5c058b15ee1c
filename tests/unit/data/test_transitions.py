import dataclasses

import numpy as np
import pytest
import torch

from atari_toys import numbered_pictures
from chibit.core.errors import InputError
from chibit.data.load import from_arrays
from chibit.data.mix import mix
from chibit.data.samplers import transitions
from chibit.data.samplers.transitions import TransitionBatch, TransitionSampler


def make_dataset(tmp_path, with_next=False, discrete=False):
    """Steps 0 to 9: a terminated, a truncated, a one-step truncated and a terminated episode."""
    observations = np.arange(10.0)[:, None]
    return from_arrays(
        observations=observations,
        actions=np.arange(10) % 3 if discrete else -observations / 10,
        rewards=np.arange(10) * 2,
        terminations=[0, 0, 1, 0, 0, 0, 0, 0, 0, 1],
        truncations=[0, 0, 0, 0, 0, 1, 1, 0, 0, 0],
        next_observations=observations + 100 if with_next else None,
        cache=tmp_path,
    )


def make_sampler(dataset, batch_size=4000, **options):
    return TransitionSampler(dataset, batch_size=batch_size, generator=np.random.default_rng(0), **options)


def raw(states, dataset):
    return np.round(states.numpy() * dataset.spec.state_std + dataset.spec.state_mean, 3)[:, 0].tolist()


def test_truncated_ends_without_a_next_observation_are_left_out(tmp_path):
    dataset = make_dataset(tmp_path)
    sampler = make_sampler(dataset)
    assert sampler.num_left_out == 2
    assert sampler.dataset is dataset  # whoever reports a batch's rows asks it
    counts = np.bincount(sampler.sample().rows, minlength=10)
    assert counts[[5, 6]].tolist() == [0, 0]
    assert counts[[0, 1, 2, 3, 4, 7, 8, 9]].min() > 400  # 500 expected


def test_truncation_bootstraps_and_termination_does_not(tmp_path):
    dataset = make_dataset(tmp_path, with_next=True)
    sampler = make_sampler(dataset)
    assert sampler.num_left_out == 0
    batch = sampler.transitions(np.arange(10))
    assert batch.terminations.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    # Within an episode the next row counts; at an end, what was observed after the last action.
    assert raw(batch.next_states, dataset) == [1, 2, 102, 4, 5, 105, 106, 8, 9, 109]
    assert raw(batch.states, dataset) == list(range(10))
    assert batch.rewards.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert batch.actions[:, 0].numpy() == pytest.approx(-np.arange(10) / 10)


def test_after_a_termination_the_state_stands_in(tmp_path):
    dataset = make_dataset(tmp_path)
    batch = make_sampler(dataset).transitions(np.array([2, 9, 8]))
    assert raw(batch.next_states, dataset) == [2, 9, 9]
    assert batch.terminations.tolist() == [1, 1, 0]


def test_types_and_discrete_actions(tmp_path):
    batch = make_sampler(make_dataset(tmp_path, discrete=True), batch_size=7).sample()
    assert batch.actions.dtype == batch.rows.dtype == torch.int64
    assert batch.actions.tolist() == (batch.rows % 3).tolist()
    for name in ("states", "rewards", "next_states", "terminations"):
        assert getattr(batch, name).dtype == torch.float32
    assert batch.states.shape == batch.next_states.shape == (7, 1)


def test_rewards_may_be_transformed(tmp_path):
    sampler = make_sampler(
        make_dataset(tmp_path), reward_transform=lambda rewards: (rewards.astype(np.float64) - 1) * 4
    )
    batch = sampler.sample()
    assert batch.rewards.tolist() == ((batch.rows * 2 - 1) * 4).tolist()
    assert batch.rewards.dtype == torch.float32


def test_all_drawable_rows_are_equally_likely(tmp_path):
    rows = make_sampler(make_dataset(tmp_path, with_next=True), batch_size=100_000).sample().rows
    counts = np.bincount(rows, minlength=10)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 30  # chi-square, 9 degrees of freedom: p = 0.0004


def test_resumed_draws_are_the_uninterrupted_ones(tmp_path):
    dataset = make_dataset(tmp_path)
    sampler = make_sampler(dataset, batch_size=16)
    sampler.sample()
    state = sampler.state_dict()
    expected = sampler.sample()
    resumed = make_sampler(dataset, batch_size=16)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.sample().rows, expected.rows)


def test_pictures_come_as_stacks_of_the_row_and_of_the_next(tmp_path):
    dataset = numbered_pictures(tmp_path / "pictures", [4, 3])
    batch = make_sampler(dataset).transitions(np.array([0, 2, 4, 6]))
    assert batch.states[:, :, 0, 0].tolist() == [[0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 0, 5], [0, 5, 6, 7]]
    # After a termination the state itself stands in.
    assert batch.next_states[:, :, 0, 0].tolist() == [[0, 0, 1, 2], [1, 2, 3, 4], [0, 0, 5, 6], [0, 5, 6, 7]]
    assert batch.states.dtype == batch.next_states.dtype == torch.uint8
    assert batch.actions.tolist() == [0, 2, 0, 2]


def test_a_batch_larger_than_memory_is_refused_and_a_batch_of_one_is_not(tmp_path, monkeypatch):
    """Eight bytes for each number of a row: a state and the next, in single precision."""
    dataset = make_dataset(tmp_path)
    asked = []
    monkeypatch.setattr(transitions, "check_fits", lambda *arguments: asked.append(arguments))
    make_sampler(dataset, batch_size=5_000)
    width = dataset.records.shape[1]
    assert asked == [(8 * 5_000 * width, "batch_size: a batch of 5,000 transitions", "lower batch_size")]
    assert len(make_sampler(dataset, batch_size=1).sample().rows) == 1


def test_pictures_count_in_the_size_of_a_batch(tmp_path, monkeypatch):
    dataset = numbered_pictures(tmp_path / "pictures", [4, 3])
    asked = []
    monkeypatch.setattr(transitions, "check_fits", lambda *arguments: asked.append(arguments[0]))
    make_sampler(dataset, batch_size=7_000)
    assert asked == [2 * 7_000 * (4 * 3 + np.prod(dataset.spec.image_shape))]


def test_what_cannot_be_sampled_is_refused(tmp_path):
    with pytest.raises(InputError, match="^batch_size: got 0, expected at least 1$"):
        make_sampler(make_dataset(tmp_path), batch_size=0)
    single = from_arrays([[1.0], [2.0]], [[0.0], [0.0]], [0, 0], [0, 0], [1, 1], cache=tmp_path)
    with pytest.raises(InputError, match="no step has a next observation"):
        make_sampler(single)
    assert set(make_sampler(single, needs_next=False).sample().rows.tolist()) == {0, 1}


def test_who_needs_no_next_state_is_given_every_step(tmp_path):
    sampler = make_sampler(make_dataset(tmp_path), needs_next=False)
    assert sampler.num_left_out == 0
    assert np.bincount(sampler.sample().rows, minlength=10).min() > 300  # 400 expected


def test_a_batch_goes_to_a_device_whole_and_stays_where_it_is_on_the_cpu():
    def tensors(device):
        made = {field.name: torch.zeros(2) for field in dataclasses.fields(TransitionBatch)}
        return TransitionBatch(**made).to(torch.device(device))

    batch = tensors("cpu")
    assert batch.to(torch.device("cpu")) is batch
    moved = tensors("meta")
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}
    assert type(moved) is TransitionBatch


@pytest.mark.parametrize("with_next", [False, True])
def test_batches_are_the_same_where_the_data_were_moved(tmp_path, with_next):
    """On the CPU, which is a device like others; tests/device has one that refuses to mix."""
    dataset = make_dataset(tmp_path, with_next)
    here, there = (make_sampler(dataset, batch_size=50, reward_transform=lambda r: r / 4) for _ in range(2))
    there.move_to(torch.device("cpu"))
    for _ in range(3):
        torch.testing.assert_close(vars(there.sample()), vars(here.sample()), rtol=0, atol=0)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (2, -1), (1.0, np.nan), (np.inf, 1), 0.5, "12"])
def test_weights_of_a_mixture_are_positive_and_one_for_each(tmp_path, weights):
    parts = [make_dataset(tmp_path / str(number)) for number in range(2)]
    with pytest.raises(InputError, match=r"data_weights(\[\d\])?: got"):
        mix(parts, weights)


def test_of_mixed_data_what_has_a_next_observation_is_drawn_by_the_weights(tmp_path):
    parts = [make_dataset(tmp_path / str(number)) for number in range(2)]
    sampler = make_sampler(mix(parts, (3.0, 1.0)), batch_size=40_000)
    rows = sampler.sample().rows.numpy()
    drawable = [0, 1, 2, 3, 4, 7, 8, 9]  # rows 5 and 6 are cut, and nothing is known of what followed
    counts = np.bincount(rows, minlength=20)
    assert np.flatnonzero(counts).tolist() == drawable + [10 + row for row in drawable]
    # 3,750 and 1,250 a row: five standard deviations.
    assert np.abs(counts[drawable] - 3_750).max() < 300
    assert np.abs(counts[10:][drawable] - 1_250).max() < 180
