"""The engine: one bundle, one thread that makes speech, and the door through which jobs come in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.engine.bundle import OpenBundle
from server.engine.job import Job, JobError, TextLateError
from server.engine.live import LiveText
from server.engine.manner import NO_CLONING, CloneError
from server.engine.prefill import Prefill
from server.engine.prompt import Layout, Prompt
from server.engine.provider import fall_back, open_bundle
from server.engine.reference import Reference
from server.engine.rows import Row
from server.engine.scheduler import Move, Scheduler
from server.engine.synthesizer import Synthesizer
from server.graphs.garbage import collect_garbage
from server.graphs.session import Provider, cause_of
from server.metrics import EngineEvents, NoEvents

log = logging.getLogger(__name__)


class EngineStopped(RuntimeError):
    """The engine takes no more jobs."""


class Engine:
    """A loaded bundle at work.

    Args:
        bundle: with one talker slot a row.
        max_queue: jobs that may wait beyond the rows under way, spare ones not counted.
        max_frames: codec frames that a row may make; None is as many as it has positions for.
        events: hears of what the engine does.

    On a GPU it takes seconds to be made, see `Synthesizer.warm_up`, and raises whatever goes wrong there.
    """

    def __init__(
        self, bundle: OpenBundle, *, max_queue: int, max_frames: int | None = None, events: EngineEvents | None = None
    ) -> None:
        self.manifest = bundle.manifest
        self.max_frames = max_frames or bundle.manifest.sizes.talker.max_positions
        """The most codec frames of a row."""
        self.provider = bundle.provider
        self.frames_made = 0
        """Steps done so far, whatever their rows: a sign of life."""
        self.rows = bundle.talker.slots
        self._prompts = bundle.prompts
        self._references = bundle.references
        self._events = events or NoEvents()
        self._synthesizer = Synthesizer(bundle, self._events)
        codec = bundle.manifest.sizes.codec
        self._scheduler = Scheduler(bundle.talker.slots, max_queue, codec.samples_per_frame / codec.sample_rate)
        self._changed = threading.Condition()
        self._stopping = False
        self._starved: dict[Job, float] = {}
        """Since when jobs have waited for text, by `time.monotonic`."""
        self._thread = threading.Thread(target=self._run, name=f"engine-{bundle.manifest.id}", daemon=True)
        self._warm: Future[None] = Future()
        self._thread.start()
        self._warm.result()

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        provider: Provider,
        threads: int,
        max_rows: int,
        max_queue: int,
        max_prompt: int | None = None,
        max_frames: int | None = None,
        events: EngineEvents | None = None,
    ) -> Engine:
        """Open a bundle as `open_bundle` does, which says what is raised, and start its thread.

        Its manifest says how many positions a row may have: those of the longest prompt and of so many frames, where
        the model has as many.
        """
        positions = max_prompt + max_frames if max_prompt is not None and max_frames is not None else None
        bundle = open_bundle(
            folder, provider=provider, threads=threads, slots=max_rows, positions=positions, max_prompt=max_prompt
        )
        try:
            return cls(bundle, max_queue=max_queue, max_frames=max_frames, events=events)
        except Exception as error:  # CUDA's and ONNX Runtime's share no base class
            if bundle.provider == "cpu":
                raise
            fall_back(bundle.manifest, provider, cause_of(error))
        del bundle
        collect_garbage()  # the engine that failed and its error hold each other, and so the GPU's memory
        return cls.load(
            folder,
            provider="cpu",
            threads=threads,
            max_rows=max_rows,
            max_queue=max_queue,
            max_prompt=max_prompt,
            max_frames=max_frames,
            events=events,
        )

    @property
    def alive(self) -> bool:
        """Whether jobs are still worked on."""
        return self._thread.is_alive() and not self._stopping

    @property
    def running(self) -> int:
        """Rows under way."""
        return len(self._scheduler.rows)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a row."""
        return self._scheduler.waiting

    def encode_reference(self, samples: NDArray[np.float32], text: str | None) -> Reference:
        """Make a voice to speak with of a recording. It takes seconds, and is safe from any thread.

        The graphs for it are loaded, and let go afterwards, one call at a time.

        Args:
            samples: mono, 24 kHz, `[samples]`; half a second to a minute.
            text: what is said in it, for in-context learning; None makes a voice of the speaker embedding alone.

        Raises:
            CloneError: the model clones no voices, or the recording is too short or too long, or none.
            BundleError: a graph cannot be loaded.
            ShortageError: the host has too little free memory.
        """
        if self._references is None:
            raise CloneError(NO_CLONING.format(model=self.manifest.id))
        return self._references.encode(samples, text)

    def prompt(
        self,
        text: str,
        *,
        speaker: str | None,
        language: str,
        instruction: str | None,
        layout: Layout | None = None,
        reference: Reference | None = None,
    ) -> Prompt:
        """Talker inputs for a text; see `PromptBuilder.build`. Quick, and safe from any thread."""
        return self._prompts.build(
            text, speaker=speaker, language=language, instruction=instruction, layout=layout, reference=reference
        )

    def live_text(
        self, *, speaker: str | None, language: str, instruction: str | None, reference: Reference | None = None
    ) -> LiveText:
        """A text for a `LiveJob`, none of which has come yet; see `Manners.of` for the errors.

        The first one takes a second to be ready, of a large vocabulary; later ones are so at once.
        """
        return LiveText(self._prompts, speaker=speaker, language=language, instruction=instruction, reference=reference)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; as quick and safe."""
        return self._prompts.count_tokens(text)

    def submit(self, job: Job) -> None:
        """Queue a job; its audio and its end come out of the job itself.

        Raises:
            QueueFull: too many jobs wait.
            EngineStopped: the engine has been closed, or its thread has died.
        """
        with self._changed:
            if not self.alive:
                raise EngineStopped(f"the engine of {self.manifest.id} has stopped")
            job.submitted = time.perf_counter()
            self._scheduler.add(job)
            job.on_consumer = self._wake
            self._changed.notify()

    def close(self) -> None:
        """Stop after the frame under way; jobs that are not finished end with an error. Harmless when repeated."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._synthesizer.warm_up()
        except BaseException as error:
            self._stopping = True
            self._warm.set_exception(error)
        else:
            self._warm.set_result(None)
            self._work()

    def _work(self) -> None:
        reason = JobError("the server is shutting down")
        try:
            while self._wait_for_work():
                self._prefill()
                self._frame()
        except BaseException as error:
            reason = JobError("the engine has failed")
            log.exception("engine thread of %s has died", self.manifest.id)
            reason.__cause__ = error
        finally:
            with self._changed:
                self._stopping = True
                abandoned = self._scheduler.drop_all()
            for job in abandoned:
                job.finish(reason)

    def _wait_for_work(self) -> bool:
        """Sleep until some row can run or some job be admitted; False when the engine is to stop."""
        scheduler = self._scheduler
        with self._changed:
            while not self._stopping:
                patience = self._end_impatient()
                self._drop_over()
                scheduler.collect_promoted()
                if scheduler.runnable() or scheduler.prefills or scheduler.can_admit():
                    return True
                self._changed.wait(patience)
        return False

    def _end_impatient(self) -> float | None:
        """End the jobs whose text has not come for longer than they wait.

        Returns:
            Seconds until the next of them has waited for so long; None if no job waits for text.
        """
        now = time.monotonic()
        self._starved = {job: self._starved.get(job, now) for job in self._scheduler.starved()}
        late = [job for job, since in self._starved.items() if now - since >= job.patience]
        for job in late:
            del self._starved[job]
            job.finish(TextLateError(f"no text has come for {job.patience:g} s, so that the speech ends here"))
        return min((since + job.patience - now for job, since in self._starved.items()), default=None)

    def _drop_over(self) -> None:
        left = self._scheduler.drop_over()
        for job in left:
            if job.cancelled:
                self._events.cancelled()
        if left:
            self._synthesizer.release(self._scheduler.held_slots())

    def _admit(self) -> None:
        """Give waiting jobs the free slots."""
        with self._changed:
            self._drop_over()
            while admitted := self._scheduler.admit():
                job, now = admitted.job, time.perf_counter()
                job.start(now)
                self._events.queued(now - job.submitted)

    def _prefill(self) -> None:
        """Prefill the slices that the next frame has beside it."""
        self._admit()
        began = time.perf_counter()
        for prefill in self._synthesizer.prefill_together(self._scheduler.prefills):
            prefill.seconds = time.perf_counter() - began
        for prefill in self._scheduler.slices(self._synthesizer.positions):
            self._prefill_slice(prefill)

    def _prefill_slice(self, prefill: Prefill) -> None:
        began = time.perf_counter()
        try:
            row = self._synthesizer.prefill(prefill)
        except Exception as error:
            with self._changed:
                self._scheduler.release(prefill)
            self._synthesizer.release(self._scheduler.held_slots())
            _fail(prefill.job, error)
            return
        prefill.seconds += time.perf_counter() - began
        if row is not None:
            self._events.prefilled(prefill.seconds)
            with self._changed:
                self._scheduler.run(prefill, row)

    def _moves(self, rows: Sequence[Row]) -> Sequence[Move]:
        """What brings rows together, where they have to be; where they need not, the move that gains most, if any."""
        if not self._synthesizer.idle_take_part:
            return self._scheduler.moves(rows)
        if not self._synthesizer.spread(rows):
            return ()
        moves = self._scheduler.moves(rows, to_front=True)
        return sorted(moves, key=lambda move: move[0].slot)[-1:]  # a move takes as long as a frame

    def _frame(self) -> None:
        with self._changed:
            self._drop_over()
            rows = self._scheduler.runnable()
            moves = self._moves(rows) if rows else []
        if not rows:
            return
        began = time.perf_counter()
        for row, slot, other in moves:
            self._synthesizer.move(row, slot, other)
        self._synthesizer.frame(rows)
        self.frames_made += 1
        self._events.frame_made(time.perf_counter() - began, len(rows))
        ended, now = [row for row in rows if row.finished], time.perf_counter()
        with self._changed:
            for row in ended:
                self._scheduler.drop(row, now)
        if ended:
            self._synthesizer.release(self._scheduler.held_slots())
        for row in ended:
            if row.error is None:
                row.job.finish()
            else:
                _fail(row.job, row.error)


def _fail(job: Job, error: Exception) -> None:
    """End a job with an error that is one of ours."""
    if isinstance(error, JobError):
        job.finish(error)
        return
    log.error("speech could not be made", exc_info=error)
    failure = JobError("speech could not be made")
    failure.__cause__ = error
    job.finish(failure)
