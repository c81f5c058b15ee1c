"""The docs site: pages are in the navigation, links lead somewhere, commands name what exists, code runs."""

import re
import tomllib
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import chibit
from chibit.cli import VERBS
from chibit.recipes import RECIPES
from chibit.studies import STUDIES
from chibit.study_runs import study_configs
from chibit.sweep.forecast import make_plan
from chibit.sweep.tasks import make_tasks

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = {page.name: page.read_text() for page in PAGES}


def test_every_page_is_in_the_navigation_once():
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", TEXTS["index.md"], flags=re.MULTILINE | re.DOTALL)
    lines = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    listed = [re.sub(r".*<(.*)>", r"\1", line) + ".md" for line in lines]
    assert sorted([*listed, "index.md"]) == sorted(TEXTS)


def test_every_public_name_is_in_the_reference():
    assert set(re.findall(r":: chibit\.(\w+)$", TEXTS["api.md"], flags=re.MULTILINE)) == set(chibit.__all__)


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES], ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if not target.startswith("http"):
            found = page.parent / target if target else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found.read_text()), f"{target}#{anchor}"


def anchors(text):
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES], ids=lambda page: page.name)
def test_rows_of_tables_are_in_tables(page):
    """A row after an empty line, or a table right behind a list, is shown as text with bars."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    lines = [line for token in tokens if token.type == "inline" for line in token.content.splitlines()]
    assert not [line for line in lines if line.startswith("|")]


def test_the_readme_is_short_and_lists_every_verb():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120
    listed = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("```text")[2]
    words = set(re.findall(r"\w+", listed.partition("```")[0]))
    assert {verb.split()[-1] for verb in VERBS} <= words


def test_every_extra_of_users_is_on_the_page():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`.*?) \|", TEXTS["first_steps.md"], flags=re.MULTILINE)
    assert {extra for row in rows for extra in re.findall(r"`(\w+)`", row)} == {*extras} - {
        "dev",
        "mutants",
        "test",
    }


def test_costs_on_the_page_are_those_of_a_dry_run(tmp_path, monkeypatch):
    """Hours of one core for one seed on one data set, without the arms around large models."""
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path))  # nothing is pre-trained yet
    large = {"gpt2", "clip", "igpt"}
    rows = re.findall(r"`chibit study (\w+)` \|.*?\| (\d+) h", TEXTS["reproduce.md"])
    assert len(rows) == 8
    for name, hours in rows:
        study = STUDIES[name]
        arms = [arm for arm in study.arms if arm not in large]
        configs = study_configs(name, seeds=(0,), arms=arms, data=study.data[:1])
        plan = make_plan(make_tasks(configs, root=tmp_path, study=name, attention=False), tmp_path, 1)
        assert int(hours) == pytest.approx(plan.seconds_left / 3600, abs=0.51), name


@pytest.mark.parametrize("name", TEXTS)
def test_commands_name_studies_arms_and_verbs_that_exist(name):
    examples = (ROOT / "docs" / "examples" / "my_study.py").read_text()
    for study in re.findall(r"chibit study (\w+)", TEXTS[name]):
        assert study in (*STUDIES, "NAME", "MODULE", "my_study") or f"{study} = Study(" in examples, study
    for verb in re.findall(r"^chibit (\w+)", TEXTS[name], flags=re.MULTILINE):
        assert any(known.split()[0] == verb for known in VERBS), verb


def test_the_controls_of_the_page_are_arms():
    section = TEXTS["reproduce.md"].partition("## Controls")[2].partition("\n## ")[0]
    arms = {
        arm
        for row in re.findall(r"^\| (`.+?) \|", section, flags=re.MULTILINE)
        for arm in re.findall(r"`(\w+)`", row)
    }
    assert arms
    assert arms <= set(RECIPES)
    assert set(STUDIES["controls"].arms) - {"chibit"} == arms


def test_every_study_of_the_paper_is_on_the_page():
    named = set(re.findall(r"chibit study (\w+)", TEXTS["reproduce.md"]))
    assert named >= set(STUDIES)
