"""``chibit completion``: a script that completes commands, flags and values in a shell; tyro writes it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import tyro

from chibit.commands import data, evaluate, export, judge, pretrain, report, start, study, train, words
from chibit.commands.parsing import parse
from chibit.core.config import Checked

_HELP = "{'flags': ['-h', '--help'], 'description': 'show help message and exit', 'type': 'flag'}"
_HELP_ALL = "{'flags': ['--help-all'], 'description': 'show all flags in groups', 'type': 'flag'}"


@dataclass(frozen=True, kw_only=True)
class CompletionArguments(Checked):
    """Print a script that completes commands and flags in a shell.

    zsh: chibit completion zsh > ~/.zfunc/_chibit (a folder of $fpath); fish: chibit completion fish >
    ~/.config/fish/completions/chibit.fish

    Example: chibit completion bash > chibit.bash
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """bash, zsh or fish."""


def completion(argv: Sequence[str], prog: str) -> None:
    """``chibit completion``."""
    arguments = parse(CompletionArguments, argv, prog)
    print(completion_script(arguments.shell))


def completion_script(shell: str) -> str:
    """The script of a shell."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro.cli(
            _subcommands(arguments_of_commands()),
            prog="chibit",
            args=["--tyro-write-completion", shell, "-"],
            config=(tyro.conf.OmitArgPrefixes,),
        )
    lines = said.getvalue().splitlines()
    return "\n".join(_complete(line) if line.startswith("COMPLETION_SPEC = ") else line for line in lines)


def _complete(spec: str) -> str:
    """The table of commands and flags, a Python literal, as tyro writes it; with what it lacks."""
    # Its entries are lines; texts of more than one would become entries of their own.
    spec = re.sub(r"\\+n", " ", spec).replace("%%", "%")
    of_commands = re.escape(_HELP) + r"(?!\], 'subcommands': \{')"  # and not of groups of them
    spec = re.sub(of_commands, f"{_HELP}, {_HELP_ALL}", spec)
    texts = {verb.split()[-1]: kind.__doc__.splitlines()[0] for verb, kind in arguments_of_commands().items()}
    for name, text in {**texts, "data": "Data sets: make, convert, list and show them."}.items():
        spec = spec.replace(
            f"'{name}': {{'description': '{name}'", f"'{name}': {{'description': '{_quoted(text)}'"
        )
    return spec


def _quoted(text: str) -> str:
    """Text for the inside of a literal, without any sign that Python or a shell would read as more."""
    return "".join(sign if sign.isalnum() or sign in " ,.:;-()" else f"\\x{ord(sign):02x}" for sign in text)


def arguments_of_commands() -> dict[str, Any]:
    """The class of arguments of each command; of train those of the default method."""
    from chibit.agents import AGENTS, DEFAULT_AGENT

    return {
        "quickstart": start.QuickstartArguments,
        "data collect": data.CollectArguments,
        "data convert": data.ConvertArguments,
        "data list": data.ListArguments,
        "data inspect": data.InspectArguments,
        "pretrain": pretrain.arguments_class(),
        "train": train.arguments_class(AGENTS[DEFAULT_AGENT].config),
        "evaluate": evaluate.EvaluateArguments,
        "judge": judge.JudgeArguments,
        "attention": evaluate.AttentionArguments,
        "words": words.WordsArguments,
        "export": export.ExportArguments,
        "study": study.StudyArguments,
        "report": report.ReportArguments,
        "recipes": start.RecipesArguments,
        "show": start.ShowArguments,
        "completion": CompletionArguments,
    }


def _subcommands(kinds: dict[str, Any]) -> Any:
    """One type for all commands, with those of a group below it."""
    groups: dict[str, dict[str, Any]] = {}
    for verb, kind in kinds.items():
        first, _, rest = verb.partition(" ")
        groups.setdefault(first, {})[rest] = kind
    parts = []
    for name, members in groups.items():
        kind = members.get("") or dataclasses.make_dataclass(name, [("which", _subcommands(members))])
        parts.append(Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)])
    return reduce(or_, parts)
