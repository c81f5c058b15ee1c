"""Batches that are gathered on a device, or read ahead for it: the host's own, to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from atari_toys import numbered_pictures
from chibit.data.load import from_arrays
from chibit.data.samplers import placement, stacked
from chibit.data.samplers.placement import PrefetchingSampler, place
from chibit.data.samplers.stacked import StackedSampler
from chibit.data.samplers.transitions import TransitionSampler
from chibit.data.samplers.windows import WindowSampler
from pretend_device import PretendTensor, pretend_device

DEVICE = torch.device("pretend:0")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """By what they are like: episodes of lengths 1 to 9, every other one truncated."""
    folder, draw = tmp_path_factory.mktemp("cache"), np.random.default_rng(0)
    lengths = np.array([3, 1, 9, 4, 2, 7])
    last, count = np.cumsum(lengths) - 1, lengths.sum()
    ends, truncated = np.zeros((2, count), bool)
    ends[last[::2]] = truncated[last[1::2]] = True
    observations = draw.normal(3.0, 2.0, (count, 3))
    columns = {"rewards": draw.normal(size=count), "terminations": ends, "truncations": truncated}
    actions, following = draw.uniform(-1, 1, (count, 2)), observations + draw.normal(size=(count, 3))
    return {
        "continuous": from_arrays(observations, actions, cache=folder, **columns),
        "with what follows": from_arrays(
            observations, actions, next_observations=following, cache=folder, **columns
        ),
        "far from zero": from_arrays(
            observations * 1e-6 + 50.0,
            actions,
            next_observations=following * 1e-6 + 50.0,
            cache=folder,
            **columns,
        ),
        "discrete": from_arrays(observations, draw.integers(0, 4, count), cache=folder, **columns),
        "pictures": numbered_pictures(folder / "pictures", [5, 1, 8]),
    }


def windows(anchor):
    """A maker of samplers of windows."""
    return lambda data, draw: WindowSampler(
        data, context_length=5, batch_size=40, generator=draw, anchor=anchor
    )


MAKERS = {
    "windows by the first step": windows("first"),
    "windows by the last step": windows("last"),
    "transitions": lambda data, draw: TransitionSampler(data, batch_size=40, generator=draw),
    "transitions with other rewards": lambda data, draw: TransitionSampler(
        data, batch_size=40, generator=draw, reward_transform=lambda rewards: np.clip(rewards * 3.7, -1, 1)
    ),
}
KINDS = ("continuous", "with what follows", "far from zero", "discrete", "pictures")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("maker", MAKERS)
def test_batches_are_equal_to_the_bit_and_take_one_copy(datasets, kind, maker):
    expected = MAKERS[maker](datasets[kind], np.random.default_rng(1))
    with pretend_device() as seen:
        sampler = place(MAKERS[maker](datasets[kind], np.random.default_rng(1)), DEVICE)
        for _ in range(3):
            seen.clear()
            batch = sampler.sample()
            assert sum(seen.copies.values()) == 1 and seen.syncs == {}
            assert batch.to(DEVICE).rows is batch.rows
            assert_equal(batch, expected.sample())
        assert sampler.state_dict() == expected.state_dict()


def test_data_too_large_for_the_device_are_read_ahead_and_the_draws_stay_the_same(datasets, monkeypatch):
    data = datasets["continuous"]
    size = MAKERS["transitions"](data, np.random.default_rng(1)).num_bytes
    expected = MAKERS["transitions"](data, np.random.default_rng(1))
    with pretend_device() as seen:
        monkeypatch.setattr(placement, "room_on", lambda device: size)
        assert isinstance(
            place(MAKERS["transitions"](data, np.random.default_rng(1)), DEVICE), TransitionSampler
        )
        monkeypatch.setattr(placement, "room_on", lambda device: size - 1)
        sampler = place(MAKERS["transitions"](data, np.random.default_rng(1)), DEVICE)
        assert isinstance(sampler, PrefetchingSampler) and sampler.dataset is data
        assert sampler.state_dict() == expected.state_dict()
        for _ in range(3):
            assert_equal(sampler.sample(), expected.sample())
            assert sampler.state_dict() == expected.state_dict()
        state, batch = sampler.state_dict(), expected.sample()
        for _ in range(2):  # goes back to where it was
            seen.clear()
            assert sampler.sample().rows.shape == batch.rows.shape
            assert seen.syncs == {}
            sampler.load_state_dict(state)
            assert_equal(sampler.sample(), batch)
            sampler.load_state_dict(state)


@pytest.mark.parametrize("anchor", ["first", "last"])
@pytest.mark.parametrize("has_room", [True, False])
def test_batches_of_a_stack_are_each_runs_own(datasets, monkeypatch, anchor, has_room):
    kinds = ("continuous", "with what follows", "continuous")

    def samplers():
        return [windows(anchor)(datasets[kind], np.random.default_rng(i)) for i, kind in enumerate(kinds)]

    alone = samplers()
    with pretend_device() as seen:
        monkeypatch.setattr(stacked, "room_on", lambda device: 10**6 if has_room else 0)
        together = StackedSampler(samplers(), DEVICE)
        for places in ([0, 1, 2], [1, 2]):
            together.keep([places.index(place) for place in places] if len(places) == 3 else places)
            seen.clear()
            batch = together.sample()
            assert sum(seen.copies.values()) == (1 if has_room else 6) and seen.syncs == {}
            for place, number in enumerate(places):
                own = {name: column[place] for name, column in vars(batch).items()}
                rows = together.own_rows(own["rows"].cpu().numpy(), place)
                expected = alone[number].sample()
                assert np.array_equal(rows, expected.rows.numpy())
                assert_equal(replace(expected, **own), replace(expected, rows=own["rows"].cpu()))


def test_on_the_cpu_and_for_samplers_of_others_nothing_is_changed(datasets):
    sampler = MAKERS["transitions"](datasets["continuous"], np.random.default_rng(1))
    assert place(sampler, torch.device("cpu")) is sampler
    assert isinstance(sampler.sample().rows, torch.Tensor)
    other = object()
    assert place(other, DEVICE) is other


def assert_equal(batch, expected):
    """Two batches hold the same bits, in the same types and forms."""
    for name, wanted in vars(expected).items():
        there = getattr(batch, name)
        assert isinstance(there, PretendTensor), name
        found = there.cpu()
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), name
        if wanted.is_floating_point():
            found, wanted = found.contiguous().view(torch.int32), wanted.contiguous().view(torch.int32)
        assert torch.equal(found, wanted), name
