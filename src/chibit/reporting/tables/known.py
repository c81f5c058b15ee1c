"""What others have measured of pre-training, as tables."""

from __future__ import annotations

from chibit.core.formatting import format_score
from chibit.reporting.published.evidence import ARMS, RULE_NAMES, TWELVE, known_difference
from chibit.reporting.published.scores import NUMBERS, PublishedRule, published_scores
from chibit.reporting.read.arms import arm_label
from chibit.reporting.read.shipped import read_rows
from chibit.reporting.tables.table import Cell, Row, Table, number_columns, text, text_columns


def differences_known() -> Table:
    """Differences of the published arms from the untrained model, under every rule."""
    rows = []
    for arm in ARMS:
        found = [known_difference(arm, rule) for rule in RULE_NAMES]
        cells = [
            Cell(text=one.shown, sort=one.value, strong=abs(one.value) > one.half_width) for one in found
        ]
        rows.append(Row(cells=(text(arm_label(arm)), *cells)))
    twelve = [known_difference(arm, "last4", TWELVE) for arm in ARMS]
    with_ant = ", ".join(f"{arm_label(one.arm)} {one.shown}" for one in twelve)
    return Table(
        key="known-differences",
        title="Published differences from the untrained model",
        caption="Wang et al.'s (2024) public learning curves, aggregated anew: 20 seeds, the mean over nine "
        "D4RL data sets of the difference from the pre-trained arms' architecture after a single update of "
        "pre-training, ± 1.96 standard errors; bold where that leaves out zero. Means and deviations "
        "for each arm and data set are at hand and no single seeds, so nothing can be paired, and arms are "
        "taken as independent. Their ChibiT has the released similarity loss and no co-training; DT is Chen "
        "et al.'s. They have Ant's three sets too, which the paper has not; over all twelve the first column "
        f"would be {with_ant}.",
        columns=(*text_columns("Arm"), *number_columns(*RULE_NAMES.values())),
        rows=tuple(rows),
    )


def studies_known() -> Table:
    """Studies with their setting, seeds, controls and conclusion."""
    studies = _studies()
    return Table(
        key="known-studies",
        title="Published evidence",
        caption="In the order of publication. A best score is chosen by looking at the test environment, and "
        "lies above the last one of the same run.",
        columns=text_columns(*map(str.capitalize, studies[0])),
        rows=tuple(Row(cells=tuple(map(text, study.values()))) for study in studies),
    )


def _studies() -> list[dict[str, str]]:
    """Rows of `numbers/studies.csv`, with the numbers that are computed in their places."""
    last, best = (_average("corl", "dt", rule) for rule in ("last", "best"))
    chibit, dt = _average("reid2022-table2", "chibit", "best"), _average("reid2022-table2", "dt", "last")
    numbers = {"chibit": chibit, "dt": dt, "gap": chibit - dt, "dt_last": last, "dt_best": best}
    known = {name: format_score(value) for name, value in numbers.items()}
    known |= {f"known_{arm}": known_difference(arm, "last4").shown for arm in ARMS}
    rows = read_rows(NUMBERS / "studies.csv")
    return [{column: value.format(**known) for column, value in row.items()} for row in rows]


def _average(source: str, arm: str, rule: PublishedRule) -> float:
    key = (source, arm, "average", rule)
    return next(s.mean for s in published_scores() if (s.source, s.arm, s.task, s.rule) == key)
