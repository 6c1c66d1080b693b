"""The fields of a speech request, their types and ranges.

Each field is described once, here; the OpenAPI document and the help of the command line are generated from it. Ranges
that depend on the model are checked by `server.speech.plan`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from server.speech.fields import (
    NOT_BLANK,
    Cap,
    Count,
    Embedding,
    Format,
    Layout,
    Lexicon,
    Penalty,
    Seed,
    Share,
    Speed,
    Spoken,
    StreamFormat,
    Switch,
    TaskType,
    Temperature,
    Text,
    TextFormat,
    Timestamps,
    TopK,
)
from server.speech.foreign_fields import is_absent

MAX_NAME_CHARS = 256
"""The longest name of a model, a voice or a language; a formula of eight voices is about as long."""
DEFAULT = "default"
"""The model or the voice of a request that names none."""

_OF_CLONING = ("ref_audio", "ref_text", "speaker_embedding")
_NOTHING: tuple[object, ...] = (False, [], {})
"""What programs send for fields of cloning that they do not use."""

Way = Literal["whole", "audio", "sse"]
"""How an answer is sent: as a whole file, as a file while it is made, or as events while it is made."""


class VoiceReference(BaseModel):
    """The other way in which OpenAI's API names a voice."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    id: Text


class SpeechRequest(BaseModel):
    """What to say and how. A field that is null or empty counts as absent; `ignored` names the unknown fields."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    input: Text = Field(
        description="The text to speak, with some letter or digit in a script of the model's languages. `[0.5s]`, "
        '`[pause 500ms]` and `<break time="500ms"/>` are silence; `[voice:ID]` changes the voice from there on.',
        examples=["Hello from my own machine."],
        json_schema_extra={"pattern": NOT_BLANK},
    )
    model: Text = Field(
        DEFAULT,
        description="An id of `GET /models`, or the Hub id of its checkpoint; case and the marks between words do not "
        "matter. `default`, OpenAI's names (`tts-1`, …), `kokoro` and Kokoro Web's names mean the default "
        "model.",
        examples=["tts-1"],
    )
    voice: Text | VoiceReference = Field(
        DEFAULT,
        description="An id of `GET /audio/voices`: a speaker, a profile, one of OpenAI's names or Kokoro's ids, or an "
        "uploaded voice. If no id is spelt so, case and the choice of blank or underscore do not matter. Of a weighted "
        "formula the voice of the highest weight speaks. `default` and `none` mean what `alloy` means.",
        examples=["alloy", {"id": "serena"}, "serena_meditation", "af_heart*0.7+af_bella*0.3", "af_sky(2)+af_bella"],
    )
    response_format: Format = Field(
        "mp3",
        description="The kind of file; `pcm` is signed 16 bit, little-endian, 24 kHz, mono. `ogg`, `oga` and "
        "`ogg_opus` are read as `opus`, `pcm16` and `pcm_s16le` as `pcm`.",
    )
    speed: Speed = Field(
        1.0,
        description="How fast to speak, at the same pitch; 2 takes half the time.",
    )
    instructions: Text | None = Field(
        None,
        description="How to speak; for a VoiceDesign model, which voice. Models that follow no instructions drop them.",
        examples=["Calm and slow, as if reading a bedtime story."],
    )
    stream_format: StreamFormat | None = Field(
        None,
        description="`audio` (the default) sends the file itself; `sse` sends its parts as events while it is made.",
    )
    stream: Switch | None = Field(
        None,
        description="`false` sends the file whole, with its length; `true` sends it while it is made. If absent, the "
        "server's `KW_STREAM` decides. `false` and `sse` exclude each other.",
    )
    language: Text = Field(
        "auto",
        description="A language's name, an ISO 639 code, or `auto`; any case.",
        examples=["English", "en", "auto"],
    )
    seed: Seed = Field(
        None,
        description="The same seed gives the same audio; `x-seed` names the one that was used. -1 counts as absent.",
    )
    temperature: Temperature = Field(
        None,
        description="0 always takes the likeliest code; if absent, the model's own.",
    )
    top_k: TopK = Field(
        None,
        description="Draw from this many of the likeliest codes, 0 or -1 from all; if absent, the model's own.",
    )
    top_p: Share = Field(
        None,
        description="Draw from the likeliest codes that together have this probability; 0 takes the likeliest. If "
        "absent, the model's own.",
    )
    repetition_penalty: Penalty = Field(
        None,
        description="Makes codes that have occurred less likely; 1 or 0 changes nothing. If absent, the model's own.",
    )
    max_new_tokens: Cap = Field(
        None,
        description="Most codec frames of 80 ms that the speech may have, pauses not counted. `finish_reason` or "
        "`x-finish-reason` is `length` where this ends the speech. -1 counts as absent.",
    )
    exact_frames: Count | None = Field(
        None,
        description="For measuring: the speech ends after this many codec frames of 80 ms. The text is spoken in one "
        "piece, which must fit the model and is not watched for runaways.",
    )
    layout: Layout | None = Field(
        None,
        description="How the model is given a text: `whole` before the first frame, or `streaming`, a token with each "
        "frame. If absent, `streaming` for cloned voices and `whole` for all others, as in the official package.",
    )
    text_format: TextFormat = Field(
        "auto",
        description="How the text is marked up; `auto` finds out.",
    )
    trim_start: Switch = Field(
        False,
        description="Leave out the silence that the voice makes before its first word, all but 0.05 s of it; silences "
        "that the text asks for stay.",
    )
    lexicon: Lexicon = Field(
        {},
        description="Words, and what to say instead of each; `any_case` matches a word in any case.",
        examples=[{"Qwen": "chwen", "SQL": {"say": "sequel", "any_case": True}}],
    )
    timestamps: Timestamps | None = Field(
        None,
        description="Tell when each sentence or chunk is heard: `sentence` speaks each sentence by itself, `chunk` "
        "leaves the audio as it is. The times come as events with `sse`, in the header `x-timestamps` of a whole file "
        "(the default then) if they are short, and beside the audio of `POST /dev/captioned_speech`.",
    )

    ref_audio: str | None = Field(
        None,
        description="A recording of the voice to speak with, for Base models: WAV, FLAC, Ogg, MP3, M4A or WebM as a "
        "data URI or base64, or an address on a host of the server's `KW_REFERENCE_HOSTS`. 3 to 20 s are best.",
    )
    ref_text: Spoken | None = Field(
        None,
        description="Every word that is said in `ref_audio`, and nothing else.",
    )
    x_vector_only_mode: Switch = Field(
        False,
        description="Clone the voice by its speaker embedding alone, without `ref_text`: less like the speaker.",
    )
    append_silence: Switch = Field(
        True,
        description="Put half a second of silence behind `ref_audio`, against an echo of its end; `false` is the "
        "official package's way.",
    )
    speaker_embedding: Embedding | None = Field(
        None,
        description="In place of `ref_audio`: the speaker embedding itself, of a Base model of the same size.",
    )
    task_type: TaskType | None = Field(
        None,
        description="What kind of model is meant; `Base` asks for a cloned voice, which `ref_audio` does by itself.",
    )

    _ignored: tuple[str, ...] = PrivateAttr(())
    _caller: str | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _drop_what_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {
            name: value
            for name, value in data.items()
            if not (is_absent(value) or (name in _OF_CLONING and value in _NOTHING))
            or (name == "input" and value is not None)
        }
        voice = data.get("voice")
        if isinstance(voice, dict) and "id" in voice and is_absent(voice["id"]):
            del data["voice"]
        return data

    @field_validator("input")
    @classmethod
    def _something_to_say(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; send the text to speak")
        return value

    @field_validator("model", "voice", "language")
    @classmethod
    def _short(cls, value: str | VoiceReference) -> str | VoiceReference:
        if len(value if isinstance(value, str) else value.id) > MAX_NAME_CHARS:
            raise ValueError(f"must have at most {MAX_NAME_CHARS} characters")
        return value

    @property
    def voice_name(self) -> str:
        """The voice's name, in whichever way it was given; `default` if none was."""
        return self.voice if isinstance(self.voice, str) else self.voice.id

    @property
    def caller(self) -> str | None:
        """Digest of the key of who asks; None where no key is asked for."""
        return self._caller

    def asked_by(self, caller: str | None) -> Self:
        """The same request, asked by somebody."""
        request = self.model_copy()
        request._caller = caller
        return request

    def ignoring(self, names: tuple[str, ...]) -> Self:
        """The same request, with the names of the fields that were sent and mean nothing here."""
        request = self.model_copy()
        request._ignored = names
        return request

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the fields that were sent and mean nothing here, encoded for a header."""
        return self._ignored

    def way(self, *, streams: bool) -> Way:
        """Decide how the answer is sent; `streams` is what the server does if the request does not say.

        A file that is sent while it is made has no place for times, so that a request for them has to ask for it.
        """
        if self.stream_format == "sse":
            return "sse"
        wanted = self.stream
        if wanted is None:
            wanted = (streams and self.timestamps is None) or self.stream_format is not None
        return "audio" if wanted else "whole"
