"""Pictures of a report page for the docs: wide, on a phone, light, dark, and as it is printed.

    python scripts/report_screenshots.py runs/STUDY/report.html docs/images

Needs playwright and a Chromium (apt-get install chromium, or playwright install chromium).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDE, PHONE, PAPER = (1400, 1640), (390, 1100), (794, 1123)
"""Pixels; paper is A4."""
_PATIENCE = 300_000
"""Milliseconds for a page, as on a machine that does something else."""
PICTURES = {
    "report": (WIDE, "light", "screen"),
    "report-dark": (WIDE, "dark", "screen"),
    "report-phone": (PHONE, "light", "screen"),
    "report-phone-dark": (PHONE, "dark", "screen"),
    "report-print": (PAPER, "light", "print"),
}


def main(page_path: Path, out: Path, *, whole: bool = False) -> None:
    out.mkdir(parents=True, exist_ok=True)
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        for name, ((width, height), scheme, media) in PICTURES.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.emulate_media(media=media)
            page.goto(page_path.resolve().as_uri(), timeout=_PATIENCE)
            page.screenshot(path=out / f"{name}.png", full_page=whole, timeout=_PATIENCE)
            page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), whole="--whole" in sys.argv)
