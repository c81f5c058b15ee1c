"""Where dropout's random numbers come from: torch's stream, a count, or generators of several runs."""

import math

import pytest
import torch
from torch.func import vmap

from chibit.models.dropout import Counted, Streams, drawing, dropout, is_counted, is_stacked


def counted(*seeds):
    return Counted(torch.tensor(seeds))


def masks(draws, step, *shapes, p=0.25):
    """Masks of sites of a step, for all runs."""
    draws.begin(step)
    return [draws.masks(shape, p, None) for shape in shapes]


@pytest.mark.parametrize("p", [0.1, 0.5, 1e-6])
def test_counted_masks_have_the_stated_distribution(p):
    (mask,) = masks(counted(3), 7, (400, 1001), p=p)
    expected = max(1, round(p * 65536)) / 65536
    assert (mask == 0).float().mean().item() == pytest.approx(
        expected, abs=4 * (expected / mask.numel()) ** 0.5
    )
    assert mask.max().item() == pytest.approx(1 / (1 - expected))
    one, other = mask[0, :, :-1].flatten(), mask[0, :, 1:].flatten()
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.01 or p < 0.01


def test_they_follow_from_seed_step_and_place_alone():
    shapes = ((3, 5), (2, 2, 4), (7,))
    first = masks(counted(1, 2), 5, *shapes)
    draws = counted(2)
    for step in (9, 5, 5):  # later steps draw those of all sites at once
        again = masks(draws, step, *shapes)
        alike = [torch.equal(one[1], other[0]) for one, other in zip(first, again, strict=True)]
        assert alike == [step == 5] * 3
    assert not torch.equal(first[0][0], first[0][1])
    (early,) = masks(counted(1), 5, (3, 5))
    assert torch.equal(early[0], first[0][0])


def test_a_run_alone_and_in_a_stack_drops_the_same():
    x = torch.randn(3, 4, 6)
    stacked = counted(10, 20, 30)

    def one(values, place):
        with drawing(stacked, place):
            assert is_stacked() and is_counted()
            return dropout(dropout(values, 0.5, training=True), 0.2, training=True)

    together = vmap(one)(x, torch.arange(3))
    for i, seed in enumerate((10, 20, 30)):
        with drawing(counted(seed)):
            assert is_counted() and not is_stacked()
            alone = dropout(dropout(x[i], 0.5, training=True), 0.2, training=True)
        assert torch.equal(together[i], alone)
    assert not is_counted()


@pytest.mark.parametrize("as_torch", [False, True])
def test_generators_of_several_runs_give_what_torchs_own_gives_each(as_torch):
    x = torch.randn(2, 5, 7)
    streams = Streams([torch.Generator().manual_seed(seed) for seed in (4, 5)])

    def one(values, place):
        with drawing(streams, place):
            return dropout(values, 0.3, training=True, as_torch=as_torch)

    generators = [torch.Generator().manual_seed(seed) for seed in (4, 5)]
    for _ in range(2):
        together = vmap(one)(x, torch.arange(2))
        for values, found, generator in zip(x, together, generators, strict=True):
            with torch.random.fork_rng():
                torch.set_rng_state(generator.get_state())
                assert torch.equal(found, dropout(values, 0.3, training=True, as_torch=as_torch))
                generator.set_state(torch.get_rng_state())


@pytest.mark.parametrize("p", [1e-320, math.nextafter(1.0, 0.0)])
def test_probabilities_at_the_edges_are_rounded_to_what_can_be_drawn(p):
    torch.manual_seed(0)
    kept = dropout(torch.ones(1 << 20), p, training=True)
    assert kept.isfinite().all()
    assert kept.mean().item() == pytest.approx(1.0, abs=0.5)
