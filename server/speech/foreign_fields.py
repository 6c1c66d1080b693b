"""Sorts the fields that clients of other speech servers send.

Some have another name of a field of ours, some ask for a cloned voice in a way that is not followed and are refused,
and the rest is ignored and named in the answer. The names are those of vllm-omni, Kokoro-FastAPI, Chatterbox, XTTS,
F5-TTS and Fish Speech.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from server.errors import InvalidRequestError

ALIASES = {
    "text": "input",
    "instruct": "instructions",
    "lang_code": "language",
    "language_id": "language",
    "language_code": "language",
    "format": "response_format",
    "reference_audio": "ref_audio",
    "reference_text": "ref_text",
    "x_vector_only": "x_vector_only_mode",
}
"""Other names of our fields; where a request has both, ours counts."""

CLONING = (
    "references", "reference_id", "audio_prompt", "audio_prompt_path", "prompt_audio", "prompt_text", "voice_clone",
    "voice_file", "speaker_wav", "clone_voice",
)  # fmt: skip
"""Fields of other servers that ask for a cloned voice, in ways that are not followed here."""
_ADDRESSES = ("data:", "http://", "https://", "file://")
_SCHEME_CHARS = max(map(len, _ADDRESSES))

MAX_NAMES = 20
MAX_NAME_CHARS = 40


class Understood(NamedTuple):
    """Fields by our names, the names that they were sent by where these differ, and names of ignored fields.

    Those of the ignored ones that are other names of ours are `superseded`; their values have to be right all the same.
    """

    fields: dict[str, Any]
    sent_as: dict[str, str]
    superseded: dict[str, Any]
    ignored: tuple[str, ...]


def understand(sent: Mapping[str, Any], known: Collection[str]) -> Understood:
    """Sort the fields of a request.

    Args:
        sent: the fields by the client's names.
        known: the names of our fields.

    Raises:
        InvalidRequestError: the request asks for a cloned voice in a way that is not followed; any other voice would be
            the wrong answer.
    """
    _refuse_cloning(sent)
    fields = {name: value for name, value in sent.items() if name in known}
    sent_as: dict[str, str] = {}
    superseded: dict[str, Any] = {}
    ignored = []
    for name, value in sent.items():
        if name in known or is_absent(value):
            continue
        ours = ALIASES.get(name)
        if ours and is_absent(fields.get(ours)):
            fields[ours], sent_as[ours] = value, name
            continue
        ignored.append(name)
        if ours:
            superseded[name] = value
    return Understood(fields, sent_as, superseded, told(ignored))


def is_absent(value: object) -> bool:
    """Whether a value says nothing: it is null, or a text of blanks only, as forms send it."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_asked(value: object) -> bool:
    """Whether a field asks for something: it is there, and it is not switched off."""
    return not is_absent(value) and value is not False


def _refuse_cloning(sent: Mapping[str, Any]) -> None:
    for name in CLONING:
        if is_asked(value := sent.get(name)) and value not in ([], {}):
            raise _no_cloning(name)
    voice = sent.get("voice")
    if isinstance(voice, str) and voice.strip()[:_SCHEME_CHARS].lower().startswith(_ADDRESSES):
        raise _no_cloning("voice")


def _no_cloning(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{name} asks for a cloned voice in a way that this server does not know; send the recording as ref_audio and "
        "what is said in it as ref_text, or the voice of POST /v1/audio/voices",
        param=name,
    )


def told(names: Sequence[str]) -> tuple[str, ...]:
    """Encode names for a header; if there are too many, the last entry says how many more there are."""
    shown = [
        quote(name[:MAX_NAME_CHARS].encode("utf-8", "replace"), safe="")[:MAX_NAME_CHARS] for name in names[:MAX_NAMES]
    ]
    more = len(names) - MAX_NAMES
    return (*shown, f"{more}-more") if more > 0 else tuple(shown)
