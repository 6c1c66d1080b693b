"""Keeps cloned voices: reads what is asked for, has a recording encoded, and writes the voice.

The recording is an upload, or is made by a VoiceDesign model by a description ("design, then clone"), so that one
invented voice speaks all chunks and all later requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from server.audio.pcm import Samples
from server.audio.recording import RecordingError, as_recording
from server.engine.reference import SAMPLE_RATE
from server.errors import InvalidRequestError
from server.models.catalogue import Bundle
from server.models.names import HOW_TO_CLONE
from server.speech.cloning import Inline, Prepared
from server.speech.fields import Seed, Spoken, Switch, Text
from server.speech.foreign_fields import is_absent
from server.speech.progress import made
from server.speech.request_parsing import build, explain
from server.speech.service import SpeechService
from server.voices import catalogue
from server.voices.saved import MAX_DESCRIPTION_CHARS, NAME, NAMES, Facts, SavedVoice, Sizes

MAX_CONSENT_CHARS = 200
FILE_FIELD = "audio_sample"
"""The upload's field of a form, as OpenAI and vLLM-Omni call it."""
WITHOUT_TEXT = "without ref_text the voice is the speaker embedding alone, which is less like the speaker"
"""A note of an upload as OpenAI's SDK makes it, and vLLM-Omni's clients may."""
_ALIASES = {
    "speaker_description": "description",
    "text": "ref_text",
    "input": "ref_text",
    "reference_text": "ref_text",
    "wav_b64": "ref_audio",
    "x_vector_only": "x_vector_only_mode",
}
_DENIED = ("false", "no", "off", "0", "none", "null")
_SAMPLE_BYTES = 2


def _consent(value: object) -> object:
    """Read what is said of the speaker's agreement: an id of a recorded consent, or any word but no."""
    if isinstance(value, bool):
        return "yes" if value else None
    return None if isinstance(value, str) and value.strip().lower() in _DENIED else value


class VoiceOrder(BaseModel):
    """A voice that is to be kept. Its recording is the form's `audio_sample`, or it is designed by `instructions`."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    name: Annotated[Text, Field(pattern=rf"^{NAME.pattern}$")] = Field(
        description=f"What a request's `voice` will be: {NAMES}.", examples=["anna"]
    )
    consent: Annotated[Annotated[str, Field(max_length=MAX_CONSENT_CHARS)] | None, BeforeValidator(_consent)] = Field(
        None,
        description="That the speaker agreed: `true`, or any word on it such as the id of a recorded consent, which is "
        "kept. A voice that is designed needs none.",
        examples=["true"],
    )
    ref_text: Spoken | None = Field(
        None,
        description="Every word that is said in the recording, and nothing else; without it the speaker embedding "
        "alone is kept, which is less like the speaker. Of a voice that is designed, what it is to say for a sample, "
        "some 10 s.",
        examples=["What is said in the recording."],
    )
    description: Annotated[Text, Field(max_length=MAX_DESCRIPTION_CHARS)] = Field(
        "", description="A line on how it sounds, for lists."
    )
    x_vector_only_mode: Switch = Field(
        False,
        description="Keep the speaker embedding alone, without `ref_text`: less like the speaker.",
    )
    append_silence: Switch = Field(
        True,
        description="Put half a second of silence behind the recording, against an echo of its end.",
    )
    shared: Switch = Field(False, description="Whether others than this key may speak with it.")
    model: Text | None = Field(None, description="The Base model that encodes it; absent, the first one.")
    ref_audio: str | None = Field(
        None, description="The recording in a field instead of a file, as `ref_audio` of a speech request."
    )
    instructions: Text | None = Field(
        None, description="How the voice that a VoiceDesign model is to make up sounds.", examples=["An old sailor."]
    )
    design_model: Text | None = Field(
        None, description="The VoiceDesign model that makes it up; absent, the first one."
    )
    language: Text = Field("auto", description="Of the sample of a voice that is designed.")
    seed: Seed = Field(None, description="The same seed designs the same voice.")


def read_order(sent: Mapping[str, Any]) -> VoiceOrder:
    """Read the fields of a form or of a JSON object.

    Raises:
        InvalidRequestError: one is missing or wrong.
    """
    fields = {name: value for name, value in sent.items() if not is_absent(value)}
    for other, ours in _ALIASES.items():
        if other in fields and ours not in fields:
            fields[ours] = fields[other]
    try:
        return VoiceOrder.model_validate(fields)
    except ValidationError as error:
        message, name = explain(error.errors(include_input=False, include_url=False)[0])
        if name == "name":
            raise InvalidRequestError(f"name must be there, of {NAMES}", param="name") from None
        raise InvalidRequestError(f"{name} {message}" if name else message, param=name) from None


class Keeper:
    """Keeps voices in the folder of a service.

    Args:
        service: has recordings encoded and samples of designed voices spoken.
        consent: `ask`, or `assumed` where the operator answers for every speaker's agreement.
        timeout: seconds for which an engine may make nothing of a sample; 0 is for ever.
    """

    def __init__(self, service: SpeechService, consent: Literal["ask", "assumed"] = "ask", timeout: float = 0) -> None:
        self._service, self._consent, self._timeout = service, consent, timeout

    async def keep(
        self, order: VoiceOrder, upload: bytes | None, caller: str | None, *, wait: bool = False
    ) -> SavedVoice:
        """Make a voice and keep it.

        Args:
            order: what is asked for.
            upload: the recording, if it has come as a file.
            caller: digest of the key whose voice it becomes; None makes it everybody's.
            wait: whether to wait for as long as models take to load.

        Raises:
            InvalidRequestError: it cannot be made like this.
            VoiceExistsError, TooManyVoicesError: as for `VoiceFolder.check`.
            ApiError: as for `SpeechService.start`.
        """
        service = self._service
        await service.voices.look()
        designed = self._check(order, upload, caller)
        bundle = self._base(order.model)
        text = None if order.x_vector_only_mode else order.ref_text
        tail = order.append_silence and text is not None
        if designed:
            prepared = await self._designed(order, text, wait=wait)
        elif upload is not None:
            prepared = await service.references.prepare_file(upload, text, tail=tail, field=FILE_FIELD)
        else:
            prepared = await service.references.prepare(Inline(order.ref_audio, text, None, tail))
        lease = service.pool.lease(bundle)
        try:
            engine = await lease.engine(patient=wait)
            reference = await service.references.encode(prepared, bundle.id, engine)
        finally:
            lease.release()
        assert prepared.recording is not None
        facts = Facts(
            name=order.name,
            description=order.description,
            text=reference.text,
            created=int(time.time()),
            seconds=round(prepared.recording.seconds, 3),
            model=bundle.id,
            sizes=Sizes.of(bundle.manifest),
            owner=caller,
            shared=order.shared,
            consent="" if designed else order.consent or "assumed",
            designed=designed,
            notes=prepared.notes if reference.text or order.x_vector_only_mode else (*prepared.notes, WITHOUT_TEXT),
        )
        voice = SavedVoice(facts, reference)
        await asyncio.to_thread(service.voices.add, voice)
        return voice

    def _check(self, order: VoiceOrder, upload: bytes | None, caller: str | None) -> bool:
        """Check what costs nothing to check; returns whether the voice is to be designed."""
        if not self._service.voices.keeps:
            raise InvalidRequestError(
                "this server keeps no voices, as its operator has set no folder for them in KW_VOICES_DIR; send the "
                "recording with each request, as ref_audio and ref_text"
            )
        recorded = upload is not None or order.ref_audio is not None
        designed = order.instructions is not None
        if recorded == designed:
            raise InvalidRequestError(
                f"send a recording as the form's {FILE_FIELD}, or instructions and ref_text to have a voice designed"
                + ("; not both" if recorded else ""),
                param="instructions" if recorded else FILE_FIELD,
            )
        wants_text = designed or (order.x_vector_only_mode is False and "x_vector_only_mode" in order.model_fields_set)
        if order.ref_text is None and wants_text:
            what = "what the designed voice is to say for a sample" if designed else "every word of the recording"
            other = "" if designed else ", or leave x_vector_only_mode out, which is less like the speaker"
            raise InvalidRequestError(f"ref_text is missing: send {what}{other}", param="ref_text")
        if not designed and order.consent is None and self._consent == "ask":
            raise InvalidRequestError(
                "consent is missing: say that the speaker agreed to have this voice cloned, with consent true or the "
                "id of a recorded consent; an operator who answers for all speakers sets KW_VOICE_CONSENT=assumed",
                param="consent",
            )
        self._service.voices.check(order.name, caller)
        return designed

    def _base(self, name: str | None) -> Bundle:
        """The bundle that encodes a voice."""
        bundle = self._first("base") if name is None else self._service.pool.bundles.resolve(name)
        if bundle is None or not bundle.manifest.clones:
            if bundle is None:
                raise InvalidRequestError(f"no model that is here can clone voices; {HOW_TO_CLONE}", param="model")
            able = self._first("base")
            instead = f"{able.id}, which is here, can" if able else HOW_TO_CLONE
            raise InvalidRequestError(f"the model {bundle.id} cannot clone voices; {instead}", param="model")
        return bundle

    def _first(self, kind: str) -> Bundle | None:
        bundles = self._service.pool.bundles.all()
        return next((one for one in bundles if one.manifest_or_none and one.manifest.model_type == kind), None)

    async def _designed(self, order: VoiceOrder, text: str | None, *, wait: bool) -> Prepared:
        """Have a VoiceDesign model say the sample."""
        bundles, name = self._service.pool.bundles, order.design_model
        bundle = self._first("voice_design") if name is None else bundles.resolve(name)
        if bundle is None or bundle.manifest.model_type != "voice_design":
            raise InvalidRequestError(
                "to design a voice there has to be a VoiceDesign model; to make one: "
                "qwen3-tts convert --model Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign",
                param="design_model",
            )
        request = build(
            model=bundle.id,
            input=order.ref_text or "",
            voice=catalogue.DESIGN,
            instructions=order.instructions,
            language=order.language,
            seed=order.seed,
            response_format="pcm",
            text_format="plain",
        )
        rate, most = bundle.manifest.sizes.codec.sample_rate, self._service.references.most_seconds
        length = 0

        def grow(more: int) -> None:
            nonlocal length
            length += more
            if length > _SAMPLE_BYTES * rate * most:
                raise InvalidRequestError(
                    f"the sample is longer than {most:g} s; send a shorter ref_text", param="ref_text"
                )

        speech = await self._service.start(request, wait=wait)
        try:
            body = await made(speech.whole(grow), speech, self._timeout)
        finally:
            speech.stop()
        return await asyncio.to_thread(
            self._of_sample, body, rate, text, tail=order.append_silence and text is not None
        )

    def _of_sample(self, body: bytearray, rate: int, text: str | None, *, tail: bool) -> Prepared:
        references = self._service.references
        samples: Samples = np.frombuffer(body, "<i2").astype(np.float32) / np.float32(32768)
        try:
            recording = as_recording(samples, rate, rate=SAMPLE_RATE, most_seconds=references.most_seconds)
        except RecordingError as error:
            raise InvalidRequestError(f"ref_text: {error}", param="ref_text") from None
        return references.of_recording(recording, text, tail=tail)
