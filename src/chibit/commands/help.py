"""The help of a command, from the declarations of its arguments: a screen of basics, or all flags in groups.

tyro reads the flags; its help has a group for each class, not for each subject, and no short form.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from docstring_parser import parse_from_object

from chibit.core.config import declarations
from chibit.core.errors import InputError
from chibit.core.fields import BASIC, Group
from chibit.core.files import nearest
from chibit.core.formatting import count

HELP, HELP_ALL = ("-h", "--help"), "--help-all"
_WIDTH, _LEFT = 80, 30
_KINDS = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}
_OPTIONS, _EXAMPLE, _REQUIRED = "options", "Example: ", "(required)"


@dataclass(frozen=True)
class Flag:
    """A flag, or a positional argument, as help shows it."""

    name: str
    """As it is written, with what it takes."""
    text: str
    """What it does, with its unit; the first sentence is what ``--help`` has room for."""
    default: str
    """Its default, or that it is required; empty where the text says what happens without."""
    group: str
    is_basic: bool
    is_positional: bool

    @property
    def short_name(self) -> str:
        """As it is written, without values that there is no room for."""
        is_long = len(self.name) > _LEFT - 3
        return re.sub(r" \S+\|\S+$", " NAME", self.name) if is_long else self.name

    @property
    def line(self) -> str:
        """What it does and its default, in one line: as many of its clauses as there is room for."""
        ends = [mark.start() for mark in re.finditer(r"[.;] |$", self.text)]
        lines = [f"{self.text[:end].removesuffix('.')} {self.default}".strip() for end in ends]
        return max((line for line in lines if len(line) <= _WIDTH - _LEFT), key=len, default=lines[0])


def wants_help(argv: Sequence[str]) -> bool:
    """Whether help is asked for."""
    return any(word in argv for word in (*HELP, HELP_ALL))


def show_help(kind: Any, argv: Sequence[str], prog: str, default: Any = None) -> None:
    """Print the help of a command.

    Args:
        kind: the dataclass of its arguments.
        argv: its flags: ``--help``, ``--help-all``, or the latter with the name of a group.
        prog: the command so far.
        default: values of the arguments, where they are not those of the class.

    Raises:
        InputError: for a group that it does not have.
    """
    flags = sorted(flags_of(kind, default), key=lambda flag: not flag.is_positional)
    shown, rest = flags, []
    if HELP_ALL in argv:
        words = list(argv)[list(argv).index(HELP_ALL) + 1 :]
        if words and not words[0].startswith("-"):
            shown = _in_group(flags, " ".join(words), prog)
    elif any(flag.is_basic for flag in flags):
        shown = [flag for flag in flags if flag.is_basic or flag.is_positional]
        rest = [flag for flag in flags if flag not in shown]
    text, examples = _description(kind)
    needed = " ".join(flag.name for flag in flags if flag.is_positional or flag.default == _REQUIRED)
    lines = [" ".join(f"usage: {prog} {needed} [OPTIONS]".split()), ""]
    lines += [line for part in text for line in (*_wrap(part, ""), "")]
    if HELP_ALL in argv:
        lines += _groups(shown)
    else:
        lines += [line for flag in shown for line in _entry(flag.short_name, flag.line)]
        lines += _entry("-h, --help", "Show this")
        lines += _entry("-v, --verbose", "Say more, with tracebacks")
        lines += _more(rest)
    print("\n".join([*lines, *_examples(examples)]))


def flags_of(kind: Any, default: Any = None, group: str = _OPTIONS) -> Iterator[Flag]:
    """The flags of a dataclass, then those of dataclasses in it."""
    hints = typing.get_type_hints(kind)
    about = {name: found for base in kind.__mro__[::-1] for name, found in _own_fields(base, group).items()}
    nested = []
    for field in dataclasses.fields(kind):
        text, its_group = about[field.name]
        value = _value(field) if default is None else getattr(default, field.name)
        declared = declarations(kind, field.name)
        if dataclasses.is_dataclass(value):
            nested.append((value, its_group))
            continue
        is_positional, is_basic = tyro.conf.Positional in declared, BASIC in declared
        name = _name(field.name, hints[field.name], is_positional=is_positional)
        if is_positional and value is not tyro.MISSING:
            name = f"[{name}]"
        yield Flag(name, text, _shown(value), its_group, is_basic, is_positional)
    for value, its_group in nested:
        yield from flags_of(type(value), value, its_group)


def _own_fields(kind: Any, group: str) -> dict[str, tuple[str, str]]:
    """Text and group of the fields that a class itself declares."""
    own = inspect.get_annotations(kind)
    if not dataclasses.is_dataclass(kind):
        return {}
    texts = {param.args[1]: " ".join((param.description or "").split()) for param in _attributes(kind)}
    found = {}
    for name in (field.name for field in dataclasses.fields(kind) if field.name in own):
        groups = [mark.title for mark in declarations(kind, name) if isinstance(mark, Group)]
        group = groups[0] if groups else group
        found[name] = texts.get(name, ""), group
    return found


def _attributes(kind: Any) -> list[Any]:
    try:
        return [param for param in parse_from_object(kind).params if param.args[0] == "attribute"]
    except (OSError, TypeError):  # it has no source: it was made, or typed in
        return []


def _value(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


def _name(field: str, hint: Any, *, is_positional: bool) -> str:
    """A flag as it is written, with what it takes."""
    takes, is_many = _takes(hint)
    if is_positional:
        return field.upper().replace("_", "-") + (" ..." if is_many else "")
    name = field.replace("_", "-")
    return f"--[no-]{name}" if hint is bool else f"--{name} {takes}{' ...' if is_many else ''}"


def _takes(hint: Any) -> tuple[str, bool]:
    """What a value of a type is called, and whether there may be several."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "|".join(map(str, parts)), False
    if origin is tuple:
        name, _ = _takes(parts[0])
        return (name, True) if parts[-1] is Ellipsis else (" ".join(_takes(part)[0] for part in parts), False)
    if origin in (typing.Union, types.UnionType):
        kinds = [_takes(part) for part in parts if part is not type(None)]
        return "|".join(dict.fromkeys(name for name, _ in kinds)), kinds[-1][1]
    return _KINDS.get(hint, "VALUE"), False


def _shown(value: Any) -> str:
    """A default; nothing for what is off, empty or None, whose meaning the text says."""
    if value in (tyro.MISSING, tyro.MISSING_NONPROP):
        return _REQUIRED
    if value is None or value is False or value in ("", ()):
        return ""
    if value is True:
        return "(default: on)"
    values = value if isinstance(value, tuple) else (value,)
    words = (f"{one:g}" if isinstance(one, float) else f"{one}" for one in values)
    return f"(default: {' '.join(words)})"


def _in_group(flags: Sequence[Flag], name: str, prog: str) -> list[Flag]:
    titles = list(dict.fromkeys(flag.group for flag in flags))
    if name not in titles:
        known = ", ".join(titles)
        raise InputError(f"{HELP_ALL}: {prog} has no group {name!r}{nearest(name, titles)}; known: {known}")
    return [flag for flag in flags if flag.group == name]


def _groups(flags: Sequence[Flag]) -> Iterator[str]:
    for title in dict.fromkeys(flag.group for flag in flags):
        yield f"{title}:"
        for flag in flags:
            if flag.group == title:
                yield from _entry(flag.name, f"{flag.text} {flag.default}".rstrip())
        yield ""


def _more(rest: Sequence[Flag]) -> list[str]:
    """How to see the flags that are left out."""
    if not rest:
        return []
    titles = dict.fromkeys(flag.group for flag in rest)
    counts = ", ".join(f"{title} ({sum(flag.group == title for flag in rest)})" for title in titles)
    lines = _entry(f"{HELP_ALL} [GROUP]", f"Show {count(len(rest), 'more flag')}:")
    return [*lines, *_wrap(counts, " " * 4)]


def _entry(flag: str, text: str) -> list[str]:
    """A flag and what is said of it, in two columns."""
    lines = _wrap(text, " " * _LEFT)
    name = f"  {flag}"
    if len(name) < _LEFT - 1 and lines:
        return [name + lines[0][len(name) :], *lines[1:]]
    return [*_wrap(flag, "  "), *lines]


def _wrap(text: str, indent: str) -> list[str]:
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _description(kind: Any) -> tuple[list[str], list[str]]:
    """Paragraphs of a command's docstring, and its examples."""
    parts = [" ".join(part.split()) for part in inspect.cleandoc(kind.__doc__ or "").split("\n\n")]
    examples = [part.removeprefix(_EXAMPLE) for part in parts if part.startswith(_EXAMPLE)]
    return [part for part in parts if not part.startswith(_EXAMPLE)], examples


def _examples(examples: Sequence[str]) -> list[str]:
    """Examples as they can be pasted into a shell."""
    lines = ["", "Example:" if len(examples) == 1 else "Examples:"]
    for example in examples:
        fits = len(example) <= _WIDTH - 2
        parts = [example] if fits else textwrap.wrap(example, _WIDTH - 8, break_on_hyphens=False)
        lines += [f"  {line}" for line in " \\\n    ".join(parts).split("\n")]
    return lines
