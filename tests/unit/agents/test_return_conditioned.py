"""Acting: returns-to-go by hand, the windows of training, episodes that end, long episodes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import chibit
from chibit.agents.dt.acting import ReturnConditionedPolicy
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime
from chibit.data.samplers.windows import WindowSampler
from chibit.evaluation.rollout import rollout
from sequence_toys import make_small, scratch, target_return_data
from toys import CountdownEnv, IdentityEnv, TargetReturnEnv, play_toy


class Spy(nn.Module):
    """Records what a model is asked, and answers with the call's number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, *inputs: Tensor, last_only: bool) -> Tensor:
        assert last_only
        self.calls.append(tuple(x.clone() for x in inputs))
        return torch.full((len(inputs[0]), 1, 1), len(self.calls) / 100)


def make_policy(model: nn.Module, targets: list[float], context_length: int = 3, **changes: Any) -> Any:
    spec = target_return_data().spec
    spec = dataclasses.replace(spec, state_mean=(1.0,), state_std=(2.0,))
    return ReturnConditionedPolicy(
        model, spec, targets, context_length=context_length, runtime=Runtime(), **changes
    )


def look(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


NOT_OVER = np.zeros(2, bool)


def test_what_the_model_is_asked_step_by_step() -> None:
    spy = Spy()
    policy = make_policy(spy, [10.0, 4.0])
    policy.reset(2)
    for step in range(4):
        actions = policy.act(look(step, -step))
        assert actions.dtype == np.float32
        np.testing.assert_allclose(actions, np.full((2, 1), (step + 1) / 100))
        policy.observe(np.array([1.0, 0.5]), NOT_OVER)
    returns_to_go, states, actions, timesteps = spy.calls[2]
    assert returns_to_go.tolist() == [[10.0, 9.0, 8.0], [4.0, 3.5, 3.0]]
    assert states[..., 0].tolist() == [[-0.5, 0.0, 0.5], [-0.5, -1.0, -1.5]]
    np.testing.assert_allclose(actions[:, :2, 0], [[0.01, 0.02]] * 2)
    assert timesteps.tolist() == [[0, 1, 2]] * 2
    returns_to_go, _, actions, timesteps = spy.calls[3]
    assert returns_to_go.tolist() == [[9.0, 8.0, 7.0], [3.5, 3.0, 2.5]]
    np.testing.assert_allclose(actions[:, :2, 0], [[0.02, 0.03]] * 2)
    assert timesteps.tolist() == [[1, 2, 3]] * 2
    assert [call[0].shape[1] for call in spy.calls] == [1, 2, 3, 3]


def test_delayed_mode_keeps_asking_for_the_whole_return() -> None:
    spy = Spy()
    policy = make_policy(spy, [10.0], reward_mode="sparse")
    policy.reset(2)
    for _ in range(3):
        policy.act(look(0, 0))
        policy.observe(np.array([5.0, 7.0]), NOT_OVER)
    assert spy.calls[-1][0].tolist() == [[10.0] * 3] * 2


def test_targets_are_dealt_out_in_blocks() -> None:
    spy = Spy()
    policy = make_policy(spy, [10.0, 4.0, 1.0])
    policy.reset(6)
    policy.act(np.zeros((6, 1)))
    assert spy.calls[0][0][:, 0].tolist() == [10.0, 10.0, 4.0, 4.0, 1.0, 1.0]
    with pytest.raises(InputError, match="multiple of the 3 targets"):
        policy.reset(4)


@pytest.mark.parametrize("targets", [[], [float("nan")], [1.0, float("inf")]])
def test_senseless_targets_are_refused(targets: list[float]) -> None:
    with pytest.raises(InputError, match="target_returns"):
        make_policy(Spy(), targets)


def test_finished_episodes_leave_the_batch() -> None:
    spy = Spy()
    policy = make_policy(spy, [10.0])
    policy.reset(3)
    ended = np.zeros(3, bool)
    for step, ends in enumerate([1, 0, None]):
        observations = np.array([[step], [np.nan if ended[1] else step], [step]], np.float32)
        actions = policy.act(observations)
        assert np.isfinite(actions).all()
        ended[ends] = ends is not None or ended[ends]
        policy.observe(np.ones(3), ended.copy())
    assert [len(call[0]) for call in spy.calls] == [3, 2, 1]
    assert all(torch.isfinite(call[1]).all() for call in spy.calls)
    policy.reset(3)
    policy.act(np.zeros((3, 1)))
    assert spy.calls[-1][0].tolist() == [[10.0]] * 3


@pytest.mark.parametrize("context_length", [1, 2, 5])
def test_histories_outlast_their_buffer(context_length: int) -> None:
    spy = Spy()
    policy = make_policy(spy, [0.0], context_length)
    policy.reset(1)
    steps = 30 * context_length
    for step in range(steps):
        policy.act(look(2 * step + 1))
        policy.observe(np.array([1.0]), NOT_OVER[:1])
    for step, (returns_to_go, states, actions, timesteps) in enumerate(spy.calls):
        first = max(0, step + 1 - context_length)
        window = list(range(first, step + 1))
        assert timesteps[0].tolist() == window
        assert returns_to_go[0].tolist() == [-t for t in window]
        assert states[0, :, 0].tolist() == window
        np.testing.assert_allclose(actions[0, :-1, 0], [min((t + 1) / 100, 1.0) for t in window[:-1]])


def recorded(agent: Any, env: Any, num_episodes: int, target: float) -> Any:
    """A data set of an agent's own episodes."""
    policy = agent.policy([target])
    rows: dict[str, list] = {n: [] for n in ("observations", "actions", "rewards", "terminations")}
    for episode in range(num_episodes):
        policy.reset(1)
        observation, over = env.reset(seed=episode)[0], False
        while not over:
            action = policy.act(np.asarray(observation)[None])[0]
            following, reward, over, _, _ = env.step(action)
            policy.observe(np.array([reward]), np.array([over]))
            for values, value in zip(rows.values(), (observation, action, reward, over), strict=True):
                values.append(value)
            observation = following
    return chibit.from_arrays(**{n: np.array(v) for n, v in rows.items()}, cache=scratch())


@pytest.mark.parametrize(
    "switches",
    [{}, {"timestep_position": "before_norm", "timestep_table": "normal"}, {"head": "tied"}],
    ids=["wrapper", "chen", "shared"],
)
def test_a_window_gives_one_answer_in_training_and_in_acting(switches: dict) -> None:
    """Also where episodes end early, and with the padding of the training batch."""
    agent, sampler = make_small(**switches)
    for _ in range(30):
        agent.update(sampler.sample())
    # What the target was does not matter: it is replaced by the returns that were reached.
    dataset = recorded(agent, TargetReturnEnv(), 3, 5.0)
    policy = agent.policy([0.0])
    windows = WindowSampler(
        dataclasses.replace(dataset, spec=agent.spec),
        context_length=4,
        batch_size=1,
        generator=np.random.default_rng(0),
    )
    agent.model.eval()
    for episode in range(3):
        start, end = dataset.episode_starts[episode : episode + 2]
        policy.reset(1, target_return=dataset.returns_to_go[start])
        for row in range(start, end):
            acted = policy.act(dataset.observations[row][None])[0]
            first = max(start, row - 3)
            batch = windows.windows(np.array([first]))
            inputs = (batch.returns_to_go, batch.states, batch.actions, batch.timesteps)
            with torch.no_grad():
                trained = agent.model(*inputs)[0, row - first].numpy()
            np.testing.assert_allclose(acted, trained, atol=1e-5)
            over, done = np.array([row + 1 == end]), dataset.actions[row : row + 1]
            policy.observe(dataset.rewards[row : row + 1], over, done)


def test_an_episode_is_the_same_alone_and_among_others() -> None:
    agent, sampler = make_small()
    for _ in range(20):
        agent.update(sampler.sample())
    lengths = [3, 7, 10, 10]
    together = rollout(agent.policy([5.0]), [TargetReturnEnv(n) for n in lengths], [0, 1, 2, 3])
    for i, length in enumerate(lengths):
        (alone,) = rollout(agent.policy([5.0]), [TargetReturnEnv(length)], [i])
        assert alone.length == together[i].length == length
        assert alone.raw_return == pytest.approx(together[i].raw_return, abs=1e-5)


def test_countdown_returns_are_exact() -> None:
    agent, _ = make_small()
    environments = [CountdownEnv(n, truncates=n % 2 == 0) for n in (1, 5, 12)]
    episodes = rollout(agent.policy([3.0]), environments, [0, 0, 0])
    assert [episode.raw_return for episode in episodes] == [1.0, 5.0, 12.0]


def test_acting_leaves_mode_and_random_state_alone() -> None:
    agent, _ = make_small()
    agent.model.train()
    state = torch.get_rng_state()
    policy = agent.policy([1.0])
    policy.reset(1)
    first = policy.act(look(0.3))
    assert agent.model.training
    assert torch.equal(torch.get_rng_state(), state)
    policy.reset(1)
    assert np.array_equal(policy.act(look(0.3)), first)  # no dropout


def test_heads_without_tanh_stay_within_the_bounds() -> None:
    agent, _ = make_small(projections="residual_mlp")
    nn.init.constant_(agent.model.action_head[-1].bias, 7.0)
    policy = agent.policy([1.0])
    policy.reset(1)
    assert policy.act(look(0.0)).tolist() == [[1.0]]


def test_discrete_actions_are_drawn_from_the_models_distribution() -> None:
    dataset = play_toy(IdentityEnv(num_actions=3), 5, scratch())
    agent, _ = make_small(dataset)
    head = agent.model.action_head
    nn.init.zeros_(head.weight)
    head.bias.data = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    policy = agent.policy([10.0])
    policy.reset(3000)
    actions = policy.act(np.zeros((3000, 3)))
    assert actions.dtype == np.int64
    np.testing.assert_allclose(np.bincount(actions) / 3000, [0.5, 0.3, 0.2], atol=0.03)
    policy.reset(3000)
    again = policy.act(np.zeros((3000, 3)))
    assert 0.5 < (again != actions).mean() < 0.75  # other draws: 1 - .25 - .09 - .04
    for seed, same in ((7, True), (8, False)):
        policy.reset(3000, seed=7)
        one = policy.act(np.zeros((3000, 3)))
        policy.reset(3000, seed=seed)
        assert np.array_equal(policy.act(np.zeros((3000, 3))), one) == same
    policy.greedy = True
    policy.reset(3000)
    assert not policy.act(np.zeros((3000, 3))).any()


def test_an_episode_that_begins_late_acts_as_one_that_is_alone() -> None:
    """Contexts of four, resets in the middle of others: windows of several lengths at once."""
    agent, sampler = make_small()
    for _ in range(20):
        agent.update(sampler.sample())
    rng = np.random.default_rng(0)
    seen, rewards = rng.uniform(size=(40, 3, 1)).astype(np.float32), rng.normal(size=(40, 3))
    begins = {0: {0: 5.0, 1: 5.0, 2: 5.0}, 6: {1: -3.0}, 8: {1: 2.0, 2: 7.0}, 37: {0: 1.0}}
    together = agent.policy([5.0])
    alone = [agent.policy([5.0]) for _ in range(3)]
    together.reset(3)
    for step in range(40):
        for e, target in begins.get(step, {}).items():
            together.reset(3, envs=[e], target_return=target)
            alone[e].reset(1, target_return=target)
        acted = together.act(seen[step])
        for e in range(3):
            np.testing.assert_allclose(acted[e], alone[e].act(seen[step, e][None])[0], atol=1e-6)
            alone[e].observe(rewards[step, e][None], np.array([False]))
        together.observe(rewards[step], np.zeros(3, bool))


def test_steps_past_the_timestep_table_get_its_last_row() -> None:
    agent, _ = make_small(max_timesteps=6)
    (episode,) = rollout(agent.policy([3.0]), [TargetReturnEnv(12)], [0])
    assert episode.length == 12
    assert episode.fault is None
