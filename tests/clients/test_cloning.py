"""OpenAI's SDK and vLLM-Omni's documented requests clone voices, on a small Base model of random weights."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import run
from tests.server.audio.recordings import recorded
from tests.server.running import KEY, REAL, RunningServer, run_server

WORDS = "This is what is said in the recording, word for word."
FRAMES = 6
BYTES = FRAMES * 1920 * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the clients' recording lies."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "voice_sample.wav").write_bytes(recorded())
    return folder


@pytest.fixture(scope="module")
def server(bundle_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`python -m server` with a Base model alone."""
    scratch = tmp_path_factory.mktemp("cloning")
    (scratch / "voices").mkdir()
    settings = {
        "KW_MODELS_DIR": str(bundle_of("Base").parent),
        "KW_VOICES_DIR": str(scratch / "voices"),
        "KW_REFERENCE_HOSTS": "127.0.0.1",
    }
    with run_server(REAL, scratch, **settings) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Of the recording, on a server of files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as files:
        threading.Thread(target=files.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{files.server_port}/voice_sample.wav"
        files.shutdown()


class Silent(SimpleHTTPRequestHandler):
    """Serves files and says nothing of it."""

    def log_message(self, *_: object) -> None:
        pass


def test_openai_python(server: RunningServer, folder: Path) -> None:
    fields = json.dumps({"exact_frames": FRAMES})
    facts = run("openai-voices", server, str(folder / "voice_sample.wav"), WORDS, fields)
    assert facts == {
        "inline": BYTES,
        "made": [["audio.voice", "alone", "alone"], ["audio.voice", "anna", "anna"]],
        "saved": [BYTES, BYTES],
        "by_name": BYTES,
    }
    with server.client() as client:
        kept = {voice["name"]: voice for voice in client.get("/v1/audio/voices").json()["uploaded_voices"]}
        assert {name: voice["in_context"] for name, voice in kept.items()} == {"alone": False, "anna": True}
        assert "speaker embedding alone" in kept["alone"]["notes"][0]
        assert kept["anna"]["notes"] == []
        for name in kept:
            assert client.delete(f"/v1/audio/voices/{name}").status_code == 200


def curl(*arguments: str, folder: Path) -> bytes:
    command = ["curl", "--silent", "--show-error", "--header", f"Authorization: Bearer {KEY}", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout


def test_vllm_omnis_documented_requests(server: RunningServer, folder: Path, address: str) -> None:
    """Flags and fields as in docs/serving/speech_api.md of https://github.com/vllm-project/vllm-omni; the host and the
    recording are ours, and so is `exact_frames`, since random weights end nowhere."""
    voices = f"{server.url}/v1/audio/voices"

    def form(**fields: str) -> dict[str, Any]:
        flags = [part for name, value in fields.items() for part in ("-F", f"{name}={value}")]
        made: dict[str, Any] = json.loads(curl("-X", "POST", voices, *flags, folder=folder))
        return made

    def speak(route: str = "speech", **fields: Any) -> bytes:
        body = json.dumps({**fields, "exact_frames": FRAMES})
        url = f"{server.url}/v1/audio/{route}"
        return curl("-X", "POST", url, "-H", "Content-Type: application/json", "-d", body, folder=folder)

    sample = {"audio_sample": "@voice_sample.wav", "consent": "user_consent_id"}
    alone = form(**sample, name="custom_voice_1")
    assert alone["success"] and alone["voice"]["name"] == "custom_voice_1"
    whole = form(**sample, name="custom_voice_2", ref_text=WORDS, speaker_description="warm narrator")
    assert whole["success"] and whole["voice"]["description"] == "warm narrator"
    listed = json.loads(curl(voices, folder=folder))["uploaded_voices"]
    assert [voice["name"] for voice in listed] == ["custom_voice_1", "custom_voice_2"]

    cloned = {"task_type": "Base", "ref_audio": address, "ref_text": WORDS}
    text, raw = "Hello, this is a cloned voice", {"response_format": "wav"}
    for fields in ({"voice": "custom_voice_1"}, {"voice": "custom_voice_2"}, {**cloned, "non_streaming_mode": True}):
        assert speak(input=text, **raw, **fields).startswith(b"RIFF"), fields
    items = [{"input": "First sentence in the cloned voice."}, {"input": "Second sentence in the cloned voice."}]
    answer = json.loads(speak("speech/batch", items=items, **cloned))
    assert (answer["succeeded"], answer["failed"]) == (2, 0)
    for name in ("custom_voice_1", "custom_voice_2"):
        assert json.loads(curl("-X", "DELETE", f"{voices}/{name}", folder=folder))["success"]
