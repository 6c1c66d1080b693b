"""What the guard takes for speech and what it does not, on codes alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.guard import (
    ALIKE_HOLD,
    ALIKE_LIMIT,
    FRAMES_PER_TOKEN,
    LONGEST_PERIOD,
    SAME_CODE_HOLD,
    SAME_CODE_LIMIT,
    SILENT_HOLD,
    SILENT_LIMIT,
    SLOW_FLOOR,
    TOO_SLOW_FLOOR,
    Guard,
)

GROUPS, CODES = 16, 2048
FRAMES_A_SECOND = 12.5
STEP = 1920


def speech(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(CODES, size=(frames, GROUPS))


def watch(guard: Guard, frames: Iterable[np.ndarray]) -> tuple[Guard, int | None, int | None]:
    """The guard after these frames, and how many passed before it held one back and before it gave the row up."""
    held = lost = None
    for number, codes in enumerate(frames):
        guard = guard.after(codes)
        if held is None and guard.suspicious:
            held = number
        if lost is None and guard.runaway:
            lost = number
    return guard, held, lost


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), tokens=st.integers(1, 60), pace=st.floats(2.0, 5.0))
def test_speech_at_any_pace_of_people_is_left_alone(seed: int, tokens: int, pace: float) -> None:
    frames = round(tokens / pace * FRAMES_A_SECOND)
    guard, held, lost = watch(Guard.of(tokens, GROUPS), speech(seed, frames))
    assert held is None
    assert lost is None
    assert not guard.ends_too_soon


@pytest.mark.parametrize("tokens", [1, 10, 100])
def test_what_does_not_end_is_held_and_then_given_up(tokens: int) -> None:
    _, held, lost = watch(Guard.of(tokens, GROUPS), speech(0, 2000))
    assert held == 8 * tokens + SLOW_FLOOR - 1
    assert lost == 12 * tokens + TOO_SLOW_FLOOR - 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), period=st.integers(1, LONGEST_PERIOD), before=st.integers(0, 40))
def test_a_loop_of_any_period_is_found(seed: int, period: int, before: int) -> None:
    said, loop = speech(seed, before), speech(seed + 1, period)
    repeated = np.tile(loop, (100 // period + 2, 1))
    guard, held, lost = watch(Guard.of(60, GROUPS), [*said, *repeated])
    assert held == before + period + ALIKE_HOLD - 1
    assert lost == before + period + ALIKE_LIMIT - 1
    assert guard.runaway == "frames repeat"


def test_a_loop_with_some_other_codes_in_it_is_still_a_loop() -> None:
    repeated = np.tile(speech(1, 5), (20, 1))
    repeated[:, 12:] = speech(2, 100)[:, 12:]
    assert watch(Guard.of(60, GROUPS), repeated)[2] == 5 + ALIKE_LIMIT - 1


def test_codebook_0_alone_may_repeat_for_longer() -> None:
    frames = speech(0, 200)
    frames[20:, 0] = 7
    guard, held, lost = watch(Guard.of(60, GROUPS), frames)
    assert held == 20 + SAME_CODE_HOLD
    assert lost == 20 + SAME_CODE_LIMIT
    assert guard.runaway == "codebook 0 repeats"


def test_a_pause_of_two_seconds_holds_nothing_back() -> None:
    frames = speech(0, 100)
    frames[40:65, 0] = 7
    assert watch(Guard.of(60, GROUPS), frames)[1:] == (None, None)


@pytest.mark.parametrize("repeated", [0, 5, 39])
def test_a_text_that_repeats_itself_may_sound_so(repeated: int) -> None:
    """A greedy row of "very " x 40 has the same frames again and again."""
    told = 2 * FRAMES_PER_TOKEN * repeated
    _, held, lost = watch(Guard.of(60, GROUPS, repeated), np.tile(speech(0, 5), (100, 1)))
    assert held == 5 + ALIKE_HOLD + told - 1
    assert lost == 5 + ALIKE_LIMIT + told - 1
    alike = speech(1, 600)
    alike[:, 0] = 7
    assert watch(Guard.of(60, GROUPS, repeated), alike)[1] == SAME_CODE_HOLD + told
    assert watch(Guard.of(60, GROUPS, repeated), alike)[2] == SAME_CODE_LIMIT + told


def test_a_stretch_that_repeats_and_goes_on_is_only_held() -> None:
    frames = np.concatenate([speech(0, 30), np.tile(speech(1, 1), (30, 1)), speech(2, 30)])
    guard, held, lost = watch(Guard.of(60, GROUPS), frames)
    assert held is not None
    assert lost is None
    assert not guard.suspicious


def audio(*stretches: tuple[int, float]) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.concatenate([random.normal(scale=level, size=(frames, STEP)) for frames, level in stretches]).astype(
        np.float32
    )


@settings(max_examples=50, deadline=None)
@given(cut=st.lists(st.integers(1, 8), min_size=1), loud=st.integers(1, 9), silent=st.integers(0, 60))
def test_silence_is_counted_over_chunks_of_any_size(cut: list[int], loud: int, silent: int) -> None:
    guard, frames = Guard.of(60, GROUPS), audio((loud, 0.05), (silent, 1e-4))
    place, number = 0, 0
    while place < len(frames):
        size = cut[number % len(cut)]
        guard = guard.heard(frames[place : place + size])
        place, number = place + size, number + 1
    assert guard.silent == silent
    assert guard.suspicious == (silent >= SILENT_HOLD)
    assert guard.runaway == ("silence" if silent >= SILENT_LIMIT else None)
    assert not guard.heard(audio((1, 0.05))).suspicious


def test_a_quiet_voice_is_no_silence() -> None:
    assert Guard.of(60, GROUPS).heard(audio((100, 3e-3))).silent == 0


@pytest.mark.parametrize(("tokens", "frames", "soon"), [(40, 2, True), (40, 20, False), (1, 2, False), (4, 2, False)])
def test_an_end_too_soon(tokens: int, frames: int, soon: bool) -> None:
    assert watch(Guard.of(tokens, GROUPS), speech(0, frames))[0].ends_too_soon == soon


def test_an_older_guard_is_not_touched() -> None:
    frames = np.tile(speech(0, 1), (50, 1))
    guard, _, _ = watch(Guard.of(60, GROUPS), frames[:5])
    later, _, lost = watch(guard, frames[5:])
    assert lost is not None
    assert later.runaway
    again, held, _ = watch(guard, speech(3, 45))
    assert held is None
    assert again.made == later.made
