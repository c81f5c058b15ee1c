"""Figures as inline SVG: themed, addressable by arm, free of outside references, and true to the numbers."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from chibit.reporting.figures.curves import learning_curves
from chibit.reporting.figures.forest import ForestRow, forest
from chibit.reporting.figures.loss import training_loss
from chibit.reporting.figures.profile import profile
from chibit.reporting.figures.returns import return_histogram
from chibit.reporting.figures.svg import Canvas, arm_color, arm_gid, style, to_svg
from chibit.reporting.figures.targets import target_sweep
from chibit.reporting.read.study import read_study
from chibit.reporting.statistics.comparison import collect_scores, compare
from chibit.reporting.statistics.intervals import Estimate

HOPPER = "hopper-medium-v2"


def parse(svg):
    """The drawing as XML; raises where it is not well-formed."""
    return ElementTree.fromstring(
        str(svg).replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
    )


def texts(svg):
    return ["".join(element.itertext()) for element in parse(svg).iter() if element.tag.endswith("text")]


@pytest.fixture(scope="module")
def scores(tmp_path_factory, runs):
    study = tmp_path_factory.mktemp("plots") / "s"
    runs.write_study(study, {"random": 0, "chibit": 4}, [HOPPER], range(3), num_evaluations=5)
    return collect_scores(read_study(study))


@pytest.fixture
def canvas():
    with style():
        yield Canvas()


def every_panel(canvas, scores):
    rows = [ForestRow(label="ChibiT", estimate=compare(scores, "chibit", "random").overall, arm=1)]
    return {
        "curve": learning_curves(canvas, scores, HOPPER, "curve"),
        "returns": return_histogram(canvas, scores, HOPPER, "returns"),
        "sweep": target_sweep(canvas, scores, HOPPER, "sweep"),
        "loss": training_loss(canvas, scores.study, HOPPER, "loss"),
        "forest": forest(rows, "forest", "title", "difference from Random init"),
        "profile": profile(canvas, scores, "profile"),
    }


def test_every_figure_is_well_formed_described_and_themed(canvas, scores):
    every = every_panel(canvas, scores)
    del every["profile"]  # three runs an arm are too few
    for name, panel in every.items():
        svg = str(panel.svg)
        root = parse(svg)
        assert root.get("role") == "img"
        assert len(root.get("aria-label")) > 20
        assert root.get("viewBox")
        assert root.get("width") is None
        assert "var(--arm-1)" in svg, name
        assert 'data-arm="1"' in svg, name
        assert "var(--muted)" in svg, name
        assert not re.search(r"#0[ab]0", svg), "a stand-in color was left"
        assert not re.search(r"(?:https?:)?//", svg), "a reference to the outside"
        assert "<style" not in svg
        ids = re.findall(r' id="([^"]*)"', svg)
        assert len(ids) == len(set(ids))
        assert all(identifier.startswith(f"{name}-") for identifier in ids)
        assert set(re.findall(r'(?:url\(#|xlink:href="#)([^")]+)', svg)) <= set(ids)


def test_a_reused_canvas_leaves_nothing_of_the_figure_before(canvas, scores):
    alone = learning_curves(canvas, scores, HOPPER, "curve").svg
    training_loss(canvas, scores.study, HOPPER, "loss")
    return_histogram(canvas, scores, HOPPER, "returns")
    again = learning_curves(canvas, scores, HOPPER, "curve").svg
    assert texts(again) == texts(alone)
    assert str(again).count("<path") == str(alone).count("<path")


def test_descriptions_tell_the_numbers(canvas, scores):
    ends = np.mean([curve.scores[-1] for curve in scores.curves["chibit", HOPPER].values()])
    assert f"ChibiT ends at {ends:.1f}" in learning_curves(canvas, scores, HOPPER, "k").svg
    returns = np.concatenate([curve.final_returns for curve in scores.curves["random", HOPPER].values()])
    assert (
        f"Random init has median {np.median(returns):,.0f}"
        in return_histogram(canvas, scores, HOPPER, "k").svg
    )


def test_the_forest_writes_its_numbers():
    rows = [
        ForestRow(label="one", estimate=Estimate(value=1.25, low=-0.5, high=3.0), arm=0),
        ForestRow(label="two", estimate=Estimate(value=-2.0), arm=1),
        ForestRow(label="x" * 60, estimate=Estimate(value=1500.0), arm=2, normalized=False),
    ]
    shown = texts(forest(rows, "k", "title", "difference from Random init").svg)
    assert "+1.2  [−0.5, +3.0]" in shown
    assert "−2.0  (no interval)" in shown
    assert "+1,500  (no interval)" in shown
    assert "x" * 51 + "…" in shown
    assert "difference from Random init" in shown


def test_small_numbers_do_not_run_together_below_a_forest():
    """Of held-out errors: an axis of -0.00125 to 0.00050 had eight numbers one upon the other."""
    shown = [(-0.00102, -0.00128, -0.00078), (0.000285, 0.000041, 0.000496)]
    found = [Estimate(value=value, low=low, high=high) for value, low, high in shown]
    rows = [ForestRow(label="a", estimate=one, arm=i, normalized=False) for i, one in enumerate(found)]
    ticks = [
        text for text in texts(forest(rows, "k", "t", "difference").svg) if text.strip("−.0123456789") == ""
    ]
    assert len(ticks) >= 3 and sum(len(tick) + 2 for tick in ticks) <= 50


def test_a_label_that_leaves_no_room_for_numbers_has_a_line_of_its_own():
    def height(label):
        row = ForestRow(label=label, estimate=Estimate(value=-0.4, low=-2.3, high=1.5), arm=0)
        svg = forest([row], "k", "title", "difference").svg
        assert {label, "−0.4  [−2.3, +1.5]"} <= set(texts(svg))
        return float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[1])

    assert height("y" * 45) > height("y" * 30) == height("one")


def test_a_profile_needs_runs_and_scores(canvas, scores, tmp_path, runs):
    assert profile(canvas, scores, "k") is None
    runs.write_study(tmp_path / "raw", {"dt": 0}, ["mine"], range(5), num_evaluations=2, normalized=False)
    assert profile(canvas, collect_scores(read_study(tmp_path / "raw")), "k") is None
    runs.write_study(tmp_path / "many", {"dt": 0}, [HOPPER], range(5), num_evaluations=2)
    assert profile(canvas, collect_scores(read_study(tmp_path / "many")), "k") is not None


def test_a_sweep_needs_two_targets(canvas, tmp_path, runs):
    runs.write_run(tmp_path, "dt", HOPPER, 0, num_evaluations=2, targets=(3600.0,))
    runs.write_run(tmp_path, "bc", HOPPER, 0, num_evaluations=2, return_conditioned=False)
    assert target_sweep(canvas, collect_scores(read_study(tmp_path)), HOPPER, "k") is None


def test_seeds_with_other_steps_share_only_common_ones(canvas, tmp_path, runs):
    runs.write_run(tmp_path, "dt", HOPPER, 0, num_evaluations=2, settings={"num_steps": 1})
    runs.write_run(tmp_path, "dt", HOPPER, 1, num_evaluations=4, settings={"num_steps": 1})
    scores = collect_scores(read_study(tmp_path))
    assert len(scores.study.arms) == 1
    last = np.mean([curve.scores[1] for curve in scores.curves["dt", HOPPER].values()])
    assert f"DT ends at {last:.1f}" in learning_curves(canvas, scores, HOPPER, "k").svg


def test_text_is_neither_markup_nor_mathematics(canvas):
    """Mathematics would fail to parse, markup would be markup, and some characters have no glyph."""
    hostile = '$\\frac{$ <b>&amp; 中文 url(#x) id="y" #0a0101'
    axes = canvas.clear("x", hostile)
    axes.plot([0, 1], [0, 1], color=arm_color(0), gid=arm_gid(0))
    svg = to_svg(canvas.figure, "k", '"><script>')
    root = parse(svg)
    assert root.get("aria-label") == '"><script>'
    assert "<script>" not in svg
    assert "<b>" not in svg
    assert any("\\frac{$ <b>&amp; 中文" in text for text in texts(svg))


def test_arms_beyond_the_colors_differ_in_dashes():
    from chibit.reporting.figures.svg import NUM_COLORS, arm_dashes, arm_marker

    signs = {(arm_color(arm), arm_dashes(arm)) for arm in range(3 * NUM_COLORS)}
    assert len(signs) == 3 * NUM_COLORS
    assert len({arm_marker(arm) for arm in range(NUM_COLORS)}) == NUM_COLORS
