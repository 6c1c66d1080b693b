"""What the page of cloned voices computes, in Node: the part of a recording, its level, and WAV files."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

import numpy as np
import pytest

from server.audio.encoders import MARK, make_encoder
from server.audio.recording import BEST_SECONDS, read_recording
from tests.server.audio.recordings import RATE, swelling
from tests.server.running import ROOT

LEAST, MOST = BEST_SECONDS


def call(*calls: list[Any]) -> list[Any]:
    """What the page's functions return."""
    program = ["node", str(ROOT / "tests" / "node" / "recording.mjs")]
    done = subprocess.run(program, input=json.dumps(calls), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def as_samples(floats: np.ndarray) -> dict[str, list[int]]:
    return {"samples": np.round(floats * 32768).astype(int).tolist()}


def test_a_part_always_has_an_allowed_length_within_the_recording() -> None:
    random = np.random.default_rng(0)
    cases = []
    for _ in range(500):
        duration = float(random.choice([1, LEAST, 5, 25, 300])) * random.uniform(1, 1.2)
        length = random.uniform(min(LEAST, duration), min(MOST, duration))
        start = random.uniform(0, duration - length)
        time = random.uniform(-0.1, 1.1) * duration
        cases.append([{"start": start, "end": start + length}, str(random.choice(["start", "end"])), time, duration])
    for (part, which, time, duration), made in zip(cases, call(*(["moved", *case] for case in cases)), strict=True):
        start, end = made["start"], made["end"]
        assert -1e-9 <= start <= end <= duration + 1e-9
        assert min(LEAST, duration) - 1e-9 <= end - start <= MOST + 1e-9
        least = min(LEAST, duration)
        wanted = np.clip(time, 0, duration - least) if which == "start" else np.clip(time, least, duration)
        assert made[which] == pytest.approx(wanted)
        other = "end" if which == "start" else "start"
        if least <= abs(part[other] - wanted) <= MOST and (part[other] > wanted) == (which == "start"):
            assert made[other] == pytest.approx(part[other]), "the other end stays where it may"


@pytest.mark.parametrize(
    ("before", "spoken", "after", "start", "end"),
    [(1, 4, 2, 0.9, 5.1), (0, 4, 0, 0, 4), (0.05, 4, 0.05, 0, 4.1), (2, 1, 3, 1.9, 4.9), (1, 30, 1, 0.9, 20.9)],
)
def test_the_quiet_at_both_ends_is_left_out(
    before: float, spoken: float, after: float, start: float, end: float
) -> None:
    floats = np.concatenate((np.zeros(round(before * RATE)), swelling(spoken), np.zeros(round(after * RATE))))
    (part,) = call(["spokenPart", as_samples(floats)])
    assert part == pytest.approx({"start": start, "end": end}, abs=0.005)


def test_silence_is_a_recording_too() -> None:
    (part,) = call(["spokenPart", {"samples": [0] * 5 * RATE}])
    assert part == {"start": 0, "end": LEAST}


def test_the_level_is_in_steps_of_loudness() -> None:
    levels = call(*(["levelOf", {"samples": [0, -peak, 1]}] for peak in (32768, 1036, 33, 1)))
    assert levels == pytest.approx([1, 0.5, 0, 0], abs=0.01)
    assert call(["levelOf", {"samples": []}]) == [0]


def test_floats_become_samples_of_16_bits() -> None:
    assert call(["toSamples", [0, 0.5, -1, 1, 2, -2, 1 / 65536]]) == [[0, 16384, -32768, 32767, 32767, -32768, 1]]


@pytest.mark.parametrize("mark", ["", MARK, "even"])
def test_a_wav_file_is_the_servers_byte_for_byte(mark: str) -> None:
    floats = np.round(swelling(0.01) * 32768) / np.float32(32768)
    encoder = make_encoder("wav", RATE, mark)
    body = bytearray(encoder.encode(floats) + encoder.finish())
    encoder.complete(body)
    (file,) = call(["wavFile", as_samples(floats), {"mark": mark}])
    assert base64.b64decode(file) == body


def test_the_server_reads_a_recording_of_any_rate() -> None:
    floats = swelling(3, rate=44_100)
    (file,) = call(["wavFile", as_samples(floats), {"rate": 44_100}])
    recording = read_recording(base64.b64decode(file), rate=44_100, most_seconds=20)
    assert np.abs(recording.samples - floats).max() <= 1 / 32768
