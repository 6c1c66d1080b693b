"""Texts of several chunks over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from server.audio.joins import Joiner
from server.audio.pcm import to_s16le
from server.engine.tokenizer import TextTokenizer
from server.speech.reading import CAPACITY, PAUSE_SECONDS, chunk_seed
from server.text.chunks import MAX_TOKENS, Chunk, chunks
from server.text.prepare import Steps, prepare
from tests.bundles import TINY_BUNDLE
from tests.server.answers import GOOD, check_error
from tests.server.fakes import SAMPLE_RATE, tone, write_bundle
from tests.server.running import FAKE, RunningServer, run_server

SPEECH = "/v1/audio/speech"
SENTENCE = "It was late, and nobody at all came to the station. "
SEED = 29
"""Of speech that ends by itself, in the model that makes noise."""


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A fake engine that says two frames of each chunk."""
    scratch = tmp_path_factory.mktemp("long")
    write_bundle(scratch / "models", "custom", generation={"max_new_tokens": 2})
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(scratch / "models")) as server:
        server.wait_ready()
        yield server


def joined(parts: list[tuple[Chunk, np.ndarray]], *, cut_off: bool) -> np.ndarray:
    """The samples of chunks, each made on its own, as one speech."""
    joiner, samples = Joiner(SAMPLE_RATE), []
    for chunk, made in parts:
        pause = PAUSE_SECONDS[chunk.boundary]
        samples += [joiner.feed(made, last=pause is None), joiner.end(pause, cut_off=cut_off)]
    return np.concatenate(samples)


def test_a_text_of_100000_characters_is_spoken_whole_and_in_order(fake: RunningServer) -> None:
    text = (SENTENCE * 2000)[:100_000]
    parts = list(chunks(text, "en", lambda piece: len(piece.split())))
    assert len(parts) > 100
    fields = {**GOOD, "input": text, "exact_frames": None, "language": "en", "response_format": "pcm", "seed": 3}
    with fake.client() as client:
        response = client.post(SPEECH, json=fields)
        assert response.status_code == 200, response.text
        assert response.headers["x-seed"] == "3"
        frames = np.concatenate((tone(0), tone(1)))
        assert response.content == to_s16le(joined([(chunk, frames) for chunk in parts], cut_off=True))
        mp3 = client.post(SPEECH, json={**fields, "response_format": "mp3", "stream_format": "audio"})
        seconds = len(response.content) / 2 / SAMPLE_RATE
        assert seconds * 12_000 <= len(mp3.content) <= (seconds + 1) * 12_000
    submitted = fake.events("submitted")[: len(parts)]
    assert [event["seed"] for event in submitted] == [chunk_seed(3, number) for number in range(len(parts))]
    assert [event["text_tokens"] for event in submitted] == [chunk.tokens for chunk in parts]
    assert {event["capacity"] for event in submitted} == {CAPACITY}
    assert not submitted[0]["spare"]


LONG_TEXTS = {
    "prose": SENTENCE * 40,
    "breaks": f"{SENTENCE * 40}{chr(10) * 3000}The end.",
    "blanks": f"{SENTENCE * 40}{' ' * 3000}The end.",
    "accents": f"{SENTENCE * 40}e{chr(0x301) * 1500}. The end.",
    "a rule": f"{SENTENCE * 20}{chr(10)}{'─' * 600}{chr(10)}{SENTENCE * 20}",
    "emoji": f"{SENTENCE * 20}{'😂' * 300} {SENTENCE * 20}",
    "Chinese": "今天天气很好，我们去公园吧。" * 200,
    "words without an end": "word " * 2000,
    "one word": "word" * 2000,
}


@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS.keys())
def test_what_is_sent_of_a_text_is_no_longer_than_a_chunk_may_be(text: str) -> None:
    encode = TextTokenizer(TINY_BUNDLE / "tokenizer.json").encode
    prepared = prepare(text, (), Steps()).text
    found = list(chunks(prepared, None, lambda piece: len(encode(piece))))
    assert len(found) > 2
    assert max(len(encode(chunk.text)) for chunk in found) <= MAX_TOKENS


@pytest.mark.parametrize("kind", ["breaks", "blanks", "a rule"])
def test_blanks_and_rules_are_not_spoken(fake: RunningServer, kind: str) -> None:
    fields = {**GOOD, "exact_frames": None, "language": "en", "input": LONG_TEXTS[kind]}
    with fake.client() as client:
        before = len(fake.events("submitted"))
        assert client.post(SPEECH, json=fields).status_code == 200
    tokens = sum(event["text_tokens"] for event in fake.events("submitted")[before:])
    assert tokens == len(LONG_TEXTS[kind].replace("─", "").split())


def test_a_short_text_is_the_job_that_it_always_was(fake: RunningServer) -> None:
    with fake.client() as client:
        client.post(SPEECH, json={**GOOD, "input": " Hi there.\n", "exact_frames": None, "seed": 71})
    job = fake.wait_event("submitted", seed=71)
    assert (job["text_tokens"], job["spare"], job["capacity"]) == (2, False, CAPACITY)


def test_a_last_chunk_that_fails_breaks_off_what_was_begun(fake: RunningServer) -> None:
    fields = {**GOOD, "exact_frames": None, "input": f"{SENTENCE * 30}fail-at-start"}
    with fake.client() as client:
        check_error(client.post(SPEECH, json={**fields, "stream": False}), 500, "speech_failed")
        with client.stream("POST", SPEECH, json=fields) as response:
            assert response.status_code == 200
            received = 0
            with pytest.raises(httpx.RemoteProtocolError):
                for part in response.iter_raw():
                    received += len(part)
            assert received > 3 * 2 * 3840


def test_with_an_exact_number_of_frames_the_text_stays_whole(fake: RunningServer) -> None:
    text = SENTENCE * 20
    with fake.client() as client:
        fields = {**GOOD, "input": text, "exact_frames": 7, "response_format": "pcm", "seed": 70}
        assert len(client.post(SPEECH, json=fields).content) == 7 * 3840
    job = fake.wait_event("submitted", seed=70)
    assert (job["max_frames"], job["text_tokens"]) == (7, None)


def test_a_text_that_must_stay_whole_and_cannot_is_told_how_to_be_spoken(real_server: RunningServer) -> None:
    with real_server.client() as client:
        response = client.post(SPEECH, json={**GOOD, "input": "1 2 " * 20_000})
    assert "without exact_frames" in check_error(response, 400, "invalid_value", "input")


def test_chunks_side_by_side_sound_as_each_on_its_own(bundle: Path, real_server: RunningServer) -> None:
    text = (
        "The train to the coast had left at half past ten, and nobody came. "
        "A long time ago there lived a fisherman and his wife, who had a very small house near the sea, "
        "and every day he went out to it in his boat, and every day he came back with nothing! "
        "He never said a word about it, and neither did she, for what was there to say of such a thing as that?\n\n"
        "Nobody asked, nobody spoke, and nobody at all wondered why the lights of the old house were still on "
        "at this time of the night, or who it was that walked up and down behind its many windows."
    )
    tokenizer = TextTokenizer(bundle / "tokenizer.json")
    parts = list(chunks(text, "en", tokenizer.count))
    assert len(parts) == 4
    fields = {**GOOD, "exact_frames": None, "language": "en"}

    def samples(**changes: object) -> np.ndarray:
        with real_server.client() as client:
            response = client.post(SPEECH, json={**fields, **changes})
            assert response.status_code == 200, response.text
            return np.frombuffer(response.content, "<i2").astype(np.float32) / 32767

    alone = [samples(input=part.text, seed=chunk_seed(SEED, number)) for number, part in enumerate(parts)]
    together = samples(input=text, seed=SEED, stream_format="audio")
    expected = joined(list(zip(parts, alone, strict=True)), cut_off=False)
    assert len(together) == len(expected)
    np.testing.assert_allclose(together, expected, atol=2 / 32767)
