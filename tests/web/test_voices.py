"""The page of cloned voices in Chromium, whose microphone hears a file."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from server.models.names import HOW_TO_CLONE
from tests.server.audio.recordings import RATE, recorded, swelling, written
from tests.server.fakes import FRAME
from tests.server.running import KEY, RunningServer, wait_until
from tests.web.conftest import MICROPHONE_SECONDS, OpenPage
from tests.web.studio import make_exactly, played, record_playing, use_key, wait_for

TEXT = "This is what is said in the recording, word for word."
TAIL = RATE // 2
DROP = """async ([bytes, zeros]) => {
  const data = new DataTransfer();
  const body = Uint8Array.from(atob(bytes), (sign) => sign.charCodeAt(0));
  data.items.add(new File([body, new Uint8Array(zeros)], "voice.wav"));
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector("#drop").dispatchEvent(event);
    if (!event.defaultPrevented) throw new Error(`the browser would open the file at ${kind}`);
  }
}"""

HURRY = """() => {
  window.AudioWorkletNode = class extends AudioWorkletNode {
    constructor(...how) {
      super(...how);
      const loud = { data: new Float32Array(this.context.sampleRate).fill(0.1) };
      Object.defineProperty(this, "port", { value: {
        set onmessage(hear) { if (hear) setTimeout(() => { for (let i = 0; i < 25; i++) hear(loud); }); },
      } });
    }
  };
}"""
"""Script after which a microphone hears 25 s at once."""

NOTE_STREAM = """() => {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => (window.stream = await ask(wanted));
}"""
"""Script that notes what the microphone gives."""

HOLD_FIRST_FILE = """() => {
  const decode = OfflineAudioContext.prototype.decodeAudioData;
  OfflineAudioContext.prototype.decodeAudioData = async function (bytes) {
    const audio = await decode.call(this, bytes);
    if (!window.release) await new Promise((resolve) => (window.release = resolve));
    return audio;
  };
}"""
"""Script after which the first file is not read before `window.release` is called."""


def choose(page: Page, body: bytes, name: str = "voice.wav") -> None:
    """Choose a file as the recording."""
    page.locator("#audio_sample").set_input_files({"name": name, "mimeType": "audio/wav", "buffer": body})


def drop(page: Page, body: bytes, zeros: int = 0) -> None:
    """Drop a file on the page. It ends with so many zeros, which the page makes: they need not be sent to it."""
    page.evaluate(DROP, [base64.b64encode(body).decode(), zeros])


def part_of(page: Page) -> tuple[float, float]:
    """Start and end of the part, in seconds."""
    start, end = (page.get_by_label(f"{which} of the part").input_value() for which in ("Start", "End"))
    return float(start), float(end)


def wait_for_recording(page: Page, seconds: float) -> None:
    """Wait until a recording of this length has been taken."""
    expect(page.locator("#time")).to_have_text(re.compile(rf" of {seconds:.{2 if seconds < 10 else 1}f} s"))


def fill(page: Page, name: str = "anna") -> None:
    """All that a voice needs beside its recording."""
    page.get_by_label("What is said in the part").fill(TEXT)
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Description").fill("Warm")
    page.get_by_label(re.compile("the speaker knows")).check()


def microphone_state(page: Page) -> str:
    """`live` or `ended`, of what `NOTE_STREAM` has noted."""
    state: str = page.evaluate("window.stream.getTracks()[0].readyState")
    return state


def keep(page: Page) -> None:
    page.get_by_role("button", name="Keep the voice").click()


def delete(page: Page, name: str) -> None:
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete: {name}").click()


def test_a_voice_is_recorded_trimmed_heard_kept_spoken_with_and_deleted(
    open_page: OpenPage, base_server: RunningServer
) -> None:
    page = open_page(base_server, "/voices", permissions=["microphone"], hears=True)
    make_exactly(page, 6)
    expect(page.get_by_text("None yet.")).to_be_visible()
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Recording.")
    level = page.get_by_label("Level of the microphone")
    wait_for(page, "0.7 < document.querySelector('meter').value && document.querySelector('meter').value < 1")
    elapsed = page.locator("#time")
    wait_for(page, "parseFloat(document.querySelector('#time').textContent) > 4.5")
    page.get_by_role("button", name="Stop recording").click()
    expect(elapsed).to_contain_text(" of ")
    expect(level).to_be_hidden()

    begin, end = part_of(page)
    start = page.get_by_label("Start of the part")
    for _ in range(4):
        start.press("ArrowRight")
    assert part_of(page) == pytest.approx((begin + 0.2, end), abs=0.06)
    record_playing(page)
    page.get_by_role("button", name="Play the part").click()
    wait_for(page, "window.played.length > 0")
    samples, _, _ = played(page)
    begin, end = part_of(page)
    assert len(samples) == pytest.approx((end - begin) * RATE, abs=0.06 * RATE)
    assert np.abs(samples).mean() / 32768 == pytest.approx(np.abs(swelling(MICROPHONE_SECONDS)).mean(), rel=0.2)

    fill(page)
    page.get_by_role("button", name="Hear the voice").click()
    expect(page.locator("#status")).to_have_text("Done: 0.48 s of audio.")
    keep(page)
    expect(page.locator("#status")).to_contain_text("The voice anna is kept.")
    row = page.locator("#kept li")
    expect(row).to_contain_text("annaWarmfrom ")
    page.reload()
    row.get_by_role("button", name="Hear: anna").click()
    expect(page.locator("#status")).to_have_text("Done: 0.48 s of audio.")
    page.get_by_role("link", name="Studio", exact=True).click()
    expect(page.locator("#voices input[value=anna]")).to_be_checked()
    page.get_by_role("link", name="Voices").click()
    delete(page, "anna")
    expect(row).to_have_count(0)
    expect(page.locator("#status")).to_have_text("The voice anna is deleted.")
    expect(page.get_by_role("heading", name="Kept voices")).to_be_focused()


def test_a_file_is_dropped_and_its_part_is_what_is_sent(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices")
    begun = len(cloning_server.events("encoding"))
    expect(page.locator("#voice")).to_be_visible()
    silence = np.zeros((2 * 48_000, 2), np.float32)
    body = written(np.concatenate((silence, swelling(5, 48_000, 2), silence)), 48_000)
    drop(page, body)
    wait_for_recording(page, 9)
    assert part_of(page) == pytest.approx((1.9, 7.1), abs=0.06)
    fill(page, "dropped")
    page.get_by_role("button", name="Hear the voice").click()
    expect(page.locator("#status")).to_contain_text("Done: ")
    keep(page)
    expect(page.locator("#status")).to_contain_text("The voice dropped is kept.")
    (encoded,) = cloning_server.events("encoding")[begun:]  # what was heard is what is kept
    assert encoded["text"] == TEXT
    assert encoded["samples"] - TAIL == pytest.approx(5.2 * RATE, abs=0.01 * RATE)
    spoken = cloning_server.events("prompt")[-1]["cloned"]["speaker"]
    loudness = np.abs(swelling(5, 48_000, 2)).mean()  # both channels are heard
    assert spoken[1] == pytest.approx(loudness, rel=0.2)
    for name, value in {"Name": "", "What is said in the part": "", "Description": ""}.items():
        expect(page.get_by_label(name, exact=True)).to_have_value(value)
    expect(page.get_by_label("Start of the part")).to_be_hidden()
    delete(page, "dropped")
    expect(page.locator("#kept li")).to_have_count(0)


def test_the_part_is_moved_by_the_pointer(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices")
    choose(page, written(swelling(30)))
    wait_for_recording(page, 30)
    assert part_of(page) == pytest.approx((0, 20), abs=0.06)
    box = page.locator(".trim").bounding_box()
    assert box

    def x_of(seconds: float) -> float:
        return box["x"] + 12 + (box["width"] - 24) * seconds / 30

    def pull(begin: float, end: float) -> None:
        page.mouse.move(x_of(begin), box["y"] + 40)
        page.mouse.down()
        page.mouse.move(x_of(end), box["y"] + 40, steps=4)
        page.mouse.up()

    pull(20, 26)
    assert part_of(page) == pytest.approx((6, 26), abs=0.3), "the start follows where the part would be too long"
    pull(6, 25)
    assert part_of(page) == pytest.approx((25, 28), abs=0.3), "and the end where it would be too short"
    start = page.get_by_label("Start of the part")
    expect(start).to_have_attribute("aria-valuetext", re.compile(r"^2[45]\.\d s of 30"))
    page.get_by_role("button", name="Play the part").click()
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Play the part")).to_be_visible()


def test_nothing_is_kept_before_all_is_there(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices")
    asked: list[str] = []
    page.on("request", lambda request: request.method == "POST" and asked.append(request.url))
    error, consent = page.get_by_role("alert").filter(visible=True), page.get_by_label(re.compile("the speaker knows"))

    def refused(words: str, field: str) -> None:
        for name in ("Keep the voice", "Hear the voice"):
            page.get_by_role("button", name=name).click()
            expect(error).to_contain_text(words)
            expect(page.locator(f"#{field}")).to_be_focused()
            expect(page.locator(f"#{field}")).to_have_attribute("aria-invalid", "true")

    refused("Record the voice, or choose a file", "audio_sample")
    choose(page, recorded())
    wait_for_recording(page, 3)
    refused("every word that is said", "ref_text")
    fill(page)
    consent.uncheck()
    refused("the speaker agrees", "consent")
    consent.check()
    assert asked == []
    page.get_by_label("Name", exact=True).fill("../anna")
    keep(page)
    expect(error).to_contain_text("Name must be there, of letters, digits")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.get_by_label("Name", exact=True).fill("Alloy")
    keep(page)
    expect(error).to_contain_text("Alloy")
    expect(page.locator("#kept li")).to_have_count(0)


@pytest.mark.parametrize(
    ("body", "zeros", "words"),
    [
        (recorded(seconds=2), 0, "The recording lasts 2.00 s; 3 to 20 s are needed."),
        (b"no audio", 0, "The browser cannot read this file"),
        (b"", 0, "The browser cannot read this file"),
        (recorded(), 50_000_000, "The file is larger than 50 MB"),
    ],
    ids=["short", "text", "empty", "large"],
)
def test_a_file_that_is_no_recording_is_refused(
    open_page: OpenPage, cloning_server: RunningServer, body: bytes, zeros: int, words: str
) -> None:
    page = open_page(cloning_server, "/voices")
    choose(page, recorded())
    wait_for_recording(page, 3)
    drop(page, body, zeros)
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text(words)
    wait_for_recording(page, 3)  # what was there stays


def test_what_the_server_says_of_a_recording_is_shown(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices")
    choose(page, recorded())
    fill(page, "doubtful")
    page.get_by_label("What is said in the part").fill("No.")
    page.get_by_label("Sentence to hear it by").press("Enter")
    expect(page.locator("#notes")).to_contain_text("ref_text is little for 3.0 s of speech")
    expect(page.locator("#kept li")).to_have_count(0)  # Enter in the sentence keeps nothing
    keep(page)
    expect(page.locator("#kept li")).to_contain_text("ref_text is little")
    choose(page, recorded())
    fill(page, "doubtful")
    keep(page)
    expect(page.locator("#error")).to_contain_text("There is a voice doubtful already")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Delete: doubtful").click()
    expect(page.locator("#kept li")).to_have_count(1)
    delete(page, "doubtful")
    expect(page.locator("#kept li")).to_have_count(0)


def test_a_microphone_that_is_refused_is_told(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices", hears=True)
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.locator("#error")).to_contain_text("This page may not use the microphone")
    page.evaluate("() => { Object.defineProperty(navigator, 'mediaDevices', { value: undefined }); }")
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.locator("#error")).to_contain_text("over HTTPS only")


def test_a_recording_is_given_up_by_escape_and_ends_by_itself(
    open_page: OpenPage, cloning_server: RunningServer
) -> None:
    page = open_page(cloning_server, "/voices", permissions=["microphone"], hears=True)
    page.evaluate(NOTE_STREAM)
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Recording.")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    assert microphone_state(page) == "ended"
    expect(page.get_by_label("Start of the part")).to_be_hidden()
    page.evaluate(HURRY)
    page.get_by_role("button", name="Record", exact=True).click()
    wait_for_recording(page, 20)
    assert microphone_state(page) == "ended"


def test_a_recording_is_given_up_before_the_microphone_is_there(
    open_page: OpenPage, cloning_server: RunningServer
) -> None:
    page = open_page(cloning_server, "/voices", permissions=["microphone"], hears=True)
    page.evaluate(NOTE_STREAM)
    record = page.get_by_role("button", name="Record", exact=True)
    record.evaluate(
        "button => { button.click(); document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' })); }"
    )
    expect(page.locator("#status")).to_have_text("Stopped.")
    assert microphone_state(page) == "ended"
    expect(record).to_be_visible()  # and the page has made no mistake


def test_a_microphone_that_cannot_be_read_is_closed(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices", permissions=["microphone"], hears=True)
    page.evaluate(NOTE_STREAM)
    page.evaluate("() => { window.AudioWorkletNode = class { constructor() { throw new Error('no worklet'); } }; }")
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.locator("#error")).to_have_text("The microphone cannot be used: no worklet.")
    assert microphone_state(page) == "ended"


def test_the_file_that_is_chosen_last_counts(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices")
    page.evaluate(HOLD_FIRST_FILE)
    choose(page, recorded(seconds=8))
    wait_for(page, "window.release !== undefined")  # the first file is about to be read
    choose(page, recorded(seconds=5))
    wait_for_recording(page, 5)
    page.evaluate("async () => { window.release(); await new Promise((resolve) => setTimeout(resolve)); }")
    wait_for_recording(page, 5)
    drop(page, recorded(seconds=4))
    wait_for_recording(page, 4)
    expect(page.locator("#audio_sample")).to_have_value("")  # the file of the field is not what is used


def test_a_voice_that_cannot_be_deleted_says_why(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices")
    choose(page, recorded())
    fill(page, "lasting")
    keep(page)
    expect(page.locator("#kept li")).to_have_count(1)
    answers = [(404, "There is no such voice."), (401, "This key is not known.")]

    def refuse(route: Route) -> None:
        status, message = answers[0]
        route.fulfill(status=status, json={"error": {"message": message, "param": "voice"}})

    page.route("**/v1/audio/voices/lasting", refuse)
    delete(page, "lasting")
    expect(page.locator("#error")).to_have_text("There is no such voice.")
    expect(page.get_by_role("button", name="Delete: lasting")).to_be_focused()
    expect(page.locator("#voice")).not_to_have_attribute("aria-invalid", "true")
    answers.pop(0)
    delete(page, "lasting")
    expect(page.locator("#key-panel")).to_be_visible()
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.unroute("**/v1/audio/voices/lasting")
    delete(page, "lasting")
    expect(page.locator("#kept li")).to_have_count(0)


def test_a_voice_is_sent_once_however_often_it_is_asked_to_be_kept(
    open_page: OpenPage, cloning_server: RunningServer
) -> None:
    page = open_page(cloning_server, "/voices")
    choose(page, recorded())
    wait_for_recording(page, 3)
    fill(page, "once")
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "POST":
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/audio/voices", hold)
    page.get_by_role("button", name="Keep the voice").dblclick()
    page.get_by_label("Name", exact=True).press("Enter")
    expect(page.locator("#status")).to_have_text("Keeping the voice …")
    (upload,) = held
    upload.continue_()
    expect(page.locator("#status")).to_contain_text("The voice once is kept.")
    delete(page, "once")
    expect(page.locator("#kept li")).to_have_count(0)


@pytest.mark.parametrize("bare", [True, False], ids=["without a model that clones", "without a folder"])
def test_a_server_that_cannot_says_what_is_missing(
    open_page: OpenPage, slow_server: RunningServer, cloning_server: RunningServer, bare: bool
) -> None:
    def without_folder(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "keeps_voices": False})

    page = open_page(slow_server if bare else cloning_server, "/voices")
    if bare:
        expect(page.get_by_role("region", name="No model here clones voices")).to_be_visible()
        command = page.locator("#none-clones code").text_content() or ""
        assert command and HOW_TO_CLONE.endswith(command)
        expect(page.locator("#voice")).to_be_hidden()
        return
    page.route("**/v1/audio/voices", without_folder)
    page.reload()
    expect(page.get_by_role("button", name="Keep the voice")).to_be_disabled()
    expect(page.locator("#keeps-none")).to_contain_text("KW_VOICES_DIR")


def test_a_voice_is_its_keys_unless_it_is_shared(open_page: OpenPage, keyed_server: RunningServer) -> None:
    page = open_page(keyed_server, "/voices")
    choose(page, recorded())
    fill(page, "mine")
    keep(page)
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text("Enter the key first.")
    use_key(page, KEY)
    expect(page.locator("#status")).to_have_text("The server takes the key.")
    keep(page)
    expect(page.locator("#kept li")).to_contain_text("for this key")
    choose(page, recorded())
    fill(page, "ours")
    page.get_by_label("Others than this key may speak with it too").check()
    keep(page)
    expect(page.locator("#kept li")).to_have_count(2)
    expect(page.locator("#kept li").last).to_contain_text("for everybody")
    page.get_by_role("button", name="Forget the API key").click()
    expect(page.locator("#kept strong")).to_have_text(["ours"])
    use_key(page, KEY)
    for name in ("ours", "mine"):
        delete(page, name)
        expect(page.locator("#status")).to_have_text(f"The voice {name} is deleted.")


def test_a_speech_by_the_voice_can_be_stopped(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices")
    make_exactly(page, 2000)
    before = len(cloning_server.events("dropped"))
    choose(page, recorded())
    fill(page)
    page.get_by_role("button", name="Hear the voice").click()
    expect(page.locator("#status")).to_have_text("Speaking.")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    wait_until(lambda: len(cloning_server.events("dropped")) > before, "the speech is dropped")
    dropped = cloning_server.events("dropped")[-1]
    assert 0 < dropped["frames"] * FRAME < 2000 * FRAME
    expect(page.get_by_role("button", name="Hear the voice")).to_be_focused()


def test_the_list_is_that_which_was_asked_for_last(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/voices")
    expect(page.locator("#kept-empty")).to_be_visible()
    held: list[Route] = []
    page.route("**/audio/voices", lambda route: held.append(route))
    page.evaluate("""async () => {
      const panel = document.querySelector("#key-form");
      document.querySelector("#forget").click();
      document.querySelector("#forget").click();
    }""")
    wait_until(lambda: page.wait_for_timeout(10) or len(held) == 2, "the list is asked for twice")
    voice = {"name": "anna", "seconds": 3.0, "notes": [], "created_at": 0, "description": ""}
    for route, kept in zip(reversed(held), ([voice], []), strict=True):
        route.fulfill(json={"voices": [], "uploaded_voices": kept, "keeps_voices": True})
        expect(page.locator("#kept li")).to_have_count(1)


def test_escape_ends_an_upload(open_page: OpenPage, cloning_server: RunningServer) -> None:
    """The form stays as it was, so that the voice can be kept after all."""
    page = open_page(cloning_server, "/voices")
    choose(page, recorded())
    wait_for_recording(page, 3)
    fill(page, "stopped")
    held: list[Route] = []
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.method))
    page.route(
        "**/audio/voices", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    keep(page)
    expect(page.locator("#status")).to_have_text("Keeping the voice …")
    expect(page.get_by_role("button", name="Hear the voice")).to_be_disabled()
    wait_until(lambda: page.wait_for_timeout(10) or held, "the voice is sent")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#error")).to_be_empty()
    expect(page.get_by_role("button", name="Hear the voice")).to_be_enabled()
    wait_until(lambda: page.wait_for_timeout(10) or failed == ["POST"], "the request is given up")
    page.unroute("**/audio/voices")
    keep(page)
    expect(page.locator("#status")).to_contain_text("The voice stopped is kept.")
    delete(page, "stopped")
    expect(page.locator("#kept li")).to_have_count(0)
