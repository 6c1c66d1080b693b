"""The studio in Chromium, against the real server and the model that the repository ships."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from playwright.sync_api import expect

from tests.server.running import RunningServer, fetch
from tests.web.conftest import OpenPage
from tests.web.studio import download, pcm_of, played, record_playing, speak, text_of

FRAMES = 30
"""At most: random weights end where they like."""
LONG_SEED = 5
"""One that goes on for more than a second."""


def ask(server: RunningServer, **fields: object) -> bytes:
    body = {"model": "qwen3_tts_random", "input": "Hello there.", "voice": "eric", "max_new_tokens": FRAMES, **fields}
    response = fetch("POST", f"{server.url}/v1/audio/speech", json={**body, "stream": False})
    assert response.status_code == 200, response.text
    return response.content


def test_what_is_spoken_is_what_the_api_gives_played_without_a_gap(
    open_page: OpenPage, real_server: RunningServer
) -> None:
    page = open_page(real_server)
    record_playing(page)
    speak(page, "Hello there.", max_new_tokens=FRAMES, seed=LONG_SEED)
    expect(page.locator("#facts")).to_contain_text("First sound (TTFA)")
    expect(page.locator("#facts")).to_contain_text(f"Seed{LONG_SEED}")
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_visible()

    pcm = ask(real_server, seed=LONG_SEED, response_format="pcm")
    samples, begins, ends = played(page)
    assert len(begins) > 1
    assert samples.tobytes() == pcm
    assert np.all(begins[1:] >= ends[:-1] - 1e-9)


def test_the_waveform_shows_the_audio(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    empty = page.locator("#wave").screenshot()
    speak(page, "Hello there.", max_new_tokens=FRAMES)
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    full = page.locator("#wave").screenshot()
    assert full != empty
    page.get_by_label("Position").press("Home")
    assert page.locator("#wave").screenshot() != full  # nothing counts as played any more


def test_what_was_heard_is_saved_in_every_format_without_a_second_synthesis(
    open_page: OpenPage, real_server: RunningServer
) -> None:
    page = open_page(real_server)
    speak(page, "Hello there.", max_new_tokens=FRAMES, seed=8)
    asked: list[str] = []
    page.on("request", lambda request: request.method == "POST" and asked.append(request.url))

    name, wav = download(page, "wav")
    assert name == "eric-8.wav"
    pcm = ask(real_server, seed=8, response_format="pcm")
    assert pcm_of(wav) == pcm
    assert ask(real_server, seed=8, response_format="wav") == wav, "the mark that it is synthetic is there too"
    assert download(page, "pcm") == ("eric-8.pcm", pcm)
    assert asked == []

    for audio_format in ("mp3", "opus", "aac", "flac"):
        name, file = download(page, audio_format)
        assert name == f"eric-8.{audio_format}"
        assert file == ask(real_server, seed=8, response_format=audio_format), "its mark and its length too"
        assert asked.pop().endswith(f"/v1/audio/encode?response_format={audio_format}")
        assert download(page, audio_format)[1] == file
        assert asked == [], "a file that was made is kept"


def test_a_random_seed_is_in_the_name_of_its_file(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    speak(page, "Hello there.", max_new_tokens=FRAMES)
    wav = download(page, "wav")[1]
    name, flac = download(page, "flac")
    assert soundfile.read(io.BytesIO(flac), dtype="int16")[0].tobytes() == pcm_of(wav)
    seed = int(name.removeprefix("eric-").removesuffix(".flac"))
    assert ask(real_server, seed=seed, response_format="pcm") == pcm_of(wav)


def test_playing_can_be_paused_and_moved(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    speak(page, "Hello there.", max_new_tokens=FRAMES, seed=LONG_SEED)
    wave, position = page.locator("#wave"), page.get_by_label("Position")
    expect(wave).to_have_attribute("data-state", "idle")
    total = len(download(page, "pcm")[1]) // 2
    assert total > 24000
    record_playing(page)
    position.press("End")
    for _ in range(10):
        position.press("ArrowLeft")
    middle = float(position.input_value())
    assert 0 < middle < total / 24000
    page.get_by_role("button", name="Play", exact=True).click()
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(wave).to_have_attribute("data-state", "paused")
    assert middle <= float(position.input_value()) < total / 24000
    samples, _, _ = played(page)
    assert len(samples) == total - round(middle * 24000)
    page.get_by_role("button", name="Play", exact=True).click()
    expect(wave).to_have_attribute("data-state", "idle")


def test_the_text_is_counted_with_its_pauses(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    count = page.locator("#count")
    for text, words in {
        "": "0 characters",
        "a": "1 character",
        "né 🙂": "4 characters",
        'a[0.5s]b [pause:2s]<break time="250ms"/>': "40 characters, 2.75 s of pauses",
        "[.5s] [5] <break time='1s' />": "29 characters, 1.5 s of pauses",
        "[voice:ryan] Hello. [voice: eric] Hi.": "37 characters, 2 changes of voice",
    }.items():
        text_of(page).fill(text)
        expect(count).to_have_text(words)
    text_of(page).fill("Hello")
    page.get_by_role("button", name="Insert a pause of 0.5 s").click()
    expect(text_of(page)).to_have_value("Hello[0.5s]")
    expect(count).to_have_text("11 characters, 0.5 s of pauses")
    page.get_by_role("button", name="Insert a pause of 2 s").click()
    expect(text_of(page)).to_have_value("Hello[0.5s][2s]")
