"""OpenAI's SDKs, LiteLLM, Pipecat, LiveKit, wyoming-openai and Home Assistant's integration, on the embedded model."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.environments import HERE, has_torch, reported, run
from tests.server.running import REAL, ROOT, RunningServer, run_server, wait_until

TEXT = (
    "The train leaves at seven in the morning. She found the old book under the table. What time is it? "
    "The rain fell on the roof all night. He walked home along the river and saw nobody. "
    "The children played in the garden until dark."
)
"""Takes seconds to say, so that there is a difference between the first audio and the last."""
BYTES_PER_SECOND = 24000 * 2
SPOKEN_SECONDS = (8.0, 20.0)
"""What that text lasts at least and at most; the model draws every time anew."""
CLIENTS = list(tomllib.loads((HERE / "packages.toml").read_text()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`python -m server` with the embedded model alone."""
    settings = {
        "KW_MODELS_DIR": str(ROOT / "models"),
        "KW_WYOMING_URI": "tcp://127.0.0.1:0",
        "KW_WYOMING_ANNOUNCE": "off",
    }
    with run_server(REAL, tmp_path_factory.mktemp("clients"), **settings) as server:
        server.wait_ready()
        yield server


class Speeches:
    """Speech requests that the server's log tells of from now on."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._start = len(server.log)

    @staticmethod
    def sockets(server: RunningServer) -> list[dict[str, str]]:
        """Fields of the WebSockets that have been closed."""
        return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in list(server.log) if re.search(r" socket id=", line)]

    def __call__(self, count: int) -> list[dict[str, str]]:
        """Fields of the first `count` lines, as soon as they are there."""

        def lines() -> list[str]:
            found = [line for line in self._server.log[self._start :] if re.search(r" speech id=", line)]
            return found if len(found) >= count else []

        return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in wait_until(lines, f"{count} speeches are logged")]


@pytest.fixture
def speeches(server: RunningServer) -> Speeches:
    return Speeches(server)


def check_whole(size: int, speech: dict[str, str], tolerance_seconds: float = 0.001) -> None:
    """All of a speech came: as many bytes of PCM as the server says that it made."""
    made = float(speech["audio_seconds"])
    assert speech["outcome"] == "done"
    assert SPOKEN_SECONDS[0] < made < SPOKEN_SECONDS[1]
    assert abs(size / BYTES_PER_SECOND - made) <= tolerance_seconds


def check_says_what_there_is(message: str, wanted: str) -> None:
    """A refusal tells a person, in the client's own error, what the server has instead."""
    assert {"voice": "this model's voices are", "model": "there is no such model; there are qwen3_tts_tiny"}[
        wanted
    ] in message


@pytest.mark.parametrize("client", CLIENTS)
def test_no_client_brings_torch(client: str) -> None:
    assert not has_torch(client)


def test_openai_python(server: RunningServer, speeches: Speeches) -> None:
    facts = run("openai", server, TEXT)
    streamed, events, _ = speeches(3)
    check_whole(facts["streamed"]["bytes"], streamed)
    assert facts["streamed"]["first_while_speaking"]
    assert facts["streamed"]["parts"] > 1
    check_whole(facts["events"]["bytes"], events)
    assert facts["events"]["types"] == ["speech.audio.delta"]
    assert facts["events"]["last"] == "speech.audio.done"
    assert facts["events"]["usage"] == ["input_tokens", "output_tokens", "total_tokens"]
    assert bytes.fromhex(facts["mp3_head"]).startswith(b"ID3")
    check_says_what_there_is(facts["unknown_voice"]["text"], "voice")
    check_says_what_there_is(facts["unknown_model"]["text"], "model")
    names = [facts[case]["name"] for case in ("unknown_voice", "unknown_model", "wrong_key")]
    assert names == ["BadRequestError", "NotFoundError", "AuthenticationError"]


def test_openai_node(server: RunningServer, speeches: Speeches) -> None:
    """The package is that of `tests/node`, where Node looks for it."""
    facts = reported(["node", str(ROOT / "tests" / "node" / "stream.mjs")], server, TEXT)
    check_whole(facts["bytes"], speeches(1)[0])
    assert facts["first_while_speaking"]
    assert facts["parts"] > 1


def test_litellm(server: RunningServer, speeches: Speeches) -> None:
    facts = run("litellm", server, TEXT)
    _, _, pcm, asynchronous, other_model = speeches(5)
    assert facts["mp3"]["type"] == "audio/mpeg"
    assert bytes.fromhex(facts["mp3"]["head"]).startswith(b"ID3")
    assert bytes.fromhex(facts["wav"]).startswith(b"RIFF")
    check_whole(facts["pcm_bytes"], pcm)
    check_whole(facts["async_pcm_bytes"], asynchronous)
    check_whole(facts["other_model_bytes"], other_model)
    check_says_what_there_is(facts["unknown_voice"]["text"], "voice")
    check_says_what_there_is(facts["unknown_model"]["text"], "model")
    assert "this API key is not known here" in facts["wrong_key"]["text"]
    names = [facts[case]["name"] for case in ("unknown_voice", "unknown_model", "wrong_key")]
    assert names == ["BadRequestError", "NotFoundError", "AuthenticationError"]


def test_pipecat_streams_with_its_defaults(server: RunningServer, speeches: Speeches) -> None:
    facts = run("pipecat", server, TEXT)
    (speech,) = speeches(1)
    assert facts["errors"] == []
    assert facts["formats"] == [[24000, 1]]
    assert facts["first_while_speaking"]
    assert facts["frames"] > 1
    check_whole(facts["bytes"], speech)
    assert (speech["format"], speech["stream"], speech["voice"]) == ("pcm", "audio", "alloy")


@pytest.mark.parametrize("voice", ["ballad", "cedar", "marin", "verse"])
def test_pipecat_knows_no_voices_but_openais_and_each_speaks(server: RunningServer, voice: str) -> None:
    facts = run("pipecat", server, "Hello.", json.dumps({"voice": voice, "instructions": "Be brief.", "speed": 1.1}))
    assert facts["errors"] == []
    assert facts["bytes"] > 0


def test_pipecat_interrupted_goes_on_with_the_next_text(server: RunningServer, speeches: Speeches) -> None:
    facts = run("pipecat", server, TEXT, "{}", "Sorry.")
    interrupted, following = speeches(2)
    assert interrupted["outcome"] == "stopped"
    assert float(interrupted["audio_seconds"]) < SPOKEN_SECONDS[0]
    assert following["outcome"] == "done"
    assert facts["errors"] == []
    assert facts["bytes"] >= float(following["audio_seconds"]) * BYTES_PER_SECOND


def test_pipecat_tells_why_it_was_refused(server: RunningServer) -> None:
    facts = run("pipecat", server, TEXT, json.dumps({"model": "gpt-9"}))
    assert facts["bytes"] == 0
    check_says_what_there_is(facts["errors"][0], "model")


@pytest.mark.parametrize(
    ("options", "audio_format", "stream", "tolerance_seconds"),
    [
        ({}, "mp3", "sse", 0.1),  # whole MP3 frames, and the encoder's delay
        ({"model": "tts-1"}, "mp3", "audio", 0.1),
        ({"response_format": "pcm"}, "pcm", "sse", 0.02),
        ({"model": "tts-1", "response_format": "pcm"}, "pcm", "audio", 0.02),  # its last frame has 10 ms at least
        ({"response_format": "wav", "voice": "af_heart", "speed": 1.0}, "wav", "sse", 0.02),
        ({"response_format": "opus", "instructions": "Speak calmly."}, "opus", "sse", 0.1),
    ],
    ids=["by default", "tts-1", "pcm", "tts-1 in pcm", "wav", "opus"],
)
def test_livekit_streams(
    server: RunningServer,
    speeches: Speeches,
    options: dict[str, Any],
    audio_format: str,
    stream: str,
    tolerance_seconds: float,
) -> None:
    facts = run("livekit", server, TEXT, json.dumps(options))
    (speech,) = speeches(1)
    assert facts["error"] is None
    assert facts["formats"] == [[24000, 1]]
    assert facts["first_while_speaking"]
    check_whole(facts["bytes"], speech, tolerance_seconds)
    assert (speech["format"], speech["stream"]) == (audio_format, stream)
    assert speech["voice"] == options.get("voice", "ash")


def test_livekit_leaves_and_the_server_stops(server: RunningServer, speeches: Speeches) -> None:
    facts = run("livekit", server, TEXT, "{}", "leave")
    (speech,) = speeches(1)
    assert facts["frames"] == 1
    assert speech["outcome"] == "stopped"
    assert float(speech["audio_seconds"]) < SPOKEN_SECONDS[0]


@pytest.mark.parametrize(
    ("options", "status", "wanted"), [({"voice": "nobody"}, 400, "voice"), ({"model": "gpt-9"}, 404, "model")]
)
def test_livekit_tells_why_it_was_refused(
    server: RunningServer, options: dict[str, str], status: int, wanted: str
) -> None:
    error = run("livekit", server, TEXT, json.dumps(options))["error"]
    assert (error["name"], error["status"]) == ("APIStatusError", status)
    check_says_what_there_is(error["text"], wanted)


@pytest.mark.parametrize("options", [{"extra_config": {"split_granularity": "sentence"}}, {}], ids=["cut", "whole"])
def test_livekit_speaks_text_as_it_comes(server: RunningServer, options: dict[str, Any]) -> None:
    sockets = len(Speeches.sockets(server))
    facts = run("livekit-live", server, TEXT, json.dumps({"voice": "hibari", **options}))
    assert [turn["error"] for turn in facts["turns"]] == [None, None]
    assert facts["turns"][0]["formats"] == [[24000, 1]]
    assert all(turn["bytes"] > SPOKEN_SECONDS[0] * BYTES_PER_SECOND for turn in facts["turns"])
    assert facts["alive"] is True
    (socket,) = Speeches.sockets(server)[sockets:]  # both turns, and the flush that keeps it warm
    assert socket["utterances"] == "3"


def test_livekit_interrupted_frees_the_row(server: RunningServer, speeches: Speeches) -> None:
    facts = run("livekit-live", server, TEXT, json.dumps({"voice": "hibari"}), "leave")
    (speech,) = speeches(1)
    assert facts["turns"][0]["frames"] == 1
    assert speech["outcome"] == "stopped"
    assert float(speech["audio_seconds"]) < SPOKEN_SECONDS[0]


def test_livekit_is_told_what_is_wrong(server: RunningServer) -> None:
    facts = run("livekit-live", server, TEXT, json.dumps({"voice": "nobody"}))
    check_says_what_there_is(facts["turns"][0]["error"]["text"], "voice")
    token = {"voice": "hibari", "extra_config": {"split_granularity": "token"}}
    facts = run("livekit-live", server, TEXT, json.dumps(token))
    assert "choose sentence or clause" in facts["turns"][0]["error"]["text"]


def test_wyoming_openai_lists_our_voices_and_speaks(server: RunningServer, speeches: Speeches) -> None:
    facts = run("wyoming-openai", server, TEXT)
    whole, *sentences = speeches(2)
    assert facts["voices"] == {"true": ["hibari (gpt-4o-mini-tts)"], "false": ["hibari (tts-1)"]}
    assert facts["languages"] == [["en"], ["en"]]
    check_whole(facts["whole"]["bytes"], whole)
    assert facts["whole"]["first_while_speaking"]
    assert facts["streamed"]["bytes"] >= BYTES_PER_SECOND * sum(float(said["audio_seconds"]) for said in sentences)
    for said in (facts["whole"], facts["streamed"]):
        assert said["formats"] == [[24000, 1, 2]]
    assert {(said["format"], said["voice"], said["outcome"]) for said in (whole, *sentences)} == {
        ("wav", "hibari", "done")
    }


def test_home_assistant(server: RunningServer, speeches: Speeches) -> None:
    (uri,) = re.findall(r" wyoming_listening uri=(\S+)", "\n".join(server.log))
    facts = run("home-assistant", server, uri, TEXT)
    told = {name: facts[name] for name in ("name", "languages", "voices", "takes_words", "extension")}
    assert told == {
        "name": "qwen3_tts_tiny",
        "languages": ["en"],
        "voices": [["hibari", "Hibari"]],
        "takes_words": True,
        "extension": "wav",
    }
    spoken = speeches(2)
    assert {(said["stream"], said["voice"], said["outcome"]) for said in spoken} == {("wyoming", "hibari", "done")}
    for said in (facts["whole"], facts["streamed"]):
        assert said["format"] == [24000, 1, 2]
        assert SPOKEN_SECONDS[0] < said["bytes"] / BYTES_PER_SECOND < SPOKEN_SECONDS[1]
    assert facts["streamed"]["first_while_written"]
    check_says_what_there_is(facts["refused"], "voice")
