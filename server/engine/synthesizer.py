"""Advances rows by one codec frame: talker's code, code predictor, codec decoder, talker's next step.

It knows graphs and rows. It does not know who waits, who reads, or when to run: scheduler and worker do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from server.engine.bundle import OpenBundle
from server.engine.events import EngineEvents, NoEvents
from server.engine.frames import Codes, Frames, check_finite
from server.engine.guard import Guard
from server.engine.job import Job
from server.engine.prefill import Prefill
from server.engine.prefixes import PrefixCache
from server.engine.rows import Row, RowState, batched_or_one_by_one, ends_row_on_error
from server.engine.sampling import RowSampler
from server.graphs.codec_decoder import CodecState
from server.graphs.frame_state import RowOutput

Floats = NDArray[np.float32]
Decoded = tuple[Floats, CodecState]
"""Samples of a row, and the decoder's state after them."""

CHUNK_RAMP = (1, 2, 4, 8)
"""Frames decoded to audio at a time: few at first for an early start, then more, which costs less a frame."""

log = logging.getLogger(__name__)


class Synthesizer:
    """The three graphs of a bundle at work on some rows.

    Args:
        bundle: whose talker has one slot a row.
        events: hears of rows that run away.
    """

    def __init__(self, bundle: OpenBundle, events: EngineEvents | None = None) -> None:
        self._manifest = bundle.manifest
        self._talker = bundle.talker
        self._prefixes = PrefixCache(bundle.talker)
        self._frames = Frames(bundle.talker, bundle.code_predictor, bundle.manifest.sizes, bundle.prompts.pad)
        self._codec_decoder = bundle.codec_decoder
        self._beside = ThreadPoolExecutor(1, "codec-decoder") if bundle.decodes_beside else None
        self._events = events or NoEvents()

    def start(self, job: Job, slot: int) -> Row:
        """Prefill a job into a free slot, all of it at once."""
        prefill, row = Prefill(job, slot), None
        while row is None:
            row = self.prefill(prefill)
        return row

    def positions(self, prefill: Prefill) -> int:
        """How many positions the next slice of a prefill has."""
        return self._prefixes.positions(prefill)

    def prefill(self, prefill: Prefill) -> Row | None:
        """Prefill the next slice; the row, once that was the last."""
        logits, hidden = self._prefixes.advance(prefill)
        if prefill.remaining:
            return None
        check_finite(logits, hidden)
        job = prefill.job
        groups = self._manifest.sizes.code_predictor.num_code_groups
        guard = None if job.text_tokens is None else Guard.of(job.text_tokens, groups, job.repeated_tokens)
        state = RowState(len(job.prompt), RowOutput(logits[0], hidden[0]), self._codec_decoder.start(), guard)
        return Row(job, prefill.slot, state, RowSampler(job.sampling, job.seed, self._manifest))

    def move(self, row: Row, slot: int, other: Row | Prefill | None) -> None:
        """Put a row into another slot; what is there, if anything, goes to the row's."""
        self._frames.keep(row)
        held = 0
        if isinstance(other, Row):
            self._frames.keep(other)
            held = other.state.length
        elif other:
            held = other.length
        positions = max(row.state.length, held)
        self._talker.swap(row.slot, slot, positions)
        if other:
            other.slot = row.slot
        row.slot = slot

    def release(self, held: Collection[int]) -> None:
        """Give back memory that long rows have left in slots that are not `held` any more."""
        self._talker.release(held)

    def frame(self, rows: Sequence[Row]) -> None:
        """Advance every row by one frame and hand over the audio that is due; ended rows are marked `finished`.

        Rows are independent: an error in one of them ends that one, and a row's codes do not depend on the others. That
        is exact for fp32 and int4 weights; ONNX Runtime's int8 kernels round otherwise for one row than for several,
        which can be enough to draw another code.

        Args:
            rows: in neighbouring slots, in any order.
        """
        slots = sorted(row.slot for row in rows)
        if slots != list(range(slots[0], slots[0] + len(slots))):
            raise ValueError(f"slots {slots} are no neighbours: a row between them would be written to")
        for row, codes in self._frames.draw(rows):
            with ends_row_on_error(row):
                if codes is None:
                    self._end(row)
                else:
                    self._accept(row, codes)
        if self._beside is None:
            for group in self._due(rows):
                self._hear_all(group, self._decode)
            self._advance(rows)
        else:
            begun = [(group, self._beside.submit(self._decode, group)) for group in self._due(rows)]
            self._advance(rows)
            for group, decoded in begun:
                self._hear_all(group, partial(self._decoded, group, decoded))

    def _advance(self, rows: Sequence[Row]) -> None:
        ahead = [row for row in rows if row.state.unseen and not row.finished]
        self._frames.advance(ahead)

    def _end(self, row: Row) -> None:
        """The model has ended the row's speech."""
        if row.state.guard is not None and row.state.guard.ends_too_soon:
            self._frames.keep(row)
            # With the frames before it as they are the model often ends again: better begin anew, while nobody listens.
            go_back = row.start_anew if row.job.take_back() else row.go_back_further
            self._go_back(row, "it ends too soon", go_back)
        else:
            row.end()

    def _accept(self, row: Row, codes: Codes) -> None:
        """Add a frame to the row, unless it shows that the row makes no speech."""
        guard = row.state.guard.after(codes) if row.state.guard else None
        made = row.state.made + 1
        last = made >= row.job.max_frames or row.state.length >= self._talker.sizes.max_positions
        may_go_back = guard is not None and (
            last or guard.suspicious or guard.runaway or (guard.ends_too_soon and not row.state.undecoded)
        )
        if may_go_back:
            self._frames.keep(row)
        if guard is not None and (reason := "it does not end" if last else guard.runaway):
            self._go_back(row, reason)
            return
        row.sampler.accept(int(codes[0]))
        undecoded = (*row.state.undecoded, codes)
        row.accept(replace(row.state, guard=guard, made=made, undecoded=undecoded, unseen=True))
        if last:
            row.end()

    def _go_back(self, row: Row, reason: str, go_back: Callable[[str], bool] | None = None) -> None:
        log.warning("a row runs away after %d frames: %s", row.state.made, reason)
        self._events.runaway()
        if (go_back or row.go_back)(reason):
            self._events.retried()

    @staticmethod
    def _due(rows: Sequence[Row]) -> list[list[Row]]:
        """The rows whose chunk is full or last, those with equally many frames together."""
        due: dict[int, list[Row]] = {}
        for row in rows:
            count, chunk = len(row.state.undecoded), CHUNK_RAMP[min(row.state.chunks, len(CHUNK_RAMP) - 1)]
            if count and not row.error and (row.finished or count >= chunk):
                due.setdefault(count, []).append(row)
        return list(due.values())

    def _hear_all(self, group: Sequence[Row], decode: Callable[[Sequence[Row]], Sequence[Decoded]]) -> None:
        for row, (samples, codec) in batched_or_one_by_one(group, decode):
            with ends_row_on_error(row):
                self._hear(row, samples, codec)

    def _decoded(
        self, group: Sequence[Row], decoded: Future[Sequence[Decoded]], rows: Sequence[Row]
    ) -> Sequence[Decoded]:
        """What was decoded beside the talker; rows that are tried alone are decoded now."""
        return decoded.result() if len(rows) == len(group) else self._decode(rows)

    def _decode(self, rows: Sequence[Row]) -> Sequence[Decoded]:
        codes = np.stack([np.stack(row.state.undecoded) for row in rows])
        waveform, after = self._codec_decoder.decode(codes, [row.state.codec for row in rows])
        return list(zip(waveform, after, strict=True))

    def _hear(self, row: Row, samples: Floats, codec: CodecState) -> None:
        """Hand audio over, unless it shows that the row makes no speech."""
        check_finite(samples)
        state = row.state
        guard = state.guard.heard(samples.reshape(len(state.undecoded), -1)) if state.guard else None
        row.hear(samples, replace(state, codec=codec, guard=guard, undecoded=(), chunks=state.chunks + 1))
        if guard is not None and guard.runaway and not row.finished:
            self._go_back(row, guard.runaway)
