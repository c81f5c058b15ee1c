import numpy as np
import pytest
import torch

from chibit.core.errors import DivergenceError, InputError
from chibit.judging.clone import Clone
from chibit.judging.fitting import FitConfig, fit_log
from chibit.judging.networks import minimize, suited_steps
from chibit.judging.steps import read_steps
from chibit.judging.world import World, WorldConfig
from judging_toys import DISCOUNT, LENGTH, QUICK, Acts, columns, down, home, make_log, true_value, up

SMALL = WorldConfig(hidden_sizes=(32,), num_steps=60, learning_rate=1e-2)


def fit(dataset, config=SMALL, seed=0):
    torch.manual_seed(seed)
    world = World(dataset.spec, config, ends_by_change=dataset.final_observations is not None)
    world.fit(read_steps(dataset), np.random.default_rng(seed))
    return world


@pytest.fixture(scope="module")
def starts():
    return np.linspace(-1, 1, 16, dtype=np.float32)[:, None]


@pytest.mark.parametrize("choose", [up, down, home])
def test_values_of_the_line_are_known(line_judge, starts, choose):
    play = line_judge.fitted.world.play(Acts(choose), starts, horizon=LENGTH, discount=DISCOUNT)
    truth = true_value(choose, starts)
    assert np.abs(play.values - truth).mean() < 0.05 * np.abs(true_value(up, starts)).mean()
    assert abs(play.values.mean() - truth.mean()) < 0.5
    assert (play.lengths == LENGTH).all()


def test_one_step_of_the_log_is_followed(line_judge):
    assert line_judge.fitted.self_test.step_error < 0.1
    assert line_judge.fitted.self_test.horizon >= 10


def test_rewards_shifted_or_scaled_shift_or_scale_values(tmp_path, starts):
    policy, arrays = Acts(home), columns(20)
    rewards = arrays["rewards"]
    plain, shifted, scaled, tiny = (
        fit(make_log(tmp_path, 20, rewards=given)).play(policy, starts, horizon=30, discount=DISCOUNT)
        for given in (rewards, rewards + 3.0, rewards * 10.0, rewards * 1e-20)
    )
    annuity = (1 - DISCOUNT**30) / (1 - DISCOUNT)
    np.testing.assert_allclose(shifted.values, plain.values + 3.0 * annuity, atol=1e-3)
    np.testing.assert_allclose(shifted.returns, plain.returns + 90.0, atol=1e-3)
    np.testing.assert_allclose(scaled.values, 10.0 * plain.values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(1e20 * tiny.values, plain.values, atol=1e-2)


def test_no_reward_is_worth_nothing(tmp_path, starts):
    world = fit(make_log(tmp_path, 20, rewards=np.zeros(20 * LENGTH)))
    assert not world.play(Acts(up), starts, horizon=30, discount=DISCOUNT).values.any()


def test_a_seed_decides_every_bit(tmp_path, starts):
    dataset = make_log(tmp_path, 20)
    first, again, other = (
        fit(dataset, seed=seed).play(Acts(home), starts, horizon=20, discount=DISCOUNT) for seed in (0, 0, 1)
    )
    assert first.values.tobytes() == again.values.tobytes()
    assert first.disagreement == again.disagreement
    assert not np.array_equal(first.values, other.values)


def falling(cache, *, with_next):
    """Episodes on the line that end where they pass 0.9, by themselves."""
    generator, rows = np.random.default_rng(0), []
    for _ in range(80):
        state = generator.uniform(-1, 0.5)
        for t in range(LENGTH):
            action = generator.uniform(-0.5, 1)
            following = min(state + 0.2 * action, 1.0)
            over = following > 0.9
            rows.append((state, action, following, over, not over and t == LENGTH - 1))
            if over:
                break
            state = following
    observations, actions, following, terminations, truncations = map(np.array, zip(*rows, strict=True))
    changes = {
        "observations": observations[:, None],
        "actions": actions[:, None],
        "rewards": np.ones(len(rows)),
        "terminations": terminations,
        "truncations": truncations,
        "next_observations": following[:, None] if with_next else None,
    }
    return make_log(cache, **changes)


@pytest.mark.parametrize("with_next", [True, False])
def test_episodes_end_where_the_log_ends_them(tmp_path, with_next):
    config = WorldConfig(hidden_sizes=(64,), num_steps=400, learning_rate=5e-3)
    world = fit(falling(tmp_path, with_next=with_next), config)
    starts = np.array([[0.0], [0.5]] * 4, np.float32)
    play = world.play(Acts(up), starts, horizon=20, discount=1.0)
    # From 0 the fifth step passes 0.9, from 0.5 the third.
    assert np.abs(play.lengths - np.array([5, 3] * 4)).max() <= 1
    assert np.allclose(play.returns, play.lengths)  # a reward comes with the last step too
    assert (world.play(Acts(down), starts, horizon=20, discount=1.0).lengths >= 15).all()
    assert (world.play(Acts(up), starts, horizon=20, discount=1.0, ends=False).lengths == 20).all()
    steps = read_steps(falling(tmp_path, with_next=with_next))
    seen, false = world.endings(steps)
    assert seen > 0.8 * steps.terminations.sum() and false < 0.2 * steps.terminations.sum()


def test_terminations_by_chance_are_not_seen(tmp_path):
    """One step in ten ends an episode whatever is done: nobody foresees it, and the self-test says so."""
    ends = np.random.default_rng(0).uniform(size=60 * LENGTH) < 0.1
    ends[LENGTH - 1 :: LENGTH] = True
    log = make_log(tmp_path, terminations=ends, truncations=np.zeros(len(ends), bool))
    test = fit_log(*log.held_out_split(0.2, 0), QUICK, cache=tmp_path).self_test
    assert "does not see what ends an episode" in test.unfit


def test_an_episode_that_is_over_changes_nothing_more(tmp_path):
    world = fit(falling(tmp_path, with_next=True))
    policy = Acts(up)
    play = world.play(policy, np.array([[0.85], [-0.9]] * 4, np.float32), horizon=30, discount=1.0)
    rewards, dones = (np.array(parts) for parts in zip(*policy.observed, strict=True))
    assert (np.diff(dones.astype(int), axis=0) >= 0).all()
    np.testing.assert_allclose(play.returns, [rewards[:n, e].sum() for e, n in enumerate(play.lengths)])


def test_unknown_last_steps_are_no_lesson(tmp_path):
    """Without final observations half of these changes are unknown, which is not standing still."""
    dataset = make_log(tmp_path, 150, 2, next_observations=None)
    steps = read_steps(dataset)
    assert (~steps.is_known).sum() == 150
    world = fit(dataset, WorldConfig(hidden_sizes=(32,), num_steps=300, learning_rate=1e-2))
    moved = make_log(tmp_path, 150, 2)
    assert world.error(read_steps(moved)) < 0.1


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda seen: np.zeros((len(seen), 2)), r"actions of shape \(16, 2\), expected \(16, 1\)"),
        (lambda seen: np.full((len(seen), 1), np.nan), "not finite at step 0"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(line_judge, starts, choose, message):
    with pytest.raises(InputError, match=message) as caught:
        line_judge.fitted.world.play(Acts(choose), starts, horizon=5, discount=DISCOUNT)
    assert "\n" not in str(caught.value)


def test_actions_are_cut_at_their_bounds(line_judge, starts):
    world = line_judge.fitted.world
    far, most = (
        world.play(Acts(lambda seen, s=size: np.full_like(seen, s)), starts, horizon=5, discount=DISCOUNT)
        for size in (1000.0, 1.0)
    )
    assert np.array_equal(far.values, most.values)


def test_choices_are_told_apart(tmp_path):
    """Three choices: down, stay, up."""
    generator = np.random.default_rng(0)
    arrays = columns(60)
    choices = generator.integers(0, 3, len(arrays["rewards"]))
    states = generator.uniform(-1, 1, len(choices))
    arrays |= {
        "observations": states[:, None],
        "actions": choices,
        "rewards": states,
        "next_observations": np.clip(states + 0.2 * (choices - 1), -1, 1)[:, None],
        "truncations": np.ones(len(choices), bool),
    }
    dataset = make_log(tmp_path, **arrays)
    world = fit(dataset, WorldConfig(hidden_sizes=(64,), num_steps=400, learning_rate=5e-3))
    starts = np.zeros((8, 1), np.float32)

    class Always:
        def __init__(self, choice):
            self.choice = choice

        def reset(self, num_envs):
            pass

        def act(self, observations):
            return np.full(len(observations), self.choice)

        def observe(self, rewards, dones):
            pass

    returns = [
        world.play(Always(choice), starts, horizon=6, discount=1.0).returns.mean() for choice in (0, 1, 2)
    ]
    np.testing.assert_allclose(returns, [-2.8, 0.0, 2.8], atol=0.5)
    with pytest.raises(InputError, match="expected one of 0 to 2"):
        world.play(Always(3), starts, horizon=6, discount=1.0)


def test_large_offsets_leave_the_signal(tmp_path):
    arrays = columns(20)
    moved = {name: 5000.0 + arrays[name] for name in ("observations", "next_observations")}
    world = fit(make_log(tmp_path, 20, **moved))
    plain = fit(make_log(tmp_path, 20))
    assert world.error(read_steps(make_log(tmp_path, 20, **moved))) < 2 * plain.error(
        read_steps(make_log(tmp_path, 20))
    )


def test_a_policy_sees_what_varies_beside_a_large_offset(tmp_path, starts):
    """In float32 52 and 3e-5 leave 17 states, and a policy in the model would see steps."""
    arrays = columns(20)
    moved = {name: 52.0 + 3e-5 * arrays[name] for name in ("observations", "next_observations")}
    plain, small = fit(make_log(tmp_path, 20)), fit(make_log(tmp_path, 20, **moved))
    seen = []

    def watch(states):
        seen.append(states)
        return home((states - 52.0) / 3e-5)

    expected = plain.play(Acts(home), starts, horizon=10, discount=1.0).returns
    found = small.play(Acts(watch), 52.0 + 3e-5 * starts.astype(np.float64), horizon=10, discount=1.0).returns
    assert len(np.unique(np.concatenate(seen))) > 100
    assert np.abs(found - expected).max() < 0.5


def test_small_logs_are_learned_in_fewer_steps(tmp_path):
    """Their cost follows their size, and the full number of steps learns them by heart."""
    assert [suited_steps(4000, number) for number in (180, 1280, 2560, 10_239, 10_240, 10**6)] == (
        [500, 500, 1000, 3999, 4000, 4000]
    )
    assert suited_steps(60, 180) == 60
    counted = []
    world = World(make_log(tmp_path, 20, 12).spec, WorldConfig(hidden_sizes=(4,)), ends_by_change=True)
    steps = read_steps(make_log(tmp_path, 20, 12))
    world.fit(steps, np.random.default_rng(0), lambda: counted.append("world"))
    Clone(world.spec).fit(
        steps, world.scales, np.random.default_rng(0), num_steps=3000, advance=lambda: counted.append("clone")
    )
    assert (counted.count("world"), counted.count("clone")) == (500, 500)
    assert FitConfig().num_steps(len(steps.rewards)) == len(counted)


def test_a_loss_that_is_not_finite_is_said():
    weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(DivergenceError, match="ends with a loss of"):
        minimize([weight], lambda: weight.sum() * float("nan"), num_steps=1, learning_rate=0.1)


def test_members_are_independent(line_judge):
    """A rollout sees the member that it belongs to, and no other."""
    world = line_judge.fitted.world
    starts = np.full((4, 1), 0.3, np.float32)
    play = world.play(Acts(up), starts, horizon=3, discount=1.0)
    assert len(set(play.returns.tolist())) == 4
    doubled = world.play(Acts(up), np.tile(starts, (2, 1)), horizon=3, discount=1.0)
    np.testing.assert_allclose(doubled.returns[:4], doubled.returns[4:])
    np.testing.assert_allclose(doubled.by_member(doubled.returns), play.returns, rtol=1e-6)
