"""The studio speaks as somebody types, on the fake engine."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, WebSocketRoute, expect

from tests.server.fakes import UNFIT
from tests.server.running import KEY, RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import (
    COUNT_CHANGES,
    download,
    pcm_of,
    played,
    record_playing,
    text_of,
    use_key,
    wait_for,
    write,
)

SENTENCE = "The first sentence is long. "


def start_typing(page: Page, text: str = "", **settings: object) -> None:
    """Fill the form and turn it on."""
    write(page, text, **settings)
    page.get_by_label("Speak as I type").check()
    expect(text_of(page)).to_be_focused()


def expect_sent(page: Page, text: str) -> None:
    expect(page.locator("#sent")).to_have_text(text, use_inner_text=False)


def test_it_is_heard_before_the_text_is_finished(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    record_playing(page)
    start_typing(page)
    page.keyboard.type(f"{SENTENCE}And")
    expect(page.locator("#status")).to_have_text("Speaking.")
    wait_for(page, "window.played.length > 0")
    expect_sent(page, SENTENCE.strip())
    expect(text_of(page)).to_have_value(f"{SENTENCE}And")

    page.keyboard.type(" more.")
    expect(page.locator("#status")).to_contain_text("Done: ")  # a pause ends it
    expect(page.locator("#take-text")).to_have_text(f"{SENTENCE}And more.")
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    samples, begins, ends = played(page)
    assert np.all(begins[1:] >= ends[:-1] - 1e-9)
    name, pcm = download(page, "pcm")
    assert (name, pcm) == ("aiden-typed.pcm", samples.tobytes())
    name, flac = download(page, "flac")
    assert (name, pcm_of(flac)) == ("aiden-typed.flac", pcm)
    expect(page.locator("#recent li")).to_have_count(1)


def exactly(page: Page, frames: int) -> list[dict[str, Any]]:
    """Have each sentence take so many codec frames; returns what the page sends."""
    told: list[dict[str, Any]] = []

    def connect(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        refused = False

        def send(message: str | bytes) -> None:
            asked = json.loads(message)
            if not refused:
                told.append(asked)
            server.send(json.dumps({**asked, "exact_frames": frames}))

        def hear(message: str | bytes) -> None:
            nonlocal refused
            if isinstance(message, str) and json.loads(message).get("param") == "split_granularity":
                refused = True
                told.clear()  # the page says it all again
            socket.send(message)

        socket.on_message(send)
        server.on_message(hear)

    page.route_web_socket("**/v1/audio/speech/stream", connect)
    return told


def said(told: list[dict[str, Any]]) -> list[str]:
    return [message["text"] for message in told if message["type"] == "input.text"]


def test_what_is_typed_while_it_speaks_goes_on_with_it(open_page: OpenPage, keyed_server: RunningServer) -> None:
    """Words go as they are finished, a new line ends what is said together, and nothing that is heard is cut off."""
    page = open_page(keyed_server)
    use_key(page, KEY)
    record_playing(page)
    told = exactly(page, 40)
    start_typing(page)
    page.keyboard.type("One two.")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("Speaking.")
    page.keyboard.type("Thre")
    page.keyboard.press("Backspace")
    page.keyboard.type("ee four ")
    expect_sent(page, "One two.\nThree four")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Done: 6.40 s")
    assert said(told) == ["One ", "two.", "\nThree ", "four "]
    assert [message["type"] for message in told].count("input.done") == 2
    expect(page.locator("#take-text")).to_have_text("One two. Three four")
    page.keyboard.type("Five.")  # the last of it still plays
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Done: 9.60 s")
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    samples, begins, ends = played(page)
    assert len(samples) == 120 * 1920
    assert np.all(begins[1:] >= ends[:-1] - 1e-9)
    expect(page.locator("#recent li")).to_have_count(1)


def test_escape_stops_the_speech_and_typing_goes_on_behind_it(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    told = exactly(page, 2000)
    start_typing(page, seed=71)
    page.keyboard.type("A long one. And")
    expect(page.locator("#status")).to_have_text("Speaking.")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    slow_server.wait_event("dropped", seed=71)
    expect(page.locator("#facts")).to_contain_text("Endedearly")
    expect(page.locator("#error")).to_be_empty()
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_visible()
    expect(text_of(page)).to_be_focused()

    told.clear()
    page.keyboard.type(" on. ")
    expect(page.locator("#status")).to_have_text("Speaking.")
    assert "".join(said(told)) == " And on."
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")


def test_changing_what_was_sent_ends_the_speech_and_says_so(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    told = exactly(page, 2000)
    start_typing(page, seed=72)
    page.keyboard.type("A wrong word. ")
    expect(page.locator("#status")).to_have_text("Speaking.")
    for _ in range(3):
        page.keyboard.press("Backspace")
    expect(page.locator("#error")).to_contain_text("You changed what had been sent")
    slow_server.wait_event("dropped", seed=72)
    expect_sent(page, "A wrong wor")  # it is not said again

    told.clear()
    page.keyboard.type("k. ")
    expect(page.locator("#error")).to_be_empty()
    expect(page.locator("#status")).to_have_text("Speaking.")
    assert "".join(said(told)) == "k."
    page.get_by_role("button", name="Stop").click()


def test_what_was_there_before_is_not_said(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    told = exactly(page, 3)
    start_typing(page, "It was there.")
    expect_sent(page, "It was there.")
    page.get_by_role("button", name="Insert a pause of 0.5 s").click()
    page.keyboard.type("New. ")
    expect(page.locator("#status")).to_contain_text("Done: ")
    assert "".join(said(told)) == "[0.5s]New."

    # All of it is said by the button, as ever; and nothing is sent once this is off.
    with page.expect_request("**/v1/audio/speech") as waiting:
        page.get_by_role("button", name="Speak", exact=True).click()
    assert waiting.value.post_data_json["input"] == "It was there.[0.5s]New. "
    page.get_by_role("button", name="Stop").click()
    page.get_by_label("Speak as I type").uncheck()
    expect_sent(page, "")
    assert page.locator(".sent").first.text_content() == ""  # a copy of a long text would be laid out with each key
    told.clear()
    text_of(page).press("End")
    page.keyboard.type("Silent. ")
    expect(page.locator("#count")).to_contain_text("characters")
    assert told == []


def test_the_first_text_makes_room_and_an_own_one_stays(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator("#voices input").first).to_be_attached()
    told = exactly(page, 3)
    live, field = page.get_by_label("Speak as I type"), text_of(page)
    live.check()
    expect(field).to_have_value("")
    expect(page.locator("#count")).to_have_text("0 characters")
    page.keyboard.type("New. ")
    expect(page.locator("#status")).to_contain_text("Done: ")
    assert "".join(said(told)) == "New."
    live.uncheck()
    field.evaluate("field => field.setSelectionRange(0, 0)")
    live.check()
    expect(field).to_have_value("New. ")
    told.clear()
    page.keyboard.type("More. ")
    expect(page.locator("#status")).to_contain_text("Done: ")
    assert "".join(said(told)) == "More."


def test_one_word_after_the_other_in_scripts_without_blanks(open_page: OpenPage, slow_server: RunningServer) -> None:
    """A word that an input method composes is sent when it has been chosen."""
    page = open_page(slow_server)
    told = exactly(page, 3)
    start_typing(page)
    method = page.context.new_cdp_session(page)
    method.send("Input.imeSetComposition", {"text": "ni", "selectionStart": 2, "selectionEnd": 2})
    expect(text_of(page)).to_have_value("ni")
    method.send("Input.insertText", {"text": "你好"})
    expect_sent(page, "你好")
    expect(page.locator("#status")).to_contain_text("Done: ")
    assert said(told) == ["你好"]


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        (f"{UNFIT} ", {}, "The text is too long for this model."),
        ("Hello. ", {"top_p": 7}, "Top p: "),
        ("Hello. ", {"top_k": 3073}, "top_k must be at most"),
        ("fail-later ", {}, "The speech could not be made to its end"),
    ],
)
def test_what_the_server_refuses_is_said(
    open_page: OpenPage, slow_server: RunningServer, text: str, settings: dict[str, object], words: str
) -> None:
    page = open_page(slow_server)
    start_typing(page, **settings)
    page.keyboard.type(text)
    expect(page.locator("#error")).to_contain_text(words)
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_visible()


def test_a_model_that_loads_is_waited_for(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    asked: list[list[dict[str, Any]]] = []

    def connect(socket: WebSocketRoute) -> None:
        asked.append(told := [])
        server = socket.connect_to_server() if len(asked) > 1 else None

        def hear(message: str | bytes) -> None:
            told.append(json.loads(message))
            if server:
                server.send(message)
            elif told[-1]["type"] == "input.text":
                error = {"type": "error", "message": "being loaded", "code": "model_loading", "param": "model"}
                socket.send(json.dumps(error))

        socket.on_message(hear)

    page.route_web_socket("**/v1/audio/speech/stream", connect)
    start_typing(page)
    page.keyboard.type("One ")
    expect(page.locator("#status")).to_contain_text("being loaded")
    page.keyboard.type("two. ")
    expect(page.locator("#status")).to_contain_text("Done: ")
    assert "".join(said(asked[-1])).strip() == "One two."
    expect(page.locator("#take-text")).to_have_text("One two.")


def test_a_text_that_replaces_what_was_sent_is_said(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    told = exactly(page, 3)
    start_typing(page)
    page.keyboard.type("One two. ")
    expect(page.locator("#status")).to_contain_text("Done: ")
    told.clear()
    page.keyboard.press("Control+A")
    page.keyboard.type("Three. ")
    expect(page.locator("#status")).to_contain_text("Done: ")
    expect(page.locator("#take-text")).to_have_text("Three.")
    assert "".join(said(told)).strip() == "Three."


def test_without_a_server_nothing_counts_as_sent(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    start_typing(page)
    page.context.set_offline(True)
    page.keyboard.type("Hello. ")
    expect(page.locator("#error")).to_have_text("The server cannot be reached. Is it still running?")
    expect_sent(page, "")
    page.context.set_offline(False)
    page.keyboard.type("Again. ")
    expect(page.locator("#status")).to_contain_text("Done: ")
    expect(page.locator("#take-text")).to_have_text("Hello. Again.")


def test_a_proxy_that_lets_no_socket_through(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    page.route_web_socket("**/v1/audio/speech/stream", lambda socket: socket.close(code=1011))
    start_typing(page)
    page.keyboard.type("Hello. ")
    expect(page.locator("#error")).not_to_be_empty()


def test_a_key_is_asked_for_and_used(open_page: OpenPage, keyed_server: RunningServer) -> None:
    page = open_page(keyed_server)
    start_typing(page)
    page.keyboard.type("Hello.")
    panel = page.get_by_role("region", name="This server wants an API key")
    expect(panel.get_by_role("alert")).to_have_text("Enter the key first.")
    with page.expect_response("**/audio/voices?*"):  # they are listed anew, and none is chosen meanwhile
        use_key(page, KEY)
    expect(panel).to_be_hidden()
    expect(page.locator("#voices input").first).to_be_attached()
    text_of(page).press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Done: ")
    assert not any(KEY in line for line in keyed_server.log)


@pytest.mark.parametrize("granularity", ["token", "clause"])
def test_what_was_typed_has_captions(open_page: OpenPage, slow_server: RunningServer, granularity: str) -> None:
    """Of each clause where the model is given clauses, else of what was said together."""
    page = open_page(slow_server)
    gate = Gate()
    connect = gate.in_clauses if granularity == "clause" else gate.connect
    page.route_web_socket("**/v1/audio/speech/stream", lambda socket: connect(socket))
    start_typing(page)
    page.keyboard.type("The first one is here, and the second one.")
    page.keyboard.press("Enter")
    page.keyboard.type("The third <one>.")
    gate.open()
    expect(page.locator("#status")).to_contain_text("Done: ")
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    name, srt = download(page, "srt")
    assert name == "aiden-typed.srt"
    cues = [cue.split("\n")[1:] for cue in srt.decode().strip().split("\n\n")]
    first = ["The first one is here,", "and the second one."]
    assert [words for _, words in cues] == [
        *(first if granularity == "clause" else [" ".join(first)]),
        "The third <one>.",
    ]
    times = [time for times, _ in cues for time in times.split(" --> ")]
    assert times[0] == "00:00:00,000" and times == sorted(times)
    seconds = len(download(page, "pcm")[1]) / 48_000
    assert float(times[-1][6:].replace(",", ".")) == pytest.approx(seconds, abs=1e-3)
    expect(page.locator("#spoken mark")).to_have_count(0)
    page.reload()
    page.locator("#recent li").get_by_role("button", name="Play").click()
    assert download(page, "srt") == (name, srt)


class Gate:
    """Between a page and a server, whose words wait until it is opened, however slowly somebody types."""

    def __init__(self) -> None:
        self._waiting: list[tuple[WebSocketRoute, str | bytes]] | None = []

    def open(self) -> None:
        waiting, self._waiting = self._waiting, None
        for socket, message in waiting or ():
            socket.send(message)

    def connect(self, socket: WebSocketRoute) -> WebSocketRoute:
        """Have what the page says sent on at once; returns the way to the server."""
        server = socket.connect_to_server()
        socket.on_message(server.send)
        server.on_message(lambda message: self._hear(socket, message))
        return server

    def in_clauses(self, socket: WebSocketRoute) -> None:
        """Have the server refuse to be given words, as one does whose model has not learnt that."""
        server = self.connect(socket)

        def send(message: str | bytes) -> None:
            if json.loads(message).get("split_granularity") == "token":
                error = {"type": "error", "message": "no", "code": "invalid_value", "param": "split_granularity"}
                socket.send(json.dumps(error))
            else:
                server.send(message)

        socket.on_message(send)

    def _hear(self, socket: WebSocketRoute, message: str | bytes) -> None:
        if self._waiting is None:
            socket.send(message)
        else:
            self._waiting.append((socket, message))


def test_what_was_typed_has_captions_where_it_was_stopped(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    exactly(page, 2000)
    start_typing(page)
    page.keyboard.type("A long one. And more ")
    expect(page.locator("#status")).to_have_text("Speaking.")
    page.keyboard.press("Escape")
    expect(page.locator("#facts")).to_contain_text("Endedearly")
    name, srt = download(page, "srt")
    assert name == "aiden-typed-part.srt"
    assert srt.decode().split("\n")[2] == "A long one. And more"


def test_what_is_typed_is_repeated_only_when_all_of_it_is_there(
    open_page: OpenPage, slow_server: RunningServer
) -> None:
    page = open_page(slow_server)
    record_playing(page)
    exactly(page, 3)
    page.get_by_role("button", name="Loop").click()
    start_typing(page)
    page.keyboard.type(f"{SENTENCE}And")
    wait_for(page, "document.querySelector('#wave').dataset.state === 'waiting' && window.played.length > 0")
    page.keyboard.type(" more.")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Done: ")
    whole = download(page, "pcm")[1]
    wait_for(page, f"window.played.reduce((sum, one) => sum + one.samples.length, 0) > {len(whole) // 2}")
    samples, _, _ = played(page)
    assert samples.tobytes().startswith(whole)

    # What is typed now does not wait until that has been repeated: it is another take.
    text_of(page).press("Control+End")
    page.keyboard.type("New. ")
    expect(page.locator("#take-text")).to_have_text("New.")
    page.keyboard.press("Escape")


def test_what_was_sent_is_not_laid_out_anew_with_each_key(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    start_typing(page, "It was there. " * 200)
    assert page.evaluate(COUNT_CHANGES, [".sent", "wor"]) == 0
    page.keyboard.type("d.\n")
    expect(page.locator("#sent")).to_contain_text("word.")
    field, layer = "document.querySelector('#input').scrollTop", "document.querySelector('.sent').scrollTop"
    wait_for(page, f"{field} > 0 && {field} === {layer}")
    page.get_by_role("button", name="Stop").click()
