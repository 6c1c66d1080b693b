"""Cloned voices of requests: which requests ask for one, whose recording it is, and what the engine makes of it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from server import log
from server.audio.recording import Recording, RecordingError, read_recording, text_notes, with_tail
from server.engine.manner import PromptError
from server.engine.reference import SAMPLE_RATE, Reference
from server.errors import BusyError, InvalidRequestError, SpeechFailedError
from server.manifest import Manifest
from server.models.catalogue import Bundle, Bundles
from server.models.names import HOW_TO_CLONE, means_default
from server.models.pool_entry import SpeechEngine
from server.models.threads import step_back
from server.speech.fetching import Sources, file_of
from server.speech.request import SpeechRequest
from server.voices.folder import VoiceFolder
from server.voices.saved import SavedVoice

KEPT_REFERENCES = 32
"""Encoded references that are kept for requests that bring the same recording again, such as the sentences of a
conversation; each takes some 60 KB."""
MOST_WAITING = 32
"""Recordings that are read or encoded, or wait for that; each may take 10 MB."""
READERS = 2
"""Recordings that are fetched and decoded side by side."""

T = TypeVar("T")


class Inline(NamedTuple):
    """A voice that a request brings along."""

    audio: str | None
    """Where its recording is; None where it brings the speaker embedding itself."""
    text: str | None
    """What is said in the recording; None makes a voice of the speaker embedding alone."""
    embedding: tuple[float, ...] | None
    tail: bool
    """Whether silence is put behind the recording."""


Cloned = Inline | SavedVoice


def asked_for(request: SpeechRequest, voices: VoiceFolder, bundles: Bundles) -> Cloned | None:
    """Find the cloned voice that a request asks for, if it does.

    Raises:
        InvalidRequestError: no model clones voices, or it asks for one in a way that cannot be followed.
    """
    task, audio, embedding = request.task_type, request.ref_audio, request.speaker_embedding
    asks = task == "base" or audio is not None or embedding is not None
    if asks and not any(bundle.manifest_or_none and bundle.manifest.clones for bundle in bundles.all()):
        raise InvalidRequestError(f"no model that is here can clone voices; {HOW_TO_CLONE}", param="model")
    if audio is None and embedding is None:
        saved = voices.find(request.voice_name, request.caller)
        if request.ref_text is not None:
            raise InvalidRequestError("ref_text is nothing without ref_audio, the recording of it", param="ref_text")
        if saved is None and task == "base":
            raise InvalidRequestError(
                'task_type "Base" needs a voice to clone: send ref_audio and ref_text, or the voice of an upload',
                param="task_type",
            )
        return saved
    if task is not None and task != "base":
        name = "ref_audio" if audio is not None else "speaker_embedding"
        raise InvalidRequestError(
            f"{name} asks for a cloned voice, and task_type for another; leave one out", param=name
        )
    if audio is not None and embedding is not None:
        raise InvalidRequestError("send ref_audio or speaker_embedding, not both", param="speaker_embedding")
    if embedding is not None:
        return Inline(None, None, tuple(embedding), tail=False)
    if request.x_vector_only_mode:
        return Inline(audio, None, None, tail=False)
    if request.ref_text is None:
        raise InvalidRequestError(
            "ref_text is missing: send every word that is said in ref_audio, or x_vector_only_mode true, which needs "
            "no text and is less like the speaker",
            param="ref_text",
        )
    return Inline(audio, request.ref_text, None, tail=request.append_silence)


def bundle_for(cloned: Cloned | None, model: str, bundles: Bundles) -> Bundle:
    """Find the bundle that speaks.

    Where a request for a cloned voice leaves the choice of the model to the server, and the default one cannot clone,
    it is one that can.

    Raises:
        InvalidRequestError: it cannot speak with the voice.
        UnknownModelError, ModelUnavailableError: as for `Bundles.resolve`.
    """
    bundle = bundles.resolve(model)
    if cloned is None:
        return bundle
    if not _can(cloned, bundle) and means_default(model):
        fitting = [other for other in bundles.all() if other.manifest_or_none is not None and _can(cloned, other)]
        made_by = cloned.facts.model if isinstance(cloned, SavedVoice) else None
        fitting.sort(key=lambda other: other.id != made_by)
        bundle = next(iter(fitting), bundle)
    able = [other.id for other in bundles.all() if other.manifest_or_none is not None and other.manifest.clones]
    check_fit(cloned, bundle.id, bundle.manifest, able)
    return bundle


def _can(cloned: Cloned, bundle: Bundle) -> bool:
    manifest = bundle.manifest
    return cloned.fits(manifest) if isinstance(cloned, SavedVoice) else manifest.clones


def check_fit(cloned: Cloned, model: str, manifest: Manifest, able: Sequence[str] = ()) -> None:
    """See that a model can speak with a voice.

    Args:
        cloned: the voice.
        model: the model's id.
        manifest: the model's.
        able: ids of models that can clone; an error names one of them.

    Raises:
        InvalidRequestError: it cannot.
    """
    if not manifest.clones:
        if isinstance(cloned, SavedVoice):
            instead = f"the voice {cloned.name} was made for the model {cloned.facts.model}"
        else:
            instead = f"{able[0]}, which is here, can" if able else HOW_TO_CLONE
        raise InvalidRequestError(
            f"the model {model} has voices of its own and cannot clone another one; {instead}", param="model"
        )
    if isinstance(cloned, SavedVoice) and not cloned.fits(manifest):
        raise InvalidRequestError(
            f"the voice {cloned.name} was made for the model {cloned.facts.model}, and {model} has other sizes; "
            "name a model like that one, or upload the recording again for this one",
            param="voice",
        )
    if isinstance(cloned, Inline) and cloned.embedding is not None:
        wanted = manifest.sizes.talker.hidden_size
        if len(cloned.embedding) != wanted:
            raise InvalidRequestError(
                f"speaker_embedding has {len(cloned.embedding)} numbers; those of the model {model} have {wanted}",
                param="speaker_embedding",
            )


@dataclass(frozen=True)
class Prepared:
    """A voice that a request brings along, as far as it is known without an engine."""

    reference: Reference | None
    """The voice itself, where nothing is left to be encoded."""
    recording: Recording | None = None
    text: str | None = None
    tail: bool = False
    digest: bytes = b""
    """Of all that its encoding depends on but the model."""
    notes: tuple[str, ...] = ()
    """What is wrong with the recording or its text, in ASCII."""


class References:
    """Reads recordings, and has engines encode them: one at a time, and each recording once.

    The threads that do so have no higher priority than the engine's, which make speech meanwhile.

    Args:
        sources: where recordings may come from.
        most_seconds: of a recording.
    """

    def __init__(self, sources: Sources, most_seconds: float = 30.0) -> None:
        self.sources = sources
        self.most_seconds = most_seconds
        """Of a recording."""
        self._readers = ThreadPoolExecutor(READERS, "recording", step_back)
        self._encoder = ThreadPoolExecutor(1, "reference", step_back)
        self._kept: OrderedDict[tuple[str, bytes], Reference] = OrderedDict()
        self._keeping = threading.Lock()
        self._waiting = 0

    async def prepare(self, cloned: Cloned) -> Prepared:
        """Read the recording of a voice, if it has one.

        Raises:
            InvalidRequestError: it cannot be had, or is none.
            BusyError: too many recordings wait.
        """
        if isinstance(cloned, SavedVoice):
            return Prepared(cloned.reference)
        if cloned.audio is None:
            return Prepared(Reference(np.array(cloned.embedding, np.float32)))
        return await self._in_turn(self._readers, self._read, cloned.audio, cloned.text, cloned.tail)

    async def prepare_file(self, body: bytes, text: str | None, *, tail: bool, field: str) -> Prepared:
        """Read a recording that has come as a file; the errors are those of `prepare`, and blame a field."""
        return await self._in_turn(self._readers, self._of_file, body, text, tail, field)

    def _read(self, address: str, text: str | None, tail: bool) -> Prepared:
        return self._of_file(file_of(address, self.sources), text, tail, "ref_audio")

    def _of_file(self, body: bytes, text: str | None, tail: bool, field: str) -> Prepared:
        if len(body) > self.sources.most_bytes:
            raise InvalidRequestError(
                f"{field} is a file of more than {self.sources.most_bytes} bytes; send a shorter one", param=field
            )
        try:
            recording = read_recording(body, rate=SAMPLE_RATE, most_seconds=self.most_seconds)
        except RecordingError as error:
            raise InvalidRequestError(f"{field}: {error}", param=field) from None
        return self.of_recording(recording, text, tail=tail)

    def of_recording(self, recording: Recording, text: str | None, *, tail: bool) -> Prepared:
        """What is to be encoded of a recording that has been read."""
        digest = hashlib.sha256(recording.samples.tobytes())
        digest.update(repr((text, tail)).encode("utf-8", "replace"))
        notes = recording.notes if text is None else recording.notes + text_notes(text, recording.spoken_seconds)
        return Prepared(None, recording, text, tail, digest.digest(), notes)

    async def encode(self, prepared: Prepared, model: str, engine: SpeechEngine) -> Reference:
        """Have the engine make the voice, unless it has been made; waits until it is this one's turn.

        Raises:
            InvalidRequestError: the engine refuses the recording.
            BusyError: there is too little memory now, or too many recordings wait.
            SpeechFailedError: it cannot be encoded.
        """
        if prepared.reference is not None or prepared.recording is None:
            assert prepared.reference is not None
            return prepared.reference
        key = (model, prepared.digest)
        if (kept := self._found(key)) is not None:
            return kept
        try:
            return await self._in_turn(self._encoder, self._encoded, key, prepared, engine)
        except BusyError:
            raise
        except PromptError as error:
            raise InvalidRequestError(str(error), param="ref_audio") from error
        except MemoryError as error:
            raise BusyError("there is too little memory to encode a recording; try again soon") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.event("reference_failed", level=logging.ERROR, model=model, reason=reason)
            raise SpeechFailedError("the recording could not be encoded; the server's log says why") from error

    async def _in_turn(self, thread: ThreadPoolExecutor, work: Callable[..., T], *arguments: object) -> T:
        if self._waiting >= MOST_WAITING:
            raise BusyError("many recordings wait to be read already; try again soon")
        self._waiting += 1
        try:
            return await _done(thread.submit(work, *arguments))
        finally:
            self._waiting -= 1

    def _found(self, key: tuple[str, bytes]) -> Reference | None:
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _encoded(self, key: tuple[str, bytes], prepared: Prepared, engine: SpeechEngine) -> Reference:
        if (kept := self._found(key)) is not None:  # made while this one waited
            return kept
        assert prepared.recording is not None
        samples = prepared.recording.samples
        if prepared.tail:
            samples = with_tail(samples, SAMPLE_RATE)
        made = engine.encode_reference(samples, prepared.text)
        with self._keeping:
            self._kept[key] = made
            while len(self._kept) > KEPT_REFERENCES:
                self._kept.popitem(last=False)
        return made


async def _done(work: Future[T]) -> T:
    """Wait for work in a thread. Where nobody waits any more it is not begun, and what has been begun is waited for, so
    that its place is taken as long as it takes its core."""
    try:
        return await asyncio.wrap_future(work)
    except asyncio.CancelledError:
        if not work.cancel() and not work.done():
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            work.add_done_callback(partial(_tell, loop, ended.set))
            await ended.wait()
        raise


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None], _: Future[T]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
