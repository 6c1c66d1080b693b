"""From a request to its audio: the text's chunks become jobs, the jobs' PCM one file.

Knows nothing of HTTP; the command line uses it as the routes do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import nullcontext

from server import log
from server.audio.encoders import MissingCodecError, make_encoder
from server.engine.prompt import InstructionError, PromptError
from server.engine.scheduler import QueueFull
from server.engine.worker import EngineStopped
from server.errors import BusyError, InvalidRequestError, ModelRestartingError
from server.models.pool import EnginePool, Lease
from server.speech.plan import NO_LEXICON, Passage, plan
from server.speech.reading import Reading, read
from server.speech.rendering import Speech
from server.speech.request import SpeechRequest
from server.text.lexicon import Lexicon
from server.voices.profiles import Profile

SILENCES = 2
"""Requests of nothing but silence that are encoded side by side; encoders take memory, and threads."""
LONG_CHARS = 10_000
"""Texts of more than this are prepared one after the other: each takes a core for a second or so, and the event loop
has to wait for every thread that computes in Python."""


class SpeechService:
    """Starts speech.

    Args:
        pool: the models there are.
        profiles: voices with a way to speak, by id.
        max_input_chars: longest text and longest instructions.
        lexicon: what is said instead of some words.
    """

    def __init__(
        self,
        pool: EnginePool,
        profiles: Mapping[str, Profile],
        max_input_chars: int,
        lexicon: Lexicon = NO_LEXICON,
    ) -> None:
        self.pool = pool
        self._profiles = profiles
        self._lexicon = lexicon
        self._max_input_chars = max_input_chars
        self._silences = asyncio.Semaphore(SILENCES)
        self._long_texts = asyncio.Semaphore(1)

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
        try:
            encoder = make_encoder(request.response_format, bundle.manifest.sizes.codec.sample_rate)
        except MissingCodecError as error:
            raise InvalidRequestError(str(error), param="response_format") from None
        self._check_length("input", request.input)
        self._check_length("instructions", request.instructions or "")
        async with self._long_texts if len(request.input) > LONG_CHARS else nullcontext():
            planned = await asyncio.to_thread(plan, request, bundle.manifest, self._profiles, self._lexicon)
        log.event(
            "text_prepared",
            level=logging.DEBUG,
            chars=len(request.input),
            parts=len(planned.parts),
            changed=",".join(planned.text_changes) or None,
            notes="; ".join(planned.text_notes) or None,
        )
        lease = await self.pool.lease(bundle, patient=wait)
        if not any(isinstance(part, Passage) for part in planned.parts):
            lease = await self._in_turn(lease)
        try:
            reading = read(planned, lease.engine)
            speech = Speech(reading, lease, encoder, planned, model=bundle.id, repeatable=request.seed is not None)
            await _begin(reading, whole=planned.exact_frames is not None)
        except BaseException:
            lease.release()
            raise
        return speech

    async def _in_turn(self, lease: Lease) -> Lease:
        """The lease of a request that has no job, so that it would wait for nothing."""
        try:
            await self._silences.acquire()
        except BaseException:
            lease.release()
            raise

        def let_go() -> None:
            self._silences.release()
            lease.release()

        return Lease(lease.engine, let_go)

    def _check_length(self, field: str, text: str) -> None:
        if len(text) > self._max_input_chars:
            raise InvalidRequestError(
                f"{field} has {len(text)} characters; at most {self._max_input_chars} are allowed", param=field
            )


async def _begin(reading: Reading, *, whole: bool) -> None:
    """Begin a reading, of a text that had to stay whole or not, with errors of our own."""
    try:
        await reading.begin()
    except InstructionError as error:
        raise InvalidRequestError(str(error), param="instructions") from error
    except PromptError as error:
        hint = "; without exact_frames a long text is spoken in chunks" if whole else ""
        raise InvalidRequestError(f"{error}{hint}", param="input") from error
    except QueueFull as error:
        raise BusyError("too many requests are waiting already; try again soon") from error
    except EngineStopped as error:
        raise ModelRestartingError(
            "the engine of this model has stopped; another one is being started; try again soon", param="model"
        ) from error
