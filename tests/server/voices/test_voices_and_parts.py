"""Silence tags, speed, profiles and formats together, over HTTP."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from server.audio.formats import FORMATS
from server.audio.pcm import to_s16le
from server.audio.stretch import TimeStretch
from server.speech.reading import PAUSE_SECONDS
from server.text.sentences import Boundary
from tests.server.answers import GOOD, check_error
from tests.server.fakes import FRAME, SAMPLE_RATE, speech, write_bundle
from tests.server.running import FAKE, RunningServer, run_server, wait_until

SPEECH = "/v1/audio/speech"
MINE = {"profiles": {"mine": {"speaker": "ryan", "language": "english", "instruction": "Whisper.", "speed": 0.5}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    scratch = tmp_path_factory.mktemp("parts")
    write_bundle(scratch / "models", "custom")
    write_bundle(scratch / "models", "following", follows_instructions=True)
    (scratch / "voices.json").write_text(json.dumps(MINE))
    with run_server(
        FAKE, scratch, KW_MODELS_DIR=str(scratch / "models"), KW_VOICES_FILE=str(scratch / "voices.json")
    ) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def speak(client: httpx.Client, **fields: Any) -> httpx.Response:
    response = client.post(SPEECH, json={**GOOD, **fields})
    assert response.status_code == 200, response.text
    return response


def last_prompt(server: RunningServer) -> dict[str, Any]:
    return {name: value for name, value in server.events("prompt")[-1].items() if name != "event"}


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def stretched(samples: np.ndarray, speed: float) -> np.ndarray:
    stretch = TimeStretch(speed, SAMPLE_RATE)
    return np.concatenate((stretch.process(samples), stretch.finish()))


def test_silences_are_exact_and_keep_their_length_at_any_speed(client: httpx.Client) -> None:
    text = '[0.1s]Hello there.[pause:0.25s]<break time="125ms"/> And again.[0.2s]'
    spoken = speech(5)
    expected = [silence(0.1), spoken, silence(0.375), spoken, silence(0.2)]
    assert speak(client, input=text).content == to_s16le(np.concatenate(expected))
    expected[1] = expected[3] = stretched(spoken, 2.0)
    found = np.frombuffer(speak(client, input=text, speed=2).content, np.int16).astype(int)
    wanted = np.frombuffer(to_s16le(np.concatenate(expected)), np.int16).astype(int)
    assert len(found) == len(wanted)
    assert np.abs(found - wanted).max() <= 1


def test_a_text_of_silence_only_is_exactly_that_long(client: httpx.Client) -> None:
    assert speak(client, input="[0.5s]").content == to_s16le(silence(0.5))


def test_parts_have_seeds_of_their_own(client: httpx.Client, server: RunningServer) -> None:
    before = len(server.events("submitted"))
    speak(client, input="One.[1s]Two.", seed=7)
    seeds = [event["seed"] for event in server.events("submitted")[before:]]
    assert seeds[0] == 7
    assert len(set(seeds)) == 2


def test_a_profile_speaks_as_it_says(client: httpx.Client, server: RunningServer) -> None:
    response = speak(client, voice="Mine", model="following", input="Hello you.")
    as_ever = {"speaker": "ryan", "layout": None}
    assert last_prompt(server) == as_ever | {"language": "english", "instruction": "Whisper."}
    assert "x-instructions" not in response.headers
    assert len(response.content) == 2 * 2 * speech(5).size, "half as fast"
    faster = speak(client, voice="mine", model="following", input="Hello you.", speed=2)
    assert len(faster.content) == 2 * speech(5).size
    speak(client, voice="mine", model="following", instructions="Shout.", language="zh")
    assert last_prompt(server) == as_ever | {"language": "chinese", "instruction": "Shout."}


def test_a_dropped_instruction_is_told(client: httpx.Client, server: RunningServer) -> None:
    response = speak(client, voice="mine", model="custom")
    assert response.headers["x-instructions"] == "ignored"
    assert last_prompt(server)["instruction"] is None
    assert "x-instructions" not in speak(client, voice="ryan", model="custom").headers


def test_voices_change_in_the_text(client: httpx.Client, server: RunningServer) -> None:
    text = "One. [voice:mine]Two. [0.1s] [voice:serena] Three."
    found = speak(client, voice="vivian", model="following", input=text)
    said = [(event["speaker"], event["instruction"]) for event in server.events("prompt")[-3:]]
    assert said == [("vivian", None), ("ryan", "Whisper."), ("serena", None)]
    half_as_fast = 2 * 5
    pause = PAUSE_SECONDS[Boundary.SENTENCE] or 0
    assert len(found.content) == 2 * round((5 + half_as_fast + 5) * FRAME + (pause + 0.1) * SAMPLE_RATE)


def test_an_unknown_voice_in_the_text_is_refused_with_the_list(client: httpx.Client) -> None:
    response = client.post(SPEECH, json={**GOOD, "input": "Hello [voice:nobody] you."})
    assert "this model's voices are" in check_error(response, 400, "invalid_value", "voice")


def test_the_heaviest_of_a_formula_speaks(client: httpx.Client, server: RunningServer) -> None:
    speak(client, voice="serena*0.4 + ryan*0.6")
    assert last_prompt(server)["speaker"] == "ryan"
    line = wait_until(lambda: next((line for line in server.log if "ryan*0.6" in line), None), "it is logged")
    assert " speaker=ryan " in line, "the log has who spoke beside what was asked for"


def test_own_profiles_are_listed(client: httpx.Client) -> None:
    listed = {voice["id"]: voice for voice in client.get("/v1/audio/voices?model=following").json()["voices"]}
    assert (listed["mine"]["speaker"], listed["mine"]["instruction_used"]) == ("ryan", True)


def test_more_than_300_seconds_of_silence_are_refused(client: httpx.Client) -> None:
    response = client.post(SPEECH, json={**GOOD, "input": "a [200s] b [101s] c"})
    assert "300 seconds" in check_error(response, 400, "invalid_value", "input")


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("way", ["default", "whole", "sse"])
def test_every_format_has_the_right_length_in_every_way_of_sending(
    client: httpx.Client, audio_format: str, way: str
) -> None:
    fields = {"default": {}, "whole": {"stream": False}, "sse": {"stream_format": "sse"}}[way]
    response = speak(client, exact_frames=20, response_format=audio_format, **fields)
    body = response.content
    if way == "sse":
        assert response.headers["content-type"].startswith("text/event-stream")
        *deltas, done = [json.loads(event.removeprefix("data: ")) for event in body.decode().split("\n\n") if event]
        assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
        assert done == {
            "type": "speech.audio.done",
            "usage": {"input_tokens": 1, "output_tokens": 20, "total_tokens": 21},
        }
        body = b"".join(b64decode(delta["audio"]) for delta in deltas)
    if audio_format == "pcm":
        assert body == to_s16le(speech(20))
        return
    with av.open(io.BytesIO(body)) as file:
        decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)])
        rate = file.streams.audio[0].rate
    assert abs(len(decoded) / rate - speech(20).size / SAMPLE_RATE) < 0.08, "a codec's delay at most"


def test_a_voices_file_that_does_not_fit(tmp_path: Path) -> None:
    from server.__main__ import main

    broken = tmp_path / "voices.json"
    broken.write_text('{"profiles": {"mine": {"speed": 9}}}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KW_VOICES_FILE", str(broken))
        assert main(["voices"]) == 2
