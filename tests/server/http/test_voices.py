"""Cloned voices over real HTTP: brought along by a request, uploaded and kept, and designed."""

from __future__ import annotations

import base64
import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from websockets.sync.client import connect

from server.audio.encoders import MARK
from server.speech.keeping import WITHOUT_TEXT
from tests.server.answers import GOOD, PREFIXES, check_error
from tests.server.audio.recordings import RATE, data_url, recorded, swelling, written
from tests.server.fakes import FRAME, write_bundle, write_one_of_each_type
from tests.server.running import FAKE, KEY, PATIENCE_SECONDS, RunningServer, run_server, wait_until

SPEECH, VOICES = "/v1/audio/speech", "/v1/audio/voices"
TEXT = "This is what is said in the recording, word for word."
AUDIO = data_url(recorded())
SAMPLES = 3 * RATE
TAIL = RATE // 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that clones, with two keys."""
    scratch = tmp_path_factory.mktemp("voices")
    models, kept, recordings = scratch / "models", scratch / "voices", scratch / "recordings"
    kept.mkdir()
    recordings.mkdir()
    (recordings / "anna.wav").write_bytes(recorded())
    (scratch / "secret.wav").write_bytes(recorded())
    (recordings / "link.wav").symlink_to(scratch / "secret.wav")
    write_one_of_each_type(models)
    sizes = json.loads((models / "a_base" / "manifest.json").read_text())["sizes"]
    sizes["talker"] |= {"hidden_size": 8, "num_heads": 2}
    generation = {"max_new_tokens": 10}
    write_bundle(models, "larger", model_type="base", speakers={}, sizes=sizes, generation=generation)
    with run_server(
        FAKE,
        scratch,
        KW_MODELS_DIR=str(models),
        KW_VOICES_DIR=str(kept),
        KW_REFERENCE_DIR=str(recordings),
        KW_MAX_REFERENCE_SECONDS="20",
        KW_MAX_REFERENCE="5MB",
        KW_MAX_VOICES_PER_KEY="3",
        FAKE_ENCODING_GATE=str(scratch / "gate"),
    ) as running:
        running.scratch = scratch  # type: ignore[attr-defined]
        running.wait_ready()
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """A client with a key; its voices are gone afterwards."""
    with server.client() as client:
        yield client
        for voice in client.get(VOICES).json()["uploaded_voices"]:
            client.delete(f"{VOICES}/{voice['name']}")
        assert server.complaints(client) == []


@pytest.fixture
def visitor(server: RunningServer) -> Iterator[httpx.Client]:
    """A client without a key."""
    with server.client(None) as client:
        yield client


@pytest.fixture
def other(server: RunningServer) -> Iterator[httpx.Client]:
    """A client with another key."""
    with server.client("other") as client:
        yield client


def speak(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"input": "Hello.", "response_format": "pcm", **fields}
    response = client.post(SPEECH, json=body)
    assert response.status_code == 200, response.text
    return response


def upload(client: httpx.Client, name: str = "anna", body: bytes | None = None, **fields: str) -> httpx.Response:
    data = {"name": name, "consent": "true", "ref_text": TEXT, **fields}
    file = ("anna.wav", recorded() if body is None else body, "audio/wav")
    return client.post(VOICES, data={key: value for key, value in data.items() if value}, files={"audio_sample": file})


def prompts(server: RunningServer, begin: int) -> list[Any]:
    """The voices of the prompts that have been built since there were so many."""
    return [event.get("cloned") for event in server.events("prompt")[begin:]]


def frames_of(samples: int) -> int:
    return -(-samples // FRAME)


def test_a_request_brings_its_voice_along(client: httpx.Client, server: RunningServer) -> None:
    begin, encoded = len(server.events("prompt")), len(server.events("encoded"))
    response = speak(client, ref_audio=AUDIO, ref_text=TEXT, input="One. [0.1s] Two.")
    assert len(response.content) == 2 * (2 * 10 * FRAME + RATE // 10)
    heard = prompts(server, begin)
    assert len(heard) == 2
    assert {json.dumps(voice) for voice in heard} == {json.dumps(heard[0])}
    assert heard[0]["text"] == TEXT
    assert heard[0]["frames"] == frames_of(SAMPLES + TAIL)
    assert "x-reference-notes" not in response.headers
    assert len(server.events("encoded")) == encoded + 1, "it is encoded once a request"
    speak(client, ref_audio=AUDIO, ref_text=TEXT)
    assert len(server.events("encoded")) == encoded + 1, "and once for requests that bring the same"


@pytest.mark.parametrize(
    ("fields", "samples", "text"),
    [
        ({"ref_text": TEXT, "append_silence": False}, SAMPLES, TEXT),
        ({"ref_text": TEXT, "append_silence": "true"}, SAMPLES + TAIL, TEXT),
        ({"ref_text": TEXT, "x_vector_only_mode": True}, SAMPLES, None),
        ({"x_vector_only_mode": True}, SAMPLES, None),
        ({"ref_text": TEXT, "task_type": "Base", "voice": "alloy", "model": "a_base"}, SAMPLES + TAIL, TEXT),
    ],
)
def test_how_a_recording_is_encoded(
    client: httpx.Client, server: RunningServer, fields: dict[str, Any], samples: int, text: str | None
) -> None:
    speak(client, ref_audio=AUDIO, **fields)
    last = server.events("prompt")[-1]["cloned"]
    assert last["text"] == text
    assert last["frames"] == (None if text is None else frames_of(samples))


def test_bare_base64_in_lines_is_read_too(client: httpx.Client) -> None:
    plain = base64.encodebytes(recorded("FLAC")).decode()
    speak(client, ref_audio=plain, ref_text=TEXT)
    speak(client, ref_audio=base64.urlsafe_b64encode(recorded("OGG")).decode().rstrip("="), ref_text=TEXT)


def test_a_speaker_embedding_is_a_voice(client: httpx.Client, server: RunningServer) -> None:
    speak(client, speaker_embedding=[0.5, 0, -0.5, 1])
    assert server.events("prompt")[-1]["cloned"] == {"speaker": [0.5, 0, -0.5, 1], "frames": None, "text": None}
    refused = client.post(SPEECH, json={"input": "a", "speaker_embedding": [0.5]})
    assert "have 4" in check_error(refused, 400, "invalid_value", "speaker_embedding")


def test_a_doubtful_recording_is_spoken_with_and_told(client: httpx.Client) -> None:
    samples = np.pad(np.clip(8 * swelling(), -1, 1), (2 * RATE, 0))
    body = base64.b64encode(written(samples.astype(np.float32))).decode()
    notes = speak(client, ref_audio=body, ref_text="No.").headers["x-reference-notes"]
    assert all(words in notes for words in ("begins with 2.0 s", "is clipped", "never end"))


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"ref_audio": AUDIO}, "ref_text", "x_vector_only_mode"),
        ({"ref_text": TEXT}, "ref_text", "without ref_audio"),
        ({"task_type": "Base"}, "task_type", "ref_audio"),
        ({"model": "a_base"}, "voice", "cloned voices only"),
        ({"model": "a_base", "voice": "nobody"}, "voice", "cloned voices only"),
        ({"ref_audio": AUDIO, "ref_text": TEXT, "task_type": "CustomVoice"}, "ref_audio", "task_type"),
        ({"ref_audio": AUDIO, "ref_text": TEXT, "speaker_embedding": [0, 0, 0, 0]}, "speaker_embedding", "not both"),
        ({"ref_audio": AUDIO, "ref_text": TEXT, "model": "custom"}, "model", "another one; a_base, which is here, can"),
        ({"ref_audio": AUDIO, "ref_text": TEXT, "model": "design"}, "model", "another one; a_base, which is here, can"),
        ({"ref_audio": "§§", "ref_text": TEXT}, "ref_audio", "no base64"),
        ({"ref_audio": "!!!!", "ref_text": TEXT}, "ref_audio", "no base64"),
        ({"ref_audio": "data:audio/wav,abc", "ref_text": TEXT}, "ref_audio", "data URI"),
        ({"ref_audio": "ftp://a/b", "ref_text": TEXT}, "ref_audio", "http, https or file"),
        ({"ref_audio": "aGVsbG8=", "ref_text": TEXT}, "ref_audio", "in no format"),
        ({"ref_audio": "http://127.0.0.1:9/a.wav", "ref_text": TEXT}, "ref_audio", "fetches none"),
        ({"ref_audio": "file:///etc/passwd", "ref_text": TEXT}, "ref_audio", "names no file"),
        ({"ref_audio": "file://../secret.wav", "ref_text": TEXT}, "ref_audio", "names no file"),
        ({"ref_audio": "file://%2e%2e/secret.wav", "ref_text": TEXT}, "ref_audio", "names no file"),
        ({"ref_audio": "file://link.wav", "ref_text": TEXT}, "ref_audio", "names no file"),
        ({"ref_audio": "file://", "ref_text": TEXT}, "ref_audio", "names no file"),
        ({"ref_audio": "file://a%00b", "ref_text": TEXT}, "ref_audio", "names no file"),
        ({"ref_audio": AUDIO, "ref_text": "refused"}, "ref_audio", "is refused"),
    ],
)
def test_what_cannot_be_cloned_is_refused(client: httpx.Client, fields: dict[str, Any], param: str, words: str) -> None:
    response = client.post(SPEECH, json={"input": "Hello.", **fields})
    assert words in check_error(response, 400, "invalid_value", param)


def test_a_file_of_the_folder_is_read(client: httpx.Client, server: RunningServer) -> None:
    speak(client, ref_audio="file://anna.wav", ref_text=TEXT)
    folder = server.scratch / "recordings"  # type: ignore[attr-defined]
    speak(client, ref_audio=f"file://{folder}/anna.wav", ref_text=TEXT)


def test_what_is_too_long_is_refused(client: httpx.Client) -> None:
    long = base64.b64encode(recorded("FLAC", seconds=25.0)).decode()
    refused = client.post(SPEECH, json={"input": "a", "ref_audio": long, "ref_text": TEXT})
    assert "longer than 20 s" in check_error(refused, 400, "invalid_value", "ref_audio")
    large = base64.b64encode(recorded() + bytes(5_000_000)).decode()
    refused = client.post(SPEECH, json={"input": "a", "ref_audio": large, "ref_text": TEXT})
    assert "more than 5000000 bytes" in check_error(refused, 400, "invalid_value", "ref_audio")
    refused = client.post(SPEECH, content=iter([b"a" * 3_000_000]))
    assert "a longer recording needs a Content-Length" in check_error(refused, 413, "request_too_large")


def test_an_engine_that_cannot_encode_is_told_of(client: httpx.Client, server: RunningServer) -> None:
    response = client.post(SPEECH, json={"input": "a", "ref_audio": AUDIO, "ref_text": "fail-to-encode"})
    check_error(response, 500, "speech_failed")
    wait_until(lambda: any("reference_failed" in line for line in server.log), "it is logged")


def lines_of_leavers(server: RunningServer) -> list[str]:
    return [line for line in server.log if " status=499 " in line]


def test_a_client_that_leaves_takes_its_place_along(client: httpx.Client, server: RunningServer) -> None:
    """What is being encoded goes on to its end; what waits for its turn is never begun."""
    begun = len(server.events("encoding"))
    slow, never = (json.dumps({"input": "a", "ref_audio": AUDIO, "ref_text": text}) for text in ("slow", "never begun"))
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: "
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) as connection:
        connection.sendall(f"{head}{len(slow)}\r\n\r\n{slow}".encode())
        server.wait_event("encoding", text="slow")
    left = len(lines_of_leavers(server))
    with pytest.raises(httpx.ReadTimeout):
        client.post(SPEECH, content=never, timeout=httpx.Timeout(PATIENCE_SECONDS, read=0.4))
    wait_until(lambda: len(lines_of_leavers(server)) > left, "it is known that who waits has left")
    (server.scratch / "gate").touch()  # type: ignore[attr-defined]
    speak(client, ref_audio=AUDIO, ref_text="another text, which is encoded now")
    texts = [event["text"] for event in server.events("encoding")[begun:]]
    assert texts == ["slow", "another text, which is encoded now"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_voice_is_uploaded_listed_spoken_with_and_deleted(
    client: httpx.Client, visitor: httpx.Client, server: RunningServer, prefix: str
) -> None:
    path = f"{prefix}/audio/voices"
    data = {"name": "anna", "consent": "cons_1", "ref_text": TEXT, "speaker_description": "warm", "shared": "true"}
    made = client.post(path, data=data, files={"audio_sample": ("a.mp3", recorded("MP3"), "audio/mpeg")})
    assert made.status_code == 200, made.text
    told = made.json()
    assert (told["object"], told["id"], told["name"], told["success"]) == ("audio.voice", "anna", "anna", True)
    assert told["created_at"] > 1_700_000_000
    assert told["voice"]["consent"] == "cons_1"
    assert told["voice"]["description"] == "warm"
    assert told["notes"] == []
    card = client.get(f"{path}/anna").json()
    assert card == told["voice"]
    listed = client.get(path).json()
    assert listed["uploaded_voices"] == [card]
    voice = next(voice for voice in listed["voices"] if voice["id"] == "anna")
    assert (voice["description"], voice["languages"][:2]) == ("warm", ["chinese", "english"])
    names = visitor.get(path, params={"format": "names"}).json()
    assert "anna" in names["voices"], "it is shared"
    assert "anna" not in client.get(path, params={"model": "custom", "format": "names"}).json()["voices"]
    begin = len(server.events("prompt"))
    for voice in ("anna", {"id": "anna"}, "Anna"):
        speak(client, voice=voice)
    assert [voice["text"] for voice in prompts(server, begin)] == [TEXT] * 3
    gone = client.delete(f"{path}/anna").json()
    assert (gone["success"], gone["deleted"], gone["id"]) == (True, True, "anna")
    check_error(client.get(f"{path}/anna"), 404, "voice_not_found", "voice")
    check_error(client.delete(f"{path}/anna"), 404, "voice_not_found", "voice")
    check_error(client.post(SPEECH, json={"input": "a", "voice": "anna"}), 400, "invalid_value", "voice")


def test_a_voice_is_its_keys(client: httpx.Client, other: httpx.Client, visitor: httpx.Client) -> None:
    assert upload(client).status_code == 200
    for stranger in (other, visitor):
        assert "anna" not in stranger.get(VOICES, params={"format": "names"}).json()["voices"]
    assert "anna" in client.get(VOICES, params={"format": "names"}).json()["voices"]
    check_error(other.get(f"{VOICES}/anna"), 404, "voice_not_found", "voice")
    check_error(other.delete(f"{VOICES}/anna"), 404, "voice_not_found", "voice")
    assert other.post(SPEECH, json={"input": "a", "voice": "anna"}).status_code == 400
    check_error(upload(other), 409, "voice_exists", "name")
    assert visitor.delete(f"{VOICES}/anna").status_code == 401
    assert visitor.post(VOICES, data={"name": "a"}).status_code == 401
    upload(client, "ours", shared="true")
    speak(other, voice="ours")
    check_error(other.delete(f"{VOICES}/ours"), 403, "not_your_voice", "voice")


def test_only_a_digest_of_the_key_is_kept(client: httpx.Client, server: RunningServer) -> None:
    upload(client)
    content = (server.scratch / "voices" / "anna.safetensors").read_bytes()  # type: ignore[attr-defined]
    assert KEY.encode() not in content
    assert b'owner\\":\\"' in content


def test_a_key_keeps_so_many(client: httpx.Client) -> None:
    for name in ("a", "b", "c"):
        assert upload(client, name).status_code == 200
    check_error(upload(client, "d"), 409, "too_many_voices")


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"consent": ""}, 400, "invalid_value", "consent"),
        ({"consent": "false"}, 400, "invalid_value", "consent"),
        ({"consent": "x" * 201}, 400, "invalid_value", "consent"),
        ({"name": ""}, 400, "invalid_value", "name"),
        ({"name": "../anna"}, 400, "invalid_value", "name"),
        ({"name": "a" * 65}, 400, "invalid_value", "name"),
        ({"name": "ällo"}, 400, "invalid_value", "name"),
        ({"name": "Alloy"}, 409, "voice_exists", "name"),
        ({"name": "serena_meditation"}, 409, "voice_exists", "name"),
        ({"name": "design"}, 409, "voice_exists", "name"),
        ({"ref_text": "", "x_vector_only_mode": "false"}, 400, "invalid_value", "ref_text"),
        ({"name": "none"}, 409, "voice_exists", "name"),
        ({"model": "custom"}, 400, "invalid_value", "model"),
        ({"model": "nothing"}, 404, "model_not_found", "model"),
        ({"instructions": "An old sailor."}, 400, "invalid_value", "instructions"),
        ({"body": b"hello"}, 400, "invalid_value", "audio_sample"),
        ({"body": b""}, 400, "invalid_value", "audio_sample"),
        ({"body": recorded() + bytes(5_000_000)}, 400, "invalid_value", "audio_sample"),
        ({"shared": "perhaps"}, 400, "invalid_value", "shared"),
    ],
)
def test_a_wrong_upload_is_refused_and_leaves_nothing(
    client: httpx.Client, server: RunningServer, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    check_error(upload(client, **fields), status, code, param)
    assert list((server.scratch / "voices").iterdir()) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"consent": "false"}, "consent is missing: say that the speaker agreed"),
        ({"consent": " No "}, "consent is missing: say that the speaker agreed"),
        ({"consent": "x" * 201}, "consent must have at most 200 characters"),
        ({"shared": "perhaps"}, "shared must be true or false"),
        ({"seed": "some"}, "seed must be an integer"),
        ({"seed": "-2"}, "seed must be at least 0"),
        ({"model": "custom"}, "the model custom cannot clone voices; a_base, which is here, can"),
    ],
)
def test_a_wrong_upload_is_told_in_the_words_of_a_wrong_request(
    client: httpx.Client, fields: dict[str, str], says: str
) -> None:
    param = next(iter(fields))
    assert check_error(upload(client, **fields), 400, "invalid_value", param).startswith(says)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"name=anna&consent=true", "application/x-www-form-urlencoded"),
        (b"--x\r\n\r\n--x--", "text/plain"),
        (b"", "application/json"),
    ],
)
def test_who_sends_no_upload_is_told_of_forms_as_well(client: httpx.Client, body: bytes, content_type: str) -> None:
    answer = client.post(VOICES, content=body, headers={"content-type": content_type})
    message = check_error(answer, 400, "invalid_value")
    assert message.endswith("; send multipart/form-data with its boundary, or a JSON object")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x" * 1000, "multipart/form-data; boundary=x"),
        (b"--x\r\nno colon\r\n\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\n" + b"a: b\r\n" * 100_000 + b"--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\n\xff: a\r\n\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (
            b"--x\r\ncontent-disposition: form-data; name=a\r\ncontent-type: a; charset=none\r\n\r\nb\r\n--x--",
            "multipart/form-data; boundary=x",
        ),
        (b"[]", "application/json"),
        (b"name=anna", "application/x-www-form-urlencoded"),
        (b'{"name": ["a"]}', "application/json"),
        (b'{"name": "anna", "seed": {}}', "application/json"),
    ],
)
def test_a_malformed_form_is_refused(client: httpx.Client, body: bytes, content_type: str) -> None:
    response = client.post(VOICES, content=body, headers={"content-type": content_type})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "invalid_value"


def test_a_voice_is_uploaded_as_json(client: httpx.Client, server: RunningServer) -> None:
    fields = {"name": "anna", "consent": True, "ref_audio": AUDIO, "x_vector_only_mode": True}
    told = client.post(VOICES, json=fields).json()
    assert not told["in_context"]
    speak(client, voice="anna", input="One.")
    assert server.events("prompt")[-1]["cloned"]["frames"] is None


def test_an_upload_without_its_text_keeps_the_speaker_embedding_alone(client: httpx.Client) -> None:
    told = upload(client, ref_text="").json()
    assert not told["in_context"]
    assert told["notes"] == [WITHOUT_TEXT]
    assert upload(client, "wanted", ref_text="", x_vector_only_mode="true").json()["notes"] == []


def test_a_file_of_the_name_of_a_speaker_does_not_speak_for_it(client: httpx.Client, server: RunningServer) -> None:
    upload(client)
    kept = server.scratch / "voices"  # type: ignore[attr-defined]
    content = (kept / "anna.safetensors").read_bytes()
    assert content.count(b"anna") == 1
    (kept / "ryan.safetensors").write_bytes(content.replace(b"anna", b"ryan"))
    try:
        speak(client, voice="ryan", model="custom")
        assert server.events("prompt")[-1]["speaker"] == "ryan"
        assert [voice["name"] for voice in client.get(VOICES).json()["uploaded_voices"]] == ["anna"]
        (told,) = [line for line in server.log if " voice_left_out " in line]
        assert "ryan.safetensors" in told
    finally:
        (kept / "ryan.safetensors").unlink()


def test_a_voice_is_designed_once_and_kept(client: httpx.Client, server: RunningServer) -> None:
    fields = {"name": "sailor", "instructions": "An old sailor.", "ref_text": TEXT, "seed": 5}
    made = client.post(VOICES, json=fields)
    assert made.status_code == 200, made.text
    assert made.json()["designed"]
    assert made.json()["seconds"] == 25 * FRAME / RATE
    spoken = next(event for event in server.events("prompt") if event["instruction"] == "An old sailor.")
    assert spoken["speaker"] is None
    speak(client, voice="sailor", input="One. Two.")
    assert server.events("prompt")[-1]["cloned"]["text"] == TEXT
    again = client.post(VOICES, json={**fields, "name": "again", "design_model": "custom"})
    assert "VoiceDesign" in check_error(again, 400, "invalid_value", "design_model")


def test_a_voice_of_another_size_is_refused(client: httpx.Client) -> None:
    upload(client)
    refused = client.post(SPEECH, json={"input": "a", "voice": "anna", "model": "larger"})
    assert "was made for the model a_base" in check_error(refused, 400, "invalid_value", "voice")
    refused = client.post(SPEECH, json={"input": "a", "voice": "anna", "model": "custom"})
    assert "cannot clone" in check_error(refused, 400, "invalid_value", "model")
    assert "anna" not in client.get(VOICES, params={"model": "larger", "format": "names"}).json()["voices"]


def test_a_tag_changes_to_a_kept_voice(client: httpx.Client, server: RunningServer) -> None:
    upload(client)
    upload(client, "bob", written(0.5 * swelling(4)))
    begin = len(server.events("prompt"))
    speak(client, voice="anna", input="One. [voice:bob] Two. [voice:anna] Three.")
    heard = [voice["frames"] for voice in prompts(server, begin)]
    anna, bob = frames_of(SAMPLES + TAIL), frames_of(4 * RATE + TAIL)
    assert sorted(heard) == sorted([bob, anna, anna, bob, anna][-len(heard) :]) or {anna, bob} == set(heard)
    refused = client.post(SPEECH, json={"input": "[voice:anna] One.", "model": "custom", "voice": "alloy"})
    assert "cannot clone" in check_error(refused, 400, "invalid_value", "model")


def test_kept_voices_survive_and_files_are_noticed(client: httpx.Client, server: RunningServer) -> None:
    upload(client)
    folder = server.scratch / "voices"  # type: ignore[attr-defined]
    content = (folder / "anna.safetensors").read_bytes()
    (folder / "anna.safetensors").unlink()
    assert client.post(SPEECH, json={"input": "a", "voice": "anna"}).status_code == 400
    (folder / "anna.safetensors").write_bytes(content)
    speak(client, voice="anna")


def test_models_say_whether_they_clone(client: httpx.Client) -> None:
    cloning = {card["id"]: card["cloning"] for card in client.get("/v1/models").json()["data"]}
    assert cloning == {"a_base": True, "custom": False, "design": False, "larger": True}
    assert client.get("/readyz").json()["model"] == "custom", "the default model has voices of its own"


def test_batches_share_a_recording(client: httpx.Client, server: RunningServer) -> None:
    encoded = len(server.events("encoded"))
    body = {
        "ref_audio": AUDIO,
        "ref_text": "the text of the batch, which is another one",
        "items": [{"input": "One."}, {"input": "Two."}],
    }
    answer = client.post("/v1/audio/speech/batch", json=body).json()
    assert answer["succeeded"] == 2
    assert len(server.events("encoded")) == encoded + 1


def test_a_socket_speaks_with_a_recording_and_with_a_kept_voice(client: httpx.Client, server: RunningServer) -> None:
    """Each sentence is a request of its own; what they share is encoded once, and a kept voice is its key's."""
    upload(client)
    text = "the text of the socket, which is another one again"
    configs: list[dict[str, Any]] = [{"ref_audio": AUDIO, "ref_text": text, "task_type": "Base"}, {"voice": "anna"}]
    begun, encoded = len(server.events("prompt")), len(server.events("encoded"))
    key = {"Authorization": f"Bearer {KEY}"}
    with connect(f"ws{server.url.removeprefix('http')}/v1/audio/speech/stream", additional_headers=key) as socket:
        for config in configs:
            socket.send(json.dumps({"type": "session.config", "split_granularity": "sentence", **config}))
            socket.send(json.dumps({"type": "input.text", "text": "This is one sentence. And this is another one."}))
            socket.send(json.dumps({"type": "input.done"}))
            while isinstance(message := socket.recv(60), bytes) or json.loads(message)["type"] != "session.done":
                assert isinstance(message, bytes) or json.loads(message)["type"] != "error", message
    heard = [voice["text"] for voice in prompts(server, begun)]
    assert heard == [text, text, TEXT, TEXT]
    assert len(server.events("encoded")) == encoded + 1


def test_a_socket_gives_a_cloned_voice_its_text_token_by_token(client: httpx.Client, server: RunningServer) -> None:
    """A recording of the request's own, a kept voice, and one that a tag names."""
    upload(client)
    own = {"ref_audio": AUDIO, "ref_text": "the text of a live socket", "task_type": "Base"}
    texts = ("A kept voice speaks.", "The own voice. [voice:anna] A tag names another.")
    begun = len(server.events("live_text"))
    key = {"Authorization": f"Bearer {KEY}"}
    with connect(f"ws{server.url.removeprefix('http')}/v1/audio/speech/stream", additional_headers=key) as socket:
        for config, text in zip(({"voice": "anna"}, own), texts, strict=True):
            socket.send(json.dumps({"type": "session.config", "split_granularity": "token", **config}))
            socket.send(json.dumps({"type": "input.text", "text": text}))
            socket.send(json.dumps({"type": "input.done"}))
            while isinstance(message := socket.recv(60), bytes) or json.loads(message)["type"] != "session.done":
                assert isinstance(message, bytes) or json.loads(message)["type"] != "error", message
    heard = [event["cloned"]["text"] for event in server.events("live_text")[begun:]]
    assert heard == [TEXT, own["ref_text"], TEXT]


def test_openais_sdk(client: httpx.Client, server: RunningServer) -> None:
    upload(client)
    speaker = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    with speaker:
        saved = speaker.audio.speech.create(model="tts-1", input="Hello.", voice={"id": "anna"}, response_format="pcm")
        assert len(saved.content) == 2 * 10 * FRAME
        extra = {"ref_audio": AUDIO, "ref_text": TEXT, "task_type": "Base"}
        inline = speaker.audio.speech.create(
            model="tts-1", input="Hello.", voice="alloy", response_format="pcm", extra_body=extra
        )
        assert len(inline.content) == 2 * 10 * FRAME


def test_vllm_omnis_curl_lines(client: httpx.Client, server: RunningServer, tmp_path: Path) -> None:
    """As its documentation has them: https://github.com/vllm-project/vllm-omni, docs/serving/speech_api.md."""
    (tmp_path / "sample.wav").write_bytes(recorded())

    def curl(*arguments: str) -> Any:
        command = ["curl", "-s", "-H", f"Authorization: Bearer {KEY}", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout

    url = f"{server.url}{VOICES}"
    form = ("audio_sample=@sample.wav", "consent=user_consent_id", "name=custom_voice_1", f"ref_text={TEXT}")
    made = json.loads(curl("-X", "POST", url, *(part for field in form for part in ("-F", field))))
    assert made["success"]
    assert made["voice"]["name"] == "custom_voice_1"
    assert [voice["name"] for voice in json.loads(curl(url))["uploaded_voices"]] == ["custom_voice_1"]
    body = {"input": "Hello.", "voice": "custom_voice_1", "task_type": "Base", "response_format": "wav"}
    wav = curl("-X", "POST", f"{server.url}{SPEECH}", "-H", "Content-Type: application/json", "-d", json.dumps(body))
    assert wav.startswith(b"RIFF")
    assert json.loads(curl("-X", "DELETE", f"{url}/custom_voice_1"))["success"]


@pytest.mark.parametrize("audio_format", ["mp3", "wav", "flac", "opus"])
@pytest.mark.parametrize("stream", [True, False])
def test_files_say_that_they_are_synthetic(client: httpx.Client, audio_format: str, stream: bool) -> None:
    body = speak(client, voice="alloy", response_format=audio_format, stream=stream).content
    assert MARK.encode() in body
    if audio_format == "wav":
        size = 0xFFFFFFFF if stream else 2 * 10 * FRAME
        assert struct.unpack_from("<I", body, 186) == (size,)


def test_without_a_folder_no_voices_are_kept(fake_server: RunningServer) -> None:
    with fake_server.client() as client:
        assert "KW_VOICES_DIR" in check_error(upload(client), 400, "invalid_value")
        refused = client.post(SPEECH, json={**GOOD, "ref_audio": AUDIO, "ref_text": TEXT})
        assert "Qwen3-TTS-12Hz-0.6B-Base" in check_error(refused, 400, "invalid_value", "model")


def test_an_operator_answers_for_consent_and_marks_nothing(tmp_path: Path) -> None:
    models, kept = tmp_path / "models", tmp_path / "voices"
    kept.mkdir()
    write_bundle(models, "custom", generation={"max_new_tokens": 10})
    settings = {"KW_MODELS_DIR": str(models), "KW_MARK_SYNTHETIC": "off", "KW_SECRET_API_KEY": ""}
    write_bundle(models, "base", model_type="base", speakers={}, generation={"max_new_tokens": 10})
    settings |= {"KW_VOICES_DIR": str(kept), "KW_VOICE_CONSENT": "assumed"}
    with run_server(FAKE, tmp_path, **settings) as server, server.client(None) as client:
        server.wait_ready()
        made = upload(client, consent="")
        assert made.json()["consent"] == "assumed"
        assert b"ynthetic" not in client.post(SPEECH, json=GOOD | {"response_format": "wav"}).content
        assert made.json()["shared"], "without keys a voice is everybody's"
        speak(client, voice="anna")
    with run_server(FAKE, tmp_path, **settings) as server, server.client(None) as client:
        server.wait_ready()
        speak(client, voice="anna")
        assert client.delete(f"{VOICES}/anna").status_code == 200


def ids_of(client: httpx.Client) -> list[str]:
    """The voices that the OpenAPI document lists."""
    ids: list[str] = client.get("/v1/openapi.json").json()["components"]["schemas"]["VoiceId"]["enum"]
    return ids


def test_the_document_lists_the_voices_that_are_everybodys(client: httpx.Client, visitor: httpx.Client) -> None:
    own = ids_of(visitor)
    assert "ryan" in own
    for name, shared, listed in (("secret", "", own), ("sailor", "true", [*own, "sailor"])):
        assert upload(client, name, shared=shared).status_code == 200
        assert ids_of(visitor) == ids_of(client) == listed
    assert client.delete(f"{VOICES}/sailor").status_code == 200
    assert ids_of(visitor) == own
