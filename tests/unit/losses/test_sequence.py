"""Action losses: hand-computed values, and padding that must not count."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chibit.losses.sequence import action_cross_entropy, action_mse, return_expectile


def test_mse_by_hand() -> None:
    predictions = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [9.0, 9.0]]])
    actions = torch.tensor([[[0.0, 0.0], [0.5, 2.5], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    # Squares 1, 0 | 0, 4 over two real steps of two dimensions.
    assert action_mse(predictions, actions, mask).item() == 1.25


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)], [math.log(3.0), 0.0], [50.0, 0.0]]])
    actions = torch.tensor([[1, 1, 1]])
    mask = torch.tensor([[True, True, False]])
    expected = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert math.isclose(action_cross_entropy(logits, actions, mask).item(), expected, rel_tol=1e-6)


def test_steps_weigh_the_same_whatever_the_window_they_are_in() -> None:
    predictions, actions = torch.tensor([[[1.0], [1.0]], [[4.0], [0.0]]]), torch.zeros(2, 2, 1)
    mask = torch.tensor([[True, True], [True, False]])
    assert action_mse(predictions, actions, mask).item() == (1 + 1 + 16) / 3


@settings(deadline=None)
@given(padding=st.integers(1, 5), seed=st.integers(0, 100))
def test_more_padding_leaves_losses_and_gradients_unchanged(padding: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    predictions = torch.randn(2, 4, 3, generator=draw, requires_grad=True)
    actions, labels = torch.randn(2, 4, 3, generator=draw), torch.randint(3, (2, 4), generator=draw)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    junk = torch.randn(2, padding, 3, generator=draw) * 100
    wide_mask = torch.cat((mask, torch.zeros(2, padding, dtype=torch.bool)), dim=1)
    wide_actions = torch.cat((actions, -10 * torch.ones_like(junk)), dim=1)
    wide_labels = torch.cat((labels, torch.zeros(2, padding, dtype=torch.int64)), dim=1)
    for loss, target, wide_target in (
        (action_mse, actions, wide_actions),
        (action_cross_entropy, labels, wide_labels),
    ):
        narrow = loss(predictions, target, mask)
        (gradient,) = torch.autograd.grad(narrow, predictions)
        wide = loss(torch.cat((predictions, junk), dim=1), wide_target, wide_mask)
        (wide_gradient,) = torch.autograd.grad(wide, predictions)
        torch.testing.assert_close(wide, narrow)
        torch.testing.assert_close(wide_gradient, gradient)
        assert (gradient[1, 2:] == 0).all()


def test_expectile_of_returns_by_hand() -> None:
    """Too low by 2 and by 0.5, right, too high by 1; and what is padding, far off."""
    returns = torch.tensor([[3.0, 0.5, 4.0], [1.0, 7.0, -9.0]])
    predictions = torch.tensor([[1.0, 0.0, 4.0], [2.0, 7.0, 90.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    expected = (0.9 * (4.0 + 0.25) + 0.1 * 1.0) / 5
    assert math.isclose(return_expectile(predictions, returns, mask, 0.9).item(), expected, rel_tol=1e-6)
