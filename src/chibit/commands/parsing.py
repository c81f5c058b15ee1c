"""Flags to dataclasses through tyro; ``--agent``, ``--recipe`` and ``--config`` are read first."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from chibit.commands.help import show_help, wants_help
from chibit.core.config import Checked, find_idle, renamed
from chibit.core.errors import InputError
from chibit.core.fields import BASIC, Group

if TYPE_CHECKING:
    from chibit.data.dataset import DatasetSpec

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WithEnvModule(Checked):
    """Base of the arguments of commands that meet environments of others."""

    env_module: Annotated[str, Group("own code")] = ""
    """Module of yours that registers environments (my_package.envs); it is imported, here and in workers."""

    def load_modules(self) -> None:
        """Import what is the user's own."""
        if self.env_module:
            from chibit.environments.own import import_environments

            import_environments(self.env_module, "--env-module")


@dataclass(frozen=True, kw_only=True)
class WithJson(Checked):
    """Base of the arguments of commands whose answer a program can read."""

    json: Annotated[bool, BASIC, Group("output")] = False
    """Answer in JSON; on standard output, and all else on standard error."""


@dataclass(frozen=True, kw_only=True)
class WithModules(WithEnvModule):
    """Base of the arguments of commands that meet agents and initializers of others."""

    agent: Annotated[str, Group("own code")] = ""
    """MODULE:CLASS of an agent that is none of chibit's own (my_module:MyAgent); the module is imported."""
    initializer: str = ""
    """MODULE:NAME of an initializer that is none of chibit's own; the module is imported."""

    def load_modules(self) -> None:
        """Import them."""
        super().load_modules()
        if self.agent:
            from chibit.agents import AGENTS

            AGENTS.load(self.agent)
        if self.initializer:
            from chibit.models.initializers import INITIALIZERS

            INITIALIZERS.load(self.initializer)


@dataclass(frozen=True, kw_only=True)
class WithEnvironment(WithModules):
    """Base of the arguments of commands that play in an environment."""

    env_id: Annotated[str | None, Group("environment")] = None
    """Environment to play in (Hopper-v4), where the run's data name none or another."""

    def in_environment(self, spec: DatasetSpec) -> DatasetSpec:
        """A run's description in the environment that the user names, if any; raises as `played_in`."""
        if self.env_id is None:
            return spec
        from chibit.data.environment import played_in
        from chibit.environments.own import take_env

        return played_in(spec, take_env(self.env_id))


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Read flags into a dataclass.

    Args:
        kind: the dataclass; its docstring and its fields' docstrings are the help text.
        argv: the flags.
        prog: the command so far, for the help text.
        default: values under the flags.

    Raises:
        InputError: in one line, for a flag that is unknown, missing, has a value that makes no sense, or
            would do nothing beside the others.
        SystemExit: with code 0, after help was printed.
    """
    if wants_help(argv):
        show_help(kind, argv, prog, default)
        raise SystemExit(0)
    extra: dict[str, Any] = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed: T = tyro.cli(
                kind,
                args=list(argv),
                prog=prog,
                config=(tyro.conf.OmitArgPrefixes,),
                add_help=False,
                **extra,
            )
    except SystemExit as error:
        if not error.code:
            raise
        reason = _renamed(default, argv) or _refusal(error) or _one_line(said.getvalue())
        raise InputError(f"{reason}; see {prog} --help") from error
    for line in find_idle(parsed, default):
        raise InputError(f"{line}; leave it out")
    if isinstance(parsed, WithEnvModule):
        parsed.load_modules()
    return parsed


def _renamed(default: Any, argv: Sequence[str]) -> str:
    """What a flag or a value of an earlier version is called now; empty where all of them are of this one."""
    words = [word for argument in argv for word in argument.split("=", 1)]
    flags = [word.replace("_", "-") for word in words]
    for field, was in renamed(default):
        first, now = (f"--{name.replace('_', '-')}" for name in (was.name, field))
        if first != now and first in flags:
            return f"{first} is {now} now"
        for flag, value in zip(flags, words[1:], strict=False):
            if flag == now and value in dict(was.values):
                return f"{now}: {value!r} is {was.read(value)!r} now"
    return ""


def _refusal(error: BaseException | None) -> str:
    """What a config class said of its fields, whole; tyro puts it into a box and breaks its words."""
    while error is not None and not isinstance(error, InputError):
        error = error.__context__
    return str(error or "")


def _one_line(box: str) -> str:
    """What tyro says in a box with a title: its first paragraph, and the flag that may have been meant."""
    text = "\n".join(line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:])
    paragraphs = [" ".join(part.split()) for part in re.split(r"[─-]{5,}", text) if part.strip()]
    first = re.sub(r"^Error parsing (run[.\w]*: )?", "", paragraphs[0]) if paragraphs else "bad usage"
    meant = re.match(r"Perhaps you meant: (\S+)", paragraphs[1]) if len(paragraphs) > 1 else None
    return f"{first}; did you mean {meant[1]}?" if meant else first


def take_option(argv: list[str], name: str) -> str | None:
    """Remove ``--name VALUE`` or ``--name=VALUE`` from `argv`; its value, or None where it is absent.

    As everywhere on the command line, a name may have underscores in place of dashes.

    Raises:
        InputError: for a flag without a value, or given twice.
    """
    found: list[str] = []
    position = 0
    while position < len(argv):
        flag, has_value, value = argv[position].partition("=")
        if flag.replace("_", "-") != name:
            position += 1
        elif has_value:
            found.append(value)
            del argv[position]
        else:
            if position + 1 >= len(argv):
                raise InputError(f"{name}: needs a value")
            found.append(argv[position + 1])
            del argv[position : position + 2]
    if len(found) > 1:
        raise InputError(f"{name}: given {len(found)} times, expected once")
    return found[0] if found else None
