"""The first minute: a text is there, others are offered, and nobody's own text is lost."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from server.voices.languages import KNOWN
from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import text_of

KINDS = {"A story": "story", "News": "news", "A question": "question", "Numbers and dates": "numbers"}
MANY = ("english", "chinese", "japanese", "korean", "german", "french", "russian", "portuguese", "spanish", "italian")


def texts(page: Page) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = page.evaluate("async () => (await import('/web/texts.js')).TEXTS")
    return found


def speaks(page: Page, *languages: str) -> None:
    """Have the server's models speak these languages."""

    def answer(route: Any) -> None:
        listed = route.fetch().json()
        for model in listed["data"]:
            model["languages"] = ["auto", *languages]
        route.fulfill(json=listed)

    page.route("**/v1/models", answer)
    page.reload()
    expect(page.locator("#voices input").first).to_be_attached()


def test_there_are_texts_in_every_language(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    known = texts(page)
    assert set(known) == set(MANY) <= set(KNOWN)
    assert {frozenset(kinds) for kinds in known.values()} == {frozenset(["sentence", *KINDS.values()])}
    every = [text for kinds in known.values() for text in kinds.values()]
    assert len(set(every)) == len(every)
    samples = page.evaluate("async () => (await import('/web/texts.js')).SAMPLE_TEXTS")
    assert set(samples) == set(MANY)


def test_one_press_speaks_the_first_sentence(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator("#voices input").first).to_be_attached()
    with page.expect_request("**/v1/audio/speech") as waiting:
        page.get_by_role("button", name="Speak", exact=True).click()
    assert waiting.value.post_data_json["input"] == texts(page)["english"]["sentence"]


def test_examples_are_offered_in_the_language_that_is_spoken(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    known = texts(page)
    speaks(page, "german", "french")
    field = text_of(page)
    expect(field).to_have_value(known["german"]["sentence"])
    for name, kind in KINDS.items():
        page.get_by_role("button", name=name, exact=True).click()
        expect(field).to_have_value(known["german"][kind])
    page.get_by_label("Language", exact=True).select_option("french")
    expect(field).to_have_value(known["french"]["numbers"])
    expect(page.get_by_role("button", name="Back to my text")).to_be_hidden()
    page.get_by_label("Language", exact=True).select_option("auto")
    expect(field).to_have_value(known["german"]["numbers"])
    speaks(page, "german", "english")
    expect(field).to_have_value(known["english"]["sentence"])
    page.evaluate("location.hash = 'language=german'")
    expect(field).to_have_value(known["german"]["sentence"])


def test_an_own_text_stays_and_comes_back(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    speaks(page, "english", "german")
    field = text_of(page)
    field.fill("My own.")
    page.get_by_label("Language", exact=True).select_option("german")
    expect(field).to_have_value("My own.")
    page.get_by_role("button", name="News", exact=True).click()
    page.get_by_role("button", name="A story", exact=True).click()
    expect(field).to_have_value(texts(page)["german"]["story"])
    page.get_by_role("button", name="Back to my text").click()
    expect(field).to_have_value("My own.")
    expect(field).to_be_focused()
    expect(page.get_by_role("button", name="Back to my text")).to_be_hidden()
    expect(page.locator("#count")).to_have_text("7 characters")
