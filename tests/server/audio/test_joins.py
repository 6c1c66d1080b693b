"""Joined pieces: exact pauses, bounded silence, no clicks, and the same however the samples come in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.audio import joins
from server.audio.joins import Joiner

RATE = 24_000
BEFORE, AFTER = round(joins.KEPT_BEFORE_SECONDS * RATE), round(joins.KEPT_AFTER_SECONDS * RATE)
FADE = round(joins.FADE_SECONDS * RATE)
PAUSE = 0.25
PAUSE_SAMPLES = round(PAUSE * RATE)

Piece = np.ndarray


def loud(count: int) -> Piece:
    return np.full(count, 0.5, np.float32)


def quiet(count: int) -> Piece:
    return np.full(count, joins.QUIET / 2, np.float32)


def join(pieces: list[Piece], step: int = 1920) -> Piece:
    joiner, parts = Joiner(RATE), []
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        parts += [joiner.feed(piece[at : at + step], last=last) for at in range(0, len(piece), step)]
        parts.append(joiner.end(None if last else PAUSE))
    return np.concatenate(parts)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5000)), max_size=5), st.integers(50, 6000))
def test_a_single_piece_stays_as_it_is_and_waits_no_longer_than_a_fade(runs: list[tuple[bool, int]], step: int) -> None:
    piece = np.concatenate([np.zeros(0, np.float32), *(loud(n) if is_loud else quiet(n) for is_loud, n in runs)])
    joiner, out = Joiner(RATE), [np.zeros(0, np.float32)]
    for at in range(0, len(piece), step):
        out.append(joiner.feed(piece[at : at + step], last=True))
        assert sum(map(len, out)) >= min(at + step, len(piece)) - FADE
    np.testing.assert_array_equal(np.concatenate((*out, joiner.end(None))), piece)


@pytest.mark.parametrize("step", [100, 1920, 100_000])
@pytest.mark.parametrize("before", [[], [loud(4_000)]])
def test_an_end_that_cuts_speech_off_fades_out(step: int, before: list[Piece]) -> None:
    joiner, parts = Joiner(RATE), []
    for piece in before:
        parts += [joiner.feed(piece, last=False), joiner.end(PAUSE)]
    piece = loud(6_000)
    parts += [joiner.feed(piece[at : at + step], last=True) for at in range(0, len(piece), step)]
    joined = np.concatenate((*parts, joiner.end(None, cut_off=True)))
    assert len(joined) == 6_000 + sum(map(len, before)) + len(before) * PAUSE_SAMPLES
    np.testing.assert_array_equal(joined[-6_000 + FADE : -FADE], 0.5)
    assert np.all(np.diff(joined[-FADE:]) < 0)
    assert 0 < joined[-1] < 0.001


def test_an_end_of_less_than_a_fade_fades_out_too() -> None:
    joiner = Joiner(RATE)
    assert joiner.feed(loud(FADE // 2), last=True).size == 0
    ended = joiner.end(None, cut_off=True)
    assert len(ended) == FADE // 2
    assert 0 < ended[-1] < 0.001


def test_pieces_without_silence_keep_every_sample_but_for_the_fades() -> None:
    joined = join([loud(10_000), loud(5_000), loud(7_000)])
    assert len(joined) == 22_000 + 2 * PAUSE_SAMPLES
    first, pause = joined[:10_000], joined[10_000 : 10_000 + PAUSE_SAMPLES]
    second = joined[10_000 + PAUSE_SAMPLES :][:5_000]
    assert not pause.any()
    np.testing.assert_array_equal(first[:-FADE], 0.5)
    np.testing.assert_array_equal(second[FADE:-FADE], 0.5)
    np.testing.assert_array_equal(joined[-7_000 + FADE :], 0.5)
    steps = np.abs(np.diff(joined))
    assert steps.max() < 0.02
    assert first[-1] > 0 < second[0]


def test_silence_at_joined_ends_is_trimmed_and_silence_inside_is_not() -> None:
    head, inside, tail = quiet(9_000), np.concatenate((loud(3_000), quiet(20_000), loud(3_000))), quiet(30_000)
    piece = np.concatenate((head, inside, tail))
    joined = join([piece, piece, piece])
    whole = len(inside)
    expected = (9_000 + whole + AFTER) + (BEFORE + whole + AFTER) + (BEFORE + whole + 30_000) + 2 * PAUSE_SAMPLES
    assert len(joined) == expected
    np.testing.assert_array_equal(joined[: 9_000 + whole + AFTER - FADE], piece[: 9_000 + whole + AFTER - FADE])
    np.testing.assert_array_equal(joined[-whole - 30_000 :], piece[9_000:])


def test_silence_shorter_than_what_may_stay_stays() -> None:
    piece = np.concatenate((quiet(BEFORE // 2), loud(3_000), quiet(AFTER // 2)))
    assert len(join([piece, piece])) == 2 * len(piece) + PAUSE_SAMPLES


@pytest.mark.parametrize("middle", [quiet(0), quiet(9), quiet(50_000), loud(3), loud(FADE - 1)])
def test_very_short_pieces_are_joined_with_both_pauses(middle: Piece) -> None:
    joined = join([loud(2_000), middle, loud(2_000)])
    assert len(joined) == 4_000 + 2 * PAUSE_SAMPLES + min(len(middle), BEFORE)


RUNS = st.lists(st.tuples(st.booleans(), st.integers(0, 9_000)), max_size=6)


@settings(deadline=None)
@given(st.lists(RUNS, min_size=2, max_size=4), st.integers(200, 10_000))
def test_how_the_samples_come_in_does_not_matter(pieces: list[list[tuple[bool, int]]], step: int) -> None:
    made = [
        np.concatenate([np.zeros(0, np.float32), *(loud(n) if is_loud else quiet(n) for is_loud, n in runs)])
        for runs in pieces
    ]
    np.testing.assert_array_equal(join(made, step), join(made, 100_000))


def test_speech_is_held_back_no_longer_than_a_fade() -> None:
    joiner = Joiner(RATE)
    assert len(joiner.feed(loud(1920), last=False)) == 1920 - FADE
    assert len(joiner.feed(quiet(1920), last=False)) == 1920
    assert len(joiner.feed(quiet(1920), last=False)) == AFTER - 1920
    assert len(joiner.feed(quiet(1920), last=False)) == 0
    assert len(joiner.feed(loud(1), last=False)) == 3 * 1920 - AFTER + 1


def test_silence_before_the_first_speech_waits_for_nothing() -> None:
    joiner = Joiner(RATE)
    assert len(joiner.feed(quiet(1920), last=False)) == 1920 - FADE
    assert len(joiner.feed(quiet(9 * 1920), last=False)) == 9 * 1920


@pytest.mark.parametrize("step", [7, 1920, 100_000])
@pytest.mark.parametrize("last", [True, False])
def test_a_trimmed_start_keeps_what_may_be_a_soft_onset_and_fades_in(step: int, last: bool) -> None:
    piece = np.concatenate((quiet(9_001), loud(3_000), quiet(30_000)))
    joiner = Joiner(RATE, trim_start=True)
    parts = [joiner.feed(piece[at : at + step], last=last) for at in range(0, len(piece), step)]
    joined = np.concatenate((*parts, joiner.end(None)))
    wanted = piece[9_001 - BEFORE :]
    assert len(joined) == len(wanted)
    np.testing.assert_array_equal(joined[FADE:], wanted[FADE:])
    assert (joined[:FADE] < wanted[:FADE]).all()


def test_a_start_with_less_silence_than_may_stay_is_only_faded_in() -> None:
    joiner = Joiner(RATE, trim_start=True)
    assert len(joiner.feed(loud(1920), last=False)) == 1920 - FADE, "it waits no longer than any other"
    assert len(joiner.feed(loud(1920), last=False)) == 1920


def test_what_is_not_a_number_is_not_trimmed_away() -> None:
    broken = np.concatenate((quiet(5_000), np.full(1, np.nan, np.float32), quiet(50_000)))
    for pieces in ([broken, loud(1000)], [loud(1000), broken]):
        assert np.isnan(join(pieces)).any()
