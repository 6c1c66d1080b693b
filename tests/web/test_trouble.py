"""The studio when things do not go well, on the fake engine; every error is told in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from tests.server.fakes import UNFIT
from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import download, make_exactly, pcm_of, played, record_playing, speak, text_of, write

SPEECH = "**/v1/audio/speech"


def press_speak(page: Page) -> None:
    page.get_by_role("button", name="Speak", exact=True).click()


def test_stop_ends_the_speech_on_the_server_too(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page)
    write(page, "A long one.", max_new_tokens=2000, seed=61)
    press_speak(page)
    expect(page.locator("#status")).to_have_text("Speaking.")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    slow_server.wait_event("dropped", seed=61)
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_focused()
    expect(page.locator("#facts")).to_contain_text("Endedearly")
    expect(page.locator("#error")).to_be_empty()
    expect(page.locator("#recent li")).to_contain_text("ended early")

    # What there is of it can be kept, in every format.
    name, wav = download(page, "wav")
    assert name.endswith("-61-part.wav")
    assert pcm_of(wav)
    name, flac = download(page, "flac")
    assert name.endswith("-61-part.flac")
    assert pcm_of(flac) == pcm_of(wav)


def test_a_new_text_takes_the_place_of_the_old(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page)
    write(page, "A long one.", max_new_tokens=2000, seed=62)
    press_speak(page)
    expect(page.locator("#status")).to_have_text("Speaking.")
    record_playing(page)
    write(page, "A short one.", max_new_tokens=4, seed=63)
    text_of(page).press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Done: 0.32 s")
    slow_server.wait_event("dropped", seed=62)
    expect(page.locator("#take-text")).to_have_text("A short one.")
    expect(page.locator("#recent li")).to_have_count(2)
    expect(page.locator("#recent li").last).to_contain_text("ended early")
    assert download(page, "wav")[0].endswith("-63.wav")


def test_slow_speech_is_played_whole_with_waits(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    record_playing(page)
    make_exactly(page)
    speak(page, "Slowly.", max_new_tokens=12)
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    samples, begins, ends = played(page)
    assert samples.tobytes() == download(page, "pcm")[1]
    assert len(samples) == 12 * 1920
    assert np.all(begins[1:] >= ends[:-1] - 1e-9)
    assert np.any(begins[1:] > ends[:-1] + 1e-3)


@pytest.mark.parametrize(
    ("text", "settings", "words", "field"),
    [
        ("   ", {}, "Write something to say first.", "input"),
        ("x" * 100_001, {}, "Input has 100001 characters; at most 100000 are allowed.", "input"),
        (UNFIT, {}, "The text is too long for this model.", "input"),
        ("Hello", {"top_k": 3073}, "top_k must be at most", "top_k"),
        ("Hello", {"top_p": 7}, "Top p: ", "top_p"),
        ("fail-at-start", {}, "The speech could not be made to its end; the server's log says why.", None),
    ],
)
def test_what_the_server_refuses_is_said(
    open_page: OpenPage,
    slow_server: RunningServer,
    text: str,
    settings: dict[str, object],
    words: str,
    field: str | None,
) -> None:
    page = open_page(slow_server)
    write(page, text, **settings)
    press_speak(page)
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text(words)
    expect(page.locator("#status")).to_be_empty()
    expect(page.locator("[aria-invalid=true]")).to_have_count(1 if field else 0)
    if field:
        expect(page.locator(f"#{field}")).to_be_focused()
        expect(page.locator(f"#{field}")).to_have_attribute("aria-invalid", "true")

    speak(page, "Better.", **{**dict.fromkeys(settings, ""), "max_new_tokens": 2})
    expect(page.locator("#error")).to_be_empty()
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)


def test_what_was_made_before_stays_when_the_next_fails(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    speak(page, "The good one.", max_new_tokens=3, seed=64)
    wav = download(page, "wav")
    write(page, "fail-at-start")
    press_speak(page)
    expect(page.locator("#error")).not_to_be_empty()
    expect(page.locator("#take-text")).to_have_text("The good one.")
    assert download(page, "wav") == wav


def test_a_stream_that_breaks_off_is_not_taken_for_the_whole(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    write(page, "fail-later")
    press_speak(page)
    expect(page.locator("#error")).to_contain_text("The speech broke off")
    expect(page.locator("#facts")).to_contain_text("Endedearly")
    expect(page.locator("#recent li")).to_contain_text("ended early")


def test_an_unreachable_server_is_shown_and_speech_works_once_it_is_back(
    open_page: OpenPage, slow_server: RunningServer
) -> None:
    page = open_page(slow_server)
    write(page, "Hello")
    page.context.set_offline(True)
    press_speak(page)
    expect(page.locator("#error")).to_have_text("The server cannot be reached. Is it still running?")
    page.context.set_offline(False)
    speak(page, "Hello", max_new_tokens=2)


def answer(route: Route, status: int, message: str, code: str, retry_after: str) -> None:
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": code}, "message": message}
    route.fulfill(status=status, body=json.dumps(body), headers={"retry-after": retry_after})


def test_a_busy_server_is_shown_with_the_time_to_wait(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    page.route(SPEECH, lambda route: answer(route, 429, "too many requests are waiting already", "queue_full", "5"))
    write(page, "Hello")
    press_speak(page)
    expect(page.locator("#error")).to_have_text("Too many requests are waiting already. Try again in 5 seconds.")


def test_a_model_that_loads_is_waited_for(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    page.route(SPEECH, lambda route: answer(route, 503, "being loaded", "model_loading", "1"))
    write(page, "Hello", max_new_tokens=2)
    press_speak(page)
    expect(page.locator("#status")).to_contain_text("being loaded")
    page.unroute(SPEECH)
    expect(page.locator("#status")).to_contain_text("Done: ")


def test_a_proxy_that_answers_with_a_page(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    page.route(SPEECH, lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    write(page, "Hello")
    press_speak(page)
    expect(page.locator("#error")).to_have_text("The server answered 502.")
