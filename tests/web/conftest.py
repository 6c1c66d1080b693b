"""Chromium, servers for it, and pages that watch what they ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, ViewportSize, expect, sync_playwright

from tests.bundles import RANDOM_BUNDLE
from tests.server.audio.recordings import swelling, written
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, PATIENCE_SECONDS, REAL, RunningServer, run_server
from tests.web import chromium

DESKTOP: ViewportSize = {"width": 1280, "height": 900}
OpenPage = Callable[..., Page]
MICROPHONE_SECONDS = 8.0
"""Of what the microphone hears before it begins again."""

expect.set_options(timeout=1000 * PATIENCE_SECONDS)


def launch(playwright: Playwright, executable: str, *more: str) -> Browser:
    """A Chromium that can reach nothing but this machine."""
    options = [
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--process-per-site",
        "--disable-gpu",  # there is none: it would be imitated
        "--disable-gpu-compositing",
        # Threads instead of processes, between which much would be sent for every page.
        "--in-process-gpu",
        "--enable-features=NetworkServiceInProcess2",
        *more,
    ]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium's own sandbox refuses root
    return playwright.chromium.launch(executable_path=executable, args=options, timeout=1000 * PATIENCE_SECONDS)


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """One for all pages but those that hear something."""
    with launch(playwright, chromium.find_quickest(playwright)) as browser:
        yield browser


@pytest.fixture(scope="package")
def hearing_browser(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One whose microphone hears a recording again and again."""
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    heard.write_bytes(written(swelling(MICROPHONE_SECONDS)))
    options = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={heard}"]
    with launch(playwright, chromium.find(playwright), *options) as browser:
        yield browser


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


@contextmanager
def shared(browser: Browser) -> Iterator[BrowserContext]:
    """A context for all pages that need none of their own, and a page of it that keeps its process.

    With `--process-per-site` the pages of a context share a process. Starting one, with empty caches, takes more than
    all that most tests do.
    """
    with browser.new_context() as context:
        context.set_default_timeout(1000 * PATIENCE_SECONDS)
        kept = context.new_page()
        kept.route("**", lambda route: route.fulfill(body=""))
        kept.goto("http://127.0.0.1/")
        yield context


@pytest.fixture(scope="package")
def shared_context(browser: Browser) -> Iterator[BrowserContext]:
    """That of the pages that hear nothing."""
    with shared(browser) as context:
        yield context


@pytest.fixture(scope="package")
def hearing_context(hearing_browser: Browser) -> Iterator[BrowserContext]:
    """That of the pages with a microphone."""
    with shared(hearing_browser) as context:
        yield context


def clear(context: BrowserContext, urls: Iterable[str]) -> None:
    """Close the pages of a shared context, and remove what they have changed and what these servers' have stored."""
    kept, *pages = context.pages
    for page in pages:
        page.close()
    context.set_offline(False)
    context.clear_permissions()
    browser_session = context.new_cdp_session(kept)
    for url in urls:
        browser_session.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    browser_session.detach()


@pytest.fixture
def open_page(browser: Browser, shared_context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """Open a page of a server, of which the browser has stored nothing.

    At the end no page may have asked another host, failed, or broken the policy. Viewport and permissions can be had in
    the shared context; with other options of a context the page has its own. Where it `hears`, there is a microphone.
    """
    shared_contexts, own, servers = {shared_context}, [], set()
    problems: list[str] = []

    def open_one(
        server: RunningServer,
        path: str = "/",
        *,
        viewport: ViewportSize = DESKTOP,
        permissions: Sequence[str] = (),
        hears: bool = False,
        **options: Any,
    ) -> Page:
        home = urlsplit(server.url).netloc
        servers.add(server.url)
        if options:
            own.append(context := browser.new_context(**options))
            context.set_default_timeout(1000 * PATIENCE_SECONDS)
        elif hears:
            shared_contexts.add(context := request.getfixturevalue("hearing_context"))
        else:
            context = shared_context
        if permissions:
            context.grant_permissions(permissions)

        def check(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme != "data" and parts.netloc != home and not url.startswith(f"blob:http://{home}/"):
                problems.append(f"asked {url}")

        page = context.new_page()
        page.set_viewport_size(viewport)
        page.on("request", lambda request: check(request.url))
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
    for context in own:
        context.close()
    for context in shared_contexts:
        clear(context, servers)
    assert problems == []
