"""``chibit words``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from chibit.commands.parsing import parse
from chibit.core.config import Checked
from chibit.core.fields import Natural, Needs
from chibit.core.terminal import make_console, print_table

_WIDTH = 128


@dataclass(frozen=True, kw_only=True)
class WordsArguments(Checked):
    """Say whether a language model knows words for colors, objects and verbs, before a study of them.

    Each of 81 words is left out in turn: is the nearest of the others one that means the same?

    Example: chibit words chibit
    """

    initializer: Annotated[str, tyro.conf.Positional] = "chibit"
    """Language model; chibit, random, random_matched, gpt2, hf:ID, a folder, or MODULE:NAME."""
    in_context: bool = False
    """Compare hidden states in a sentence; without, the words' token embeddings."""
    layer: Annotated[Natural | None, Needs("--in-context", lambda words: words.in_context)] = None
    """Layer of hidden states; None is two fifths of the way up, in the package's own models the last."""


def words(argv: Sequence[str], prog: str) -> None:
    """``chibit words``."""
    arguments = parse(WordsArguments, argv, prog)
    from chibit.agents.text.known_words import known_words
    from chibit.agents.text.words import load_words
    from chibit.models.initializers import import_initializer

    import_initializer(arguments.initializer)
    vocabulary = load_words(arguments.initializer, _WIDTH)
    found = known_words(vocabulary, layer=arguments.layer, in_context=arguments.in_context)
    how = "hidden states in a sentence" if arguments.in_context else "token embeddings"
    table = Table(title=f"does {arguments.initializer} know the words? by {how}")
    for column in ("words", "number", "nearest means the same", "random", "nearest seen", "random", "known"):
        table.add_column(column, justify="right")
    for slot, test in found.items():
        shares = [f"{test[name]:.2f}" for name in ("nearest", "random", "seen", "seen_random")]
        table.add_row(slot, str(test["number"]), *shares, "yes" if test["known"] else "no")
    unknown = [f"{slot}s" for slot, test in found.items() if not test["known"]]
    table.caption = "random: vectors drawn for the same tokens; seen: synonyms, among words of training"
    print_table(make_console(), table)
    if unknown:
        make_console().print(
            f"a synonym test of {' and '.join(unknown)} that finds nothing with these words is no evidence",
            soft_wrap=True,
        )
