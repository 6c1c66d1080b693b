"""OpenAI's SDKs for Python and Node, and curl, against the real server and the bundle that the repository ships."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import wave
from base64 import b64decode
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from openai._streaming import SSEDecoder

from tests.server.running import KEY, PATIENCE_SECONDS, ROOT, RunningServer

FRAMES = 6
SAMPLES_PER_FRAME = 1920
PCM_BYTES = FRAMES * SAMPLES_PER_FRAME * 2
REQUEST: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": "Hello from a test"}
EXTRA = {"exact_frames": FRAMES, "seed": 1, "temperature": 0}


@pytest.fixture
def sdk(real_server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{real_server.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_SECONDS)


def check_audio(body: bytes, audio_format: str) -> None:
    if audio_format == "pcm":
        assert len(body) == PCM_BYTES
    elif audio_format == "wav":
        with wave.open(io.BytesIO(body)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
            assert file.getnframes() == FRAMES * SAMPLES_PER_FRAME
    else:
        samples, rate = soundfile.read(io.BytesIO(body))
        assert rate == 24000
        assert 0 <= len(samples) - FRAMES * SAMPLES_PER_FRAME < 4 * 1152


@pytest.mark.parametrize("audio_format", ["mp3", "wav", "pcm"])
def test_python_sdk(sdk: openai.OpenAI, audio_format: Any) -> None:
    response = sdk.audio.speech.create(**REQUEST, response_format=audio_format, extra_body={**EXTRA, "stream": False})
    check_audio(response.content, audio_format)


@pytest.mark.parametrize("audio_format", ["mp3", "pcm"])
@pytest.mark.parametrize("fields", [{}, {"stream_format": "audio"}], ids=["by default", "asked for"])
def test_python_sdk_streaming(sdk: openai.OpenAI, audio_format: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    create = sdk.audio.speech.with_streaming_response.create
    with create(**REQUEST, response_format=audio_format, extra_body=EXTRA, **fields) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        response.stream_to_file(tmp_path / "speech")
    check_audio((tmp_path / "speech").read_bytes(), audio_format)


@pytest.mark.parametrize("speed", [1.0, 1.25])
def test_python_sdk_reads_the_events_of_times_among_those_it_knows(sdk: openai.OpenAI, speed: float) -> None:
    create = sdk.audio.speech.with_streaming_response.create
    fields: dict[str, Any] = {**REQUEST, "input": "Hello [0.5s] from a test", "response_format": "pcm", "speed": speed}
    with create(**fields, stream_format="sse", extra_body={**EXTRA, "timestamps": "chunk"}) as response:
        events = [event.json() for event in SSEDecoder().iter_bytes(response.iter_bytes())]
    assert events[-1]["type"] == "speech.audio.done"
    audio = b"".join(b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")
    spoken = round(FRAMES * SAMPLES_PER_FRAME / speed)
    assert len(audio) == 2 * (2 * spoken + 12_000)
    ended = [event for event in events if event.get("end_time") is not None]
    starts = [0, spoken, spoken + 12_000, 2 * spoken + 12_000]
    assert [round(event["start_time"] * 24_000) for event in ended] == starts[:-1]
    assert [round(event["end_time"] * 24_000) for event in ended] == starts[1:]
    assert [event["text"] for event in ended] == ["Hello", "", "from a test"]
    assert not any(audio[2 * starts[1] : 2 * starts[2]])
    assert any(audio[2 * starts[2] : 2 * starts[2] + 100])


def test_python_sdk_async(real_server: RunningServer) -> None:
    extra = {**EXTRA, "stream": False}

    async def speak() -> list[bytes]:
        async with openai.AsyncOpenAI(base_url=f"{real_server.url}/api/v1", api_key=KEY, max_retries=0) as client:
            wanted = [client.audio.speech.create(**REQUEST, response_format="wav", extra_body=extra) for _ in range(3)]
            return [response.content for response in await asyncio.gather(*wanted)]

    bodies = asyncio.run(speak())
    check_audio(bodies[0], "wav")
    first, *others = (np.frombuffer(body[190:], "<i2").astype(int) for body in bodies)
    for other in others:  # samples round otherwise where rows share a call of the decoder
        assert len(other) == len(first)
        assert np.abs(other - first).max() <= 2


def test_python_sdk_errors(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.audio.speech.create(**{**REQUEST, "model": "gpt-9"})
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="seed must be at least 0") as wrong:
        sdk.audio.speech.create(**REQUEST, extra_body={"seed": -2})
    assert wrong.value.param == "seed"
    assert wrong.value.request_id
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").models.list()


@pytest.mark.parametrize(("extra", "attempts"), [({}, 3), ({"seed": 1}, 1)], ids=["another may work", "would repeat"])
def test_python_sdk_retries_where_it_helps(fake_server: RunningServer, extra: dict[str, Any], attempts: int) -> None:
    sent: list[httpx.Request] = []
    http = httpx.Client(event_hooks={"request": [sent.append]}, trust_env=False)
    sdk = openai.OpenAI(base_url=f"{fake_server.url}/v1", api_key=KEY, max_retries=2, http_client=http)
    with sdk, pytest.raises(openai.InternalServerError):
        sdk.audio.speech.create(**{**REQUEST, "input": "fail-at-start"}, extra_body=extra)
    assert [request.headers["x-stainless-retry-count"] for request in sent] == [str(n) for n in range(attempts)]


def test_python_sdk_models(sdk: openai.OpenAI, bundle: Path) -> None:
    models = {model.id: model for model in sdk.models.list()}
    assert models[bundle.name].object == "model"
    assert sdk.models.retrieve("tts-1").id == bundle.name


def test_a_seed_reproduces_and_another_does_not(sdk: openai.OpenAI) -> None:
    def speak(seed: int) -> bytes:
        extra = {"exact_frames": FRAMES, "seed": seed}
        return sdk.audio.speech.create(**REQUEST, response_format="pcm", extra_body=extra).content

    assert speak(1) == speak(1) != speak(2)


def test_streamed_and_buffered_are_the_same(sdk: openai.OpenAI) -> None:
    def speak(**fields: Any) -> bytes:
        return sdk.audio.speech.create(**REQUEST, response_format="pcm", extra_body={**EXTRA, **fields}).content

    assert speak() == speak(stream_format="audio") == speak(stream=False)


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """`tests/node` with the SDK in it."""
    folder = ROOT / "tests" / "node"
    if not (folder / "node_modules" / "openai").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder


def test_openais_node_sdk_speaks_and_reads_errors(real_server: RunningServer, bundle: Path, node_folder: Path) -> None:
    done = subprocess.run(
        ["node", "speak.mjs", f"{real_server.url}/v1", KEY],
        cwd=node_folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["mp3"]["type"] == "audio/mpeg"
    assert seen["wav"] == {"type": "audio/wav", "length": 190 + PCM_BYTES, "head": "RIFF"}
    assert seen["pcm"]["length"] == PCM_BYTES
    assert seen["streamed"] == {"type": "audio/pcm", "length": PCM_BYTES}
    assert bundle.name in seen["models"]
    assert seen["model"] == "model"
    unknown = seen["unknownModel"]
    assert (unknown["name"], unknown["code"], unknown["param"]) == ("NotFoundError", "model_not_found", "model")
    assert unknown["id"]
    assert (seen["wrongSeed"]["name"], seen["wrongSeed"]["param"]) == ("BadRequestError", "seed")
    assert seen["wrongKey"]["name"] == "AuthenticationError"


def curl(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("curl")
    assert program, "this test needs curl"
    command = [program, "--silent", "--show-error", "--header", f"Authorization: Bearer {KEY}", *arguments]
    command[-1] = server.url + command[-1]
    return subprocess.run(command, capture_output=True, check=False)


@pytest.mark.parametrize("audio_format", ["mp3", "wav", "pcm"])
def test_curl_gets_a_file_of_every_format(real_server: RunningServer, tmp_path: Path, audio_format: str) -> None:
    body = json.dumps({**REQUEST, **EXTRA, "response_format": audio_format, "stream": False})
    output = tmp_path / "speech"
    done = curl(real_server, "--fail", "--json", body, "--output", str(output), "/v1/audio/speech")
    assert done.returncode == 0, done.stderr
    check_audio(output.read_bytes(), audio_format)


def test_curl_reads_the_error(real_server: RunningServer) -> None:
    done = curl(real_server, "--data", "{", "--write-out", "\n%{http_code}", "/api/v1/audio/speech")
    body, _, status = done.stdout.rpartition(b"\n")
    assert status == b"400"
    assert "not valid JSON" in json.loads(body)["message"]


def test_curl_reads_the_lists_without_a_key(real_server: RunningServer, bundle: Path) -> None:
    voices = json.loads(curl(real_server, "--header", "Authorization:", "/v1/audio/voices").stdout)["voices"]
    assert {"alloy", "af_heart"} <= {voice["id"] for voice in voices}
    models = json.loads(curl(real_server, "--header", "Authorization:", "/v1/audio/models").stdout)["models"]
    assert bundle.name in {model["id"] for model in models}
