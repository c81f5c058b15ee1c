"""What a study's settings do to its runs: each reaches the methods that it is for, and no other."""

from __future__ import annotations

import dataclasses
import re

import pytest

from chibit import study_runs
from chibit.core.errors import InputError
from chibit.recipes import RECIPES
from chibit.studies import STUDIES, Study
from chibit.study_runs import study_configs

MADE_UP = Study(
    summary="every kind of setting",
    arms=("random", "chibit_language", "td3_bc", "iql"),
    data=("first", "second"),
    num_steps=600,
    evaluate_every=100,
    precision="bf16",
    settings={"dt": {"context_length": 7, "batch_size": 5}, "iql": {"expectile": 0.6}},
    data_settings={"second": {"dt": {"context_length": 9}}},
    language_settings={"language_block": 48},
)


def changed(config):
    """Fields of a run's method that its recipe does not have so."""
    plain = RECIPES[config.arm].run(data=config.data).agent
    return {
        field.name: getattr(config.agent, field.name)
        for field in dataclasses.fields(plain)
        if getattr(config.agent, field.name) != getattr(plain, field.name)
    }


def test_each_setting_reaches_the_methods_that_it_is_for(monkeypatch):
    monkeypatch.setitem(STUDIES, "made_up", MADE_UP)
    configs = study_configs("made_up", seeds=(4, 2))
    shared = {"context_length": 7, "batch_size": 5}
    expected = {
        ("random", "first"): shared,
        ("random", "second"): shared | {"context_length": 9},
        ("chibit_language", "first"): shared | {"language_block": 48},
        ("chibit_language", "second"): shared | {"context_length": 9, "language_block": 48},
        ("td3_bc", "first"): {},
        ("td3_bc", "second"): {},
        ("iql", "first"): {"expectile": 0.6},
        ("iql", "second"): {"expectile": 0.6},
    }
    found = {(config.arm, config.data): changed(config) for config in configs}
    assert found == expected
    # Seeds outermost, then data sets, then arms: an early stop leaves whole seeds.
    order = [(config.seed, config.data, config.arm) for config in configs]
    assert order == [(seed, data, arm) for seed in (4, 2) for data in MADE_UP.data for arm in MADE_UP.arms]
    for config in configs:
        assert (config.num_steps, config.evaluate_every, config.precision) == (600, 100, "bf16")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_with_all_that_it_states(name):
    study = STUDIES[name]
    rates = dict.fromkeys(study.arms, 3e-3) if study.has_chosen_rates else None
    for config in study_configs(name, seeds=(0,), rates=rates):
        key, by_data = config.agent.agent, study.data_settings.get(config.data, {})
        stated = {**study.settings.get(key, {}), **by_data.get(key, {})}
        if key == "dt" and config.agent.language_weight:
            stated |= study.language_settings
        if rates and config.agent.agent == "dt":
            stated |= {"backbone_learning_rate": 3e-3}
        assert stated.items() <= {**vars(config.agent)}.items()
        assert config.num_steps == study.num_steps
        assert config.precision == study.precision


def test_settings_of_named_studies():
    """By hand, for those that the tables of the results stand on."""
    by_arm = {(c.arm, c.data): c.agent for c in study_configs("table1", seeds=(0,))}
    assert by_arm["dt_atari", "Pong"].context_length == 50
    assert by_arm["dt_atari", "Qbert"].context_length == 30
    by_arm = {c.arm: c.agent for c in study_configs("table1_small", seeds=(0,))}
    assert by_arm["cql_atari"].conservative_weight == 100.0
    assert by_arm["cql_atari"].target_every == by_arm["rem_atari"].target_every == 100
    assert by_arm["chibit_atari"].standardize_pictures
    by_arm = {c.arm: c.agent for c in study_configs("initializers", seeds=(0,))}
    assert by_arm["chibit_language"].language_block == 256
    assert by_arm["random"].language_block != 256
    assert by_arm["random"].learning_rate == by_arm["markov"].learning_rate == 3e-4


def test_text_and_budgets_reach_what_is_trained_on_them(monkeypatch):
    monkeypatch.setitem(STUDIES, "made_up", MADE_UP)
    arms = ("random", "chibit_language", "iid", "shuffled_text", "iql")
    given = {"language_corpus": "my_text", "pretrain_steps": 77}
    runs = {c.arm: c.agent for c in study_configs("made_up", arms=arms, data=("first",), seeds=(0,), **given)}
    assert runs["iid"].initializer == "iid:77"
    assert runs["shuffled_text"].initializer == "shuffled_text:77:my_text"
    assert (runs["chibit_language"].language_corpus, runs["chibit_language"].language_block) == (
        "my_text",
        48,
    )
    assert runs["chibit_language"].context_length == 7
    assert runs["random"].language_corpus == runs["iid"].language_corpus == ""
    plain = {c.arm: c.agent for c in study_configs("made_up", arms=arms, data=("first",), seeds=(0,))}
    assert plain["iid"].initializer == RECIPES["iid"].run(data="first").agent.initializer
    assert plain["chibit_language"].language_corpus == "wikitext-103"


def test_what_is_given_stands_in_place_of_the_studys_and_the_recipes(monkeypatch):
    monkeypatch.setitem(STUDIES, "made_up", dataclasses.replace(MADE_UP, run_settings={"num_episodes": 3}))
    shape = {"arms": ("random",), "data": ("first",), "seeds": (0,)}
    [run] = study_configs("made_up", **shape)
    assert (run.num_episodes, run.data_fraction, run.target_returns) == (3, 1.0, None)
    [run] = study_configs("made_up", **shape, num_episodes=5, num_steps=40, precision=None, fractions=(0.5,))
    assert (run.num_episodes, run.num_steps, run.evaluate_every, run.data_fraction) == (5, 40, 10, 0.5)
    assert run.precision == "bf16"
    [run] = study_configs("made_up", **shape, num_steps=2, evaluate_every=7)
    assert run.evaluate_every == 7
    # As stated, however few evaluations that are; of fewer steps, or where nothing is stated, four.
    for stated, num_steps, expected in (
        (400, None, 400), (400, 600, 400), (400, 800, 400), (400, 300, 75), (None, None, 150), (0, None, 0),
    ):  # fmt: skip
        monkeypatch.setitem(STUDIES, "made_up", dataclasses.replace(MADE_UP, evaluate_every=stated))
        [run] = study_configs("made_up", **shape, num_steps=num_steps)
        assert run.evaluate_every == expected
    targets = {"first": (4.0, 2.0)}
    monkeypatch.setitem(STUDIES, "made_up", dataclasses.replace(MADE_UP, target_returns=targets))
    by_data = {c.data: c.target_returns for c in study_configs("made_up", arms=("random",), seeds=(0,))}
    assert by_data == {"first": (4.0, 2.0), "second": None}
    runs = study_configs("made_up", arms=("random",), seeds=(0,), targets_by_environment={"second": (1.0,)})
    assert {c.data: c.target_returns for c in runs} == {"first": (4.0, 2.0), "second": (1.0,)}


def test_schedules_of_a_study_shrink_with_its_steps(monkeypatch):
    monkeypatch.setitem(
        STUDIES, "made_up", dataclasses.replace(MADE_UP, settings={"dt": {"warmup_steps": 100}})
    )
    given = {"arms": ("random",), "data": ("first",), "seeds": (0,)}
    for num_steps, warmup_steps in ((None, 100), (60, 10), (6_000, 100)):
        [run] = study_configs("made_up", **given, num_steps=num_steps)
        assert run.agent.warmup_steps == warmup_steps


def test_chosen_rates_are_the_arms_own(monkeypatch):
    monkeypatch.setitem(STUDIES, "made_up", dataclasses.replace(MADE_UP, has_chosen_rates=True))
    given = {"arms": ("random", "chibit_language", "iql"), "data": ("first",), "seeds": (0,)}
    runs = study_configs("made_up", **given, rates={"random": 1e-3, "chibit_language": 2e-3})
    assert [getattr(run.agent, "backbone_learning_rate", None) for run in runs] == [1e-3, 2e-3, None]
    known = {"random": 3e-3, "chibit_language": 4e-3}
    monkeypatch.setattr(study_runs, "BACKBONE_RATES", known)
    runs = study_configs("made_up", **given)
    assert [getattr(run.agent, "backbone_learning_rate", None) for run in runs] == [3e-3, 4e-3, None]
    with pytest.raises(InputError) as caught:
        study_configs("made_up", **given, rates={"random": 1e-3})
    assert str(caught.value) == (
        "study made_up: no backbone learning rate was chosen for arm 'chibit_language'; try some with chibit "
        "train --recipe chibit_language --arm chibit_language_3e-4 --backbone-learning-rate 3e-4 "
        "--validation-share 0.1 --study trials, and give --rates-from the folder of its runs"
    )
    known.clear()  # an arm whose trials have recipes
    with pytest.raises(InputError, match="'random'; run chibit study rates with it, and give --rates-from"):
        study_configs("made_up", **{**given, "arms": ("random",)})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "tabel2"}, "study: got 'tabel2'; did you mean 'table2'.*; known: .*table1, .*"),
        ({"seeds": ()}, "seeds: got none, expected at least one"),
        ({"seeds": (3, 1, 3)}, "seeds: got 3, 1, 3, expected each once"),
        ({"data": ("a", "a")}, "data: got a, a, expected each once"),
        ({"arms": ("dt", "dt")}, "arms: got dt, dt, expected each once"),
        ({"arms": ("chibbit",)}, "arm: unknown 'chibbit'.*chibit.*; see chibit recipes"),
        ({"pretrain_steps": 0}, "pretrain_steps: got 0, expected at least 1"),
        ({"fractions": (0.5, 0.5)}, "fractions: got 0.5, 0.5, expected each once"),
        ({"targets_by_environment": {"ant": (1.0,)}},
         "target-returns: 'ant' is not in this study; its data: hopper-[^X]*, [^X]*"),
        ({"targets_by_environment": {"hopper": (1.0,), "Hopper-v5": (2.0,)}},
         "target-returns: got 'hopper' and 'Hopper-v5', one environment, expected each once"),
    ],
)  # fmt: skip
def test_refusals(given, said):
    with pytest.raises(InputError) as caught:
        study_configs(**{"name": "table2", **given})
    assert re.fullmatch(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"settings": {"dt": {"learning_rat": 1e-3}}},
         "settings: dt: 'learning_rat' is no field of DecisionTransformerConfig; did you mean 'learning"),
        ({"settings": {"td3bc": {}}}, "settings: got 'td3bc'; did you mean 'td3_bc'"),
        ({"data_settings": {"first": {"iql": {"expectil": 0.6}}}},
         "data_settings: first: iql: 'expectil' is no field of IQLConfig; did you mean 'expectile'"),
        ({"data_settings": {"frist": {}}}, "data_settings: 'frist' is not in its data; did you mean 'first'"),
        ({"target_returns": {"frist": (1.0,)}}, "target_returns: 'frist' is not in its data"),
        ({"score_levels": {"secnd": 9.0}}, "score_levels: 'secnd' is not in its data"),
        ({"error_levels": {"secnd": 9.0}}, "error_levels: 'secnd' is not in its data"),
        ({"run_settings": {"num_episode": 9}}, "run_settings: 'num_episode' is no field of RunConfig"),
        ({"language_settings": {"languag": 9}}, "language_settings: 'languag' is no field of "),
    ],
)  # fmt: skip
def test_settings_of_a_study_that_would_reach_nothing_are_refused(monkeypatch, given, said):
    monkeypatch.setitem(STUDIES, "made_up", dataclasses.replace(MADE_UP, **given))
    with pytest.raises(InputError, match=f"^study made_up: {said}"):
        study_configs("made_up")


def test_settings_of_a_study_have_the_names_that_flags_have(monkeypatch):
    settings = {"settings": {"dt": {"n_layer": 1}}, "language_settings": {"n_embd": 32}}
    monkeypatch.setitem(STUDIES, "made_up", dataclasses.replace(MADE_UP, **settings))
    shapes = [config.agent.gpt for config in study_configs("made_up", seeds=[0], arms=MADE_UP.arms[:2])]
    assert {(shape.n_layer, shape.n_embd) for shape in shapes} == {(1, 128), (1, 32)}


def test_a_study_may_know_of_published_data_that_it_does_not_have(monkeypatch):
    targets = {"hopper-medium-expert": (3600.0,)}
    monkeypatch.setitem(STUDIES, "made_up", dataclasses.replace(MADE_UP, target_returns=targets))
    (config,) = study_configs("made_up", seeds=[0], arms=["random"], data=["hopper-medium-expert"])
    assert config.target_returns == (3600.0,)


def test_a_recipes_own_schedules_shrink_with_the_studys_steps():
    recipe = RECIPES["dt_atari"]
    given = {"seeds": (0,), "arms": ("dt_atari",), "data": ("Breakout",)}
    for num_steps in (recipe.num_steps, recipe.num_steps // 10):
        [config] = study_configs("table1", **given, num_steps=num_steps)
        expected = recipe.settings["learning_rate_decay_steps"] * num_steps / recipe.num_steps
        assert config.agent.learning_rate_decay_steps == round(expected)


@pytest.mark.parametrize(("num_steps", "every"), [(2, 1), (7, 1), (8, 2), (60, 15), (100_000, 2_000)])
def test_a_short_study_has_four_evaluations_all_the_same(num_steps, every):
    [config] = study_configs("fair_baselines", seeds=(0,), arms=("bc",), data=("x",), num_steps=num_steps)
    assert config.evaluate_every == every


def test_one_step_of_pretraining_is_enough(monkeypatch):
    monkeypatch.setitem(STUDIES, "made_up", MADE_UP)
    [config] = study_configs("made_up", seeds=(0,), arms=("iid",), data=("first",), pretrain_steps=1)
    assert config.agent.initializer == "iid:1"


def test_an_unknown_arm_of_a_study_is_called_an_arm(monkeypatch):
    monkeypatch.setitem(STUDIES, "made_up", dataclasses.replace(MADE_UP, arms=("nothing",)))
    with pytest.raises(InputError, match="^arm: unknown 'nothing'"):
        study_configs("made_up")


def test_names_of_environments_are_known_in_any_case():
    given = {"seeds": (0,), "arms": ("random",), "data": ("Hopper-Medium-v2",)}
    [config] = study_configs("table2", **given, targets_by_environment={"hopper": (5.0,)})
    assert config.target_returns == (5.0,)


def test_a_data_set_that_is_named_has_its_targets_whatever_its_environment_has():
    targets = {"hopper-medium-v2": (5.0,), "hopper": (7.0,)}
    for given in (targets, dict(reversed(targets.items()))):
        data = ("hopper-medium-v2", "hopper-medium-replay-v2")
        runs = study_configs("table2", seeds=(0,), arms=("random",), data=data, targets_by_environment=given)
        assert [run.target_returns for run in runs] == [(5.0,), (7.0,)]
    with pytest.raises(
        InputError, match="'hopper-medium-expert-v2' is not in this study; its data: hopper-m"
    ):
        study_configs("table2", data=data, targets_by_environment={"hopper-medium-expert-v2": (5.0,)})
    versioned = study_configs("table2", data=data, targets_by_environment={"Hopper-v5": (5.0,)})
    assert {run.target_returns for run in versioned} == {(5.0,)}


def test_an_arm_at_a_rate_keeps_it_among_arms_at_chosen_rates():
    configs = study_configs(
        "sources_one_rate",
        seeds=(0,),
        rates=dict.fromkeys(("iid", "ngram"), 1e-2),
        arms=("random_3e-4", "iid"),
    )
    assert [run.agent.backbone_learning_rate for run in configs] == [3e-4, 1e-2]
    with pytest.raises(InputError, match="no backbone learning rate was chosen for arm 'gpt2'"):
        study_configs("sources_one_rate", arms=("random_3e-4", "gpt2"))
