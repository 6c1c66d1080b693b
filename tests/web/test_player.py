"""The player: how it waits, repeats, sounds and shows what is said, and the keys that work anywhere."""

from __future__ import annotations

import json
import re
from base64 import b64encode

from playwright.sync_api import Page, expect

from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import download, make_exactly, played, record_playing, speak, text_of, wait_for, write

TEXT = "🙂 Hello there. [0.5s] It goes on."
SECOND = bytes(48_000)
"""Of silence."""
LENGTHS = "window.played.map(({ samples }) => samples.length)"
"""Of the parts that are noted: numbers of samples."""


def timed(page: Page) -> None:
    """Have the times of a text told that a server without them would not tell, and its audio all at once."""

    def event(**fields: object) -> str:
        return f"data: {json.dumps(fields)}\n\n"

    def time(text: str, begin: int, end: int, start: float, stop: float | None, **more: object) -> str:
        more |= {"text": text, "start_char": begin, "end_char": end, "start_time": start, "end_time": stop}
        return event(type="speech.timestamp", **more)

    body = [
        time("🙂 Hello there.", 0, 14, 0.0, None),
        event(type="speech.audio.delta", audio=b64encode(SECOND).decode()),
        time("🙂 Hello there.", 0, 14, 0.0, 0.4),
        time("", 15, 21, 0.4, 0.6, pause=True),
        time("It goes <on>.", 22, 33, 0.6, None),
        event(type="speech.audio.done", usage={}),
    ]
    page.route(
        "**/v1/audio/speech",
        lambda route: route.fulfill(body="".join(body), headers={"content-type": "text/event-stream", "x-seed": "7"}),
    )


def marked(page: Page) -> str:
    return page.locator("#spoken mark").text_content() or ""


def test_what_is_being_said_is_marked_in_the_text(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    timed(page)
    write(page, TEXT)
    page.get_by_role("button", name="Speak", exact=True).click()
    position = page.get_by_label("Position")
    expect(position).to_be_enabled()
    page.get_by_role("button", name="Pause", exact=True).click()
    position.fill("0.2")
    expect(page.locator("#spoken mark")).to_have_text("🙂 Hello there.")
    assert page.locator("#spoken").text_content() == f"{TEXT} "
    position.fill("0.5")
    expect(page.locator("#spoken mark")).to_have_count(0)  # a pause
    position.fill("0.7")
    expect(page.locator("#spoken mark")).to_have_text("It goes on.")
    text_of(page).press("End")
    page.keyboard.type("!")
    expect(page.locator("#spoken mark")).to_have_count(0)  # the text is another one
    page.keyboard.press("Backspace")
    position.fill("0.8")
    expect(page.locator("#spoken mark")).to_have_text("It goes on.")
    page.evaluate("location.hash = 'text=Another text'")
    expect(text_of(page)).to_have_value("Another text")
    expect(page.locator("#spoken")).to_be_empty()


def test_a_take_has_captions_and_keeps_them(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    timed(page)
    speak(page, TEXT)
    srt = "1\n00:00:00,000 --> 00:00:00,400\n🙂 Hello there.\n\n2\n00:00:00,600 --> 00:00:01,000\nIt goes <on>.\n\n"
    assert download(page, "srt") == ("aiden-7.srt", srt.encode())
    page.reload()
    page.locator("#recent li").get_by_role("button", name="Play").click()
    vtt = "WEBVTT\n\n" + srt.replace(",", ".").replace("<on>", "&lt;on&gt;")
    assert download(page, "vtt") == ("aiden-7.vtt", vtt.encode())


def test_the_server_tells_the_times_of_each_paragraph(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    speak(page, "One is here.\n\nTwo [0.5s] is there.", max_new_tokens=12)
    _, srt = download(page, "srt")
    cues = [cue.split("\n")[1:] for cue in srt.decode().strip().split("\n\n")]
    assert [words for _, words in cues] == ["One is here.", "Two", "is there."]
    mark, wave = page.locator("#spoken mark"), page.locator("#wave")
    expect(wave).to_have_attribute("data-state", "idle")
    expect(mark).to_have_count(0)  # it does not play
    page.get_by_role("button", name="Play", exact=True).click()
    expect(mark).to_have_text(re.compile("One is here.|Two|is there."))
    expect(wave).to_have_attribute("data-state", "idle")
    for times, words in cues:
        start, end = (float(time[6:].replace(",", ".")) for time in times.split(" --> "))
        page.get_by_label("Position").fill(f"{(start + end) / 2:.1f}")
        expect(mark).to_have_text(words)


def test_a_machine_that_is_too_slow_is_told(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page)
    write(page, "Slowly.", max_new_tokens=40)
    page.get_by_role("button", name="Speak", exact=True).click()
    told = page.locator("#buffering")
    expect(told).to_contain_text("Buffering: this machine is ")
    text = told.text_content() or ""
    if text:  # it goes when the sound goes on
        assert 1.05 < float(text.split(" is ")[1].split(" times slower than speech")[0]) < 50
    expect(page.locator("#status")).to_contain_text("Done: ")
    expect(told).to_be_empty()


def test_escape_stops_from_anywhere_and_the_space_bar_plays(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page)
    write(page, "A long one.", max_new_tokens=2000, seed=41)
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text("Speaking.")
    page.get_by_label("Search voices").focus()
    page.keyboard.press("Space")  # it is typed here
    expect(page.get_by_label("Search voices")).to_have_value(" ")
    expect(page.locator("#status")).to_have_text("Speaking.")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    slow_server.wait_event("dropped", seed=41)

    page.evaluate("document.activeElement.blur()")
    wave = page.locator("#wave")
    expect(wave).not_to_have_attribute("data-state", "playing")
    page.get_by_label("Position").evaluate("(range) => { range.value = 0; range.dispatchEvent(new Event('input')); }")
    before = page.evaluate("scrollY")
    page.keyboard.press("Space")
    expect(wave).to_have_attribute("data-state", "playing")
    page.keyboard.press("Space")
    expect(wave).not_to_have_attribute("data-state", "playing")
    assert page.evaluate("scrollY") == before


def test_a_take_is_played_again_and_again(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    speak(page, "Once.", max_new_tokens=2)
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    record_playing(page)
    loop = page.get_by_role("button", name="Loop")
    loop.click()
    expect(loop).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Play", exact=True).click()
    wait_for(page, "window.played.length >= 3")
    loop.click()
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    samples, begins, ends = played(page)
    assert len(samples) % 3840 == 0
    assert all(begins[1:] >= ends[:-1] - 1e-9)


def test_the_volume_is_kept(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    page.evaluate("""() => {
      window.gains = [];
      const connect = GainNode.prototype.connect;
      GainNode.prototype.connect = function (...to) {
        window.gains.push(this.gain);
        return connect.apply(this, to);
      };
    }""")
    volume = page.get_by_label("Volume")
    assert volume.input_value() == "1"
    volume.fill("0.25")
    expect(volume).to_have_attribute("aria-valuetext", "25 %")
    speak(page, "Softly.", max_new_tokens=2)
    assert page.evaluate("window.gains.map((gain) => gain.value)") == [0.25]
    volume.fill("0.5")
    assert page.evaluate("window.gains.map((gain) => gain.value)") == [0.5]
    hear = page.locator(".hear").first
    hear.click()
    wait_for(page, "window.gains.length === 2")
    assert page.evaluate("window.gains.map((gain) => gain.value)") == [0.5, 0.5]
    volume.fill("0.75")
    assert page.evaluate("window.gains.map((gain) => gain.value)") == [0.75, 0.75]
    page.reload()
    expect(page.get_by_label("Volume")).to_have_value("0.75")


def test_long_audio_is_handed_over_in_pieces_without_gaps(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    page.mouse.click(0, 0)
    record_playing(page)
    page.evaluate("""async () => {
      const { Player } = await import("/web/player.js");
      window.player = new Player(() => {});
      player.load(Int16Array.from({ length: 60 * 24000 }, (_, i) => i % 30011));
      player.play();
    }""")
    assert page.evaluate(LENGTHS) == [96_000, 96_000]
    wait_for(page, "window.played.length >= 3")  # the third piece follows the first
    samples, begins, ends = played(page)
    assert len(samples) >= 3 * 96_000 and samples.tolist() == [i % 30011 for i in range(len(samples))]
    assert abs(begins[1:] - ends[:-1]).max() < 1e-9
    assert page.evaluate("player.position") > 3.5
    page.evaluate("(window.played = [], player.seek(59))")
    assert page.evaluate(LENGTHS) == [24_000]
    wait_for(page, "player.state === 'idle'")
    assert page.evaluate("player.position") == 60
