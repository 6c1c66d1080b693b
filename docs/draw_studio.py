"""Takes `docs/studio.png`: the studio of a running server, with a sentence that has been spoken.

Run it as `python -m docs.draw_studio` after `make test`, which installs what it needs. The model is the embedded one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.server.running import REAL, run_server
from tests.web import chromium
from tests.web.studio import speak

PICTURE = Path(__file__).with_name("studio.png")
TEXT = "The early train was late again, so we shared a taxi and talked about the weather all the way."


def main() -> None:
    """Speak, and take the picture."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        run_server(REAL, Path(scratch), KW_MODELS_DIR="models", KW_SECRET_API_KEY="") as server,
        sync_playwright() as playwright,
    ):
        server.wait_ready()
        browser = playwright.chromium.launch(executable_path=chromium.find(playwright), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 760})
        page.goto(server.url)
        speak(page, TEXT)
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
