"""Data that baselines refuse in one line, and odd data that they take by a stated rule."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import chibit
from baseline_toys import (
    CONTINUOUS,
    DISCRETE,
    identity_data,
    scratch,
    small_agent,
    small_config,
    with_columns,
)
from chibit.agents import AGENTS, DiscreteAgent, adam, make_agent
from chibit.agents.discrete import DiscreteConfig
from chibit.core.errors import InputError
from chibit.core.fields import Count
from chibit.core.runtime import Runtime
from chibit.models.actors import CategoricalActor
from chibit.training.held_out import HeldOutError

ALL = CONTINUOUS + DISCRETE
CLONES = ("bc", "discrete_bc")


def columns(num_episodes, length, *, is_discrete, next_observations=True, terminates=True):
    """Episodes of random play, each ended by a termination or by a cut."""
    rng = np.random.default_rng(0)
    num_steps = num_episodes * length
    ends = np.zeros(num_steps, bool)
    ends[length - 1 :: length] = True
    data = {
        "observations": rng.standard_normal((num_steps, 2)).astype(np.float32),
        "actions": rng.integers(0, 3, num_steps)
        if is_discrete
        else rng.uniform(-1, 1, (num_steps, 1)).astype(np.float32),
        "rewards": rng.standard_normal(num_steps).astype(np.float32),
        "terminations": ends if terminates else np.zeros(num_steps, bool),
        "truncations": np.zeros(num_steps, bool) if terminates else ends,
    }
    if next_observations:
        data["next_observations"] = rng.standard_normal((num_steps, 2)).astype(np.float32)
    return data


def load(**kwargs):
    return chibit.from_arrays(**columns(**kwargs), cache=scratch())


def assert_one_line(caught, *words):
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_agents_refuse_discrete_data(name):
    with pytest.raises(InputError) as caught:
        make_agent(small_config(name), identity_data(True).spec, Runtime())
    assert_one_line(caught, name, "discrete", "qr_dqn")


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_agents_refuse_continuous_data(name):
    with pytest.raises(InputError) as caught:
        make_agent(small_config(name), identity_data(False).spec, Runtime())
    assert_one_line(caught, name, "continuous", "td3_bc")


@pytest.fixture
def likeliest():
    """A method of somebody's own, with the members that docs/extend.md asks for and no other."""

    @dataclass(frozen=True, kw_only=True)
    class LikeliestConfig(DiscreteConfig):
        agent: ClassVar[str] = "likeliest"
        batch_size: Count = 4
        """Transitions in a batch."""

    class Likeliest(DiscreteAgent, config=LikeliestConfig):
        def build(self):
            self.head = CategoricalActor(self.encoder(), self.num_actions)
            return {"head": adam(self.head, 0.1)}

        def losses(self, batch):
            return {"head": (torch.nn.functional.cross_entropy(self.head(batch.states), batch.actions), {})}

        def act(self, states):
            return self.head(states).argmax(1)

    yield LikeliestConfig()
    del AGENTS["likeliest"]


def test_three_members_are_a_method_of_discrete_actions(likeliest):
    data = identity_data(True)
    agent = make_agent(likeliest, data.spec, Runtime())
    batch = agent.sampler(data, np.random.default_rng(0)).sample()
    wrong = agent.act(batch.states) != batch.actions
    assert agent.action_error(batch) == wrong.float().mean().item()
    assert agent.action_error_name == "action_mismatch"  # which no report takes for a cross-entropy
    agent.update(batch)


def test_a_refusal_names_the_methods_that_take_the_data_somebodys_own_too(likeliest):
    with pytest.raises(InputError, match="discrete; use dt, reinformer, discrete_bc, .*, likeliest$"):
        make_agent(small_config("bc"), identity_data(True).spec, Runtime())
    with pytest.raises(InputError, match="continuous; use dt, reinformer, bc, .*rebrac$"):
        make_agent(likeliest, identity_data(False).spec, Runtime())
    spec = identity_data(False).spec
    picture = replace(spec, image_shape=(1, 1, spec.state_dim), state_mean=(), state_std=())
    with pytest.raises(InputError, match="^agent bc: .* are pictures; use dt, reinformer$"):
        make_agent(small_config("bc"), picture, Runtime())


@pytest.mark.parametrize("name", CONTINUOUS)
def test_actions_beyond_the_datas_own_bounds_are_refused(name):
    dataset = identity_data(False)
    actions = np.array(dataset.actions)
    actions[7] = 1.5
    dataset = with_columns(dataset, actions=actions)
    assert dataset.spec.env_id is None
    with pytest.raises(InputError) as caught:
        small_agent(name, dataset)
    assert_one_line(caught, "action dimension 0", "1.5", "-1 to 1")


@pytest.mark.parametrize("name", CONTINUOUS)
def test_actions_of_plain_arrays_set_the_bounds(name):
    arrays = columns(num_episodes=4, length=5, is_discrete=False)
    arrays["actions"] *= 3 / np.abs(arrays["actions"]).max()
    agent, sampler = small_agent(name, chibit.from_arrays(**arrays, cache=scratch()))
    for _ in range(4):
        assert all(np.isfinite(value) for value in agent.update(sampler.sample()).values())
    agent.actor.mlp.layers[-1].bias.data.fill_(-100.0)
    policy = agent.policy(None)
    policy.reset(1)
    low, high = arrays["actions"].min(), arrays["actions"].max()
    assert max(-low, high) == pytest.approx(3.0)
    assert policy.act(np.zeros((1, 2), np.float32)).item() == pytest.approx(min(low, -1.0))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_actions_beyond_an_environments_bounds_are_cut_as_it_does(name):
    dataset = identity_data(False)
    spec = replace(dataset.spec, env_id="Pendulum-v1", action_low=(-0.5,), action_high=(0.5,))
    wide = replace(dataset, spec=spec)
    assert np.abs(wide.actions).max() > 0.5
    narrow = with_columns(wide, actions=np.clip(wide.actions, -0.5, 0.5))
    metrics = []
    for each in (wide, narrow):
        torch.manual_seed(0)
        agent, sampler = small_agent(name, each)
        metrics.append([agent.update(sampler.sample()) for _ in range(8)])
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_policies_use_the_whole_range_of_the_environment(name):
    spec = replace(identity_data(False).spec, action_low=(-3.0,), action_high=(5.0,))
    agent = make_agent(small_config(name), spec, Runtime())
    agent.actor.mlp.layers[-1].bias.data.fill_(100.0)  # tanh of it, or the cut, is 1
    policy = agent.policy(None)
    policy.reset(1)
    assert policy.act(np.zeros((1, 1), np.float32)).tolist() == [[5.0]]


@pytest.mark.parametrize("name", ALL)
def test_rewards_that_are_all_zero_are_learned_from(name):
    dataset = identity_data(name in DISCRETE)
    agent, sampler = small_agent(name, with_columns(dataset, rewards=np.zeros(dataset.num_steps)))
    for _ in range(8):
        assert all(np.isfinite(value) for value in agent.update(sampler.sample()).values())


@pytest.mark.parametrize("terminates", [True, False])
@pytest.mark.parametrize("name", ALL)
def test_episodes_of_one_step_are_learned_from(name, terminates):
    dataset = load(num_episodes=30, length=1, is_discrete=name in DISCRETE, terminates=terminates)
    agent, sampler = small_agent(name, dataset)
    for _ in range(8):
        assert all(np.isfinite(value) for value in agent.update(sampler.sample()).values())


@pytest.mark.parametrize("name", ALL)
def test_without_next_observations_the_last_step_of_a_cut_episode_is_left_out_unless_actions_are_cloned(name):
    dataset = load(
        num_episodes=6,
        length=4,
        is_discrete=name in DISCRETE,
        next_observations=False,
        terminates=False,
    )
    agent, sampler = small_agent(name, dataset)
    drawn = set()
    for _ in range(12):
        batch = sampler.sample()
        drawn |= set(batch.rows.tolist())
        agent.update(batch)
    assert drawn == set(range(24)) - (set() if name in CLONES else set(range(3, 24, 4)))


@pytest.mark.parametrize("name", [name for name in ALL if name not in CLONES])
def test_data_without_a_single_next_observation_are_refused(name):
    dataset = load(
        num_episodes=6,
        length=1,
        is_discrete=name in DISCRETE,
        next_observations=False,
        terminates=False,
    )
    with pytest.raises(InputError) as caught:
        small_agent(name, dataset)
    assert_one_line(caught, "next observation")


@pytest.mark.parametrize("name", ALL)
def test_errors_are_measured_on_steps_without_a_next_observation(name):
    without = {"is_discrete": name in DISCRETE, "next_observations": False, "terminates": False}
    agent, _ = small_agent(name, load(num_episodes=6, length=4, **without))
    error = HeldOutError(agent, load(num_episodes=2, length=1, **without), seed=0)
    assert {row for batch in error.batches for row in batch.rows.tolist()} == {0, 1}
    assert np.isfinite(error())
    needed = agent.sampler(load(num_episodes=6, length=4, **without), np.random.default_rng(0))
    assert needed.num_left_out == (0 if name in CLONES else 6)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("bc", "top_fraction", 0.0),
        ("bc", "context_length", 0),
        ("bc", "hidden_sizes", ()),
        ("td3_bc", "discount", 1.5),
        ("td3_bc", "batch_size", 0),
        ("td3_bc", "noise_clip", -0.5),
        ("cql", "num_sampled_actions", 0),
        ("brac_v", "actor_hidden_sizes", (0,)),
        ("brac_v", "behavior_steps", 0),
        ("awr", "discount", 1.0),
        ("iql", "expectile", 2.0),
        ("rebrac", "actor_penalty", -1.0),
        ("rebrac", "policy_noise", -0.1),
        ("discrete_bc", "top_fraction", 1.5),
        ("discrete_cql", "conservative_weight", -1.0),
        ("qr_dqn", "num_quantiles", 0),
        ("qr_dqn", "reward_clip", -1.0),
        ("rem", "adam_eps", 0.0),
        ("rem", "target_every", 0),
    ],
)
def test_hyper_parameters_outside_their_range_are_refused_by_name(name, field, value):
    with pytest.raises(InputError) as caught:
        small_config(name, **{field: value})
    assert_one_line(caught, field, "expected")


@pytest.mark.parametrize("field", ["alpha", "discount", "learning_rate"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_numbers_that_make_no_sense_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        small_config("td3_bc", **{field: value})
