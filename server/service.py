"""From a request to its audio: the text's chunks become jobs, the jobs' PCM one file.

Knows nothing of HTTP; the command line uses it as the routes do.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import TypeVar

from server import languages, voices
from server.audio.encoders import Encoder, make_encoder
from server.engine.job import Job, Sampling
from server.engine.prompt import PromptError
from server.engine.scheduler import QueueFull
from server.engine.worker import EngineStopped
from server.errors import BusyError, InvalidRequestError, ModelRestartingError, SpeechFailedError
from server.graphs.manifest import Manifest
from server.metrics import Outcome
from server.pool import EnginePool
from server.reading import CHUNK_CAPACITY, Reading, chunk_seed
from server.speech_engine import Lease
from server.speech_request import SpeechRequest
from server.text.chunks import Chunk, chunks
from server.text.sentences import Boundary

GREEDY_BELOW = 0.01
"""Temperatures below this are taken as 0: dividing by them may overflow, and they draw the likeliest code anyway."""

_RANDOM_SEEDS = 2**31

_T = TypeVar("_T")


class Speech:
    """Audio in the making: a text being read, and the file it is encoded to. Whoever holds it must `stop` it."""

    def __init__(
        self, reading: Reading, lease: Lease, encoder: Encoder, *, seed: int, model: str, repeatable: bool
    ) -> None:
        engine = lease.engine
        self.seed = seed
        self.model = model
        self._reading = reading
        self._lease = lease
        self._engine = engine
        self._encoder = encoder
        self._repeatable = repeatable
        self._sample_rate = engine.manifest.sizes.codec.sample_rate
        self._samples = 0
        self._started = time.perf_counter()
        self._ended: float | None = None
        self.ttfa_seconds: float | None = None
        """From the start to the first part of the file."""
        self.outcome: Outcome = "stopped"
        """`done` once the file was made to its end, `failed` once it cannot be, else `stopped`."""
        self.error: str | None = None
        """Why it failed, for the log only."""

    @property
    def content_type(self) -> str:
        """Media type of the file."""
        return self._encoder.content_type

    @property
    def audio_seconds(self) -> float:
        """Length of the audio made so far."""
        return self._samples / self._sample_rate

    @property
    def wall_seconds(self) -> float:
        """Time since the speech was begun, until the file was whole."""
        return (self._ended or time.perf_counter()) - self._started

    @property
    def queue_seconds(self) -> float | None:
        """How long its first chunk waited for a row; None while it does."""
        return self._reading.queue_seconds

    @property
    def progress(self) -> object:
        """Something else whenever the reading has got on; while it waits for a frame, whenever any other has."""
        return self._reading.progress

    async def parts(self) -> AsyncIterator[bytes]:
        """The file in parts as they become ready, none of them empty.

        Raises:
            SpeechFailedError: the engine gave up, or made no audio.
        """
        try:
            async for samples in self._reading:
                self._samples += samples.size
                if part := self._encoder.encode(samples):
                    self.ttfa_seconds = self.ttfa_seconds or self.wall_seconds
                    yield part
            if not self._samples:
                raise ValueError("the engine made no audio")
            if part := self._encoder.finish():
                yield part
        except Exception as error:
            raise self._failure(error) from error
        self.outcome, self._ended = "done", time.perf_counter()

    def _failure(self, error: Exception) -> SpeechFailedError:
        """The same seed would fail again; another random seed may not, and a dead engine is replaced."""
        cause = error.__cause__ or error
        self.outcome, self.error = "failed", f"{type(cause).__name__}: {cause}"
        return SpeechFailedError(
            "the speech could not be made to its end; the server's log says why",
            headers={"x-should-retry": "false"} if self._repeatable else None,
        )

    async def whole(self) -> bytes:
        """The whole file at once.

        Raises:
            SpeechFailedError: as for `parts`.
        """
        body = bytearray()
        async for part in self.parts():
            body += part
        self._encoder.seal(body)
        return bytes(body)

    def stop(self) -> None:
        """End its jobs wherever they are; harmless after their end."""
        self._reading.stop()
        self._lease.release()


class SpeechService:
    """Starts speech.

    Args:
        pool: the models there are.
        max_input_chars: longest text and longest instructions.
    """

    def __init__(self, pool: EnginePool, max_input_chars: int) -> None:
        self.pool = pool
        self._max_input_chars = max_input_chars

    async def start(self, request: SpeechRequest, *, wait: bool = False) -> Speech:
        """Hand a request to its model's engine.

        Args:
            request: what to say and how.
            wait: whether to wait for the model for as long as it loads.

        Raises:
            InvalidRequestError: something in it does not fit the model.
            UnknownModelError, ModelLoadingError, ModelUnavailableError: as `Bundles` and `EnginePool` have it.
            BusyError: the engine's queue is full, or too many wait for the model.
        """
        bundle = self.pool.bundles.resolve(request.model)
        self._check_length("input", request.input)
        self._check_length("instructions", request.instructions or "")
        manifest = bundle.manifest
        speaker = voices.resolve(request.voice_name, manifest)
        language = languages.resolve(request.language, manifest.languages)
        sampling = _sampling(request, manifest)
        lease = await self.pool.lease(bundle, patient=wait)
        try:
            return await self._read(request, speaker, language, sampling, lease, bundle.id)
        except BaseException:
            lease.release()
            raise

    async def _read(
        self,
        request: SpeechRequest,
        speaker: str | None,
        language: str,
        sampling: Sampling,
        lease: Lease,
        model: str,
    ) -> Speech:
        engine, manifest = lease.engine, lease.engine.manifest
        seed = secrets.randbelow(_RANDOM_SEEDS) if request.seed is None else request.seed
        instruction = request.instructions if manifest.follows_instructions else None
        budget = request.max_new_tokens

        def make_job(chunk: Chunk, number: int) -> Job:
            prompt = engine.prompt(chunk.text, speaker=speaker, language=language, instruction=instruction or None)
            frames = _max_frames(request, manifest, manifest.sizes.talker.max_positions - len(prompt))
            tokens = None if manifest.noise or budget is not None else chunk.tokens
            job = Job(prompt, sampling, chunk_seed(seed, number), frames, text_tokens=tokens, spare=number > 0)
            if number or chunk.boundary is not Boundary.TEXT:
                job.capacity = CHUNK_CAPACITY
            return job

        if budget is None:
            parts = chunks(request.input, languages.code(language), engine.count_tokens)
        else:  # so many frames exactly is what one row can do, so that the text stays whole and must fit the model
            parts = iter([Chunk(request.input, 0, Boundary.TEXT)])
        reading = Reading(engine, parts, make_job)
        encoder = make_encoder(request.response_format, manifest.sizes.codec.sample_rate)
        speech = Speech(reading, lease, encoder, seed=seed, model=model, repeatable=request.seed is not None)
        await _begin(reading, whole=budget is not None)
        return speech

    def _check_length(self, field: str, text: str) -> None:
        if len(text) > self._max_input_chars:
            raise InvalidRequestError(
                f"{field} has {len(text)} characters; at most {self._max_input_chars} are allowed", param=field
            )


async def _begin(reading: Reading, *, whole: bool) -> None:
    """Begin a reading, of a text that had to stay whole or not, with errors of our own."""
    try:
        await reading.begin()
    except PromptError as error:
        hint = "; without max_new_tokens a long text is spoken in chunks" if whole else ""
        raise InvalidRequestError(f"{error}{hint}", param="input") from error
    except QueueFull as error:
        raise BusyError("too many requests are waiting already; try again soon") from error
    except EngineStopped as error:
        raise ModelRestartingError(
            "the engine of this model has stopped; another one is being started; try again soon", param="model"
        ) from error


def _sampling(request: SpeechRequest, manifest: Manifest) -> Sampling:
    """The model's defaults under what the request sets, which holds for talker and code predictor alike."""
    defaults = manifest.generation
    most = manifest.sizes.talker.vocab_size
    if request.top_k is not None and request.top_k > most:
        raise InvalidRequestError(f"top_k must be at most {most} for this model", param="top_k")

    temperature = request.temperature
    if temperature is not None and temperature < GREEDY_BELOW:
        temperature = 0.0
    return Sampling(
        temperature=_pick(temperature, defaults.temperature if defaults.do_sample else 0.0),
        top_k=_pick(request.top_k, defaults.top_k),
        top_p=_pick(request.top_p, defaults.top_p),
        repetition_penalty=_pick(request.repetition_penalty, defaults.repetition_penalty),
        predictor_temperature=_pick(
            temperature, defaults.subtalker_temperature if defaults.subtalker_dosample else 0.0
        ),
        predictor_top_k=_pick(request.top_k, defaults.subtalker_top_k),
        predictor_top_p=_pick(request.top_p, defaults.subtalker_top_p),
    )


def _pick(asked: _T | None, default: _T) -> _T:
    return default if asked is None else asked


def _max_frames(request: SpeechRequest, manifest: Manifest, room: int) -> int:
    """Codec frames at most: what was asked for exactly, else the model's default as far as its positions last."""
    if request.max_new_tokens is not None and request.max_new_tokens > room:
        raise InvalidRequestError(
            f"max_new_tokens must be at most {room} for this model and text", param="max_new_tokens"
        )
    return _pick(request.max_new_tokens, min(manifest.generation.max_new_tokens, room))
