"""``chibit data``: collect, convert, inspect, list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from chibit.commands.parsing import WithEnvModule, WithJson, parse
from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import BASIC, Count, Group, Out, Seed, Workers
from chibit.core.terminal import make_console, print_json


@dataclass(frozen=True, kw_only=True)
class CollectArguments(Checked):
    """Make a D4RL-style data set with the shipped behavior policies, by a script, or on Atari by an actor.

    Example: chibit data collect hopper-medium --num-steps 100000
    """

    dataset: Annotated[str, tyro.conf.Positional]
    """Name, such as hopper-medium; hopper, halfcheetah, walker2d, breakout, qbert, pong or seaquest, a dash,
    and random, medium, medium-replay, medium-expert or expert. Memory tasks: tmaze-15, tmaze-50, tmaze-150,
    keytodoor-20, keytodoor-60 or minigrid-memory-s7, -s9, -s13, -s17, a dash, and expert or mixed. Mazes:
    pointmaze-umaze, -medium or -large, a dash, and near or all. Instructions: babyai-gotoobj, -gotolocals8n4,
    -gotolocal, -gotodoor, -pickuploc, -putnextlocal or -mixedlocal."""
    num_steps: Count | None = None
    """Environment steps; None takes D4RL's size (1M, replay 0.2M to 0.4M, medium-expert 2M), 0.5M on Atari,
    500 of the longest episodes of memory tasks and mazes, and 10,000 episodes of BabyAI."""
    num_episodes: Count | None = None
    """BabyAI: episodes, in place of steps."""
    seed: Seed = 0
    """Seed of the data. It gives the same data, whatever the number of processes."""
    num_processes: Workers = 1
    """Processes side by side; one on Atari, for memory tasks, mazes and BabyAI."""
    policy: Path | None = None
    """Atari: the actor's file; docs/data.md says what is in it. The weaker levels mix in random actions."""
    sticky_actions: bool = False
    """Atari: repeat actions at random. The last one is taken again with probability 0.25 in each frame."""
    out: Out | None = None
    """Root of Minari data sets; None takes MINARI_DATASETS_PATH, else ~/.minari/datasets. Data of Atari and
    BabyAI are stores in a folder in it; None is where chibit train finds them by name."""


@dataclass(frozen=True, kw_only=True)
class SourceArguments(WithEnvModule):
    """How data are read, as for chibit train."""

    data: Annotated[str, tyro.conf.Positional]
    """An id, a file or a folder; as for chibit train --data."""
    env_id: Annotated[str | None, BASIC, Group("reading")] = None
    """Environment of the data (Hopper-v4). It is needed where they name none or another."""
    columns: Annotated[tuple[str, ...], BASIC] = ()
    """Which columns of a file are which; as for chibit train: observations=obs,temp actions=valve."""
    episode_length: Annotated[Count | None, BASIC] = None
    """Cut a log without ends after so many steps."""
    skip_damaged: Annotated[bool, BASIC] = False
    """Leave out damaged episodes. A note counts them; without, they are refused."""
    continuous_actions: Annotated[bool, BASIC] = False
    """Whole numbers as actions are quantities. Without, each is a choice."""
    action_low: tuple[float, ...] | None = None
    """Lowest actions, for each dimension or one for all."""
    action_high: tuple[float, ...] | None = None
    """Highest actions, likewise."""

    def reading(self) -> dict[str, Any]:
        """What `load_dataset` is told beside the name."""
        from chibit.data.load import BOUNDS, READING
        from chibit.environments.own import take_env

        env_id = None if self.env_id is None else take_env(self.env_id)
        return {"env_id": env_id, **{name: vars(self)[name] for name in (*READING, *BOUNDS)}}


@dataclass(frozen=True, kw_only=True)
class ConvertArguments(SourceArguments):
    """Write a data set in another form, or with --game make a store of DQN-replay shards.

    Of the shards it is a sample of all buffers, as Chen et al. (2021) draw it: chibit data convert
    Breakout/1/replay_logs --game Breakout --out breakout-1pct

    Example: chibit data convert hopper-medium --to npz --out hopper.npz
    """

    data: Annotated[str, tyro.conf.Positional]
    """An id, a file or a folder; with --game the folder of the shards,
    $store$_observation_ckpt.0.gz and so on."""
    out: Annotated[Out, BASIC, Group("writing")]
    """The file or folder to write; chibit train --data takes it. Nothing is written over."""
    to: Annotated[Literal["store", "minari", "npz"], BASIC] = "store"
    """Form. store: arrays as chibit keeps them; minari: a folder that Minari loads, whose name ends in a
    version, as log-v0; npz: flat columns."""
    game: Annotated[str | None, BASIC, Group("DQN-replay")] = None
    """DQN-replay: Breakout, Qbert, Pong or Seaquest."""
    num_steps: Count | None = None
    """Steps to take; None takes half a million, 1 %."""
    seed: Seed | None = None
    """Which buffers are visited; None is 0."""


@dataclass(frozen=True, kw_only=True)
class InspectArguments(SourceArguments, WithJson):
    """Show what a data set holds.

    Example: chibit data inspect hopper-medium

    Example: chibit data inspect hopper.npz --json
    """


@dataclass(frozen=True, kw_only=True)
class ListArguments(Checked):
    """List the data sets that can be made, downloaded, or are here already.

    Example: chibit data list
    """


def collect(argv: Sequence[str], prog: str) -> None:
    """``chibit data collect``."""
    arguments = parse(CollectArguments, argv, prog)
    from chibit.environments.data_names import read_name

    name = read_name(arguments.dataset)
    source = name.source if name else "instructed" if arguments.dataset.startswith("babyai") else "short"
    collector = _COLLECTORS.get(source, _MUJOCO)
    if "num_episodes" not in collector.settings and arguments.num_episodes is not None:
        raise InputError("num_episodes: for BabyAI alone; give --num-steps")
    if "policy" not in collector.settings and (arguments.policy is not None or arguments.sticky_actions):
        raise InputError("--policy and --sticky-actions are for Atari data; leave them out")
    if "num_processes" not in collector.settings and arguments.num_processes > 1:
        raise InputError(f"num_processes: {collector.whose} data are collected in one process; leave it out")
    function = getattr(import_module(f"chibit.data.collect.{collector.module}"), collector.function)
    path = function(arguments.dataset, **{name: getattr(arguments, name) for name in collector.settings})
    make_console().print(f"{path}", soft_wrap=True)


class _Collector(NamedTuple):
    """What collects data of a kind."""

    whose: str
    module: str
    function: str
    settings: tuple[str, ...]


_MUJOCO = _Collector("MuJoCo", "mujoco", "collect", ("num_steps", "seed", "num_processes", "out"))
_COLLECTORS = {
    "played": _Collector(
        "Atari", "atari", "collect_atari", ("policy", "num_steps", "seed", "sticky_actions", "out")
    ),
    "scripted": _Collector("this task's", "scripted", "collect_scripted", ("num_steps", "seed", "out")),
    "instructed": _Collector(
        "BabyAI's", "language", "collect_language", ("num_steps", "num_episodes", "seed", "out")
    ),
}
"""By whose data a name stands for; all others are MuJoCo's."""


def convert(argv: Sequence[str], prog: str) -> None:
    """``chibit data convert``."""
    arguments = parse(ConvertArguments, argv, prog)
    if arguments.out.exists():
        raise InputError(f"out: {arguments.out} is there already; choose another")
    console = make_console()
    if arguments.game is not None:
        console.print(f"{_convert_shards(arguments, arguments.game)}", soft_wrap=True)
        return
    if arguments.num_steps is not None or arguments.seed is not None:
        raise InputError("--num-steps and --seed are for DQN-replay; give its --game, or leave them out")
    from chibit.data.convert import convert as convert_data

    lost = convert_data(arguments.data, arguments.out, arguments.to, **arguments.reading())
    for line in lost:
        console.print(f"not kept: {line}", soft_wrap=True)
    if not lost:
        console.print("nothing lost: read again, it is the same data set", soft_wrap=True)
    console.print(f"{arguments.out}", soft_wrap=True)


def _convert_shards(arguments: ConvertArguments, game: str) -> Path:
    from chibit.data.readers.dqn_replay import convert_replay

    if arguments.to != "store":
        raise InputError(f"to: got {arguments.to!r}, expected store; convert that store again")
    if any(value not in (None, (), False) for value in arguments.reading().values()):
        raise InputError(
            "game: shards say themselves what is in them; leave --columns, --env-id and such out"
        )
    return convert_replay(
        Path(arguments.data),
        game,
        arguments.out,
        num_steps=arguments.num_steps or 500_000,
        seed=arguments.seed or 0,
    )


def inspect(argv: Sequence[str], prog: str) -> None:
    """``chibit data inspect``."""
    arguments = parse(InspectArguments, argv, prog)
    from rich.text import Text

    from chibit.data.choices import table_lines
    from chibit.data.inspect import describe, render_summary
    from chibit.data.load import load_dataset

    dataset = load_dataset(arguments.data, **arguments.reading())
    # What agents are made of takes longest to import, and only data that can be read need it.
    from chibit.agents import AGENTS, DEFAULT_AGENT
    from chibit.training.outlook import few_data, of_run
    from chibit.training.run_config import RunConfig

    usual = RunConfig(data=arguments.data, agent=AGENTS[DEFAULT_AGENT].config())
    expected, notes = of_run(usual, dataset), tuple(few_data(usual, dataset))
    found = describe(dataset)
    if arguments.json:
        chosen = [one._asdict() for one in (*found.choices, *expected)]
        print_json({**asdict(found), "choices": chosen, "run_notes": notes})
        return
    console = make_console()
    console.print(render_summary(found))
    console.print(Text("\nchibit train without flags", style="bold"))
    for line in (*table_lines(expected), *notes):
        console.print(Text(line))


def list_known(argv: Sequence[str], prog: str) -> None:
    """``chibit data list``."""
    parse(ListArguments, argv, prog)
    from chibit.data.load import list_datasets

    console = make_console()
    for line in list_datasets():
        console.print(line, soft_wrap=True)
