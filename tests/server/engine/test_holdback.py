"""How far back a row is set, by what of it may have been heard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server.engine.guard import ALIKE_HOLD, Guard
from server.engine.holdback import RowState
from server.engine.job import Job, Sampling
from server.engine.prompt import Prompt
from server.engine.rows import Row
from server.graphs.codec_decoder import CodecState

GROUPS = 4
SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)


class Sampler:
    """Hears where the row goes on."""

    def go_back(self, made: int, retry: int) -> None:
        self.made, self.retry = made, retry


@pytest.fixture
def row() -> Row:
    job = Job(Prompt(np.zeros((9, 8), np.float32), 3), SAMPLING, 1, 500, text_tokens=100)
    sampler: Any = Sampler()
    return Row(job, 0, RowState(9, None, CodecState(0, ()), Guard.of(100, GROUPS)), sampler)


def make(row: Row, frames: int, *, same: bool = False) -> None:
    """So many frames, not decoded."""
    for _ in range(frames):
        state = row.state
        codes = np.full(GROUPS, 7 if same else state.made)
        assert state.guard is not None
        row.accept(
            RowState(
                state.length + 1,
                None,
                state.codec,
                state.guard.after(codes),
                state.made + 1,
                (*state.undecoded, codes),
            )
        )


def decode(row: Row) -> None:
    state = row.state
    row.hear(
        np.zeros(len(state.undecoded) * 4, np.float32),
        RowState(state.length, None, CodecState(state.made, ()), state.guard, state.made),
    )


def go_back(row: Row) -> bool:
    """As the engine does when the row ends too soon."""
    return row.go_back(row.hold_back.before_what_is_unheard(row.state), "it ends too soon")


def test_a_row_goes_back_to_what_was_handed_over(row: Row) -> None:
    make(row, 3)
    decode(row)
    make(row, 5)
    assert go_back(row)
    assert (row.state.made, row.state.undecoded, row.state.codec.position) == (3, (), 3)
    assert row.job.frames == row.sampler.made == 3


def test_a_row_that_has_handed_over_all_goes_on_from_there(row: Row) -> None:
    make(row, 3)
    decode(row)
    assert go_back(row)
    assert row.state.made == 3


def test_what_is_held_back_is_thrown_away_too(row: Row) -> None:
    make(row, 3)
    decode(row)
    make(row, ALIKE_HOLD + 1, same=True)
    decode(row)
    make(row, 3, same=True)
    assert go_back(row)
    assert (row.state.made, len(row.state.undecoded)) == (3 + ALIKE_HOLD, ALIKE_HOLD)


def test_going_back_again_does_not_go_back_to_frames_that_are_gone(row: Row) -> None:
    make(row, 3)
    decode(row)
    make(row, 5)
    go_back(row)
    make(row, 2)
    decode(row)
    assert go_back(row)
    assert row.state.made == 5
