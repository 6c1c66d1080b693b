"""The developers' page in Chromium; its examples are run as they stand."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Locator, Page, Route, expect

from server.errors import ApiError, UpgradeRequiredError
from server.http.access import KeyRing
from server.speech.foreign_fields import ALIASES
from server.speech.request import SpeechRequest
from tests.server.running import KEY, PATIENCE_SECONDS, ROOT, RunningServer, clean_environment, fetch
from tests.web.conftest import OpenPage

BASH, PYTHON = ["bash", "example"], [sys.executable, "example"]
COMMANDS = {
    "curl": BASH,
    "python": PYTHON,
    "node": ["node", "example.mjs"],
    "play": BASH,
    "speaker": PYTHON,
    "events": PYTHON,
}
FFPLAY = "#!/bin/sh\nexec cat > hello.mp3\n"
"""Stands for the player, which needs a loudspeaker: it keeps what it is given."""
SOUNDDEVICE = """
class RawOutputStream:
    def __init__(self, *, samplerate, channels, dtype):
        assert (samplerate, channels, dtype) == (24000, 1, "int16")
        self.file = open("hello.pcm", "wb")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, part):
        assert len(part) % 2 == 0
        self.file.write(part)
"""
"""Stands for the package of this name."""
FRAME_BYTES = 2 * 1920
NOTE_READ = """() => {
  window.read = [];
  const read = Response.prototype.json;
  Response.prototype.json = async function () {
    const body = await read.call(this);
    window.read.push(this.url);
    return body;
  };
}"""
"""Script that notes which answers the page has read."""


def run_example(page: Page, name: str, folder: Path) -> None:
    """Run an example as a person would who copied it; it leaves `hello.mp3`, or samples in `hello.pcm`."""
    text = page.locator(f"#{name}").text_content() or ""
    command = COMMANDS[name]
    (folder / command[1]).write_text(text)
    (folder / "node_modules").symlink_to(ROOT / "tests" / "node" / "node_modules")
    (folder / "sounddevice.py").write_text(SOUNDDEVICE)
    (folder / "ffplay").write_text(FFPLAY)
    (folder / "ffplay").chmod(0o700)
    environment = clean_environment(KW_SECRET_API_KEY=KEY, PATH=f"{folder}:{os.environ['PATH']}")
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    if name == "speaker":
        size = (folder / "hello.pcm").stat().st_size
        assert size and size % FRAME_BYTES == 0
        return
    if name == "events":
        assert "output_tokens" in done.stdout
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
    page.evaluate(NOTE_READ)
    held[0].continue_()
    page.wait_for_function("() => window.read.some((url) => url.endsWith('?model=custom'))")
    expect(voice).to_have_value("design")


def test_a_model_without_voices_says_what_the_examples_lack(open_page: OpenPage, cloning_server: RunningServer) -> None:
    page = open_page(cloning_server, "/developers")
    expect(page.locator("#voice")).to_have_value("aiden")
    expect(page.locator("#no-voices")).to_be_hidden()
    page.get_by_label("Model", exact=True).select_option("base")
    expect(page.locator("#no-voices")).to_contain_text("cloned voices only")


def test_the_examples_quote_what_they_name(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers")
    name = """o'neil "o" $HOME \\ \u00e9"""
    page.route("**/v1/audio/voices*", lambda route: route.fulfill(json={"voices": [{"id": name, "name": "O"}]}))
    page.reload()
    expect(page.locator("#voices th")).to_have_text([name])
    shown = {example: page.locator(f"#{example}").text_content() or "" for example in COMMANDS}
    stubs = """curl() { while [ "$1" != -d ]; do shift; done; printf %s "$2"; }; ffplay() { cat; }"""
    for example in ("curl", "play"):
        script = f"{stubs}\n{shown[example]}"
        sent = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        assert json.loads(sent)["voice"] == name
    for example in ("python", "speaker", "events"):
        keywords = [node for node in ast.walk(ast.parse(shown[example])) if isinstance(node, ast.keyword)]
        assert [ast.literal_eval(node.value) for node in keywords if node.arg == "voice"] == [name]
    voice_line = next(line for line in shown["node"].splitlines() if "voice: " in line)
    assert page.evaluate(voice_line.strip().removeprefix("voice: ").removesuffix(",")) == name


def test_a_key_is_made_in_the_browser_and_copied(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers", permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator("#models tr")).to_have_count(2)
    expect(page.locator("#errors tr").first).to_be_attached()
    expect(page.locator("#key-line")).to_have_text('KW_SECRET_API_KEY="your-generated-key"')
    expect(page.locator("#key-header")).to_have_text("Authorization: Bearer your-generated-key")
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
    shown = {
        name: page.locator(f"#key-{name}").text_content() or "" for name in ("docker", "compose", "alone", "header")
    }
    assert shown["alone"] == key
    assert shown["header"] == f"Authorization: Bearer {key}"
    assert f"KW_SECRET_API_KEY={key}" in shlex.split(shown["docker"])
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    lines = yaml.safe_load(shown["compose"])
    assert lines == {"services": {"server": {"environment": {"KW_SECRET_API_KEY": key}}}}
    assert lines["services"].keys() <= compose["services"].keys()
    assert asked == []


def test_a_button_says_copy_again_even_after_two_clicks(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers", permissions=["clipboard-write"])
    button = page.get_by_role("button", name="Copy the base URL", exact=True)
    page.clock.install()
    button.dblclick()
    expect(button).to_have_text("Copied")
    page.clock.run_for(5000)
    expect(button).to_have_text("Copy")


def test_copying_without_a_clipboard(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers")
    page.evaluate("() => { Object.defineProperty(navigator, 'clipboard', { value: undefined }); }")
    page.get_by_role("button", name="Copy the base URL", exact=True).click()
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


def document_of(server: RunningServer) -> Any:
    """The OpenAPI document that a server gives."""
    return fetch("GET", f"{server.url}/v1/openapi.json").json()


def rows(table: Locator) -> list[list[str]]:
    """The texts of a table's cells."""
    expect(table.locator("tr").first).to_be_attached()
    cells = "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    found: list[list[str]] = table.locator("tr").evaluate_all(cells)
    return found


def without_marks(text: str) -> str:
    return text.replace("`", "")


@pytest.mark.parametrize("name", ["keyed_server", "slow_server"])
def test_the_endpoints_are_those_of_the_document(
    open_page: OpenPage, name: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(name)
    shown = rows(open_page(server, "/developers").locator("#endpoints"))
    expected = [
        [method.upper(), ("" if "servers" in item else "/v1") + path, operation["summary"]]
        for path, item in document_of(server)["paths"].items()
        for method, operation in item.items()
        if method != "servers"
    ]
    assert [row[:3] for row in shown] == expected
    wanted = {(method, path) for method, path, _, key in shown if key == "required"}
    if name == "slow_server":
        assert wanted == set()
    for method, path in wanted:
        assert fetch(method, server.url + path.replace("{id}", "anna")).status_code == 401
    public = {path for method, path, _, key in shown if key == "none" and method == "GET"}
    for path in public:
        assert fetch("GET", server.url + path.replace("{id}", "anna")).status_code != 401


def test_both_base_urls_lead_to_the_server(open_page: OpenPage, keyed_server: RunningServer) -> None:
    page = open_page(keyed_server, "/developers")
    for name, prefix in {"base": "/v1", "base-kokoro": "/api/v1"}.items():
        url = page.locator(f"#{name}").text_content()
        assert url == f"{keyed_server.url}{prefix}"
        assert fetch("GET", f"{url}/audio/voices").status_code == 200


def test_every_field_is_there_with_its_type_and_default(open_page: OpenPage, slow_server: RunningServer) -> None:
    shown = {row[0]: row[1:] for row in rows(open_page(slow_server, "/developers").locator("#payload"))}
    assert list(shown) == list(SpeechRequest.model_fields)
    described = document_of(slow_server)["components"]["schemas"]["SpeechRequest"]["properties"]
    for name, (_, required, default, meaning) in shown.items():
        assert required == ("required" if name == "input" else "")
        value = described[name].get("default", "")
        assert default == (value if isinstance(value, str) else json.dumps(value).removesuffix(".0"))
        assert meaning.startswith(without_marks(described[name]["description"]))
    for alias, name in ALIASES.items():
        assert re.search(rf"Also read from .*\b{alias}\b", shown[name][3]), alias
    types = {
        "model": "custom, design or string",
        "voice": "string or object {id}",
        "input": "string, at most 100000 characters",
        "response_format": "mp3, opus, aac, flac, wav, pcm",
        "speed": "number, 0.25 to 5",
        "instructions": "string, at most 100000 characters",
        "stream": "boolean",
        "seed": "integer, at least -1, below 2^63",
        "max_new_tokens": "integer, at least 1 or -1",
        "repetition_penalty": "number, 1 to 2 or 0",
        "lexicon": "object, at most 1000 entries",
        "speaker_embedding": "list of number, 1 to 16384",
        "task_type": "CustomVoice, VoiceDesign, Base",
    }
    assert {name: shown[name][0] for name in types} == types


def kinds(error: type[ApiError]) -> list[type[ApiError]]:
    return [error, *(kind for each in error.__subclasses__() for kind in kinds(each))]


def test_every_error_is_there_with_what_to_do(open_page: OpenPage, slow_server: RunningServer) -> None:
    shown = rows(open_page(slow_server, "/developers").locator("#errors"))
    ours = {
        (str(kind.status), kind.code, without_marks(kind.remedy))
        for kind in kinds(ApiError)
        if kind.code and kind is not UpgradeRequiredError
    }
    assert ours == {(status, code, remedy) for status, code, _, remedy in shown if code != "request_too_large"}
    assert all(meaning and remedy for *_, meaning, remedy in shown)
    statuses = [int(status) for status, *_ in shown]
    assert statuses == sorted(statuses)


def test_tables_that_cannot_be_drawn_are_told(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers")
    page.route("**/v1/openapi.json", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    expect(page.locator("#models th")).to_have_text(["custom", "design"])


CLIENTS = {"open-webui": "Open WebUI", "sillytavern": "SillyTavern"}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_settings_of_clients_are_those_of_the_documents(
    open_page: OpenPage, slow_server: RunningServer, client: str
) -> None:
    text = (ROOT / "docs" / "clients.md").read_text("utf-8")
    section = text.partition(f"## {CLIENTS[client]}\n")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| (\S.*?) \| (.*) \|$", section, re.MULTILINE))
    del documented["setting"]
    page = open_page(slow_server, "/developers", permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator(f"#{client} tr").first).to_be_attached()
    shown: dict[str, list[str]] = {}
    for row in page.locator(f"#{client} tr").all():
        name = (row.locator("th").text_content() or "").partition(", from")[0]
        shown.setdefault(name, [])
        if row.locator("code").count():
            row.get_by_role("button").click()
            expect(page.get_by_role("status")).to_have_text("Copied.")
            copied = page.evaluate("navigator.clipboard.readText()")
            assert copied == row.locator("code").text_content()
            shown[name].append(copied.replace(str(slow_server.port), "3000"))
    assert list(shown) == list(documented)
    for name, values in shown.items():
        written = re.findall("`(.+?)`", documented[name])
        assert values == [value for value in written if value != "/v1/audio/voices"], name
