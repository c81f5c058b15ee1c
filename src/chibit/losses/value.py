"""Losses of value-based agents with continuous actions, as pure functions of what the networks gave.

Targets are constants: callers compute them without gradients. Actions are in [-1, 1].

Dimensions: B batch · E critics · M sampled actions of a state · A act_dim · N steps of a data set.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PIECE = 1024
"""Steps that are walked one after the other; pieces of longer episodes are walked side by side."""


def td_target(rewards: Tensor, terminations: Tensor, next_values: Tensor, discount: float) -> Tensor:
    """One-step target r + discount (1 - d) V(s').

    Args:
        rewards: (B,).
        terminations: (B,) 1 where the environment ended the episode; a truncation is 0, it still has a value.
        next_values: (B,) value of s'.
        discount: in [0, 1].

    Returns:
        (B,).
    """
    return rewards + discount * (1.0 - terminations) * next_values


def td_loss(values: Tensor, target: Tensor) -> Tensor:
    """Mean squared error to the target, summed over the critics as TD3, CQL and IQL have it.

    Args:
        values: (E, B) Q(s, a) of each critic.
        target: (B,) constant.

    Returns:
        Scalar, at least 0.
    """
    return (values - target).square().mean(dim=1).sum()


def behavior_cloned_value_loss(values: Tensor, cloning_error: Tensor, alpha: float) -> Tensor:
    """Maximize the value, with its scale divided out, and stay near the data: Eq. 5 of Fujimoto & Gu (2021).

    Args:
        values: (B,) Q(s, pi(s)).
        cloning_error: scalar, the mean squared error of pi(s) to the data's actions.
        alpha: weight of the value; 2.5 in the paper.

    Returns:
        Scalar.
    """
    return cloning_error - scaled_value(values, alpha)


def scaled_value(values: Tensor, weight: float) -> Tensor:
    """Mean value divided by the mean size of values, times a weight; 0 where every value is 0.

    The divisor is held constant: no gradient flows into it.

    Args:
        values: (B,) or (E, B).
        weight: factor of the normalized value.

    Returns:
        Scalar in [-weight, weight].
    """
    scale = values.detach().abs().mean().clamp(min=torch.finfo(values.dtype).tiny)
    return weight * values.mean() / scale


def conservative_gap(sampled_values: Tensor, log_densities: Tensor, data_values: Tensor) -> Tensor:
    """How much the value of sampled actions exceeds that of the data: Eq. 4 of Kumar et al. (2020), CQL(H).

    The log-sum-exp over actions is estimated with importance weights, log sum_m exp(Q(s, a_m) - log p(a_m)),
    without the constant -log M, as the authors' code has it.

    Args:
        sampled_values: (E, B, M) Q(s, a_m).
        log_densities: (B, M) log-density of each action under what it was drawn from.
        data_values: (E, B) Q(s, a) of the data's actions.

    Returns:
        (E,) mean over the batch for each critic.
    """
    soft_maximum = torch.logsumexp(sampled_values - log_densities, dim=-1)  # (E, B)
    return (soft_maximum - data_values).mean(dim=1)


def entropy_temperature_loss(log_temperature: Tensor, log_probs: Tensor, target_entropy: float) -> Tensor:
    """Raise the temperature while the policy's entropy is below the target (Haarnoja et al., 2018).

    Args:
        log_temperature: scalar parameter.
        log_probs: (B,) log-density of the policy's own actions; no gradient flows into them.
        target_entropy: in nats; -A by their rule.

    Returns:
        Scalar.
    """
    return -log_temperature * (log_probs.detach().mean() + target_entropy)


def expectile_loss(errors: Tensor, expectile: float) -> Tensor:
    """Asymmetric squared error |expectile - 1(error < 0)| error²: Eq. 5 of Kostrikov et al. (2021).

    Args:
        errors: (B,) target minus prediction.
        expectile: in (0, 1); 0.5 is half the mean squared error, toward 1 it approaches the maximum.

    Returns:
        Scalar, at least 0.
    """
    return torch.where(errors < 0, 1.0 - expectile, expectile).mul(errors.square()).mean()


def exponential_weights(advantages: Tensor, scale: float, max_weight: float) -> Tensor:
    """exp(scale · advantage), clipped: the weights of advantage-weighted regression and of IQL.

    Args:
        advantages: (B,).
        scale: inverse temperature.
        max_weight: upper bound of a weight.

    Returns:
        (B,) constant, in [0, max_weight].
    """
    return (scale * advantages.detach()).exp().clamp(max=max_weight)


def weighted_likelihood_loss(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Weighted maximum likelihood, -mean(w log pi(a|s)), the actor's loss of AWR and of IQL.

    Eq. 9 of Peng et al. (2019) and Eq. 7 of Kostrikov et al. (2021).

    Args:
        log_probs: (B,) log-density of the data's actions.
        weights: (B,) constant.

    Returns:
        Scalar.
    """
    return -(weights * log_probs).mean()


def sampled_divergence(policy_log_probs: Tensor, behavior_log_probs: Tensor) -> Tensor:
    """KL(policy || behavior) of each state, sampled: the primal form of Wu et al. (2019).

    Args:
        policy_log_probs: (B, M) log pi(a_m|s), a_m drawn from pi.
        behavior_log_probs: (B, M) log b(a_m|s).

    Returns:
        (B,); an estimate may be negative, the divergence itself is not.
    """
    return (policy_log_probs - behavior_log_probs).mean(dim=1)


def squared_distance(actions: Tensor, others: Tensor) -> Tensor:
    """Squared Euclidean distance of actions: the penalty of ReBRAC (Tarasov et al., 2023).

    Args:
        actions: (B, A).
        others: (B, A).

    Returns:
        (B,), at least 0.
    """
    return (actions - others).square().sum(dim=-1)


def bound_penalty(means: Tensor) -> Tensor:
    """Squared excess of a Gaussian's mean over [-1, 1]: twice the action bound loss of Peng et al. (2019).

    Args:
        means: (B, A) unbounded.

    Returns:
        Scalar, sum over dimensions and mean over the batch, at least 0; 0 where every mean is inside.
    """
    excess = (means.abs() - 1.0).clamp(min=0.0)
    return excess.square().sum(dim=-1).mean()


def lambda_returns(
    rewards: Tensor, next_values: Tensor, episode_starts: Tensor, discount: float, trace_decay: float
) -> Tensor:
    """TD(lambda) returns of every step, G_t = r_t + discount ((1 - lambda) V_{t+1} + lambda G_{t+1}).

    The last step of an episode has G_t = r_t + discount V_{t+1}. All episodes are walked backwards side by
    side, and so are pieces of long ones.

    Args:
        rewards: (N,) of episodes end to end.
        next_values: (N,) value of the state after each step, 0 after a termination.
        episode_starts: (E + 1,) int64 first row of each episode, then N; on the CPU, so that nothing waits.
        discount: in [0, 1].
        trace_decay: lambda in [0, 1]; 0 gives one-step targets, 1 Monte Carlo returns.

    Returns:
        (N,) in the type of `rewards`.
    """
    lengths, ends = _longest_first(episode_starts, rewards.device)
    one_step = rewards + discount * (1.0 - trace_decay) * next_values
    one_step[ends] = rewards[ends] + discount * next_values[ends]
    decay = discount * trace_decay
    if int(lengths[0]) > _PIECE:
        return _by_pieces(one_step, episode_starts, decay)
    return _sums_to_come(one_step, lengths, ends, decay)


def _longest_first(starts: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Lengths (E,) of episodes, and their last steps on the device, both from the longest on."""
    lengths, order = torch.sort(starts.diff(), descending=True, stable=True)
    return lengths, (starts[1:] - 1)[order].to(device)


def _sums_to_come(values: Tensor, lengths: Tensor, ends: Tensor, decay: float) -> Tensor:
    """Sums S_t = values_t + decay S_{t+1} (N,) within episodes, which `_longest_first` gives; in place."""
    after = values[ends]
    # Episodes longer than k steps, for k = 1, 2, ...: the first ones of `ends`, since they are sorted.
    num_longer = len(ends) - torch.bincount(lengths).cumsum(0)
    for steps_back, count in enumerate(num_longer[1:-1].tolist(), start=1):
        rows = ends[:count] - steps_back
        after = values[rows] + decay * after[:count]
        values[rows] = after
    return values


def _by_pieces(values: Tensor, starts: Tensor, decay: float) -> Tensor:
    """The same by pieces of episodes: each by itself, then their first steps, then what follows each."""
    counts = -(-starts.diff() // _PIECE)  # (E,) pieces; all but an episode's last one are full
    bounds = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # (E + 1,) pieces before each episode
    places = torch.arange(int(bounds[-1])) - bounds[:-1].repeat_interleave(counts)
    pieces = torch.cat([starts[:-1].repeat_interleave(counts) + _PIECE * places, starts[-1:]])
    lengths, device = pieces.diff(), values.device
    values = _sums_to_come(values, *_longest_first(pieces, device), decay)
    firsts = values[pieces[:-1].to(device)]
    following = _sums_to_come(firsts, *_longest_first(bounds, device), decay**_PIECE).roll(-1)
    following[bounds[1:].to(device) - 1] = 0.0
    left = _PIECE - torch.arange(len(values)) + pieces[:-1].repeat_interleave(lengths)  # to the next
    return values + decay ** left.to(values) * following.repeat_interleave(lengths.to(device))
