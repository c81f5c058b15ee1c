"""``chibit data``: collect, list, inspect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from chibit.commands.parsing import parse
from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import Count, Out, Seed, Workers
from chibit.core.terminal import make_console


@dataclass(frozen=True, kw_only=True)
class CollectArguments(Checked):
    """Make a D4RL-style data set with the shipped behavior policies, memory tasks, or Atari data by an actor.

    Example: chibit data collect hopper-medium --num-steps 100000
    """

    dataset: Annotated[str, tyro.conf.Positional]
    """hopper, halfcheetah or walker2d, or breakout, qbert, pong or seaquest; a dash; and random, medium,
    medium-replay, medium-expert or expert. Memory tasks: tmaze-15, tmaze-50, tmaze-150, keytodoor-20 or
    keytodoor-60; a dash; and expert or mixed."""
    num_steps: Count | None = None
    """Environment steps; None takes D4RL's size (1M; replay 0.2M to 0.4M; medium-expert 2M), 0.5M on Atari,
    and 500 of the longest episodes of a memory task."""
    seed: Seed = 0
    """The same seed gives the same data, whatever the number of processes."""
    num_processes: Workers = 1
    """Processes that collect side by side; one on Atari and for memory tasks."""
    policy: Path | None = None
    """Atari: file of the actor (docs/data.md says what is in it); the weaker levels mix in random actions."""
    sticky_actions: bool = False
    """Atari: repeat the last action with probability 0.25 in each frame."""
    out: Out | None = None
    """Root folder of Minari data sets; None takes MINARI_DATASETS_PATH, else ~/.minari/datasets. Atari data
    go into a folder in it; None is where chibit train finds them by name."""


@dataclass(frozen=True, kw_only=True)
class ConvertArguments(Checked):
    """Make a store of DQN-replay shards: a sample of all buffers, as Chen et al. (2021) draw it.

    Example: chibit data convert Breakout/1/replay_logs --game Breakout --out breakout-1pct
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the shards, $store$_observation_ckpt.0.gz and so on."""
    game: str
    """Breakout, Qbert, Pong or Seaquest."""
    out: Out
    """The store to write; chibit train --data takes it."""
    num_steps: Count = 500_000
    """Steps to take; half a million is 1 %."""
    seed: Seed = 0
    """Decides which buffers are visited."""


@dataclass(frozen=True, kw_only=True)
class InspectArguments(Checked):
    """Show what a data set holds.

    Example: chibit data inspect hopper-medium
    """

    data: Annotated[str, tyro.conf.Positional]
    """An id, a file or a folder, as for chibit train --data."""
    env_id: str | None = None
    """Environment of the data (Hopper-v4), where they name none or another."""
    columns: tuple[str, ...] = ()
    """Which columns of a file are which, as for chibit train: observations=obs,temp actions=valve."""
    episode_length: Count | None = None
    """Steps after which to cut a log without ends into episodes."""
    skip_damaged: bool = False
    """Leave out damaged episodes, counted in a note, in place of a refusal."""
    action_low: tuple[float, ...] | None = None
    """Lowest actions, a number for each dimension or one for all, as for chibit train."""
    action_high: tuple[float, ...] | None = None
    """Highest actions, likewise."""


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
    path = _COLLECTORS.get(name.source if name else "short", _collect_mujoco)(arguments)
    make_console().print(f"{path}", soft_wrap=True)


def _collect_atari(arguments: CollectArguments) -> Path:
    from chibit.data.collect.atari import collect_atari

    if arguments.num_processes > 1:
        raise InputError("num_processes: Atari data are collected in one process; leave it out")
    return collect_atari(
        arguments.dataset,
        policy=arguments.policy,
        num_steps=arguments.num_steps,
        seed=arguments.seed,
        sticky_actions=arguments.sticky_actions,
        out=arguments.out,
    )


def _collect_memory(arguments: CollectArguments) -> Path:
    from chibit.data.collect.memory import collect_memory

    _refuse_atari_flags(arguments)
    if arguments.num_processes > 1:
        raise InputError("num_processes: memory tasks are collected in one process; leave it out")
    return collect_memory(
        arguments.dataset, num_steps=arguments.num_steps, seed=arguments.seed, out=arguments.out
    )


def _refuse_atari_flags(arguments: CollectArguments) -> None:
    if arguments.policy is not None or arguments.sticky_actions:
        raise InputError("--policy and --sticky-actions are for Atari data; leave them out")


def _collect_mujoco(arguments: CollectArguments) -> Path:
    from chibit.data.collect.mujoco import collect as collect_dataset

    _refuse_atari_flags(arguments)
    return collect_dataset(
        arguments.dataset,
        num_steps=arguments.num_steps,
        seed=arguments.seed,
        num_processes=arguments.num_processes,
        out=arguments.out,
        progress=True,
    )


_COLLECTORS = {"played": _collect_atari, "scripted": _collect_memory}
"""By whose data a name stands for; all others are MuJoCo's."""


def convert(argv: Sequence[str], prog: str) -> None:
    """``chibit data convert``."""
    arguments = parse(ConvertArguments, argv, prog)
    if arguments.out.exists():
        raise InputError(f"out: {arguments.out} is there already; choose another")
    from chibit.data.readers.dqn_replay import convert_replay

    path = convert_replay(
        arguments.folder,
        arguments.game,
        arguments.out,
        num_steps=arguments.num_steps,
        seed=arguments.seed,
    )
    make_console().print(f"{path}", soft_wrap=True)


def inspect(argv: Sequence[str], prog: str) -> None:
    """``chibit data inspect``."""
    arguments = parse(InspectArguments, argv, prog)
    from chibit.data.inspect import describe, render_summary
    from chibit.data.load import load_dataset

    dataset = load_dataset(
        arguments.data,
        env_id=arguments.env_id,
        columns=arguments.columns,
        episode_length=arguments.episode_length,
        skip_damaged=arguments.skip_damaged,
        action_low=arguments.action_low,
        action_high=arguments.action_high,
    )
    make_console().print(render_summary(describe(dataset)))


def list_known(argv: Sequence[str], prog: str) -> None:
    """``chibit data list``."""
    parse(ListArguments, argv, prog)
    from chibit.data.load import list_datasets

    console = make_console()
    for line in list_datasets():
        console.print(line, soft_wrap=True)
