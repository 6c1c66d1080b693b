"""What clients of other servers send and expect, over real HTTP: what is followed, what is told, what is logged."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.audio.pcm import to_s16le
from tests.server.answers import GOOD, PREFIXES, check_error
from tests.server.fakes import FRAME, tone, write_bundle
from tests.server.running import FAKE, KEY, RunningServer, fetch, run_server, wait_until

SPEECH = "/v1/audio/speech"
FREE = {key: value for key, value in GOOD.items() if key != "exact_frames"}
"""A good request whose end is the model's."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One speaker, and ten frames of each chunk."""
    scratch = tmp_path_factory.mktemp("others")
    short = {"generation": {"max_new_tokens": 10}}
    write_bundle(scratch / "models", "tiny", speakers={"Zoë K": {"id": 1}}, **short)
    write_bundle(scratch / "models", "whole", source={"model": "Qwen/Qwen3-TTS-Own", "revision": None}, **short)
    settings = {"KW_MODELS_DIR": str(scratch / "models"), "KW_MODEL_ALIASES": "house=whole"}
    with run_server(FAKE, scratch, **settings) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def line_of(server: RunningServer, response: httpx.Response, event: str) -> str:
    """The line of the log about a request, once it is there."""
    mark = f" {event} id={response.headers['x-request-id']} "
    return str(wait_until(lambda: next((line for line in server.log if mark in line), None), "it is logged"))


def speak(client: httpx.Client, **fields: Any) -> httpx.Response:
    response = client.post(SPEECH, json={**FREE, **fields})
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize(
    "fields",
    [
        {"model": None, "voice": None},
        {"model": "", "voice": ""},
        {"model": "default", "voice": "none"},
        {"model": "kokoro", "voice": "af_bella(2)+af_sky(1)", "lang_code": "a", "speed": "1.0", "stream": True},
        {"model": "tts-1-1106", "response_format": "PCM", "seed": -1},
        {"model": "house", "top_k": "50", "max_new_tokens": 4096},
        {"model": "Qwen/Qwen3-TTS-Own", "language": "en_US.UTF-8"},
        {"model": "Qwen3-TTS-Own", "language": "auto-detect", "voice": "alloy+nova"},
        {"model": "TINY", "language_id": "en"},
    ],
)
def test_requests_in_other_dialects_are_spoken_as_meant(client: httpx.Client, fields: dict[str, Any]) -> None:
    response = speak(client, **{**fields, "response_format": "pcm"})
    assert len(response.content) == 10 * 2 * FRAME
    assert "x-ignored" not in response.headers


@pytest.mark.parametrize("name", ["Qwen%2FQwen3-TTS-Own", "qwen3-tts-own", "WHOLE", "house"])
def test_a_model_is_described_by_any_of_its_names(client: httpx.Client, name: str) -> None:
    assert client.get(f"/v1/models/{name}").json()["id"] == "whole"
    voices = client.get(f"/v1/audio/voices?model={name}").json()["voices"]
    assert voices == client.get("/v1/audio/voices?model=whole").json()["voices"]


def test_the_examples_of_the_first_page_end_well(client: httpx.Client, server: RunningServer) -> None:
    response = client.post(SPEECH, json={**FREE, "model": "qwen3_tts_0_6b_customvoice", "voice": "serena_meditation"})
    message = check_error(response, 404, "model_not_found", "model")
    assert "tiny" in message
    assert message.endswith(
        "qwen3-tts convert --model Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --output models/qwen3_tts_0_6b_customvoice"
    )
    heard = speak(client, voice="serena_meditation")
    assert heard.headers["x-stand-in"] == "Zo%C3%AB%20K"
    assert " stand_in=True " in line_of(server, heard, "speech")
    assert "x-stand-in" not in speak(client, voice="Zoë K").headers
    assert "x-stand-in" not in speak(client, model="whole", voice="serena_meditation").headers


def test_what_is_ignored_is_told(client: httpx.Client, server: RunningServer) -> None:
    response = speak(client, volume=3, emotion="sad", instruct="Whisper.", **{"x\r\nset-cookie: a": 1})
    assert response.headers["x-ignored"] == "volume,emotion,x%0D%0Aset-cookie%3A%20a"
    assert "set-cookie" not in response.headers
    assert response.headers["x-instructions"] == "ignored"
    assert " ignored=volume,emotion,x%0D%0Aset-cookie%3A%20a " in line_of(server, response, "speech")


def test_a_thousand_strange_fields_are_told_in_short(client: httpx.Client) -> None:
    response = speak(client, **{f"field-{number}-{'x' * 5000}": 1 for number in range(100)})
    assert len(response.headers["x-ignored"]) < 1000
    assert response.headers["x-ignored"].endswith(",80-more")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"ref_audio": "UklG", "ref_text": "Hi"}, "model", "--model Qwen/Qwen3-TTS-12Hz-0.6B-Base"),
        ({"task_type": "Base"}, "model", "--model Qwen/Qwen3-TTS-12Hz-0.6B-Base"),
        ({"speaker_wav": "a.wav"}, "speaker_wav", "as ref_audio"),
    ],
)
def test_a_cloned_voice_is_refused(client: httpx.Client, fields: dict[str, str], param: str, words: str) -> None:
    assert words in check_error(client.post(SPEECH, json={**FREE, **fields}), 400, "invalid_value", param)


FRAMES = [to_s16le(tone(frame)) for frame in range(10)]
FADE = 2 * 120
"""Bytes at the end that may be another than the model's own: 5 ms."""


@pytest.mark.parametrize("cap", [1, 2, 9])
def test_a_cap_ends_the_speech_and_says_so(client: httpx.Client, server: RunningServer, cap: int) -> None:
    expected = b"".join(FRAMES[:cap])
    whole = speak(client, max_new_tokens=cap, stream=False)
    assert whole.headers["x-finish-reason"] == "length"
    assert " finish=length " in line_of(server, whole, "speech")
    streamed = speak(client, max_new_tokens=cap)
    assert "x-finish-reason" not in streamed.headers, "it is not known before"
    assert " finish=length " in line_of(server, streamed, "speech")
    for body in (whole.content, streamed.content):
        assert len(body) == len(expected)
        assert body[:-FADE] == expected[:-FADE]
        assert abs(int.from_bytes(body[-2:], "little", signed=True)) <= 1, "it fades"
    done = json.loads(speak(client, max_new_tokens=cap, stream_format="sse").text.split("data: ")[-1])
    assert done == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 1, "output_tokens": cap, "total_tokens": cap + 1},
        "finish_reason": "length",
    }


@pytest.mark.parametrize("cap", [10, 11, 4096, 10**30])
def test_a_cap_that_is_not_reached_changes_nothing(client: httpx.Client, server: RunningServer, cap: int) -> None:
    whole = speak(client, max_new_tokens=cap, stream=False)
    assert len(whole.content) == sum(map(len, FRAMES))
    assert "x-finish-reason" not in whole.headers
    assert " finish=" not in line_of(server, whole, "speech")
    done = json.loads(speak(client, max_new_tokens=cap, stream_format="sse").text.split("data: ")[-1])
    assert "finish_reason" not in done


def test_a_cap_counts_through_all_chunks(client: httpx.Client, server: RunningServer) -> None:
    text = "It was late, and nobody at all came to the station. " * 60
    long = speak(client, input=text, max_new_tokens=25, seed=901, stream_format="sse").text
    done = json.loads(long.split("data: ")[-1])
    assert done["usage"]["output_tokens"] == 25
    assert done["finish_reason"] == "length"
    jobs = [event for event in server.events("submitted") if event["seed"] == 901]
    assert [(job["max_frames"], job["text_tokens"] is None) for job in jobs] == [(10, False)], "guarded as ever"
    with_pause = speak(client, input="Hello. [0.5s] " * 5, max_new_tokens=25, stream=False)
    assert len(with_pause.content) == 25 * 2 * FRAME + 2 * 24_000


@pytest.mark.parametrize("setting", ["off", "on"])
def test_the_server_says_what_is_done_where_nobody_says(tmp_path: Path, setting: str) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_STREAM=setting) as running:
        running.wait_ready()
        with running.client() as client:

            def length(**fields: Any) -> str | None:
                return client.post(SPEECH, json={**GOOD, **fields}).headers.get("content-length")

            assert (length() is None) is (setting == "on")
            assert length(stream=True) is length(stream_format="audio") is length(stream_format="sse") is None
            assert length(stream=False) == length(stream=False, stream_format="audio") == str(5 * 2 * FRAME)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_superfluous_slashes_are_ignored_in_paths(client: httpx.Client, server: RunningServer, prefix: str) -> None:
    for path in (f"/{prefix}/audio/speech", f"{prefix}//audio/speech", f"{prefix}//audio///speech/"):
        assert client.post(server.url + path, json=GOOD).status_code == 200
    assert client.get(f"{prefix}//audio/voices?model=tiny").json() == client.get(f"{prefix}/audio/voices").json()
    # What follows the question mark is no path.
    check_error(client.get(f"{prefix}//audio/voices?model=a//b"), 404, "model_not_found", "model")
    check_error(fetch("GET", f"{server.url}{prefix}//models"), 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"api-key": KEY}, 200),
        ({"api-key": KEY, "authorization": "Bearer"}, 200),
        ({"api-key": "wrong"}, 401),
        ({"api-key": ""}, 401),
        ({"api-key": KEY, "authorization": "Bearer wrong"}, 401),
    ],
)
def test_azures_header_is_a_key(server: RunningServer, headers: dict[str, str], status: int) -> None:
    response = fetch("POST", f"{server.url}{SPEECH}?api-version=2025-04-01-preview", json=GOOD, headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize("path", ["/audio/speech", "/v1/v1/audio/speech", "/docs"])
def test_a_wrong_path_is_told_the_right_one(client: httpx.Client, path: str) -> None:
    message = check_error(client.post(path, json=GOOD), 404, "not_found")
    assert "POST /v1/audio/speech" in message
    assert "ends with /v1" in message


def test_a_wrong_method_is_told_the_right_one(client: httpx.Client) -> None:
    message = check_error(client.get(SPEECH), 405, "method_not_allowed")
    assert message == "this route is not for GET; it takes POST"


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"voice": "nobody"}, "voice", "there is no such voice; this model's voices are Zo.*K"),
        ({"input": ""}, "input", "input is empty"),
        ({"language": "German", "model": "tiny", "speed": 9}, "speed", "speed must be at most 5"),
        ({"model": "gpt-9"}, "model", "there is no such model"),
    ],
)
def test_the_log_says_why_a_request_was_refused(
    client: httpx.Client, server: RunningServer, fields: dict[str, Any], param: str, reason: str
) -> None:
    response = client.post(SPEECH, json={**FREE, "input": "a private sentence", **fields})
    line = line_of(server, response, "request")
    assert f" param={param} " in line
    assert re.search(f' reason="{reason}', line)
    assert "private" not in line


def test_refusals_without_a_body_are_explained_in_the_log_too(client: httpx.Client, server: RunningServer) -> None:
    assert 'reason="there is no such route;' in line_of(server, client.get("/nowhere"), "request")
    unknown = client.post(SPEECH, json=GOOD, headers={"authorization": "Bearer nobody"})
    assert 'reason="this API key is not known here"' in line_of(server, unknown, "request")
    long = client.post(SPEECH, json={**GOOD, "voice": "*".join(["alloy" * 50] * 2)})
    assert len(line_of(server, long, "request")) < 1000


TEXT = json.dumps({**GOOD, "input": "Grüße"}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (TEXT.encode("utf-16"), {}, "not UTF-8"),
        (TEXT.encode("latin-1"), {"content-type": "application/json; charset=latin-1"}, "not UTF-8"),
        (gzip.compress(TEXT.encode()), {"content-encoding": "gzip"}, "compressed"),
        (b"input=Hi&voice=alloy", {"content-type": "application/x-www-form-urlencoded"}, "a form"),
        (b"--x\r\n", {"content-type": "multipart/form-data; boundary=x"}, "multipart"),
    ],
)
def test_bodies_that_are_no_json_in_utf_8(
    client: httpx.Client, body: bytes, headers: dict[str, str], says: str
) -> None:
    assert says in check_error(client.post(SPEECH, content=body, headers=headers), 400, "invalid_value")


def test_bodies_that_are_read_all_the_same(client: httpx.Client) -> None:
    for body in (b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("Grüße", r"Hi \ud83d").encode()):
        assert client.post(SPEECH, content=body).status_code == 200
    as_a_form = client.post(
        SPEECH, content=TEXT.encode(), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert as_a_form.status_code == 200
