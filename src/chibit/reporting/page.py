"""One self-contained HTML page of a study: it loads nothing, and everything that comes from files is escaped.

Jinja escapes all text, and behind it stands a content security policy that allows only this page's script:
a hostile name in a foreign run directory is text and nothing else.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from chibit.core.files import read_regular
from chibit.core.version import __version__
from chibit.reporting.analysis import HEADLINE, Analysis
from chibit.reporting.figures import (
    crossover,
    curves,
    forest,
    judged,
    lengths,
    measured,
    overview,
    profile,
    returns,
    sizes,
    targets,
)
from chibit.reporting.figures.loss import training_loss
from chibit.reporting.figures.media import attention_panels, embed_videos
from chibit.reporting.figures.panel import Panel, Section, present
from chibit.reporting.figures.svg import MARKERS, NUM_COLORS, Canvas, style
from chibit.reporting.published.scores import SOURCES, Source, find_published, task_of
from chibit.reporting.read.arms import arm_label, base_name
from chibit.reporting.read.study import Study
from chibit.reporting.statistics.comparison import RULES, Rule
from chibit.reporting.statistics.verdict import describe_rule, short_rule
from chibit.reporting.tables.table import Table

_LARGEST_TEMPLATE = 1 << 20
_TEMPLATES = Path(__file__).with_name("templates")
_MARKER_PATHS = {
    "o": "M13 2.4a3.6 3.6 0 1 0 .01 0z",
    "s": "M9.8 2.8h6.4v6.4h-6.4z",
    "^": "M13 1.8l4.2 7.4h-8.4z",
    "D": "M13 1.6l4.4 4.4-4.4 4.4-4.4-4.4z",
    "v": "M13 10.2l4.2-7.4h-8.4z",
    "P": "M11.6 2h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
    "X": "M10.6 2l2.4 2.2 2.4-2.2 1.6 1.6-2.2 2.4 2.2 2.4-1.6 1.6-2.4-2.2-2.4 2.2-1.6-1.6 2.2-2.4-2.2-2.4z",
    "<": "M8.8 6l7.4-4.2v8.4z",
}
_DASH_ARRAYS = ("none", "6 3", "1.5 2.5", "6 2 1.5 2")


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """An arm in the page's list of arms, which is the legend of all figures."""

    label: str
    """Its name."""
    color: int
    """Number of its color."""
    marker: str
    """SVG path of its marker, centered in 26 x 12."""
    dashes: str
    """SVG dash array of its line."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file that the page carries."""

    name: str
    """scores.csv."""
    url: str
    """Its content, as a data URL."""


MOST_ARMS, SHOWN_ARMS = 24, 12
"""Of more arms the page shows the highest; figures of all could not be read."""
SECTIONS = (curves, lengths, forest, measured, crossover, returns, sizes, profile, targets)
"""The figures, in the order of the page: modules with a function `sections`."""


def render_page(analysis: Analysis, files: Mapping[str, str], *, is_beside_runs: bool) -> str:
    """The page as HTML.

    Args:
        analysis: the study, its scores under every rule, comparisons, verdicts and tables.
        files: name to content of what can be downloaded from it.
        is_beside_runs: whether it will lie in the study's folder, so that it can lead to each run's.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    everything, analysis = analysis, analysis.fewer_arms(MOST_ARMS, SHOWN_ARMS)
    study = analysis.study
    script = _own_file("page.js")
    attention, refused = attention_panels(study)
    videos, left_out = embed_videos(study)
    return environment.get_template("page.html.j2").render(
        study=study,
        whole=everything.study,
        all_scores=None if everything is analysis else _scores_of_all(everything),
        known=analysis.known,
        verdict=everything.verdict,
        other_rules=_other_rules(everything),
        rules=list(RULES),
        rule_names={rule: short_rule(scores).capitalize() for rule, scores in analysis.scores.items()},
        last_rule=describe_rule(analysis.scores[HEADLINE]),
        legend=[_legend_entry(i, arm) for i, arm in enumerate(study.arms)],
        tables=analysis.tables,
        overview=_drawn(analysis, overview) if study.runs else [],
        sections=_sections(analysis) if study.runs else [],
        downloads=[Download(name=name, url=_data_url(text)) for name, text in files.items()],
        command=_command(everything),
        linked=is_beside_runs,
        losses=_losses(study),
        judged=_drawn(analysis, judged),
        sources=_sources(study),
        attention=attention,
        refused=refused,
        videos=videos,
        left_out=left_out,
        css=Markup(_own_file("page.css")),
        script=Markup(script),
        script_hash=_content_hash(script),
        version=__version__,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _scores_of_all(analysis: Analysis) -> Table:
    """The scores of arms of which only some are in the page's figures, and so without their marks."""
    found: Table = analysis.tables["scores"][HEADLINE]
    rows = tuple(replace(row, arm=None) for row in found.rows)
    return replace(found, key="all-arms", title=f"Scores of all {len(analysis.study.arms)} arms", rows=rows)


def _sections(analysis: Analysis) -> list[tuple[bool, list[Section]]]:
    """The figures, those of half the width together."""
    found = _drawn(analysis, *SECTIONS)
    return [(is_half, list(group)) for is_half, group in groupby(found, lambda section: section.is_half)]


def _drawn(analysis: Analysis, *modules: Any) -> list[Section]:
    with style():
        canvas = Canvas()
        return [section for module in modules for section in module.sections(canvas, analysis)]


def _data_url(text: str) -> str:
    return "data:text/plain;base64," + base64.b64encode(text.encode()).decode("ascii")


def _command(analysis: Analysis) -> str:
    """The command that makes this page, but for where the study's folder is."""
    words = ["chibit", "report", analysis.study.name]
    target = analysis.target
    if isinstance(target, Mapping):
        words += ["--target", *(f"{name}={value!r}" for name, value in target.items())]
    elif target != "first":
        words += ["--target", target if isinstance(target, str) else repr(target)]
    if analysis.given_baseline is not None:
        words += ["--baseline", analysis.given_baseline]
    levels = {"--score-level": analysis.levels.score, "--error-level": analysis.levels.error}
    for flag, level in levels.items():
        words += [] if level is None else [flag, repr(level)]
    return shlex.join(words)


def _losses(study: Study) -> list[Panel]:
    with style():
        canvas = Canvas()
        return present(
            training_loss(canvas, study, name, f"loss-{i}") for i, name in enumerate(study.datasets)
        )


def _content_hash(script: str) -> str:
    """The script's name in the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _legend_entry(place: int, arm: str) -> LegendEntry:
    return LegendEntry(
        label=arm_label(arm),
        color=place % NUM_COLORS,
        marker=_MARKER_PATHS[MARKERS[place % len(MARKERS)]],
        dashes=_DASH_ARRAYS[place // NUM_COLORS % len(_DASH_ARRAYS)],
    )


def _other_rules(analysis: Analysis) -> list[tuple[Rule, str]]:
    """What the rules other than the verdict's say of the same two arms."""
    return [
        (rule, f"By the {describe_rule(analysis.scores[rule]).partition(' (')[0]}: {finding}")
        for rule, finding in analysis.other_findings.items()
    ]


def _sources(study: Study) -> list[Source]:
    """Sources of the published numbers that the page shows."""
    used = {
        score.source
        for arm in study.arms
        for dataset in study.datasets
        for score in find_published(base_name(arm), task_of(dataset)[0] or "")
    }
    return [source for key, source in SOURCES.items() if key in used]


def _own_file(name: str) -> str:
    return read_regular(_TEMPLATES / name, most=_LARGEST_TEMPLATE).decode()
