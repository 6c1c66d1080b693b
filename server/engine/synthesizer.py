"""Advances rows by one codec frame: talker's code, code predictor, codec decoder, talker's next step.

It knows graphs and rows. It does not know who waits, who reads, or when to run: scheduler and worker do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakSet

import numpy as np

from server.engine.bundle import OpenBundle
from server.engine.frames import Frames, check_finite
from server.engine.guard import Guard
from server.engine.holdback import RowState
from server.engine.job import Job
from server.engine.judge import Decoded, Judge
from server.engine.prefill import PART_POSITIONS, SLICE_POSITIONS, Prefill
from server.engine.prefixes import PrefixCache
from server.engine.primed import PrimedStates
from server.engine.rows import Row, batched_or_one_by_one
from server.engine.sampling import RowSampler
from server.graphs.frame_state import RowOutput
from server.graphs.talker import TalkerOutput
from server.metrics import EngineEvents, NoEvents

CHUNK_RAMP = (1, 2, 4, 8)
"""Frames decoded to audio at a time: few at first for an early start, then more, which costs less a frame."""
TOGETHER_POSITIONS = 8192
"""Positions that are prefilled in one run on a GPU, padding included: activations of a GB in the 1.7B."""
MOST_SPREAD = 2
"""Rows on a GPU are brought together where they take up more than so many times the slots that they need: a move goes
through the host and takes as long as a frame."""

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
        self._judge = Judge(self._frames, bundle.talker.sizes.max_positions, events or NoEvents())
        self._code_predictor, self._codec_decoder = bundle.code_predictor, bundle.codec_decoder
        self._primed = PrimedStates(bundle.codec_decoder)
        self._alone: WeakSet[Prefill] = WeakSet()
        """What could not be prefilled together."""
        self._decoder_thread = ThreadPoolExecutor(1, "codec-decoder") if bundle.overlaps_decoding else None

    def warm_up(self) -> None:
        """Have a GPU record what frames of any number of rows are made of, while no slot is in use.

        To be called by the thread that will make the frames: recordings belong to a thread.
        """
        if not self._talker.idle_take_part:
            return
        state, slots = self._talker.state, self._talker.slots
        for first, stop in sorted({state.window(slot, slot + 1) for slot in range(slots)}):
            self._code_predictor.run(first, state.idle(first, stop))
            self._talker.advance(first, stop, 1)
            for frames in CHUNK_RAMP:
                self._beside(self._decode_silence, stop - first, frames)

    def _beside(self, work: Callable[..., object], *arguments: object) -> None:
        """Do what needs the codec decoder on its own thread, where there is one, and wait for it."""
        if self._decoder_thread is None:
            work(*arguments)
        else:
            self._decoder_thread.submit(work, *arguments).result()

    def _decode_silence(self, rows: int, frames: int) -> None:
        codes = np.zeros((rows, frames, self._manifest.sizes.codec.num_quantizers), np.int64)
        self._codec_decoder.decode(codes, [self._codec_decoder.start()] * rows)

    def start(self, job: Job, slot: int) -> Row:
        """Prefill a job into a free slot, all of it at once."""
        prefill, row = Prefill(job, slot), None
        while row is None:
            row = self.prefill(prefill)
        return row

    def positions(self, prefill: Prefill) -> int:
        """How many positions the next slice of a prefill has, or counts as."""
        if prefill.remaining:
            return self._prefixes.positions(prefill)
        return 0 if prefill.job.prompt.spoken is None else PART_POSITIONS

    def prefill_together(self, prefills: Sequence[Prefill]) -> Sequence[Prefill]:
        """Prefill the prompts of some jobs in one run, on a GPU, where that takes the time of one.

        What is left is for `prefill` to do: longer prompts, all but one group of neighbours, and that too if it fails.

        Args:
            prefills: the one that has waited longest comes first.

        Returns:
            Those whose prompts were prefilled.
        """
        if not self._talker.idle_take_part:
            return ()
        short = [prefill for prefill in prefills if _is_short(prefill) and prefill not in self._alone]
        group = next((group for group in neighbours(short) if short[0] in group), [])
        if len(group) < 2:
            return ()
        try:
            output = self._talker.prefill_together(group[0].slot, [each.job.prompt.embeddings for each in group])
        except Exception as error:
            log.warning("prompts are prefilled one by one, since together they fail: %s", error)
            self._alone.update(group)
            return ()
        for prefill, logits, hidden in zip(group, *output, strict=True):
            prefill.length, prefill.output = len(prefill.job.prompt), TalkerOutput(logits[None], hidden[None])
        return group

    def prefill(self, prefill: Prefill) -> Row | None:
        """Prefill the next slice, or, behind the last one, decode the next part of the recording; the row, once that is
        all."""
        job, primed = prefill.job, self._primed
        if prefill.remaining:
            prefill.output = self._prefixes.advance(prefill)
        elif job.prompt.spoken is not None:
            self._beside(primed.advance, job.prompt.spoken)
        codec = primed.state(job.prompt.spoken)
        if prefill.remaining or codec is None or prefill.output is None:
            return None
        logits, hidden = prefill.output
        check_finite(logits, hidden)
        groups = self._manifest.sizes.code_predictor.num_code_groups
        guard = None if job.text_tokens is None else Guard.of(job.text_tokens, groups, job.repeated_tokens)
        state = RowState(len(job.prompt), RowOutput(logits[0], hidden[0]), codec, guard)
        return Row(job, prefill.slot, state, RowSampler(job.sampling, job.seed, self._manifest))

    @property
    def idle_take_part(self) -> bool:
        """Whether rows may lie anywhere, as slots between them take part in frames; those in front are best then."""
        return self._talker.idle_take_part

    def spread(self, rows: Sequence[Row]) -> bool:
        """Whether rows that may lie anywhere take up many more slots than they need."""
        state, last = self._talker.state, max(row.slot for row in rows)
        (_, taken), (_, needed) = state.window(0, last + 1), state.window(0, len(rows))
        return taken > MOST_SPREAD * needed

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
            rows: in any order; where the bundle is on the CPU, in neighbouring slots.
        """
        if not self._talker.idle_take_part:
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


def neighbours(prefills: Sequence[Prefill]) -> Iterator[list[Prefill]]:
    """Groups of prefills in neighbouring slots, of no more than `TOGETHER_POSITIONS` padded positions."""
    group: list[Prefill] = []
    for prefill in sorted(prefills, key=lambda each: each.slot):
        longest = max(len(each.job.prompt) for each in (*group, prefill))
        if group and (group[-1].slot + 1 != prefill.slot or (len(group) + 1) * longest > TOGETHER_POSITIONS):
            yield group
            group = []
        group.append(prefill)
    if group:
        yield group


def _is_short(prefill: Prefill) -> bool:
    return not prefill.length and prefill.remaining <= SLICE_POSITIONS


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
