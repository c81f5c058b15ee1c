import dataclasses

import numpy as np
import pytest
from rich.console import Console

from chibit.core.errors import DamagedFileError
from chibit.data.inspect import describe, render_summary
from chibit.data.load import from_arrays, load_dataset
from chibit.judging.profile import profile_of


def shown(summary):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(render_summary(summary))
    return capture.get()


@pytest.fixture
def summary(tmp_path):
    """Episodes of returns 3, 10 and 6, lengths 3, 2 and 4; the second observation never changes."""
    observations = np.stack([np.arange(9.0), np.full(9, 0.3)], axis=1)
    return describe(
        from_arrays(
            observations=observations,
            actions=np.linspace(-1, 1, 9)[:, None],
            rewards=[1, 1, 1, 4, 6, 0, 0, 0, 6],
            terminations=[0, 0, 1, 0, 0, 0, 0, 0, 1],
            truncations=[0, 0, 0, 0, 1, 0, 0, 0, 1],
            name="three[bold]".replace("[bold]", "-episodes"),
            score_reference=(0.0, 10.0),
            cache=tmp_path,
        )
    )


def test_numbers_by_hand(summary):
    assert (summary.num_steps, summary.num_episodes) == (9, 3)
    assert (summary.num_terminated, summary.num_truncated) == (2, 1)
    assert (summary.lengths.min, summary.lengths.mean, summary.lengths.max) == (2, 3, 4)
    assert summary.returns.mean == pytest.approx(19 / 3)
    assert summary.returns.std == pytest.approx(np.std([3, 10, 6]))
    assert (summary.actions.min, summary.actions.max) == (-1, 1)
    assert summary.constant_dimensions == (1,)
    assert not summary.has_final_observations
    assert sum(summary.histogram_counts) == 3
    assert summary.histogram_counts[0] == summary.histogram_counts[-1] == 1
    assert (summary.histogram_edges[0], summary.histogram_edges[-1]) == (3, 10)


def test_the_page_shows_all_of_it(summary):
    page = shown(summary)
    for text in (
        "three-episodes",
        "3: 2 terminated, 1 truncated; last observations not known",
        "3.00 to 10.0, mean 6.33",
        "2; 1 never changes (1)",
        "none: training only; at most 4 steps",
        "0 at 0, 100 at 10.0; these data: mean 63.3, best 100.0",
        "10, 6",
        "90 % of their episodes",
        "root mean square of the returns-to-go",
    ):
        assert text in " ".join(page.split()), text
    assert page.count("█" * 40) == 3


def test_a_real_set(write_minari, cartpole_episodes, home):
    dataset = load_dataset(write_minari(cartpole_episodes, "CartPole-v1", "test/cart/random-v0"))
    summary = describe(dataset)
    actions = np.concatenate([episode["actions"] for episode in cartpole_episodes])
    assert summary.action_counts == tuple(np.bincount(actions).tolist())
    page = shown(summary)
    assert "CartPole-v1; at most 500 steps" in page
    assert "2 discrete" in page


def test_names_from_files_are_not_markup(write_npz_named, home):
    page = shown(describe(load_dataset(write_npz_named("[red]x[/red]"))))
    assert "[red]x[/red]" in page


@pytest.fixture
def write_npz_named(tmp_path, hopper_columns):
    def write(name):
        folder = tmp_path / name.replace("/", "_")
        path = folder.with_name("x.npz")
        np.savez(path, env_id=name, **hopper_columns)
        return path

    return write


def test_one_episode_is_enough(tmp_path):
    page = shown(describe(from_arrays([[1.0]], [[0.0]], [0.0], [True], cache=tmp_path)))
    assert "1: 1 terminated" in page


@pytest.mark.parametrize("action", [-1.0, 7.0])
def test_a_store_whose_actions_are_no_choices_is_damaged(tmp_path, monkeypatch, action):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path))
    ends = np.arange(6) % 3 == 2
    dataset = from_arrays(np.zeros((6, 2)), np.arange(6) % 2, np.ones(6), ends, np.zeros(6, bool), name="a")
    records = np.array(dataset.records)
    records[0, 3] = action
    with pytest.raises(DamagedFileError, match="expected 0 to 1"):
        describe(dataclasses.replace(dataset, records=records))


@pytest.mark.parametrize("offset", [0.0, 3.0, -5e15, 9e18, 1e38])
def test_values_that_are_alike_have_a_histogram_however_large_they_are(tmp_path, offset):
    rows = np.linspace(-1, 1, 6)[:, None]
    dataset = from_arrays(
        observations=rows + offset,
        actions=np.tile([[offset], [np.nextafter(np.float32(offset), np.float32(np.inf))]], (3, 1)),
        rewards=np.tile([offset, np.nextafter(np.float32(offset), np.float32(np.inf))], 3),
        terminations=np.ones(6, bool),
        cache=tmp_path,
    )
    counts = [describe(dataset).histogram_counts]
    profile = profile_of([dataset])
    counts += [each.counts for each in (profile.returns, profile.rewards, *profile.states, *profile.actions)]
    assert [sum(each) for each in counts] == [6] * len(counts)


def test_counts_are_of_the_actions_that_occur(tmp_path):
    actions = np.resize([10, 20, 30, 20], 40)
    ends = np.arange(40) % 20 == 19
    few = from_arrays(np.arange(40.0), actions, np.arange(40), ends, cache=tmp_path)
    assert "action counts 10: 10, 20: 20, 30: 10 " in " ".join(shown(describe(few)).split())
    many = from_arrays(np.arange(40.0), 5 * np.arange(40), np.arange(40), ends, cache=tmp_path)
    assert "90: 1, 95: 1, and 20 more" in " ".join(shown(describe(many)).split())
