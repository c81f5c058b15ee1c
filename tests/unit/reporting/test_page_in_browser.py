"""The page in a real headless Chromium: no errors, no requests, toggles, sorting, themes, hostile names."""

import shutil
from pathlib import Path

import pytest

from chibit.reporting import build_report
from chibit.reporting.read.registration import Registration, register

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)")

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PROBLEMS = """() => {
  const problems = [], ids = new Set();
  const all = selector => document.querySelectorAll(selector);
  for (const e of all('[id]')) {
    if (ids.has(e.id)) problems.push('id twice: ' + e.id);
    ids.add(e.id);
  }
  for (const e of all('figure > svg'))
    if (e.getAttribute('role') !== 'img' || !e.getAttribute('aria-label')) problems.push('mute figure');
  for (const name of ['aria-labelledby', 'aria-describedby'])
    for (const e of all(`[${name}]`))
      if (!ids.has(e.getAttribute(name))) problems.push(name + ': ' + e.getAttribute(name));
  for (const e of all('button, a, label'))
    if (!e.textContent.trim()) problems.push('no name: ' + e.outerHTML);
  for (const e of all('use, [clip-path]')) {
    const target = (e.getAttribute('xlink:href') || e.getAttribute('clip-path')).match(/#([^)]+)/)[1];
    if (!ids.has(target)) problems.push('dangling ' + target);
  }
  let level = 0;
  for (const e of all('h1, h2, h3')) {
    if (+e.tagName[1] > level + 1) problems.push('heading jumps: ' + e.textContent);
    level = +e.tagName[1];
  }
  for (const table of all('table'))
    for (const row of table.rows)
      if (row.cells.length !== table.rows[0].cells.length) problems.push('ragged ' + row.textContent);
  return problems;
}"""
LABELS = {"curve": "ends at", "sweep": "asked for", "attention": "Attention of ChibiT"}
"""Words of the descriptions of figures."""
HOSTILE = '"><img src=x onerror=window.hacked=1><script>window.hacked=2</script>'


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def study_page(tmp_path_factory, runs):
    """Three arms on two data sets, with gaps, attention maps and folders that are not counted."""
    study = tmp_path_factory.mktemp("browser") / "table2"
    arms = {"random": 0.0, "chibit": 6.0, "dt": -2.0}
    runs.write_study(study, arms, ["hopper-medium-v2", "walker2d-medium-v2"], range(5), num_evaluations=6)
    broken = runs.write_run(study, "dt", "hopper-medium-v2", 7, num_evaluations=6, finished=False)
    (broken / "train.log").write_text("started\nfailed: no space is left on the disk\n")
    runs.write_attention(next(study.glob("chibit-*")), tokens=23)
    (study / "notes").mkdir()
    return build_report(study).html


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory, runs):
    """Arm, data set, folder, settings and reasons that all try to break out of the page."""
    study = tmp_path_factory.mktemp("browser") / "<b>study & co"
    name = "</style></script>" + HOSTILE
    for seed in (0, 1):
        runs.write_run(study, "dt", name, seed, num_evaluations=4)
        runs.write_run(
            study, name, name, seed, num_evaluations=4, settings={HOSTILE: HOSTILE}, data_hash="x" * 20
        )
    for seed in (0, 1):
        runs.write_run(study, "$\\frac{$ 中文 __x__ {{ 7*7 }}", name, seed, num_evaluations=4)
    (study / "<img src=x onerror=window.hacked=3>").mkdir()
    return build_report(study).html


class Visit:
    """A page in a fresh context, with everything it said and asked for."""

    def __init__(self, browser, path, **context):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.messages, self.requests, self.dialogs = [], [], []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.url = Path(path).as_uri()
        self.page.goto(self.url)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def visible(self, selector):
        """How many elements that match can be seen."""
        return self.page.evaluate(
            """s => [...document.querySelectorAll(s)]
               .filter(e => e.checkVisibility() && getComputedStyle(e).display !== 'none').length""",
            selector,
        )

    def column(self, table, number):
        """First lines of a column's cells, from top to bottom, without the foot."""
        return self.page.evaluate(
            """([table, number]) => [...document.querySelectorAll(`#${table} tbody tr`)]
               .map(row => row.cells[number].innerText.split("\\n")[0])""",
            [table, number],
        )

    def open_details(self):
        """Open everything that is folded."""
        self.page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")

    def outside_requests(self):
        return [url for url in self.requests if url != self.url and not url.startswith("data:")]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_renders_without_a_word_a_request_or_a_sideways_scroll(browser, study_page, width, scheme):
    size = {"width": width, "height": 844}
    with Visit(browser, study_page, viewport=size, color_scheme=scheme) as visit:
        visit.open_details()
        assert visit.messages == []
        assert visit.outside_requests() == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert "ChibiT" in visit.page.inner_text("#verdict")


def test_every_part_of_a_report_is_there_to_be_seen(browser, study_page):
    with Visit(browser, study_page) as visit:
        visit.open_details()
        headings = set(visit.page.locator("h2:visible, h3:visible").all_inner_texts())
        parts = {"Overall", "Scores", "Learning curves", "Differences from Random init, by data set"}
        parts |= {"Performance profile"}
        parts |= {"Target returns", "Beside published numbers", "Convergence", "Attention", "Runs"}
        parts |= {"Missing seeds", "Not counted", "Where settings differ", "Data"}
        assert parts <= headings
        assert "95% interval" in visit.page.inner_text("#verdict")
        published = visit.page.inner_text("#table-published")
        assert all(source in published for source in ("Paper", "CORL", "Wang et al."))
        assert "20 seeds" in published
        excluded = visit.page.inner_text("#table-excluded")
        assert "failed: no space is left on the disk" in excluded
        assert "not a run directory" in excluded
        assert "agent.init" in visit.page.inner_text("#table-settings")
        summaries = visit.page.locator("summary:visible").all_inner_texts()
        assert {"Settings that all arms share", "Provenance", "Training loss"} <= set(summaries)
        assert "commit" in visit.page.inner_text("dl >> nth=-1")
        for figure in ("curve", "sweep", "attention"):
            assert visit.visible(f'svg[aria-label*="{LABELS[figure]}"]'), figure


@pytest.fixture(scope="module")
def shares_page(tmp_path_factory, runs):
    """Registered comparisons on two shares of a data set, with held-out errors."""
    study = tmp_path_factory.mktemp("browser") / "low_data"
    pairs = (("chibit", "random"), ("chibit", "random_matched_markov"))
    register(study, Registration(comparisons=pairs, error_levels={"hopper-medium-replay": 0.4}))
    for arm in ("random", "chibit", "random_matched_markov"):
        for share in (0.01, 0.3):
            for seed in range(2):
                settings = {"data_fraction": share}
                name = "hopper-medium-replay"
                run = runs.write_run(study, arm, name, seed, num_evaluations=5, settings=settings)
                runs.log_held_out(run, [0.6, 0.45, 0.3 + share * (arm == "chibit") + 0.01 * seed])
    return build_report(study).html


@pytest.fixture(scope="module")
def plant_page(tmp_path_factory, runs):
    """Two runs that were judged and one that was not, of data without a simulator."""
    study = tmp_path_factory.mktemp("browser") / "plant"
    judged = {"dt": {2000.0: 1500.0, 1000.0: 1100.0, 500.0: 700.0}, "bc": {None: 950.0}}
    for arm, totals in judged.items():
        run = runs.write_run(study, arm, "hopper-medium-v2", 0, num_evaluations=3, name=arm)
        runs.unplay(run)
        runs.write_judgements(run, totals)
    wild = runs.write_run(study, "td3_bc", "hopper-medium-v2", 0, num_evaluations=3, name="wild")
    runs.unplay(wild)
    runs.write_judgements(wild, {None: 1800.0}, disagreement=0.9)
    runs.unplay(runs.write_run(study, "iql", "hopper-medium-v2", 0, num_evaluations=3, name="unjudged"))
    return build_report(study).html


@pytest.mark.parametrize(
    ("width", "scheme"), [(1400, "light"), (1400, "dark"), (390, "light"), (390, "dark")]
)
def test_a_page_without_a_simulator_is_whole(browser, plant_page, width, scheme):
    size = {"width": width, "height": 844}
    with Visit(browser, plant_page, viewport=size, color_scheme=scheme) as visit:
        visit.open_details()
        assert visit.messages == [] and visit.outside_requests() == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.evaluate(PROBLEMS) == []
        headings = set(visit.page.locator("h2:visible, h3:visible").all_inner_texts())
        assert {"Without a simulator", "The log", "Actions", "Action error while learning"} <= headings
        assert not {"Scores", "Learning curves", "Returns of episodes"} & headings
        verdict = visit.page.inner_text("#verdict")
        assert verdict.startswith("hopper-medium-v2, without a simulator: dt asked for 2000 comes first")
        rows = visit.column("table-judged-0", 0)
        assert rows[0] == "dt asked for 2000" and rows[-2:] == ["wild", "clone of the log"]
        assert visit.column("table-judged-0", 1)[-2] == "—"
        text = visit.page.inner_text("main")
        assert "Observations that never change: 4, 7." in text and "Actions that never change: 1." in text
        for figure in ("Return in the model, above", "Return in a model of the log against return asked for"):
            assert visit.visible(f'svg[aria-label^="{figure}"]') == 1
        assert visit.visible('svg[aria-label^="Learning of"]') == 4
        assert not visit.visible("#table-excluded")
        assert "95% percentile bootstrap" not in visit.page.inner_text("footer")


def test_runs_that_hold_out_other_episodes_are_summed_up_by_arm(browser, tmp_path, runs):
    for arm, gain in (("dt", 300.0), ("bc", -50.0)):
        for seed in range(4):
            target, data = (3600.0 if arm == "dt" else None), "hopper-medium-v2"
            settings = {"num_evaluations": 3, "return_conditioned": target is not None}
            run = runs.write_run(tmp_path / "s", arm, data, seed, **settings)
            runs.write_judgements(run, {target: 1000.0 + gain + 10 * seed}, num_episodes=100 + seed)
    with Visit(browser, build_report(tmp_path / "s").html) as visit:
        assert visit.messages == [] and visit.page.evaluate(PROBLEMS) == []
        assert visit.column("table-judged-selection-0", 0) == ["DT asked for 3,600", "BC"]
        assert visit.column("table-judged-selection-0", 1) == ["315 ± 13", "-35.0 ± 12.9"]
        assert not visit.visible("#table-judged-0")
        visit.open_details()
        assert visit.visible("#table-judged-0") and visit.visible("#table-judged-3")
        assert visit.visible('svg[aria-label^="Return in a model against return in the simulator"]') == 1
        assert "over all runs the judge takes DT asked for 3,600. In the simulator" in (
            visit.page.inner_text("section.verdict")
        )


def test_a_page_without_a_simulator_prints_within_the_paper(browser, plant_page):
    with Visit(browser, plant_page, viewport={"width": 720, "height": 900}, color_scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 720
        assert visit.page.pdf().startswith(b"%PDF")
    assert Path(plant_page).stat().st_size < 200_000


@pytest.mark.parametrize("width", [1400, 390])
def test_what_is_compared_beside_the_score_has_its_sections(browser, shares_page, width):
    with Visit(browser, shares_page, viewport={"width": width, "height": 844}) as visit:
        visit.open_details()
        assert visit.messages == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        headings = set(visit.page.locator("h2:visible, h3:visible").all_inner_texts())
        parts = {
            "Overall",
            "Differences, by data set",
            "Held-out action error",
            "Steps to a fixed score",
            "How much data",
        }
        assert parts | {"Steps to a fixed held-out action error", "Crossover: score"} <= headings
        survival = 'svg[aria-label^="Runs that reach the level"]'
        assert visit.visible(survival) == 4
        assert visit.visible('svg[aria-label^="Differences by share of the data"]') == 2
        assert visit.page.evaluate(PROBLEMS) == []
        box = visit.page.get_by_label("ChibiT", exact=True)
        marked = f'{survival} [data-arm="{box.get_attribute("value")}"]'
        assert visit.visible(marked)
        box.uncheck()
        assert not visit.visible(marked)


def test_sizes_are_toggled_with_their_arms(browser, tmp_path, runs):
    study = tmp_path / "figure3"
    arms = {"random": 0.0, "random_3M": 2.0}
    runs.write_study(study, arms, ["hopper-medium-expert-v2"], range(3), num_evaluations=4)
    for path in study.glob("random_3M-*/result.json"):
        path.write_text(path.read_text().replace("594816", "3159040"))
    with Visit(browser, build_report(study).html) as visit:
        assert visit.messages == []
        plot = 'svg[aria-label^="Score against model size"] [data-arm="1"]'
        assert visit.visible(plot)
        visit.page.get_by_label("Random init 3M", exact=True).uncheck()
        assert not visit.visible(plot)


def test_an_arm_can_be_hidden_and_shown_everywhere(browser, study_page):
    with Visit(browser, study_page) as visit:
        box = visit.page.get_by_label("ChibiT", exact=True)
        place = box.get_attribute("value")
        marked = f'[data-arm="{place}"]'
        assert visit.visible(f"svg {marked}")
        assert visit.visible(f"th{marked}")
        box.uncheck()
        assert not visit.visible(marked)
        assert visit.visible('svg [data-arm="0"]')
        box.focus()
        visit.page.keyboard.press("Space")
        assert visit.visible(f"svg {marked}")


def test_one_score_rule_is_shown_at_a_time(browser, study_page):
    with Visit(browser, study_page) as visit:
        assert visit.visible("#table-scores-last4")
        assert not visit.visible("#table-scores-best")
        visit.page.get_by_label("Best", exact=True).check()
        assert visit.visible("#table-scores-best")
        assert not visit.visible("#table-scores-last4")
        assert visit.visible('[data-rule="best"]') >= 2
        assert not visit.visible('[data-rule="last"], [data-rule="last4"]')


def test_tables_sort_by_mouse_and_by_keyboard(browser, study_page):
    with Visit(browser, study_page) as visit:
        before = visit.column("table-scores-last4", 0)
        foot = visit.page.inner_text("#table-scores-last4 tfoot")
        head = visit.page.locator("#table-scores-last4 thead th").nth(0)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert visit.column("table-scores-last4", 0) == sorted(before)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert visit.column("table-scores-last4", 0) == sorted(before)[::-1]
        number = visit.page.locator("#table-scores-last4 thead th").nth(4)
        number.locator("button").focus()
        visit.page.keyboard.press("Enter")
        assert number.get_attribute("aria-sort") == "descending"
        assert head.get_attribute("aria-sort") is None
        means = [float(cell.split(" ± ")[0]) for cell in visit.column("table-scores-last4", 4)]
        assert means == sorted(means, reverse=True)
        assert visit.page.inner_text("#table-scores-last4 tfoot") == foot


def test_empty_cells_come_last_in_either_direction(browser, study_page):
    with Visit(browser, study_page) as visit:
        visit.open_details()
        button = visit.page.locator("#table-published thead button").nth(5)
        for _ in range(2):
            button.click()
            column = visit.column("table-published", 5)
            assert "—" in column
            assert column == sorted(column, key=lambda cell: cell == "—")


def test_smoothing_takes_means_of_three_and_can_be_undone(browser, study_page):
    with Visit(browser, study_page) as visit:
        lines = "#curves ~ .panels .arm path[style*='fill: none']"
        read = f"""() => [...document.querySelectorAll("{lines}")].map(e => e.getAttribute('d'))"""
        before = visit.page.evaluate(read)
        visit.page.get_by_label("Smooth: means of three evaluations").check()
        after = visit.page.evaluate(read)
        heights = [[float(part) for part in path.replace("M", "L").split()[2::3]] for path in before]
        smooth = [[float(part) for part in path.replace("M", "L").split()[2::3]] for path in after]
        assert len(heights) == 9 and all(len(line) == 6 for line in heights)  # two data sets and their mean
        for ours, theirs in zip(heights, smooth, strict=True):
            padded = [[*ours[:2]], *([*ours[i : i + 3]] for i in range(4)), [*ours[-2:]]]
            assert theirs == pytest.approx([sum(near) / len(near) for near in padded], abs=0.02)
        assert not visit.visible("#curves ~ .panels .arm use")
        visit.page.get_by_label("Smooth: means of three evaluations").uncheck()
        assert visit.page.evaluate(read) == before


def test_the_arm_that_is_pointed_at_stands_before_the_others(browser, study_page):
    with Visit(browser, study_page) as visit:
        opacity = """arm => getComputedStyle(document.querySelector(
                     `#curves ~ .panels .arm[data-arm="${arm}"]`)).opacity"""
        box = visit.page.get_by_label("ChibiT", exact=True)
        own = box.get_attribute("value")
        other = str((int(own) + 1) % 3)
        box.hover()
        visit.page.wait_for_timeout(300)
        assert (visit.page.evaluate(opacity, own), visit.page.evaluate(opacity, other)) == ("1", "0.12")
        visit.page.locator("h1").hover()
        visit.page.wait_for_timeout(300)
        assert visit.page.evaluate(opacity, other) == "1"


def test_the_page_carries_its_numbers_and_leads_to_its_runs(browser, study_page):
    with Visit(browser, study_page) as visit:
        with visit.page.expect_download() as download:
            visit.page.get_by_text("scores.csv").click()
        assert download.value.suggested_filename == "scores.csv"
        assert Path(download.value.path()).read_text() == (study_page.parent / "scores.csv").read_text()
        assert visit.page.inner_text("#command") == "chibit report table2"
        visit.open_details()
        link = visit.page.locator("#table-runs td a").first
        assert (study_page.parent / link.get_attribute("href") / "config.json").is_file()


def test_in_print_nothing_is_folded_or_cut(browser, study_page):
    with Visit(browser, study_page) as visit:
        visit.page.emulate_media(media="print")
        visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        for table in ("scores-last4", "scores-best", "published", "runs", "provenance"):
            assert visit.visible(f"#table-{table}") or table == "provenance", table
        assert visit.visible("details:not([open])") == 0
        visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert visit.visible("details[open]") == 0
        assert not visit.visible("#table-scores-best")


@pytest.fixture(scope="module")
def wide_page(tmp_path_factory, runs):
    """Ten arms on nine data sets."""
    study = tmp_path_factory.mktemp("browser") / "wide"
    arms = ("random", "chibit", "random_matched", "markov", "dt", "gpt2", "igpt", "clip", "bc", "td3_bc")
    runs.write_study(study, dict.fromkeys(arms, 0.0), runs.NINE, range(2), num_evaluations=2)
    return build_report(study, formats=["html"]).html


def test_in_print_no_table_goes_beyond_the_paper(browser, study_page, wide_page):
    for page in (study_page, wide_page):
        with Visit(browser, page, viewport={"width": 720, "height": 1000}) as visit:
            visit.page.emulate_media(media="print")
            visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
            wide = (
                "[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > 720)"
            )
            assert visit.page.evaluate(f"{wide}.map(t => t.id)") == []
            broken = (
                "[...document.querySelectorAll('#table-scores-last4 td small')].filter(e => "
                "e.getBoundingClientRect().height > 18).map(e => e.textContent)"
            )
            assert visit.page.evaluate(broken) == []


def test_ten_arms_on_nine_data_sets_are_seen_at_once(browser, wide_page):
    with Visit(browser, wide_page, viewport={"width": 1400, "height": 900}) as visit:
        scroll = """s => { const e = document.querySelector(s); return e.scrollWidth - e.clientWidth; }"""
        assert visit.page.evaluate(scroll, "#table-scores-last4 .scroll") <= 0
        assert visit.page.locator("#table-scores-last4 tbody tr").count() == 10
        means = [float(cell) for cell in visit.column("table-scores-last4", 1)]
        assert means == sorted(means, reverse=True)
        assert wide_page.stat().st_size < 3e6


def test_on_a_phone_a_score_of_every_arm_is_seen_without_scrolling(browser, wide_page):
    with Visit(browser, wide_page, viewport={"width": 390, "height": 844}) as visit:
        right = visit.page.evaluate(
            """() => Math.max(...[...document.querySelectorAll('#table-scores-last4 tbody tr')]
               .map(row => row.cells[1].getBoundingClientRect().right))"""
        )
        assert right <= 390


def luminance(color):
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colors_can_be_told_from_their_background(browser, study_page, theme):
    """WCAG 2.1: 4.5 for text, 3 for graphics; by the button, against what the system prefers."""
    other = "dark" if theme == "light" else "light"
    with Visit(browser, study_page, color_scheme=other) as visit:
        button = visit.page.locator("#theme")
        while theme not in button.inner_text():
            button.click()
        resolve = """name => { const probe = document.createElement('i'); probe.style.color = `var(${name})`;
                     document.body.append(probe); const color = getComputedStyle(probe).color;
                     probe.remove(); return color; }"""
        color = {
            name: visit.page.evaluate(resolve, f"--{name}")
            for name in ["bg", "surface", "ink", "muted", "accent", "bad", *(f"arm-{i}" for i in range(8))]
        }
        assert (luminance(color["surface"]) > 0.5) == (theme == "light")
        for background in ("bg", "surface"):
            for name in ("ink", "muted", "accent", "bad"):
                assert contrast(color[name], color[background]) >= 4.5, (name, background)
            for arm in range(8):
                assert contrast(color[f"arm-{arm}"], color[background]) >= 3.0, (arm, background)


def test_the_page_is_sound_for_those_who_hear_it(browser, study_page):
    with Visit(browser, study_page) as visit:
        problems = visit.page.evaluate(PROBLEMS)
        assert problems == []


def test_without_scripts_everything_is_there(browser, study_page):
    with Visit(browser, study_page, java_script_enabled=False) as visit:
        for rule in ("last4", "last", "best"):
            assert visit.visible(f"#table-scores-{rule}")
        assert not visit.visible("#theme")


def test_it_prints(browser, study_page):
    with Visit(browser, study_page, color_scheme="dark") as visit:
        assert visit.page.pdf().startswith(b"%PDF")
        visit.page.emulate_media(media="print")
        assert not visit.visible("#theme, #arms input")
        background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert luminance(background) > 0.9


def test_hostile_names_are_text(browser, hostile_page):
    with Visit(browser, hostile_page) as visit:
        visit.open_details()
        assert visit.page.evaluate("window.hacked") is None
        assert visit.messages == []
        assert visit.dialogs == []
        assert visit.outside_requests() == []
        assert visit.page.query_selector("img") is None
        assert visit.page.inner_text("h1") == "<b>study & co"
        text = visit.page.inner_text("body")
        assert HOSTILE in text
        assert "{{ 7*7 }}" in text
        assert "onerror=window.hacked=3" in text


def test_a_script_that_got_in_would_not_run(browser, study_page):
    with Visit(browser, study_page) as visit:
        visit.page.evaluate(
            """() => { const s = document.createElement('script'); s.textContent = 'window.hacked = 1';
               document.head.append(s);
               const image = '<img src="data:,x" onerror="window.hacked = 2">';
               document.body.insertAdjacentHTML('beforeend', image); }"""
        )
        visit.page.wait_for_timeout(200)
        assert visit.page.evaluate("window.hacked") is None
        assert visit.page.evaluate("fetch('data:,x').then(() => 'loaded', () => 'blocked')") == "blocked"


def test_a_video_is_inside_the_page_and_loads(browser, tmp_path, runs):
    imageio = pytest.importorskip("imageio", reason="imageio is not installed")
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed")
    import numpy as np

    run = runs.write_run(tmp_path / "s", "dt", "hopper-medium-v2", 0, num_evaluations=3)
    (run / "videos").mkdir()
    frames = [np.full((64, 64, 3), 20 * i, dtype=np.uint8) for i in range(10)]
    imageio.mimwrite(run / "videos" / "target-3600.mp4", frames, fps=10)
    with Visit(browser, build_report(tmp_path / "s").html) as visit:
        visit.page.wait_for_function("document.querySelector('video').readyState >= 1", timeout=10_000)
        assert visit.page.evaluate("document.querySelector('video').duration") == pytest.approx(1.0, abs=0.2)
        assert visit.outside_requests() == []


def keep(study, arm, score):
    """An arm of two seeds, of which only evaluations are kept."""
    lines = [f"{seed},{step},1,3600,{score + seed},900,10" for seed in (0, 1) for step in (5, 10)]
    (study / arm).mkdir(parents=True)
    header = "seed,step,seconds,target_return,score,mean_return,episodes"
    (study / arm / "hopper-medium.csv").write_text("\n".join([header, *lines, ""]))


def test_of_many_arms_the_highest_are_shown_and_all_are_in_a_folded_table(browser, tmp_path):
    for place in range(40):
        keep(tmp_path / "many", f"arm{place}", place)
    page = build_report(tmp_path / "many", tmp_path / "page", formats=["html", "csv"]).html
    with Visit(browser, page, viewport={"width": 1400, "height": 900}) as visit:
        assert "40 arms" in visit.page.inner_text("header")
        assert "40 arms are more than figures can show" in visit.page.inner_text("main")
        legend = visit.page.locator("#arms label").all_inner_texts()
        assert set(legend) == {"arm0", *(f"arm{place}" for place in range(28, 40))}
        assert "arm39 scores 39.0 points higher than arm0" in visit.page.inner_text("section.verdict")
        assert not visit.visible("#table-all-arms")
        visit.open_details()
        assert len(visit.column("table-all-arms", 0)) >= 40 and visit.messages == []
    assert len((tmp_path / "page" / "scores.csv").read_text().splitlines()) == 81


@pytest.mark.parametrize("width", [1400, 390])
def test_long_and_right_to_left_names_leave_the_numbers_in_sight(browser, tmp_path, width):
    names = (
        "random",
        "x" * 200,
        "a_" * 100,
        "\u05e2\u05d1\u05e8\u05d9\u05ea",
        "\u0630\u0631\u0627\u0639 \u0637\u0648\u064a\u0644",
    )
    for place, name in enumerate(names):
        keep(tmp_path / "names", name, place)
    page = build_report(tmp_path / "names", tmp_path / "page", formats=["html"]).html
    with Visit(browser, page, viewport={"width": width, "height": 900}) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        first = "document.querySelector('#table-scores-last4 tbody td').getBoundingClientRect()"
        assert 0 < visit.page.evaluate(f"{first}.right") <= width
        text = visit.page.inner_text("main")
        assert all(name in text for name in names)


def test_one_run_has_a_page(browser, tmp_path):
    keep(tmp_path / "one", "random", 3)
    lines = (tmp_path / "one" / "random" / "hopper-medium.csv").read_text().splitlines()[:3]
    (tmp_path / "one" / "random" / "hopper-medium.csv").write_text("\n".join([*lines, ""]))
    with Visit(browser, build_report(tmp_path / "one", tmp_path / "page").html) as visit:
        assert visit.messages == [] and "1 finished run" in visit.page.inner_text("header")
