"""A text file in the studio, spoken paragraph after paragraph."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Dialog, Locator, Page, Route, expect

from tests.server.fakes import UNFIT
from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import download, make_exactly, pcm_of, write

SPEECH = "**/v1/audio/speech"
PAUSE = round(0.6 * 24_000)
FRAME = 1920

MARKDOWN = """---
title: not said
---
# A title
A first paragraph
of two lines.

* one
* two

```
code

with a blank line
```
## Another title

***

The last one.
"""
SUBTITLES = """1
00:00:01,000 --> 00:00:02,000
<i>He said</i>

2
00:00:02,500 --> 00:00:04,000
that it rains.

3
00:00:05,000 --> 00:00:06,000
{\\an8}Does it?
"""


def choose(page: Page, name: str, content: str | bytes) -> None:
    expect(page.locator("#voices input").first).to_be_attached()
    body = content.encode() if isinstance(content, str) else content
    page.get_by_label("Drop a text, Markdown or subtitle file here").set_input_files(
        {"name": name, "mimeType": "text/plain", "buffer": body}
    )


def drop(page: Page, content: str) -> bool:
    """Drop a file onto the page; returns whether the place for it was marked while the file was held over the page."""
    marked: bool = page.evaluate(
        """(content) => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([content], "dropped.txt"));
          document.body.dispatchEvent(new DragEvent("dragover", { dataTransfer, bubbles: true, cancelable: true }));
          const over = document.getElementById("file-drop").classList.contains("over");
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
          return over;
        }""",
        content,
    )
    return marked


def rows(page: Page) -> Locator:
    return page.locator("#paragraphs li")


def texts(page: Page) -> list[str]:
    expect(page.locator("#file-name")).not_to_be_empty()
    return [text or "" for text in page.locator("#paragraphs .take-text").all_text_contents()]


def go(page: Page) -> Locator:
    return page.locator("#file-go")


def save(page: Page, audio_format: str) -> tuple[str, bytes]:
    page.get_by_label("Format of the file").select_option(audio_format)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download the file").click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "paragraphs"),
    [
        ("a.txt", "One\r\nline.\r\n\r\n  \r\n* * *\n\nTwo.\n", ["One\nline.", "Two."]),
        ("a.txt", "\ufeffOne.", ["One."]),
        (
            "a.md",
            MARKDOWN,
            [
                "# A title\nA first paragraph\nof two lines.",
                "* one\n* two",
                "```\ncode\n\nwith a blank line\n```",
                "## Another title",
                "The last one.",
            ],
        ),
        ("a.SRT", SUBTITLES, ["He said that it rains.", "Does it?"]),
        ("a.srt", SUBTITLES.replace("\n", "\r\n"), ["He said that it rains.", "Does it?"]),
    ],
)
def test_a_file_becomes_paragraphs(
    open_page: OpenPage, slow_server: RunningServer, name: str, content: str, paragraphs: list[str]
) -> None:
    page = open_page(slow_server)
    choose(page, name, content)
    expect(page.locator("#file-name")).to_have_text(name)
    assert texts(page) == paragraphs
    expect(rows(page).locator(".state")).to_have_text(["Waiting"] * len(paragraphs))


def test_a_long_paragraph_is_split_between_its_sentences(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    sentence = "This sentence has fifty letters, as you may count. "
    choose(page, "a.txt", 60 * sentence)
    assert [len(text) + 1 for text in texts(page)] == [len(sentence) * count for count in (29, 29, 2)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.pdf", b"%PDF", "a.pdf cannot be read: choose a .txt, .md or .srt file."),
        ("a.txt", b"x" * 200_001, "a.txt has 201 kB; at most 200 kB are read. Split the file."),
        ("a.txt", "Grüße".encode("latin-1"), "a.txt is not in UTF-8: save it in this encoding"),
        ("a.txt", b"a\0b", "a.txt is no text"),
        ("a.txt", b" * * * \n\n --- ", "a.txt has no words to speak."),
    ],
)
def test_what_cannot_be_read_is_said(
    open_page: OpenPage, slow_server: RunningServer, name: str, content: bytes, says: str
) -> None:
    page = open_page(slow_server)
    choose(page, name, content)
    expect(page.locator("#error")).to_contain_text(f"The file {says}")
    expect(page.locator("#file-panel")).to_be_hidden()
    choose(page, "b.txt", "Better.")
    expect(rows(page)).to_have_count(1)
    expect(page.locator("#error")).to_be_empty()


def test_a_file_is_spoken_and_saved_as_one(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    asked: list[dict[str, object]] = []
    page.on("request", lambda one: one.url.endswith("/audio/speech") and asked.append(one.post_data_json))
    choose(page, "story.md", "# One\n\nTwo **bold** words.\n\nThree.")
    go(page).click()
    expect(page.locator("#status")).to_have_text("Done.")
    expect(rows(page).locator(".state")).to_have_text([re.compile("^Done: 0.40 s")] * 3)
    expect(page.locator("#file-facts")).to_have_text("3 of 3 paragraphs · 0:02")
    expect(go(page)).to_be_disabled()
    expect(page.locator("#take-text")).to_have_text("story")
    assert [(one["input"], one["text_format"]) for one in asked] == [
        ("# One", "markdown"),
        ("Two **bold** words.", "markdown"),
        ("Three.", "markdown"),
    ]
    name, wav = save(page, "wav")
    pcm = np.frombuffer(pcm_of(wav), np.int16)
    assert (name, len(pcm)) == ("story.wav", 3 * 5 * FRAME + 2 * PAUSE)
    assert not pcm[5 * FRAME : 5 * FRAME + PAUSE].any()
    name, flac = save(page, "flac")
    assert (name, pcm_of(flac)) == ("story.flac", pcm.tobytes())
    name, srt = save(page, "srt")
    assert (name, srt.decode().count(" --> ")) == ("story.srt", 3)
    assert "00:00:01,000 --> 00:00:01,400\nTwo" in srt.decode()
    assert len(asked) == 3, "nothing is spoken twice"

    rows(page).nth(1).get_by_role("button", name="Play").click()
    expect(page.locator("#take-text")).to_have_text("Two **bold** words.")
    page.get_by_role("button", name="Play all").click()
    expect(page.locator("#take-text")).to_have_text("story")
    expect(page.locator("#time")).to_contain_text("/ 0:02")


def test_a_stopped_file_goes_on_and_one_paragraph_is_spoken_again(
    open_page: OpenPage, slow_server: RunningServer
) -> None:
    page = open_page(slow_server)
    make_exactly(page, 25)  # three seconds of this server each
    choose(page, "book.txt", "One.\n\nTwo.\n\nThree.")
    go(page).click()
    states = rows(page).locator(".state")
    expect(states.nth(0)).to_contain_text("Being spoken: ")
    expect(page.locator("#file-facts")).to_contain_text("less than a minute left")
    expect(rows(page).nth(0).locator("progress")).to_be_visible()
    expect(states.nth(1)).to_contain_text("Being spoken: ")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(states).to_have_text(["Done: 2.00 s", "Waiting", "Waiting"])
    assert save(page, "wav")[0] == "book-part.wav"

    page.unroute(SPEECH)
    make_exactly(page, 5)
    expect(go(page)).to_have_text("Go on")
    go(page).click()
    expect(page.locator("#status")).to_have_text("Done.")
    expect(states).to_have_text(["Done: 2.00 s", "Done: 0.40 s", "Done: 0.40 s"])
    page.unroute(SPEECH)
    make_exactly(page, 10)
    rows(page).nth(2).get_by_role("button", name="Speak again").click()
    expect(page.locator("#status")).to_have_text("Done.")
    expect(states).to_have_text(["Done: 2.00 s", "Done: 0.40 s", "Done: 0.80 s"])
    name, wav = save(page, "wav")
    assert (name, len(pcm_of(wav)) // 2) == ("book.wav", 40 * FRAME + 2 * PAUSE)


def test_a_paragraph_that_fails_is_told_and_the_others_are_spoken(
    open_page: OpenPage, slow_server: RunningServer
) -> None:
    page = open_page(slow_server)
    choose(page, "a.txt", f"One.\n\n{UNFIT}\n\nfail-later\n\nFour.")
    go(page).click()
    expect(page.locator("#status")).to_have_text("Done, but 2 of the paragraphs failed.")
    expect(rows(page).locator(".state")).to_have_text(
        [
            "Done: 0.40 s",
            "Failed: The text is too long for this model.",
            re.compile("Failed: The speech broke off"),
            "Done: 0.40 s",
        ]
    )
    assert save(page, "wav")[0] == "a-part.wav"
    rows(page).nth(1).get_by_role("button", name="Speak again").click()
    expect(page.locator("#error")).to_have_text("The text is too long for this model.")


def test_a_server_that_is_busy_ends_it_until_it_goes_on(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)

    def refuse(route: Route) -> None:
        error = {"message": "too many", "type": "rate_limit_error", "param": None, "code": "queue_full"}
        route.fulfill(status=429, body=json.dumps({"error": error}), headers={"retry-after": "5"})

    page.route(SPEECH, refuse)
    choose(page, "a.txt", "One.\n\nTwo.")
    go(page).click()
    expect(page.locator("#error")).to_have_text("Too many. Try again in 5 seconds.")
    expect(rows(page).locator(".state")).to_have_text(["Failed: Too many.", "Waiting"])
    page.unroute(SPEECH)
    go(page).click()
    expect(page.locator("#status")).to_have_text("Done.")
    expect(page.locator("#file-facts")).to_contain_text("2 of 2 paragraphs")


def test_a_file_is_dropped_onto_the_page(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator("#voices input").first).to_be_attached()
    assert drop(page, "One.\n\nTwo.")
    assert texts(page) == ["One.", "Two."]
    expect(page.locator("#file-drop")).not_to_have_class(re.compile("over"))


def test_a_file_that_is_dropped_comes_into_sight(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, viewport={"width": 1000, "height": 600})
    expect(page.locator("#voices input").first).to_be_attached()
    expect(go(page)).not_to_be_in_viewport()
    drop(page, "One.\n\nTwo.")
    expect(go(page)).to_be_in_viewport()


def test_the_list_follows_what_is_spoken_and_the_page_stays(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page, 1)
    choose(page, "a.txt", "\n\n".join(f"Number {i}." for i in range(20)))
    go(page).click()
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator("#status")).to_have_text("Done.")
    assert page.evaluate("scrollY") == 0
    page.evaluate("document.getElementById('file-panel').scrollIntoView()")
    expect(rows(page).last).to_be_in_viewport()


def test_what_is_played_of_a_file_has_nothing_else_in_it(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page, 5)
    choose(page, "a.txt", "One.")
    go(page).click()
    expect(page.locator("#status")).to_have_text("Done.")
    page.unroute(SPEECH)
    make_exactly(page, 100)
    write(page, "Something else.")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Speaking.")
    rows(page).first.get_by_role("button", name="Play").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#time")).to_contain_text("/ 0:00")
    assert len(download(page, "pcm")[1]) == 2 * 5 * FRAME


def test_speech_that_is_not_downloaded_is_not_lost_unasked(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page, 1)
    asked: list[str] = []

    def decline(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    choose(page, "a.txt", "One.")
    go(page).click()
    expect(page.locator("#status")).to_have_text("Done.")
    with page.expect_event("dialog") as waiting:
        choose(page, "b.txt", "Two.")
    assert waiting.value.message == "The speech of a.txt has not been downloaded. Drop it for b.txt?"
    waiting.value.dismiss()
    expect(page.locator("#file-name")).to_have_text("a.txt")
    with page.expect_event("dialog") as waiting:
        page.close(run_before_unload=True)
    assert waiting.value.type == "beforeunload"
    waiting.value.dismiss()
    save(page, "wav")
    page.on("dialog", decline)
    choose(page, "b.txt", "Two.")
    expect(page.locator("#file-name")).to_have_text("b.txt")
    page.reload()
    assert asked == []
