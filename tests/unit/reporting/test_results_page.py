"""The tables of docs/results.md are what the raw results give, also for studies that are yet to be run."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from chibit.reporting.read.registration import Registration, register
from chibit.studies import BACKBONE_RATES, FAIR_COMPARISONS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
REPLAY = "hopper-medium-replay"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("write_results", ROOT / "scripts" / "write_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_raw_results_give(script):
    assert script.filled(PAGE) == PAGE
    assert script.filled(PAGE.replace("45.3 ± 3.3", "45.4 ± 3.3")) == PAGE
    texts = {page.name: page.read_text(encoding="utf-8") for page in script.PAGES}
    assert [name for name, text in texts.items() if script.filled(text) != text] == []
    assert "results: finding fair" in texts["README.md"]
    assert PAGE.index("results: evidence") < PAGE.index("results: experiment") < PAGE.index("## Policies")


def test_all_raw_results_are_in_the_page(script):
    shown = {study for _, study in script.START.findall(PAGE)} | {path.name for path in script.kept_studies()}
    kept = {path.name for path in (ROOT / "results").iterdir() if path.is_dir()}
    assert (shown - {""}) | {"judging"} == kept  # which has a page of its own, docs/judging.md


def test_a_mark_without_an_end_is_said(script):
    with pytest.raises(SystemExit, match="its end is missing"):
        script.filled("<!-- results: evidence -->\n")


def test_scores_by_hand(script, tmp_path):
    (tmp_path / "s" / "random").mkdir(parents=True)
    (tmp_path / "s" / "iql").mkdir()
    head = "seed,step,seconds,target_return,score,mean_return,episodes\n"
    (tmp_path / "s" / "random" / "d.csv").write_text(head + "0,5,1,,10,7,2\n0,10,2,,20,8,2\n1,5,1,,40,9,2\n")
    (tmp_path / "s" / "iql" / "d.csv").write_text(head + "0,10,2,,30,8,2\n2,10,2,,40,9,2\n")
    rows = [line.split(" | ") for line in script.scores(tmp_path / "s").splitlines()[2:]]
    assert rows[0][2:] == ["10", "2", "30.0 ± 14.1", "27.5 ± 17.7", "30.0 ± 14.1 |"]
    assert script.differences(tmp_path / "s").splitlines()[-1] == "| d | iql | +15.0 | +15.0 |"


def test_successes_by_hand(script, tmp_path, runs):
    for seed, gain in enumerate((0.0, 20.0, 40.0)):
        runs.write_run(tmp_path / "s", "dt_last20", REPLAY, seed, gain=gain, num_evaluations=2)
    runs.write_run(tmp_path / "s", "random_last60", REPLAY, 0, gain=7.0, num_evaluations=2)
    last = [
        json.loads(path.read_text())["scores"][0]["last"]
        for path in sorted((tmp_path / "s").glob("dt_last20-*/result.json"))
    ]
    head, _, first, second = script.successes(tmp_path / "s").splitlines()
    assert head == f"| Arm | {REPLAY} |"
    mean, spread = np.mean(last), np.std(last, ddof=1)
    assert first == f"| DT, last 20 steps | {mean:.1f} ± {spread:.1f} (lowest of 3: {min(last):.0f}) |"
    assert second.startswith("| Random init, last 60 steps | ") and "(lowest of 1: " in second


@pytest.fixture
def fair(script, tmp_path, runs, monkeypatch):
    """The study `fair` and its baselines, small, as they will be kept."""
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    arms = {
        "random": 0.0,
        "chibit": -30.0,
        "random_matched": -29.0,
        "markov": 5.0,
        "random_matched_markov": 0.0,
    }
    data = (REPLAY, "walker2d-medium-replay")
    runs.write_study(tmp_path / "fair", arms, data, range(5), num_evaluations=4, targets=(3600.0,))
    for run in (tmp_path / "fair").iterdir():
        runs.log_held_out(run, np.linspace(0.2, 0.08, 6))
    levels = {"score_levels": dict.fromkeys(data, 25.0), "error_levels": dict.fromkeys(data, 0.1)}
    register(tmp_path / "fair", Registration(comparisons=FAIR_COMPARISONS, negligible=1.5, **levels))
    settings = {"num_evaluations": 2, "return_conditioned": False}
    runs.write_study(tmp_path / "fair_baselines", {"iql": 3.0, "td3_bc": 1.0}, data, range(5), **settings)
    return tmp_path


def table(text, title):
    return re.split(r"^#", text.partition(f"#### {title}")[2], flags=re.MULTILINE)[0]


def test_what_is_to_be_reported_of_the_experiment_is_there(script, fair):
    text = script.experiment().partition("### Study `fair_baselines`")[0]
    assert text.startswith("### Study `fair`\n\nDoes pre-training help?")
    assert re.search(r"ChibiT scores [0-9.]+ points lower than Random init", text)
    assert "adjusted p" in text
    differences = table(text, "Differences: mean of the last 4 evaluations")
    assert "adjusted for 4 comparisons (Holm)" in differences and "Student's" in differences
    assert differences.count("| all 2 |") == differences.count(f"| {REPLAY} |") == 4
    assert "IQL" not in differences and "IQL" in table(text, "Scores: mean of the last")
    for title in ("Steps to a fixed score", "Steps to a fixed held-out action error"):
        assert f"#### {title}" in text
    assert "#### Differences: held-out action error" in text
    assert "IQL" not in table(text, "Steps to a fixed score")


def test_low_data_has_its_crossover(script, tmp_path, runs, monkeypatch):
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    for share in (0.01, 0.1, 0.3):
        for arm, gain in {"random": 0.0, "chibit": 200 * (share - 0.05)}.items():
            for seed in range(3):
                settings = {"settings": {"data_fraction": share}, "num_evaluations": 2}
                runs.write_run(tmp_path / "low_data", arm, REPLAY, seed, gain=gain, **settings)
    register(tmp_path / "low_data", Registration(comparisons=(("chibit", "random"),)))
    text = script.experiment()
    assert "the sign changes at" in text
    assert "| 1 % to 30 % |" in table(text, "Crossover: score")


def test_a_rate_is_chosen_only_where_all_trials_are_there(script, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(ROOT / "results" / "rates", tmp_path / "rates")
    whole = script.stage_0(tmp_path / "rates")
    assert whole.count("**") == 2 * 4 * len(BACKBONE_RATES) and "Nothing is chosen" not in whole
    for run in (tmp_path / "rates").glob("markov_*s101*"):
        shutil.rmtree(run)
    part = script.stage_0(tmp_path / "rates")
    assert part.count("**") == 2 * 4 * (len(BACKBONE_RATES) - 1) and part.count("for Markov chain.") == 1


def test_the_page_of_a_study_has_the_arms_beside_it(script, fair, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "kept_studies", lambda: [fair / "fair"])
    script.write_pages(tmp_path / "pages")
    html = (tmp_path / "pages" / "fair" / "report.html").read_text()
    assert 'value="6"' in html and "IQL" in html


@pytest.mark.parametrize("study", ["fair_twice", "sources"])
def test_every_comparison_of_a_study_on_one_data_set_by_hand(script, study):
    last4 = {}
    for path in (ROOT / "results" / study).glob("*/evaluations.jsonl"):
        config = json.loads((path.parent / "config.json").read_text())
        scores = [json.loads(line)["normalized_score"] for line in path.read_text().splitlines()]
        last4[config["arm"], config["config"]["seed"]] = np.mean(scores[-4:])
    wanted = []
    for arm in {arm for arm, _ in last4} - {"random"}:
        gaps = [value - last4["random", seed] for (name, seed), value in last4.items() if name == arm]
        ends = stats.ttest_1samp(gaps, 0.0).confidence_interval()
        half = (ends.high - ends.low) / 2
        wanted.append(f"{np.mean(gaps):+.1f} | {ends.low:+.1f} to {ends.high:+.1f} | {half:.1f}")
    rows = script.compared().replace("\\", "").replace("−", "-").splitlines()
    found = [row.split(" | ", 2)[2].rpartition(" | ")[0] for row in rows if row.startswith(f"| {study} (")]
    assert sorted(found) == sorted(wanted)


def test_each_run_at_each_target_by_hand(script):
    head, _, *rows = script.targets(ROOT / "results" / "fair_longer").splitlines()
    runs = {}
    for path in (ROOT / "results" / "fair_longer").glob("*/evaluations.jsonl"):
        config = json.loads((path.parent / "config.json").read_text())
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for target in (3600.0, 1800.0):
            scores = [line["normalized_score"] for line in lines if line["target_return"] == target]
            runs[config["arm"], config["config"]["seed"], target] = np.mean(scores[-4:])
    order = [(seed, target) for seed in (0, 1) for target in (3600.0, 1800.0)]
    assert head == f"| Arm | {' | '.join(f'seed {s}, asked for {t:,.0f}' for s, t in order)} |"
    for row, arm, name in zip(rows, ("random", "chibit"), ("Random init", "ChibiT"), strict=True):
        assert row == f"| {name} | {' | '.join(f'{runs[arm, *key]:.1f}' for key in order)} |"
