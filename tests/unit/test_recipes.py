import pytest

from chibit.agents import AGENTS
from chibit.agents.recommended import RECOMMENDED
from chibit.cli import main
from chibit.commands.train import parse_run
from chibit.core.errors import InputError
from chibit.recipes import RECIPES, Recipe, find_recipe


@pytest.mark.parametrize("name", sorted(set(AGENTS) - {"dt"}))
def test_every_baseline_has_a_recipe_with_its_defaults(name):
    assert RECIPES[name].run(data="x").agent == AGENTS[name].config()


def test_tuned_recipes_take_the_data_sets_settings():
    run = RECIPES["rebrac_tuned"].run(data="walker2d-medium-v2")
    assert (run.agent.actor_penalty, run.agent.critic_penalty) == (0.05, 0.1)
    assert RECIPES["rebrac_tuned"].run(data="x").agent == AGENTS["rebrac"].config()
    assert {name for name in RECIPES if name.endswith("_tuned")} == {f"{name}_tuned" for name in RECOMMENDED}


@pytest.mark.parametrize("spelling", [["--data", "hopper-medium"], ["--data=hopper-medium"]])
def test_a_tuned_recipe_knows_the_data_on_the_command_line_and_flags_still_win(spelling):
    run, _ = parse_run(["--recipe", "iql_tuned", *spelling], "chibit train")
    assert (run.data, run.arm, run.agent.tau, run.agent.expectile) == (
        "hopper-medium",
        "iql_tuned",
        0.001,
        0.7,
    )
    run, _ = parse_run(["--recipe", "iql_tuned", *spelling, "--tau", "0.25"], "chibit train")
    assert run.agent.tau == 0.25


def test_a_recipe_has_the_names_that_flags_have():
    settings = {"n_layer": 1, "n_embd": 32, "learning_rate": 0.5}
    agent = Recipe(summary="small", settings=settings).run(data="x").agent
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert agent == parse_run(["--data", "x", *flags], "chibit train")[0].agent
    assert (agent.gpt.n_layer, agent.gpt.n_embd) == (1, 32)


def test_a_recipe_still_asks_for_data(capsys):
    assert main(["train", "--recipe", "iql_tuned"]) == 2
    assert "Missing from chibit train: --data" in capsys.readouterr().err
    with pytest.raises(InputError, match="--data: needs a value"):
        parse_run(["--recipe", "iql_tuned", "--data"], "chibit train")


def test_stacked_cloning_is_chen_et_als():
    config = RECIPES["bc_stacked"].run(data="x").agent
    assert (config.context_length, config.hidden_sizes, config.batch_size) == (20, (128, 128, 128), 64)
    assert config.window_anchor == "first"


def test_an_unknown_name_is_told_the_groups():
    with pytest.raises(
        InputError, match="recipe: unknown 'zzz', expected a recipe or a group of them: models, "
    ):
        find_recipe("zzz", "recipe")


def test_a_recipe_of_another_group_is_listed_too(monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "mine", Recipe(summary="what I try", group="trials"))
    for arguments in (["recipes"], ["recipes", "trials"]):
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert "trials" in shown and "mine" in shown and "what I try" in shown
