"""Initializers that are pre-trained on first use: names to budgets and folders, made once, waited for."""

import dataclasses
import threading

import numpy as np
import pytest

from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.core.config import config_hash, to_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.home import home_folder, language_model_folder
from chibit.core.run_dir import RunDir
from chibit.models.initializers import TRAINED, load_initializer, parse_trained, with_budget
from chibit.training.pretrain import sources as trained_sources
from chibit.training.pretrain.sources import (
    source_folder,
    train_sources,
    trained_config,
    trained_specs,
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """Pre-training with a batch and a model that take no time."""
    make = trained_config

    def smaller(*source):
        config = make(*source)
        gpt = dataclasses.replace(config.gpt, n_layer=1, n_embd=8)
        sizes = {"batch_tokens": 64, "micro_batch_tokens": 64, "block_length": 16, "n_positions": 32}
        return dataclasses.replace(config, gpt=gpt, device="cpu", **sizes)

    monkeypatch.setattr(trained_sources, "trained_config", smaller)


def agent(init, **fields):
    return DecisionTransformerConfig(initializer=init, **fields)


def test_names_are_taken_apart():
    assert parse_trained("iid:2000") == ("iid", 2000, "")
    assert parse_trained("shuffled_text:30:/data/a:b") == ("shuffled_text", 30, "/data/a:b")
    assert [parse_trained(name) for name in ("random", "markov", "gpt2", "hf:iid:3", "some/folder")] == [
        None
    ] * 5


def test_agents_say_what_they_need():
    assert trained_specs(agent("random_matched:iid:4")) == ["iid:4"]
    assert trained_specs(agent("iid:4", similarity_source="chibit_3M:5", similarity_weight=0.1)) == [
        "iid:4",
        "chibit_3M:5",
    ]
    assert trained_specs(agent("markov")) == []


def test_each_budget_and_text_has_its_own_folder(home):
    folders = {source_folder(spec) for spec in ("iid:4", "iid:5", "shuffled_text:4", "shuffled_text:4:x")}
    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {home / "language_models"}
    assert (
        source_folder("iid:4")
        == language_model_folder("iid", 4)
        == home_folder() / "language_models" / "iid-4"
    )
    assert "/" not in source_folder("shuffled_text:4:../../etc").name


@pytest.mark.parametrize("name", TRAINED)
def test_every_source_has_a_budget(name):
    config = trained_config(name, 2000)
    assert config.num_steps * config.batch_tokens == 16_384_000
    assert config.warmup_steps == 100
    if name.startswith("chibit"):
        assert (config.corpus, config.gpt.n_embd in (128, 256, 512, 768)) == ("wikitext-103", True)
    if name in ("iid", "markov", "ngram"):
        tokens = config.synthetic.num_sequences * config.synthetic.sequence_length
        assert tokens == 16_384_000  # each token is seen once
        assert config.synthetic.order == (2 if name == "ngram" else 1)


def test_the_larger_chibits_have_the_sizes_of_figure_3():
    from chibit.recipes import RECIPES, SIZES

    for size, shape in SIZES.items():
        assert trained_config(f"chibit_{size}", 7).gpt.shape == shape
        assert RECIPES[f"random_{size}"].run("x").agent.gpt == shape


def test_budgets_and_texts_can_be_changed():
    assert with_budget("iid:2000", 5, "mine") == "iid:5"
    assert with_budget("shuffled_text:2000", None, "mine") == "shuffled_text:2000:mine"
    assert with_budget("chibit_3M:2000:theirs", 5) == "chibit_3M:5:theirs"
    assert with_budget("chibit", 5, "mine") == "chibit"


def test_a_source_is_made_once_and_can_then_be_loaded(home, small):
    train_sources(agent("iid:3"), progress=False)
    result = source_folder("iid:3") / "result.json"
    written = result.stat().st_mtime_ns
    weights = load_initializer("iid:3").token_embeddings
    train_sources(agent("iid:3"), progress=False)
    assert result.stat().st_mtime_ns == written
    assert weights.shape == (100, 8)
    matched = load_initializer("random_matched:iid:3").token_embeddings
    np.testing.assert_allclose(matched.std(), weights.std(), rtol=0.2)


def test_where_another_process_makes_it_this_one_waits(home, small, monkeypatch):
    monkeypatch.setattr(trained_sources, "_POLL_SECONDS", 0.01)
    config = trained_sources.trained_config("iid", 2)
    folder = source_folder("iid:2")
    run = RunDir.create(folder, arm="pretrain", study="language_models", config=to_json(config))
    with run.lock():
        waiting = threading.Thread(target=train_sources, args=(agent("iid:2"),), kwargs={"progress": False})
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert not run.is_finished
    waiting.join(60)
    assert run.is_finished


@pytest.mark.parametrize("source", ["shuffled_text", "chibit_0.6M"])
def test_a_source_is_not_taken_for_one_of_its_text_once_that_has_changed(source, home, small, tmp_path):
    text = tmp_path / "words.txt"
    text.write_text("one two three four five " * 400)
    wanted = agent(f"{source}:1:{text}")
    train_sources(wanted, progress=False)
    train_sources(wanted, progress=False)
    text.write_text("four five six seven eight " * 400)
    with pytest.raises(DamagedFileError, match=r"words\.txt has changed since"):
        train_sources(wanted, progress=False)
    text.unlink()
    train_sources(wanted, progress=False)


def test_text_that_is_not_there_is_refused(home):
    with pytest.raises(InputError, match="^absent: neither a text file"):
        train_sources(agent("shuffled_text:2:absent"), progress=False)


def test_configurations_do_not_hang_on_the_machine(tmp_path, monkeypatch):
    found = []
    for number in range(2):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.setenv("CHIBIT_HOME", str(place / "home"))
        monkeypatch.chdir(place)
        found.append([trained_config(*source) for source in (("iid", 4), ("chibit_3M", 5), ("ngram", 6))])
    assert [config_hash(one) for one in found[0]] == [config_hash(one) for one in found[1]]
    assert str(tmp_path) not in str([to_json(one) for one in found[1]])
