"""What `data inspect` and the start of `train` say of data that a reader of the log would want to know."""

import h5py
import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.data.choices import constant_dimensions
from chibit.data.inspect import describe, find_notes
from chibit.data.load import from_arrays, load_dataset
from chibit.data.spec import MAX_ACTIONS


@pytest.fixture
def build(tmp_path):
    """Make four episodes of ten steps that nothing is to be said of, but for what a test changes."""

    def make(name="plain", env_id=None, **changes):
        rng = np.random.default_rng(0)
        seen = rng.normal(size=(41, 3))
        columns = {
            "observations": seen[:40],
            "next_observations": seen[1:],
            "actions": rng.uniform(-1, 1, (40, 1)),
            "rewards": rng.normal(size=40),
            "terminations": np.arange(40) % 20 == 9,
            "truncations": np.arange(40) % 20 == 19,
        }
        return from_arrays(**{**columns, **changes}, name=name, env_id=env_id, cache=tmp_path)

    return make


def said(dataset, *words):
    """Give the one note with these words; it is in the summary of `data inspect` too."""
    found = [note for note in find_notes(dataset) if all(word in note for word in words)]
    assert len(found) == 1, find_notes(dataset)
    assert found[0] in describe(dataset).notes
    return found[0]


def test_of_plain_data_only_ends_and_the_environment_are_said(build):
    assert find_notes(build()) == (
        "4 episodes of 40 steps: 2 terminated, 2 truncated",
        "no environment: trained on and not evaluated; --env-id names one",
    )
    assert find_notes(build(env_id="Pendulum-v1"))[1:] == (
        "no score reference for Pendulum-v1: raw returns only",
    )


def test_a_step_marked_as_both_ends_is_said(build):
    both = build(truncations=np.arange(40) % 10 == 9)
    assert find_notes(both)[0] == (
        "4 episodes of 40 steps: 2 terminated, 2 truncated (2 are marked as both: taken as terminated)"
    )


def test_steps_that_repeat_the_one_before_are_counted(build):
    rows = np.arange(40) // 2 + np.arange(40) // 10  # pairs, of which that over the end of an episode is none
    columns = {
        "observations": np.repeat(rows[:, None], 3, axis=1) + 0.5,
        "actions": np.sin(rows)[:, None],
        "rewards": rows,
        "next_observations": None,
    }
    twice = build(name="twice", **columns)
    expected = sum(rows[i] == rows[i - 1] and i % 10 != 0 for i in range(40))
    assert f"{expected} of 40 steps repeat the step before them" in said(twice, "wrote rows twice")


def test_next_observations_that_contradict_the_next_row_are_counted(build):
    seen = np.random.default_rng(1).normal(size=(41, 3))
    columns = {"observations": seen[:40], "next_observations": seen[1:].copy()}
    ends = np.arange(40) % 10 == 9
    columns["next_observations"][ends] += 7.0  # what follows an episode is not the next row
    assert not [note for note in build(**columns).notes if "contradict" in note]
    columns["next_observations"][[3, 14, 25]] += [0.0, 100.0, 0.0]
    wrong = said(build(**columns), "contradict the next row")
    assert "at 3 of 36 steps within episodes, by up to 100 (dimension 1)" in wrong


def test_next_observations_are_compared_over_the_edges_of_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("chibit.data.readers.recording.BLOCK_ROWS", 5)
    seen = np.arange(21.0)[:, None]
    following = seen[1:] + np.where(np.isin(np.arange(20), [4, 9]), 3.0, 0.0)[:, None]
    dataset = from_arrays(
        seen[:20],
        seen[:20],
        np.arange(20),
        np.arange(20) % 10 == 9,
        next_observations=following,
        cache=tmp_path,
    )
    assert "at 1 of 18 steps" in said(dataset, "contradict the next row")


def test_equal_returns_are_said_and_cloning_proposed(build):
    equal = build(rewards=np.where(np.arange(40) % 10 == 9, 1.0, 0.0))
    assert "the return 1" in said(equal, "a target return cannot tell", "--agent bc")
    rounded = build(rewards=1e6 + np.random.default_rng(0).random(40))
    assert "take an offset off the rewards" in said(rounded, "to a part in a million", "cannot tell")
    almost = build(rewards=np.where(np.arange(40) % 10 == 9, 1.0 + 1e-4 * (np.arange(40) > 20), 0.0))
    assert not [note for note in find_notes(almost) if "target return" in note]


@pytest.mark.parametrize("unit", [1e-25, 1e-13, 1e13])
def test_returns_that_differ_are_not_called_equal_in_any_unit(build, unit):
    rewards = unit * np.random.default_rng(0).random(40)
    for sign in (1, -1):
        log = build(rewards=sign * rewards)
        assert not [note for note in find_notes(log) if "all episodes have the return" in note]
    assert "the return" in said(build(rewards=np.full(40, unit)), "a target return cannot tell")


def test_episodes_of_one_step_are_said(build):
    """As AntMaze's files flag a goal: on every step that stays there."""
    flags = np.isin(np.arange(40), [9, 10, 11, 12, 13, 39])
    ten = build(terminations=flags, truncations=np.zeros(40, bool))
    assert "4 of 6 episodes have one step (" in said(
        ten, "a flag that stays set ends an episode at every step)"
    )


def test_a_goal_flagged_many_steps_in_hdf5_is_said(home, write_hdf5, hopper_columns):
    hopper_columns["terminals"][3:12] = True
    dataset = load_dataset(write_hdf5(hopper_columns, "antmaze-like.hdf5"), progress=False)
    assert "8 of" in said(dataset, "have one step")


def test_copies_of_episodes_are_said(build):
    rng = np.random.default_rng(1)
    part = {name: rng.normal(size=(10, width)) for name, width in (("observations", 3), ("actions", 1))}
    twice = {
        name: np.concatenate([column, rng.normal(size=column.shape), column, column])
        for name, column in part.items()
    }
    copies = build(**twice, rewards=np.tile(np.arange(10.0), 4))
    assert "2 of 4 episodes are copies of others" in said(copies, "copies")
    other = twice["observations"].copy()
    other[25, 2] += 1e-3
    assert "1 of 4" in said(
        build(**{**twice, "observations": other}, rewards=np.tile(np.arange(10.0), 4)), "copies"
    )


def test_a_dropped_tail_is_said(build):
    cut = build(truncations=np.zeros(40, bool), terminations=np.arange(40) % 20 == 9)
    assert "left out the last 10 steps" in said(cut, "an episode without an end")


def test_steps_beyond_the_limit_of_the_environment_are_said(build):
    rng = np.random.default_rng(2)
    ends = np.arange(900) % 300 == 299
    columns = {"observations": rng.normal(size=(900, 3)), "next_observations": rng.normal(size=(900, 3))}
    columns |= {"actions": rng.uniform(-1, 1, (900, 1)), "rewards": rng.normal(size=900)}
    long = build(env_id="Pendulum-v1", **columns, terminations=np.zeros(900, bool), truncations=ends)
    note = said(long, "longer than the limit of 200 steps")
    assert "3 episodes" in note and "up to 300" in note and "timestep 199" in note


def test_unknown_last_observations_are_said(build):
    assert "2 truncated episodes" in said(
        build(next_observations=None), "is not known", "leave these steps out"
    )


def test_constant_dimensions_are_said_by_the_rule_that_scales(build):
    """Noise below the rounding of float32 is no signal: what `spread` does not scale is what is said."""
    rng = np.random.default_rng(3)
    observations = rng.normal(size=(40, 3))
    observations[:, 1] = 0.3
    observations[:, 2] = 1e4 + rng.normal(size=40) * 1e-3  # moves by an ulp or two
    observations = observations.astype(np.float32)  # in double precision it would be signal
    dataset = build(observations=observations, actions=np.full((40, 1), 0.5))
    assert len(set(dataset.observations[:, 2].tolist())) > 1
    assert constant_dimensions(dataset) == describe(dataset).constant_dimensions == (1, 2)
    assert tuple(np.flatnonzero(np.array(dataset.spec.state_std) == 1.0)) == (1, 2)
    assert "(1, 2)" in said(dataset, "2 observation dimensions", "not scaled")
    assert "1 action dimension (0)" in said(dataset, "action dimension")


def test_what_varies_by_less_than_rounding_is_not_said_to_be_constant(build):
    rng = np.random.default_rng(3)
    farads = 3e-12 + 5e-13 * rng.normal(size=40)
    dataset = build(observations=np.stack([farads, rng.normal(size=40), np.full(40, 3e-12)], axis=1))
    assert constant_dimensions(dataset) == (0, 2)
    assert "(2)" in said(dataset, "1 observation dimension", "never changes, but for rounding")
    assert "(0)" in said(dataset, "varies by less than 1e-12", "give observations in other units")


def test_an_observation_of_one_whole_number_is_said(build):
    states = np.arange(40)[:, None] % 16
    dataset = build(observations=states, next_observations=states)
    assert "0 to 15" in said(dataset, "one whole number", "one-hot vectors")


def test_unusual_action_numbers_are_said(build):
    stray = np.arange(40) % 4
    stray[17] = 4000
    note = said(build(actions=stray), "never occur")
    assert note.startswith("3,996 of 4,001 actions never occur (4, 5, ") and "largest is 4,000" in note
    tens = said(build(actions=10 * (np.arange(40) % 4)), "27 of 31 actions never occur")
    assert "number those that occur from 0 (0 to 0, 10 to 1, 20 to 2, ...), or say --continuous-act" in tens
    assert "4,001 different choices" in said(
        build(actions=stray), "different choices", "--continuous-actions (give floats)"
    )
    assert not [note for note in find_notes(build(actions=np.arange(40) % 4)) if "action" in note]


def test_whole_numbers_given_as_continuous_actions_are_said(build):
    actions = (np.arange(40) % 4).astype(np.float64)[:, None]
    assert "0 to 3" in said(
        build(actions=actions), "given as continuous", "where they are choices give integers"
    )


def test_a_single_episode_is_said(build):
    ends = np.arange(40) == 39
    assert said(build(terminations=ends, truncations=np.zeros(40, bool)), "a single episode")


@pytest.mark.parametrize("number", [MAX_ACTIONS, 8_388_607, 2**62, -1])
def test_a_stray_action_number_is_refused_with_its_row(build, number):
    actions = np.arange(40) % 4
    actions[17] = number
    with pytest.raises(
        InputError, match=rf"row 17 \(episode 1, step 7\) is {number}, expected 0 to"
    ) as caught:
        build(actions=actions)
    assert "\n" not in str(caught.value)


def test_a_reason_for_the_lack_of_an_environment_is_said(home, tmp_path, build):
    dataset = build()
    path = tmp_path / "odd.npz"
    np.savez(
        path,
        **{
            name: getattr(dataset, name)
            for name in ("observations", "actions", "rewards", "terminations", "truncations")
        },
        env_id="Foo-v0",
    )
    assert "'Foo-v0'" in said(load_dataset(path, progress=False), "is not one that can be built here")


def test_notes_of_a_part_are_of_the_part(build):
    part = build().random_fraction(0.5, 0)
    assert find_notes(part)[0].startswith("2 episodes of 20 steps")
    assert said(part, "kept 2 of 4 episodes, drawn with seed 0")


def test_hdf5_without_ends_at_the_limit(home, write_hdf5, hopper_columns):
    del hopper_columns["timeouts"]
    path = write_hdf5(hopper_columns)
    with h5py.File(path, "r") as file:
        assert "timeouts" not in file
    assert said(load_dataset(path, progress=False), "no truncations recorded")
