"""Whole reports: files, formats, no torch, no half-written page, and what a terminal shows."""

import csv
import importlib.metadata
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from chibit.core.errors import InputError, ResourceError
from chibit.core.files import check_can_make
from chibit.core.shared_folder import MANIFEST
from chibit.core.version import __version__
from chibit.reporting import build_report, render_console_table
from chibit.reporting.statistics.survival import Levels

HOPPER = "hopper-medium-v2"


@pytest.fixture
def study(tmp_path, runs):
    return runs.write_study(tmp_path / "s", {"random": 0, "chibit": 4}, [HOPPER], [0, 1], num_evaluations=3)


def csv_rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def shown(folder, **settings):
    console = Console(width=120, file=io.StringIO())
    console.print(render_console_table(folder, **settings))
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "more"), [(80, 9), (400, 0)])
def test_a_terminal_shows_whole_numbers_of_as_many_columns_as_it_has_room_for(
    tmp_path, runs, monkeypatch, width, more
):
    monkeypatch.setenv("COLUMNS", str(width))
    arms = {"random": 0, "chibit": 4, "a" * 200: 1, "\u05e2\u05d1\u05e8\u05d9\u05ea": 2}
    runs.write_study(tmp_path, arms, runs.NINE, [0, 1], num_evaluations=1)
    console = Console(file=io.StringIO())
    console.print(render_console_table(tmp_path))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width and not any("\u2026" in line for line in lines)
    text = " ".join(" ".join(lines).split())
    assert (f"{more} more columns in the files and in a wider terminal" in text) == bool(more)
    assert "Optimality gap" in text and sum(" to " in line for line in lines) >= 4


def test_a_page_leads_to_its_runs_whatever_their_folders_are_called(study, monkeypatch):
    single, other = sorted(path for path in study.iterdir() if path.is_dir())[:2]
    other.rename(other.with_name(os.fsdecode(b"a b\xff")))
    monkeypatch.chdir(single)
    for folder in (study, single, Path(".")):
        paths = build_report(folder)
        links = re.findall(r'<td><a href="([^"]+)"', paths.html.read_text())
        there = [
            Path(os.fsdecode(os.fsencode(paths.html.parent) + b"/" + unquote_to_bytes(x))) for x in links
        ]
        assert there and all((found / "config.json").is_file() for found in there)
    assert paths.csv.read_text().splitlines()[1].endswith(f",{single.name}")


def test_a_terminal_shows_the_highest_of_many_arms(tmp_path, runs):
    runs.write_study(tmp_path, {f"arm-{i}": i for i in range(30)}, [HOPPER], [0], num_evaluations=1)
    text = shown(tmp_path)
    assert "arm-29 " in text and "Data's own mean" in text and "arm-0 " not in text.split("6 more rows")[0]
    assert "Bold" not in text  # of one seed nothing is


def test_a_package_that_is_on_the_path_and_not_installed_reports_too(study):
    missing = importlib.metadata.PackageNotFoundError("chibit")
    with mock.patch.object(importlib.metadata, "distribution", side_effect=missing):
        assert f"chibit {__version__}" in build_report(study).html.read_text()


def test_all_formats_beside_the_runs(study):
    paths = build_report(study)
    assert [path.name for path in (paths.html, paths.markdown, paths.csv, paths.latex)] == [
        "report.html",
        "report.md",
        "scores.csv",
        "report.tex",
    ]
    assert all(path.parent == study for path in (paths.html, paths.csv))
    assert paths.html.read_text().startswith("<!doctype html>")
    assert "ChibiT" in paths.markdown.read_text().splitlines()[2]
    assert paths.latex.read_text().count(r"\begin{table}") > 5


def test_a_second_report_equals_the_first_and_is_no_run(study):
    first = build_report(study, formats=["md", "tex"]).markdown.read_text()
    assert build_report(study, formats=["md"]).markdown.read_text() == first
    assert "Not counted" not in first


def test_formats_and_folder_can_be_chosen(study, tmp_path):
    paths = build_report(study, tmp_path / "out" / "deep", formats=["csv"])
    assert paths.html is None
    written = {path.name for path in (tmp_path / "out" / "deep").iterdir()}
    assert written == {MANIFEST, "scores.csv", "comparisons.csv"}
    with pytest.raises(InputError, match="formats: got 'pdf'"):
        build_report(study, formats=["pdf"])


def test_the_csv_has_every_run_and_target(study):
    rows = csv_rows(build_report(study, formats=["csv"]).csv)
    assert len(rows) == 2 * 2 * 2
    assert {row["target_return"] for row in rows} == {"3600.0", "1800.0"}
    assert all(row["unit"] == "score" and float(row["best"]) >= float(row["last"]) for row in rows)


def test_comparisons_over_data_sets_have_the_interval_from_the_seeds_means(tmp_path, runs):
    datasets = [HOPPER, "walker2d-medium-v2"]
    arms = {"random": 0, "chibit": 4}
    runs.write_study(tmp_path, arms, datasets, range(4), num_evaluations=2, targets=(9.0,))
    paths = build_report(tmp_path, formats=["csv"])
    scores = {(row["arm"], row["dataset"], row["seed"]): float(row["last4"]) for row in csv_rows(paths.csv)}
    gains = [
        np.mean([scores["chibit", name, seed] - scores["random", name, seed] for name in datasets])
        for seed in "0123"
    ]
    expected = scipy.stats.ttest_1samp(gains, 0.0)
    whole, *others = csv_rows(tmp_path / "comparisons.csv")
    found = [float(whole[f"by_seed_{part}"]) for part in ("low", "high", "p_value", "adjusted_p")]
    assert found == pytest.approx([*expected.confidence_interval(), expected.pvalue, expected.pvalue])
    single = [row["by_seed_low"] for row in others if row["dataset"]]
    assert single and not any(single)


def test_a_study_without_a_finished_run_still_says_why(tmp_path, runs):
    runs.write_run(tmp_path / "s", "dt", HOPPER, 0, finished=False)
    page = build_report(tmp_path / "s").html.read_text()
    assert "No run has finished with an evaluation yet" in page
    assert "logged up to step" in page
    assert "No run has finished with an evaluation yet" in shown(tmp_path / "s")


def test_options_reach_the_numbers(study):
    assert "ChibiT scores 3.3 points higher than Random init" in shown(study)
    assert "Random init scores 3.3 points lower than ChibiT" in shown(study, baseline="chibit")
    rows = csv_rows(build_report(study, formats=["csv"]).csv)
    for target in (3600, 1800):
        wanted = [float(row["last4"]) for row in rows if float(row["target_return"]) == target]
        means = [sum(wanted[i : i + 2]) / 2 for i in (0, 2)]
        assert all(f"{mean:.1f} \u00b1 " in shown(study, target=target) for mean in means)
    assert (
        "highest mean over all arms"
        in build_report(study, target="best", formats=["md"]).markdown.read_text()
    )
    with pytest.raises(InputError, match="baseline"):
        build_report(study, baseline="nobody")
    with pytest.raises(InputError, match="target"):
        build_report(study, target="3600")


def test_the_page_says_the_command_that_makes_it(study):
    """A target may be a whole number; every choice is in the command."""
    levels = Levels(score=30.0, error=0.125)
    page = build_report(study, target=3600, baseline="random", levels=levels).html.read_text()
    assert "chibit report s --target 3600 --baseline random --score-level 30.0 --error-level 0.125" in page
    assert "chibit report s</code>" in build_report(study).html.read_text()


def test_raw_returns_have_no_time_of_convergence(tmp_path, runs):
    """Its margin is 2 points of a normalized score, whatever the scale of the returns."""
    for data, normalized in ((HOPPER, True), ("robot", False)):
        runs.write_run(tmp_path, "dt", data, 0, num_evaluations=3, normalized=normalized)
    rows = csv_rows(build_report(tmp_path, formats=["csv"]).csv)
    times = {row["dataset"]: (row["steps_to_converge"], row["seconds_to_converge"]) for row in rows}
    assert all(times[HOPPER]) and times["robot"] == ("", "")


def test_captions_say_what_was_averaged(study):
    paths = build_report(study)
    for text in (paths.html.read_text(), paths.markdown.read_text(), paths.latex.read_text(), shown(study)):
        assert "last 3 evaluations" in text
        lower = text.lower()
        assert "last 4 evaluations" not in lower and "last four" not in lower and "ours, last 4" not in lower
    assert ">Last 3<" in paths.html.read_text()
    assert "60 episodes of each arm" in paths.html.read_text()  # 3 evaluations of 10, 2 seeds
    assert "sample standard deviation between seeds" in " ".join(shown(study).split())


def test_the_only_evaluation_is_no_mean(tmp_path, runs):
    runs.write_study(tmp_path / "s", {"random": 0, "chibit": 4}, [HOPPER], [0], num_evaluations=1)
    paths = build_report(tmp_path / "s")
    assert "By the only evaluation, at" in paths.html.read_text()
    assert "mean of the last" not in paths.html.read_text()


def test_curves_of_different_lengths_are_owned_up_to(tmp_path, runs):
    runs.write_run(tmp_path / "s", "random", HOPPER, 0, num_evaluations=2)
    runs.write_run(tmp_path / "s", "chibit", HOPPER, 0, num_evaluations=9)
    assert (
        "By the mean of the last 2 to 4 evaluations, at"
        in shown(tmp_path / "s") + build_report(tmp_path / "s").markdown.read_text()
    )


def test_no_folder_no_report(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        build_report(tmp_path / "absent")


def test_a_page_that_cannot_be_written_is_one_line(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, ResourceError)) as error:
        build_report(study, tmp_path / "file")
    assert "\n" not in str(error.value)


def test_the_terminal_shows_names_as_they_are(tmp_path, runs):
    runs.write_run(tmp_path, "[red]bold[/]", HOPPER, 0, num_evaluations=2)
    text = shown(tmp_path)
    assert "[red]bold[/]" in text


def test_a_report_needs_no_torch(study):
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"  # importing them now fails
        "from pathlib import Path\n"
        "from chibit.reporting import build_report, render_console_table\n"
        f"build_report(Path({str(study)!r}))\n"
        f"render_console_table(Path({str(study)!r}))\n"
        "assert 'gymnasium' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_terminal_needs_no_matplotlib(study):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from chibit.reporting import render_console_table\n"
        f"render_console_table(Path({str(study)!r}))\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_loads_nothing(study):
    """Beside the browser's word: no attribute in the page points anywhere."""
    page = build_report(study, formats=["html"]).html.read_text()
    for attribute in (
        'src="http',
        'href="http',
        'src="//',
        'href="//',
        "@import",
        "url(http",
        '<link rel="stylesheet',
    ):
        assert attribute not in page
    assert "default-src 'none'" in page or "default-src &#39;none&#39;" in page
    assert "script-src 'sha256-" in page


def test_a_figure_is_a_module_in_the_list(tmp_path, runs, monkeypatch):
    from types import SimpleNamespace

    from chibit.reporting import page
    from chibit.reporting.figures.panel import Section

    def sections(canvas, analysis):
        yield Section(key="mine", title="Mine <b>", panels={}, tables={None: [analysis.tables["runs"]]})

    monkeypatch.setattr(page, "SECTIONS", (*page.SECTIONS, SimpleNamespace(sections=sections)))
    runs.write_run(tmp_path / "s", "bc", "hopper-medium-v2", 0, num_evaluations=2)
    html = build_report(tmp_path / "s", formats=["html"]).html.read_text()
    assert '<h2 id="mine">Mine &lt;b&gt;</h2>' in html
    assert html.count('id="table-runs"') == 2


def test_an_unknown_baseline_is_told_the_arms_and_not_all_of_many(tmp_path, runs):
    for number in range(11):
        runs.write_run(tmp_path / "s", f"arm{number}", "hopper-medium-v2", 0, num_evaluations=1)
    with pytest.raises(InputError, match="an arm with a finished run: arm0, .* or one of 3 more$"):
        build_report(tmp_path / "s", formats=["csv"], baseline="zzz")
    runs.write_run(tmp_path / "empty", "bc", "hopper-medium-v2", 0, num_evaluations=1, finished=False)
    with pytest.raises(InputError, match="baseline: got 'bc', but no run was evaluated$"):
        build_report(tmp_path / "empty", formats=["csv"], baseline="bc")
    assert not (tmp_path / "s" / "scores.csv").exists()


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_link_that_leads_nowhere_is_called_that(tmp_path, runs, below):
    run = runs.write_run(tmp_path / "s", "bc", "hopper-medium-v2", 0, num_evaluations=1)
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="link is a link that leads nowhere and in the way"):
        build_report(run, tmp_path / "link" / below, formats=["csv"])
    with pytest.raises(InputError, match="link is a link that leads nowhere and in the way"):
        check_can_make(tmp_path / "link" / below)
    assert not (tmp_path / "gone").exists()
