from dataclasses import replace

import numpy as np
import pytest
import torch

import chibit
from chibit.agents import make_agent
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime
from chibit.judging.replay import action_error, replay
from chibit.models.gpt import GPTShape
from judging_toys import Acts, home, make_log, step


def test_a_clone_replays_what_it_gives_for_all_states_at_once(line_judge, line_log):
    clone = line_judge.fitted.clone
    shown = replay(clone.policy(), line_log, [3, 0, 7])
    rows = np.concatenate(
        [np.arange(line_log.episode_starts[e], line_log.episode_starts[e + 1]) for e in (3, 0, 7)]
    )
    assert np.array_equal(shown.observations, line_log.observations[rows])
    assert np.array_equal(shown.logged, line_log.actions[rows])
    np.testing.assert_allclose(shown.chosen, clone.choose(line_log.observations[rows]), atol=1e-6)


def test_a_sequence_model_replays_its_own_episodes(tmp_path):
    """It remembers states, rewards and actions: shown its own past, it does again what it did."""
    config = DecisionTransformerConfig(gpt=GPTShape(n_layer=1, n_embd=16), context_length=5)
    torch.manual_seed(0)
    agent = make_agent(config, make_log(tmp_path).spec, Runtime())
    states = np.linspace(-1, 1, 4, dtype=np.float32)[:, None]
    lengths = np.array([12, 9, 12, 3])
    policy, rows = agent.policy([20.0]), []
    policy.reset(4)
    for t in range(12):
        actions = policy.act(states)
        following = step(states, actions).astype(np.float32)
        rows.append((states, actions, states[:, 0], following))
        policy.observe(states[:, 0], lengths <= t + 1)
        states = following
    seen, done, rewards, after = (np.stack(parts, 1) for parts in zip(*rows, strict=True))
    kept = np.arange(12) < lengths[:, None]
    own = chibit.from_arrays(
        seen[kept],
        done[kept],
        rewards[kept],
        np.zeros(kept.sum(), bool),
        (np.arange(12) == lengths[:, None] - 1)[kept],
        next_observations=after[kept],
        name="own",
        cache=tmp_path,
    )
    np.testing.assert_allclose(replay(agent.policy([20.0]), own, range(4)).chosen, done[kept], atol=1e-5)
    changed = replace(own, records=own.records.copy())
    changed.records[:, 2] = 0.5  # what it is told to have done, and not what it would have done
    told = replay(agent.policy([20.0]), changed, range(4)).chosen
    first = np.zeros(len(told), bool)
    first[own.episode_starts[:-1]] = True
    np.testing.assert_allclose(told[first], done[kept][first], atol=1e-5)
    assert (np.abs(told - done[kept]) > 1e-4)[~first].any()
    asked_otherwise = replay(agent.policy([-900.0]), own, range(4)).chosen
    assert np.abs(asked_otherwise - done[kept]).max() > 1e-4


def test_a_policy_sees_logged_rewards_and_ends(line_log):
    policy = Acts(home)
    replay(policy, line_log, [0, 1])
    rewards, dones = (np.array(parts) for parts in zip(*policy.observed, strict=True))
    assert np.array_equal(rewards[:, 1], line_log.trajectory(1).rewards)
    assert not dones[:-1].any() and dones[-1].all()


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda seen: np.zeros(len(seen)), r"shape \(2,\), expected \(2, 1\)"),
        (lambda seen: np.full((len(seen), 1), np.inf), "not finite at step 0"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(line_log, choose, message):
    with pytest.raises(InputError, match=message):
        replay(Acts(choose), line_log, [0, 1])


def test_errors_by_hand(tmp_path):
    shown = replay(Acts(np.zeros_like), make_log(tmp_path, 10, 2), range(10))
    error = action_error(shown, np.array([2.0]))
    assert error.mean == pytest.approx((shown.logged.astype(float) ** 2).mean())
    assert error.by_dimension == pytest.approx([error.mean**0.5 / 2])
