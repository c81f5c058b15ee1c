"""The command line: verbs to functions, refusals to one line and an exit code. No logic of its own."""

from __future__ import annotations

import importlib
import logging
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console

from chibit.core.errors import InputError, UserError, one_line
from chibit.core.files import is_out_of_resources, nearest, read_error, resource_error
from chibit.core.signals import Interrupted, Stopped, interruptible
from chibit.core.terminal import flush_output, make_console, print_anything, say
from chibit.core.version import __version__

log = logging.getLogger("chibit")
VERBOSE = ("-v", "--verbose")
VERBS = {
    "quickstart": (
        "start.quickstart",
        "collect data, fine-tune two arms, evaluate, write a page",
    ),
    "data collect": (
        "data.collect",
        "D4RL-style data by shipped policies, or Atari data by an actor",
    ),
    "data convert": ("data.convert", "write a data set as a store, for Minari or as .npz"),
    "data list": ("data.list_known", "data sets that can be made, downloaded, or are here already"),
    "data inspect": (
        "data.inspect",
        "episodes, returns, sizes and environment of a data set",
    ),
    "pretrain": ("pretrain.pretrain", "train a language model on text or a synthetic corpus"),
    "train": ("train.train", "fine-tune an agent on logged trajectories and evaluate it"),
    "evaluate": ("evaluate.evaluate", "play episodes with a trained run, at any target returns"),
    "judge": ("judge.judge", "what can be said of trained runs without a simulator"),
    "attention": ("evaluate.attention", "attention maps of a trained run, as arrays and a figure"),
    "export": ("export.export", "write a run's policy as a folder to deploy or share"),
    "study": ("study.study", "a table of the paper, or another study: many runs, then a report"),
    "report": ("report.report", "tables, figures and one HTML page from run directories"),
    "words": ("words.words", "does a language model know words for colors, objects and verbs?"),
    "recipes": ("start.recipes", "named configurations, one line each, or one whole"),
    "completion": ("completion.completion", "complete commands and flags in bash, zsh or fish"),
    "show": ("start.show", "the model of a run or recipe: configuration and parameter counts"),
}
"""Verb to its function in `chibit.commands`, and help line. Modules are imported when their verb is called:
`--help` stays quick."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 2 bad input or usage, 3 damaged or untrusted file, 4 out of a resource, 5
        training diverged, 129, 130 or 143 stopped on request.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = [word for word in given if word not in VERBOSE]
    print_anything()
    errors = make_console(stderr=True, soft_wrap=True)
    _route_warnings(errors, logging.INFO if arguments == given else logging.DEBUG)
    log.debug("chibit %s, Python %s: %s", __version__, platform.python_version(), " ".join(given))
    try:
        with interruptible():
            try:
                return _dispatch(arguments)
            finally:
                flush_output()
    except (UserError, Stopped) as error:
        log.debug("refused or stopped here:", exc_info=True)
        say(errors, f"chibit: {one_line(str(error))}")
        return error.exit_code
    except MemoryError:
        say(errors, "chibit: out of memory; use a smaller batch, model or data set")
        return 4
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            return 0
        kind = resource_error if is_out_of_resources(error) else read_error
        nameless = "the current folder" if isinstance(error, FileNotFoundError) else "a file"
        refused = kind(str(error.filename or nameless), error)
        say(errors, f"chibit: {one_line(str(refused))}")
        return refused.exit_code
    except KeyboardInterrupt as error:
        number = error.signal_number if isinstance(error, Interrupted) else signal.SIGINT
        say(errors, f"chibit: stopped by {signal.Signals(number).name}")
        return 128 + number


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verb, rest = _split_verb(arguments)
    find_command(verb)(rest, f"chibit {verb}")
    return 0


def find_command(verb: str) -> Callable[[Sequence[str], str], None]:
    """The function of a verb, which takes its flags and the command so far."""
    module, _, function = VERBS[verb][0].partition(".")
    command: Callable[[Sequence[str], str], None]
    command = getattr(importlib.import_module(f"chibit.commands.{module}"), function)
    return command


def _split_verb(arguments: list[str]) -> tuple[str, list[str]]:
    for length in (2, 1):
        verb = " ".join(arguments[:length])
        if verb in VERBS:
            return verb, arguments[length:]
    group = [verb for verb in VERBS if verb.startswith(arguments[0] + " ")]
    if group:
        if len(arguments) > 1 and arguments[1] not in ("-h", "--help"):
            raise InputError(f"unknown command {' '.join(arguments[:2])!r}; known: {', '.join(group)}")
        print("\n".join(_lines(group)))
        raise SystemExit(0)
    raise InputError(f"unknown command {arguments[0]!r}{nearest(arguments[0], VERBS)}; see chibit --help")


def usage() -> str:
    """The text of ``chibit --help``."""
    return "\n".join(
        [
            "usage: chibit COMMAND [OPTIONS]",
            "",
            "Offline reinforcement learning as sequence modeling, with pre-trained weights.",
            "",
            *_lines(VERBS),
            "",
            "COMMAND --help shows basic flags and an example, --help-all all flags; -v with",
            "any command says more. Start with: chibit quickstart",
        ]
    )


def _lines(verbs: Iterable[str]) -> list[str]:
    return [f"  {verb:<13} {VERBS[verb][1]}" for verb in verbs]


class _Lines(logging.Handler):
    """Prints each message as one line, as long as it is."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print it, after its level; below it where it comes from, if that was asked for."""
        self._console.print(f"{record.levelname}: {one_line(record.getMessage())}")
        if record.exc_info:
            self._console.print("".join(traceback.format_exception(*record.exc_info)).rstrip())


def _route_warnings(console: Console, level: int) -> None:
    """Messages of ours go to stderr in one plain line each; with -v also what is read and saved."""
    log.handlers = [_Lines(console)]
    log.setLevel(level)
    log.propagate = False
