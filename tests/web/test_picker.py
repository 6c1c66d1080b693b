"""The list of voices: what it shows, how it is narrowed, and how each voice is heard where it stands."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.server.running import RunningServer, fetch
from tests.web.conftest import OpenPage
from tests.web.studio import make_exactly, played, record_playing, speak, text_of, write

MANY = ["chinese", "english"]
VOICES: list[dict[str, Any]] = [
    {"id": "vi", "name": "Vi", "speaker": "vi", "gender": "female", "language": "chinese", "languages": MANY},
    {"id": "ryan", "name": "Ryan", "speaker": "ryan", "gender": "male", "language": "english", "languages": MANY},
    {
        "id": "ryan_calm",
        "name": "Ryan Calm",
        "speaker": "ryan",
        "gender": "male",
        "language": "english",
        "languages": MANY,
        "tags": ["calm"],
        "instruction_used": True,
    },
    {"id": "alloy", "name": "alloy", "alias_of": "vi", "gender": "female", "language": "chinese", "languages": MANY},
]


def list_voices(page: Page, voices: list[dict[str, Any]]) -> None:
    """Have the server list these voices."""
    page.route("**/v1/audio/voices*", lambda route: route.fulfill(json={"voices": voices}))
    page.reload()
    expect(page.locator("#voices input").first).to_be_attached()


def names(page: Page) -> list[str]:
    """The ids of the voices that are listed, in their order."""
    found: list[str] = page.locator("#voices input").evaluate_all("all => all.map((one) => one.value)")
    return found


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
    list_of = page.locator("#voices .group, #voices label")
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
        page.get_by_role("button", name="Hear Ryan, calm").click()
    assert waiting.value.post_data_json["voice"] == "ryan_calm"


def test_stand_ins_are_folded_up_and_say_who_speaks(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    lacking = {"alias_of": "bo", "stand_in": True, "speaker": "bo", "gender": "male", "languages": ["english"]}
    voices = [
        {"id": "bo", "name": "Bo", "speaker": "bo", "gender": "male", "languages": ["english"]},
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
    expect(stand_in).to_have_text("Uncle Fu Clear (Bo) uncle_fu_clearspeaks as bo · male · English")
    summary.press("Enter")
    expect(stand_in).not_to_be_visible()
    page.get_by_label("Search voices").fill("fu")
    expect(page.locator("#voice-count")).to_have_text("1 of 3 voices")
    stand_in.click()
    page.get_by_label("Search voices").fill("")
    expect(stand_in).to_be_visible()  # the chosen one stays in sight


def test_filters_are_what_the_voices_differ_in(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    list_voices(page, VOICES)
    filters = page.get_by_role("group", name="Filters of the voices")
    expect(filters.get_by_role("button")).to_have_text(["Female", "Male", "Follows instructions"])
    female, male = filters.get_by_role("button", name="Female"), filters.get_by_role("button", name="Male", exact=True)
    male.click()
    expect(male).to_have_attribute("aria-pressed", "true")
    assert names(page) == ["vi", "ryan", "ryan_calm"], "the chosen one stays in sight"
    expect(page.locator("#voice-count")).to_have_text("2 of 4 voices")
    page.locator("#voices input[value=ryan]").check()
    page.get_by_label("Language of the voice").select_option("english")
    assert names(page) == ["ryan", "ryan_calm"]
    page.get_by_label("Style of the voice").select_option("calm")
    expect(page.locator("#voice-count")).to_have_text("1 of 4 voices")
    female.click()
    expect(male).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#voice-count")).to_have_text("0 of 4 voices")
    female.click()
    page.get_by_label("Language of the voice").select_option("")
    page.get_by_label("Style of the voice").select_option("")
    page.get_by_role("button", name="Follows instructions").click()
    expect(page.locator("#voice-count")).to_have_text("1 of 4 voices")

    # What is not told, or told of all alike, cannot be asked for; a filter that is gone narrows nothing.
    list_voices(page, [{"id": "ryan"}, {"id": "vi", "languages": []}])
    expect(filters.locator("*")).to_have_count(0)
    assert names(page) == ["ryan", "vi"]


def test_styles_come_from_the_server(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    listed = fetch("GET", f"{real_server.url}/v1/audio/voices").json()["voices"]
    told = [voice["id"] for voice in listed if "story" in voice["tags"] and not voice["alias_of"]]
    page.get_by_label("Style of the voice").select_option("story")
    assert told
    assert sorted({"eric", *told}) == sorted(names(page)), "the chosen one stays in sight"


def test_favourites_come_first_and_stay(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    list_voices(page, VOICES)
    assert names(page) == ["vi", "ryan", "ryan_calm"]
    star = page.get_by_role("button", name="Favourite: Ryan Calm")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(star).to_be_focused()
    assert names(page) == ["ryan_calm", "vi", "ryan"]
    page.get_by_label("Search voices").fill("alloy")
    page.get_by_role("button", name="Favourite: alloy").click()
    page.get_by_label("Search voices").fill("")
    page.reload()
    expect(page.get_by_role("group", name="Favourites").get_by_role("radio")).to_have_count(2)
    assert names(page) == ["ryan_calm", "alloy", "vi", "ryan"]
    expect(page.locator("#voices input[value=vi]")).to_be_checked()
    star.click()
    assert names(page) == ["alloy", "vi", "ryan", "ryan_calm"]


def test_broken_favourites_do_no_harm(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    for kept in ("{", '"all"', "null"):
        page.evaluate("kept => localStorage.setItem('favourite-voices', kept)", kept)
        page.reload()
        expect(page.locator("#voices input").first).to_be_attached()
        expect(page.get_by_role("group", name="Favourites")).to_have_count(0)


def test_a_sample_is_heard_where_the_voice_stands(open_page: OpenPage, real_server: RunningServer) -> None:
    """It is asked for once, disturbs no take, and is no result."""
    page = open_page(real_server)
    make_exactly(page, 25)
    speak(page, "My own text.", max_new_tokens=4, temperature=0.3)
    record_playing(page)
    asked: list[dict[str, Any]] = []
    page.on("request", lambda request: request.method == "POST" and asked.append(request.post_data_json))
    hear, stop = page.locator(".hear[value=serena]"), page.get_by_role("button", name="Stop the sample of Serena")
    expect(hear).to_have_accessible_name("Hear Serena")
    hear.click()
    expect(stop).to_be_visible()
    expect(hear).to_have_accessible_name("Hear Serena")
    wanted = {"model": "qwen3_tts_random", "voice": "serena", "seed": 1, "max_new_tokens": 150}
    text = asked[0]["input"]
    assert {name: asked[0][name] for name in wanted} == wanted
    assert text != "My own text."
    assert "temperature" not in asked[0]
    first, _, _ = played(page)
    expect(page.locator("#take-text")).to_have_text("My own text.")
    expect(text_of(page)).to_have_value("My own text.")
    expect(page.locator("#recent li")).to_have_count(1)
    expect(page.locator("#voices input[value=eric]")).to_be_checked()

    page.reload()
    expect(page.locator("#voices input").first).to_be_attached()
    record_playing(page)
    hear.click()
    expect(stop).to_be_visible()
    expect(hear).to_have_accessible_name("Hear Serena")
    assert len(asked) == 1
    again, _, _ = played(page)
    assert again.tobytes() == first.tobytes()

    page.get_by_label("Language", exact=True).select_option("english")
    hear.click()
    expect(stop).to_be_visible()
    stop.click()
    expect(hear).to_have_accessible_name("Hear Serena")
    assert [order.get("language") for order in asked] == [None, "english"]
    assert asked[1]["input"] != text


def test_speaking_ends_a_sample_and_a_sample_ends_speaking(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page, 60)
    write(page, "Hello.")
    page.locator(".hear").first.click()
    expect(page.locator(".hear").first).to_have_accessible_name(re.compile("^Stop the sample of "))
    text_of(page).press("Control+Enter")
    expect(page.locator("#status")).to_have_text("Speaking.")
    expect(page.locator(".hear").first).to_have_accessible_name(re.compile("^Hear "))
    page.locator(".hear").nth(1).click()
    expect(page.locator(".hear").nth(1)).to_have_accessible_name(re.compile("^Stop the sample of "))
    expect(page.locator("#facts")).to_contain_text("Endedearly")
    text_of(page).press("Escape")
    expect(page.locator(".hear").nth(1)).to_have_accessible_name(re.compile("^Hear "))
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_visible()


def test_a_sample_that_a_take_ends_is_not_kept_in_part(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    speak(page, "A take.", max_new_tokens=5)
    make_exactly(page, 50)
    hear = page.locator(".hear").first
    hear.click()
    expect(hear).not_to_have_attribute("data-waiting", "")
    expect(hear).to_have_attribute("data-state", "stop")
    page.get_by_role("button", name="Play", exact=True).click()
    expect(hear).to_have_attribute("data-state", "play")
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_visible()
    with page.expect_request("**/v1/audio/speech"):
        hear.click()
    expect(hear).to_have_attribute("data-state", "stop")


def test_a_sample_that_fails_is_told_and_not_kept(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator("#voices input").first).to_be_attached()
    refused = {"error": {"message": "no", "type": "server_error", "param": None, "code": "no"}, "message": "no"}
    page.route("**/v1/audio/speech", lambda route: route.fulfill(status=500, json=refused))
    hear = page.locator(".hear").first
    hear.click()
    expect(page.locator("#error")).to_have_text("No.")
    expect(hear).to_have_accessible_name(re.compile("^Hear "))
    page.unroute("**/v1/audio/speech")
    with page.expect_request("**/v1/audio/speech"):
        hear.click()
    expect(page.locator("#error")).to_be_empty()


def test_the_samples_that_are_kept_are_bounded(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    kept = page.evaluate(
        """async () => {
          const { MOST_KEPT, findSample, keepSample } = await import("/web/sample_cache.js");
          const later = () => new Promise((resolve) => setTimeout(resolve, 2));
          for (let i = 0; i < MOST_KEPT; i++) {
            await keepSample(`key ${i}`, new Int16Array([i]));
            await later();
          }
          await findSample("key 0"); // heard again, it is not the oldest any more
          await keepSample("one more", new Int16Array([7]));
          const found = [];
          for (const key of ["key 0", "key 1", "key 2", "one more"]) found.push((await findSample(key))?.[0]);
          return found;
        }"""
    )
    assert kept == [0, None, 2, 7]
