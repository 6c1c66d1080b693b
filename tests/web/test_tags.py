"""The tags that the studio marks in a text are those that the server reads."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from server.text.tags import Silence, Spoken, parse
from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import COUNT_CHANGES, text_of, write

TEXTS = (
    "none",
    "a[0.5s]b [ 500 MS ] c [,5 sec] d [1,5seconds] e [.25s]",
    "a [pause] b [ Pause ] c [pause:2s] d [pause = 1 s] e [pause 1s] f [silence 3 milliseconds] g [break:1s]",
    "[pause1s] [1] [s] [1 s [2s] [-1s] [1h] [[1s]] [silence]",
    "a <break/> b <break></break> c <break> d <break time='1s'/> e <BREAK TIME=\"+250ms\" strength='weak' /> f",
    "a <break strength='x-strong'/> b <break strength='odd'/> c <break time='soon'/> d <break time=1s/> e",
    "a [voice:ryan] b [ Voice : eric, calm ] c [voice:] d [voice: a[b] e [voice:né 🙂]",
    "a[voice:" + "x" * 256 + "]b[voice:" + "y" * 257 + "]c",
)


def server_tags(text: str) -> list[Any]:
    """What the server reads: seconds of each silence, united where they adjoin, and each voice with its text."""
    parts = parse(text)
    return [float(part.seconds) if isinstance(part, Silence) else part.voice for part in parts]


def page_tags(page: Page, text: str) -> list[Any]:
    """The same of what the page reads."""
    tags = page.evaluate("async (text) => (await import('/web/tags.js')).tagsOf(text)", text)
    found: list[Any] = []
    end, voice = 0, None
    units = text.encode("utf-16-le")  # the page counts in UTF-16
    for tag in [*tags, {"start": len(units) // 2, "end": 0, "voice": None}]:
        between = units[2 * end : 2 * tag["start"]].decode("utf-16-le")
        found += [Spoken(between, voice)] if any(sign.isalnum() for sign in between) else []
        if "seconds" in tag:
            found.append(tag["seconds"])
        else:
            voice = tag["voice"]
        end = tag["end"]
    return [part.voice if isinstance(part, Spoken) else part for part in found]


@pytest.mark.parametrize("text", TEXTS)
def test_the_page_reads_tags_as_the_server_does(open_page: OpenPage, slow_server: RunningServer, text: str) -> None:
    page = open_page(slow_server)
    united: list[Any] = []
    for part in page_tags(page, text):
        if united and part == united[-1] is None:
            continue
        united.append(part)
    assert united == server_tags(text)


def test_tags_are_marked_in_the_text(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    write(page, "a [0.5s] b [voice:ryan] c [0.5] d")
    layer = page.locator("#tags")
    expect(layer.locator(".pause-tag")).to_have_text(["[0.5s]"])
    expect(layer.locator(".voice-tag")).to_have_text(["[voice:ryan]"])
    # The marks lie where the letters are: both have one size, one place and one way to break lines.
    text_of(page).fill("word " * 400 + "[1s]\n" + "word " * 400)
    same = page.evaluate(
        """() => {
          const field = document.querySelector("#input"), layer = document.querySelector("#tags");
          field.scrollTop = 200;
          field.dispatchEvent(new Event("scroll"));
          const shape = ({ clientWidth, scrollHeight, scrollTop }, { font, padding, lineHeight, borderWidth }) =>
            [clientWidth, scrollHeight, scrollTop, font, padding, lineHeight, borderWidth].join(" ");
          return [field, layer].map((one) => shape(one, getComputedStyle(one)));
        }"""
    )
    assert same[0] == same[1]
    text_of(page).fill("none")
    expect(layer).to_be_empty()


@pytest.mark.parametrize(("repeated", "at_once"), [(10, True), (500, False)])
def test_the_tags_of_a_long_text_are_marked_when_nobody_types(
    open_page: OpenPage, slow_server: RunningServer, repeated: int, at_once: bool
) -> None:
    page = open_page(slow_server)
    write(page, "The early train [0.5s] was late again, so we shared a taxi. " * repeated)
    expect(page.locator("#tags span")).to_have_count(repeated)
    assert (page.evaluate(COUNT_CHANGES, ["#tags", "[1s]"]) > 0) == at_once
    expect(page.locator("#tags span")).to_have_count(repeated + 1)
    expect(page.locator("#count")).to_contain_text(f"{repeated / 2 + 1:g} s of pauses")
