"""The engine, frame by frame, over graphs that only note which positions they were given: prefills in slices under any
order of events.

The worker's loop is turned by hand here. In what order slices come is tested with the scheduler.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from numpy.typing import NDArray

from server.engine.bundle import OpenBundle
from server.engine.job import Job, JobError, Listener, Sampling
from server.engine.prompt import Prompt
from server.engine.scheduler import QueueFull
from server.engine.worker import Engine
from server.graphs.caches import Saved
from server.graphs.codec_decoder import CodecState
from server.graphs.frame_state import FrameState
from server.graphs.memory import HostMemory
from server.graphs.talker import TalkerOutput
from server.manifest import read_manifest
from tests.bundles import RANDOM_BUNDLE

Floats = NDArray[np.float32]

MANIFEST = read_manifest(RANDOM_BUNDLE)
SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
BUDGET = 256
"""Positions that all slices beside one frame have together, at most."""
PART = 64
"""Positions that a part of a recording counts as."""
MOST_POSITIONS = 2048
FRAME = -1.0
"""What stands in a slot where a frame has been fed."""
KEPT_JOBS = 4096
"""Numbers of the positions of a job are multiples of it and up."""
PREFIXES = {"by a speaker": 9, "by a long instruction": 300}
TEXTS = [1, 20, 120, 247, 600, 1500]
RECORDINGS = [0, 0, 8, 20]
"""Frames of the recording that a speech goes on from."""


class Idle(Exception):
    """The engine would sleep now."""


class NeverWaits(threading.Condition):
    def wait(self, timeout: float | None = None) -> bool:
        raise Idle


class Slots:
    """A talker that keeps the first number of each position, NaN where a slot holds nothing."""

    caches_copy_fast, idle_take_part = True, False

    def __init__(self, slots: int) -> None:
        sizes = MANIFEST.sizes
        self.sizes = sizes.talker.model_copy(update={"max_positions": MOST_POSITIONS})
        self.slots = slots
        self.state = FrameState(HostMemory(), sizes, slots)
        self.held = np.full((slots, MOST_POSITIONS), np.nan, np.float32)
        self.lengths = np.ones(slots, np.int64)
        self.output = TalkerOutput(
            np.zeros((1, sizes.talker.vocab_size), np.float32),
            np.zeros((1, sizes.talker.hidden_size), np.float32),
        )
        self.on_slice: Callable[[int, int], None] = lambda slot, positions: None

    def prefill(self, slot: int, inputs_embeds: Floats, past: int = 0) -> TalkerOutput:
        self.on_slice(slot, len(inputs_embeds))
        assert not np.isnan(self.held[slot, :past]).any(), "what comes before has not been prefilled"
        self.held[slot, past : past + len(inputs_embeds)] = inputs_embeds[:, 0]
        return self.output

    def advance(self, start: int, stop: int, longest: int) -> None:
        for slot in range(start, stop):
            self.held[slot, self.lengths[slot] - 1] = FRAME

    def save(self, slot: int, positions: int) -> Saved:
        return [self.held[slot, :positions].copy()]

    def restore(self, slot: int, saved: Saved) -> None:
        self.held[slot, : len(saved[0])] = saved[0]

    def swap(self, one: int, other: int, positions: int) -> None:
        self.held[[one, other], :positions] = self.held[[other, one], :positions]

    def release(self, held: Collection[int]) -> None:
        for slot in set(range(self.slots)) - set(held):
            self.held[slot] = np.nan


class Predictor:
    """Draws the same codes for ever, none of which ends a speech."""

    def __init__(self, slots: Slots, groups: int) -> None:
        self._slots, self._groups = slots, groups

    def run(self, start: int, controls: Floats) -> NDArray[np.int64]:
        self._slots.lengths[start : start + len(controls)] = controls[:, 0] + 1
        return np.full((len(controls), self._groups), 5, np.int64)


class Decoder:
    """Makes a sample a frame."""

    def __init__(self) -> None:
        self.on_call: Callable[[], None] = lambda: None

    def start(self) -> CodecState:
        return CodecState(0, ())

    def decode(self, codes: NDArray[np.int64], states: Sequence[CodecState]) -> tuple[Floats, list[CodecState]]:
        self.on_call()
        frames = codes.shape[1]
        after = [CodecState(state.position + frames, ()) for state in states]
        return np.zeros((len(codes), frames), np.float32), after


class TurnedByHand(Engine):
    """An engine whose thread does nothing: `turn` does what it would do."""

    def __init__(self, bundle: OpenBundle, *, max_queue: int) -> None:
        super().__init__(bundle, max_queue=max_queue)
        self._changed = NeverWaits()
        self.before_slices: Callable[[], None] = lambda: None
        self.before_frame: Callable[[], None] = lambda: None

    def _work(self) -> None:
        pass

    @property
    def alive(self) -> bool:
        return True

    def turn(self) -> bool:
        """One frame and the slices before it; False if there is nothing to do."""
        try:
            self._wait_for_work()
        except Idle:
            return False
        self.before_slices()
        self._prefill()
        self.before_frame()
        self._frame()
        return True


def engine_of(slots: int, max_queue: int) -> tuple[TurnedByHand, Slots, Decoder]:
    talker, decoder = Slots(slots), Decoder()
    bundle = SimpleNamespace(
        manifest=MANIFEST,
        provider="cpu",
        prompts=SimpleNamespace(pad=np.zeros(MANIFEST.sizes.talker.hidden_size, np.float32)),
        references=None,
        talker=talker,
        code_predictor=Predictor(talker, MANIFEST.sizes.code_predictor.num_code_groups),
        codec_decoder=decoder,
        overlaps_decoding=False,
    )
    return TurnedByHand(cast(OpenBundle, bundle), max_queue=max_queue), talker, decoder


def prompt_of(number: int, manner: str, text: int, recording: int) -> Prompt:
    """A prompt each position of which has a number of its own, but for the prefix of its manner."""
    prefix = PREFIXES[manner]
    positions = np.concatenate((-prefix * 10 - np.arange(prefix), number * KEPT_JOBS + np.arange(text)))
    spoken = np.full((recording, 16), recording, np.int64) if recording else None
    return Prompt(positions.astype(np.float32)[:, None], prefix, spoken=spoken)


class EngineMachine(RuleBasedStateMachine):
    """Drives an engine and looks into its slots."""

    @initialize(slots=st.integers(1, 5), max_queue=st.integers(1, 4))
    def begin(self, slots: int, max_queue: int) -> None:
        self.engine, self.talker, self.decoder = engine_of(slots, max_queue)
        self.talker.on_slice = self.note_slice
        self.decoder.on_call = self.note_part
        self.engine.before_slices, self.engine.before_frame = self.slices_begin, self.slices_end
        self.listener = Listener()
        self.jobs: list[Job] = []
        self.left: set[Job] = set()
        self.failed: set[Job] = set()
        self.tried: Counter[Job] = Counter()
        """How often a slice has failed."""
        self.positions: Counter[Job] = Counter()
        """Positions that each job was prefilled with, those of a prefix that was known left out."""
        self.gone: dict[Job, tuple[int, int]] = {}
        """Those who have left, and the positions and frames that they had when this frame's slices began, or when its
        frame did."""
        self.running: dict[Job, int] = {}
        """The rows of this frame, and the frames that they had before it."""
        self.spent = 0
        """Positions of the budget that have been used beside this frame."""
        self.during: list[Callable[[], None]] = []
        """What happens within the next slices, the last one first."""

    # What the graphs are made to do.

    def slices_begin(self) -> None:
        self.gone = {}
        self.note_gone()
        self.spent, self.rows, self.failures = 0, self.engine.running, self.tried.total()

    def note_gone(self) -> None:
        """Note what those have who have left, the latest too."""
        self.gone = {job: (self.positions[job], job.frames) for job in self.left} | self.gone

    def slices_end(self) -> None:
        assert self.spent <= BUDGET, "rows under way wait for more than one slice"
        if self.engine._scheduler.prefills:
            assert self.spent or self.engine.running > self.rows, "nothing was prefilled beside this frame"
        if self.tried.total() == self.failures:
            assert not self.engine._scheduler.can_admit(), "a job waits beside a free slot"
        self.note_gone()
        self.running = {row.job: row.job.frames for row in self.engine._scheduler.rows if not row.job.over}

    def note_part(self) -> None:
        """Of recordings before a frame, and of rows while it is made: the budget has been looked at by then."""
        self.spent += PART

    def note_slice(self, slot: int, positions: int) -> None:
        job = next(prefill.job for prefill in self.engine._scheduler.prefills if prefill.slot == slot)
        self.spent += positions
        if self.during:
            self.during.pop()()
        if job in self.failed:
            self.tried[job] += 1
            raise MemoryError
        self.positions[job] += positions

    # What callers do.

    @rule(
        manner=st.sampled_from(list(PREFIXES)),
        text=st.sampled_from(TEXTS),
        recording=st.sampled_from(RECORDINGS),
        frames=st.sampled_from([1, 3, 20]),
        of_the_book=st.booleans(),
        spare=st.booleans(),
    )
    def submit(self, manner: str, text: int, recording: int, frames: int, of_the_book: bool, spare: bool) -> None:
        number = len(self.jobs) + 1
        listener = {"listener": self.listener, "number": number} if of_the_book else {}
        prompt = prompt_of(number, manner, text, recording)
        job = Job(prompt, SAMPLING, number, frames, spare=spare and of_the_book, **cast(Any, listener))
        try:
            self.engine.submit(job)
        except QueueFull:
            assert not job.spare
        else:
            self.jobs.append(job)

    def under_way(self) -> list[Job]:
        """The jobs that are not over; first, and so most often drawn, those that are being prefilled."""
        prefilled = [prefill.job for prefill in self.engine._scheduler.prefills if not prefill.job.over]
        return [*prefilled, *(job for job in self.jobs if not job.over and job not in prefilled)]

    def leaves(self, job: Job) -> None:
        if not job.over:
            self.left.add(job)
        job.cancel()

    @precondition(lambda self: self.under_way())
    @rule(data=st.data(), now=st.booleans(), what=st.sampled_from(["leaves", "is promoted", "fails"]))
    def something_happens(self, data: st.DataObject, now: bool, what: str) -> None:
        """To any job, between two frames or within the next slice, whether that is its own or not."""
        job = data.draw(st.sampled_from(self.under_way()))
        if what == "fails":
            if self.positions[job] < len(job.prompt) - job.prompt.prefix:
                self.failed.add(job)
            return
        happens = job.promote if what == "is promoted" else lambda: self.leaves(job)
        if now:
            happens()
        else:
            self.during.insert(0, happens)

    # What the engine does.

    @rule(
        texts=st.lists(st.sampled_from(TEXTS), min_size=2, max_size=6),
        manner=st.sampled_from(list(PREFIXES)),
        at_once=st.booleans(),
    )
    def many_come(self, texts: list[int], manner: str, at_once: bool) -> None:
        """At once, or one a frame while others are under way."""
        for text in texts:
            self.submit(manner=manner, text=text, recording=0, frames=1, of_the_book=False, spare=False)
            if not at_once:
                self.turns()
        self.turns()

    @rule(frames=st.sampled_from([1, 1, 2]))
    def turn(self, frames: int) -> None:
        for _ in range(frames):
            self.turns()

    def turns(self) -> bool:
        goes_on, scheduler = self.engine.turn(), self.engine._scheduler
        for job, made in self.gone.items():
            assert made == (self.positions[job], job.frames), "something is made that nobody hears"
        assert all(job.frames == made + 1 for job, made in self.running.items()), "a row stands still beside slices"
        self.running = {}
        for prefill in scheduler.prefills:
            assert prefill.job.error is None, "a job that has failed keeps its slot"
            self.holds(prefill.slot, prefill.job, prefill.length, 0)
        for row in scheduler.rows:
            prompt = row.job.prompt
            assert self.positions[row.job] in {len(prompt), len(prompt) - prompt.prefix}, "some position came twice"
            self.holds(row.slot, row.job, len(prompt), row.state.length - len(prompt))
        for slot in set(range(self.talker.slots)) - scheduler.held_slots():
            assert np.isnan(self.talker.held[slot]).all(), "a slot that nobody has keeps its memory"
        return goes_on

    def holds(self, slot: int, job: Job, positions: int, frames: int) -> None:
        """A slot holds so many positions of a prompt, each once and in order, and so many frames behind them."""
        held = self.talker.held[slot]
        np.testing.assert_array_equal(held[:positions], job.prompt.embeddings[:positions, 0])
        assert (held[positions : positions + frames] == FRAME).all()

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for job in self.jobs:
            job.promote()
        frames = 0
        while self.turns():
            frames += 1
            assert frames < 100 * (len(self.jobs) + 1), "some job never ends"
        assert self.engine.running == self.engine.waiting == 0
        for job in self.jobs:
            self.ended_as_it_must(job)

    def ended_as_it_must(self, job: Job) -> None:
        assert job.over
        if job in self.left:
            return
        if job in self.failed and job.error is not None:
            assert isinstance(job.error, JobError)
            assert (self.tried[job], job.frames) == (1, 0)
            return
        assert job.error is None, "it failed with another one"
        assert job.frames == job.max_frames


EngineMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestEngine = EngineMachine.TestCase


def test_a_prefill_that_fails_gives_its_memory_back() -> None:
    """Also where no job is left whose end would do so."""
    engine, talker, _ = engine_of(slots=2, max_queue=1)
    job = Job(prompt_of(1, "by a speaker", 700, 0), SAMPLING, 1, 1)
    engine.submit(job)
    for _ in range(2):  # its prefix, and a slice
        assert engine.turn()
    assert not np.isnan(talker.held[0, : 9 + BUDGET]).any()

    def fails(slot: int, positions: int) -> None:
        raise MemoryError

    talker.on_slice = fails
    assert engine.turn()
    assert isinstance(job.error, JobError)
    assert np.isnan(talker.held).all()
    assert not engine.turn()
