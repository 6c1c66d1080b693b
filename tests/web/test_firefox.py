"""The pages in the system's Firefox, where there is one: each opens, speaks and saves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.audio.recordings import recorded
from tests.server.running import RunningServer, wait_until
from tests.web import firefox
from tests.web.firefox import Firefox, run_firefox


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """One Firefox for all of these tests."""
    executable = firefox.find()
    if executable is None:
        pytest.skip(firefox.MISSING)
    with run_firefox(executable, tmp_path_factory.mktemp("firefox")) as browser:
        yield browser


@pytest.fixture(autouse=True)
def nothing_goes_wrong(browser: Firefox) -> Iterator[None]:
    """See that no script failed and that the policy blocked nothing."""
    yield
    assert browser.value("window.problems") == []


def saved(browser: Firefox, name: str) -> bytes:
    """The content of the only download, which is taken away."""

    def arrived() -> Path | None:
        files = list(browser.downloads.glob(name))
        return files[0] if files and files[0].stat().st_size and not list(browser.downloads.glob("*.part")) else None

    path = wait_until(arrived, f"{name} is saved")
    content = path.read_bytes()
    path.unlink()
    return content


def test_the_studio_speaks_and_saves(browser: Firefox, slow_server: RunningServer) -> None:
    browser.open(f"{slow_server.url}/")
    browser.wait("document.querySelector('#voices input:checked') !== null")
    browser.write("#input", "Hello.")
    browser.click("#speak")
    status = browser.wait("document.querySelector('#status').textContent.match(/^Done: .*/)")
    assert "0.40 s of audio" in status[0]
    for kind, head in {"wav": b"RIFF", "mp3": b"ID3"}.items():
        browser.value(f"document.querySelector('#response_format').value = {json.dumps(kind)}")
        browser.click("#download")
        assert saved(browser, f"*.{kind}").startswith(head)


def test_the_page_of_voices_hears_a_recording(browser: Firefox, cloning_server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "voice.wav"
    file.write_bytes(recorded())
    browser.open(f"{cloning_server.url}/voices")
    browser.wait("!document.querySelector('#voice').hidden")
    browser.choose_file("#audio_sample", file)
    browser.wait("!document.querySelector('#play').disabled")
    browser.write("#ref_text", "What is said.")
    browser.click("#consent")
    browser.click("#hear")
    browser.wait("/^Done: /.test(document.querySelector('#status').textContent)")


def test_the_developers_page_draws_its_tables(browser: Firefox, slow_server: RunningServer) -> None:
    browser.open(f"{slow_server.url}/developers")
    tables = ("endpoints", "payload", "errors", "models", "voices", "open-webui", "sillytavern")
    for table in tables:
        assert browser.wait(f"document.querySelectorAll('#{table} tr').length") > 1
    browser.click("#make-key")
    assert browser.value("document.querySelector('#key-line').textContent").startswith('KW_SECRET_API_KEY="sk-')
    browser.value("document.querySelector('details').open = true")
    browser.click("[data-copy=key-alone]")
    browser.wait("document.querySelector('#status').textContent === 'Copied.'")
