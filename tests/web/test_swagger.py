"""Swagger UI in a browser: it shows the document, takes a key and plays what the server makes."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.server.answers import PREFIXES
from tests.server.running import KEY, RunningServer
from tests.web.conftest import OpenPage


@pytest.mark.parametrize("prefix", PREFIXES)
def test_swagger_ui_speaks_with_a_key(open_page: OpenPage, keyed_server: RunningServer, prefix: str) -> None:
    page = open_page(keyed_server, f"{prefix}/index.html")
    expect(page.locator(".opblock-summary-path").first).to_have_text("/audio/speech")
    page.get_by_role("button", name="Authorize").click()
    page.locator(".auth-container input").fill(KEY)
    page.locator(".auth-container button.authorize").click()
    page.get_by_role("button", name="Close", exact=True).click()
    page.locator("#operations-speech-createSpeech .opblock-summary-control").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    page.wait_for_function("() => document.querySelector('audio')?.duration > 1")
    expect(page.get_by_role("link", name="Download the audio")).to_have_attribute("download", "speech")
