"""What Open WebUI, SillyTavern and Kokoro Web's users send, in the shapes that their sources have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.fakes import write_bundle
from tests.server.running import FAKE, KEY, RunningServer, fetch, run_server

BEARER = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}

# open-webui, backend/open_webui/routers/audio.py: the browser's {"input", "voice"}, the model of the settings, and
# AUDIO_TTS_OPENAI_PARAMS; the headers about the user come with ENABLE_FORWARD_USER_INFO_HEADERS.
OPEN_WEBUI: dict[str, Any] = {"input": "Hello from a chat.", "voice": "alloy", "model": "tts-1"}
OPEN_WEBUI_HEADERS = {
    **BEARER,
    "x-openwebui-user-name": "J%C3%BCrgen Example",
    "x-openwebui-user-id": "0b1f",
    "x-openwebui-user-email": "user@example.com",
    "x-openwebui-user-role": "admin",
    "user-agent": "Python/3.11 aiohttp/3.11.11",
}

# SillyTavern, src/endpoints/openai.js: /custom/generate-voice
SILLYTAVERN: dict[str, Any] = {
    "input": "*waves* Hello there!",
    "response_format": "mp3",
    "voice": "alloy",
    "speed": 1,
    "model": "tts-1",
}

# kokoro-web, README.md
KOKORO_WEB: dict[str, Any] = {
    "model": "model_q8f16",
    "voice": "af_heart",
    "input": "Today is a wonderful day to build something people love!",
}

NO_KEY = {"authorization": "Bearer"}
"""`Bearer ${key ?? ''}`, trimmed as fetch does."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    scratch = tmp_path_factory.mktemp("clients")
    write_bundle(scratch / "models", "custom", generation={"max_new_tokens": 3})
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(scratch / "models")) as server:
        server.wait_ready()
        yield server


def check_mp3(response: httpx.Response) -> None:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "audio/mpeg"
    assert response.content.startswith(b"ID3")
    high, low = response.content[8:10]  # of the tag's size, seven bits in each
    frames = response.content[10 + (high << 7 | low) :]
    assert (frames[0], frames[1] & 0xE0) == (0xFF, 0xE0)


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
def test_open_webui_speaks(server: RunningServer, base: str) -> None:
    check_mp3(fetch("POST", f"{server.url}{base}/audio/speech", json=OPEN_WEBUI, headers=OPEN_WEBUI_HEADERS))
    extra = {**OPEN_WEBUI, "response_format": "wav", "language": "English"}
    spoken = fetch("POST", f"{server.url}{base}/audio/speech", json=extra, headers=OPEN_WEBUI_HEADERS)
    assert spoken.headers["content-type"] == "audio/wav"


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
def test_open_webui_fills_its_lists_without_a_key(server: RunningServer, base: str) -> None:
    voices = fetch("GET", f"{server.url}{base}/audio/voices").raise_for_status().json()
    names = {voice["id"]: voice["name"] for voice in voices.get("voices", [])}
    assert names["ryan"] == "Ryan"
    assert all(names.values())
    models = fetch("GET", f"{server.url}{base}/audio/models").raise_for_status().json()
    assert "custom" in [model["id"] for model in models.get("models", [])]


def test_every_voice_that_open_webui_lists_speaks(server: RunningServer) -> None:
    with server.client() as client:
        for voice in client.get("/v1/audio/voices").json()["voices"]:
            fields = {**OPEN_WEBUI, "voice": voice["id"], "exact_frames": 1, "response_format": "pcm"}
            assert client.post("/v1/audio/speech", json=fields).status_code == 200, voice


def test_open_webui_shows_our_words(server: RunningServer) -> None:
    wrong = fetch(
        "POST", f"{server.url}/v1/audio/speech", json={**OPEN_WEBUI, "voice": "x"}, headers=OPEN_WEBUI_HEADERS
    )
    assert wrong.status_code == 400
    assert "voices are" in wrong.json()["error"].get("message", "")


def test_sillytaverns_requests_are_answered(server: RunningServer) -> None:
    check_mp3(fetch("POST", f"{server.url}/v1/audio/speech", json=SILLYTAVERN, headers=BEARER))
    without = fetch("POST", f"{server.url}/v1/audio/speech", json=SILLYTAVERN, headers=NO_KEY)
    assert without.status_code == 401
    assert "API key" in without.text


def test_sillytavern_without_a_key(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom", generation={"max_new_tokens": 3})
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_SECRET_API_KEY="") as server:
        server.wait_ready()
        check_mp3(fetch("POST", f"{server.url}/v1/audio/speech", json=SILLYTAVERN, headers=NO_KEY))


def test_kokoro_webs_requests_are_answered(server: RunningServer) -> None:
    check_mp3(fetch("POST", f"{server.url}/api/v1/audio/speech", json=KOKORO_WEB, headers=BEARER))
    for kind in ("", "_fp16", "_quantized", "_uint8", "_uint8f16", "_q4", "_q4f16"):
        fields = {**KOKORO_WEB, "model": f"model{kind}", "exact_frames": 1}
        check_mp3(fetch("POST", f"{server.url}/api/v1/audio/speech", json=fields, headers=BEARER))
    page = fetch("GET", f"{server.url}/api/v1/index.html")
    assert page.headers["content-type"].startswith("text/html")
