import json

import h5py
import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.data.collect.behavior.rollout import collection_seed
from chibit.data.collect.scripted import collect_scripted
from chibit.data.load import list_datasets, load_dataset
from chibit.evaluation.rollout import episode_seeds


@pytest.mark.parametrize(("dataset", "length"), [("tmaze-15-expert", (12, 16)), ("keytodoor-20", (23, 23))])
def test_the_expert_is_always_right(tmp_path, dataset, length):
    folder = collect_scripted(dataset, num_steps=600, out=tmp_path, progress=False)
    data = load_dataset(folder, cache=tmp_path / "home", progress=False)
    assert data.num_steps >= 600 > data.num_steps - data.episode_lengths[-1]
    assert set(data.episode_returns.tolist()) == {1.0}
    assert length[0] <= data.episode_lengths.min() and data.episode_lengths.max() <= length[1]
    assert data.terminations.sum() == data.num_episodes
    assert data.spec.score_reference == (0.0, 1.0)
    assert data.spec.env_id in ("chibit/TMaze15-v0", "chibit/KeyToDoor20-v0")
    assert data.spec.max_episode_steps in (30, 23)


def test_every_other_episode_of_mixed_data_guesses(tmp_path):
    folder = collect_scripted("tmaze-15-mixed", num_steps=6_000, out=tmp_path, progress=False)
    data = load_dataset(folder, cache=tmp_path / "home", progress=False)
    returns = data.episode_returns
    assert set(returns[::2].tolist()) == {1.0}
    assert abs(returns[1::2].mean() - 0.5) < 0.15  # four standard deviations of 215 coins


def test_data_say_no_word_of_other_settings(tmp_path):
    """The length is what the id stands for, and no option that an evaluation would lack."""
    folder = collect_scripted("tmaze-50-expert", num_steps=100, out=tmp_path, progress=False)
    metadata = json.loads((folder / "data" / "metadata.json").read_text())
    assert json.loads(metadata["eval_env_spec"])["kwargs"] == {"length": 50}
    data = load_dataset(folder, cache=tmp_path / "home", progress=False)
    assert not [note for note in data.notes if "evaluated without" in note]


def test_the_same_seed_gives_the_same_data_and_another_does_not(tmp_path):
    sets = []
    for number, seed in enumerate((3, 3, 4)):
        folder = collect_scripted(
            "tmaze-15-mixed", num_steps=300, seed=seed, out=tmp_path / str(number), progress=False
        )
        data = load_dataset(folder, cache=tmp_path / "home", progress=False)
        sets.append(np.concatenate([data.observations.ravel(), data.actions]))
    np.testing.assert_array_equal(sets[0], sets[1])
    assert not np.array_equal(sets[0][:200], sets[2][:200])


def test_a_set_that_is_there_is_kept_and_another_is_refused(tmp_path):
    folder = collect_scripted("keytodoor-20-mixed", num_steps=100, out=tmp_path, progress=False)
    assert collect_scripted("keytodoor-20-mixed", num_steps=100, out=tmp_path, progress=False) == folder
    with pytest.raises(InputError, match="exists with other settings"):
        collect_scripted("keytodoor-20-mixed", num_steps=200, out=tmp_path, progress=False)


def test_no_episode_starts_as_one_of_an_evaluation_does(tmp_path):
    folder = collect_scripted("tmaze-15-expert", num_steps=600, out=tmp_path, progress=False)
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        seeds = {int(episode.attrs["seed"]) for episode in file.values()}
    assert len(seeds) > 30 and not seeds & set(episode_seeds(0, 1_000))
    collected = [collection_seed(0, i).generate_state(1)[0] for i in range(1_000)]
    assert not set(collected) & set(episode_seeds(0, 1_000))


def test_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for name in ("tmaze-15", "tmaze-15-expert", "chibit/tmaze-15/expert-v0"):
        with pytest.raises(InputError, match="chibit data collect .* makes it"):
            load_dataset(name, download=False, cache=tmp_path)
    collect_scripted("tmaze-15", num_steps=50, progress=False)
    hashes = {
        load_dataset(name, cache=tmp_path, progress=False).content_hash
        for name in ("tmaze-15", "tmaze-15-expert", "chibit/tmaze-15/expert-v0")
    }
    assert len(hashes) == 1
    assert any(line.startswith("tmaze-50-mixed") for line in list_datasets(cache=tmp_path))
    with pytest.raises(InputError, match="tmaze-16.*did you mean 'tmaze-15"):
        load_dataset("tmaze-16-expert", cache=tmp_path)
