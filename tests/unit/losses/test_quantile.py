import math

import pytest
import torch

from chibit.losses import quantile

T = torch.tensor


def test_heads_of_actions():
    values = torch.arange(12.0).view(2, 3, 2)
    assert quantile.heads_of_actions(values, T([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_greedy_heads_go_by_the_mean():
    """Two states, three actions, four heads: the third action in the first state, the first in the other."""
    values = torch.zeros(2, 3, 4)
    values[0, 2], values[0, 0, 1] = T([1.0, 2.0, 3.0, 4.0]), 9.0
    values[1, 0], values[1, 1, 3] = T([5.0, 0.0, 0.0, 0.0]), 4.0
    assert quantile.greedy_heads(values).tolist() == [[1.0, 2.0, 3.0, 4.0], [5.0, 0.0, 0.0, 0.0]]


def test_losses_stay_on_the_device_of_their_inputs():
    quantiles, targets = torch.zeros(2, 3, device="meta"), torch.zeros(2, 4, device="meta")
    assert quantile.quantile_huber_loss(quantiles, targets).device.type == "meta"


def test_quantile_huber_loss_by_hand():
    # levels 0.25 and 0.75; quantiles 0 and 2; one target 1.5
    # head 0: error 1.5, Huber 1.5 - 0.5 = 1, weight 0.25; head 1: error -0.5, Huber 0.125, weight |0.75 - 1|
    loss = quantile.quantile_huber_loss(T([[0.0, 2.0]]), T([[1.5]]))
    assert loss.item() == pytest.approx(0.25 * 1.0 + 0.25 * 0.125)


def test_quantile_huber_loss_sums_heads_and_averages_targets_and_batch():
    quantiles, targets = torch.randn(4, 3), torch.randn(4, 5)
    total = 0.0
    for b in range(4):
        for h in range(3):
            for t in range(5):
                error = (targets[b, t] - quantiles[b, h]).item()
                huber = 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
                total += abs((h + 0.5) / 3 - (error < 0)) * huber
    assert quantile.quantile_huber_loss(quantiles, targets).item() == pytest.approx(total / (4 * 5), rel=1e-5)


def test_quantiles_of_a_two_point_target_are_stationary_at_the_right_order_statistics():
    quantiles = T([[0.0, 10.0]], requires_grad=True)  # levels 0.25 and 0.75 of a fair coin on 0 and 10
    quantile.quantile_huber_loss(quantiles, T([[0.0, 10.0]])).backward()
    # head 0 sees error 0 and error 10 (slope 0.25); head 1 sees error -10 (slope 0.25 the other way) and 0
    assert quantiles.grad.tolist() == [[-0.125, 0.125]]


def test_discrete_conservative_gap():
    gap = quantile.discrete_conservative_gap(T([[0.0, math.log(3.0)], [2.0, 2.0]]), T([0, 1]))
    assert gap.item() == pytest.approx((math.log(4.0) + math.log(2.0)) / 2)
