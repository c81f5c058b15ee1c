"""``chibit quickstart``, ``chibit recipes`` and ``chibit show``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.table import Table
from rich.text import Text

from chibit.commands.parsing import WithJson, WithModules, parse
from chibit.core.config import Checked
from chibit.core.fields import Count, Out, Seed, Workers
from chibit.core.terminal import make_console, print_json

if TYPE_CHECKING:
    from chibit.agents import Agent
    from chibit.data.dataset import DatasetSpec


@dataclass(frozen=True, kw_only=True)
class QuickstartArguments(Checked):
    """The main job in a few minutes: collect data, fine-tune two arms, evaluate them, write a page.

    Example: chibit quickstart
    """

    out: Out = Path("runs/quickstart")
    """Folder for all of it; data, runs and page."""
    num_steps: Count = 1_500
    """Gradient steps of each arm."""
    collect_steps: Count = 100_000
    """Environment steps to collect."""
    num_processes: Workers = 2
    """Processes; each arm uses one."""
    seed: Seed = 0
    """Seed of data, training and evaluation."""


@dataclass(frozen=True, kw_only=True)
class RecipesArguments(WithJson):
    """List the named configurations in their groups, or show one as JSON.

    Example: chibit recipes baselines

    Example: chibit recipes chibit
    """

    name: Annotated[str, tyro.conf.Positional] = ""
    """A recipe, or a group of them; empty lists all."""


@dataclass(frozen=True, kw_only=True)
class ShowArguments(WithModules, WithJson):
    """Show a model: its configuration and how many parameters it has, with and without embeddings.

    Example: chibit show chibit
    """

    what: Annotated[str, tyro.conf.Positional]
    """A recipe's name, or a run directory. A recipe's has the sizes of Hopper: 11 states, 3 actions."""


def quickstart(argv: Sequence[str], prog: str) -> None:
    """``chibit quickstart``."""
    arguments = parse(QuickstartArguments, argv, prog)
    from chibit.quickstart import run_quickstart

    run_quickstart(
        arguments.out,
        num_steps=arguments.num_steps,
        collect_steps=arguments.collect_steps,
        num_processes=arguments.num_processes,
        seed=arguments.seed,
    )


def recipes(argv: Sequence[str], prog: str) -> None:
    """``chibit recipes``."""
    from chibit.recipes import GROUPS, RECIPES, find_recipe
    from chibit.training.run_config import to_record

    arguments = parse(RecipesArguments, argv, prog)
    name = arguments.name
    if name and name not in {*GROUPS, *(one.group for one in RECIPES.values())}:
        print_json(to_record(find_recipe(name, "recipe").run(data="")))
        return
    listed = {key: one for key, one in RECIPES.items() if name in ("", one.group)}
    if arguments.json:
        print_json({key: {"group": one.group, "summary": one.summary} for key, one in listed.items()})
        return
    table = Table(title="recipes: chibit train --recipe NAME --data DATA")
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    for group in dict.fromkeys([*GROUPS, *(one.group for one in listed.values())]):
        members = {key: one for key, one in listed.items() if one.group == group}
        if members:
            table.add_row(Text(group, style="bold"), Text(GROUPS.get(group, ""), style="bold"))
        for key, one in members.items():
            table.add_row(f"  {key}", one.summary)
        table.add_section()
    make_console().print(table)


def show(argv: Sequence[str], prog: str) -> None:
    """``chibit show``."""
    arguments = parse(ShowArguments, argv, prog)
    from chibit.models.counting import count_parameters

    agent, config = _agent_of(arguments)
    numbers = count_parameters(agent.modules())
    if arguments.json:
        print_json({"config": asdict(config), "parameters": numbers})
        return
    console = make_console()
    console.print_json(json.dumps(asdict(config)))
    table = Table(title=f"parameters of {arguments.what}")
    table.add_column("counted")
    table.add_column("number", justify="right")
    for name, number in numbers.items():
        table.add_row(name.replace("_", " "), f"{number:,}")
    console.print(table)


def _agent_of(arguments: ShowArguments) -> tuple[Agent, Any]:
    if (Path(arguments.what) / "config.json").is_file():
        from chibit.training.loading import load_run

        loaded = load_run(Path(arguments.what))
        return loaded.agent, loaded.config.agent
    from chibit.agents import make_agent
    from chibit.core.runtime import Runtime
    from chibit.recipes import find_recipe

    config = find_recipe(arguments.what, "neither a run directory nor a recipe").run(data="").agent
    return make_agent(config, _hopper_sizes(), Runtime()), config


def _hopper_sizes() -> DatasetSpec:
    from chibit.data.dataset import DatasetSpec

    return DatasetSpec(
        name="hopper",
        state_dim=11,
        act_dim=3,
        num_actions=None,
        env_id="Hopper-v5",
        d4rl_physics=True,
        max_episode_steps=1000,
        score_reference=None,
        state_mean=(0.0,) * 11,
        state_std=(1.0,) * 11,
        action_low=(-1.0,) * 3,
        action_high=(1.0,) * 3,
        default_target_returns=(3600.0, 1800.0),
    )
