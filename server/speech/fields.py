"""Types of a request's fields, which read a value leniently, however it is written.

Forms, home automations and chat programs send numbers as strings, names in any case, -1 for what is not set, and half
an emoji. In JSON Schema the types say what a careful program sends.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from server.audio.formats import AudioFormat
from server.engine import prompt
from server.text import markup
from server.text.halves import whole_characters
from server.text.lexicon import MAX_SAY_CHARS, MAX_WORD_CHARS
from server.voices import profiles
from server.voices.saved import MAX_TEXT_CHARS

MAX_LEXICON_ENTRIES = 1000
"""The most entries of a request's lexicon; a file may have more."""

MAX_EMBEDDING = 16_384
"""Numbers of a speaker embedding; those of Qwen3-TTS have 1024 or 2048."""

NOT_BLANK = r"[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
r"""Matches a character that `str.strip` leaves; `\s` differs between Python and JSON Schema's ECMA-262."""

MAX_DIGITS = 1000
"""Characters of a number that is written as a string."""

_NONE = -1
"""What many programs send for a number that is not set."""
_OTHER_FORMATS = {"ogg": "opus", "oga": "opus", "ogg_opus": "opus", "pcm16": "pcm", "pcm_s16le": "pcm"}
_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,400})(?:\.0*)?\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?\s*", re.ASCII)
"""Matches a number of bounded length, because Python reads 4300 digits at most. A decimal comma is not read, because
`1,000` is a thousand elsewhere."""


def _whole_characters(value: object) -> object:
    """Make halves of characters whole, which programs send that cut a text within an emoji."""
    return whole_characters(value) if isinstance(value, str) else value


def _number(value: object) -> object:
    if isinstance(value, str) and len(value) <= MAX_DIGITS and _NUMBER.fullmatch(value):
        return float(value)
    return value


def _integer(value: object) -> object:
    """Read an integer; 5.0 is one too, because JSON has one kind of number."""
    if isinstance(value, str) and len(value) <= MAX_DIGITS and (found := _INTEGER.fullmatch(value)):
        return int(found[1])
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _choice(value: object) -> object:
    """Read a word in any case; to change the case of millions of letters takes so long that they are refused before."""
    if isinstance(value, str) and len(value) > MAX_WORD_CHARS:
        raise ValueError("must be a short word")
    return value.strip().lower() if isinstance(value, str) else value


def _audio_format(value: object) -> object:
    chosen = _choice(value)
    return _OTHER_FORMATS.get(chosen, chosen) if isinstance(chosen, str) else chosen


def _switch(value: object) -> object:
    return {"true": True, "false": False}.get(chosen, value) if isinstance(chosen := _choice(value), str) else value


def _unset(value: object) -> object:
    integer = _integer(value)
    return None if type(integer) is int and integer == _NONE else integer


def _top_k(value: object) -> object:
    """Read `top_k`; -1 switches the filter off, as 0 does."""
    integer = _integer(value)
    return 0 if type(integer) is int and integer == _NONE else integer


def _penalty(value: object) -> object:
    """Read a penalty; 0, which would have no meaning as a factor, is what programs send that want none."""
    number = _number(value)
    return 1.0 if isinstance(number, int | float) and not isinstance(number, bool) and number == 0 else number


def _task(value: object) -> object:
    """Read a task's name, however its words are joined."""
    chosen = _choice(value)
    return re.sub(r"[\s_-]", "", chosen) if isinstance(chosen, str) else chosen


Text = Annotated[str, BeforeValidator(_whole_characters)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_integer)]
Cap = Annotated[
    int | None,
    Field(ge=1),
    BeforeValidator(_unset),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": _NONE}, {"type": "null"}]}),
]
Seed = Annotated[
    int | None,
    Field(ge=0, lt=2**63),
    BeforeValidator(_unset),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": _NONE, "exclusiveMaximum": 2**63}, {"type": "null"}]}),
]
TopK = Annotated[
    profiles.TopK | None,
    BeforeValidator(_top_k),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": _NONE}, {"type": "null"}]}),
]
Penalty = Annotated[
    profiles.RepetitionPenalty | None,
    BeforeValidator(_penalty),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1, "maximum": 2}, {"const": 0}, {"type": "null"}]}),
]


def _few(value: object) -> object:
    """Look at the number of entries first: an error of each of them takes 500 bytes, and all together 0.5 s."""
    if isinstance(value, dict) and len(value) > MAX_LEXICON_ENTRIES:
        raise ValueError("has too many entries")
    return value


Word = Annotated[Text, Field(min_length=1, max_length=MAX_WORD_CHARS)]
Said = Annotated[Text, Field(max_length=MAX_SAY_CHARS)]


class LexiconEntry(BaseModel):
    """What to say instead of a word, and whether the word matches in any case."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    say: Said
    any_case: bool = False


Format = Annotated[AudioFormat, BeforeValidator(_audio_format)]
Speed = Annotated[profiles.Speed, BeforeValidator(_number)]
Timestamps = Annotated[Literal["sentence", "chunk"], BeforeValidator(_choice)]
StreamFormat = Annotated[Literal["audio", "sse"], BeforeValidator(_choice)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Temperature = Annotated[profiles.Temperature | None, BeforeValidator(_number)]
Share = Annotated[float | None, Field(ge=0, le=1), BeforeValidator(_number)]
Layout = Annotated[prompt.Layout, BeforeValidator(_choice)]
TextFormat = Annotated[markup.TextFormat, BeforeValidator(_choice)]
TaskType = Annotated[
    Literal["customvoice", "voicedesign", "base"],
    BeforeValidator(_task),
    WithJsonSchema({"enum": ["CustomVoice", "VoiceDesign", "Base"]}),
]
Spoken = Annotated[Text, Field(max_length=MAX_TEXT_CHARS)]
Embedding = Annotated[list[float], Field(min_length=1, max_length=MAX_EMBEDDING, fail_fast=True)]
_WORDS_SCHEMA = {"propertyNames": {"minLength": 1, "maxLength": MAX_WORD_CHARS, "pattern": NOT_BLANK}}
Lexicon = Annotated[
    dict[Word, Said | LexiconEntry],
    Field(max_length=MAX_LEXICON_ENTRIES, json_schema_extra=_WORDS_SCHEMA),
    BeforeValidator(_few),
]
