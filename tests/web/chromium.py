"""Finds the Chromium that the tests of the pages drive; `python -m tests.web.chromium` says if there is none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Playwright, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
WITHOUT_WINDOWS = "chromium-headless-shell"
MISSING = (
    "The tests of the pages need Chromium: install your system's package (apt-get install chromium), "
    "or fetch one with .venv/bin/playwright install chromium"
)


def find(playwright: Playwright) -> str:
    """The system's Chromium, else the one that playwright was told to fetch.

    Raises:
        FileNotFoundError: there is none; the message says what to do.
    """
    system = next(filter(None, map(shutil.which, NAMES)), None)
    if system is None and not Path(playwright.chromium.executable_path).exists():
        raise FileNotFoundError(MISSING)
    return system or playwright.chromium.executable_path


def find_quickest(playwright: Playwright) -> str:
    """The system's Chromium that draws no window around a page, unseen though that is, else what `find` finds.

    A page takes half the processor time there; a microphone is all that it lacks.

    Raises:
        FileNotFoundError: there is neither; the message says what to do.
    """
    return shutil.which(WITHOUT_WINDOWS) or find(playwright)


if __name__ == "__main__":
    with sync_playwright() as playwright:
        try:
            find(playwright)
        except FileNotFoundError as error:
            sys.exit(str(error))
