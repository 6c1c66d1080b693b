"""The studio's form: what is chosen is what is asked for, on the fake engine."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import write

SAMPLING = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "repetition_penalty": 1.1, "seed": 9, "max_new_tokens": 3}


HEARD = {"response_format": "pcm", "stream": True, "stream_format": "sse", "timestamps": "chunk"}
"""What the studio asks for besides what the form says: bare samples as they are made, and when each chunk is heard."""


def order_of(page: Page) -> dict[str, Any]:
    """Press Speak and return what the page asks for."""
    with page.expect_request("**/v1/audio/speech") as waiting:
        page.get_by_role("button", name="Speak", exact=True).click()
    order: dict[str, Any] = waiting.value.post_data_json
    return order


def test_what_is_not_chosen_is_left_to_the_server(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    write(page, " Hello\n")
    chosen = {"model": "custom", "voice": "aiden", "input": " Hello\n"}
    assert order_of(page) == {**chosen, **HEARD}


def test_everything_that_is_chosen_is_sent(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    write(page, "Hello", **SAMPLING)
    page.get_by_label("Model").select_option("design")
    expect(page.locator("#voices input[value=design]")).to_be_checked()
    page.get_by_label("Language", exact=True).select_option("german")
    page.get_by_role("slider", name="Speed").fill("1.5")
    expect(page.locator("#speed-shown")).to_have_text("1.5×")
    page.get_by_label("Instructions", exact=True).fill(" Like a cat. ")
    page.get_by_label("Download format").select_option("mp3")
    assert order_of(page) == {
        "model": "design",
        "voice": "design",
        "input": "Hello",
        "language": "german",
        "speed": 1.5,
        "instructions": "Like a cat.",
        **HEARD,
        **SAMPLING,
    }


def test_the_form_follows_the_chosen_model(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    write(page, "Hello", max_new_tokens=2)
    expect(page.get_by_label("Instructions", exact=True)).to_be_disabled()
    page.get_by_label("Model").select_option("design")
    expect(page.locator("#voices input[value=design]")).to_be_checked()
    page.get_by_label("Instructions", exact=True).fill("An old man, amused.")
    page.get_by_label("Language", exact=True).select_option("english")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Done: ")
    last = slow_server.events("prompt")[-1]
    assert (last["speaker"], last["language"], last["instruction"]) == (None, "english", "An old man, amused.")
