"""Starts the speech of a request: its text becomes chunks, the chunks jobs, and the jobs' audio one file.

It knows nothing of HTTP; the command line uses it as the routes do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from server import log
from server.audio.encoders import MARK, make_encoder
from server.audio.formats import Encoder, MissingCodecError
from server.engine.manner import CloneError, InstructionError, PromptError
from server.engine.reference import Reference
from server.engine.scheduler import QueueFull
from server.engine.worker import EngineStopped
from server.errors import BusyError, InvalidRequestError, ModelRestartingError
from server.manifest import Manifest
from server.models.catalogue import Bundle
from server.models.pool import EnginePool, Lease
from server.models.pool_entry import SpeechEngine
from server.speech.cloning import Cloned, References, asked_for, bundle_for
from server.speech.delivery import Deliveries
from server.speech.fetching import Sources
from server.speech.live_plan import check_live, make_live_plan
from server.speech.live_reading import Arriving, LiveReading
from server.speech.plan import Passage, Plan, make_plan
from server.speech.planned_reading import reading_of
from server.speech.reading import Reading
from server.speech.rendering import Speech
from server.speech.request import SpeechRequest
from server.text.lexicon import NO_LEXICON, Lexicon
from server.voices import catalogue, languages
from server.voices.folder import VoiceFolder
from server.voices.profiles import Profile
from server.voices.saved import SavedVoice

SILENCES = 2
"""How many requests of nothing but silence are encoded side by side, since encoders take memory and threads."""
TEXT_SECONDS = 10.0
LONG_CHARS = 10_000
"""Texts of more than this are prepared one after the other: each takes a core for a second or so. Shorter texts are
too, beside a long one. More at once would be ready no sooner, and the event loop waits for every thread that computes
in Python."""


class _Opening(NamedTuple):
    """What a speech that is about to begin has: what its request means, and what has to be given back.

    Attributes:
        cloned: the cloned voice that is asked for, None where it is one of the model's own.
        bundle: what speaks.
        encoder: of its file.
        lease: of the bundle's engine.
        held: gives back encoder, lease, and whatever else is taken for it.
    """

    cloned: Cloned | None
    bundle: Bundle
    encoder: Encoder
    lease: Lease
    held: ExitStack

    def speech(self, reading: Reading, plan: Plan, notes: tuple[str, ...], *, repeatable: bool) -> Speech:
        """The speech of a reading, which gives back all that is held when it is stopped."""
        speech = Speech(reading, self.encoder, plan, self.held.close, model=self.bundle.id, repeatable=repeatable)
        speech.reference_notes = notes
        return speech


class SpeechService:
    """Starts the speech of requests.

    Args:
        pool: the engines of the models.
        profiles: the voice profiles, by id.
        max_input_chars: the longest text and the longest instructions, in characters.
        lexicon: the operator's pronunciation dictionary.
        text_seconds: for which text that arrives while it is spoken may fail to come, before its row is given up.
        voices: the cloned voices that are kept.
        references: reads recordings and has them encoded.
        mark: what files say in their metadata; empty is nothing.
    """

    def __init__(
        self,
        pool: EnginePool,
        profiles: Mapping[str, Profile],
        max_input_chars: int,
        lexicon: Lexicon = NO_LEXICON,
        text_seconds: float = TEXT_SECONDS,
        voices: VoiceFolder | None = None,
        references: References | None = None,
        mark: str = MARK,
    ) -> None:
        self.pool = pool
        self.voices = voices or VoiceFolder(None)
        self.voices.reserve(self._is_own_voice)
        self.references = references or References(Sources(10_000_000))
        self._mark = mark
        self.profiles = profiles
        self._lexicon = lexicon
        self._text_seconds = text_seconds
        self._max_input_chars = max_input_chars
        self._silences = asyncio.Semaphore(SILENCES)
        self._long_texts, self._short_texts = ThreadPoolExecutor(1, "long-text"), ThreadPoolExecutor(1, "text")

    async def start(self, request: SpeechRequest, *, wait: bool = False) -> Speech:
        """Hand a request to its model's engine.

        Args:
            request: the request.
            wait: whether to wait for as long as the model takes to load.

        Raises:
            InvalidRequestError: something in it does not fit the model.
            UnknownModelError, ModelLoadingError, ModelUnavailableError: as `Bundles` and `EnginePool` have it.
            BusyError: the engine's queue is full, or too many wait for the model.
        """
        self._check_length("input", request.input)
        await self.voices.look()
        with self._opening(request) as opening:
            cloned, bundle = opening.cloned, opening.bundle
            planned = await self._prepare(request, bundle.manifest, cloned=cloned is not None)
            engine, voice, notes = await self._voiced(opening, patient=wait)
            if voice is not None:
                planned = planned.spoken_by(voice)
            if not any(isinstance(part, Passage) for part in planned.parts):  # it has no job that would wait
                await self._silences.acquire()
                opening.held.callback(self._silences.release)
            reading = reading_of(planned, engine)
            speech = opening.speech(reading, planned, notes, repeatable=request.seed is not None)
            await _begin(reading, whole=planned.exact_frames is not None)
        return speech

    async def start_live(self, request: SpeechRequest, arriving: Arriving) -> Speech:
        """Hand a text to the model's engine while it comes; returns when its first word has come.

        Args:
            request: how it is spoken; its `input` counts for nothing.
            arriving: where it comes from.

        Raises:
            ApiError: as for `start`.
        """
        await self.voices.look()
        with self._opening(request) as opening:
            cloned = opening.cloned
            planned = make_live_plan(
                request,
                opening.bundle.manifest,
                self.profiles,
                self._lexicon,
                cloned=cloned is not None,
                saved=self._saved(request),
            )
            engine, voice, notes = await self._voiced(opening)
            if voice is not None:
                planned = planned.spoken_by(voice)
            reading = LiveReading(engine, planned, arriving, self._text_seconds)
            speech = opening.speech(reading, planned.plan, notes, repeatable=request.seed is not None)
            await _begin(reading, whole=False)
        return speech

    @contextmanager
    def _opening(self, request: SpeechRequest) -> Iterator[_Opening]:
        """What the speech of a request takes beside its text; it is given back if the speech cannot be begun."""
        cloned = asked_for(request, self.voices, self.pool.bundles)
        bundle = bundle_for(cloned, request.model, self.pool.bundles)
        held = ExitStack()
        try:
            encoder = self._encoder(request, bundle.manifest.sizes.codec.sample_rate)
            held.callback(encoder.close)
            self._check_length("instructions", request.instructions or "")
            lease = self.pool.lease(bundle)
            held.callback(lease.release)
            yield _Opening(cloned, bundle, encoder, lease, held)
        except BaseException:
            held.close()
            raise

    async def _voiced(
        self, opening: _Opening, *, patient: bool = False
    ) -> tuple[SpeechEngine, Reference | None, tuple[str, ...]]:
        """The engine, the cloned voice if one was asked for, and notes on its recording.

        The recording is read before the engine is loaded.
        """
        prepared = None if opening.cloned is None else await self.references.prepare(opening.cloned)
        engine = await opening.lease.engine(patient=patient)
        if prepared is None:
            return engine, None, ()
        return engine, await self.references.encode(prepared, opening.bundle.id, engine), prepared.notes

    def check(self, request: SpeechRequest, *, live: bool = False) -> str | None:
        """Check whether requests like this one could be spoken, whatever their text is.

        Await `voices.look` before.

        Args:
            request: the request.
            live: whether the model is to be given their text as it comes.

        Returns:
            The ISO 639-1 code of the language that they are spoken in; None where each text shows its own.

        Raises:
            InvalidRequestError, UnknownModelError, ModelUnavailableError: as for `start`.
        """
        cloned = asked_for(request, self.voices, self.pool.bundles)
        manifest = bundle_for(cloned, request.model, self.pool.bundles).manifest
        self._encoder(request, manifest.sizes.codec.sample_rate).close()
        self._check_length("instructions", request.instructions or "")
        if live:
            check_live(request, manifest)
        deliveries = Deliveries(request, manifest, self.profiles, cloned=cloned is not None)
        return languages.code(deliveries.own.language)

    def sample_rate(self, request: SpeechRequest) -> int:
        """Samples per second of the speech of a request; the errors are those of `check`."""
        cloned = asked_for(request, self.voices, self.pool.bundles)
        return bundle_for(cloned, request.model, self.pool.bundles).manifest.sizes.codec.sample_rate

    def _is_own_voice(self, name: str) -> bool:
        """Whether a name means a voice of the server itself, so that no cloned one can have it."""
        manifests = (bundle.manifest_or_none for bundle in self.pool.bundles.all())
        return catalogue.is_own(name, filter(None, manifests), self.profiles)

    def _saved(self, request: SpeechRequest) -> Callable[[str], SavedVoice | None]:
        """What finds the cloned voices that are kept and that who asks may speak with."""
        return lambda name: self.voices.find(name, request.caller)

    async def _prepare(self, request: SpeechRequest, manifest: Manifest, *, cloned: bool) -> Plan:
        """Plan a request in a thread when it is its turn; a client that leaves before that costs nothing."""
        thread = self._long_texts if len(request.input) > LONG_CHARS else self._short_texts
        planned = await asyncio.get_running_loop().run_in_executor(
            thread,
            partial(
                make_plan,
                request,
                manifest,
                self.profiles,
                self._lexicon,
                cloned=cloned,
                saved=self._saved(request),
            ),
        )
        log.event(
            "text_prepared",
            level=logging.DEBUG,
            chars=len(request.input),
            parts=len(planned.parts),
            changed=",".join(planned.text_changes) or None,
            notes="; ".join(planned.text_notes) or None,
        )
        return planned

    def _encoder(self, request: SpeechRequest, sample_rate: int) -> Encoder:
        try:
            return make_encoder(request.response_format, sample_rate, self._mark)
        except MissingCodecError as error:
            raise InvalidRequestError(str(error), param="response_format") from None

    def _check_length(self, field: str, text: str) -> None:
        if len(text) > self._max_input_chars:
            raise InvalidRequestError(
                f"{field} has {len(text)} characters; at most {self._max_input_chars} are allowed", param=field
            )


async def _begin(reading: Reading, *, whole: bool) -> None:
    """Begin a reading, and turn the engine's errors into errors of requests; `whole` says that the text is not cut."""
    try:
        await reading.begin()
    except InstructionError as error:
        raise InvalidRequestError(str(error), param="instructions") from error
    except CloneError as error:
        raise InvalidRequestError(str(error), param="voice") from error
    except PromptError as error:
        hint = "; without exact_frames a long text is spoken in chunks" if whole else ""
        raise InvalidRequestError(f"{error}{hint}", param="input") from error
    except QueueFull as error:
        raise BusyError("too many requests are waiting already; try again soon") from error
    except EngineStopped as error:
        raise ModelRestartingError(
            "the engine of this model has stopped; another one is being started; try again soon", param="model"
        ) from error
