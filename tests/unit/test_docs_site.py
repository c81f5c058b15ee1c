"""The docs site: pages are in the navigation, links lead somewhere, commands name what exists, code runs."""

import re
from pathlib import Path

import pytest

import chibit
from chibit.cli import VERBS
from chibit.recipes import RECIPES
from chibit.studies import STUDIES

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
