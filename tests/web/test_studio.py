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


def test_a_take_is_saved_as_wav_and_pcm_from_its_samples_and_else_made_again(
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

    page.get_by_label("Download format").select_option("flac")
    expect(page.locator("#format-help")).to_contain_text("the same seed")
    name, flac = download(page, "flac")
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    assert (name, rate) == ("eric-8.flac", 24000)
    assert samples.tobytes() == pcm
    assert download(page, "flac")[1] == flac
    assert len(asked) == 1  # a file that was made is kept


def test_a_random_seed_is_shown_and_its_file_made_from_it(open_page: OpenPage, real_server: RunningServer) -> None:
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


def test_recent_results_survive_a_reload(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    speak(page, "The first one.", max_new_tokens=FRAMES, seed=1)
    page.locator("#voices input[value=ryan]").check()
    speak(page, "The second one.", max_new_tokens=FRAMES, seed=2, temperature=0.5)
    wav = download(page, "wav")[1]
    seconds = len(pcm_of(wav)) / 48000
    page.reload()
    rows = page.locator("#recent li")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("The second one.")
    expect(rows.first).to_contain_text(f"Ryan · {seconds:.2f} s")

    rows.first.get_by_role("button", name="Play").click()
    expect(page.locator("#wave")).to_have_attribute("data-state", "playing")
    assert download(page, "wav") == ("ryan-2.wav", wav)
    rows.first.get_by_role("button", name="Use again").click()
    expect(text_of(page)).to_have_value("The second one.")
    expect(page.locator("#voices input[value=ryan]")).to_be_checked()
    expect(page.get_by_label("Temperature")).to_have_value("0.5")

    rows.first.get_by_role("button", name="Delete").click()
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("The first one.")
    page.get_by_role("button", name="Clear all").click()
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    page.reload()
    expect(page.locator("#voices input").first).to_be_attached()
    expect(rows).to_have_count(0)


def test_a_take_that_an_earlier_version_kept_is_listed(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator("#recent-empty")).to_be_visible()
    page.evaluate(
        """() => new Promise((resolve) => {
          const asked = indexedDB.open("qwen3-tts-edge", 1);
          asked.onsuccess = () => {
            const takes = asked.result.transaction("takes", "readwrite").objectStore("takes");
            const order = { input: "From before.", voice: "ryan" };
            takes.put({ created: 1, order, voice: "Ryan", samples: new Int16Array(24000) }).onsuccess = () => resolve();
          };
        })"""
    )
    page.reload()
    expect(page.locator("#recent li")).to_contain_text("From before.")
