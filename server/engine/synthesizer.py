"""Advances rows by one codec frame: talker's code, code predictor, codec decoder, talker's next step.

It knows graphs and rows. It does not know who waits, who reads, or when to run: scheduler and worker do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.engine.bundle import OpenBundle
from server.engine.job import Job
from server.engine.prefixes import PrefixCache
from server.engine.sampling import RowSampler
from server.graphs.code_predictor import DrawParameters
from server.graphs.codec_decoder import CodecState

Floats = NDArray[np.float32]

CHUNK_RAMP = (1, 2, 4, 8)
"""Frames decoded to audio at a time: few at first for an early start, then more, which costs less a frame."""


@dataclass(eq=False)
class Row:
    """One job under way in one talker slot."""

    job: Job
    slot: int
    length: int
    """Positions in the slot."""
    logits: Floats
    hidden: Floats
    sampler: RowSampler
    codec: CodecState
    frames: list[NDArray[np.int64]] = field(default_factory=list)
    """Frames made and not yet decoded, `[groups]` each."""
    chunks: int = 0
    finished: bool = False

    @property
    def chunk_size(self) -> int:
        """Frames that the next chunk of audio waits for."""
        return CHUNK_RAMP[min(self.chunks, len(CHUNK_RAMP) - 1)]


class Synthesizer:
    """The three graphs of a bundle at work on some rows.

    Args:
        bundle: whose talker has one slot a row.
    """

    def __init__(self, bundle: OpenBundle) -> None:
        self._manifest = bundle.manifest
        self._talker = bundle.talker
        self._prefixes = PrefixCache(bundle.talker)
        self._code_predictor = bundle.code_predictor
        self._codec_decoder = bundle.codec_decoder
        self._text_pad = bundle.prompts.pad

    def start(self, job: Job, slot: int) -> Row:
        """Prefill a job into a free slot."""
        logits, hidden = self._prefixes.prefill(slot, job.prompt)
        sampler = RowSampler(job.sampling, job.seed, self._manifest)
        return Row(job, slot, len(job.prompt), logits[0], hidden[0], sampler, self._codec_decoder.start())

    def frame(self, rows: Sequence[Row]) -> None:
        """Advance every row by one frame and hand over the audio that is due; ended rows are marked `finished`.

        Rows are independent: a row's codes do not depend on the others.
        """
        uniforms = [row.sampler.uniforms() for row in rows]
        drawn = [row.sampler.draw_code_0(row.logits, u[0]) for row, u in zip(rows, uniforms, strict=True)]
        for row, code_0 in zip(rows, drawn, strict=True):
            row.finished = code_0 is None
        speaking = [i for i, code_0 in enumerate(drawn) if code_0 is not None]
        embeddings: dict[int, Floats] = {}
        if speaking:
            codes_0 = np.array([drawn[i] for i in speaking], np.int64)
            hidden = np.stack([rows[i].hidden for i in speaking])
            rest = np.stack([uniforms[i][1:] for i in speaking])
            codes, embedding = self._code_predictor.run(
                hidden, codes_0, rest, self._parameters([rows[i].job for i in speaking])
            )
            for place, i in enumerate(speaking):
                rows[i].frames.append(np.concatenate((codes_0[place : place + 1], codes[place])))
                rows[i].job.frames += 1
                embeddings[i] = embedding[place] + self._text_pad
                rows[i].finished = rows[i].job.frames >= rows[i].job.max_frames or self._is_out_of_positions(rows[i])
        self._decode_due(rows)
        going_on = [i for i in speaking if not rows[i].finished]
        self._advance_talker([rows[i] for i in going_on], [embeddings[i] for i in going_on])

    def _is_out_of_positions(self, row: Row) -> bool:
        return row.length >= self._talker.sizes.max_positions

    def _parameters(self, jobs: Sequence[Job]) -> DrawParameters:
        codes = self._manifest.sizes.code_predictor.vocab_size
        sampling = [job.sampling for job in jobs]
        return DrawParameters(
            temperature=np.array([s.predictor_temperature or 1.0 for s in sampling], np.float32),
            top_k=np.array([min(s.predictor_top_k or codes, codes) for s in sampling], np.int64),
            top_p=np.array([s.predictor_top_p for s in sampling], np.float32),
        )

    def _decode_due(self, rows: Sequence[Row]) -> None:
        """Decode the rows whose chunk is full or last, those with equally many frames together."""
        due: dict[int, list[Row]] = {}
        for row in rows:
            if row.frames and (row.finished or len(row.frames) >= row.chunk_size):
                due.setdefault(len(row.frames), []).append(row)
        for count, group in due.items():
            codes = np.stack([np.stack(row.frames) for row in group])
            waveform, states = self._codec_decoder.decode(codes, [row.codec for row in group])
            for row, samples, state in zip(group, waveform, states, strict=True):
                row.codec, row.chunks = state, row.chunks + 1
                row.frames.clear()
                row.job.put(samples, count)

    def _advance_talker(self, rows: Sequence[Row], embeddings: Sequence[Floats]) -> None:
        """One talker step; rows in neighbouring slots share a call."""
        paired = sorted(zip(rows, embeddings, strict=True), key=lambda pair: pair[0].slot)
        start = 0
        for stop in range(1, len(paired) + 1):
            if stop < len(paired) and paired[stop][0].slot == paired[stop - 1][0].slot + 1:
                continue
            run = paired[start:stop]
            lengths = np.array([row.length for row, _ in run], np.int32)
            output = self._talker.decode(run[0][0].slot, np.stack([e for _, e in run]), lengths)
            for (row, _), logits, hidden in zip(run, output.logits, output.hidden, strict=True):
                row.logits, row.hidden, row.length = logits, hidden, row.length + 1
            start = stop
