import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chibit.core.errors import InputError
from chibit.data.readers.columns import Reading, check_needed, locate_columns
from chibit.data.readers.recording import (
    find_episodes,
    record_columns,
    truncate_at_limit,
)

FLAGS = st.lists(st.booleans(), min_size=1, max_size=30)


@given(flags=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_episodes_cover_all_steps_up_to_the_last_end(flags):
    terminations, truncations = np.array(flags).T
    is_end = terminations | truncations
    if not is_end.any():
        with pytest.raises(InputError, match="ends an episode"):
            find_episodes(terminations, truncations, "here")
        return
    starts, ends, notes = find_episodes(terminations, truncations, "here")
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert (starts[1:] - 1).tolist() == np.flatnonzero(is_end).tolist()
    assert ends.tolist() == np.array(flags)[is_end].tolist()
    tail = len(flags) - starts[-1]
    assert bool(notes) == (tail > 0)
    if tail:
        assert f"the last {tail} step" in notes[0]


def plain_truncations(terminations, limit):
    steps, found = 0, []
    for terminated in terminations:
        steps += 1
        found.append(steps == limit and not terminated)
        if terminated or steps == limit:
            steps = 0
    return found


@given(terminations=FLAGS, limit=st.integers(1, 12))
def test_a_limit_cuts_as_step_counting_does(terminations, limit):
    found = truncate_at_limit(np.array(terminations), limit)
    assert found.tolist() == plain_truncations(terminations, limit)


def columns(num_steps=6, **changes):
    given = {
        "observations": np.zeros((num_steps, 2)),
        "actions": np.zeros((num_steps, 1)),
        "rewards": np.ones(num_steps),
        "terminations": np.arange(num_steps) % 3 == 2,
    }
    return given | changes


def test_without_truncations_the_limit_decides_and_is_said():
    recording = record_columns(columns(8), where="x", time_limit=2)
    assert recording.episode_starts.tolist() == [0, 2, 3, 5, 6, 8]
    assert recording.episode_ends[:, 1].tolist() == [True, False, True, False, True]
    assert any("limit of 2 steps" in note for note in recording.notes)


def test_without_truncations_or_limit_terminations_decide():
    recording = record_columns(columns(8), where="x")
    assert recording.episode_starts.tolist() == [0, 3, 6]
    assert "left out the last 2 steps: an episode without an end" in recording.notes


def test_episodes_of_one_step_are_fine():
    recording = record_columns(columns(3, terminations=np.ones(3)), where="x")
    assert recording.episode_starts.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.ones(5)}, "observations 6, actions 6, rewards 5"),
        ({"rewards": np.ones((6, 2))}, r"rewards: shape \(6, 2\)"),
        ({"observations": np.zeros((6, 2, 2))}, "vectors, or pictures"),
        ({"observations": np.zeros((6, 0))}, "vectors"),
        ({"actions": np.zeros((6, 2), int)}, "integers of shape"),
        ({"actions": np.zeros((6, 2, 2))}, "numbers of shape"),
        ({"terminations": np.full(6, 0.5)}, "row 0 is 0.5, expected 0 or 1"),
        ({"terminations": np.array([0, 0, 1, 0, 0, np.nan])}, "row 5 is nan"),
        ({"terminations": np.zeros(6)}, "none of 6 steps ends an episode"),
        ({"next_observations": np.zeros((6, 3))}, r"next_observations have shape \(6, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        record_columns(columns(**changes), where="x")


def test_no_steps_are_refused():
    with pytest.raises(InputError, match="no steps"):
        record_columns(columns(0), where="x")


def test_columns_are_found_under_their_other_names():
    found = locate_columns(
        ["observations", "actions", "rewards", "terminals", "timeouts", "infos"], "x", Reading()
    )
    assert found == {
        "observations": ("observations",),
        "actions": ("actions",),
        "rewards": ("rewards",),
        "terminations": ("terminals",),
        "truncations": ("timeouts",),
    }


def test_missing_columns_are_named_beside_those_that_are_there():
    with pytest.raises(InputError, match="no terminations; found actions, observations, rew"):
        check_needed(
            ["observations", "actions", "rewards"], ["observations", "actions", "rewards"], "x", None
        )
