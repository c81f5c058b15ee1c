"""Pictures of a report page for the docs: wide and narrow, light and dark.

    python scripts/report_screenshots.py runs/STUDY/report.html docs/images

Needs playwright and a Chromium (apt-get install chromium, or playwright install chromium).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURES = {
    "report": {"width": 1280, "height": 1500, "scheme": "light"},
    "report-dark": {"width": 1280, "height": 1500, "scheme": "dark"},
    "report-phone": {"width": 390, "height": 1100, "scheme": "light"},
    "report-phone-dark": {"width": 390, "height": 1100, "scheme": "dark"},
}


def main(page_path: Path, out: Path, *, whole: bool = False) -> None:
    out.mkdir(parents=True, exist_ok=True)
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        for name, picture in PICTURES.items():
            page = browser.new_page(
                viewport={"width": picture["width"], "height": picture["height"]},
                color_scheme=picture["scheme"],
            )
            page.goto(page_path.resolve().as_uri())
            page.screenshot(path=out / f"{name}.png", full_page=whole)
            page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), whole="--whole" in sys.argv)
