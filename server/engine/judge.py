"""Asks the guard about the frames and the audio of rows, and sets back those that make no speech."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from server.engine.frames import Codes, Frames, check_finite
from server.engine.guard import Guard
from server.engine.holdback import RowState
from server.engine.rows import Row, ends_row_on_error
from server.graphs.codec_decoder import CodecState
from server.metrics import EngineEvents

Floats = NDArray[np.float32]
Decoded = tuple[Floats, CodecState]
"""Samples of a row, and the decoder's state after them."""

log = logging.getLogger(__name__)


class Judge:
    """Decides on every frame and every chunk of audio: hand over, hold back, go back, end.

    Args:
        frames: keeps the states that a row may go back to.
        max_positions: of a row, prompt and frames.
        events: hears of rows that run away.
    """

    def __init__(self, frames: Frames, max_positions: int, events: EngineEvents) -> None:
        self._frames, self._max_positions, self._events = frames, max_positions, events

    def codes(self, drawn: Iterable[tuple[Row, Codes | None]]) -> None:
        """Take the frames that were drawn, None being the end of a speech."""
        for row, codes in drawn:
            with ends_row_on_error(row):
                if codes is None:
                    self._end(row)
                else:
                    self._accept(row, codes)

    def audio(self, decoded: Iterable[tuple[Row, Decoded]]) -> None:
        """Take the audio of the rows' undecoded frames. A row that has failed meanwhile gets none."""
        for row, (samples, codec) in decoded:
            if row.error is None:
                with ends_row_on_error(row):
                    self._hear(row, samples, codec)

    def _end(self, row: Row) -> None:
        guard = _guard(row)
        if guard is None or not _ends_too_soon(row, guard):
            row.end()
            return
        self._frames.keep(row)
        # With the frames before it as they are the model often ends again. So the row begins anew while nobody listens.
        unheard = row.job.take_back()
        held = row.hold_back
        self._go_back(row, held.beginning if unheard else held.before_what_is_unheard(row.state), "it ends too soon")

    def _accept(self, row: Row, codes: Codes) -> None:
        guard = known.after(codes) if (known := _guard(row)) else None
        made = row.state.made + 1
        last = made >= row.job.max_frames or row.state.length >= self._max_positions
        may_go_back = guard is not None and (
            last or guard.suspicious or guard.runaway or (_ends_too_soon(row, guard) and not row.state.undecoded)
        )
        if may_go_back:
            self._frames.keep(row)
        if guard is not None and (reason := "it does not end" if last else guard.runaway):
            self._go_back(row, row.hold_back.before_what_is_held(row.state), reason)
            return
        row.sampler.accept(int(codes[0]))
        undecoded = (*row.state.undecoded, codes)
        row.accept(replace(row.state, guard=guard, made=made, undecoded=undecoded, unseen=True))
        if last:
            row.end()

    def _hear(self, row: Row, samples: Floats, codec: CodecState) -> None:
        check_finite(samples)
        state = row.state
        guard = state.guard.heard(samples.reshape(len(state.undecoded), -1)) if state.guard else None
        # Whoever has heard all that there was needs the next audio as soon as at the beginning.
        chunks = 0 if row.job.starved else state.chunks + 1
        row.hear(samples, replace(state, codec=codec, guard=guard, undecoded=(), chunks=chunks))
        if guard is not None and guard.runaway and not row.finished:
            self._go_back(row, row.hold_back.before_what_is_held(row.state), guard.runaway)

    def _go_back(self, row: Row, state: RowState, reason: str) -> None:
        log.warning("a row runs away after %d frames: %s", row.state.made, reason)
        self._events.runaway()
        if row.go_back(state, reason):
            self._events.retried()


def _guard(row: Row) -> Guard | None:
    """A row's guard, which knows the text that has come so far."""
    guard, job = row.state.guard, row.job
    if (
        guard is None
        or job.text_tokens is None
        or (guard.tokens, guard.repeated) == (job.text_tokens, job.repeated_tokens)
    ):
        return guard
    return replace(guard, tokens=job.text_tokens, repeated=job.repeated_tokens)


def _ends_too_soon(row: Row, guard: Guard) -> bool:
    """Whether an end at this point leaves most of the text unsaid; a text that is not fed yet cannot have been said."""
    return guard.ends_too_soon or row.job.has_text_left
