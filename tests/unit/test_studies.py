"""What a study's settings do to its runs: each reaches the methods that it is for, and no other."""

from __future__ import annotations

import dataclasses

import pytest

from chibit.recipes import RECIPES
from chibit.studies import STUDIES, Study, study_configs

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
    by_arm = {c.arm: c.agent for c in study_configs("initialisers", seeds=(0,))}
    assert by_arm["chibit_language"].language_block == 256
    assert by_arm["random"].language_block != 256
    assert by_arm["random"].learning_rate == by_arm["markov"].learning_rate == 3e-4
