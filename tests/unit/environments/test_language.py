import runpy
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.data.text.tokenizer import load_gpt2_tokenizer
from chibit.environments.instructions import HELD_OUT, SLOTS, SYNONYMS, is_held_out, rephrase, word_in
from chibit.environments.make import make_env
from chibit.environments.registry import ENVIRONMENTS, LANGUAGE_SPLITS, LANGUAGE_TASKS

pytest.importorskip("minigrid")
from minigrid.utils.baby_ai_bot import BabyAIBot  # noqa: E402

from chibit.environments.language import (  # noqa: E402
    TRAINING_SEEDS,
    LanguageTask,
    _all_seeds,
    done_required,
    split_seeds,
)

LEVELS = [ENVIRONMENTS[env_id].level for env_id in LANGUAGE_TASKS.values()]
DONE = 6


def follow(env, *, seed):
    """What the bot reaches in one episode: the reward, and steps."""
    env.reset(seed=seed)
    bot, action, steps = BabyAIBot(env.level), None, 0
    while True:
        action = DONE if env.is_followed else bot.replan(action)
        _, reward, terminated, truncated, info = env.step(action)
        steps += 1
        if terminated or truncated:
            assert info["success"] == (reward > 0)
            return reward, steps


def successes(env, act, number=100):
    """Share of episodes that a function of the environment solves within its time."""
    solved = 0
    for seed in range(number):
        env.reset(seed=seed)
        over = cut = False
        reward = 0.0
        while not (over or cut):
            _, reward, over, cut, _ = env.step(act(env))
        solved += reward > 0
    return solved / number


@pytest.mark.parametrize("level", ["GoToLocalS8N4", "PickupLoc", "MixedLocal"])
def test_the_bot_follows_instructions(level):
    played = [follow(LanguageTask(level), seed=seed) for seed in range(20)]
    assert sum(reward for reward, _ in played) >= 19  # it begins at its target now and then
    assert max(steps for _, steps in played) < ENVIRONMENTS[f"chibit/BabyAI-{level}-v0"].max_episode_steps


@pytest.mark.slow
def test_the_bot_follows_a_hundred_and_random_play_one_or_two():
    env = LanguageTask("GoToLocalS8N4")
    assert [follow(env, seed=seed)[0] for seed in range(100)].count(1.0) == 100
    dice = np.random.default_rng(0)
    assert successes(env, lambda _: dice.integers(7), 300) < 0.05  # 0.015; chance of four objects is 0.25


def test_options_of_others_change_nothing():
    env = LanguageTask("GoToLocalS8N4", "held_out")
    env.reset(seed=3)
    assert all(is_held_out(env.reset(options={"of": "a wrapper"})[0]["mission"]) for _ in range(5))


def test_touching_the_target_is_no_success_and_done_elsewhere_is_a_failure():
    env = LanguageTask("GoToLocalS8N4")
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(DONE)
    assert (reward, terminated, truncated, info) == (0.0, True, False, {"success": False})
    env.reset(seed=0)
    bot, action = BabyAIBot(env.level), None
    while not env.is_followed:
        action = bot.replan(action)
        _, reward, terminated, _, _ = env.step(action)
        assert not terminated and reward == 0
    assert env.step(DONE)[1:3] == (1.0, True)


def test_another_mission_is_not_followed():
    """The bot, told to follow the instruction of another episode's room, almost never gets here."""
    reached = 0
    for seed in range(20):
        env = LanguageTask("GoToLocalS8N4")
        env.reset(seed=seed)
        right = env.level.instrs.desc
        colors = {obj.color for obj in env.level.grid.grid if obj and obj.type != "wall"} - {right.color}
        other = next(obj for obj in env.level.grid.grid if obj and obj.type != "wall" and obj.color in colors)
        right.color, right.type, instruction = other.color, other.type, (right.color, right.type)
        right.find_matching_objs(env.level)
        bot = BabyAIBot(env.level)
        right.color, right.type = instruction
        right.find_matching_objs(env.level)
        bot.stack[0].datum = type(right)(other.type, other.color)
        bot.stack[0].datum.find_matching_objs(env.level)
        action, over = None, False
        while not over:
            action = bot.replan(action)
            _, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        reached += reward > 0
    assert reached == 0


def test_the_rule_of_done_stays_with_the_task():
    from minigrid.envs.babyai.core import verifier

    before = verifier.use_done_actions
    with done_required():
        assert verifier.use_done_actions is True
    env = LanguageTask("GoToObj")
    env.reset(seed=0)
    env.step(0)
    assert verifier.use_done_actions is before


@pytest.mark.parametrize("level", LEVELS)
def test_lists_of_reset_seeds_are_disjoint_and_below_those_of_training(level):
    lists = _all_seeds()[level]
    assert not set(lists["seen"]) & set(lists["held_out"])
    assert all(0 <= seed < TRAINING_SEEDS for seeds in lists.values() for seed in seeds)
    assert all(len(set(seeds)) == len(seeds) == 256 for kind, seeds in lists.items() if seeds)
    assert set(lists) == {"seen", "held_out", "typed", "colored"}


@pytest.mark.parametrize("level", ["GoToLocalS8N4", "PickupLoc", "MixedLocal"])
def test_lists_are_those_that_the_levels_give(level):
    script = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "make_language_splits.py"))
    for kind, number in (("held_out", 5), ("colored", 5), ("seen", 3)):
        assert script["find_seeds"](level, kind, number) == _all_seeds()[level][kind][:number]


def said(level, split, seeds=range(12)):
    env = make_env(f"chibit/BabyAI-{level}{split and '-' + split}-v0")
    return [env.reset(seed=seed)[1]["mission"] for seed in seeds]


def test_splits_play_the_same_rooms_with_other_words():
    seen, held_out = said("GoToLocalS8N4", ""), said("GoToLocalS8N4", "held_out")
    assert not any(map(is_held_out, seen)) and all(map(is_held_out, held_out))
    colors = said("GoToLocalS8N4", "color_synonym"), said("GoToLocalS8N4", "color_nonsense")
    rooms = [
        make_env(f"chibit/BabyAI-GoToLocalS8N4-{split}-v0").reset(seed=5)[0]
        for split in ("color_synonym", "color_nonsense", "color_wrong", "type_synonym", "blank")
    ]
    for room in rooms[1:3]:
        np.testing.assert_array_equal(rooms[0], room)  # paired: what differs is the word alone
    every = {word for words in SYNONYMS["color"].values() for word in words}
    assert all(set(mission.split()) & every for mission in colors[0])
    assert all(word_in(mission, "color") is None for pair in colors for mission in pair)
    assert said("GoToLocalS8N4", "blank") == [""] * 12


@pytest.mark.parametrize("slot", SLOTS)
def test_nonsense_is_as_long_as_the_synonym_of_its_room(slot):
    """Else the words after it stand elsewhere, and an agent fails for that."""
    encode = load_gpt2_tokenizer().encode
    missions = {
        *(f"{verb} the {color} {kind}" for verb in ("go to", "pick up", "open")
          for color in SYNONYMS["color"] for kind in SYNONYMS["type"]),
        *(f"put the {color} box next to the red ball" for color in SYNONYMS["color"]),
    }  # fmt: skip
    lengths = set()
    for mission in sorted(missions):
        for seed in range(20):
            synonym, nonsense = (
                rephrase(mission, f"{slot}_{how}", np.random.default_rng(seed))
                for how in ("synonym", "nonsense")
            )
            assert len(encode(synonym)) == len(encode(nonsense)), (synonym, nonsense)
            assert synonym != nonsense
            lengths.add(len(encode(synonym)) - len(encode(mission)))
    assert len(lengths) > 1, "words of several lengths are among them"


def test_words_are_put_into_their_slot():
    dice = np.random.default_rng(0)
    told = "put the red ball next to the blue key"
    assert rephrase(told, "seen", dice) == rephrase(told, "held_out", dice) == told
    assert rephrase(told, "blank", dice) == ""
    first, _, rest = rephrase(told, "color_synonym", dice).partition(" ball next to the blue key")
    assert first.removeprefix("put the ") in SYNONYMS["color"]["red"] and rest == ""
    assert rephrase(told, "type_wrong", dice).split()[3] in ("box", "key", "door")
    assert rephrase("go to a grey door", "verb_synonym", dice).endswith(" to a grey door")
    assert rephrase("go to a grey door", "verb_nonsense", dice).endswith(" to a grey door")
    assert rephrase("go to a grey door", "verb_wrong", dice) in ("pick up a grey door", "open a grey door")
    assert rephrase("pick up an object behind you", "color_synonym", dice) == "pick up an object behind you"
    assert {word_in(f"the {c} {t}", "color") for c, t in HELD_OUT} == set(SYNONYMS["color"])


def test_what_is_asked_for_and_not_there():
    with pytest.raises(InputError, match="level 'GoToMars': expected GoToObj, GoToLocalS8N4"):
        split_seeds("GoToMars", "seen")
    with pytest.raises(InputError, match="split 'upside_down' of level GoToObj: expected seen, held_out"):
        split_seeds("GoToObj", "upside_down")
    with pytest.raises(InputError, match="level GoToDoor: split held_out has no episodes; choose another"):
        make_env("chibit/BabyAI-GoToDoor-held_out-v0")
    with pytest.raises(InputError, match="BabyAI-GoToMars-v0' is not one that can be built here") as refused:
        make_env("chibit/BabyAI-GoToMars-v0")
    assert "held_out" not in str(refused.value).partition("did you mean")[0]


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(InputError, match=r"needs the extra language: pip install 'chibit\[language\]'"):
        make_env("chibit/BabyAI-GoToLocal-v0")


def test_a_level_as_gymnasium_and_the_package_see_it():
    env = gym.make("chibit/BabyAI-MixedLocal-verb_wrong-v0", render_mode="rgb_array")
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert env.render().shape[2] == 3
    assert env.unwrapped.np_random is not None
    flat = make_env("chibit/BabyAI-MixedLocal-verb_wrong-v0")
    vector, info = flat.reset(seed=1)
    assert vector.shape == (4 + 147,) and info["mission"] == observation["mission"]
    assert vector[observation["direction"]] == 1
    np.testing.assert_array_equal(vector[4:], observation["image"].ravel())
    row = ENVIRONMENTS["chibit/BabyAI-MixedLocal-v0"]
    assert row.splits[: len(LANGUAGE_SPLITS)] == LANGUAGE_SPLITS
    assert list(row.played_at_end("chibit/BabyAI-MixedLocal-v0")) == list(row.splits)
    assert row.played_at_end("chibit/BabyAI-MixedLocal-blank-v0") == {}
    doors = ENVIRONMENTS["chibit/BabyAI-GoToDoor-v0"].played_at_end("chibit/BabyAI-GoToDoor-v0")
    assert "held_out" not in doors and "blank" in doors
    assert row.options("chibit/BabyAI-MixedLocal-blank-v0") == {"level": "MixedLocal", "split": "blank"}


def test_texts_of_other_environments_are_put_aside_too():
    _, info = make_env("BabyAI-GoToLocal-v0").reset(seed=3)
    assert info["mission"].startswith("go to ")


def test_success_is_said_of_every_grid_world():
    env = make_env("BabyAI-GoToObj-v0")
    env.reset(seed=0)
    bot, action, over = BabyAIBot(env.unwrapped), None, False
    said = []
    while not over:
        action = bot.replan(action)
        _, reward, terminated, truncated, info = env.step(int(action))
        over = terminated or truncated
        said.append((info["success"], reward > 0))
    assert said[-1] == (True, True) and all(success == rewarded for success, rewarded in said)
