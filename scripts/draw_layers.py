"""Draw the layers of the package from its imports, into docs/architecture.md.

python scripts/draw_layers.py            write the picture
python scripts/draw_layers.py --check    say whether it is that of the code; exit status 1 if not
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "chibit"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- layers -->\n", "<!-- end of layers -->"


def layer_of(path: Path) -> str:
    """The folder or file directly below the package."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def read_imports() -> dict[str, set[str]]:
    """Layer to the layers whose modules it imports, `__init__` and `__main__` left out."""
    imports: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        layer = layer_of(path)
        if layer.startswith("__"):
            continue
        found = imports.setdefault(layer, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chibit"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name.split(".")[1] for name in names}
            elif isinstance(node, ast.Constant) and str(node.value).startswith("chibit.commands."):
                found.add("commands")  # imported when its verb is called
    return {layer: found & imports.keys() - {layer} for layer, found in imports.items()}


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """Layers from the ground up: each stands above all that it imports.

    Raises:
        SystemExit: if layers import each other in a circle.
    """
    placed: list[list[str]] = []
    left = dict(imports)
    while left:
        floor = sorted(layer for layer, found in left.items() if not found & left.keys())
        if not floor:
            sys.exit(f"layers that import each other: {', '.join(sorted(left))}")
        placed.append(floor)
        left = {layer: found for layer, found in left.items() if layer not in floor}
    return placed


def about(layer: str) -> str:
    """First line of the layer's docstring."""
    folder = SOURCE / layer
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()[0]


def draw() -> str:
    """The picture as text, the highest floor first: a layer's name and subject, and what it imports."""
    imports = read_imports()
    order = floors(imports)
    lines = []
    for height in range(len(order) - 1, -1, -1):
        for position, layer in enumerate(order[height]):
            below = [name for floor in order[:height] for name in floor if name in imports[layer]]
            label = f"floor {height + 1}" if position == 0 else ""
            lines.append(f"{label:<10}{layer:<14}{about(layer)}")
            if below:
                lines.append(f"{'':<10}{'':<14}  -> {' '.join(below)}")
    return "```text\n" + "\n".join(lines) + "\n```\n"


def main() -> None:
    """Write or compare."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    drawn = head + BEGIN + draw() + END + tail
    if "--check" in sys.argv[1:]:
        sys.exit(
            None if drawn == page else "docs/architecture.md shows other layers: run scripts/draw_layers.py"
        )
    PAGE.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
