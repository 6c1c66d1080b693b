"""Advances rows by one codec frame: talker's code, code predictor, codec decoder, talker's next step.

It knows graphs and rows. It does not know who waits, who reads, or when to run: scheduler and worker do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.engine.bundle import OpenBundle
from server.engine.events import EngineEvents, NoEvents
from server.engine.guard import Guard
from server.engine.job import Job
from server.engine.prefixes import PrefixCache
from server.engine.rows import Row, RowState, failing, for_each
from server.engine.sampling import RowSampler
from server.graphs.code_predictor import DrawParameters
from server.graphs.codec_decoder import CodecState

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

CHUNK_RAMP = (1, 2, 4, 8)
"""Frames decoded to audio at a time: few at first for an early start, then more, which costs less a frame."""

log = logging.getLogger(__name__)


class Draw(NamedTuple):
    """A frame's code 0, and the uniforms `[groups - 1]` that draw the others."""

    code_0: int
    uniforms: Floats


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
        self._code_predictor = bundle.code_predictor
        self._codec_decoder = bundle.codec_decoder
        self._text_pad = bundle.prompts.pad
        self._events = events or NoEvents()

    def start(self, job: Job, slot: int) -> Row:
        """Prefill a job into a free slot."""
        logits, hidden = self._prefixes.prefill(slot, job.prompt)
        _check_finite(logits, hidden)
        groups = self._manifest.sizes.code_predictor.num_code_groups
        guard = None if job.text_tokens is None else Guard.of(job.text_tokens, groups)
        state = RowState(len(job.prompt), logits[0], hidden[0], self._codec_decoder.start(), guard)
        return Row(job, slot, state, RowSampler(job.sampling, job.seed, self._manifest))

    def move(self, row: Row, slot: int, other: Row | None) -> None:
        """Put a row into another slot, whose row, if it has one, goes to the first one's."""
        positions = max(row.state.length, other.state.length if other else 0)
        self._talker.swap(row.slot, slot, positions)
        if other:
            other.slot = row.slot
        row.slot = slot

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
        drawn: dict[Row, Draw] = {}
        for row in rows:
            with failing(row):
                self._draw(row, drawn)
        for row, (codes, embedding) in for_each(list(drawn), lambda part: self._predict(part, drawn)):
            with failing(row):
                self._accept(row, codes, embedding)
        self._decode_due(rows)
        ahead = [row for row in rows if row.state.next_input is not None and not row.finished]
        for row, (logits, hidden) in for_each(ahead, lambda part: self._advance(part, rows)):
            with failing(row):
                _check_finite(logits, hidden)
                length = row.state.length + 1
                row.state = replace(row.state, length=length, logits=logits, hidden=hidden, next_input=None)

    def _draw(self, row: Row, drawn: dict[Row, Draw]) -> None:
        """Draw code 0 of the row's next frame, or end the row."""
        uniforms = row.sampler.uniforms()
        code_0 = row.sampler.draw_code_0(row.state.logits, uniforms[0])
        if code_0 is not None:
            drawn[row] = Draw(code_0, uniforms[1:])
        elif row.state.guard is not None and row.state.guard.ends_too_soon:
            self._go_back(row, "it ends too soon")
        else:
            row.end()

    def _predict(self, rows: Sequence[Row], drawn: dict[Row, Draw]) -> list[tuple[Codes, Floats]]:
        """The other codes: whole frames `[groups]` and their summed embeddings `[hidden_size]`."""
        hidden = np.stack([row.state.hidden for row in rows])
        codes_0 = np.array([drawn[row].code_0 for row in rows], np.int64)
        uniforms = np.stack([drawn[row].uniforms for row in rows])
        rest, embedding = self._code_predictor.run(hidden, codes_0, uniforms, self._parameters(rows))
        return list(zip(np.concatenate((codes_0[:, None], rest), axis=1), embedding, strict=True))

    def _parameters(self, rows: Sequence[Row]) -> DrawParameters:
        codes = self._manifest.sizes.code_predictor.vocab_size
        sampling = [row.job.sampling for row in rows]
        return DrawParameters(
            temperature=np.array([s.predictor_temperature or 1.0 for s in sampling], np.float32),
            top_k=np.array([min(s.predictor_top_k or codes, codes) for s in sampling], np.int64),
            top_p=np.array([s.predictor_top_p for s in sampling], np.float32),
        )

    def _accept(self, row: Row, codes: Codes, embedding: Floats) -> None:
        """Add a frame to the row, unless it shows that the row makes no speech."""
        state = row.state
        guard = state.guard.after(codes) if state.guard else None
        made = state.made + 1
        last = made >= row.job.max_frames or state.length >= self._talker.sizes.max_positions
        if guard is not None and (reason := "it does not end" if last else guard.runaway):
            self._go_back(row, reason)
            return
        row.sampler.accept(int(codes[0]))
        undecoded = (*state.undecoded, codes)
        row.accept(replace(state, guard=guard, made=made, undecoded=undecoded, next_input=embedding + self._text_pad))
        if last:
            row.end()

    def _go_back(self, row: Row, reason: str) -> None:
        log.warning("a row runs away after %d frames: %s", row.state.made, reason)
        self._events.runaway()
        if row.go_back(reason):
            self._events.retried()

    def _decode_due(self, rows: Sequence[Row]) -> None:
        """Decode the rows whose chunk is full or last, those with equally many frames together."""
        due: dict[int, list[Row]] = {}
        for row in rows:
            count, chunk = len(row.state.undecoded), CHUNK_RAMP[min(row.state.chunks, len(CHUNK_RAMP) - 1)]
            if count and not row.error and (row.finished or count >= chunk):
                due.setdefault(count, []).append(row)
        for group in due.values():
            for row, (samples, codec) in for_each(group, self._decode):
                with failing(row):
                    self._hear(row, samples, codec)

    def _decode(self, rows: Sequence[Row]) -> list[tuple[Floats, CodecState]]:
        codes = np.stack([np.stack(row.state.undecoded) for row in rows])
        waveform, after = self._codec_decoder.decode(codes, [row.state.codec for row in rows])
        return list(zip(waveform, after, strict=True))

    def _hear(self, row: Row, samples: Floats, codec: CodecState) -> None:
        """Hand audio over, unless it shows that the row makes no speech."""
        _check_finite(samples)
        state = row.state
        guard = state.guard.heard(samples.reshape(len(state.undecoded), -1)) if state.guard else None
        row.hear(samples, replace(state, codec=codec, guard=guard, undecoded=(), chunks=state.chunks + 1))
        if guard is not None and guard.runaway and not row.finished:
            self._go_back(row, guard.runaway)

    def _advance(self, ahead: Sequence[Row], rows: Sequence[Row]) -> list[tuple[Floats, Floats]]:
        """One talker step for the rows that go on.

        A row between them that does not (it has ended or was set back in this very frame) takes part all the same: one
        row more costs less than a second call, and what is written behind its last position counts for nothing.
        """
        first = min(row.slot for row in ahead)
        count = max(row.slot for row in ahead) + 1 - first
        inputs, lengths = np.zeros((count, len(self._text_pad)), np.float32), np.zeros(count, np.int32)
        for row in rows:
            if first <= row.slot < first + count and not row.finished:
                lengths[row.slot - first] = row.state.length
        for row in ahead:
            inputs[row.slot - first] = row.state.next_input
        output = self._talker.decode(first, inputs, lengths)
        return [(output.logits[row.slot - first], output.hidden[row.slot - first]) for row in ahead]


def _check_finite(*values: Floats) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise FloatingPointError("a graph gave numbers that are not finite")
