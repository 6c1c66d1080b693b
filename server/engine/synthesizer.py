"""Advances rows by one codec frame: talker's code, code predictor, codec decoder, talker's next step.

It knows graphs and rows. It does not know who waits, who reads, or when to run: scheduler and worker do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from server.engine.bundle import OpenBundle
from server.engine.frames import Frames, check_finite
from server.engine.guard import Guard
from server.engine.holdback import RowState
from server.engine.job import Job
from server.engine.judge import Decoded, Judge
from server.engine.prefill import PART_POSITIONS, Prefill
from server.engine.prefixes import PrefixCache
from server.engine.primed import PrimedStates
from server.engine.rows import Row, batched_or_one_by_one
from server.engine.sampling import RowSampler
from server.graphs.frame_state import RowOutput
from server.metrics import EngineEvents, NoEvents

CHUNK_RAMP = (1, 2, 4, 8)
"""Frames decoded to audio at a time: few at first for an early start, then more, which costs less a frame."""


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
        self._judge = Judge(self._frames, bundle.talker.sizes.max_positions, events or NoEvents())
        self._codec_decoder = bundle.codec_decoder
        self._primed = PrimedStates(bundle.codec_decoder)
        self._decoder_thread = ThreadPoolExecutor(1, "codec-decoder") if bundle.overlaps_decoding else None

    def start(self, job: Job, slot: int) -> Row:
        """Prefill a job into a free slot, all of it at once."""
        prefill, row = Prefill(job, slot), None
        while row is None:
            row = self.prefill(prefill)
        return row

    def positions(self, prefill: Prefill) -> int:
        """How many positions the next slice of a prefill has, or counts as."""
        return self._prefixes.positions(prefill) if prefill.remaining else PART_POSITIONS

    def prefill(self, prefill: Prefill) -> Row | None:
        """Prefill the next slice, or, behind the last one, decode the next part of the recording; the row, once that is
        all."""
        job, primed = prefill.job, self._primed
        if prefill.remaining:
            prefill.output = self._prefixes.advance(prefill)
        elif job.prompt.spoken is not None:
            primed.advance(job.prompt.spoken)
        codec = primed.state(job.prompt.spoken)
        if prefill.remaining or codec is None or prefill.output is None:
            return None
        logits, hidden = prefill.output
        check_finite(logits, hidden)
        groups = self._manifest.sizes.code_predictor.num_code_groups
        guard = None if job.text_tokens is None else Guard.of(job.text_tokens, groups, job.repeated_tokens)
        state = RowState(len(job.prompt), RowOutput(logits[0], hidden[0]), codec, guard)
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
        is exact for fp32 weights; ONNX Runtime's kernels for 8 and 4 bits in blocks of 128 round otherwise for one row
        than for several, which can be enough to draw another code.

        Args:
            rows: in neighbouring slots, in any order.
        """
        check_neighbours(rows)
        drawn = self._frames.draw(rows)
        self._judge.codes(drawn)
        if self._decoder_thread is None:
            self._judge.audio(self._decode(due(rows)))
            self._frames.advance(going_on(rows))
        else:
            decoding = self._decoder_thread.submit(self._decode, due(rows))
            self._frames.advance(going_on(rows))
            self._judge.audio(decoding.result())

    def _decode(self, groups: Sequence[Sequence[Row]]) -> list[tuple[Row, Decoded]]:
        """The audio of all undecoded frames; the rows of a group have equally many."""
        return [pair for group in groups for pair in batched_or_one_by_one(group, self._decode_group)]

    def _decode_group(self, rows: Sequence[Row]) -> Sequence[Decoded]:
        codes = np.stack([np.stack(row.state.undecoded) for row in rows])
        waveform, after = self._codec_decoder.decode(codes, [row.state.codec for row in rows])
        return list(zip(waveform, after, strict=True))


def check_neighbours(rows: Sequence[Row]) -> None:
    """See that no slot between the rows' is left out.

    Raises:
        ValueError: one is, and the row in it would be written to.
    """
    slots = sorted(row.slot for row in rows)
    if slots != list(range(slots[0], slots[0] + len(slots))):
        raise ValueError(f"slots {slots} are no neighbours: a row between them would be written to")


def due(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows whose chunk is full or last, those with equally many frames together.

    A row that waits for text hands over what it has: nobody knows for how long it waits.
    """
    groups: dict[int, list[Row]] = {}
    for row in rows:
        count, chunk = len(row.state.undecoded), CHUNK_RAMP[min(row.state.chunks, len(CHUNK_RAMP) - 1)]
        if count and not row.error and (row.finished or row.job.starved or count >= chunk):
            groups.setdefault(count, []).append(row)
    return list(groups.values())


def going_on(rows: Sequence[Row]) -> list[Row]:
    """The rows with a frame that the talker has yet to see."""
    return [row for row in rows if row.state.unseen and not row.finished]
