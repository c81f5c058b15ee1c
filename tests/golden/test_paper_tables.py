"""The defaults against Tables 7, 8 and 9 and section 4 of the paper, read from `paper_tables.json`."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import transformers

from chibit.agents import AGENTS
from chibit.core.config import to_json
from chibit.environments.registry import ENVIRONMENTS
from chibit.models.counting import count_parameters
from chibit.models.gpt import GPT, GPTConfig
from chibit.models.initializers import load_initializer
from chibit.recipes import RECIPES, SIZES, WEIGHTS_GRID
from chibit.study_runs import study_configs
from chibit.training.pretrain.config import SIZES as PRETRAIN_SIZES
from chibit.training.pretrain.config import PretrainConfig
from chibit.training.run_config import RunConfig

PAPER = json.loads(Path(__file__).with_name("paper_tables.json").read_text(encoding="utf-8"))
TABLE7 = {name: value for name, value in PAPER["table7"].items() if name != "target_returns"}
DEVIATIONS = (Path(__file__).parents[2] / "docs" / "deviations.md").read_text(encoding="utf-8")
UNITS = {"K": 1e3, "M": 1e6}


def fields(config, names):
    record = to_json(config)  # a backbone's shape stands among the other fields there
    return {name: record[name] for name in names}


@pytest.mark.parametrize(
    "recipe", [None, "random", "chibit_paper", "chibit_no_similarity", "chibit_random_positions"]
)
def test_table_7(recipe):
    config = AGENTS["dt"].config() if recipe is None else RECIPES[recipe].run("hopper-medium-v2").agent
    config = config.for_steps(PAPER["section4"]["run"]["num_steps"])
    assert fields(config, TABLE7) == TABLE7
    assert config.auxiliary_decay_steps == PAPER["section4"]["auxiliary_decay_steps"]


def test_table_7_in_the_studies_of_the_tables():
    for name, arm in (
        ("table2", "chibit_paper"),
        ("table5", "chibit_frozen"),
        ("table6", "chibit_no_language"),
    ):
        (config,) = study_configs(name, seeds=(0,), arms=(arm,), data=("hopper-medium-v2",))
        assert fields(config.agent.for_steps(config.num_steps), TABLE7) == TABLE7
        assert fields(config, PAPER["section4"]["run"]) == PAPER["section4"]["run"]


def test_table_7s_return_is_asked_for_first():
    for name, target in PAPER["table7"]["target_returns"].items():
        for version in ("v4", "v5"):
            assert ENVIRONMENTS[f"{name}-{version}"].target_returns[0] == target


def test_the_shape_of_table_7_is_that_of_the_shipped_chibit():
    shape = ("n_layer", "n_head", "activation")
    for config in (GPTConfig(), load_initializer("chibit").backbone.config):
        assert fields(config, shape) == fields(AGENTS["dt"].config(), shape)


@pytest.mark.parametrize(
    ("model", "shape"), [("DT", GPTConfig()), ("ChibiT", GPTConfig()), ("GPT-2", PRETRAIN_SIZES["84M"])]
)
def test_table_8(model, shape):
    printed = PAPER["table8"][model]["parameters"]
    with torch.device("meta"):
        blocks = count_parameters(GPT(shape))["blocks"]
    assert blocks == pytest.approx(float(printed[:-1]) * UNITS[printed[-1]], rel=0.015)


def test_table_8_of_the_models_of_others():
    """Their library's defaults are the shapes of openai/clip-vit-base-patch32 and imagegpt-small."""
    with torch.device("meta"):
        layers = {
            "CLIP": transformers.CLIPTextModel(transformers.CLIPTextConfig()).encoder.layers,
            "iGPT": transformers.ImageGPTModel(transformers.ImageGPTConfig()).h,
        }
    millions = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in layers.items()}
    assert round(millions["CLIP"]) == float(PAPER["table8"]["CLIP"]["parameters"][:-1])
    assert round(millions["iGPT"]) == 76 != float(PAPER["table8"]["iGPT"]["parameters"][:-1])
    assert (
        "ImageGPT | 84M parameters | `openai/imagegpt-small` is 24 layers of width 512, about 76M"
        in DEVIATIONS
    )


@pytest.mark.parametrize("size", PAPER["table9"])
def test_table_9(size):
    wanted = PAPER["table9"][size]
    recipe = RECIPES[f"random_{size}"].run("hopper-medium-v2").agent
    for config in (SIZES[size], PRETRAIN_SIZES[size], recipe):
        assert fields(config, wanted) == wanted
    with torch.device("meta"):
        blocks = count_parameters(GPT(PRETRAIN_SIZES[size]))["blocks"]
    assert blocks == pytest.approx(float(size[:-1]) * 1e6, rel=0.06)


def test_section_4():
    section = PAPER["section4"]
    assert fields(RunConfig(data="d", agent=AGENTS["dt"].config()), section["run"]) == section["run"]
    weights = {(w["similarity_weight"], w.get("language_weight", 0.0)) for w in WEIGHTS_GRID.values()}
    assert weights == {(s, t) for s in section["similarity_weights"] for t in section["language_weights"]}
    config = PretrainConfig(corpus="wikitext-103")
    flat = {
        **dataclasses.asdict(config.gpt),
        **{f.name: getattr(config, f.name) for f in dataclasses.fields(config)},
    }
    assert {name: flat[name] for name in section["pretraining"]} == section["pretraining"]


def test_every_size_of_figure_3_has_the_same_pre_training_but_its_step_size():
    from chibit.training.pretrain.sources import trained_config

    configs = [trained_config(f"chibit_{size}", 2_000) for size in ("0.6M", *PAPER["table9"])]
    alike = {dataclasses.replace(c, gpt=GPTConfig(), learning_rate=1e-3) for c in configs}
    assert len(alike) == 1
    arms = {config.arm: config.agent for config in study_configs("figure3", seeds=(0,), data=("d",))}
    assert {arm for arm in arms if arm.startswith("chibit")} == {
        f"chibit_{size}" for size in ("0.6M", *PAPER["table9"])
    }
    assert {arms[arm].initializer.partition(":")[2] for arm in arms if arm.startswith("chibit")} == {"2000"}
