"""One self-contained HTML page of a study: it loads nothing, and everything that comes from files is escaped.

Jinja escapes all text, and behind it stands a content security policy that allows only this page's script:
a hostile name in a foreign run directory is text and nothing else.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from chibit.core.files import read_regular
from chibit.reporting.figures.media import attention_panels, embed_videos
from chibit.reporting.figures.outcomes import crossover_panel, survival_panel
from chibit.reporting.figures.plots import (
    ForestRow,
    Panel,
    forest,
    learning_curves,
    profile,
    return_histogram,
    target_sweep,
    training_loss,
)
from chibit.reporting.figures.sizes import size_plot
from chibit.reporting.figures.svg import MARKERS, NUM_COLOURS, Canvas, style
from chibit.reporting.published.published import SOURCES, arm_label, find_published, task_of
from chibit.reporting.read.study import Study, base_name
from chibit.reporting.read.targets import describe_choice
from chibit.reporting.statistics.analysis import HEADLINE, Analysis
from chibit.reporting.statistics.comparison import RULES, Comparison, Rule, Scores
from chibit.reporting.statistics.survival import Arrivals
from chibit.reporting.statistics.verdict import describe_rule, short_rule
from chibit.reporting.tables.scores import comparison_label, differences_title
from chibit.reporting.tables.tables import Table

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
    colour: int
    """Number of its colour."""
    marker: str
    """SVG path of its marker, centred in 26 x 12."""
    dashes: str
    """SVG dash array of its line."""


@dataclass(frozen=True, kw_only=True)
class MeasuredPart:
    """A section of the page about what is compared beside the score."""

    key: str
    """Its id."""
    title: str
    """Its heading."""
    caption: str
    """What its figures show."""
    panels: list[Panel]
    """Shares of runs that have reached a level, and differences with their intervals."""
    tables: list[Table]
    """The same as tables."""


_MEASURED_CAPTIONS = (
    "How many runs have reached a level that is the same for all arms, by gradient steps; runs that never do "
    "are censored at their end. Then mean paired differences in steps, those of runs that never do "
    "counted with all of them; left of the line is sooner.",
    "Mean paired differences at the end of training; left of the line the arm predicts the actions of "
    "held-out episodes better.",
)


def render_page(analysis: Analysis) -> str:
    """The page as HTML.

    Args:
        analysis: the study, its scores under every rule, comparisons, verdicts and tables.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    study = analysis.study
    script = _own_file("page.js")
    attention, refused = attention_panels(study)
    videos, left_out = embed_videos(study)
    return environment.get_template("page.html.j2").render(
        study=study,
        known=analysis.known,
        verdict=analysis.verdict,
        other_rules=_other_rules(analysis),
        differences=differences_title(analysis.comparisons[HEADLINE]) if study.runs else "",
        rules=list(RULES),
        rule_names={rule: short_rule(scores).capitalize() for rule, scores in analysis.scores.items()},
        last_rule=describe_rule(analysis.scores[HEADLINE]),
        legend=[_legend_entry(i, arm) for i, arm in enumerate(study.arms)],
        tables=analysis.tables,
        figures=_figures(analysis),
        sources=_sources(study),
        target_note=f"At {describe_choice(study, analysis.target)}.",
        attention=attention,
        refused=refused,
        videos=videos,
        left_out=left_out,
        css=Markup(_own_file("page.css")),
        script=Markup(script),
        script_hash=_content_hash(script),
        version=version("chibit"),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _content_hash(script: str) -> str:
    """The script's name in the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _legend_entry(place: int, arm: str) -> LegendEntry:
    return LegendEntry(
        label=arm_label(arm),
        colour=place % NUM_COLOURS,
        marker=_MARKER_PATHS[MARKERS[place % len(MARKERS)]],
        dashes=_DASH_ARRAYS[place // NUM_COLOURS % len(_DASH_ARRAYS)],
    )


def _other_rules(analysis: Analysis) -> list[tuple[Rule, str]]:
    """What the rules other than the verdict's say of the same two arms."""
    return [
        (rule, f"By the {describe_rule(analysis.scores[rule]).partition(' (')[0]}: {finding}")
        for rule, finding in analysis.other_findings.items()
    ]


def _figures(analysis: Analysis) -> dict[str, Any]:
    study, scores = analysis.study, analysis.scores
    if not study.runs:
        return {}
    first = scores[HEADLINE]
    numbered = list(enumerate(study.datasets))
    with style():
        canvas = Canvas()
        forests = {
            rule: _forests(scores[rule], analysis.comparisons[rule], rule, "difference") for rule in scores
        }
        return {
            "measured": _measured(canvas, analysis),
            "crossovers": _crossovers(canvas, analysis),
            "curves": [learning_curves(canvas, first, name, f"curve-{i}") for i, name in numbered],
            "histograms": [return_histogram(canvas, first, name, f"returns-{i}") for i, name in numbered],
            "loss": _present(training_loss(canvas, first, name, f"loss-{i}") for i, name in numbered),
            "sweep": _present(target_sweep(canvas, first, name, f"sweep-{i}") for i, name in numbered),
            "sizes": {
                rule: size_plot(scores[rule], analysis.aggregates[rule], f"sizes-{rule}") for rule in scores
            },
            "profile": {rule: profile(canvas, scores[rule], f"profile-{rule}") for rule in scores},
            "forest": forests if forests[HEADLINE] else {},
        }


def _measured(canvas: Canvas, analysis: Analysis) -> list[MeasuredPart]:
    parts = []
    for one in analysis.measured:
        measure, tables = one.measure, analysis.tables
        survival = []
        if isinstance(measure, Arrivals):
            drawn = enumerate(analysis.study.datasets)
            survival = _present(
                survival_panel(canvas, measure, name, f"{measure.key}-{i}") for i, name in drawn
            )
        key = measure.key
        parts.append(
            MeasuredPart(
                key=key,
                title=measure.title,
                caption=_MEASURED_CAPTIONS[key == "held-out"],
                panels=survival + _forests(measure, one.comparisons, key, measure.axis),
                tables=[found[key] for found in (tables["arrivals"], tables["measured"]) if key in found],
            )
        )
    return parts


def _crossovers(canvas: Canvas, analysis: Analysis) -> list[Panel]:
    """One panel for each measure and data set that was trained on in several shares."""
    panels: list[Panel] = []
    for what, trends in analysis.trends.items():
        for source in dict.fromkeys(trend.source for trend in trends):
            own = [trend for trend in trends if trend.source == source]
            key = f"crossover-{len(panels)}"
            panels.append(crossover_panel(canvas, own, key, what, analysis.study.arms))
    return panels


def _present(panels: Iterable[Panel | None]) -> list[Panel]:
    return [panel for panel in panels if panel is not None]


def _forests(scores: Scores, comparisons: list[Comparison], key: str, what: str) -> list[Panel]:
    """All arms over all data sets in one panel; with several data sets one more panel for each arm."""
    if not comparisons:
        return []
    arms = scores.study.arms
    several = len({comparison.baseline for comparison in comparisons}) > 1
    axis = what if several else f"{what} from {arm_label(comparisons[0].baseline)}"
    normalized = scores.is_normalized(*scores.aggregated)
    overall = [
        ForestRow(
            label=comparison_label(comparison) if several else arm_label(comparison.treatment),
            estimate=comparison.overall,
            arm=arms.index(comparison.treatment),
            normalized=normalized,
            strong=True,
        )
        for comparison in comparisons
        if comparison.overall is not None
    ]
    single = len(scores.study.datasets) == 1
    title = scores.study.datasets[0] if single else f"{len(scores.aggregated)} data sets together"
    panels = [forest(overall, f"forest-{key}", title, axis)] if overall else []
    if single:
        return panels
    for number, comparison in enumerate(comparisons):
        place = arms.index(comparison.treatment)
        rows = [
            ForestRow(
                label=dataset,
                estimate=estimate,
                arm=place,
                normalized=scores.is_normalized(dataset),
            )
            for dataset, estimate in comparison.by_dataset.items()
        ]
        if rows:
            label = comparison_label(comparison) if several else arm_label(comparison.treatment)
            panels.append(forest(rows, f"forest-{key}-{number}", label, axis, arm=place))
    return panels


def _sources(study: Study) -> list[Any]:
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
