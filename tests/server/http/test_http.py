"""The routes over real HTTP, on the fake engine."""

from __future__ import annotations

import io
import json
import socket
import struct
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import soundfile

from server.audio.pcm import to_s16le
from server.http.routes.speech import MAX_NOTES_CHARS, speech_headers
from server.speech.service import SILENCES
from tests.server.answers import GOOD, PREFIXES, WAYS, check_error
from tests.server.fakes import FRAME, LANGUAGES, SAMPLE_RATE, UNFIT, speech, write_bundle
from tests.server.running import FAKE, PATIENCE_SECONDS, RunningServer, run_server, wait_until

FIVE_FRAMES = to_s16le(speech(5))
TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm": "audio/pcm"}


def speak(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/audio/speech", json={**GOOD, **fields})


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("audio_format", TYPES)
@pytest.mark.parametrize("way", WAYS)
def test_speech_is_sent_in_every_format_and_way(client: httpx.Client, prefix: str, audio_format: str, way: str) -> None:
    fields = {**GOOD, "response_format": audio_format, "seed": 7, **WAYS[way]}
    response = client.post(f"{prefix}/audio/speech", json=fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == TYPES[audio_format]
    assert response.headers["x-seed"] == "7"
    assert response.headers["x-request-id"]
    whole = way == "whole"
    if not whole:
        assert response.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in response.headers
    else:
        assert int(response.headers["content-length"]) == len(response.content)
    if audio_format == "pcm":
        assert response.content == FIVE_FRAMES
    elif audio_format == "wav":
        size = len(FIVE_FRAMES) if whole else 0xFFFFFFFF
        assert struct.unpack_from("<I", response.content, 186) == (size,)
        assert response.content[190:] == FIVE_FRAMES
    else:
        samples, rate = soundfile.read(io.BytesIO(response.content))
        assert rate == SAMPLE_RATE
        assert 0 <= len(samples) - 5 * FRAME < 4 * 1152


def test_mp3_is_the_default_format(client: httpx.Client) -> None:
    response = client.post(
        "/v1/audio/speech", json={key: GOOD[key] for key in ("model", "input", "voice")} | {"exact_frames": 2}
    )
    assert response.headers["content-type"] == "audio/mpeg"


def ask_as_http_1_0(server: RunningServer, **fields: object) -> tuple[bytes, bytes]:
    """Head, in lower case, and body of an answer, as default nginx asks for it."""
    body = json.dumps({**GOOD, **fields}).encode()
    head = f"POST /v1/audio/speech HTTP/1.0\r\nAuthorization: Bearer other\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    headers, _, content = answer.partition(b"\r\n\r\n")
    return headers.lower(), content


def test_http_1_0_clients_get_a_stream_that_ends_with_the_connection(fake_server: RunningServer) -> None:
    head, body = ask_as_http_1_0(fake_server, stream_format="audio")
    assert head.startswith(b"http/1.1 200 ")
    assert b"transfer-encoding" not in head
    assert b"content-length" not in head
    assert b"connection: close" in head
    assert body == FIVE_FRAMES
    head, body = ask_as_http_1_0(fake_server, stream_format="sse")
    assert b"content-type: text/event-stream" in head
    assert b"speech.audio.done" in body
    head, body = ask_as_http_1_0(fake_server, stream=False)
    assert b"content-length: %d" % len(FIVE_FRAMES) in head
    assert body == FIVE_FRAMES


def test_an_http_1_0_stream_that_breaks_off_does_not_look_whole(fake_server: RunningServer) -> None:
    with pytest.raises(ConnectionResetError):
        ask_as_http_1_0(fake_server, stream_format="audio", input="fail-later")


def test_the_first_part_comes_while_the_rest_is_made(client: httpx.Client, fake_server: RunningServer) -> None:
    fields = {**GOOD, "stream_format": "audio", "exact_frames": 400, "seed": 31}
    with client.stream("POST", "/v1/audio/speech", json=fields) as response:
        parts = response.iter_raw()
        next(parts)
        assert not [event for event in fake_server.events("finished") if event["seed"] == 31]
        rest = sum(map(len, parts))
    assert rest > 0
    fake_server.wait_event("finished", seed=31, frames=400)


def test_sampling_reaches_the_engine(client: httpx.Client, fake_server: RunningServer) -> None:
    speak(client, seed=101)
    assert fake_server.wait_event("submitted", seed=101)["sampling"] == {
        "temperature": 0.9,
        "top_k": 50,
        "top_p": 1.0,
        "repetition_penalty": 1.05,
        "predictor_temperature": 0.9,
        "predictor_top_k": 50,
        "predictor_top_p": 1.0,
    }
    speak(client, seed=102, temperature=0.3, top_k=7, top_p=0.5, repetition_penalty=1.5, exact_frames=3)
    submitted = fake_server.wait_event("submitted", seed=102)
    assert submitted["max_frames"] == 3
    assert submitted["sampling"] == {
        "temperature": 0.3,
        "top_k": 7,
        "top_p": 0.5,
        "repetition_penalty": 1.5,
        "predictor_temperature": 0.3,
        "predictor_top_k": 7,
        "predictor_top_p": 0.5,
    }
    for seed, temperature in ((103, 0), (104, 0.001)):
        speak(client, seed=seed, temperature=temperature)
        sampling = fake_server.wait_event("submitted", seed=seed)["sampling"]
        assert (sampling["temperature"], sampling["predictor_temperature"]) == (0, 0)


def test_the_engine_is_told_how_fast_its_audio_is_heard(client: httpx.Client, fake_server: RunningServer) -> None:
    speak(client, seed=105, speed=2.0)
    assert fake_server.wait_event("submitted", seed=105)["speed"] == 2.0


def test_voice_language_instructions_and_layout_reach_the_prompt(
    client: httpx.Client, fake_server: RunningServer
) -> None:
    def prompt(**fields: Any) -> dict[str, Any]:
        assert speak(client, **fields).status_code == 200
        last = fake_server.events("prompt")[-1]
        return {key: last[key] for key in ("speaker", "language", "instruction", "layout")}

    # "custom" does not follow instructions, so they are dropped; "design" has no speakers.
    spoken = {"voice": {"id": "Ryan"}, "language": "EN", "instructions": "whisper"}
    assert prompt(**spoken) == {"speaker": "ryan", "language": "english", "instruction": None, "layout": None}
    assert prompt() == {"speaker": "serena", "language": "auto", "instruction": None, "layout": None}
    designed = {"model": "design", "voice": "design", "instructions": "an old man", "layout": "streaming"}
    expected = {"speaker": None, "language": "auto", "instruction": "an old man", "layout": "streaming"}
    assert prompt(**designed) == expected


def test_without_a_seed_each_request_has_its_own(client: httpx.Client) -> None:
    seeds = {speak(client, exact_frames=1).headers["x-seed"] for _ in range(5)}
    assert len(seeds) == 5


@pytest.mark.parametrize("name", ["tts-1", "tts-1-hd", "gpt-4o-mini-tts", "custom", "design"])
def test_a_model_may_be_asked_for_by_these_names(client: httpx.Client, name: str) -> None:
    assert speak(client, model=name).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": " "}, "input"),
        ({"input": "x" * 100_001}, "input"),
        ({"instructions": "x" * 100_001}, "instructions"),
        ({"input": UNFIT}, "input"),
        ({"voice": "nobody"}, "voice"),
        ({"language": "Klingon"}, "language"),
        ({"model": "design", "language": "zh"}, "language"),
        ({"top_k": 3073}, "top_k"),
        ({"exact_frames": 4600}, "exact_frames"),
        ({"exact_frames": 10**30}, "exact_frames"),
        ({"seed": "five"}, "seed"),
        ({"speed": 5.1}, "speed"),
        ({"speed": 0.2}, "speed"),
        ({"voice": "serena*0+ryan*0"}, "voice"),
        ({"input": "Wait [301s] for it."}, "input"),
        ({"response_format": "vorbis"}, "response_format"),
        ({"stream": False, "stream_format": "sse"}, "stream"),
        ({"ref_audio": "data:audio/wav;base64,AAAA"}, "model"),
        ({"ref_text": "What is said."}, "ref_text"),
        ({"stream_format": "event-stream"}, "stream_format"),
    ],
)
def test_a_wrong_field_is_answered_400_and_named(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    check_error(speak(client, **fields), 400, "invalid_value", param)


def test_frames_must_fit_the_positions_left(client: httpx.Client) -> None:
    response = speak(client, input="x" * 3000, exact_frames=1601)
    assert "at most 1600" in check_error(response, 400, "invalid_value", "exact_frames")


def test_what_the_model_lacks_is_listed(client: httpx.Client) -> None:
    message = speak(client, language="it").json()["message"]
    assert all(name in message for name in LANGUAGES if not name.endswith("dialect"))
    assert "dialect" not in message


def test_a_request_line_without_an_url_is_answered(fake_server: RunningServer) -> None:
    host, port = fake_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as connection:
        connection.sendall(b"GET nonsense HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]"])
def test_bodies_that_are_not_requests_are_refused(client: httpx.Client, body: bytes) -> None:
    check_error(client.post("/v1/audio/speech", content=body), 400, "invalid_value")


def test_an_unknown_model_is_answered_404_with_the_known_ones(client: httpx.Client) -> None:
    message = check_error(speak(client, model="gpt-9"), 404, "model_not_found", "model")
    assert "custom" in message
    check_error(client.get("/v1/models/gpt-9"), 404, "model_not_found", "model")


def test_sanics_own_errors_have_our_shape(client: httpx.Client) -> None:
    check_error(client.get("/nowhere"), 404, "not_found")
    response = client.put("/v1/models")
    check_error(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}
    check_error(client.get("/v1/audio/speech"), 405, "method_not_allowed")
    too_long = client.post("/v1/audio/speech", content=iter([b"x" * (3 << 20)]), headers={"expect": "100-continue"})
    assert "the body has more than 2400000 bytes" in check_error(too_long, 413, "request_too_large")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
def test_malformed_http_is_answered_400_with_an_id(fake_server: RunningServer, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", fake_server.port)) as connection:
        connection.sendall(request_bytes)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: " in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(("given", "kept"), [("abc-123.x", True), ("a b", False), ("x" * 129, False), ("é", False)])
def test_request_ids(client: httpx.Client, given: str, kept: bool) -> None:
    response = client.get("/livez", headers=[(b"x-request-id", given.encode())])
    assert (response.headers["x-request-id"] == given) is kept
    assert response.headers["x-request-id"]


def test_an_error_before_the_first_byte_is_an_answer(client: httpx.Client) -> None:
    for way in WAYS.values():
        response = speak(client, input="fail-at-start", **way)
        check_error(response, 500, "speech_failed")
        assert "x-should-retry" not in response.headers
        check_error(speak(client, input="not-a-number", **way), 500, "speech_failed")


def test_a_failure_that_a_seed_repeats_is_not_worth_a_retry(client: httpx.Client) -> None:
    assert speak(client, input="fail-at-start", seed=1).headers["x-should-retry"] == "false"


@pytest.mark.parametrize("audio_format", TYPES)
@pytest.mark.parametrize("way", sorted(WAYS.keys() - {"whole"}))
def test_an_error_after_the_first_byte_breaks_the_body(client: httpx.Client, audio_format: str, way: str) -> None:
    fields = {**GOOD, "input": "fail-later", "response_format": audio_format, **WAYS[way]}
    with client.stream("POST", "/v1/audio/speech", json=fields) as response:
        assert response.status_code == 200
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            response.read()
    check_error(speak(client, input="fail-later", stream=False), 500, "speech_failed")


def test_a_text_that_looks_like_control_tokens_goes_through_as_it_is(client: httpx.Client) -> None:
    assert speak(client, input="<|im_end|>").status_code == 200


def test_the_log_knows_requests_but_neither_texts_nor_keys(client: httpx.Client, fake_server: RunningServer) -> None:
    """Of a formula the log has the voice that spoke too."""
    formula = "ryan*0.4+vivian*0.6"
    response = speak(client, input="a very private sentence", instructions="in private", seed=55, voice=formula)
    speak(client, input="another private one", voice="nobody")
    speak(client, input="fail-at-start")
    mine = f" speech id={response.headers['x-request-id']} "
    line = wait_until(lambda: next((line for line in fake_server.log if mine in line), None), "the request is logged")
    assert " seed=55 " in line
    assert " speaker=vivian " in line
    assert " outcome=done " in line
    log = "\n".join(fake_server.log)
    assert "private" not in log
    assert "sk-test" not in log
    assert "Traceback" not in log


def test_a_file_that_is_too_long_to_be_sent_whole_is_to_be_streamed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_MAX_FILE="1MB") as server:
        server.wait_ready()
        with server.client() as client:
            fields = {**GOOD, "exact_frames": 400}
            whole = client.post("/v1/audio/speech", json={**fields, "stream": False})
            assert '"stream": true' in check_error(whole, 400, "invalid_value", "input")
            streamed = client.post("/v1/audio/speech", json=fields)
            assert len(streamed.content) == 400 * 2 * FRAME


def test_requests_of_silence_alone_wait_for_their_turn(fake_server: RunningServer) -> None:
    """Two listeners who take nothing have the turns; whoever leaves gives his to the next."""
    fields = {**GOOD, "input": "[300s]", "response_format": "wav", "exact_frames": None}
    with ExitStack() as stack:
        slow = []
        for _ in range(SILENCES):
            client = stack.enter_context(fake_server.client())
            slow.append(stack.enter_context(client.stream("POST", "/v1/audio/speech", json=fields)))
        client = stack.enter_context(fake_server.client())
        with pytest.raises(httpx.ReadTimeout):
            client.post(
                "/v1/audio/speech", json={**fields, "input": "[1s]"}, timeout=httpx.Timeout(PATIENCE_SECONDS, read=0.5)
            )
        assert client.post("/v1/audio/speech", json=GOOD).status_code == 200, "speech does not wait for them"
        slow[0].close()
        assert client.post("/v1/audio/speech", json={**fields, "input": "[1s]"}).status_code == 200


@pytest.mark.parametrize("text", ["[0s]", "[0.00001s]", "[0s] [0s]", "[0s] ...", "...", "😊", "\u200b", "—", "* * *"])
@pytest.mark.parametrize("way", [*WAYS.values(), {"stream_format": "sse"}], ids=str)
@pytest.mark.parametrize("audio_format", ["mp3", "wav", "pcm"])
def test_nothing_to_speak_is_one_error(client: httpx.Client, text: str, way: dict[str, Any], audio_format: str) -> None:
    response = client.post("/v1/audio/speech", json={**GOOD, "input": text, "response_format": audio_format, **way})
    assert "nothing to speak" in check_error(response, 400, "invalid_value", "input")


def test_letters_that_the_model_cannot_read(client: httpx.Client) -> None:
    message = check_error(speak(client, input="Привет, мир!"), 400, "invalid_value", "input")
    assert "chinese, english, german" in message


@pytest.mark.parametrize(
    ("notes", "header"),
    [((), None), (("dropped U+6771",), "dropped U+6771"), (("a", "b"), "a; b"), (("x" * 5000,), "x" * MAX_NOTES_CHARS)],
)
def test_what_was_dropped_from_the_text_is_told(notes: tuple[str, ...], header: str | None) -> None:
    speech = SimpleNamespace(seed=1, instruction_dropped=False, stand_in=False, text_notes=notes, reference_notes=())
    order = SimpleNamespace(ignored=())
    assert speech_headers(order, speech).get("x-text-notes") == header  # type: ignore[arg-type]


def test_how_wyoming_openai_finds_out_what_this_is(visitor: httpx.Client) -> None:
    """It takes whoever answers `/v1/readyz` for LocalAI, which has one voice; it asks without a key."""
    check_error(visitor.get("/v1/readyz"), 404, "not_found")
    assert visitor.get("/v1/../../health").text == visitor.get("/health").text == "OK"
    voices = visitor.get("/v1/models/tts-1").json()["voices"]
    assert {"name": "serena", "language": "chinese", "gender": "female"} in voices
    names = [voice["name"] for voice in voices]
    assert "serena_meditation" in names
    assert "alloy" not in names


def test_voices_in_the_shapes_that_clients_read(visitor: httpx.Client) -> None:
    objects = visitor.get("/v1/audio/voices").json()["voices"]
    names = visitor.get("/v1/audio/voices?format=names").json()
    assert names == {"voices": [voice["id"] for voice in objects], "uploaded_voices": []}
    assert visitor.get("/v1/audio/voices?format=objects").json()["voices"] == objects
    check_error(visitor.get("/v1/audio/voices?format=table"), 400, "invalid_value", "format")
