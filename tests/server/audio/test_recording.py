"""Recordings of voices: read as the official package reads them, and refused where they would cost or mean harm."""

from __future__ import annotations

import struct
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.audio.recording import Recording, RecordingError, read_recording, text_notes, with_tail
from tests.server.audio.recordings import LIBAV, RATE, SOUNDFILE, recorded, swelling, written


def read(body: bytes, most_seconds: float = 30) -> Recording:
    return read_recording(body, rate=RATE, most_seconds=most_seconds)


@pytest.mark.parametrize("form", LIBAV)
def test_libav_reads_what_libsndfile_cannot(form: str) -> None:
    found = read(recorded(form, 48_000, 2))
    assert found.seconds == pytest.approx(3, abs=0.1)
    wanted = np.abs(np.fft.rfft(found.samples[:RATE] * np.hanning(RATE)))
    assert np.argmax(wanted) == 220


@pytest.mark.parametrize("form", ["mp4", "webm"])
def test_a_title_may_be_in_any_coding(form: str) -> None:
    body = recorded(form, 48_000, title="untitled")
    assert b"untitled" in body
    found = read(body.replace(b"untitled", "Stück ÿþ".encode("latin-1")))
    assert found.seconds == pytest.approx(3, abs=0.1)


def test_without_pyav_the_other_formats_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    body = recorded("mp4", 48_000, 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RecordingError, match=r"pip install 'qwen3-tts-edge\[formats\]'.*WAV"):
        read(body)


@pytest.mark.parametrize("form", SOUNDFILE)
def test_what_is_too_long_is_not_decoded(form: str) -> None:
    hour = written(np.zeros(8_000 * 600, np.float32), 8_000, form)
    tracemalloc.start()
    with pytest.raises(RecordingError, match=r"longer than 10 s"):
        read(hour, 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 8_000 * 60


def test_the_limit_itself_is_not_too_long() -> None:
    assert read(recorded(seconds=3.0), 3.0).seconds == 3.0
    with pytest.raises(RecordingError, match=r"longer than 2\.9 s"):
        read(recorded(seconds=3.0), 2.9)


def padded(before: float, after: float) -> NDArray[np.float32]:
    return np.pad(swelling(), (round(before * RATE), round(after * RATE)))


@pytest.mark.parametrize(
    ("samples", "notes"),
    [
        (padded(0.4, 0.4), []),
        (padded(1.5, 0), ["begins with 1.5 s of silence"]),
        (padded(0, 2), ["ends with 2.0 s of silence"]),
        (np.clip(8 * swelling(), -1, 1), ["is clipped"]),
        (np.sin(np.arange(3 * RATE) * 0.5), []),
        (swelling(1.5), ["1.5 s of sound; 3 to 20"]),
        (swelling(25), ["25.0 s of sound; 3 to 20"]),
    ],
)
def test_what_is_wrong_is_noticed(samples: NDArray[np.float32], notes: list[str]) -> None:
    found = read(written(samples.astype(np.float32))).notes
    assert len(found) == len(notes)
    assert all(wanted in note and note.isascii() for wanted, note in zip(notes, found, strict=True))


@pytest.mark.parametrize(
    ("text", "seconds", "fits"),
    [
        ("The quick brown fox jumps over the lazy dog.", 2.8, True),
        ("The quick brown fox jumps over the lazy dog.", 10, False),
        ("The quick brown fox jumps over the lazy dog.", 1, False),
        ("今天天气很好，我们去公园散步吧。", 3.2, True),
        ("今天天气很好，我们去公园散步吧。", 14, False),
        ("今天天气很好，我们去公园散步吧。", 1.2, False),
        ("きょうはいいてんきですね。", 1.8, True),
        ("안녕하세요. 만나서 반갑습니다.", 2.4, True),
        ("x" + " " * 1000 + "y", 3, False),
        ("", 3, False),
    ],
)
def test_a_text_that_cannot_be_that_of_the_recording_is_noticed(text: str, seconds: float, fits: bool) -> None:
    notes = text_notes(text, seconds)
    assert bool(notes) != fits
    assert all("never end" in note and note.isascii() for note in notes)


def test_the_tail_is_half_a_second_of_silence() -> None:
    samples = with_tail(swelling(1), RATE)
    assert len(samples) == 1.5 * RATE
    assert not samples[RATE:].any()
    assert samples.dtype == np.float32


def wav(samples: NDArray[np.float32], **header: int) -> bytes:
    """A WAV file of floats with some fields of its header changed."""
    body = bytearray(written(samples, subtype="FLOAT"))
    places = {"channels": (22, "<H"), "rate": (24, "<I"), "riff_size": (4, "<I")}
    for name, value in header.items():
        place, form = places[name]
        struct.pack_into(form, body, place, value)
    return bytes(body)


NOT_A_NUMBER = swelling()
NOT_A_NUMBER[5000] = np.nan
INFINITE = swelling()
INFINITE[5000] = -np.inf


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "in no format"),
        (b"RIFF", "cannot be read"),
        (b"hello, this is text", "in no format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "in no format"),
        (b"ID3" + bytes(100), "cannot be read"),
        (recorded()[:44], "is silent"),
        (written(np.zeros(0, np.float32)), "is silent"),
        (written(np.zeros(RATE, np.float32)), "is silent"),
        (written(swelling(0.2)), "only 0.20 s of sound"),
        (written(swelling(3, RATE, 3)), "3 channels"),
        (wav(swelling(), rate=0), "cannot be read|0 samples a second"),
        (wav(swelling(), rate=4_000), "4000 samples a second"),
        (wav(swelling(), rate=2**31), "cannot be read|samples a second"),
        (wav(swelling(), channels=0), "cannot be read|0 channels"),
        (wav(swelling(), channels=65_535), "cannot be read|channels"),
        (wav(NOT_A_NUMBER), "not finite"),
        (wav(INFINITE), "not finite"),
        (wav(swelling() * np.float32(32768)), "full scale is 1"),
        (wav(swelling() * np.float32(1e25)), "full scale is 1"),
    ],
)
def test_what_is_no_recording_is_refused_with_a_reason(body: bytes, message: str) -> None:
    with pytest.raises(RecordingError, match=message) as caught:
        read(body)
    assert str(caught.value).isascii()


def test_a_header_that_promises_more_than_there_is_costs_nothing() -> None:
    body = bytearray(recorded())
    struct.pack_into("<I", body, 40, 0xFFFFFFF0)
    tracemalloc.start()
    assert read(bytes(body)).seconds == 3.0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 3 * RATE


def test_a_coding_without_a_decoder_is_refused() -> None:
    body = recorded("webm", 48_000).replace(b"A_OPUS", b"A_OPUX")
    with pytest.raises(RecordingError, match="cannot be read"):
        read(body)


FORMS = (*SOUNDFILE, *LIBAV)


@given(
    form=st.sampled_from(FORMS),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    early=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_read_or_refused(
    form: str, cut: float, changes: list[tuple[float, int]], early: bool
) -> None:
    """Changes fall anywhere, or into the first bytes, where the headers are."""
    body = bytearray(recorded(form, 48_000, 1, 1.0))
    for place, value in changes:
        body[int(place * min(len(body) - 1, 100 if early else len(body)))] = value
    try:
        found = read(bytes(body[: int(cut * len(body)) if not changes else len(body)]))
    except RecordingError:
        return
    assert np.isfinite(found.samples).all()
    assert found.seconds <= 30


@given(st.binary(max_size=200), st.sampled_from([b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\x1a\x45\xdf\xa3"]))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused(body: bytes, beginning: bytes) -> None:
    for garbage in (body, beginning + body, bytes(4) + b"ftyp" + body):
        with pytest.raises(RecordingError):
            read(garbage)
