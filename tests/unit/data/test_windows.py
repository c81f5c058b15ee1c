import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atari_toys import numbered_pictures
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.load import from_arrays
from chibit.data.samplers import windows
from chibit.data.samplers.windows import SequenceBatch, WindowSampler


def make_dataset(lengths, tmp_path, discrete=False, seed=0):
    rng = np.random.default_rng(seed)
    num_steps = sum(lengths)
    ends = np.zeros(num_steps, bool)
    ends[np.cumsum(lengths) - 1] = True
    return from_arrays(
        observations=rng.normal(3, 2, (num_steps, 3)),
        actions=rng.integers(0, 4, num_steps) if discrete else rng.uniform(-1, 1, (num_steps, 2)),
        rewards=rng.normal(size=num_steps),
        terminations=ends,
        cache=tmp_path,
    )


def make_sampler(dataset, seed=0, context_length=5, batch_size=64, **options):
    generator = np.random.default_rng(seed)
    sizes = {"context_length": context_length, "batch_size": batch_size}
    return WindowSampler(dataset, **sizes, generator=generator, **options)


def plain_window(dataset, row, context_length):
    """One window with nothing clever: the definition that the sampler is held against."""
    episode = max(e for e in range(dataset.num_episodes) if dataset.episode_starts[e] <= row)
    end = min(row + context_length, int(dataset.episode_starts[episode + 1]))
    mean, std = np.array(dataset.spec.state_mean), np.array(dataset.spec.state_std)
    action_shape = dataset.actions.shape[1:]
    states, actions = np.zeros((context_length, 3)), np.zeros((context_length, *action_shape))
    returns, timesteps, mask = (np.zeros(context_length) for _ in range(3))
    for k, step in enumerate(range(row, end)):
        states[k] = (dataset.observations[step] - mean) / std
        actions[k] = dataset.actions[step]
        returns[k] = dataset.rewards[step : dataset.episode_starts[episode + 1]].sum(dtype=np.float64)
        timesteps[k] = step - dataset.episode_starts[episode]
        mask[k] = 1
    return returns, states, actions, timesteps, mask


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    context_length=st.integers(1, 15),
    discrete=st.booleans(),
)
def test_every_window_is_the_plain_one(tmp_path_factory, lengths, context_length, discrete):
    dataset = make_dataset(lengths, tmp_path_factory.mktemp("home"), discrete)
    batch = make_sampler(dataset, context_length=context_length).windows(np.arange(dataset.num_steps))
    for row in range(dataset.num_steps):
        returns, states, actions, timesteps, mask = plain_window(dataset, row, context_length)
        assert batch.returns_to_go[row].numpy() == pytest.approx(returns, abs=1e-5)
        assert batch.states[row].numpy() == pytest.approx(states, abs=1e-5)
        assert batch.actions[row].numpy() == pytest.approx(actions, abs=1e-6)
        assert batch.timesteps[row].tolist() == timesteps.tolist()
        assert batch.attention_mask[row].tolist() == mask.astype(bool).tolist()
    # The first steps of all windows are the whole data set, each step once.
    assert batch.attention_mask[:, 0].all()
    assert batch.timesteps[:, 0].tolist() == dataset.timesteps.tolist()


def test_types_and_shapes(tmp_path):
    batch = make_sampler(make_dataset([4, 9], tmp_path)).sample()
    assert batch.returns_to_go.shape == batch.timesteps.shape == batch.attention_mask.shape == (64, 5)
    assert (batch.states.shape, batch.actions.shape, batch.rows.shape) == ((64, 5, 3), (64, 5, 2), (64,))
    assert batch.states.dtype == batch.actions.dtype == batch.returns_to_go.dtype == torch.float32
    assert batch.timesteps.dtype == batch.rows.dtype == torch.int64
    assert batch.attention_mask.dtype == torch.bool
    discrete = make_sampler(make_dataset([4, 9], tmp_path, discrete=True)).sample()
    assert (discrete.actions.shape, discrete.actions.dtype) == ((64, 5), torch.int64)


def test_pictures_come_as_stacks_and_past_the_end_as_the_last(tmp_path):
    dataset = numbered_pictures(tmp_path / "pictures", [4, 3])
    batch = make_sampler(dataset, context_length=3).windows(np.array([0, 3, 5]))
    newest, before = batch.states[:, :, -1, 0, 0], batch.states[:, :, -2, 0, 0]
    assert newest.tolist() == [[1, 2, 3], [4, 4, 4], [6, 7, 7]]
    assert before.tolist()[0] == [0, 1, 2]
    assert before[:, 0].tolist() == [0, 3, 5]
    assert batch.states.dtype == torch.uint8
    assert batch.actions.tolist() == [[0, 1, 2], [3, 0, 0], [1, 2, 0]]
    assert batch.returns_to_go.tolist() == [[4, 3, 2], [1, 0, 0], [2, 1, 0]]
    assert batch.attention_mask.sum(dim=1).tolist() == [3, 1, 2]


def test_a_batch_larger_than_memory_is_refused_and_the_smallest_is_not(tmp_path, monkeypatch):
    """Four bytes for each number of a row of each step of each window."""
    dataset = make_dataset([5, 8], tmp_path)
    asked = []
    monkeypatch.setattr(windows, "check_fits", lambda *arguments: asked.append(arguments))
    make_sampler(dataset, context_length=1_200, batch_size=7_000)
    what = "batch_size: a batch of 7,000 windows of 1,200 steps"
    num_bytes = 4 * 1_200 * 7_000 * dataset.records.shape[1]
    assert asked == [(num_bytes, what, "lower batch_size or context_length")]
    assert make_sampler(dataset, context_length=1, batch_size=1).sample().states.shape == (1, 1, 3)


def test_pictures_count_in_the_size_of_a_batch(tmp_path, monkeypatch):
    dataset = numbered_pictures(tmp_path / "pictures", [4, 3])
    asked = []
    monkeypatch.setattr(windows, "check_fits", lambda *arguments: asked.append(arguments[0]))
    make_sampler(dataset, context_length=30, batch_size=7_000)
    assert asked == [30 * 7_000 * (4 * 3 + np.prod(dataset.spec.image_shape))]


def test_mask_counts_the_real_steps(tmp_path):
    dataset = make_dataset([2, 7], tmp_path)
    batch = make_sampler(dataset, context_length=5).windows(np.arange(9))
    assert batch.attention_mask.sum(dim=1).tolist() == [2, 1, 5, 5, 5, 4, 3, 2, 1]
    assert not batch.states[~batch.attention_mask].any()
    assert not batch.actions[~batch.attention_mask].any()
    assert not batch.returns_to_go[~batch.attention_mask].any()


def reference_starts(lengths, num_draws, seed):
    """Starts as the gym code of Chen et al. (2021) draws them: an episode by length, then a step."""
    rng = np.random.default_rng(seed)
    lengths = np.array(lengths)
    episodes = rng.choice(len(lengths), size=num_draws, replace=True, p=lengths / lengths.sum())
    within = np.array([rng.integers(0, lengths[e]) for e in episodes])
    return np.concatenate([[0], np.cumsum(lengths)])[episodes] + within


def chi_square(counts, other):
    """Two-sample statistic for equal totals, standardized: about normal under equal distributions."""
    statistic = ((counts - other) ** 2 / (counts + other)).sum()
    degrees = len(counts) - 1
    return (statistic - degrees) / np.sqrt(2 * degrees)


def test_windows_are_distributed_as_in_the_decision_transformer(tmp_path):
    lengths = [1, 3, 60, 11, 25]
    dataset = make_dataset(lengths, tmp_path)
    sampler = make_sampler(dataset, seed=1, batch_size=1000)
    rows = np.concatenate([sampler.sample().rows.numpy() for _ in range(50)])
    counts = np.bincount(rows, minlength=dataset.num_steps)
    assert abs(chi_square(counts, np.bincount(reference_starts(lengths, 50_000, seed=2), minlength=100))) < 4
    # The test can tell: leaving out the last step of each episode is found at once.
    shortened = reference_starts([length - (length > 1) for length in lengths], 50_000, seed=2)
    assert chi_square(counts, np.bincount(shortened, minlength=100)) > 20


def test_resumed_draws_are_the_uninterrupted_ones(tmp_path):
    dataset = make_dataset([5, 8, 20], tmp_path)
    whole, first = make_sampler(dataset, seed=3), make_sampler(dataset, seed=3)
    expected = [whole.sample() for _ in range(6)]
    for _ in range(3):
        first.sample()
    resumed = make_sampler(dataset, seed=99)
    resumed.load_state_dict(first.state_dict())
    for batch in expected[3:]:
        found = resumed.sample()
        for field in ("returns_to_go", "states", "actions", "timesteps", "attention_mask", "rows"):
            assert torch.equal(getattr(found, field), getattr(batch, field))


def test_a_state_does_not_change_with_later_draws(tmp_path):
    sampler = make_sampler(make_dataset([5, 8], tmp_path))
    state = sampler.state_dict()
    first = sampler.sample().rows
    sampler.load_state_dict(state)
    assert torch.equal(sampler.sample().rows, first)


@pytest.mark.parametrize("state", [{}, {"generator": 3}, {"generator": {"bit_generator": "MT19937"}}])
def test_a_foreign_state_is_refused(tmp_path, state):
    with pytest.raises(DamagedFileError, match="sampler state: expected that of a PCG64 generator"):
        make_sampler(make_dataset([5], tmp_path)).load_state_dict(state)


def test_sizes_below_one_are_refused(tmp_path):
    dataset = make_dataset([5], tmp_path)
    with pytest.raises(InputError, match="^context_length: got 0, expected at least 1$"):
        make_sampler(dataset, context_length=0)
    with pytest.raises(InputError, match="^batch_size: got -3, expected at least 1$"):
        make_sampler(dataset, batch_size=-3)
    assert make_sampler(dataset).dataset is dataset  # whoever reports a batch's rows asks it


def test_a_batch_goes_to_a_device_whole_and_stays_where_it_is_on_the_cpu():
    def tensors(device):
        made = {field.name: torch.zeros(2) for field in dataclasses.fields(SequenceBatch)}
        return SequenceBatch(**made).to(torch.device(device))

    batch = tensors("cpu")
    assert batch.to(torch.device("cpu")) is batch
    moved = tensors("meta")
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}
    assert type(moved) is SequenceBatch


def test_windows_drawn_by_their_last_step_are_those_that_a_policy_sees(tmp_path):
    """Three episodes of 7, 2 and 4 steps, context 3: up to three steps that end with the drawn one."""
    dataset = make_dataset([7, 2, 4], tmp_path)
    rows = np.arange(dataset.num_steps)
    batch = make_sampler(dataset, context_length=3, anchor="last").windows(rows)
    first = make_sampler(dataset, context_length=3).windows(batch.rows.numpy())
    lengths = [1, 2, 3, 3, 3, 3, 3, 1, 2, 1, 2, 3, 3]
    assert batch.attention_mask.sum(1).tolist() == lengths
    assert (batch.rows + batch.attention_mask.sum(1) - 1).tolist() == rows.tolist()
    for part in ("states", "actions", "returns_to_go", "timesteps"):
        last, kept = getattr(batch, part), batch.attention_mask
        torch.testing.assert_close(last[kept], getattr(first, part)[kept], rtol=0, atol=0)
        assert not last[~kept].any()


@pytest.mark.parametrize(("anchor", "share"), [("first", 1 / 8), ("last", 5 / 8)])
def test_how_often_the_first_step_of_an_episode_is_seen(tmp_path, anchor, share):
    """Episodes of eight steps, context 5: one start in eight, or five last steps of eight."""
    dataset = make_dataset([8] * 40, tmp_path)
    batch = make_sampler(dataset, batch_size=4_000, anchor=anchor).sample()
    seen = ((batch.timesteps == 0) & batch.attention_mask).any(1).float().mean().item()
    assert abs(seen - share) < 0.04  # five standard deviations of 4,000 draws


@pytest.mark.parametrize("anchor", ["first", "last"])
def test_batches_are_the_same_where_the_data_were_moved(tmp_path, anchor):
    """On the CPU, which is a device like others; tests/device has one that refuses to mix."""
    dataset = make_dataset([3, 1, 9, 4], tmp_path)
    here, there = (make_sampler(dataset, anchor=anchor) for _ in range(2))
    there.move_to(torch.device("cpu"))
    for _ in range(3):
        torch.testing.assert_close(vars(there.sample()), vars(here.sample()), rtol=0, atol=0)


def test_windows_begin_where_they_are_drawn_unless_asked_otherwise(tmp_path):
    dataset = make_dataset([9], tmp_path)
    usual, first = make_sampler(dataset).sample(), make_sampler(dataset, anchor="first").sample()
    assert torch.equal(usual.timesteps, first.timesteps)
    assert not torch.equal(usual.timesteps, make_sampler(dataset, anchor="last").sample().timesteps)
