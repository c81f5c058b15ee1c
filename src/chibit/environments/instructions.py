"""The words of BabyAI's instructions: which pairs are held out, other words for the same, words for nothing.

What is done to an instruction is done to one slot of it: its verb, its first color or its first type of
object. Pure text, no simulator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

Slot = Literal["verb", "type", "color"]
SLOTS: tuple[Slot, ...] = ("verb", "type", "color")
MAX_LETTERS = 256
"""Of an instruction, as in Minari's own sets."""

SYNONYMS: Mapping[Slot, Mapping[str, tuple[str, ...]]] = {
    "color": {
        "red": ("crimson", "scarlet", "ruby", "maroon", "burgundy", "cherry"),
        "green": ("emerald", "lime", "olive", "jade", "mint"),
        "blue": ("azure", "navy", "cobalt", "indigo", "sapphire", "turquoise", "cyan"),
        "purple": ("violet", "lavender", "magenta", "lilac", "plum"),
        "yellow": ("gold", "golden", "amber", "lemon"),
        "grey": ("gray", "silver", "ash", "slate"),
    },
    "type": {
        "ball": ("sphere", "orb", "globe", "football", "balls"),
        "box": ("crate", "container", "chest", "case", "carton", "package", "boxes"),
        "key": ("keys", "latch", "keycard", "opener"),
        "door": ("gate", "doorway", "doors", "entrance"),
    },
    "verb": {
        "go": ("walk", "move", "head", "travel", "run", "come"),
        "pick": ("grab", "take", "lift", "collect"),
        "put": ("place", "set", "drop", "lay"),
        "open": ("unlock", "opened"),
    },
}
"""The words that training uses, and others that mean the same, by slot."""
_SPOKEN_VERBS: Mapping[str, tuple[str, ...]] = {
    "go to": ("walk to", "move to", "travel to", "head to"),
    "pick up": ("grab", "take", "lift", "collect"),
    "put": ("place", "set", "lay"),
    "open": ("unlock",),
}
"""Verbs as they stand in instructions."""
NONSENSE: Mapping[int, tuple[str, ...]] = {
    1: ("gor", "mun", "fer", "mur"),
    2: ("dax", "blick", "wug", "toma"),
    3: ("daxen", "wugget", "blorft", "gazzer"),
}
"""Words that mean nothing, for each slot, by how many of GPT-2's tokens they are (some from Carey 1978 and
Berko 1958). Of more tokens than the synonym, they would move all that follows to another place, which fails
an agent, too: what is measured then is the length and not the meaning (docs/language.md)."""
_LONG: Mapping[int, frozenset[str]] = {
    2: frozenset(
        {"carton", "keycard", "unlock", "scarlet", "maroon", "burgundy", "emerald", "jade", "azure", "cobalt"}
        | {"indigo", "lavender", "magenta", "lilac"}
    ),
    3: frozenset({"sapphire", "turquoise"}),
}
"""Synonyms of more than one token where they stand."""
HELD_OUT = frozenset(
    {
        ("red", "ball"),
        ("green", "box"),
        ("blue", "key"),
        ("purple", "ball"),
        ("yellow", "box"),
        ("grey", "key"),
    }
)
"""Pairs of color and type that no training instruction asks for; each of both occurs in others."""

_WORDS: Mapping[Slot, tuple[str, ...]] = {
    "verb": tuple(_SPOKEN_VERBS),
    "type": tuple(SYNONYMS["type"]),
    "color": tuple(SYNONYMS["color"]),
}
_PATTERNS = {slot: re.compile(rf"\b({'|'.join(words)})\b") for slot, words in _WORDS.items()}


def word_in(mission: str, slot: Slot) -> str | None:
    """The word that fills a slot of an instruction, the first where there are several; None for none."""
    found = _PATTERNS[slot].search(mission)
    return found[1] if found else None


def is_held_out(mission: str) -> bool:
    """Whether the first object that an instruction names is of a held-out pair."""
    return (word_in(mission, "color"), word_in(mission, "type")) in HELD_OUT


def rephrase(mission: str, split: str, generator: np.random.Generator) -> str:
    """What a split says in place of an instruction.

    Args:
        mission: the instruction.
        split: ``blank``, or one of ``{verb,type,color}_{synonym,nonsense,wrong}``; others leave it as it is.
        generator: of the draw among several words.
    """
    if split == "blank":
        return ""
    slot, _, how = split.rpartition("_")
    if slot not in SLOTS:
        return mission
    word = word_in(mission, slot)
    if word is None:
        return mission
    others = _SPOKEN_VERBS[word] if slot == "verb" else SYNONYMS[slot][word]
    if how == "wrong":
        others = tuple(other for other in _WORDS[slot] if other not in (word, "put"))
    chosen = str(generator.choice(others))
    if how == "nonsense":  # of the length of the synonym that is said in the same room
        spoken, space, preposition = chosen.partition(" ")
        number = next((tokens for tokens, words in _LONG.items() if spoken in words), 1)
        chosen = str(generator.choice(NONSENSE[number])) + space + preposition
    return _PATTERNS[slot].sub(chosen, mission, count=1)
