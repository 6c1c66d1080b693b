"""The developers' page in Chromium; its examples are run as they stand."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from server.http.access import KeyRing
from tests.server.running import KEY, PATIENCE_SECONDS, ROOT, RunningServer, clean_environment, fetch
from tests.web.conftest import OpenPage

COMMANDS = {"curl": ["bash", "example"], "python": [sys.executable, "example"], "node": ["node", "example.mjs"]}


def run_example(page: Page, name: str, folder: Path) -> None:
    """Run an example as a person would who copied it; it leaves `hello.mp3`."""
    text = page.locator(f"#{name}").text_content() or ""
    command = COMMANDS[name]
    (folder / command[1]).write_text(text)
    (folder / "node_modules").symlink_to(ROOT / "tests" / "node" / "node_modules")
    environment = clean_environment(KW_SECRET_API_KEY=KEY)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    mp3 = (folder / "hello.mp3").read_bytes()
    assert re.match(rb"ID3|\xff[\xe2-\xff]", mp3), mp3[:200]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_work_as_they_stand(
    open_page: OpenPage, keyed_server: RunningServer, name: str, tmp_path: Path
) -> None:
    page = open_page(keyed_server, "/developers")
    expect(page.locator("#key-needed")).to_contain_text("wants its API key")
    page.get_by_label("Voice", exact=True).select_option("ryan")
    expect(page.locator(f"#{name}")).to_contain_text("KW_SECRET_API_KEY")
    run_example(page, name, tmp_path)
    assert keyed_server.events("prompt")[-1]["speaker"] == "ryan"


@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_key_the_examples_want_none(
    open_page: OpenPage, slow_server: RunningServer, name: str, tmp_path: Path
) -> None:
    page = open_page(slow_server, "/developers")
    page.get_by_label("Model", exact=True).select_option("design")
    expect(page.locator(f"#{name}")).to_contain_text('"design"')
    expect(page.locator(f"#{name}")).not_to_contain_text("KW_SECRET_API_KEY")
    run_example(page, name, tmp_path)
    assert slow_server.events("prompt")[-1]["speaker"] is None


def test_a_late_list_of_voices_does_not_replace_that_of_the_chosen_model(
    open_page: OpenPage, slow_server: RunningServer
) -> None:
    page = open_page(slow_server, "/developers")
    choice, voice = page.get_by_label("Model", exact=True), page.locator("#voice")
    choice.select_option("design")
    expect(voice).to_have_value("design")
    held: list[Route] = []
    page.route("**/v1/audio/voices?model=custom", lambda route: held.append(route))
    with page.expect_request("**/v1/audio/voices?model=custom"):
        choice.select_option("custom")
    with page.expect_response("**/v1/audio/voices?model=design"):
        choice.select_option("design")
    with page.expect_response("**/v1/audio/voices?model=custom"):
        held[0].continue_()
    page.wait_for_timeout(300)  # for the page to read the answer
    expect(voice).to_have_value("design")


def test_the_examples_quote_what_they_name(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers")
    name = """o'neil "o" $HOME \\ \u00e9"""
    page.route("**/v1/audio/voices*", lambda route: route.fulfill(json={"voices": [{"id": name, "name": "O"}]}))
    page.reload()
    expect(page.locator("#voices th")).to_have_text([name])
    shown = {example: page.locator(f"#{example}").text_content() or "" for example in COMMANDS}
    script = f"""curl() {{ while [ "$1" != -d ]; do shift; done; printf %s "$2"; }}\n{shown["curl"]}"""
    sent = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(sent)["voice"] == name
    keywords = [node for node in ast.walk(ast.parse(shown["python"])) if isinstance(node, ast.keyword)]
    assert [ast.literal_eval(node.value) for node in keywords if node.arg == "voice"] == [name]
    voice_line = next(line for line in shown["node"].splitlines() if "voice: " in line)
    assert page.evaluate(voice_line.strip().removeprefix("voice: ").removesuffix(",")) == name


def test_a_key_is_made_in_the_browser_and_copied(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers", permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator("#models tr")).to_have_count(2)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    lines = set()
    for _ in range(3):
        page.get_by_role("button", name=re.compile("Make a")).click()
        line = page.locator("#key-line").text_content() or ""
        assert re.fullmatch(r'KW_SECRET_API_KEY="sk-[A-Za-z0-9_-]{43}"', line)
        lines.add(line)
    assert len(lines) == 3
    page.get_by_role("button", name="Copy the line").click()
    expect(page.get_by_role("status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == line
    key = line.split('"')[1]
    KeyRing([key]).check(f"Bearer {key}")
    assert asked == []


def test_copying_without_a_clipboard(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers")
    page.evaluate("() => { Object.defineProperty(navigator, 'clipboard', { value: undefined }); }")
    page.get_by_role("button", name="Copy the base URL").click()
    expect(page.get_by_role("status")).to_have_text("Copied.")
    assert page.evaluate("String(getSelection())").strip() == f"{slow_server.url}/v1"


def test_the_lists_are_the_servers(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers")
    expect(page.locator("#base")).to_have_text(f"{slow_server.url}/v1")
    expect(page.locator("#models th")).to_have_text(["custom", "design"])
    expect(page.locator("#models tr").first).to_contain_text("ignores them")
    expect(page.locator("#models tr").last).to_contain_text("follows them")
    voices = fetch("GET", f"{slow_server.url}/v1/audio/voices").json()["voices"]
    expect(page.locator("#voices th")).to_have_text([voice["id"] for voice in voices])
    page.get_by_label("Model", exact=True).select_option("design")
    expect(page.locator("#voices th").first).to_have_text("design")
    expect(page.locator("#voices-model")).to_have_text("design")
    expect(page.get_by_role("link", name="the API reference")).to_have_attribute("href", "api/v1/index.html")
