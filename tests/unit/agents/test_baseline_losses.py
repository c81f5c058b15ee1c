"""Every loss of every baseline, by hand: the networks give constants, so that no number is hidden in them."""

import math
from unittest.mock import patch

import pytest
import torch

from baseline_toys import NUM_ACTIONS, small_agent
from chibit.agents.cql import ConservativeBatch
from chibit.data.samplers.transitions import TransitionBatch

REWARDS, ENDS = [1.0, 2.0], [0.0, 1.0]
TARGET_VALUES, VALUES = (3.0, 5.0), (1.0, 2.0)
LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)


def constant(network, outputs):
    """Make a network give the same outputs everywhere; for a stack, one for each member."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        outputs = torch.tensor(outputs, dtype=torch.float32)
        if hasattr(network, "head"):
            network.head.bias.copy_(outputs)
        elif hasattr(network.mlp, "layers"):
            network.mlp.layers[-1].bias.copy_(outputs)
        else:
            network.mlp.biases[-1].copy_(outputs.view(-1, 1, 1))


def make_agent(name, **changes):
    """An agent whose critics give 1 and 2, whose target critics give 3 and 5, and whose actors give 0."""
    agent, _ = small_agent(name, **changes)
    for network, outputs in (("critics", VALUES), ("target_critics", TARGET_VALUES)):
        if hasattr(agent, network):
            constant(getattr(agent, network), outputs)
    for network in ("actor", "target_actor", "behavior"):
        if hasattr(agent, network):
            actor = getattr(agent, network)
            constant(actor, [0.0] * len(actor.mlp.layers[-1].bias))
    return agent


def make_batch(actions=((0.5,), (-0.5,)), state_dim=1):
    return TransitionBatch(
        states=torch.zeros(2, state_dim),
        actions=torch.tensor(actions),
        rewards=torch.tensor(REWARDS),
        next_states=torch.zeros(2, state_dim),
        terminations=torch.tensor(ENDS),
        rows=torch.tensor([0, 1]),
    )


def squared_errors(next_value):
    """Loss of critics that give 1 and 2, to r + 0.99 next_value and, after the termination, r alone."""
    targets = (REWARDS[0] + 0.99 * next_value, REWARDS[1])
    return sum(((v - targets[0]) ** 2 + (v - targets[1]) ** 2) / 2 for v in VALUES)


def loss_of(result):
    return result[0].item()


def test_bc():
    agent, batch = make_agent("bc"), make_batch()
    assert loss_of(agent.actor_loss(batch.states, batch.actions)) == pytest.approx(0.25)


def test_td3_bc():
    agent, batch = make_agent("td3_bc", alpha=2.5), make_batch()
    assert loss_of(agent.critic_loss(batch)) == pytest.approx(squared_errors(3.0))
    constant(agent.critics, (7.0, 2.0))  # the first critic alone counts, and its scale does not
    assert loss_of(agent.actor_loss(batch)) == pytest.approx(0.25 - 2.5)


@pytest.mark.parametrize("name", ["td3_bc", "rebrac"])
@pytest.mark.parametrize(("raw", "low", "high"), [(0.0, -0.1, 0.1), (100.0, 0.9, 1.0)])
def test_target_actions_are_smoothed_within_the_clip_and_the_bounds(name, raw, low, high):
    agent, sampler = small_agent(name, policy_noise=10.0, noise_clip=0.1)
    constant(agent.target_actor, [raw])
    with patch.object(agent.target_critics, "forward", wraps=agent.target_critics.forward) as calls:
        agent.critic_loss(sampler.sample())
    actions = calls.call_args.args[1]
    assert actions.min() >= low - 1e-6
    assert actions.max() <= high + 1e-6
    assert actions.max() - actions.min() > 0.05  # the noise is far above its clip: both ends are reached


def test_rebrac():
    agent, batch = make_agent("rebrac", actor_penalty=0.1, critic_penalty=2.0), make_batch()
    with patch.object(agent, "next_distance", return_value=torch.tensor([0.5, 0.5])):
        assert loss_of(agent.critic_loss(batch)) == pytest.approx(squared_errors(3.0 - 2.0 * 0.5))
    assert loss_of(agent.actor_loss(batch)) == pytest.approx(0.1 * 0.25 - 1.0)


def test_cql():
    agent, batch = make_agent("cql", conservative_weight=5.0), make_batch()
    conservative = ConservativeBatch(
        states=batch.states,
        actions=torch.zeros(2, 3, 1),
        log_densities=torch.log(torch.tensor([[0.5, 0.25], [1.0, 1.0]])),
        target=torch.tensor([4.0, 2.0]),
    )
    td = ((1 - 4) ** 2 + (1 - 2) ** 2) / 2 + ((2 - 4) ** 2 + 0) / 2
    gap = (math.log(1 / 0.5 + 1 / 0.25) + math.log(2.0)) / 2  # of either critic: its own constant cancels
    assert loss_of(agent.critic_loss(conservative)) == pytest.approx(td + 5.0 * 2 * gap, rel=1e-6)
    target = agent.conservative_batch(batch, agent.actor(batch.states)).target
    assert target.tolist() == pytest.approx([1.0 + 0.99 * 3.0, 2.0])  # no entropy in it
    with torch.no_grad():
        agent.temperature["log"].fill_(math.log(0.5))
    log_probs = torch.tensor([2.0, 4.0])
    assert loss_of(agent.actor_loss(batch.states, batch.actions, log_probs)) == pytest.approx(0.5 * 3.0 - 1.0)
    assert loss_of(agent.temperature_loss(log_probs)) == pytest.approx(-math.log(0.5) * (3.0 - 1.0))


def test_brac_v():
    agent, batch = make_agent("brac_v", divergence_weight=2.0), make_batch()
    with patch.object(agent, "_divergence", return_value=(torch.zeros(2, 1), torch.tensor([0.5, 0.25]))):
        # the second transition has ended: its divergence does not count
        assert loss_of(agent.critic_loss(batch)) == pytest.approx(squared_errors(3.0 - 2.0 * 0.5))
        assert loss_of(agent.actor_loss(batch)) == pytest.approx(2.0 * 0.375 - 1.0)
    # mean 0 and log standard deviation -2.5, the middle of [-5, 0], before tanh
    raw = math.atanh(0.5)
    log_prob = -0.5 * (raw * math.exp(2.5)) ** 2 + 2.5 - LOG_SQRT_TWO_PI - math.log(1 - 0.25)
    assert loss_of(agent.behavior_loss(batch)) == pytest.approx(-log_prob, rel=1e-5)


def test_iql():
    agent, batch = make_agent("iql", expectile=0.7, inverse_temperature=2.0), make_batch()
    constant(agent.value, [2.5])
    advantages = agent.advantages(batch)
    assert advantages.tolist() == pytest.approx([0.5, 0.5])
    assert loss_of(agent.value_loss(advantages)) == pytest.approx(0.7 * 0.25)
    assert loss_of(agent.value_loss(-advantages)) == pytest.approx(0.3 * 0.25)
    assert loss_of(agent.critic_loss(batch)) == pytest.approx(squared_errors(2.5))
    log_prob = -0.5 * 0.25 - LOG_SQRT_TWO_PI  # mean 0, standard deviation 1
    assert loss_of(agent.actor_loss(batch, advantages)) == pytest.approx(-math.exp(1.0) * log_prob)


def test_awr():
    agent, batch = make_agent("awr", action_std=0.5, bound_weight=10.0, discount=0.99), make_batch()
    constant(agent.value, [0.5])
    # values are in units of 1 / (1 - discount) = 100: the returns are 1 and 0.2 of them
    value_loss = agent.value_loss(batch.states, torch.tensor([100.0, 20.0]))
    assert loss_of(value_loss) == pytest.approx(0.5 * (0.25 + 0.09) / 2, rel=1e-5)
    constant(agent.actor, [1.5])
    log_probs = [-0.5 * ((a - 1.5) / 0.5) ** 2 - math.log(0.5) - LOG_SQRT_TWO_PI for a in (0.5, -0.5)]
    expected = -(3.0 * log_probs[0] + 1.0 * log_probs[1]) / 2 + 10.0 * 0.25
    loss = agent.actor_loss(batch.states, batch.actions, torch.tensor([3.0, 1.0]))
    assert loss_of(loss) == pytest.approx(expected, rel=1e-5)


def make_discrete_agent(name, **changes):
    """All eight heads of the three actions give 0, 0.5, 0; those of the target network 1, 3, 2."""
    agent, _ = small_agent(name, **changes)
    constant(agent.critic, [v for v in (0.0, 0.5, 0.0) for _ in range(8)])
    constant(agent.target_critic, [v for v in (1.0, 3.0, 2.0) for _ in range(8)])
    return agent


def discrete_batch():
    return make_batch((1, 2), state_dim=NUM_ACTIONS)


ERRORS = (1.0 + 0.99 * 3.0 - 0.5, 2.0 - 0.0)
"""Of the actions 1 and 2, both above Huber's threshold; the greedy action in s' is worth 3."""


def test_qr_dqn():
    loss = make_discrete_agent("qr_dqn").critic_loss(discrete_batch())
    # the levels of eight quantiles sum to 4
    assert loss_of(loss) == pytest.approx(4.0 * sum(error - 0.5 for error in ERRORS) / 2, rel=1e-6)


def test_rem():
    loss = make_discrete_agent("rem").critic_loss(discrete_batch())
    assert loss_of(loss) == pytest.approx(sum(error - 0.5 for error in ERRORS) / 2, rel=1e-5)


def test_discrete_cql():
    loss = make_discrete_agent("discrete_cql", conservative_weight=3.0).critic_loss(discrete_batch())
    soft_maximum = math.log(2.0 + math.exp(0.5))
    gap = ((soft_maximum - 0.5) + (soft_maximum - 0.0)) / 2
    td = 4.0 * sum(error - 0.5 for error in ERRORS) / 2
    assert loss_of(loss) == pytest.approx(td + 3.0 * gap, rel=1e-5)


def test_discrete_bc():
    agent, _ = small_agent("discrete_bc")
    constant(agent.actor, [0.0] * NUM_ACTIONS)
    assert loss_of(agent.actor_loss(discrete_batch())) == pytest.approx(math.log(NUM_ACTIONS))
