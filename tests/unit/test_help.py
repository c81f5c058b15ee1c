"""Help fits a screen, leaves out no flag, and shows each on one line; its examples: test_help_examples.py."""

import dataclasses
import re
from typing import Annotated

import pytest
import tyro

from chibit.agents import AGENTS
from chibit.cli import VERBS, find_command, main
from chibit.commands import help as help_
from chibit.commands.completion import arguments_of_commands, completion_script
from chibit.core.config import Checked
from chibit.core.fields import BASIC, Count, Group

LINES, COLUMNS = 24, 80
METHODS = [("train", "--agent", name) for name in AGENTS]
COMMANDS = [*(tuple(verb.split()) for verb in VERBS), *METHODS]
FLAG = re.compile(r"^  (--[^ \n]+)", re.MULTILINE)
TYRO = re.compile(r"^[│ ] (?:-., )?(--\w[\w-]*)(?:, (--no-[\w-]+))?", re.MULTILINE)


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 0
    said = capsys.readouterr()
    assert not said.err
    return said.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_a_screen_with_a_line_for_each_flag(command, capsys):
    text = help_of(capsys, *command, "--help")
    lines = text.splitlines()
    assert len(lines) <= LINES and max(map(len, lines)) <= COLUMNS
    flags = text[: text.index("--verbose")].split("\n\n")[-1].splitlines()
    assert all(re.match(r"  [\w\[-]", line) for line in flags), text  # none goes on below
    assert len(flags) <= 13  # ten basic ones, what they are for, help and -v
    words = command if command[0] == "data" else command[:1]
    assert f"\n  chibit {' '.join(words)}" in text[text.index("Example") :]


def test_the_list_of_commands_fits_a_screen(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= LINES and max(map(len, lines)) <= COLUMNS
    assert [line[2:16].strip() for line in lines if line.startswith("  ")] == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_is_in_the_help_of_all_and_of_its_group(verb, capsys):
    kind = arguments_of_commands()[verb]
    with pytest.raises(SystemExit):
        tyro.cli(kind, prog="x", args=["--help"], config=(tyro.conf.OmitArgPrefixes,))
    known = {flag for pair in TYRO.findall(capsys.readouterr().out) for flag in pair if flag} - {"--help"}
    text = help_of(capsys, *verb.split(), "--help-all")
    assert max(map(len, text.splitlines())) <= COLUMNS
    flags = FLAG.findall(text)
    shown = {flag.replace("[no-]", no) for flag in flags for no in ("", "no-")[: 1 + ("[no-]" in flag)]}
    assert shown == known
    groups = re.findall(r"^(\w[\w -]*):$", text[: text.index("Example")], re.M)
    assert len(groups) == len(set(groups))
    for group in groups:
        assert set(FLAG.findall(help_of(capsys, *verb.split(), "--help-all", *group.split()))) <= {*flags}


def test_the_help_of_a_method_has_its_flags_and_defaults(capsys):
    assert "--conservative-weight X" in help_of(capsys, "train", "--agent", "cql", "--help-all")
    text = help_of(capsys, "train", "--recipe", "chibit_lora", "--help-all", "what is trained")
    assert "(default: lora)" in text and "--lora-rank" in text and "--tensorboard" not in text


def test_an_unknown_group_is_refused_in_a_line(capsys):
    assert main(["train", "--help-all", "optimisation"]) == 2
    error = capsys.readouterr().err
    assert "has no group 'optimisation'; did you mean 'optimization'" in error and error.count("\n") == 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Checked):
    width: Count = 4
    """Its width."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Checked):
    """Do it.

    Example: chibit do
    """

    name: Annotated[str, tyro.conf.Positional]
    """What to do."""
    first: Annotated[int | None, BASIC, Group("size")] = None
    """Metres; a clause that is left out since there is no room for it, and so is what comes after it."""
    second: Annotated[tuple[float, float], Group("other one")] = (0.5, 1e-4)
    """Two numbers."""
    rest: Annotated[tuple[str, ...], Group("size")] = ()
    """Several."""
    untold: bool = True
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_groups_texts_and_defaults_come_from_the_declarations():
    flags = {flag.name: flag for flag in help_.flags_of(Outer)}
    assert list(flags) == [
        "NAME",
        "--first N",
        "--second X X",
        "--rest TEXT ...",
        "--[no-]untold",
        "--width N",
    ]
    assert [flag.group for flag in flags.values()] == ["options", "size", "other one", "size", "size", "size"]
    assert flags["--first N"].line == "Metres"
    assert flags["--second X X"].line == "Two numbers (default: 0.5 0.0001)"
    assert flags["--[no-]untold"].line == "(default: on)"
    assert flags["NAME"].default == "(required)" and flags["NAME"].is_positional
    given = Outer(name="x", first=3, inner=Inner(width=9))
    shown = {flag.name: flag.default for flag in help_.flags_of(Outer, given)}
    assert shown["--first N"] == "(default: 3)" and shown["--width N"] == "(default: 9)"


def test_completion_knows_every_command_and_is_one_line_an_entry():
    assert set(arguments_of_commands()) == set(VERBS)
    for shell in ("bash", "zsh", "fish"):
        script = completion_script(shell)
        (spec,) = [line for line in script.splitlines() if line.startswith("COMPLETION_SPEC = ")]
        assert "\\n" not in spec
        assert all(f"'{word}'" in spec for verb in VERBS for word in verb.split())
        assert "--learning-rate" in spec and "--target-returns" in spec


def test_commands_are_where_the_table_says():
    assert all(callable(find_command(verb)) for verb in VERBS)
