"""The chunked and the sampled vocabulary loss against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from chibit.models.vocabulary_loss import Candidates, CandidateSampler, vocabulary_loss

V, D, N = 37, 8, 23


def setup(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, D, generator=generator, requires_grad=True)
    table = torch.randn(V, D, generator=generator, requires_grad=True)
    return hidden, table, torch.randint(0, V, (N,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
def test_value_and_gradients_equal_the_plain_loss(chunk: int) -> None:
    hidden, table, targets = setup()
    loss = vocabulary_loss(hidden, table, targets, chunk=chunk)
    expected = F.cross_entropy(hidden @ table.T, targets)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    ours = torch.autograd.grad(3.0 * loss, (hidden, table))
    theirs = torch.autograd.grad(3.0 * expected, (hidden, table))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(vocabulary_loss(hidden, table, targets, chunk=chunk), expected)


def test_extreme_logits_stay_finite() -> None:
    hidden, table, targets = setup()
    loss = vocabulary_loss(hidden * 1e3, table, targets)
    expected = F.cross_entropy(1e3 * hidden @ table.T, targets)
    assert expected > 100.0
    torch.testing.assert_close(loss, expected, atol=0, rtol=1e-6)
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, (hidden, table)))


def test_bfloat16_is_close() -> None:
    hidden, table, targets = setup()
    expected = torch.autograd.grad(F.cross_entropy(hidden @ table.T, targets), (hidden, table))
    with torch.autocast("cpu", torch.bfloat16):
        loss = vocabulary_loss(hidden, table, targets)
    assert loss.dtype == torch.float32
    for ours, theirs in zip(torch.autograd.grad(loss, (hidden, table)), expected, strict=True):
        assert ours.dtype == torch.float32
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999


def test_all_words_as_candidates_is_the_plain_loss() -> None:
    hidden, table, targets = setup()
    everything = Candidates(torch.randperm(V), torch.zeros(V))
    loss = vocabulary_loss(hidden, table, targets, candidates=everything, chunk=7)
    expected = F.cross_entropy(hidden @ table.T, targets)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(x, (hidden, table)) for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_sampled_loss_against_its_definition() -> None:
    hidden, table, targets = setup()
    candidates = CandidateSampler(np.arange(V) ** 2, 11).draw(np.random.default_rng(0))
    rows = []
    for h, target in zip(hidden, targets.tolist(), strict=True):
        terms = [
            torch.exp(h @ table[i] - log_pi)
            for i, log_pi in zip(candidates.ids.tolist(), candidates.log_inclusion, strict=True)
            if i != target
        ]
        own = h @ table[target]
        rows.append(torch.log(own.exp() + torch.stack(terms).sum()) - own)
    expected = torch.stack(rows).mean()
    loss = vocabulary_loss(hidden, table, targets, candidates=candidates, chunk=7)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(x, (hidden, table)) for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_sampler_includes_each_word_as_often_as_it_says() -> None:
    counts = np.concatenate(([1000, 500], np.arange(60)))
    sampler = CandidateSampler(counts, 12)
    assert sampler.inclusion.sum() == pytest.approx(12)
    assert sampler.inclusion[0] == 1.0
    # Words below the cap are drawn in proportion to (count + 1)^0.75.
    assert sampler.inclusion[61] / sampler.inclusion[2] == pytest.approx(60**0.75)
    generator = np.random.default_rng(0)
    draws = 4000
    seen = np.zeros(len(counts))
    for _ in range(draws):
        candidates = sampler.draw(generator)
        ids = candidates.ids.numpy()
        assert len(np.unique(ids)) == 12
        np.testing.assert_allclose(candidates.log_inclusion, np.log(sampler.inclusion[ids]), rtol=1e-6)
        seen[ids] += 1
    error = np.sqrt(sampler.inclusion * (1 - sampler.inclusion) / draws)
    assert (np.abs(seen / draws - sampler.inclusion) <= 5 * error + 1e-12).all()


def test_sampled_normalizer_is_unbiased() -> None:
    generator = np.random.default_rng(1)
    terms = np.exp(generator.normal(size=V))
    sampler = CandidateSampler(np.arange(V), 9)
    estimates = []
    for _ in range(4000):
        candidates = sampler.draw(generator)
        estimates.append((terms[candidates.ids] / np.exp(candidates.log_inclusion.numpy())).sum())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - terms.sum()) < 5 * error


def test_whole_vocabulary_has_inclusion_one() -> None:
    sampler = CandidateSampler(np.arange(V), V)
    np.testing.assert_allclose(sampler.inclusion, 1.0)
    assert sorted(sampler.draw(np.random.default_rng(0)).ids.tolist()) == list(range(V))
