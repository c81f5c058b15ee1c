"""Command lines: every flag of every command, as the real parsers know them, with hostile values."""

from __future__ import annotations

import importlib
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import tyro
from faults_mutators import NUMBERS, TEXTS

from chibit.agents import AGENTS
from chibit.cli import VERBS, find_command

CARTPOLE, PENDULUM, SHARDS, RUN = "cartpole.npz", "pendulum.npz", "shards", "run"
"""What lies beside the command: data, a folder of shards, a finished run."""
_PATHS = (
    "pipe", "link-to-pipe", "socket", "zero", "dangling", "loop", "folder", "/dev/zero", "/dev/null", "/",
    "/dev/null/x", "missing/x", f"{CARTPOLE}/x", RUN, CARTPOLE, f"{RUN}/config.json", f"{RUN}/checkpoints",
    "text.txt", "/proc/self/mem", "x" * 256, "a/" * 3000, "x" * 100_000,
)  # fmt: skip
_SPELLED = (
    "1000", "100000", "1000000000", "9" * 30, "1e5", "1_000", "+1", "0x10", "1.0", "१२", "∞", "1,2", "[1]",
    "0.001", "0.999", "1.5", "10", "64", "-0.5",
)  # fmt: skip
_NAMES = (
    "cuda", "cuda:0", "cuda:99", "meta", "cpu:7", "fp16", "best", "last", "36", "markov", "markov:1",
    "markov:-1", "gpt2", "chibit", "hf:.", "hf_config:.", "dt", "bc", "random", "chibit_paper", "hopper",
    "iid", "shuffled_text", "bpe:3", "bpe:-1", "Breakout", "nonsense", "antmaze-umaze-v2", "ring", "auto",
)  # fmt: skip
_VALUES = (*map(str, NUMBERS), *TEXTS, *_PATHS, *_SPELLED, *_NAMES)
_INTEGERS = (*(str(number) for number in NUMBERS if isinstance(number, int)), *_SPELLED)
_FLOATS = (*map(str, NUMBERS), *_SPELLED)
_SMALL: dict[str, object] = {
    "--batch-size": 4, "--n-layer": 1, "--n-embd": 8, "--context-length": 3, "--hidden-sizes": 8,
    "--actor-hidden-sizes": 8, "--critic-hidden-sizes": 8, "--behavior-steps": 1, "--pretraining-steps": 1,
    "--num-quantiles": 5, "--num-heads": 3, "--n-positions": 8, "--block-length": 8, "--batch-tokens": 16,
    "--micro-batch-tokens": 16, "--validation-tokens": 16, "--sample-tokens": 2, "--num-states": 5,
    "--num-sequences": 20, "--sequence-length": 16, "--warmup-steps": 1,
    "--pretraining": "markov",
}  # fmt: skip
"""What keeps a run at a step of a small model, where there is such a flag."""
_ONE_STEP = ["--num-steps 1", "--device cpu", "--out new"]
_BASES: dict[str, list[str]] = {
    "quickstart": ["--out new", "--num-steps 1", "--collect-steps 30", "--num-processes 1"],
    "data collect": ["hopper-random", "--num-steps 30", "--out new"],
    "data convert": [SHARDS, "--game Breakout", "--num-steps 20", "--out new"],
    "data inspect": [CARTPOLE],
    "pretrain": [*_ONE_STEP, "--corpus markov", "--quiet"],
    "train": [*_ONE_STEP, "--num-episodes 0", "--quiet"],
    "evaluate": [RUN, "--num-episodes 1", "--device cpu"],
    "attention": [RUN, "--num-windows 2"],
    "export": [RUN, "--no-video", "--out new"],
    "study": [
        "table2", "--arms random", "--data " + CARTPOLE, "--seeds 0", "--num-steps 1", "--num-episodes 0",
        "--engine process", "--root new", "--device cpu",
    ],
    "report": [RUN],
    "recipes": ["chibit"],
    "show": [RUN],
}  # fmt: skip
"""A line of each command that does its work in a moment; of a command that is not here, the verb alone."""
_SLOW = {"quickstart": 0.03, "data collect": 0.3, "study": 0.5, "attention": 0.5}
"""Share of the lines that a command would have by its number of flags."""


@dataclass(frozen=True)
class Flag:
    """A flag, or an argument by its place, as a parser has it."""

    names: tuple[str, ...]
    """Its spellings; none for an argument by its place."""
    count: Any
    """Values it takes, in argparse's words."""
    choices: tuple[str, ...] = ()
    kind: str = "STR"
    """Types of its values, as the help text has them: INT, FLOAT, STR, PATH and unions of them."""


class _Asked(Exception):  # noqa: N818 - it carries a parser out of a command
    pass


@cache
def flags_of(verb: str, start: tuple[str, ...] = ()) -> tuple[Flag, ...]:
    """All flags of a command.

    Args:
        verb: as in `chibit.cli.VERBS`.
        start: flags that decide which others there are.
    """
    function = find_command(verb)
    module = importlib.import_module(function.__module__)

    def parse(kind: Any, argv: Sequence[str], prog: str, default: Any = None) -> Any:
        given = {} if default is None else {"default": default}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            raise _Asked(
                tyro.extras.get_parser(kind, prog=prog, config=(tyro.conf.OmitArgPrefixes,), **given)
            )

    with mock.patch.object(module, "parse", parse):
        try:
            function(list(start), f"chibit {verb}")
        except _Asked as asked:
            parser = asked.args[0]
    flags = []
    for action in parser._actions:
        choices = tuple(map(str, action.choices or ()))
        flags.append(Flag(tuple(action.option_strings), action.nargs, choices, str(action.metavar)))
    return tuple(flags)


def command_line(generator: random.Random) -> tuple[list[str], str]:
    """A line that would do its work, but for one to three flags that are spoiled; and these flags."""
    verb = generator.choices(list(VERBS), _weights())[0]
    start, groups = _base(verb, generator)
    flags = flags_of(verb, start)
    spoiled = []
    for _ in range(generator.choice((1, 1, 1, 2, 2, 3))):
        flag = generator.choice(flags)
        group = _spoiled(flag, generator)
        spoiled += [word if len(word) < 80 else f"{word[:70]}... ({len(word)})" for word in group]
        if not flag.names:
            groups = [group, *(each for each in groups if each[0].startswith("--"))]
        else:
            groups = [each for each in groups if each[0] not in flag.names] + [group]
    if generator.random() < 0.04:
        groups.insert(generator.randrange(len(groups) + 1), [generator.choice(_VALUES)])
    line = [*verb.split(), *start, *(word for group in groups for word in group)]
    if generator.random() < 0.02:
        line[generator.randrange(len(line))] = generator.choice(_VALUES)
    return line, f"{' '.join([verb, *start])} {spoiled}"


@cache
def _weights() -> tuple[float, ...]:
    return tuple((3 + len(flags_of(verb))) * _SLOW.get(verb, 1.0) for verb in VERBS)


def _base(verb: str, generator: random.Random) -> tuple[tuple[str, ...], list[list[str]]]:
    """Flags that decide which others there are, and the others, each with its values."""
    start: tuple[str, ...] = ()
    groups = [part.split() for part in _BASES.get(verb, ())]
    if verb == "train":
        agent = generator.choice(["dt", *AGENTS] * 2 + ["dt"] * len(AGENTS))
        is_discrete = agent.startswith(("discrete", "qr_", "rem")) or (
            agent == "dt" and generator.random() < 0.5
        )
        start = ("--agent", agent)
        groups.append(["--data", CARTPOLE if is_discrete else PENDULUM])
        if agent == "dt" and generator.random() < 0.15:
            groups += [["--initializer", "markov"], ["--similarity-weight", "0.1"], ["--num-clusters", "3"]]
        if generator.random() < 0.1:
            groups = [group for group in groups if group[0] != "--num-episodes"] + [["--num-episodes", "1"]]
    elif verb == "study" and generator.random() < 0.5:
        groups.append(["--dry-run"])
    known = {name for flag in flags_of(verb, start) for name in flag.names}
    is_small = any(group[0] == "--initializer" for group in groups)
    small = {name: value for name, value in _SMALL.items() if name in known and verb in ("train", "pretrain")}
    if is_small:
        small = {"--batch-size": 4, "--context-length": 3}
    return start, groups + [[name, str(value)] for name, value in small.items()]


def _spoiled(flag: Flag, generator: random.Random) -> list[str]:
    """A flag with a value that it may not expect."""
    name = generator.choice(flag.names) if flag.names else ""
    if flag.count == 0:
        return [f"{name}={generator.choice(_VALUES)}"] if generator.random() < 0.1 else [name]
    likely = _FLOATS if "FLOAT" in flag.kind else _INTEGERS if "INT" in flag.kind else flag.choices
    pool = likely if likely and generator.random() < 0.7 else _VALUES
    number = generator.choice((1, 1, 2, 3)) if flag.count in ("*", "+") else 1
    values = [generator.choice(pool) for _ in range(number)]
    way = generator.random()
    if not name:
        return values
    if way < 0.03:
        return [name]
    if way < 0.06:
        return [name, *values, name, *values]
    if way < 0.08:
        return [name[:-1], *values]
    return [f"{name}={values[0]}", *values[1:]] if way < 0.3 else [name, *values]
