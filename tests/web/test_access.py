"""The pages for who hears them, who uses no mouse, and who has chosen colours or stillness."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import speak, write


@pytest.mark.parametrize("path", ["/", "/voices", "/developers"])
def test_the_first_tab_leads_past_the_links(open_page: OpenPage, cloning_server: RunningServer, path: str) -> None:
    page = open_page(cloning_server, path)
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).not_to_be_in_viewport()
    page.keyboard.press("Tab")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def test_a_voice_is_called_by_its_name_alone(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    voices = [
        {"id": "ryan", "name": "Ryan", "speaker": "ryan", "gender": "male", "description": "Calm."},
        {"id": "ryan_news", "name": "Ryan News", "speaker": "ryan", "gender": "male"},
    ]
    page.route("**/v1/audio/voices*", lambda route: route.fulfill(json={"voices": voices}))
    page.reload()
    group = page.get_by_role("radiogroup", name="Voice").get_by_role("group", name="Speakers", exact=True)
    radio = group.get_by_role("radio", name="Ryan", exact=True)
    expect(radio).to_have_accessible_description("ryan Calm. male")
    expect(page.get_by_role("group", name="Profiles").get_by_role("radio")).to_have_count(1)


def test_no_head_of_a_group_covers_the_voice_that_has_the_focus(
    open_page: OpenPage, slow_server: RunningServer
) -> None:
    page = open_page(slow_server)
    voices = [{"id": f"voice{i}", "name": f"Voice {i}", "speaker": f"voice{i}"} for i in range(30)]
    page.route("**/v1/audio/voices*", lambda route: route.fulfill(json={"voices": voices}))
    page.reload()
    page.locator("#voices input").last.check()
    page.locator("#voices input").last.focus()
    for _ in range(28):
        page.keyboard.press("ArrowUp")
        covered = page.evaluate(
            """() => {
              const row = document.activeElement.closest(".voice").getBoundingClientRect();
              const head = document.querySelector("#voices .group").getBoundingClientRect();
              const list = document.querySelector("#voices").getBoundingClientRect();
              return row.top < head.bottom - 1 || row.bottom > list.bottom + 1;
            }"""
        )
        assert not covered, page.evaluate("document.activeElement.value")


def test_nothing_moves_for_who_wants_stillness(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator(".hear").first).to_be_attached()
    moving = "getComputedStyle(document.querySelector('.hear')).animationName"
    page.locator(".hear").first.evaluate("button => button.setAttribute('data-waiting', '')")
    assert page.evaluate(moving) != "none"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == "none"


def test_colours_that_are_forced(open_page: OpenPage, slow_server: RunningServer) -> None:
    """The canvas is drawn in the system's colours, its focus is seen, and signs that are drawn with borders stay."""
    page = open_page(slow_server, forced_colors="active")
    speak(page, "Hello", max_new_tokens=3)
    expect(page.locator("#wave")).to_have_attribute("data-state", "idle")
    drawn = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"
    assert page.evaluate(drawn, "--wave") == "GrayText"
    page.get_by_role("button", name="Play", exact=True).focus()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Position")).to_be_focused()
    outline = page.locator(".wave").evaluate("one => getComputedStyle(one).outline")
    assert "solid 3px" in outline, outline
    sides = page.locator("#play").evaluate(
        "one => ['Top', 'Left'].map((side) => getComputedStyle(one, '::before')[`border${side}Color`])"
    )
    assert sides[0] == "rgba(0, 0, 0, 0)"
    assert sides[1] != sides[0]


def test_the_length_limit_is_in_seconds(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    write(page, "Hello")
    page.locator("#advanced").evaluate("details => (details.open = true)")
    for seconds, frames in {"1": 12, "0.24": 3, "2.4": 30, "0.1": 1, "10.08": 126}.items():
        page.get_by_label("Length limit (seconds)").fill(seconds)
        with page.expect_request("**/v1/audio/speech") as waiting:
            page.get_by_role("button", name="Speak", exact=True).click()
        assert waiting.value.post_data_json["max_new_tokens"] == frames
        page.get_by_role("button", name="Stop").click()
    page.get_by_label("Length limit (seconds)").fill("0")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#error")).to_contain_text("Length limit (seconds): ")


def test_speeds_are_one_press_away(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    usual = page.get_by_role("group", name="Usual speeds")
    slider = page.get_by_role("slider", name="Speed")
    for name, speed in {"0.75×": "0.75", "1.25×": "1.25", "1.5×": "1.5", "1×": "1"}.items():
        usual.get_by_role("button", name=name, exact=True).click()
        expect(slider).to_have_value(speed)
        expect(page.locator("#speed-shown")).to_have_text(name)
        expect(usual.locator("[aria-pressed=true]")).to_have_text([name])
    slider.fill("2.35")
    expect(usual.locator("[aria-pressed=true]")).to_have_count(0)
    slider.dblclick(position={"x": 5, "y": 5})
    expect(slider).to_have_value("1")
