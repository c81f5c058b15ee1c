"""The pages beside this file as a site (`make docs`), which loads nothing from elsewhere."""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.addnodes import desc_annotation
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.inspect import TypeAliasForwardRef

project = "chibit"
author = "The chibit authors"
copyright = author  # noqa: A001
version = release = importlib.metadata.version("chibit")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
default_role = "py:obj"  # names between single backticks in docstrings

myst_enable_extensions = ["amsmath", "attrs_inline", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
os.environ["CHIBIT_HOME"] = str(Path(__file__).parents[1] / "build" / "docs-home")  # what the notebook keeps

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # in unions Sphinx 9 shows the object

html_theme = "furo"
html_title = f"chibit {version}"
html_static_path = ["_static"]
html_css_files = ["chibit.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False


def _inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _display_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def _google_style(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon, but for attributes: of these it takes the words before a colon for a type."""
    if what not in ("attribute", "property"):
        config = Config(napoleon_use_rtype=False)
        lines[:] = GoogleDocstring(lines, config, app, what, name, obj, options).lines()


_ANNOTATED = r"Annotated\[((?:[^\[\]]|\[[^\[\]]*\])*?), ([^\[\]]*)\]"
"""A type without further ones of the kind in it, and what is said of its values."""
_BARE = r"Annotated\[((?:[^\[\],]|\[[^\[\]]*\])*)\]"
"""A type of whose values nothing is said any more."""


def _show_ranges(app: Sphinx, doctree: nodes.document) -> None:
    """Ranges of fields as mathematics writes them: ``int ≥ 1`` for ``Annotated[int, Interval(ge=1)]``."""
    for node in doctree.findall(desc_annotation):
        if "Annotated[" in node.astext():
            text = re.sub(r", (Basic|Group)\(\)", "", node.astext())  # of the command line
            text = re.sub(r"Interval\((.*?)\)", _range, re.sub(_BARE, r"\1", text))
            while (inner := re.sub(_ANNOTATED, r"\1 \2", text)) != text:
                text = inner
            node.children = [nodes.Text(text)]


def _range(interval: re.Match[str]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = dict(part.split("=") for part in interval[1].split(", "))
    return ", ".join(f"{signs[key]} {value}" for key, value in bounds.items() if value != "None")


def setup(app: Sphinx) -> dict[str, bool]:
    """Formulas become MathML when the site is built: browsers draw it, without a script or a font."""
    app.connect("autodoc-process-docstring", _google_style)
    app.connect("doctree-read", _show_ranges)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
