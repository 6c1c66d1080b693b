"""The pages on a phone, in the dark, and by keyboard alone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.server.audio.recordings import recorded
from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import speak, wait_for_tables

PATHS = ("/", "/voices", "/developers")
PHONE = {"width": 360, "height": 740}
FOCUS = """() => {
  const element = document.activeElement;
  const ring = element.matches(".wave input, .voice input") ? element.closest(".wave, .voice") : element;
  const { outlineStyle, outlineWidth } = getComputedStyle(ring);
  const box = ring.getBoundingClientRect();
  return {
    name: element.id || element.value || element.textContent.trim(),
    at: element === document.body ? "" : [...document.querySelectorAll("*")].indexOf(element),
    ring: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
    seen: box.bottom > 0 && box.top < innerHeight && box.width > 0,
  };
}"""
TABBABLE = """() => {
  const buttons = "button:not([tabindex='-1'])";
  const all = [...document.querySelectorAll(`a, ${buttons}, input, select, textarea, summary, [tabindex='0']`)];
  const open = all.filter((one) => !one.disabled && one.checkVisibility() && (one.type !== "radio" || one.checked));
  return open.map((one) => [...document.querySelectorAll("*")].indexOf(one));
}"""


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(path: str, request: pytest.FixtureRequest) -> RunningServer:
    """One on which all of the page is there."""
    return request.getfixturevalue("cloning_server" if path == "/voices" else "slow_server")


def wait_for_lists(page: Page) -> None:
    if page.url.endswith("/voices"):
        expect(page.locator("#voice")).to_be_visible()
    elif page.url.endswith("/developers"):
        wait_for_tables(page)
    else:
        expect(page.locator("#voices input").nth(2)).to_be_attached()


def take_recording(page: Page) -> None:
    page.locator("#audio_sample").set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": recorded()})
    expect(page.get_by_role("button", name="Play the part")).to_be_enabled()


def keep_voice(page: Page) -> None:
    take_recording(page)
    page.get_by_label("What is said in the part").fill("https://" + "verylongword" * 40)
    page.get_by_label("Name", exact=True).fill("n" * 64)
    page.get_by_label("Description").fill("d" * 200)
    page.get_by_label("the speaker knows").check()
    page.get_by_role("button", name="Keep the voice").click()
    expect(page.locator("#kept li")).to_have_count(1)


def delete_voice(page: Page) -> None:
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete: ").click()
    expect(page.locator("#kept li")).to_have_count(0)


@pytest.mark.parametrize("width", [320, 360, 768])
def test_no_page_scrolls_sideways(open_page: OpenPage, server: RunningServer, path: str, width: int) -> None:
    page = open_page(server, path, viewport={"width": width, "height": 740})
    wait_for_lists(page)
    assert page.evaluate("scrollY") == 0
    if path == "/":
        page.locator("#advanced").evaluate("details => (details.open = true)")
        page.get_by_label("Speak as I type").check()
        speak(page, "https://" + "verylongword" * 40, max_new_tokens=3)
        page.get_by_label("Download format").select_option("opus")
    elif path == "/voices":
        keep_voice(page)
        take_recording(page)
    else:
        page.get_by_role("button", name="Make a key").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    if path == "/voices":
        delete_voice(page)


def test_a_phone_needs_no_zoom(open_page: OpenPage, server: RunningServer, path: str) -> None:
    page = open_page(server, path, viewport=PHONE, has_touch=True, is_mobile=True)
    wait_for_lists(page)
    if path == "/voices":
        take_recording(page)
    fingers = page.locator("button, input:not([type=radio], [type=checkbox]), label.check, select").filter(visible=True)
    small = fingers.evaluate_all(
        "all => all.filter((one) => one.getBoundingClientRect().height < 32).map((one) => one.outerHTML)"
    )
    assert small == []
    # Phones zoom in on fields with letters below 16 px and stay there.
    fields = page.locator("input:not([type=radio], [type=checkbox], [type=range]), select, textarea")
    sizes = fields.evaluate_all("all => all.map((field) => getComputedStyle(field).fontSize)")
    assert min(float(size.removesuffix("px")) for size in sizes) >= 16


def test_a_phone_speaks(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, viewport=PHONE, has_touch=True, is_mobile=True)
    expect(page.locator("#voices input").first).to_be_attached()
    page.get_by_role("textbox", name="Text", exact=True).fill("Hello")
    page.get_by_role("button", name="Speak", exact=True).tap()
    expect(page.locator("#status")).to_contain_text("Done: ")


def test_the_page_is_as_bright_as_the_person_likes(open_page: OpenPage, server: RunningServer, path: str) -> None:
    page = open_page(server, path, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    letters = "getComputedStyle(document.body).color"

    def brightness(expression: str) -> float:
        colour: str = page.evaluate(expression)
        return sum(float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    assert brightness(ground) > 600 > 200 > brightness(letters)
    page.emulate_media(color_scheme="dark")
    assert brightness(ground) < 200 < 600 < brightness(letters)


def test_tab_reaches_everything_and_shows_where_it_is(open_page: OpenPage, server: RunningServer, path: str) -> None:
    page = open_page(server, path)
    wait_for_lists(page)
    if path == "/":
        speak(page, "Hello", max_new_tokens=2)
        page.reload()  # with a result in the list, and the focus nowhere
        wait_for_lists(page)
        expect(page.locator("#recent li")).to_have_count(1)
        page.locator("#advanced").evaluate("details => (details.open = true)")
    elif path == "/voices":
        keep_voice(page)
        page.reload()  # with a voice in the list, and the focus nowhere
        take_recording(page)
    wanted = page.evaluate(TABBABLE)
    reached = []
    for _ in range(len(wanted) + 1):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus["at"] == "" or focus["at"] in reached:
            break
        assert focus["ring"], focus
        assert focus["seen"], focus
        reached.append(focus["at"])
    assert reached == wanted
    if path == "/voices":
        delete_voice(page)


def test_the_studio_by_keyboard_alone(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    wait_for_lists(page)

    def tab_to(selector: str, key: str = "Tab") -> None:
        for _ in range(60):
            page.keyboard.press(key)
            if page.locator(selector).evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"Tab never reaches {selector}")

    tab_to("#input")
    text = "Hello by hand." + "\n\nAnd on." * 9  # each paragraph takes this server half a second
    page.keyboard.press("Control+A")
    page.keyboard.type(text)
    tab_to("#voices input:checked")
    before = page.locator("#voices input:checked").input_value()
    page.keyboard.press("ArrowDown")
    after = page.locator("#voices input:checked").input_value()
    assert after != before
    tab_to("summary")
    page.keyboard.press("Enter")
    tab_to("#max_new_tokens")
    page.keyboard.type("24")  # seconds
    with page.expect_request("**/v1/audio/speech") as waiting:
        page.keyboard.press("Enter")
    order = waiting.value.post_data_json
    assert (order["input"], order["voice"], order["max_new_tokens"]) == (text, after, 300)
    tab_to("#speak")
    expect(page.locator("#status")).to_have_text("Speaking.")
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_have_text("Stopped.")
    tab_to("#input", "Shift+Tab")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Done: ")
    tab_to("#play")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_focused()
    tab_to("#download")
    with page.expect_download():
        page.keyboard.press("Enter")
