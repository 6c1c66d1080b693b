"""When each piece of a reading is heard: the pieces are all of the audio, and each is where it is said to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from server.audio.joins import KEPT_BEFORE_SECONDS
from server.engine.job import Job, RunawayError
from server.speech.pieces import Piece, VoicedChunk
from server.speech.planned_reading import PlannedReading
from server.speech.reading import PAUSE_SECONDS
from server.speech.timeline import TimedPiece
from server.text import tags
from server.text.chunks import Chunk
from server.text.sentences import Boundary
from tests.server.fakes import FRAME, SAMPLE_RATE
from tests.server.speech.test_reading import DELIVERY, HandEngine, heard, level, make_job, run

BLUR = round(0.03 * SAMPLE_RATE)
"""Samples around a join in which a fade, or a window of the time-stretch, makes the samples others."""

EDGE = 10
"""Samples at a piece's ends that a fade may make as good as silent."""


class ReadyEngine(HandEngine):
    """Makes the audio of a job at once: a level by which the chunk is known, of even chunks between silence."""

    def __init__(self) -> None:
        super().__init__(rows=3)
        self.failing: set[int] = set()
        """Seeds of jobs that make no speech."""

    def submit(self, job: Job) -> None:
        super().submit(job)
        number = job.seed % 100
        around = [np.zeros(FRAME, np.float32)] * (1 - number % 2)
        sound = [*around, *[level(number)] * (number + 4), *around]
        for samples in sound:
            job.frames += 1
            if job.seed not in self.failing:
                job.put(samples, 1)
        job.finish(RunawayError("no speech") if job.seed in self.failing else None)


def chunk(text: str, boundary: Boundary, speed: float = 1.0) -> VoicedChunk:
    return VoicedChunk(Chunk(text, 2, boundary), replace(DELIVERY, speed=speed))


def silence(seconds: str) -> tags.Silence:
    return tags.Silence(Decimal(seconds))


PIECES: tuple[Piece, ...] = (
    silence("0.1"),
    chunk("0", Boundary.SENTENCE),
    chunk("1", Boundary.PARAGRAPH),
    chunk("2", Boundary.TEXT),
    silence("1.50005"),
    chunk("3", Boundary.WORD),
    chunk("4", Boundary.CLAUSE),
    chunk("5", Boundary.TEXT),
)


def at(speeds: tuple[float, ...]) -> Iterator[Piece]:
    """The pieces, with a voice for each of these speeds that take turns."""
    for number, piece in enumerate(PIECES):
        if isinstance(piece, VoicedChunk):
            yield piece._replace(delivery=replace(DELIVERY, speed=speeds[number % len(speeds)]))
        else:
            yield piece


def read(
    pieces: Iterator[Piece],
    *,
    exact: bool,
    failing: tuple[int, ...] = (),
    most_frames: int | None = None,
    trim_start: bool = False,
) -> tuple[np.ndarray, list[TimedPiece]]:
    found: list[tuple[np.ndarray, list[TimedPiece]]] = []

    async def test() -> None:
        engine = ReadyEngine()
        engine.failing |= set(failing)
        reading = PlannedReading(engine, pieces, make_job, most_frames, exact=exact, trim_start=trim_start)
        await reading.begin()
        found.append((np.concatenate(await heard(reading)), reading.timeline.pieces))

    run(test)
    return found[0]


def check(whole: np.ndarray, pieces: list[TimedPiece], *, blur: int) -> None:
    """See that the pieces are all of the audio, and that each has its own samples, but for `blur` at its ends."""
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == len(whole)
    for piece in pieces:
        assert piece.end is not None
        samples = whole[piece.start + blur : piece.end - blur]
        if piece.kind != "speech":
            assert not samples.any()
            continue
        loud = np.flatnonzero(samples)
        if not blur and int(piece.text) % 2:
            assert loud[0] < EDGE
            assert loud[-1] >= len(samples) - EDGE
        inside = samples[loud[0] + BLUR : loud[-1] - BLUR]
        np.testing.assert_allclose(inside, level(int(piece.text))[0], rtol=1e-3)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("speeds", [(1.0,), (2.0,), (0.7,), (1.0, 1.5), (0.5, 3.0, 1.0)])
def test_the_pieces_are_all_of_the_audio_and_each_is_where_it_is_said_to_be(
    speeds: tuple[float, ...], exact: bool
) -> None:
    whole, pieces = read(at(speeds), exact=exact)
    check(whole, pieces, blur=0 if exact or speeds == (1.0,) else BLUR)
    assert [piece.text for piece in pieces if piece.kind == "speech"] == list("012345")
    assert [piece.kind for piece in pieces] == [
        "silence", "speech", "join", "speech", "join", "speech", "silence", "speech", "speech", "join", "speech",
    ]  # fmt: skip
    tagged = [piece.end - piece.start for piece in pieces if piece.kind == "silence" and piece.end is not None]
    assert tagged == [2400, 36001], "no speed makes them longer"
    paragraph = next(piece for number, piece in enumerate(pieces) if pieces[number - 1].text == "1")
    assert paragraph.end is not None
    after = speeds[2 % len(speeds)]
    wanted = round((PAUSE_SECONDS[Boundary.PARAGRAPH] or 0) * SAMPLE_RATE / after)
    assert abs(paragraph.end - paragraph.start - wanted) <= (0 if exact else 1)


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_times_count_what_is_left_of_a_trimmed_start(speed: float) -> None:
    """The first word's silence is trimmed; that of the text, and what other words begin with, stay."""
    (whole, pieces), (trimmed, others) = (read(at((speed,)), exact=True, trim_start=trim) for trim in (False, True))
    check(trimmed, others, blur=0)
    left_out = (FRAME - round(KEPT_BEFORE_SECONDS * SAMPLE_RATE)) / speed
    assert len(whole) - len(trimmed) == pytest.approx(left_out, abs=1)
    assert others[0] == pieces[0]
    lengths = [[piece.end - piece.start for piece in found if piece.end is not None] for found in (pieces, others)]
    changed = [number for number, (before, after) in enumerate(zip(*lengths, strict=True)) if before != after]
    assert changed == [1]


def test_only_audio_that_is_heard_counts() -> None:
    whole, pieces = read(iter([chunk("0", Boundary.SENTENCE), chunk("1", Boundary.TEXT)]), exact=True, failing=(1,))
    check(whole, pieces, blur=0)
    assert [piece.text for piece in pieces] == ["0", "", "1"]


@pytest.mark.parametrize("most", [3, 8, 9])
def test_what_a_limit_cuts_off_ends_there(most: int) -> None:
    whole, pieces = read(iter([chunk("0", Boundary.SENTENCE), chunk("1", Boundary.TEXT)]), exact=True, most_frames=most)
    check(whole, pieces, blur=0)
    assert len(pieces) == (1 if most == 3 else 3)


def test_a_piece_begins_before_its_samples_are_given_and_ends_behind_them() -> None:
    async def test() -> None:
        reading = PlannedReading(ReadyEngine(), at((1.0,)), make_job)
        await reading.begin()
        given = 0
        async for samples in reading:
            last = reading.timeline.pieces[-1]
            assert last.start <= given
            assert last.end is None
            given += samples.size
        assert reading.timeline.pieces[-1].end == given

    run(test)


def test_exact_times_change_no_sample_where_nothing_is_stretched() -> None:
    np.testing.assert_array_equal(read(at((1.0,)), exact=True)[0], read(at((1.0,)), exact=False)[0])
