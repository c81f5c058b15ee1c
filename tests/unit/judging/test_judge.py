import dataclasses
import json
from itertools import combinations

import numpy as np
import pytest
import torch

import chibit
from baseline_toys import CONTINUOUS, DISCRETE, SMALL, identity_data
from chibit.agents import AGENTS
from chibit.agents.bc import BCConfig
from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.config import from_json, to_json
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime
from chibit.judging.judge import Judge, JudgeConfig, discounted_returns, reward_floor, rough_seconds
from chibit.judging.judgement import Endings, Judgement, SelfTest
from chibit.judging.profile import profile_of
from chibit.judging.replay import replay
from chibit.judging.verdict import compare
from chibit.judging.world import WorldConfig
from chibit.models.gpt import GPTShape
from judging_toys import DISCOUNT, LENGTH, SETTINGS, Acts, columns, down, home, make_log, true_value, up

TINY = dataclasses.replace(
    SETTINGS,
    fit=dataclasses.replace(
        SETTINGS.fit, world=WorldConfig(hidden_sizes=(16,), num_steps=30), clone_steps=30
    ),
)


def wild(states):
    return np.sign(np.sin(1000.0 * states))


def test_a_policy_near_the_log_has_a_number(line_judge):
    judgement = line_judge(Acts(home), name="home")
    assert not judgement.reasons
    truth = true_value(home, line_judge._starts).mean()
    assert judgement.value.low <= truth <= judgement.value.high
    assert judgement.total.mean == pytest.approx(np.mean(judgement.in_model.total.members))
    assert "home: return" in str(judgement) and "model spread" in str(judgement)
    assert "%" not in str(judgement)  # the spread is not called an interval of so many percent


def test_the_clone_of_the_log_is_worth_what_the_log_is(line_judge, line_log):
    log = line_judge.log
    assert log.mean_value == pytest.approx(discounted_returns(line_log, DISCOUNT, LENGTH).mean())
    assert log.lowest_value <= log.clone.value.mean <= log.best_value
    assert log.clone_at_steps.error.mean == pytest.approx(log.noise_floor, rel=0.2)
    assert log.num_episodes == line_log.num_episodes
    assert log.best_return == line_log.episode_returns.max()


def test_discounted_returns_by_hand(tmp_path):
    dataset = make_log(tmp_path, 3, 2, rewards=np.array([1.0, 2.0, 0.0, 4.0, -1.0, 0.0]))
    np.testing.assert_allclose(discounted_returns(dataset, 0.5, 2), [2.0, 2.0, -1.0])
    np.testing.assert_allclose(discounted_returns(dataset, 0.5, 1), [1.0, 0.0, -1.0])


@pytest.fixture(scope="module")
def judges(cache):
    """A judge of continuous and one of discrete actions, by that."""
    data = {is_discrete: identity_data(is_discrete, 60) for is_discrete in (False, True)}
    return {kind: Judge(log, config=TINY, cache=cache) for kind, log in data.items()}


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE, "dt"])
def test_every_agent_is_judged(judges, name):
    judge = judges[name in DISCRETE]
    if name == "dt":
        config = DecisionTransformerConfig(gpt=GPTShape(n_layer=1, n_embd=16), context_length=4)
        agent = chibit.make_agent(config, judge._train.spec, Runtime())
    else:
        agent = chibit.make_agent(AGENTS[name].config(**SMALL[name]), judge._train.spec, Runtime())
    target = 1.0 if agent.is_return_conditioned else None
    judgement = judge(chibit.Policy(agent, judge._train.spec, target_return=target), name=name)
    assert judgement.target_return == target
    assert name in str(judgement) and np.isfinite(judgement.in_model.value.members).all()
    assert len(judgement.at_steps.error.by_dimension) == (0 if name in DISCRETE else 1)
    (actions,) = judgement.at_steps.actions
    assert len(actions.counts) == (3 if name in DISCRETE else 20)


def test_a_policy_that_draws_is_judged_alike_twice(judges):
    judge = judges[True]
    config = DecisionTransformerConfig(gpt=GPTShape(n_layer=1, n_embd=16), context_length=4)
    torch.manual_seed(0)
    agent = chibit.make_agent(config, judge._train.spec, Runtime())
    policy = chibit.Policy(agent, judge._train.spec, target_return=1.0)
    policy.reset(2)  # what it drew before makes no difference
    assert judge(policy) == judge(policy)


def test_a_model_that_does_not_follow_the_log_has_no_number_for_the_clone_either(line_judge):
    judgement = line_judge(Acts(home), name="home")
    assert not judgement.log.unfit
    test = dataclasses.replace(judgement.log.self_test, fits=(0.5,) * len(judgement.log.self_test.fits))
    log = dataclasses.replace(judgement.log, self_test=test)
    wild = dataclasses.replace(judgement.in_model, clipped=1.0)
    found = dataclasses.replace(judgement, log=log, in_model=wild)
    assert found.reasons == (log.unfit,)  # what else the model says means nothing
    assert log.unfit.startswith("the model does not follow the log (R2 of the sum of rewards by steps: 0.50")
    assert SelfTest(step_error=0.1, lengths=(), fits=()).unfit.startswith(
        "the held-out episodes test nothing"
    )


def test_a_fit_just_below_what_is_expected_is_not_said_to_reach_it(line_judge):
    test = dataclasses.replace(line_judge.log.self_test, ceilings=())
    fits = (0.8999, *test.fits[1:])
    assert "0.89 over 1 (expected 0.90)" in dataclasses.replace(test, fits=fits).unfit


@pytest.mark.parametrize(
    ("foreseen", "false", "is_seen"), [(40, 0, True), (14, 20, True), (13, 0, False), (40, 21, False)]
)
def test_a_model_that_does_not_see_what_ends_an_episode_has_no_number(line_judge, foreseen, false, is_seen):
    endings = Endings(logged=40, foreseen=foreseen, false=false)
    test = dataclasses.replace(line_judge.log.self_test, endings=endings)
    assert (not test.unfit) == is_seen
    assert is_seen or test.unfit.startswith("the model does not see what ends an episode (of 40 terminations")
    few = dataclasses.replace(endings, logged=4, foreseen=0.0, false=9.0)
    assert not dataclasses.replace(test, endings=few).unfit


def test_what_judging_takes_follows_log_horizon_and_policies(line_log):
    """In seconds of one core: a small log is learned in seconds, a wide policy plays for minutes."""
    quick = {"num_policies": 1, "seconds_an_action": 0.0001}
    assert rough_seconds(line_log, **quick) < 15
    horizon = JudgeConfig(horizon=1000)
    wide = {"num_policies": 2, "seconds_an_action": 0.01}
    assert rough_seconds(line_log, config=horizon, **wide) > 1000
    assert rough_seconds(line_log, config=horizon, **quick) < 30


def narrow_log(cache, num_episodes=40):
    """Everybody walks home and trembles: far from it nothing is known."""
    generator = np.random.default_rng(3)
    return make_log(
        cache,
        **columns(
            num_episodes, choose=lambda states: home(states) + 0.05 * generator.normal(size=states.shape)
        ),
    )


def test_a_policy_that_leaves_the_log_has_no_number(tmp_path):
    judgement = Judge(narrow_log(tmp_path), config=SETTINGS, cache=tmp_path)(Acts(up), name="up")
    assert judgement.value is None and judgement.total is None
    assert "the policy leaves what the log covers" in " ".join(judgement.reasons)
    assert str(judgement).startswith("up: no number: ")
    assert not judgement.times_clone


def test_more_value_than_any_logged_episode_brought_is_no_number(line_judge):
    judgement = line_judge(Acts(home), name="home")
    best, floor = judgement.log.best_value, judgement.in_model.value.floor
    for share, is_kept in ((1.005, True), (1.02, False)):
        value = dataclasses.replace(judgement.in_model.value, members=(floor + share * (best - floor),) * 4)
        changed = dataclasses.replace(
            judgement, in_model=dataclasses.replace(judgement.in_model, value=value)
        )
        assert (changed.value is not None) == is_kept
        assert all("its value would be" in reason for reason in changed.reasons)


def test_the_log_and_the_actions_are_counted(line_judge, line_log, tmp_path):
    profile = line_judge.log.profile
    assert sum(profile.returns.counts) == sum(profile.lengths.counts) == line_log.num_episodes
    assert sum(profile.rewards.counts) == sum(profile.states[0].counts) == line_log.num_steps
    by_hand = np.histogram(line_log.actions[:, 0], 20, (profile.actions[0].low, profile.actions[0].high))[0]
    np.testing.assert_array_equal(profile.actions[0].counts, by_hand)
    assert profile.actions[0].shares.sum() == pytest.approx(1)
    assert (profile.constant_states, profile.constant_actions) == ((), ())
    (always_up,) = line_judge(Acts(up)).at_steps.actions
    assert always_up.shares[-1] == 1.0
    arrays = columns(12)
    still = {"observations": arrays["observations"].repeat(2, 1), "actions": arrays["actions"].repeat(2, 1)}
    still["observations"][:, 1], still["actions"][:, 1] = 3.0, 0.0
    still["next_observations"] = still["observations"]
    dull = profile_of([make_log(tmp_path, **arrays | still)])
    assert (dull.constant_states, dull.constant_actions) == ((1,), (1,))
    moved = {"observations": still["observations"] + [0.0, 1.0]}  # held out from another day
    parts = [make_log(tmp_path, **arrays | still | changed) for changed in ({}, moved)]
    assert profile_of(parts).constant_states == ()


def test_a_model_that_does_not_fit_gives_no_number(tmp_path):
    generator = np.random.default_rng(0)
    noise = make_log(tmp_path, 20, rewards=generator.normal(size=20 * LENGTH))
    judgement = Judge(noise, config=SETTINGS, cache=tmp_path)(Acts(home))
    assert any("too noisy to test a model" in reason for reason in judgement.reasons)


def test_noise_in_rewards_is_no_misfit(tmp_path):
    """Rewards of which half the variance is noise: no model explains more than half of one."""
    arrays = columns()
    spread = arrays["rewards"].std()
    noisy = arrays["rewards"] + spread * np.random.default_rng(1).normal(size=len(arrays["rewards"]))
    judge = Judge(make_log(tmp_path, rewards=noisy), config=SETTINGS, cache=tmp_path)
    test = judge.log.self_test
    assert test.fits[0] < 0.7 and not judge.log.unfit
    assert 0.3 < test.ceilings[0] < 0.7
    assert any("is taken for noise" in note for note in judge.log.notes)
    judged, truth = judge(Acts(home)), true_value(home, judge._starts, discount=1.0).mean()
    assert judged.total.low <= truth <= judged.total.high


def test_what_the_observations_do_not_hold_is_noted(line_judge, tmp_path):
    """Half of the operators push up and half push down, for a whole episode, and the log does not say why."""
    arrays, generator = columns(), np.random.default_rng(2)
    sides = generator.choice([-0.6, 0.6], (60, 1)).repeat(LENGTH, 1).reshape(-1, 1)
    arrays["actions"] = np.clip(sides + 0.2 * generator.normal(size=sides.shape), -1, 1)
    judge = Judge(make_log(tmp_path, **arrays), config=TINY, cache=tmp_path)
    assert any("goes on from step to step" in note for note in judge.log.notes)
    assert not any("goes on" in note or "noise" in note for note in line_judge.log.notes)


def test_a_constant_added_to_every_reward_changes_no_verdict(tmp_path):
    """Where all episodes have one length: neither spreads nor who is told apart, nor who has a number."""
    found = []
    for added in (0.0, -0.9, 50.0):
        log = make_log(tmp_path, rewards=columns()["rewards"] + added)
        judge = Judge(log, config=SETTINGS, cache=tmp_path)
        found.append([judge(Acts(choose), name=choose.__name__) for choose in (up, home, down)])
    for judged, added in zip(found[1:], (-0.9, 50.0), strict=True):
        assert [one.total is None for one in judged] == [one.total is None for one in found[0]]
        for one, plain in zip(judged, found[0], strict=True):
            total, was = one.in_model.total, plain.in_model.total
            assert total.half_width == pytest.approx(was.half_width, rel=0.01)
            assert total.mean == pytest.approx(was.mean + added * LENGTH, abs=0.02 * was.size)
    kept = [[one for one in judged if one.total is not None] for judged in found]
    assert len({tuple(compare(*pair).is_clear for pair in combinations(judged, 2)) for judged in kept}) == 1


def test_the_floor_is_what_can_be_lost(line_log, tmp_path):
    rewards = columns()["rewards"]
    whole = line_log.rewards.reshape(-1, LENGTH)
    stretches = np.lib.stride_tricks.sliding_window_view(whole, 5, axis=1).mean(-1)
    assert reward_floor(line_log) == pytest.approx(np.quantile(stretches, 0.01))
    ends = {"terminations": columns()["truncations"], "truncations": np.zeros(len(rewards), bool)}
    assert reward_floor(make_log(tmp_path, rewards=rewards + 9.0)) > 7
    rare = np.where(np.arange(len(rewards)) % 80 == 7, -100.0, 1.0)  # one step in eighty
    assert -25 < reward_floor(make_log(tmp_path, rewards=rare)) < -15
    short = {name: column[: 60 * 2] for name, column in columns(60, 2).items()}
    assert reward_floor(make_log(tmp_path, **short)) < 0
    assert reward_floor(make_log(tmp_path, rewards=rewards + 9.0, **ends)) == 0.0


def test_many_choices_take_longer(line_log, tmp_path):
    quick = {"num_policies": 1, "seconds_an_action": 0.0}
    choices = np.resize([0, 3000], line_log.num_steps)
    wide = make_log(tmp_path, actions=choices)
    assert rough_seconds(wide, **quick) > 5 * rough_seconds(line_log, **quick)


def test_noise_leaves_the_support_the_more_the_larger_it_is(tmp_path):
    judge = Judge(narrow_log(tmp_path), config=TINY, cache=tmp_path)
    clone = judge.fitted.clone

    def noisy(size):
        generator = np.random.default_rng(1)
        return Acts(lambda seen: clone.choose(seen) + size * generator.normal(size=seen.shape))

    none, some, much = (judge(noisy(size)).at_steps.far for size in (0.0, 0.25, 0.6))
    assert none < some < much


def test_an_untrained_policy_is_far_from_the_log(tmp_path):
    judgement = Judge(narrow_log(tmp_path), config=SETTINGS, cache=tmp_path)(Acts(wild))
    assert judgement.at_steps.far > 0.5
    assert judgement.reasons


def test_more_than_the_log_has_is_said(line_judge):
    asked = line_judge(Acts(home), target_return=99.0)
    assert "asked for 99, more than the log has" in str(asked)
    assert not line_judge(Acts(home), target_return=1.0).notes


def test_a_judgement_goes_through_json(line_judge):
    judgement = line_judge(Acts(home), name="home", target_return=2.0)
    assert from_json(Judgement, json.loads(json.dumps(to_json(judgement)))) == judgement


def test_the_public_function_does_the_same(line_log, line_judge, cache):
    assert chibit.judge(Acts(home), line_log, config=SETTINGS, cache=cache) == line_judge(Acts(home))


def test_a_log_may_be_named_by_its_path_and_what_is_none_is_refused_in_a_line(line_log, tmp_path):
    found = chibit.judge(Acts(home), str(line_log.folder), config=TINY, cache=tmp_path)
    assert found == chibit.judge(Acts(home), line_log, config=TINY, cache=tmp_path)
    for given in ({"dataset": columns(12)}, {"dataset": line_log, "held_out": 0.2}):
        with pytest.raises(InputError, match="expected a data set, a name or a path"):
            chibit.judge(Acts(home), **given, config=TINY, cache=tmp_path)
    with pytest.raises(InputError, match="config: got .*, expected a JudgeConfig"):
        chibit.judge(Acts(home), line_log, config={"horizon": 3}, cache=tmp_path)


def test_what_is_no_policy_is_refused_before_anything_is_learned(line_log, tmp_path):
    with pytest.raises(InputError, match="policy: str has no reset"):
        chibit.judge("runs/mine", line_log, config=TINY, cache=tmp_path)
    assert not (tmp_path / "judges").exists()


def test_errors_are_in_units_of_the_spread_whatever_the_size_of_actions(tmp_path):
    mean, rng = np.array([0.0, 101_325.0]), np.random.default_rng(0)
    log = make_log(tmp_path, actions=mean + rng.normal(size=(60 * LENGTH, 2)))
    found = Judge(log, config=TINY, cache=tmp_path)(Acts(lambda seen: np.tile(mean, (len(seen), 1))))
    np.testing.assert_allclose(found.at_steps.error.by_dimension, [1.0, 1.0], rtol=0.1)


def test_a_split_of_ones_own_is_taken(line_log, tmp_path):
    train, held_out = line_log.held_out_split(0.5, 3)
    log = Judge(train, held_out=held_out, config=TINY, cache=tmp_path).log
    assert log.num_episodes == line_log.num_episodes


# Bad input: each is refused, or answered, in one line.


@pytest.mark.parametrize(
    ("changes", "number", "message"),
    [
        ({}, 9, "9 episodes, expected at least 10"),
        ({"rewards": np.full(20 * LENGTH, 2.5)}, 20, "every reward is 2.50, on which no model"),
    ],
)
def test_a_log_of_which_nothing_can_be_learned_is_refused(tmp_path, changes, number, message):
    with pytest.raises(InputError, match=message) as caught:
        Judge(make_log(tmp_path, number, **changes), config=TINY, cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "judges").exists()


def test_steps_that_lead_nowhere_known_are_refused(tmp_path):
    log = make_log(tmp_path, 30, 1, next_observations=None)
    with pytest.raises(InputError, match="cut after one step and have no next observation"):
        Judge(log, config=TINY, cache=tmp_path)


def test_held_out_steps_that_lead_nowhere_known_are_refused_before_anything_is_learned(tmp_path):
    log = make_log(tmp_path / "log", 30, next_observations=None)
    apart = make_log(tmp_path / "apart", 12, 1, next_observations=None)
    with pytest.raises(InputError, match="cut after one step and have no next observation"):
        Judge(log, held_out=apart, config=TINY, cache=tmp_path)
    assert not (tmp_path / "judges").exists()


def test_single_decisions_are_judged_by_their_rewards(tmp_path):
    """As of an ad server: nothing follows, and nothing is asked of what follows."""
    arrays = columns(400, 1)
    arrays |= {"rewards": arrays["observations"][:, 0] + arrays["actions"][:, 0]}
    arrays |= {"terminations": arrays["truncations"], "truncations": arrays["terminations"]}
    del arrays["next_observations"]
    judge = Judge(chibit.from_arrays(**arrays, name="ads", cache=tmp_path), config=SETTINGS, cache=tmp_path)
    assert not judge.log.notes
    for gain in (0.5, -0.5):
        judgement = judge(Acts(lambda states, gain=gain: np.full_like(states, gain)))
        truth = judge._starts.mean() + gain
        assert not judgement.reasons
        assert judgement.value.low <= truth <= judgement.value.high
        assert judgement.value.mean == pytest.approx(truth, abs=0.15)


def test_held_out_episodes_of_other_sizes_are_refused_before_anything_is_learned(line_log, tmp_path):
    other = identity_data(True, 12)
    with pytest.raises(InputError, match="held_out: .* has observation_shape .*, line has .* of the same"):
        Judge(line_log, held_out=other, config=TINY, cache=tmp_path)
    assert not (tmp_path / "judges").exists()


@pytest.mark.parametrize("choice", [99, -1, 0.5])
def test_what_is_no_choice_is_refused_in_a_line(judges, choice):
    """In the model and at logged histories alike."""
    policy = Acts(lambda seen: np.full(len(seen), choice))
    for refused in (judges[True], lambda one: replay(one, judges[True]._held_out, [0, 1])):
        with pytest.raises(InputError, match=f"the policy's action is {choice} at step 0, expected one of 0"):
            refused(policy)


def test_images_are_refused(line_log):
    spec = dataclasses.replace(line_log.spec, image_shape=(1, 1, 1), state_mean=(), state_std=())
    with pytest.raises(InputError, match="images, of which no model is learned; compare the held-out"):
        Judge(dataclasses.replace(line_log, spec=spec), config=TINY)


def test_episodes_of_one_step_are_judged(tmp_path):
    judgement = Judge(make_log(tmp_path, 300, 1), config=SETTINGS, cache=tmp_path)(Acts(home))
    assert not judgement.reasons
    assert judgement.in_model.length == 1
    assert judgement.value == judgement.total


def test_what_follows_a_cut_may_be_unknown_and_is_said(tmp_path):
    judge = Judge(make_log(tmp_path, 20, next_observations=None), config=TINY, cache=tmp_path)
    assert "what follows the last step of 16 truncated episodes is not known" in " ".join(judge.log.notes)


def test_an_unknown_horizon_is_said(tmp_path, line_judge):
    assert "the time limit is not known: episodes in the model are cut after the log's longest, 40 steps" in (
        line_judge.log.notes
    )
    given = dataclasses.replace(TINY, horizon=7)
    judge = Judge(make_log(tmp_path, 20), config=given, cache=tmp_path)
    assert judge.log.notes == (
        "episodes are cut after 7 steps of 40, in the model and in the log: returns and values are of so "
        "many",
    )
    assert judge(Acts(home)).in_model.length == 7


def test_a_shorter_horizon_cuts_the_log_too(cache, tmp_path):
    """Else every policy would be below all logged values: rewards above zero bring less in 7 steps."""
    rewards = columns(60)["rewards"] + 2.0
    given = dataclasses.replace(SETTINGS, horizon=7)
    judge = Judge(make_log(tmp_path, rewards=rewards), config=given, cache=cache)
    log, rewards = judge.log, rewards.reshape(60, LENGTH)[:, :7]
    assert log.mean_return == pytest.approx(rewards.sum(1).mean())
    assert log.lowest_value == pytest.approx((rewards * DISCOUNT ** np.arange(7)).sum(1).min())
    judgement = judge(Acts(home), target_return=1.5 * log.best_return)
    assert judgement.value is not None and not judgement.notes
    assert judge(Acts(home), target_return=9 * log.best_return).notes


def test_a_longer_horizon_leaves_the_log_as_it_is_and_is_said(line_log, cache):
    judge = Judge(line_log, config=dataclasses.replace(TINY, horizon=50), cache=cache)
    assert judge.log.notes[0] == (
        "episodes in the model go on for 50 steps, those of the log for 40 at most: its returns and values "
        "are of fewer"
    )
    assert judge.log.best_return == line_log.episode_returns.max()
    assert judge.log.has_own_limit


def test_a_policy_of_other_sizes_is_refused_in_a_line(line_judge):
    with pytest.raises(InputError, match="judge it on the data that it was trained on") as caught:
        line_judge(Acts(lambda seen: np.zeros((len(seen), 3))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (lambda n: [["a"]] * n, "the policy's actions have type <U1, expected numbers"),
        (lambda n: [[0.0]] * (n - 1) + [[0.0, 1.0]], "the policy's actions have rows of different lengths"),
        (lambda n: None, "the policy's actions have type object, expected numbers"),
    ],
)
def test_actions_that_are_no_numbers_are_refused_in_a_line(line_judge, line_log, actions, message):
    policy = Acts(lambda seen: seen)
    policy.act = lambda seen: actions(len(seen))
    for refused in (line_judge, lambda one: replay(one, line_log, [0, 1])):
        with pytest.raises(InputError, match=message):
            refused(policy)


def test_a_policy_of_other_observations_is_refused_in_a_line(line_judge):
    spec = dataclasses.replace(
        line_judge._train.spec, state_dim=3, state_mean=(0.0,) * 3, state_std=(1.0,) * 3
    )
    policy = chibit.Policy(chibit.make_agent(BCConfig(), spec, Runtime()), spec)
    with pytest.raises(InputError, match=r"observations have shape \(32, 1\), expected \(32, 3\)"):
        line_judge(policy)


class TwoArguments:
    def reset(self, num_envs): ...

    def act(self, observations): ...

    def observe(self, rewards, dones): ...


@pytest.mark.parametrize(
    ("policy", "missing"),
    [
        (np.tanh, r"ufunc has no reset\(num_envs\)"),
        (Acts, r"type has no reset\(num_envs\)"),
        (TwoArguments(), r"TwoArguments has no observe\(rewards, dones, actions=None\)"),
    ],
)
def test_what_is_no_policy_is_refused_in_a_line(line_judge, policy, missing):
    with pytest.raises(InputError, match=f"policy: {missing}; expected an object with reset") as caught:
        line_judge(policy)
    assert "\n" not in str(caught.value)


def test_a_policy_that_gives_nan_is_refused_in_a_line(line_judge):
    with pytest.raises(InputError, match="action is not finite at step 0"):
        line_judge(Acts(lambda seen: np.full_like(seen, np.nan)))
