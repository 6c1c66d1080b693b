"""An engine that needs no model, and bundles for it: what the HTTP tests run against.

The text, or how it ends, says what the engine does: `fail-at-start`, `die` (the engine ends). A whole text may be
`hang` (nothing after the first frame), `fail-later` (after three frames), `not-a-number` or `UNFIT` (a PromptError,
also for each part of it); any other makes `max_frames` frames of a tone. What happened to each job goes to a file of
JSON lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.audio.joins import Joiner
from server.engine.job import Job
from server.engine.live import Grown
from server.engine.manner import PromptError, check_reference
from server.engine.prompt import Prompt
from server.engine.reference import Reference
from server.engine.scheduler import QueueFull
from server.graphs.checking import verify_files
from server.manifest import (
    CLONING_GRAPHS,
    FORMAT_VERSION,
    GRAPHS,
    TABLES,
    TOKENIZER,
    Manifest,
    TokenIds,
    read_manifest,
)
from server.metrics import EngineEvents, NoEvents

SAMPLE_RATE = 24_000
FRAME = 1920
HIDDEN = 4
GROUPS = 16
UNFIT = "\u01bf\u01bf"
"""A text that does not fit, of a letter that no other text has: what is cut of it is known to be of it."""
EVENTS = "FAKE_EVENTS"
"""Environment variable: file that gets a JSON line for each thing that happens to a job."""
GATE = "FAKE_GATE"
"""Environment variable: file without which loading does not end."""
FRAME_SECONDS = "FAKE_FRAME_SECONDS"
"""Environment variable: how long one frame takes."""


ENCODING_GATE = "FAKE_ENCODING_GATE"
"""Environment variable: file without which encoding a recording of the text `slow` does not end."""


def seen(reference: Reference) -> dict[str, Any]:
    """What the events tell of a cloned voice."""
    frames = None if reference.codes is None else len(reference.codes)
    return {
        "speaker": [round(float(value), 4) for value in reference.speaker],
        "frames": frames,
        "text": reference.text,
    }


def tone(frame: int) -> NDArray[np.float32]:
    """The samples of one frame: 440 Hz, continuing from the frame before."""
    seconds = (np.arange(FRAME) + frame * FRAME) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)


def speech(frames: int) -> NDArray[np.float32]:
    """The samples of so many frames that a budget has ended: they fade out at their end."""
    return cut_off(np.concatenate([tone(frame) for frame in range(frames)]))


def cut_off(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples of a part of speech, with the end that they have where a budget has ended it."""
    joiner = Joiner(SAMPLE_RATE)
    return np.concatenate((joiner.feed(samples, last=True), joiner.end(None, cut_off=True)))


class FakeLiveText:
    """Obeys the contract of `server.engine.live.LiveText`: a position a character, of which one is in the prompt."""

    prompt_positions = 1

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note
        self._begun = False
        self._tokens = 0

    def feed(self, text: str) -> Grown:
        if UNFIT in text:
            raise PromptError("the text is too long for this model")
        self._note("fed", text=text)
        self._tokens += len(text)
        sides = list(np.full((len(text), HIDDEN), 0, np.float32))
        for side, letter in zip(sides, text, strict=True):
            side[0] = ord(letter)
        if self._begun or not text:
            return Grown(None, sides, self._tokens)
        self._begun = True
        return Grown(Prompt(sides[0][None], prefix=0), sides[1:], self._tokens)

    def end(self) -> Grown:
        return Grown(None, [np.zeros(HIDDEN, np.float32)] if self._begun else [], self._tokens)


def said_by(job: Job) -> str:
    """What is there of a job's text by now."""
    letters = (*job.prompt.embeddings[:, 0].tolist(), *(side[0] for side in job.following))
    return "".join(chr(int(letter)) for letter in letters).rstrip("\0 ")


class FakeEngine:
    """Obeys the contract of `server.engine.worker.Engine`, for one job at a time."""

    provider = "cpu"
    rows = 1

    def __init__(self, manifest: Manifest, max_queue: int, events: EngineEvents) -> None:
        self.manifest = manifest
        self.max_frames = manifest.sizes.talker.max_positions
        self.frames_made = 0
        self._events = events
        self._max_queue = max_queue
        self._frame_seconds = float(os.environ.get(FRAME_SECONDS, "0"))
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @classmethod
    def load(cls, folder: Path, events: EngineEvents | None = None, *, max_queue: int = 16) -> FakeEngine:
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        gate = os.environ.get(GATE)
        while gate and not Path(gate).exists():
            time.sleep(0.01)
        return cls(manifest, max_queue, events or NoEvents())

    def prompt(
        self,
        text: str,
        *,
        speaker: str | None,
        language: str,
        instruction: str | None,
        layout: str | None,
        reference: Reference | None = None,
    ) -> Prompt:
        """One position per character of the text, holding its code point."""
        check_reference(self.manifest, speaker, reference)
        if text and text in UNFIT:
            raise PromptError("the text is too long for this model")
        cloned = {} if reference is None else {"cloned": seen(reference)}
        self._note("prompt", speaker=speaker, language=language, instruction=instruction, layout=layout, **cloned)
        embeddings = np.zeros((len(text), HIDDEN), np.float32)
        embeddings[:, 0] = [ord(letter) for letter in text]
        return Prompt(embeddings, prefix=0)

    def live_text(
        self, *, speaker: str | None, language: str, instruction: str | None, reference: Reference | None = None
    ) -> FakeLiveText:
        check_reference(self.manifest, speaker, reference)
        cloned = {} if reference is None else {"cloned": seen(reference)}
        self._note("live_text", speaker=speaker, language=language, instruction=instruction, **cloned)
        return FakeLiveText(self._note)

    def encode_reference(self, samples: NDArray[np.float32], text: str | None) -> Reference:
        """The loudness of each quarter, and a frame of codes for each frame of samples."""
        self._note("encoding", samples=len(samples), text=text)
        if text == "refused":
            raise PromptError("the recording is refused")
        if text == "fail-to-encode":
            raise RuntimeError("the graph /secret/place/codec_encoder.onnx failed")
        gate = os.environ.get(ENCODING_GATE)
        while gate and text == "slow" and not Path(gate).exists():
            time.sleep(0.01)
        speaker = np.array([np.abs(part).mean() for part in np.array_split(samples, HIDDEN)], np.float32)
        codes = np.full((-(-len(samples) // FRAME), GROUPS), len(samples) % 2048) if text is not None else None
        self._note("encoded", samples=len(samples), text=text)
        return Reference(speaker, codes, text)

    def count_tokens(self, text: str) -> int:
        """One a word."""
        return len(text.split())

    def submit(self, job: Job) -> None:
        with self._changed:
            ordinary = sum(not waiting.spare for waiting in self._waiting)
            if not job.spare and ordinary + (self._running is not None) >= 1 + self._max_queue:
                raise QueueFull("full")
            job.on_consumer = self._wake
            job.submitted = time.perf_counter()
            self._waiting.append(job)
            names = ("seed", "max_frames", "text_tokens", "spare", "capacity", "speed")
            told = {name: getattr(job, name) for name in names}
            self._note("submitted", **told, sampling=vars(job.sampling))
            self._changed.notify_all()

    def before_frame(self) -> None:
        """Is called before each frame is made."""

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @property
    def running(self) -> int:
        return int(self._running is not None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    def close(self) -> None:
        self._closed = True
        self._wake()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: any(job.ready for job in self._waiting) or self._closed)
                if self._closed:
                    for job in self._waiting:
                        job.finish(RuntimeError("the engine was closed"))
                    return
                job = self._running = next(job for job in self._waiting if job.ready)
                self._waiting.remove(job)
            job.queue_seconds = time.perf_counter() - job.submitted
            self._events.queued(job.queue_seconds)
            self._events.prefilled(0.0)
            self._speak(job)
            if said_by(job) == "die":
                return

    def _speak(self, job: Job) -> None:
        while job.frames < job.max_frames and not self._closed:
            text = said_by(job)
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        not (job.full or job.starved or (said_by(job) == "hang" and job.frames == 1))
                        or job.over
                        or self._closed
                    )
                )
            if job.cancelled:
                self._events.cancelled()
                self._note("dropped", seed=job.seed, frames=job.frames)
                return
            if text.endswith(("fail-at-start", "die")) or (text == "fail-later" and job.frames == 3):
                self._note("failed", seed=job.seed)
                self._closed = text == "die"
                job.finish(RuntimeError("the graph /secret/place/talker.onnx failed"))
                return
            time.sleep(self._frame_seconds)
            self.before_frame()
            pcm = tone(job.frames)
            job.frames += 1
            self.frames_made += 1
            self._events.frame_made(self._frame_seconds, 1)
            job.put(pcm * np.float32("nan") if text == "not-a-number" else pcm, 1)
        job.finish(RuntimeError("the engine was closed") if self._closed else None)
        self._note("finished", seed=job.seed, frames=job.frames)

    def _note(self, event: str, **fields: Any) -> None:
        if path := os.environ.get(EVENTS):
            with Path(path).open("a") as stream:
                stream.write(json.dumps({"event": event, **fields}) + "\n")


SPEAKERS = ("serena", "vivian", "uncle_fu", "ryan", "aiden", "ono_anna", "sohee", "eric", "dylan")
LANGUAGES = ("chinese", "english", "german", "beijing_dialect")


def manifest_of(name: str, **changes: Any) -> dict[str, Any]:
    """A whole manifest as JSON would have it, with some top-level fields changed."""
    manifest: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "id": name,
        "description": f"{name}, for tests: a tone instead of speech",
        "source": {"model": "tests/fake", "revision": None},
        "model_type": "custom_voice",
        "model_size": "0b6",
        "follows_instructions": False,
        "precision": "fp32",
        "sizes": {
            "talker": {
                "hidden_size": HIDDEN,
                "num_layers": 1,
                "num_heads": 1,
                "num_kv_heads": 1,
                "head_dim": 4,
                "vocab_size": 3072,
                "max_positions": 4600,
            },
            "code_predictor": {"hidden_size": HIDDEN, "num_layers": 1, "vocab_size": 2048, "num_code_groups": 16},
            "codec": {
                "num_quantizers": 16,
                "codebook_size": 2048,
                "sample_rate": SAMPLE_RATE,
                "samples_per_frame": FRAME,
            },
        },
        "ids": dict.fromkeys(TokenIds.model_fields, 1),
        "speakers": {speaker: {"id": number, "dialect": None} for number, speaker in enumerate(SPEAKERS)},
        "languages": {language: number for number, language in enumerate(LANGUAGES)},
        "generation": {"max_new_tokens": 2048},
        "graphs": {
            graph: {"file": f"{graph}.onnx", "precision": "fp32", "inputs": [], "outputs": []} for graph in GRAPHS
        },
        "files": {},
        "parity": {},
        "tools": {},
    }
    if changes.get("model_type") == "base":
        graph = {"precision": "fp32", "inputs": [], "outputs": []}
        manifest["graphs"] |= {name: {"file": f"{name}.onnx", **graph} for name in CLONING_GRAPHS}
        manifest["speakers"] = {}
    return {**manifest, **changes}


def write_bundle(models: Path, name: str, **changes: Any) -> Path:
    """A bundle whose files its manifest vouches for; of these only `talker.onnx` has more than a byte."""
    folder = models / name
    folder.mkdir(parents=True)
    graphs, tables = GRAPHS, TABLES[:2]
    if changes.get("model_type") == "base":
        graphs, tables = (*GRAPHS, *CLONING_GRAPHS), TABLES
    contents = dict.fromkeys([TOKENIZER, *tables, *(f"{graph}.onnx" for graph in graphs)], b"\x07")
    contents["talker.onnx"] *= 1000
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    files = {
        file: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for file, content in contents.items()
    }
    manifest = manifest_of(name, **{"files": files, **changes})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_one_of_each_type(models: Path) -> None:
    """Bundles of the three types, whose speech is short: `a_base`, `custom` and `design`."""
    write_bundle(models, "a_base", model_type="base", speakers={}, generation={"max_new_tokens": 10})
    write_bundle(models, "custom", generation={"max_new_tokens": 10})
    write_bundle(
        models,
        "design",
        model_type="voice_design",
        speakers={},
        follows_instructions=True,
        generation={"max_new_tokens": 25},
    )
