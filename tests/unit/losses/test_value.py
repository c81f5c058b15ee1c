import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from chibit.losses import value

T = torch.tensor


def test_td_target_stops_at_a_termination_only():
    target = value.td_target(T([1.0, 1.0]), T([0.0, 1.0]), T([10.0, 10.0]), 0.9)
    assert target.tolist() == [10.0, 1.0]


def test_td_loss_is_a_mean_over_the_batch_and_a_sum_over_critics():
    # critic 0: errors 1 and 3, mean square 5; critic 1: errors 0 and 2, mean square 2
    assert value.td_loss(T([[2.0, 5.0], [1.0, 0.0]]), T([1.0, 2.0])).item() == 7.0


def test_scaled_value_divides_by_the_mean_size_without_a_gradient_through_it():
    values = T([2.0, -6.0], requires_grad=True)
    scaled = value.scaled_value(values, 2.5)
    assert scaled.item() == pytest.approx(2.5 * -2.0 / 4.0)
    scaled.backward()
    assert values.grad.tolist() == pytest.approx([2.5 / 2 / 4.0] * 2)


def test_scaled_value_of_zeros_is_zero():
    assert value.scaled_value(torch.zeros(3), 2.5).item() == 0.0


def test_behavior_cloned_value_loss():
    # mean Q 3, mean |Q| 3: the value part is -2.5 whatever its scale
    assert value.behavior_cloned_value_loss(T([2.0, 4.0]), T(0.5), 2.5).item() == pytest.approx(-2.0)
    assert value.behavior_cloned_value_loss(T([200.0, 400.0]), T(0.5), 2.5).item() == pytest.approx(-2.0)


def test_conservative_gap_is_an_importance_weighted_log_sum_exp():
    sampled = T([[[math.log(2.0), math.log(3.0)], [0.0, 0.0]]])  # one critic, two states, two actions
    log_densities = T([[math.log(0.5), 0.0], [0.0, 0.0]])
    data = T([[1.0, 0.5]])
    # state 0: log(2 / 0.5 + 3) - 1 = log 7 - 1; state 1: log 2 - 0.5
    expected = (math.log(7.0) - 1.0 + math.log(2.0) - 0.5) / 2
    assert value.conservative_gap(sampled, log_densities, data).tolist() == pytest.approx([expected])


def test_entropy_temperature_rises_while_entropy_is_too_low():
    log_temperature = T(0.5, requires_grad=True)
    loss = value.entropy_temperature_loss(log_temperature, T([2.0, 4.0]), -1.0)
    assert loss.item() == pytest.approx(-0.5 * (3.0 - 1.0))
    loss.backward()
    assert log_temperature.grad.item() == -2.0  # entropy -3 is below the target -1: descent raises it


def test_expectile_loss_weighs_the_sides():
    expected = (0.7 * 4 + 0.7 * 0.25 + 0.3 * 1) / 3
    assert value.expectile_loss(T([2.0, 0.5, -1.0]), 0.7).item() == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8))
def test_middle_expectile_is_half_the_squared_error(errors):
    errors = T(errors)
    half_squared = errors.square().mean().item() / 2
    assert value.expectile_loss(errors, 0.5).item() == pytest.approx(half_squared, abs=1e-6)


def test_exponential_weights_are_clipped_constants():
    advantages = T([0.0, math.log(2.0), 50.0], requires_grad=True)
    weights = value.exponential_weights(advantages, 3.0, 100.0)
    assert weights.tolist() == pytest.approx([1.0, 8.0, 100.0])
    assert not weights.requires_grad


def test_weighted_likelihood_loss():
    loss = value.weighted_likelihood_loss(T([-1.0, -2.0]), T([2.0, 0.5]))
    assert loss.item() == pytest.approx((2.0 + 1.0) / 2)


def test_sampled_divergence_averages_over_actions():
    divergence = value.sampled_divergence(T([[1.0, 3.0], [0.0, 0.0]]), T([[0.0, 0.0], [1.0, 0.0]]))
    assert divergence.tolist() == [2.0, -0.5]


def test_squared_distance_sums_over_dimensions():
    distance = value.squared_distance(T([[1.0, 1.0], [0.0, 0.0]]), T([[1.0, 3.0], [0.0, 0.0]]))
    assert distance.tolist() == [4.0, 0.0]


def test_bound_penalty_is_the_squared_excess_summed_over_dimensions_and_averaged_over_the_batch():
    means = T([[1.5, -3.0], [0.9, -1.0], [0.0, 0.0]])
    assert value.bound_penalty(means).item() == pytest.approx((0.25 + 4.0) / 3)


def test_lambda_returns_by_hand():
    # one episode of three steps and one of a single step; discount 0.5, lambda 0.5
    rewards, next_values = T([1.0, 2.0, 3.0, 7.0]), T([4.0, 8.0, 0.0, 2.0])
    returns = value.lambda_returns(rewards, next_values, T([0, 3, 4]), 0.5, 0.5)
    last = 3.0
    middle = 2.0 + 0.5 * (0.5 * 8.0 + 0.5 * last)
    first = 1.0 + 0.5 * (0.5 * 4.0 + 0.5 * middle)
    assert returns.tolist() == [first, middle, last, 8.0]


@pytest.mark.parametrize(("trace_decay", "expected"), [(0.0, [2.0, 3.5, 4.0]), (1.0, [3.0, 4.0, 4.0])])
def test_lambda_returns_span_one_step_and_monte_carlo(trace_decay, expected):
    returns = value.lambda_returns(T([1.0, 2.0, 3.0]), T([2.0, 3.0, 2.0]), T([0, 3]), 0.5, trace_decay)
    assert returns.tolist() == expected


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([3, 1024]),
)
def test_lambda_returns_obey_their_recurrence(lengths, discount, trace_decay, piece):
    starts = T([0, *lengths]).cumsum(0)
    generator = torch.Generator().manual_seed(sum(lengths))
    rewards, next_values = torch.randn(2, sum(lengths), generator=generator, dtype=torch.float64)
    with mock.patch.object(value, "_PIECE", piece):
        returns = value.lambda_returns(rewards, next_values, starts, discount, trace_decay)
    is_last = torch.zeros(sum(lengths), dtype=torch.bool)
    is_last[starts[1:] - 1] = True
    following = torch.where(is_last, next_values, returns.roll(-1))
    mixed = (1 - trace_decay) * next_values + trace_decay * following
    expected = rewards + discount * torch.where(is_last, next_values, mixed)
    torch.testing.assert_close(returns, expected)


class Counted(TorchDispatchMode):
    """How many operations of torch are done within."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += 1
        return function(*args, **(kwargs or {}))


def test_lambda_returns_of_one_long_episode_are_not_walked_step_by_step():
    """A log of a plant is one episode."""
    rewards = torch.full((100_000,), 0.5)
    with Counted() as counted:
        returns = value.lambda_returns(rewards, torch.zeros_like(rewards), T([0, 100_000]), 1.0, 0.5)
    torch.testing.assert_close(returns, torch.cat([torch.ones(99_970), 1 - 0.5 ** torch.arange(30, 0, -1)]))
    assert counted.number < 10_000
