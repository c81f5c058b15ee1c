"""Flags that would do nothing: one line, exit code 2. What is on disk is read all the same."""

import dataclasses
import os
from types import SimpleNamespace

import faults_kills
import pytest

from chibit.agents import AGENTS
from chibit.cli import main
from chibit.core.config import find_idle, from_json, to_json
from chibit.core.errors import InputError
from chibit.data.text.corpus import build_corpus
from chibit.data.text.synthetic import SyntheticConfig
from chibit.models.gpt import GPTConfig
from chibit.models.initializers import TRAINED
from chibit.recipes import RECIPES
from chibit.training.offline import train
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.pretrain.loop import pretrain
from chibit.training.pretrain.sources import trained_config
from chibit.training.run_config import RunConfig, from_record, to_record

TRAIN, PRETRAIN, STUDY = "train --data x", "pretrain", "study {} --dry-run"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (f"{TRAIN} --lora-rank 8", "lora_rank: got 8, but it acts with tuning lora only"),
        (f"{TRAIN} --lora-alpha 8 --tuning frozen", "lora_alpha: got 8.0"),
        (f"{TRAIN} --recipe chibit_lora --tuning full --lora-dropout 0.3", "lora_dropout: got 0.3"),
        (f"{TRAIN} --num-clusters 50", "num_clusters: got 50, but it acts with similarity_weight only"),
        (f"{TRAIN} --similarity-form paper_sum", "similarity_form: got 'paper_sum'"),
        (f"{TRAIN} --similarity-source gpt2 --initializer chibit", "similarity_source: got 'gpt2'"),
        (f"{TRAIN} --language-corpus y", "language_corpus: got 'y', but it acts with language_weight or"),
        (f"{TRAIN} --language-block 64", "language_block: got 64"),
        (f"{TRAIN} --perplexity-every 5 --language-corpus y --language-every 2", "language_every: got 2"),
        (f"{TRAIN} --language-decay constant", "language_decay: got 'constant'"),
        (f"{TRAIN} --auxiliary-decay sigmoid", "auxiliary_decay: got 'sigmoid'"),
        (
            f"{TRAIN} --similarity-weight 1 --auxiliary-decay constant --auxiliary-decay-steps 9",
            "auxiliary_decay_steps: got 9, but it acts with a loss that decays only",
        ),
        (f"{TRAIN} --initializer gpt2 --image-gpt-norm layernorm", "image_gpt_norm: got 'layernorm'"),
        (f"{TRAIN} --no-return-tokens --return-scale 5", "return_scale: got 5.0"),
        (f"{TRAIN} --no-return-tokens --reward-mode sparse", "reward_mode: got 'sparse'"),
        (f"{TRAIN} --embedding tanh --timestep-position before_norm", "timestep_position: got"),
        (f"{TRAIN} --tuning frozen --backbone-learning-rate 1", "backbone_learning_rate: got 1.0"),
        (f"{TRAIN} --weight-decay 0 --decay-weights-only", "decay_weights_only: got True"),
        (f"{TRAIN} --no-resume --allow-inexact-resume", "allow_inexact_resume: got True"),
        (
            f"{TRAIN} --agent cql --pretraining-steps 7",
            "pretraining_steps: got 7, but it acts with pretraining",
        ),
        (f"{TRAIN} --agent td3_bc --policy-noise 0 --noise-clip 1", "noise_clip: got 1.0"),
        (f"{TRAIN} --agent rebrac --policy-noise 0 --noise-clip 1", "noise_clip: got 1.0"),
        (f"{TRAIN} --agent bc --target-returns 5", "target_returns: agent bc takes none"),
        (f"{PRETRAIN} --text y", "text: got 'y', but it acts with corpus shuffled_text only"),
        (f"{PRETRAIN} --num-states 9", "num_states: got 9, but it acts with a synthetic corpus only"),
        (f"{PRETRAIN} --corpus iid --order 2", "order: got 2, but it acts with corpus markov or ngram only"),
        (f"{PRETRAIN} --corpus dyck --temperature 2", "temperature: got 2.0"),
        (f"{PRETRAIN} --corpus shuffled_text --text y --num-sequences 9", "num_sequences: got 9"),
        (f"{PRETRAIN} --corpus markov --tokenizer bpe:500", "tokenizer: got 'bpe:500'"),
        (f"{PRETRAIN} --decay constant --final-fraction 0.1", "final_fraction: got 0.1"),
        (f"{PRETRAIN} --evaluate-every 0 --validation-tokens 9", "validation_tokens: got 9"),
        (f"{STUDY.format('fair_baselines')} --target-returns 9", "target_returns: no arm of study fair_bas"),
        (f"{STUDY.format('fair_baselines')} --language-corpus y", "language_corpus: no arm"),
        (f"{STUDY.format('table3')} --arms dt --language-corpus y", "language_corpus: no arm"),
        (f"{STUDY.format('table2')} --pretrain-steps 9", "pretrain_steps: no arm"),
        (f"{STUDY.format('table2')} --max-seeds 9", "max_seeds: got 9, but it acts with --until-half-width"),
        (f"{STUDY.format('table2')} --ray-address auto", "ray_address: got 'auto'"),
        (f"{STUDY.format('table2')} --engine process --num-processes 2", "num_processes: got 2"),
        (
            f"{STUDY.format('table2')} --engine pool --stack 4",
            "stack: got 4, but it acts with --engine stacked",
        ),
        (
            f"{TRAIN} --dropout 0 --dropout-draws counter",
            "dropout_draws: got 'counter', but it acts with dropout",
        ),
    ],
)
def test_flags_that_would_do_nothing(flags, says, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(flags.split()) == 2
    said = capfd.readouterr().err.strip()
    assert says in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_what_a_recipe_brings_may_be_idle_and_its_parts_may_be_switched_off():
    base = RECIPES["chibit_paper"].run(data="x").agent
    off = dataclasses.replace(base, similarity_weight=0.0)
    assert list(find_idle(off, base)) == []
    assert [line.partition(":")[0] for line in find_idle(off)] == ["similarity_form"]
    changed = dataclasses.replace(off, similarity_form="released")
    assert [line.partition(":")[0] for line in find_idle(changed, base)] == ["similarity_form"]


def test_only_settings_that_wait_for_a_flag_are_idle_in_recipes():
    found = {name: list(find_idle(recipe.run(data="x"))) for name, recipe in RECIPES.items()}
    idle = {name: [line.partition(":")[0] for line in lines] for name, lines in found.items() if lines}
    assert idle == {
        "chibit_no_similarity": ["similarity_form"],
        "chibit_released": ["language_decay"],
        "bc_atari": ["return_scale"],
    }
    assert not any(list(find_idle(trained_config(name, 100))) for name in TRAINED)


@pytest.mark.parametrize(("agent", "settings"), [("dt", {"lora_rank": 8}), ("cql", {"pretraining_steps": 7})])
def test_a_record_with_an_idle_setting_is_read(agent, settings):
    config = RunConfig(data="x", agent=AGENTS[agent].config(**settings))
    assert to_record(from_record(to_record(config))) == to_record(config)
    assert len(list(find_idle(config))) == 1


def test_a_nested_config_may_act_in_part():
    shape = SyntheticConfig(order=3, sequence_length=64)
    assert not list(find_idle(PretrainConfig(corpus="ngram", synthetic=shape)))
    assert not list(find_idle(PretrainConfig(validation="ngram", synthetic=shape)))
    assert len(list(find_idle(PretrainConfig(corpus="iid", synthetic=shape)))) == 1
    assert len(list(find_idle(PretrainConfig(synthetic=shape)))) == 2
    assert from_json(PretrainConfig, to_json(PretrainConfig(synthetic=shape))).synthetic == shape


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (GPTConfig, {"n_layer": 1001}),
        (AGENTS["dt"].config, {"gpt": {"n_layer": 100_000}}),
        (AGENTS["bc"].config, {"hidden_sizes": (1,) * 100_000}),
    ],
)
def test_networks_have_no_more_layers_than_could_be_built(kind, settings):
    with pytest.raises(InputError, match="expected .*1,?000"):
        kind(**settings)


@pytest.mark.parametrize("verb", ["train --data", "pretrain --corpus"])
def test_a_refused_run_leaves_no_folder_behind(verb, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main([*verb.split(), "absent.npz", "--quiet"]) == 2
    assert os.listdir(tmp_path) == []
    (tmp_path / "runs").mkdir()
    assert main([*verb.split(), "absent.npz", "--quiet"]) == 2
    assert os.listdir(tmp_path) == ["runs"]
    assert os.listdir(tmp_path / "runs") == []
    assert "absent.npz" in capfd.readouterr().err
    for _ in range(2):  # nor in a folder that was there, where another run would be refused then
        assert main([*verb.split(), "absent.npz", "--quiet", "--out", "runs"]) == 2
        assert "absent.npz" in capfd.readouterr().err
        assert os.listdir(tmp_path) == ["runs"] and os.listdir(tmp_path / "runs") == []


def test_the_log_of_a_run_names_what_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    config = faults_kills.small_run(faults_kills.write_data(tmp_path / "data.npz"))
    agent = dataclasses.replace(config.agent, lora_rank=8)
    config = dataclasses.replace(config, agent=agent, num_steps=1, num_episodes=0)
    train(config, tmp_path / "run", progress=False)
    log = (tmp_path / "run" / "train.log").read_text()
    assert "config: lora_rank: got 8, but it acts with tuning lora only" in log


@pytest.mark.parametrize(
    ("agent", "settings", "is_picture", "says"),
    [
        ("dt", {"standardize_pictures": True}, False, "standardize_pictures: got True"),
        ("rem", {"standardize_pictures": True}, False, "standardize_pictures: got True"),
        ("discrete_cql", {"hidden_sizes": (9,)}, True, "hidden_sizes: got (9,)"),
        ("qr_dqn", {"hidden_sizes": (9,)}, False, ""),
        ("dt", {"standardize_pictures": True}, True, ""),
    ],
)
def test_what_these_data_do_not_ask_for_is_named(agent, settings, is_picture, says):
    spec = SimpleNamespace(image_shape=(4, 84, 84) if is_picture else ())
    config = RunConfig(data="x", agent=AGENTS[agent].config(**settings))
    assert not list(find_idle(config))
    assert [
        line.partition(", but it acts with observations")[0] for line in find_idle(config, data=spec)
    ] == ([says] if says else [])


def test_a_run_says_at_its_start_what_its_data_do_not_ask_for(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    config = faults_kills.small_run(faults_kills.write_data(tmp_path / "data.npz"))
    agent = dataclasses.replace(config.agent, standardize_pictures=True)
    train(
        dataclasses.replace(config, agent=agent, num_steps=1, num_episodes=0),
        tmp_path / "run",
        progress=False,
    )
    log = (tmp_path / "run" / "train.log").read_text()
    assert (
        "config: standardize_pictures: got True, but it acts with observations that are pictures only" in log
    )


def test_a_tokenizer_beside_a_built_corpus_is_named(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and then it ran away. " * 40)
    built = tmp_path / "built"
    build_corpus(tmp_path / "text.txt", built, tokenizer="bpe:270", progress=False)
    shape = {"gpt": GPTConfig(n_layer=1, n_embd=8), "n_positions": 8, "block_length": 8, "batch_tokens": 8}
    small = {**shape, "micro_batch_tokens": 8, "num_steps": 1, "warmup_steps": 0, "sample_tokens": 0}
    logs = []
    for tokenizer in ("bpe:300", "bpe:270"):
        run = tmp_path / tokenizer.replace(":", "-")
        pretrain(PretrainConfig(corpus=str(built), tokenizer=tokenizer, **small), run, progress=False)
        logs.append((run / "train.log").read_text() if (run / "train.log").exists() else "")
    assert "config: tokenizer: got 'bpe:300', but it acts with a corpus that is not built yet only" in logs[0]
    assert "tokenizer" not in logs[1]
