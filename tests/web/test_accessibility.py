"""axe-core finds nothing serious on any page: light and dark, wide and narrow, and in every state of a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.server.audio.recordings import recorded
from tests.server.running import ROOT, RunningServer
from tests.web.conftest import DESKTOP, OpenPage
from tests.web.studio import speak, text_of, wait_for_tables

AXE = (ROOT / "tests" / "node" / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")
PHONE = {"width": 375, "height": 740}
GRAVE = ("serious", "critical")
RUN = "(options) => axe.run(document, { resultTypes: ['violations'], ...options })"
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
"""The rules that depend on the colours."""


def findings(page: Page, **options: object) -> list[str]:
    """What axe-core finds that is serious or critical, with the rule and the element."""
    found: dict[str, Any] = page.evaluate(RUN, options)
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


def check(page: Page, state: str) -> None:
    """See that a page has no grave fault, in the light and in the dark."""
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    assert findings(page) == [], f"{state}, light"
    page.emulate_media(color_scheme="dark")
    assert findings(page, **CONTRAST) == [], f"{state}, dark"


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def open_sized(open_page: OpenPage, request: pytest.FixtureRequest) -> Callable[[RunningServer, str], Page]:
    """Open a page in a window of a size."""
    return lambda server, path: open_page(server, path, viewport=request.param)


def test_the_studio(open_sized: Callable[[RunningServer, str], Page], slow_server: RunningServer) -> None:
    page = open_sized(slow_server, "/")
    expect(page.locator("#voices input").nth(2)).to_be_attached()
    check(page, "first load")
    speak(page, "Hello", max_new_tokens=2)
    expect(page.locator("#recent li")).to_have_count(1)
    for details in page.locator("details").all():
        details.evaluate("details => (details.open = true)")
    check(page, "with a take, everything open")
    text_of(page).fill(" ")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert").filter(visible=True).first).not_to_be_empty()
    check(page, "with an error")


@pytest.mark.parametrize("path", ["/", "/voices"])
def test_a_page_that_asks_for_a_key(
    open_sized: Callable[[RunningServer, str], Page], keyed_server: RunningServer, path: str
) -> None:
    page = open_sized(keyed_server, path)
    expect(page.locator("#key-panel")).to_be_visible()
    check(page, "key panel")
    page.get_by_label("API key", exact=True).fill("wrong")
    page.get_by_role("button", name="Use key").click()
    expect(page.locator("#key-message")).not_to_be_empty()
    check(page, "wrong key")


def test_the_page_of_voices(open_sized: Callable[[RunningServer, str], Page], cloning_server: RunningServer) -> None:
    page = open_sized(cloning_server, "/voices")
    expect(page.locator("#voice")).to_be_visible()
    check(page, "first load")
    page.locator("#audio_sample").set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": recorded()})
    expect(page.get_by_role("button", name="Play the part")).to_be_enabled()
    page.get_by_role("button", name="Keep the voice").click()
    expect(page.locator("#error")).not_to_be_empty()
    check(page, "with a recording and an error")
    page.get_by_label("What is said in the part").fill("No.")
    page.get_by_label("Name", exact=True).fill("axe")
    page.get_by_label("the speaker knows").check()
    page.get_by_role("button", name="Keep the voice").click()
    expect(page.locator("#kept li")).to_have_count(1)
    check(page, "with a kept voice and its notes")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete: axe").click()
    expect(page.locator("#kept li")).to_have_count(0)


def test_the_page_of_voices_without_a_model(
    open_sized: Callable[[RunningServer, str], Page], slow_server: RunningServer
) -> None:
    page = open_sized(slow_server, "/voices")
    expect(page.locator("#none-clones")).to_be_visible()
    check(page, "no model clones")


def test_the_developers_page(open_sized: Callable[[RunningServer, str], Page], slow_server: RunningServer) -> None:
    page = open_sized(slow_server, "/developers")
    wait_for_tables(page)
    page.get_by_role("button", name="Make a key").click()
    page.locator("details").evaluate("details => (details.open = true)")
    check(page, "with a key, everything open")
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_label("Model", exact=True).select_option("design")
    expect(page.get_by_role("alert")).not_to_be_empty()
    check(page, "with an error")


def test_axe_finds_what_is_wrong(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers")
    page.evaluate(AXE)
    page.evaluate("() => document.querySelector('label').remove()")
    assert [each.partition(":")[0] for each in findings(page)] == ["select-name"]
