"""The studio in Chromium, against the real server and the model that the repository ships."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from playwright.sync_api import expect

from tests.server.running import RunningServer, fetch
from tests.web.conftest import OpenPage
from tests.web.studio import download, pcm_of, played, record_playing, speak, text_of, write

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
        "[.5s] [5] <break time='1s' />": "29 characters, 1 s of pauses",
    }.items():
        text_of(page).fill(text)
        expect(count).to_have_text(words)
    text_of(page).fill("Hello")
    page.get_by_role("button", name="Insert pause").click()
    expect(text_of(page)).to_have_value("Hello[0.5s]")
    expect(count).to_have_text("11 characters, 0.5 s of pauses")


def test_the_voice_picker_searches(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    rows = page.locator("#voices label")
    expect(page.locator("#voices input[value=eric]")).to_be_checked()
    expect(page.locator("#voices input[value=alloy]")).to_have_count(0)
    search = page.get_by_label("Search voices")
    search.fill("allo")
    page.locator("#voices input[value=alloy]").check()
    search.fill("female")
    expect(rows.filter(has_text="serena").first).to_be_visible()
    expect(rows.filter(has_text="ryan")).to_have_count(0)
    search.fill("nobody at all")
    expect(page.locator("#voice-count")).to_contain_text("0 of ")
    search.fill("")
    expect(page.locator("#voices input[value=alloy]")).to_be_checked()  # the chosen one stays in sight


def test_speakers_come_first_with_what_is_known_of_them(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    many = ["chinese", "english", "german", "french"]
    voices = [
        {"id": "ryan", "name": "Ryan", "speaker": "ryan", "gender": "male", "languages": ["english"]},
        {"id": "alloy", "name": "alloy", "alias_of": "ryan"},
        {"id": "ryan_calm", "name": "Ryan, calm", "speaker": "ryan", "description": "For sleep.", "languages": many},
        {"id": "bare"},
    ]
    page.route("**/v1/audio/voices*", lambda route: route.fulfill(json={"voices": voices}))
    page.reload()
    list_of = page.locator("#voices > *")
    expect(list_of).to_have_text(
        ["Speakers", "Ryan ryanmale · English", "bare", "Profiles", "Ryan, calm ryan_calmFor sleep.4 languages"]
    )
    expect(page.locator("#voices input[value=ryan]")).to_be_checked()
    expect(page.locator("#voice-count")).to_have_text("3 voices, 1 other name to search for")
    page.get_by_label("Search voices").fill("allo")
    expect(page.locator("#voices label").last).to_have_text("alloyanother name of ryan")
    page.get_by_label("Search voices").fill("SLEEP rya")
    expect(page.locator("#voice-count")).to_have_text("1 of 4 voices")
    page.locator("#voices input[value=ryan_calm]").check()
    with page.expect_request("**/v1/audio/speech") as waiting:
        page.get_by_role("button", name="Hear a sample").click()
    assert waiting.value.post_data_json["voice"] == "ryan_calm"


def test_stand_ins_are_folded_up_and_say_who_speaks(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    lacking = {"alias_of": "bo", "stand_in": True, "speaker": "bo", "languages": ["english"]}
    voices = [
        {"id": "bo", "name": "Bo", "speaker": "bo", "languages": ["english"]},
        {"id": "uncle_fu_clear", "name": "Uncle Fu Clear (Bo)", **lacking},
        {"id": "alloy", "name": "alloy (Bo)", **lacking},
    ]
    page.route("**/v1/audio/voices*", lambda route: route.fulfill(json={"voices": voices}))
    page.reload()
    expect(page.locator("#voices input[value=bo]")).to_be_checked()
    expect(page.locator("#voices input[value=bo]")).to_be_in_viewport()
    expect(page.locator("#voice-count")).to_have_text("1 voice, 2 stand-ins")
    summary, stand_in = page.locator("#voices summary"), page.locator("#voices label", has_text="Uncle Fu")
    expect(summary).to_have_text("Stand-ins (2): their own speakers are not in this model")
    expect(stand_in).not_to_be_visible()
    summary.press("Enter")
    expect(stand_in).to_have_text("Uncle Fu Clear (Bo) uncle_fu_clearspeaks as bo · English")
    summary.press("Enter")
    expect(stand_in).not_to_be_visible()
    page.get_by_label("Search voices").fill("fu")
    expect(page.locator("#voice-count")).to_have_text("1 of 3 voices")
    stand_in.click()
    page.get_by_label("Search voices").fill("")
    expect(stand_in).to_be_visible()  # the chosen one stays in sight


def test_a_sample_is_heard_and_not_kept(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    write(page, "My own text.")
    page.locator("#voices input[value=serena]").check()
    with page.expect_request("**/v1/audio/speech") as waiting:
        page.get_by_role("button", name="Hear a sample").click()
    order = waiting.value.post_data_json
    assert (order["voice"], order["response_format"], order["stream"]) == ("serena", "pcm", True)
    assert order["input"] != "My own text."
    expect(page.locator("#take-text")).to_have_text("Sample of Serena")
    expect(page.locator("#status")).to_contain_text("Done: ")
    expect(text_of(page)).to_have_value("My own text.")
    expect(page.locator("#recent li")).to_have_count(0)
