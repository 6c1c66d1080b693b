"""Chromium, servers for it, and pages that watch what they ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.bundles import RANDOM_BUNDLE
from tests.server.audio.recordings import swelling, written
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, PATIENCE_SECONDS, REAL, RunningServer, run_server
from tests.web import chromium

DESKTOP = {"width": 1280, "height": 900}
OpenPage = Callable[..., Page]
MICROPHONE_SECONDS = 8.0
"""Of what the microphone hears before it begins again."""

expect.set_options(timeout=1000 * PATIENCE_SECONDS)


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium that can reach nothing but this machine, and whose microphone hears a recording again and again."""
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    heard.write_bytes(written(swelling(MICROPHONE_SECONDS)))
    with sync_playwright() as playwright:
        options = [
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={heard}",
        ]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # Chromium's own sandbox refuses root
        browser = playwright.chromium.launch(executable_path=chromium.find(playwright), args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`python -m server` with the bundle that the repository ships, and no key."""
    variables = {"KW_MODELS_DIR": str(RANDOM_BUNDLE.parent), "KW_SECRET_API_KEY": ""}
    with run_server(REAL, tmp_path_factory.mktemp("real"), **variables) as server:
        server.wait_ready()
        yield server


def run_fake(
    scratch: Path, frame_seconds: float, frames: int, *, clones: bool = False, **variables: str
) -> Iterator[RunningServer]:
    """The fake engine with a CustomVoice and a VoiceDesign bundle that end after so many frames of their own accord.

    Where it `clones`, there is a Base bundle too, and a folder of voices.
    """
    models = scratch / "models"
    short = {"generation": {"max_new_tokens": frames}}
    if clones:
        write_bundle(models, "base", model_type="base", **short)
        variables["KW_VOICES_DIR"] = str(scratch / "voices")
        (scratch / "voices").mkdir()
    write_bundle(models, "custom", **short)
    write_bundle(models, "design", model_type="voice_design", speakers={}, follows_instructions=True, **short)
    settings = {"KW_MODELS_DIR": str(models), "FAKE_FRAME_SECONDS": str(frame_seconds), **variables}
    with run_server(FAKE, scratch, **settings) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="package")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """No key; an engine that makes frames (80 ms) more slowly than they are played."""
    yield from run_fake(tmp_path_factory.mktemp("slow"), 0.12, 5, KW_SECRET_API_KEY="")


@pytest.fixture(scope="package")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that wants a key, and clones voices."""
    yield from run_fake(tmp_path_factory.mktemp("keyed"), 0.002, 20, clones=True)


@pytest.fixture(scope="package")
def cloning_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """No key, and a model that clones voices."""
    yield from run_fake(tmp_path_factory.mktemp("cloning"), 0.002, 20, clones=True, KW_SECRET_API_KEY="")


@pytest.fixture(scope="package")
def base_server(bundle_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`python -m server` with the small bundle of a Base checkpoint of random weights, and no key."""
    scratch = tmp_path_factory.mktemp("base")
    (scratch / "voices").mkdir()
    settings = {"KW_MODELS_DIR": str(bundle_of("Base").parent), "KW_VOICES_DIR": str(scratch / "voices")}
    with run_server(REAL, scratch, **settings, KW_SECRET_API_KEY="") as server:
        server.wait_ready()
        yield server


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open a page of a server; at the end no page may have asked another host, failed, or broken the policy."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_one(server: RunningServer, path: str = "/", **options: object) -> Page:
        home = urlsplit(server.url).netloc
        context = browser.new_context(**{"viewport": DESKTOP, "accept_downloads": True, **options})
        contexts.append(context)

        def check(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme != "data" and parts.netloc != home and not url.startswith(f"blob:http://{home}/"):
                problems.append(f"asked {url}")

        page = context.new_page()
        context.on("request", lambda request: check(request.url))
        page.on("websocket", lambda socket: check(socket.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        # Answers that are errors are logged too; what the page makes of them is what the tests look at.
        page.on(
            "console",
            lambda line: (
                line.type == "error"
                and not line.text.startswith(("Failed to load resource", "WebSocket "))
                and problems.append(line.text)
            ),
        )
        page.goto(server.url + path)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []
