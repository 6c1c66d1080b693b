"""The pages without a browser: every name leads somewhere, and nothing leads out of the house."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.audio.encoders import MARK
from server.http.routes.pages import WEB
from tests.web.files import FILES, HTML, SCRIPTS, Element, Page, imports, script

MOST_BYTES = 200 * 1024
"""Of all files as they are, with comments. 9 KB of it speak a text while it is typed: the conversation over a
WebSocket, a key for it, the marks in the text, and the playing on behind a gap. 25 KB are the page of cloned voices:
its own HTML, the microphone, reading and trimming a recording, and keeping, trying and deleting voices. 28 KB are the
developers' page: its own HTML, the examples, and the tables that it draws of the OpenAPI document. 18 KB speak a text
file paragraph by paragraph: reading it, the list, its times and its files. 9 KB are texts to begin with, in ten
languages."""
WORKLETS = {"microphone_tap.js"}
"""Scripts that no module imports, because the browser runs them in a thread of its own."""
CONTROLS = ("input", "select", "textarea", "button")
COLOURS = re.compile(r"--([a-z-]+): (#[0-9a-f]{6});")


@pytest.fixture(params=HTML)
def page(request: pytest.FixtureRequest) -> Page:
    return Page(request.param)


def test_ids_are_unique(page: Page) -> None:
    assert sorted(page.ids) == sorted(set(page.ids))


def test_every_label_has_a_control_and_every_control_a_name(page: Page) -> None:
    labels = page.all("label")
    controls = page.all(*CONTROLS)
    targets = {label["for"] for label in labels if label["for"]}
    assert targets <= {control["id"] for control in controls}
    for label in labels:
        assert label.text.strip()
        assert label["for"] or any(control.parent is label for control in controls), label

    def named(control: Element) -> bool:
        spoken = control["aria-label"] or (control.tag == "button" and control.text.strip())
        return bool(spoken) or control["id"] in targets or control.inside("label")

    assert [control for control in controls if not named(control)] == []


def test_every_id_that_is_mentioned_exists(page: Page) -> None:
    for element in page.elements:
        for attribute in ("for", "aria-labelledby", "aria-describedby", "aria-controls", "data-copy"):
            assert set(element[attribute].split()) <= set(page.ids), element
    for name in page.scripts():
        assert set(re.findall(r'byId\("([^"]+)"\)', script(name))) <= set(page.ids), name


def test_every_file_that_is_named_exists(page: Page) -> None:
    names = [element["href"] or element["src"] for element in page.all("link", "script", "img")]
    assert names
    assert all(name.startswith("web/") and (WEB / name[4:]).is_file() for name in names), names
    links = {element["href"] for element in page.all("a")}
    inside = {link for link in links if link.startswith("#")}
    assert {link[1:] for link in inside} <= set(page.ids)
    everywhere = {"./", "voices", "developers", "api/v1/index.html"}
    assert links - inside == everywhere | ({"api/v1/openapi.json"} if page.name == "developers.html" else set())


def test_a_page_names_all_of_its_modules_so_that_they_come_together() -> None:
    studio = Page("index.html")
    named = {link["href"].removeprefix("web/") for link in studio.all("link") if link["rel"] == "modulepreload"}
    assert named == studio.scripts() - {"studio.js"}


def test_the_first_text_is_the_english_sentence() -> None:
    field = next(element for element in Page("index.html").all("textarea") if element["id"] == "input")
    assert f'sentence: "{field.text}"' in script("texts.js")


def test_what_a_module_imports_is_exported() -> None:
    for name in SCRIPTS:
        assert set(imports(name)) <= set(SCRIPTS), name
        for names, source in re.findall(r'^import \{ (.+) \} from "\./(.+)";$', script(name), re.MULTILINE):
            for wanted in names.split(", "):
                exported = rf"^export (?:const|class|(?:async )?function\*?) {wanted}\b"
                assert re.search(exported, script(source), re.MULTILINE), f"{name}: {source} exports no {wanted}"


def test_every_module_is_used() -> None:
    modules = set().union(*(Page(name).scripts() for name in HTML))
    named = {name for name in WORKLETS if any(f'"{name}"' in script(module) for module in modules)}
    assert modules | named == set(SCRIPTS)


def test_nothing_is_inline_as_the_policy_would_block_it(page: Page) -> None:
    assert page.all("style") == []
    for element in page.elements:
        assert not [name for name in element.attributes if name == "style" or name.startswith("on")], element
    assert all(element["src"] and not element.text.strip() for element in page.all("script"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "").replace(MARK, "")
    assert not re.findall(r"(?:https?:|\bwss?:|\burl\(|@import|[\"']//)[^\s]*", text)


def test_the_pages_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < MOST_BYTES


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(scheme: str) -> None:
    both = (WEB / "style.css").read_text("utf-8").split("@media (prefers-color-scheme: dark)")
    colours = dict(COLOURS.findall(both[0]))
    if scheme == "dark":
        colours |= dict(COLOURS.findall(both[1]))

    def contrast(one: str, other: str) -> float:
        darker, lighter = sorted((luminance(colours[one]), luminance(colours[other])))
        return (lighter + 0.05) / (darker + 0.05)

    grounds = ("page", "card", "field", "tint")
    poor = [(text, on) for text in ("ink", "soft", "accent", "bad") for on in grounds if contrast(text, on) < 4.5]
    assert poor == []
    assert contrast("on-accent", "accent") >= 4.5
    assert contrast("edge", "card") >= 3
