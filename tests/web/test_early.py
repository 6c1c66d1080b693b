"""The studio before the list of voices has come: what is pressed waits for it, on the fake engine."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.server.running import RunningServer, wait_until
from tests.web.conftest import OpenPage
from tests.web.studio import text_of

VOICES = re.compile(r"/v1/audio/voices\?model=")


class Held:
    """Requests for the list of voices, which are held until they are let go."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._routes: list[Route] = []
        self._open = False
        page.route(VOICES, self._take)

    def _take(self, route: Route) -> None:
        if self._open:
            route.continue_()
        else:
            self._routes.append(route)

    def wait(self) -> None:
        """Wait until the page has asked."""
        wait_until(lambda: self._page.evaluate("true") and bool(self._routes), "the page asks for its voices")

    def answer(self) -> None:
        """Let all of them go, and those that come later."""
        self._open = True
        for route in self._routes:
            route.continue_()

    def fail(self) -> None:
        """Answer as a proxy whose server is away."""
        for route in self._routes:
            route.fulfill(status=502, body="<h1>Bad gateway</h1>")


@pytest.fixture
def early(open_page: OpenPage, slow_server: RunningServer) -> tuple[Page, Held]:
    """A studio that has its models, and waits for the voices."""
    page = open_page(slow_server, "/web/icon.svg")  # which asks for nothing
    held = Held(page)
    page.goto(slow_server.url + "/")
    held.wait()
    return page, held


def test_speaking_waits_for_the_voices(early: tuple[Page, Held]) -> None:
    page, held = early
    text_of(page).fill("Early.")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Waiting for the voices …")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    expect(page.locator("#error")).to_be_empty()
    with page.expect_request("**/v1/audio/speech") as waiting:
        held.answer()
    order = waiting.value.post_data_json
    assert (order["model"], order["voice"], order["input"]) == ("custom", "aiden", "Early.")
    expect(page.locator("#status")).to_contain_text("Done: ")


def test_waiting_for_the_voices_is_stopped(early: tuple[Page, Held]) -> None:
    page, held = early
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("button", name="Speak", exact=True).click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    held.answer()
    expect(page.locator("#voices input").first).to_be_attached()
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_visible()
    expect(page.locator("#status")).to_have_text("Stopped.")
    assert [url for url in asked if url.endswith("/audio/speech")] == []


def test_a_list_that_does_not_come_is_told_instead(early: tuple[Page, Held]) -> None:
    page, held = early
    page.get_by_role("button", name="Speak", exact=True).click()
    held.fail()
    expect(page.locator("#error")).to_have_text("The server answered 502.")
    expect(page.locator("#status")).to_be_empty()
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_visible()


def test_another_model_is_waited_for(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator("#voices input").first).to_be_attached()
    held = Held(page)
    page.get_by_label("Model").select_option("design")
    held.wait()
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Waiting for the voices …")
    with page.expect_request("**/v1/audio/speech") as waiting:
        held.answer()
    assert (waiting.value.post_data_json["model"], waiting.value.post_data_json["voice"]) == ("design", "design")


def test_what_is_typed_early_is_said(early: tuple[Page, Held]) -> None:
    page, held = early
    page.get_by_label("Speak as I type").check()
    page.keyboard.type("One sentence. Another")
    expect(page.locator("#status")).to_have_text("Waiting for the voices …")
    expect(page.locator("#error")).to_be_empty()
    held.answer()
    expect(page.locator("#status")).to_contain_text("Done: ")
    expect(page.locator("#take-text")).to_have_text("One sentence. Another")


def test_a_file_waits_for_the_voices(early: tuple[Page, Held]) -> None:
    page, held = early
    page.get_by_label("Drop a text, Markdown or subtitle file here").set_input_files(
        {"name": "a.txt", "mimeType": "text/plain", "buffer": b"One.\n\nTwo."}
    )
    page.get_by_role("button", name="Speak the file").click()
    expect(page.locator("#status")).to_have_text("Waiting for the voices …")
    held.answer()
    expect(page.locator("#paragraphs li .state")).to_have_text([re.compile("Done: ")] * 2)


def test_a_link_is_copied_once_the_voices_are_there(early: tuple[Page, Held]) -> None:
    page, held = early
    page.locator("[data-share=link]").evaluate("button => button.click()")
    held.answer()
    expect(page.locator("#shared-text")).to_contain_text("voice=aiden")
    expect(page.locator("#error")).to_be_empty()
