"""What is in the form, copied as programs that are run as they stand, and as links that fill it again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from tests.server.running import KEY, PATIENCE_SECONDS, ROOT, RunningServer, clean_environment, fetch
from tests.web.conftest import OpenPage
from tests.web.studio import text_of, use_key, write

COMMANDS = {"curl": ["bash", "example"], "Python": [sys.executable, "example"], "Node": ["node", "example.mjs"]}
CLIPBOARD = ["clipboard-read", "clipboard-write"]
ODD = """It's "$HOME" \\ `date` !! — né 🙂 </script>\n[0.5s] END\u2028\x7f"""
SAMPLING = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "repetition_penalty": 1.1, "seed": 9, "max_new_tokens": 12}


def copied(page: Page, name: str) -> str:
    """Press one of the buttons that copy, and return what the clipboard has."""
    page.get_by_role("group", name="Copy this form as").get_by_role("button", name=name).click()
    expect(page.locator("#status")).to_contain_text("is copied.")
    text: str = page.evaluate("navigator.clipboard.readText()")
    assert page.locator("#shared-text").text_content() == text
    return text


def run(name: str, text: str, folder: Path, **environment: str) -> Path:
    """Run a program as a person would who copied it; returns the one file that it makes."""
    command = COMMANDS[name]
    (folder / command[1]).write_text(text)
    (folder / "node_modules").symlink_to(ROOT / "tests" / "node" / "node_modules")
    before = set(folder.iterdir())
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    (made,) = set(folder.iterdir()) - before
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_a_program_asks_for_what_the_form_has(
    open_page: OpenPage, real_server: RunningServer, name: str, tmp_path: Path
) -> None:
    """Every field counts: the audio is the same only if all of them are the same."""
    page = open_page(real_server, permissions=CLIPBOARD)
    write(page, ODD, **SAMPLING)
    page.locator("#voices input[value=ryan]").check()
    page.get_by_label("Language", exact=True).select_option("chinese")
    page.get_by_role("button", name="1.25×").click()
    page.get_by_label("Download format").select_option("flac")
    made = run(name, copied(page, name), tmp_path)
    assert made.name == "speech.flac"
    order = {
        "model": "qwen3_tts_random",
        "voice": "ryan",
        "input": ODD,
        "language": "chinese",
        "speed": 1.25,
        "response_format": "flac",
        **SAMPLING,
    }
    asked = fetch("POST", f"{real_server.url}/v1/audio/speech", json=order)
    assert asked.status_code == 200, asked.text
    assert made.read_bytes() == asked.content


@pytest.mark.parametrize("name", COMMANDS)
def test_a_key_is_never_copied(open_page: OpenPage, keyed_server: RunningServer, name: str, tmp_path: Path) -> None:
    page = open_page(keyed_server, permissions=CLIPBOARD)
    use_key(page, KEY)
    expect(page.locator("#status")).to_have_text("The server takes the key.")
    page.get_by_label("Model").select_option("design")
    expect(page.locator("#voices input[value=design]")).to_be_checked()
    write(page, "Hello", instructions='An old man\'s "amused" voice.')
    text = copied(page, name)
    assert KEY not in text
    assert "KW_SECRET_API_KEY" in text
    assert run(name, text, tmp_path, KW_SECRET_API_KEY=KEY).read_bytes().startswith(b"RIFF")
    assert keyed_server.events("prompt")[-1]["instruction"] == 'An old man\'s "amused" voice.'


def test_a_long_text_is_no_argument_of_curl(open_page: OpenPage, slow_server: RunningServer, tmp_path: Path) -> None:
    """Linux takes arguments of at most 128 KiB."""
    page = open_page(slow_server, permissions=CLIPBOARD)
    text = "Ünï'cödé. " * 9000
    write(page, text)
    command = copied(page, "curl")
    (tmp_path / "curl").write_text("#!/bin/sh\ncat\n")
    (tmp_path / "curl").chmod(0o755)
    script = tmp_path / "example"
    script.write_text(f"PATH={tmp_path}:$PATH\n{command}")
    sent = subprocess.run(["bash", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(sent)["input"] == text


def test_without_a_clipboard_it_is_shown_and_selected(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    page.evaluate(
        """() => {
          Object.defineProperty(navigator, 'clipboard', { value: undefined });
          document.execCommand = () => false;
        }"""
    )
    write(page, "Hello")
    page.get_by_role("button", name="curl", exact=True).click()
    expect(page.locator("#status")).to_have_text("The curl command is selected below: copy it with Ctrl and C.")
    assert page.evaluate("String(getSelection())").startswith(f"curl {slow_server.url}/v1/audio/speech")
    page.get_by_role("button", name="Hide", exact=True).click()
    expect(page.locator("#shared")).to_be_hidden()


def test_a_form_that_cannot_be_sent_is_not_copied(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    write(page, " ")
    page.get_by_role("button", name="Link", exact=True).click()
    expect(page.locator("#error")).to_have_text("Write something to say first.")
    expect(page.locator("#shared")).to_be_hidden()
    write(page, "x" * 16_000)
    page.get_by_role("button", name="Link", exact=True).click()
    expect(page.locator("#error")).to_contain_text("too long for a link")


def form_of(page: Page) -> dict[str, str]:
    """The fields of the form as they stand."""
    values: dict[str, str] = page.evaluate("() => Object.fromEntries(new FormData(document.querySelector('#request')))")
    return values


def test_a_link_fills_the_form_and_does_not_speak(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, permissions=CLIPBOARD)
    page.get_by_label("Model").select_option("design")
    expect(page.locator("#voices input[value=design]")).to_be_checked()
    write(page, ODD, **SAMPLING)
    page.get_by_label("Language", exact=True).select_option("german")
    page.get_by_label("Instructions", exact=True).fill("Like a cat & a #dog+.")
    page.get_by_role("button", name="1.5×").click()
    page.get_by_label("Download format").select_option("opus")
    before = form_of(page)
    link = copied(page, "Link")
    assert link.startswith(f"{slow_server.url}/#"), "what stands behind # is not sent to the server"

    other = open_page(slow_server, link.removeprefix(slow_server.url))
    asked: list[str] = []
    other.on("request", lambda request: request.method == "POST" and asked.append(request.url))
    expect(other.locator("#status")).to_have_text("The form is as the link has it.")
    assert form_of(other) == before
    assert other.url == f"{slow_server.url}/"
    assert asked == []
    text_of(other).fill("Changed.")
    other.reload()
    expect(other.locator("#voices input").first).to_be_attached()
    expect(text_of(other)).not_to_have_value(ODD)

    # A link that is pasted into the page's own address counts too; fields that it does not have are at their defaults.
    other.goto(f"{slow_server.url}/#voice=ryan&text=Second")
    expect(text_of(other)).to_have_value("Second")
    other.goto(f"{slow_server.url}/#model=custom&voice=ryan&text=Third")
    expect(text_of(other)).to_have_value("Third")
    expect(other.locator("#voices input[value=ryan]")).to_be_checked()
    other.goto(f"{slow_server.url}/#main")  # this leads to a place of the page
    expect(other.locator("#status")).to_have_text("The form is as the link has it.")
    assert other.url.endswith("#main")
    assert asked == []


def test_a_link_may_have_its_fields_in_the_query(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/?voice=ryan&text=Hello+there%21")
    expect(text_of(page)).to_have_value("Hello there!")
    expect(page.locator("#voices input[value=ryan]")).to_be_checked()


def test_what_a_link_may_not_have_is_ignored_and_told(open_page: OpenPage, slow_server: RunningServer) -> None:
    wrong = {
        "model": "no<b>model",
        "voice": "nobody",
        "language": "klingon",
        "speed": "99",
        "seed": "-4",
        "top_p": "abc",
        "max_new_tokens": "1.5",
        "response_format": "x" * 100,
    }
    page = open_page(slow_server, "/#" + urlencode({**wrong, "text": "Kept.", "top_k": "7", "unknown": "1"}))
    status = page.locator("#status")
    expect(status).to_contain_text("The form is as the link has it. Ignored")
    told = status.text_content() or ""
    assert all(f"{name} “" in told for name in wrong)
    assert "unknown" not in told
    assert "x" * 40 in told
    assert "x" * 41 not in told
    expect(status.locator("b")).to_have_count(0)
    form = form_of(page)
    assert (form["input"], form["top_k"], form["voice"]) == ("Kept.", "7", "aiden")
    assert (form["language"], form["speed"], form["seed"], form["max_new_tokens"]) == ("auto", "1", "", "")
    assert form["response_format"] == "wav"


def test_a_link_that_is_too_long_is_ignored(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/#text=" + "x" * 20_000)
    expect(page.locator("#status")).to_contain_text("The link was ignored")
    expect(text_of(page)).not_to_have_value("x" * 20_000)


def test_what_only_a_key_opens_is_filled_in_behind_it(open_page: OpenPage, keyed_server: RunningServer) -> None:
    page = open_page(keyed_server, "/#text=Hallo&voice=ryan&language=german&seed=4")
    expect(page.locator("#status")).to_have_text("The form is as the link has it.")
    expect(text_of(page)).to_have_value("Hallo")
    use_key(page, KEY)
    expect(page.get_by_label("Language", exact=True)).to_have_value("german")
    expect(page.locator("#seed")).to_have_value("4")
    expect(page.locator("#voices input[value=ryan]")).to_be_checked()
