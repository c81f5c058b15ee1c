"""Data collected on the spot, in real ALE."""

import numpy as np
import pytest

from atari_toys import write_actor
from chibit.core.errors import InputError, ResourceError
from chibit.data.collect import atari as atari_collect
from chibit.data.collect.atari import collect_atari
from chibit.data.collect.behavior.rollout import collection_seed
from chibit.data.load import list_datasets, load_dataset
from chibit.environments.atari import AtariEnv


@pytest.fixture
def actor(tmp_path):
    write_actor(tmp_path / "actor.safetensors", 4)
    return tmp_path / "actor.safetensors"


@pytest.fixture(autouse=True)
def _short_games(monkeypatch):
    monkeypatch.setattr("chibit.environments.atari.MAX_EPISODE_STEPS", 40)


def collect(name, actor, out, **options):
    return load_dataset(collect_atari(name, policy=actor, out=out, progress=False, **options))


def test_a_set_is_decided_by_its_settings(actor, tmp_path):
    first = collect("breakout-expert", actor, tmp_path / "a", num_steps=100, seed=1)
    again = collect("breakout-expert", actor, tmp_path / "b", num_steps=100, seed=1)
    other = collect("breakout-expert", actor, tmp_path / "c", num_steps=100, seed=2)
    assert first.content_hash == again.content_hash != other.content_hash
    assert first.num_steps >= 100 > first.num_steps - first.episode_lengths[-1]
    assert first.spec.env_id == "BreakoutNoFrameskip-v4" and first.spec.max_episode_steps == 27_000


def test_actions_replayed_in_the_environment_give_the_same_pictures_and_rewards(actor, tmp_path):
    dataset = collect("breakout-medium", actor, tmp_path, num_steps=30, seed=4)
    seed = int(collection_seed(4, 0).generate_state(1)[0])
    env = AtariEnv("BreakoutNoFrameskip-v4")
    observation, _ = env.reset(seed=seed)
    game = dataset.trajectory(0)
    for frame, action, reward in zip(game.observations, game.actions, game.rewards, strict=True):
        np.testing.assert_array_equal(observation[-1], frame)
        observation, found, *_ = env.step(action)
        assert found == reward


def test_a_life_begins_with_fire(actor, tmp_path, monkeypatch):
    monkeypatch.setattr("chibit.environments.atari.MAX_EPISODE_STEPS", 400)
    dataset = collect("breakout-random", None, tmp_path, num_steps=50)
    env = AtariEnv("BreakoutNoFrameskip-v4")
    seed = int(collection_seed(0, 0).generate_state(1)[0])
    lives, must_fire, fired = env.reset(seed=seed)[1]["lives"], True, 0
    for action in dataset.trajectory(0).actions:
        if must_fire:
            assert env.action_meanings[action] == "FIRE"
            fired += 1
        info = env.step(action)[4]
        must_fire, lives = info["lives"] < lives, info["lives"]
    assert fired == 5


def test_a_mixture_has_a_share_of_each_level(actor, tmp_path):
    dataset = collect("breakout-medium-replay", actor, tmp_path, num_steps=320)
    assert dataset.num_steps >= 320
    assert [note.split(" random action ")[1].split(" ")[0] for note in dataset.notes] == [
        "100%",
        "70%",
        "50%",
        "30%",
    ]


def test_sticky_actions_are_an_option_and_said(actor, tmp_path):
    plain = collect("breakout-random", None, tmp_path / "a", num_steps=80)
    sticky = collect("breakout-random", None, tmp_path / "b", num_steps=80, sticky_actions=True)
    assert plain.content_hash != sticky.content_hash and "played with sticky actions" in sticky.notes
    assert sticky.provenance["physics"]["sticky_actions"] == 0.25
    assert sticky.spec.env_id == "BreakoutNoFrameskip-v4", "evaluated without, as Chen et al. do"


def test_the_same_settings_are_not_collected_again_and_others_are_refused(actor, tmp_path, monkeypatch):
    first = collect_atari("breakout-random", policy=None, num_steps=40, out=tmp_path, progress=False)
    monkeypatch.setattr(atari_collect, "write_frame_store", None)
    assert collect_atari("breakout-random", policy=None, num_steps=40, out=tmp_path, progress=False) == first
    with pytest.raises(InputError, match="num_steps 40 there, 50 asked for"):
        collect_atari("breakout-random", policy=None, num_steps=50, out=tmp_path, progress=False)
    (tmp_path / "pong-random").mkdir()
    with pytest.raises(InputError, match="not a set that chibit collected"):
        collect_atari("pong-random", policy=None, num_steps=50, out=tmp_path, progress=False)


def test_bad_input_is_refused_and_leaves_nothing(actor, tmp_path, monkeypatch):
    out = tmp_path / "sets"
    for name, options, match in (
        ("tetris-expert", {}, "expected a game"),
        ("breakout-expert", {}, "--policy"),
        ("pong-expert", {"policy": actor}, "another game's"),
        ("breakout-random", {"num_steps": 0}, "num_steps"),
        ("breakout-random", {"seed": -1}, "seed"),
    ):
        with pytest.raises(InputError, match=match):
            collect_atari(name, **{"policy": None, "out": out, "progress": False, **options})
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(ResourceError, match="free some space"):
        collect_atari("breakout-random", policy=None, num_steps=10, out=out, progress=False)
    assert not out.exists()


def test_a_name_is_found_where_sets_are_kept_and_listed(actor, tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path))
    with pytest.raises(InputError, match="chibit data collect breakout-random --policy FILE"):
        load_dataset("breakout-random")
    collect_atari("breakout-random", policy=None, num_steps=40, progress=False)
    assert load_dataset("breakout-random").num_steps >= 40
    with pytest.raises(InputError, match="not here yet"):
        load_dataset("breakout-random", cache=tmp_path / "another")
    listed = "\n".join(list_datasets())
    assert "breakout-random" in listed and "1 % of DQN-replay; downloaded when first used" in listed
