"""WS `/audio/speech/stream`: vLLM-Omni's protocol, over the fake engine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.server.answers import check_error
from tests.server.fakes import UNFIT, write_bundle
from tests.server.running import FAKE, KEY, PATIENCE_SECONDS, RunningServer, run_server, wait_until

FRAME_BYTES = 3840
CONFIG = {
    "type": "session.config",
    "voice": "serena",
    "response_format": "pcm",
    "stream_audio": True,
    "split_granularity": "sentence",
    "exact_frames": 2,
}


def dial(
    server: RunningServer,
    path: str = "/v1/audio/speech/stream",
    subprotocols: list[Subprotocol] | None = None,
    **headers: str,
) -> ClientConnection:
    headers = headers or {"authorization": f"Bearer {KEY}"}
    url = server.url.replace("http", "ws") + path
    return connect(
        url,
        additional_headers=headers,
        subprotocols=subprotocols,
        compression=None,
        open_timeout=PATIENCE_SECONDS,
        proxy=None,
    )


def tell(connection: ClientConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, **fields}))


def say(connection: ClientConnection, *texts: str) -> None:
    for text in texts:
        tell(connection, "input.text", text=text)
    tell(connection, "input.done")


def hear(connection: ClientConnection, until: str = "session.done") -> tuple[list[dict[str, Any]], bytes]:
    """Events up to one of this type, and the audio between them."""
    events: list[dict[str, Any]] = []
    audio = b""
    while not events or events[-1]["type"] != until:
        message = connection.recv(PATIENCE_SECONDS)
        if isinstance(message, bytes):
            audio += message
        else:
            events.append(json.loads(message))
    return events, audio


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


@pytest.fixture
def connection(fake_server: RunningServer) -> Iterator[ClientConnection]:
    """A configured socket."""
    with dial(fake_server) as connection:
        tell(connection, "session.config", **CONFIG)
        yield connection


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
def test_an_utterance(fake_server: RunningServer, prefix: str) -> None:
    with dial(fake_server, f"{prefix}/audio/speech/stream") as connection:
        tell(connection, "session.config", **CONFIG)
        say(connection, "The first", " one. The sec", "ond one.")
        events, audio = hear(connection)
        assert kinds(events) == ["audio.start", "audio.done"] * 2 + ["session.done"]
        start, done, second, _, end = events
        assert start == {
            "type": "audio.start",
            "utterance_index": 0,
            "sentence_index": 0,
            "sentence_text": "The first one.",
            "format": "pcm",
            "sample_rate": 24000,
            "channels": 1,
        }
        assert (done["total_bytes"], done["error"]) == (2 * FRAME_BYTES, False)
        assert (second["sentence_index"], second["sentence_text"]) == (1, "The second one.")
        assert end == {"type": "session.done", "utterance_index": 0, "total_sentences": 2}
        assert len(audio) == 4 * FRAME_BYTES
        tell(connection, "session.close")
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(PATIENCE_SECONDS)
        assert closed.value.rcvd and closed.value.rcvd.code == 1000


def test_a_sentence_is_spoken_before_its_text_has_ended(connection: ClientConnection) -> None:
    tell(connection, "input.text", text="The first one. And")
    events, _ = hear(connection, "audio.done")
    assert events[0]["sentence_text"] == "The first one."
    say(connection, " the rest")
    events, _ = hear(connection)
    assert events[0]["sentence_text"] == "And the rest"


def test_a_sentence_is_spoken_when_its_text_stops_coming(connection: ClientConnection) -> None:
    tell(connection, "input.text", text="The first one.")
    events, _ = hear(connection, "audio.done")
    assert events[0]["sentence_text"] == "The first one."


def test_several_utterances_and_configurations_on_one_socket(connection: ClientConnection) -> None:
    say(connection, "One.")
    say(connection, "Two.")
    assert [hear(connection)[0][-1]["utterance_index"] for _ in range(2)] == [0, 1]
    tell(connection, "session.config", **{**CONFIG, "exact_frames": 3, "split_granularity": "none"})
    say(connection, "One. Two.")
    events, audio = hear(connection)
    assert events[0]["sentence_text"] == "One. Two."
    assert len(audio) == 3 * FRAME_BYTES


def test_a_tag_changes_the_voice_of_the_sentences_that_follow(
    fake_server: RunningServer, connection: ClientConnection
) -> None:
    before = len(fake_server.events("prompt"))
    say(connection, "One. [voice:ryan] Two. Three.")
    events, _ = hear(connection)
    assert [event["sentence_text"] for event in events if event["type"] == "audio.start"] == [
        *("One.", "[voice:ryan] Two."),
        "Three.",
    ]
    speakers = [event["speaker"] for event in fake_server.events("prompt")[before:]]
    assert [speaker for speaker, _ in groupby(speakers)] == ["serena", "ryan"]
    say(connection, "Four.")
    hear(connection)
    assert fake_server.events("prompt")[-1]["speaker"] == "serena"


@pytest.mark.parametrize("granularity", ["sentence", "clause", "token"])
def test_a_voice_tag_alone_is_no_sentence(
    fake_server: RunningServer, connection: ClientConnection, granularity: str
) -> None:
    tell(connection, "session.config", **{**CONFIG, "split_granularity": granularity})
    for text in ("[voice:ryan]", " [voice: ryan] \n", "... [voice:ryan]\n\n🙂"):
        say(connection, text)
        events, _ = hear(connection)
        assert (kinds(events), events[0]["total_sentences"]) == (["session.done"], 0)
    before = len(fake_server.events("live_text" if granularity == "token" else "prompt"))
    say(connection, "[voice:ryan]\n\n", "So it is. [voice:vivian]")
    events, _ = hear(connection)
    assert (kinds(events), events[-1]["total_sentences"]) == (["audio.start", "audio.done", "session.done"], 1)
    made = fake_server.events("live_text" if granularity == "token" else "prompt")[before:]
    assert {event["speaker"] for event in made} == {"ryan"}


def test_a_voice_named_behind_the_last_word_of_a_sentence_speaks_the_next(
    fake_server: RunningServer, connection: ClientConnection
) -> None:
    before = len(fake_server.events("prompt"))
    say(connection, "One [voice:ryan]. [1ms] Two. Three [voice:vivian][1ms]. Four.")
    hear(connection)
    speakers = [event["speaker"] for event in fake_server.events("prompt")[before:]]
    assert [speaker for speaker, _ in groupby(speakers)] == ["serena", "ryan", "vivian"]


def test_nothing_said_is_no_sentences(connection: ClientConnection) -> None:
    for index in range(2):
        tell(connection, "input.done")
        assert hear(connection)[0] == [{"type": "session.done", "utterance_index": index, "total_sentences": 0}]
    say(connection, " \n🙂")
    assert hear(connection)[0][-1]["total_sentences"] == 0


def test_clauses(connection: ClientConnection) -> None:
    tell(connection, "session.config", **{**CONFIG, "split_granularity": "clause"})
    tell(connection, "input.text", text="When all of them had gone, he")
    assert hear(connection, "audio.start")[0][0]["sentence_text"] == "When all of them had gone,"


TOKEN = {**{name: value for name, value in CONFIG.items() if name != "exact_frames"}, "split_granularity": "token"}


def test_tokens_are_spoken_as_they_come(fake_server: RunningServer, connection: ClientConnection) -> None:
    tell(connection, "session.config", **{**TOKEN, "max_new_tokens": 24, "seed": 7400})
    tell(connection, "input.text", text="The first word is")
    events, _ = hear(connection, "audio.start")
    assert events == [
        {
            "type": "audio.start",
            "utterance_index": 0,
            "sentence_index": 0,
            "sentence_text": "",
            "format": "pcm",
            "sample_rate": 24000,
            "channels": 1,
        }
    ]
    assert [event["text"] for event in fake_server.events("fed")][-1] == "The first word"
    say(connection, " heard", " before the last. And it is one prosody.")
    events, audio = hear(connection)
    assert kinds(events) == ["audio.done", "session.done"]
    assert (events[0]["error"], events[0]["seed"], events[0]["finish_reason"]) == (False, 7400, "length")
    assert events[1]["total_sentences"] == 1
    assert len(audio) == events[0]["total_bytes"] == 24 * FRAME_BYTES


def test_a_text_in_tokens_is_one_file_where_audio_is_not_streamed(connection: ClientConnection) -> None:
    tell(connection, "session.config", **{**TOKEN, "stream_audio": False, "response_format": "wav", "exact_frames": 3})
    say(connection, "One. ", "[0.5s] Two.")
    events, audio = hear(connection)
    assert events[-1]["total_sentences"] == 1
    assert len(audio) == 190 + 6 * FRAME_BYTES + 24_000


def test_what_is_wrong_with_a_text_in_tokens_is_said_and_the_next_one_is_spoken(connection: ClientConnection) -> None:
    tell(connection, "session.config", **{**TOKEN, "exact_frames": 3})
    for text, param in (("One [voice:nobody] two.", "voice"), (f"{UNFIT} words", "input"), ("[300s] One [1s]", "text")):
        say(connection, text)
        events, _ = hear(connection)
        (error,) = [event for event in events if event["type"] == "error"]
        assert (error["code"], error["param"]) == ("invalid_value", param)
        assert kinds(events)[-1] == "session.done"
    say(connection, "\U0001f642 \n")
    assert hear(connection)[0][-1]["total_sentences"] == 0
    say(connection, "One")
    assert hear(connection)[0][-1]["total_sentences"] == 1


def test_max_new_tokens_bounds_each_unit(connection: ClientConnection) -> None:
    tell(connection, "session.config", **{**TOKEN, "split_granularity": "sentence", "max_new_tokens": 3})
    say(connection, "The first one. The second one.")
    events, audio = hear(connection)
    done = [event for event in events if event["type"] == "audio.done"]
    assert [(event["finish_reason"], event["total_bytes"]) for event in done] == [("length", 3 * FRAME_BYTES)] * 2
    tell(connection, "session.config", **{**TOKEN, "max_new_tokens": 3})
    say(connection, "The first one.", " The second one.")
    events, audio = hear(connection)
    assert (events[-1]["total_sentences"], len(audio)) == (1, 3 * FRAME_BYTES), "the unit is all of the text"


def test_whole_files_where_audio_is_not_streamed(connection: ClientConnection) -> None:
    tell(connection, "session.config", voice="serena", exact_frames=2)
    say(connection, "One. Two.")
    events, audio = hear(connection)
    assert (events[0]["format"], events[0]["sentence_text"]) == ("wav", "One. Two.")
    assert audio[:4] == b"RIFF"
    assert int.from_bytes(audio[186:190], "little") == 2 * FRAME_BYTES == len(audio) - 190


def test_fields_that_are_unknown_or_null_are_no_error(connection: ClientConnection) -> None:
    more = {"task_type": "CustomVoice", "initial_codec_chunk_frames": 4, "ref_audio": None, "seed": None}
    tell(connection, "session.config", **{**CONFIG, **more, "timestamp_type": "word", "language": "Auto"})
    say(connection, "One.")
    assert hear(connection)[0][-1]["total_sentences"] == 1


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"split_granularity": "syllable"}, "split_granularity", "none, sentence, clause, token"),
        ({"split_granularity": "token", "text_format": "markdown"}, "text_format", "choose sentence"),
        ({"stream_audio": "perhaps"}, "stream_audio", "true or false"),
        ({"word_timestamps": True}, "word_timestamps", "not available"),
        ({"timestamps": "sentence"}, "timestamps", "not available"),
        ({"voice": "nobody"}, "voice", "voices are"),
        ({"model": "nothing"}, "model", "no such model"),
        ({"language": "klingon"}, "language", "english"),
        ({"speed": 9}, "speed", "at most 5"),
        ({"task_type": "Base"}, "model", "clone"),
        ({"response_format": "ogg vorbis"}, "response_format", "mp3"),
    ],
)
def test_a_wrong_configuration_is_said_and_leaves_the_one_before(
    connection: ClientConnection, fields: dict[str, Any], param: str, words: str
) -> None:
    tell(connection, "session.config", **{**CONFIG, **fields})
    (error,) = hear(connection, "error")[0]
    assert error["param"] == param
    assert words in error["message"]
    say(connection, "One.")
    assert hear(connection)[0][-1]["total_sentences"] == 1


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{", "JSON object"),
        ("[]", "JSON object"),
        (b"\xff", "JSON object"),
        ('{"type": "input.fly"}', "input.text"),
        ('{"type": "input.text", "text": 1}', "string"),
        (json.dumps({"type": "input.text", "text": "x" * 200_000}), "131072"),
    ],
)
def test_a_wrong_message_is_said_and_the_next_one_taken(
    connection: ClientConnection, message: str | bytes, words: str
) -> None:
    connection.send(message)
    (error,) = hear(connection, "error")[0]
    assert words in error["message"]
    say(connection, "One.")
    assert hear(connection)[0][-1]["total_sentences"] == 1


def test_no_configuration_within_an_utterance(connection: ClientConnection) -> None:
    tell(connection, "input.text", text="One")
    tell(connection, "session.config", **CONFIG)
    assert "input.done" in hear(connection, "error")[0][0]["message"]
    tell(connection, "input.done")
    assert hear(connection)[0][-1]["total_sentences"] == 1


@pytest.mark.parametrize("first", ['{"type": "input.text", "text": "x"}', '{"type": "session.config", "voice": "x"}'])
def test_the_first_message_is_a_right_configuration(fake_server: RunningServer, first: str) -> None:
    with dial(fake_server) as connection:
        connection.send(first)
        assert kinds(hear(connection, "error")[0]) == ["error"]
        with pytest.raises(ConnectionClosed):
            connection.recv(PATIENCE_SECONDS)


def test_a_message_that_is_too_long_ends_the_conversation(connection: ClientConnection) -> None:
    connection.send("x" * 3_000_000)
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv(PATIENCE_SECONDS)
    assert closed.value.rcvd and closed.value.rcvd.code == 1009


def test_speech_that_fails_ends_its_utterance_alone(connection: ClientConnection) -> None:
    tell(connection, "session.config", **{key: value for key, value in CONFIG.items() if key != "exact_frames"})
    say(connection, "fail-later")
    events, audio = hear(connection)
    assert kinds(events) == ["audio.start", "error", "audio.done", "session.done"]
    assert events[1]["code"] == "speech_failed"
    assert events[2]["error"] is True
    assert len(audio) <= 3 * FRAME_BYTES
    tell(connection, "session.config", **CONFIG)
    say(connection, "One.")
    assert hear(connection)[0][-1] == {"type": "session.done", "utterance_index": 1, "total_sentences": 1}


def test_the_rest_of_an_utterance_that_fails_is_not_spoken(connection: ClientConnection) -> None:
    tell(connection, "input.text", text="fail-at-start\n\nTwo")
    events, _ = hear(connection, "error")
    assert events[-1]["code"] == "speech_failed"
    tell(connection, "input.text", text=". Three. ")
    say(connection, "Four.")
    say(connection, "One.")
    first, audio = hear(connection)
    assert [event["utterance_index"] for event in first] == [0] * len(first)
    assert not audio
    assert kinds(hear(connection)[0]) == ["audio.start", "audio.done", "session.done"]


@pytest.mark.parametrize("how", ["cancel", "close", "abort"])
def test_barge_in_frees_the_row(fake_server: RunningServer, how: str) -> None:
    seed = {"cancel": 7100, "close": 7101, "abort": 7102}[how]
    with dial(fake_server) as connection:
        tell(connection, "session.config", **{**CONFIG, "exact_frames": 2000, "seed": seed})
        tell(connection, "input.text", text="One. Two")
        hear(connection, "audio.start")
        if how == "cancel":
            say(connection, "Three.")
            tell(connection, "input.cancel")
            events, _ = hear(connection)
            assert kinds(events) == ["audio.done", "session.done"]
            assert events[-1]["cancelled"] is True
        elif how == "close":
            connection.close()
        else:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.socket.shutdown(socket.SHUT_RDWR)
        assert fake_server.wait_event("dropped", seed=seed)["frames"] < 2000
        if how == "cancel":
            tell(connection, "session.config", **CONFIG)
            say(connection, "One.")
            assert hear(connection)[0][-1] == {"type": "session.done", "utterance_index": 1, "total_sentences": 1}


def test_an_emoji_may_be_cut_in_two(connection: ClientConnection) -> None:
    connection.send(r'{"type": "input.text", "text": "One \ud83d"}')
    connection.send(r'{"type": "input.text", "text": "\ude42."}')
    tell(connection, "input.done")
    assert hear(connection, "audio.start")[0][0]["sentence_text"] == "One 🙂."


@pytest.mark.parametrize("granularity", ["none", "sentence", "clause", "token"])
def test_half_a_character_is_replaced_wherever_it_stands(connection: ClientConnection, granularity: str) -> None:
    tell(connection, "session.config", **{**CONFIG, "split_granularity": granularity})
    for half in (r"\ud83d", r"\ude42"):
        for text, units in ((half, 0), (f"{half}{half} \\n", 0), (f"{half}One {half}.", 1), (f"One{half}", 1)):
            for piece in (text, half):
                connection.send(f'{{"type": "input.text", "text": "{piece}"}}')
            tell(connection, "input.done")
            events, _ = hear(connection)
            assert kinds(events) == ["audio.start", "audio.done"] * units + ["session.done"]
            if units and granularity != "token":
                assert "\ufffd" in events[0]["sentence_text"]


@pytest.mark.parametrize(
    "fields",
    [
        r'"type": "\ud800"',
        r'"type": "session.config", "exact_frames": 2, "\ud800": 1',
        *(
            rf'"type": "session.config", "exact_frames": 2, "{name}": "\ud800"'
            for name in (
                *("voice", "model", "language", "instructions", "response_format", "speed", "seed", "ref_audio"),
                *("ref_text", "task_type", "split_granularity", "stream_audio", "word_timestamps", "text_format"),
            )
        ),
        r'"type": "session.config", "exact_frames": 2, "lexicon": {"\ud800": "\udc00"}',
    ],
)
def test_half_a_character_in_any_field_ends_no_conversation(connection: ClientConnection, fields: str) -> None:
    connection.send(f"{{{fields}}}")
    say(connection, "One.")
    events, _ = hear(connection)
    assert events[-1]["total_sentences"] == 1


def test_what_is_counted_and_logged(fake_server: RunningServer) -> None:
    with dial(fake_server, **{"authorization": f"Bearer {KEY}", "x-request-id": "socket-1"}) as connection:
        assert connection.response and connection.response.headers["x-request-id"] == "socket-1"
        tell(connection, "session.config", **CONFIG)
        say(connection, "One. Two.")
        hear(connection)

    def logged() -> list[str]:
        found = [line for line in fake_server.log if "socket-1" in line]
        return found if any(" socket id=" in line for line in found) else []

    lines = wait_until(logged, "the socket is logged")
    assert [" speech id=socket-1.0.0 " in lines[0], " speech id=socket-1.0.1 " in lines[1]] == [True, True]
    assert all(" outcome=done " in line and "stream=socket" in line for line in lines[:2])
    assert "utterances=1" in lines[2] and "key=key2" in lines[2]
    assert not any("Two" in line for line in fake_server.log)


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Api-Key {KEY}"}, {"api-key": KEY}, {"authorization": f"bearer {KEY}"}]
)
def test_ways_to_show_a_key(fake_server: RunningServer, headers: dict[str, str]) -> None:
    with dial(fake_server, **headers) as connection:
        tell(connection, "session.config", **CONFIG)
        tell(connection, "input.done")
        assert hear(connection)[0][0]["type"] == "session.done"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["speech-stream", f"openai-insecure-api-key.{KEY}"], "speech-stream"),
        ([f"openai-insecure-api-key.{KEY}", "other"], None),
    ],
)
def test_pages_offer_their_key_as_a_subprotocol(
    fake_server: RunningServer, offered: list[Subprotocol], chosen: str | None
) -> None:
    with dial(fake_server, subprotocols=offered, **{"x-none": ""}) as connection:
        assert connection.subprotocol == chosen
        tell(connection, "session.config", **CONFIG)
        tell(connection, "input.done")
        assert hear(connection)[0][0]["type"] == "session.done"
    wait_until(lambda: any(" socket id=" in line for line in fake_server.log), "the socket is logged")
    assert not any(KEY in line for line in fake_server.log)


def test_a_key_that_is_no_subprotocol_is_not_told_on(fake_server: RunningServer) -> None:
    handshake = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "authorization": f"Bearer {KEY}",
    }
    offered = {"sec-websocket-protocol": "speech-stream, openai-insecure-api-key.my(opensesame)"}
    with fake_server.client() as client:
        answer = client.get("/v1/audio/speech/stream", headers=handshake | offered)
        assert "Sec-WebSocket-Protocol" in check_error(answer, 400, "invalid_value")
        assert fake_server.complaints(client) == []
    assert "opensesame" not in answer.text
    assert not any("opensesame" in line for line in fake_server.log)


def test_no_key_no_socket(fake_server: RunningServer) -> None:
    wrong = Subprotocol("openai-insecure-api-key.wrong")
    for path, offered in (("", None), (f"?api_key={KEY}", None), ("", [wrong])):
        with pytest.raises(InvalidStatus) as refused:
            dial(fake_server, f"/v1/audio/speech/stream{path}", offered, **{"x-none": ""})
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body or b"")["error"]["code"] == "invalid_api_key"


def test_a_get_is_told_that_this_is_a_websocket(fake_server: RunningServer) -> None:
    with fake_server.client() as client:
        answer = client.get("/v1/audio/speech/stream")
        assert "POST /v1/audio/speech" in check_error(answer, 426, "upgrade_required")
        check_error(client.post("/v1/audio/speech/stream", json={"input": "x"}), 426, "upgrade_required")
        upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
        check_error(client.get("/v1/audio/speech/stream", headers=upgrade), 400, "invalid_value")
        assert client.get("/livez").status_code == 200
        assert fake_server.complaints(client) == []


@pytest.fixture
def bounded(tmp_path: Path) -> Iterator[RunningServer]:
    """A server with little patience and little room."""
    write_bundle(tmp_path / "models", "custom")
    settings = {
        "KW_MODELS_DIR": str(tmp_path / "models"),
        "KW_SOCKET_IDLE_SECONDS": "0.3",
        "KW_MAX_SOCKETS": "2",
        "KW_MAX_INPUT_CHARS": "50",
        "KW_MAX_REQUESTS_PER_KEY": "1",
        "KW_API_KEY_IN_QUERY": "on",
        "FAKE_FRAME_SECONDS": "0.02",
    }
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        yield server


def test_bounds(bounded: RunningServer) -> None:
    with dial(bounded) as first:
        tell(first, "session.config", **{**CONFIG, "exact_frames": 100})
        tell(first, "input.text", text="x" * 30)
        tell(first, "input.text", text="y" * 30)
        assert "50 characters" in hear(first, "error")[0][0]["message"]
        tell(first, "input.done")
        hear(first, "audio.start")
        with dial(bounded) as second:
            with pytest.raises(InvalidStatus) as refused:
                dial(bounded)
            assert refused.value.response.status_code == 503
            tell(second, "session.config", **CONFIG)
            say(second, "One.")
            events, _ = hear(second)
            assert (events[0]["type"], events[0]["code"]) == ("error", "key_limit")
            events, _ = hear(first)  # 2 s of speech are no idleness
            assert events[-1]["total_sentences"] == 1
            assert hear(first, "error")[0][0]["code"] == "timeout"
            with pytest.raises(ConnectionClosed):
                first.recv(PATIENCE_SECONDS)
    with dial(bounded, f"/v1/audio/speech/stream?api_key={KEY}", **{"x-none": ""}) as third:
        tell(third, "session.config", **CONFIG)
        tell(third, "input.done")
        assert hear(third)[0][0]["type"] == "session.done"
        for _ in range(9):
            tell(third, "input.text", text="x")
            tell(third, "input.done")
        assert "8 utterances" in hear(third, "error")[0][-1]["message"]


def test_the_server_stops(tmp_path: Path) -> None:
    """What is spoken is heard to its end, an idle socket is closed, and no other begins."""
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.02", "KW_DRAIN_SECONDS": "50"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        with dial(server) as idle, dial(server) as busy:
            tell(idle, "session.config", **CONFIG)
            tell(busy, "session.config", **{**CONFIG, "exact_frames": 50})
            say(busy, "One.")
            hear(busy, "audio.start")
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            with pytest.raises(ConnectionClosed) as closed:
                idle.recv(PATIENCE_SECONDS)
            assert closed.value.rcvd and closed.value.rcvd.code == 1001
            events, audio = hear(busy)
            assert events[-1]["total_sentences"] == 1
            assert audio
            with pytest.raises(ConnectionClosed) as closed:
                busy.recv(PATIENCE_SECONDS)
            assert closed.value.rcvd and closed.value.rcvd.code == 1001
        stopping.join()


def test_pages_of_strangers_stay_out(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_SECRET_API_KEY="") as server:
        server.wait_ready()
        with pytest.raises(InvalidStatus) as refused:
            dial(server, origin="https://evil.example")
        assert refused.value.response.status_code == 403
        with dial(server, origin=server.url) as connection:
            tell(connection, "session.config", **CONFIG)
            tell(connection, "input.done")
            assert hear(connection)[0][0]["type"] == "session.done"


def test_messages_in_parts_and_pings(connection: ClientConnection) -> None:
    whole = json.dumps({"type": "input.text", "text": "Größe."})
    connection.send(iter([whole[:20], whole[20:30], whole[30:]]))
    connection.ping("x").wait(PATIENCE_SECONDS)
    tell(connection, "input.done")
    assert hear(connection, "audio.start")[0][0]["sentence_text"] == "Größe."


def test_a_client_that_reads_nothing_is_left(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_REQUEST_TIMEOUT": "1"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        with dial(server) as connection:
            tell(connection, "session.config", **{**CONFIG, "exact_frames": 2000, "seed": 7300})
            say(connection, *(["A sentence of words. "] * 20))
            wait_until(lambda: any("outcome=timed_out" in line for line in server.log), "the client is left")
