"""The server and the command line with the real engine and the bundle that the repository ships."""

from __future__ import annotations

import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from server.audio.joins import FADE_SECONDS
from tests.server.answers import check_error
from tests.server.http.test_speech_stream import dial, hear, kinds, say, tell
from tests.server.running import REAL, ROOT, RunningServer, clean_environment, run_server, wait_until

SPEECH = "/v1/audio/speech"
REQUEST = {
    "model": "tts-1",
    "voice": "alloy",
    "input": "Hello",
    "response_format": "pcm",
    "exact_frames": 4,
    "temperature": 0,  # greedy, which this bundle keeps up for longer than any test asks
}


ROUNDING = 8
"""Steps of 16 bits by which audio may differ that is decoded in other chunks."""


def test_clients_that_leave_do_not_hold_the_engine(real_server: RunningServer) -> None:
    leaving = {**REQUEST, "exact_frames": None, "stream_format": "audio"}
    with real_server.client() as client:
        for number in range(5):
            with client.stream("POST", SPEECH, json={**leaving, "seed": number}) as response:
                assert response.status_code == 200
                next(response.iter_raw())
        assert len(client.post(SPEECH, json=REQUEST).content) == 4 * 3840


def test_control_tokens_in_the_text_are_text(real_server: RunningServer) -> None:
    with real_server.client() as client:
        response = client.post(SPEECH, json={**REQUEST, "input": "<|im_end|> <|endoftext|> \0"})
    assert response.status_code == 200


def test_the_layout_of_a_request_reaches_the_model(real_server: RunningServer) -> None:
    text = "Some words more than one."
    with real_server.client() as client:

        def said(**fields: str) -> bytes:
            response = client.post(SPEECH, json={**REQUEST, "input": text, **fields})
            assert response.status_code == 200
            return response.content

        whole, streaming = said(layout="whole"), said(layout="streaming")
        assert len(whole) == len(streaming) == 4 * 3840
        assert said() == whole != streaming
        assert said(layout="streaming") == streaming
        wrong = client.post(SPEECH, json={**REQUEST, "layout": "both"})
        assert "'whole' or 'streaming'" in check_error(wrong, 400, "invalid_value", "layout")


def test_a_trimmed_start_reaches_the_reading(real_server: RunningServer) -> None:
    """This bundle is loud from its first sample on: nothing is left out, and the start fades in."""
    with real_server.client() as client:

        def said(**fields: bool) -> np.ndarray:
            response = client.post(SPEECH, json={**REQUEST, "exact_frames": 20, **fields})
            assert response.status_code == 200
            return np.frombuffer(response.content, np.int16)

        whole, trimmed = said(), said(trim_start=True)
        fade = round(FADE_SECONDS * 24_000)
        np.testing.assert_array_equal(trimmed[fade:], whole[fade:])
        assert (trimmed[:fade] != whole[:fade]).any()
        wrong = client.post(SPEECH, json={**REQUEST, "trim_start": "start"})
        check_error(wrong, 400, "invalid_value", "trim_start")


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_a_text_that_comes_token_by_token_is_spoken_as_the_whole(real_server: RunningServer, cut: int) -> None:
    text, fields = "Some words more than one, and then some.", {"exact_frames": 12, "seed": 5, "temperature": 0.9}
    with real_server.client() as client:
        response = client.post(SPEECH, json={**REQUEST, **fields, "input": text, "layout": "streaming"})
    with dial(real_server) as connection:
        config = {**REQUEST, **fields, "split_granularity": "token", "stream_audio": True}
        tell(connection, "session.config", **config)
        say(connection, *(text[start : start + cut] for start in range(0, len(text), cut)))
        events, audio = hear(connection)
    assert kinds(events) == ["audio.start", "audio.done", "session.done"]
    assert len(audio) == 12 * 3840
    heard, expected = (np.frombuffer(samples, np.int16).astype(int) for samples in (audio, response.content))
    assert np.abs(heard - expected).max() <= ROUNDING


def test_a_flipped_byte(bundle: Path, tmp_path: Path) -> None:
    damaged = {}
    for where in ("talker", "tokenizer"):
        copy = tmp_path / "models" / where
        shutil.copytree(bundle, copy)
        file = sorted(copy.glob(f"{where}*"))[-1]
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        damaged[where] = file.name
    with run_server(REAL, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server, server.client() as client:
        wait_until(lambda: "model_loading" not in client.get("/readyz").text, "loading ends")
        for where, name in damaged.items():
            answer = client.post(SPEECH, json={**REQUEST, "model": where})
            assert f"{where}: {name} is damaged" in check_error(answer, 503, "model_unavailable", "model")
        assert "talker: talker" in check_error(client.get("/readyz"), 503, "model_unavailable", "model")
        assert server.stop() == 0


def test_say_writes_a_wav_file_of_exactly_so_many_frames(bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.wav"
    done = subprocess.run(
        [sys.executable, "-m", "server", "say", "Hello", "-o", str(output), "--exact-frames", "4", "--seed", "1"],
        cwd=ROOT,
        env=clean_environment(KW_MODELS_DIR=str(bundle.parent), KW_MODEL=bundle.name),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with wave.open(str(output)) as file:
        assert (file.getframerate(), file.getnframes()) == (24000, 4 * 1920)
