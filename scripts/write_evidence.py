"""Write the published evidence, with the differences that are computed, between its marks in docs/results.md.

Command: python scripts/write_evidence.py
"""

from __future__ import annotations

from pathlib import Path

from chibit.core.files import write_atomic
from chibit.reporting.published.evidence import known_sentence
from chibit.reporting.tables.known import differences_known, studies_known
from chibit.reporting.tables.table import to_markdown

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
START, END = "<!-- evidence -->\n", "<!-- end of evidence -->\n"


def evidence() -> str:
    """The sentence and the two tables as Markdown, one level below the page's sections."""
    tables = to_markdown([differences_known(), studies_known()]).replace("## ", "### ")
    return f"{known_sentence()}\n\n{tables}"


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    write_atomic(PAGE, before + START + evidence() + END + after)


if __name__ == "__main__":
    main()
