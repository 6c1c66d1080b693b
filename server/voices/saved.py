"""A cloned voice that is kept, and its file, `NAME.safetensors`.

A file holds what a Base checkpoint's encoders have made of a recording, and not the recording itself: the speaker
embedding, the codec codes and the text are all that a model of the same sizes needs to speak with the voice. A voice
belongs to the key that made it, of which a digest is kept; one without an owner is everybody's.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from server.engine.reference import Reference
from server.manifest import Manifest

SUFFIX = ".safetensors"
MAX_VOICE_BYTES = 256_000
"""Of a file. A minute of codes takes 24 KB, a speaker embedding 8."""
MAX_NAME_CHARS = 64
MAX_TEXT_CHARS = 4000
MAX_DESCRIPTION_CHARS = 200
NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{MAX_NAME_CHARS - 2}}}[A-Za-z0-9_-])?")
"""No part of a path, no sign of a formula, not hidden, and no dot at its end, which Windows drops."""
NAMES = f"letters, digits, '.', '_' and '-', {MAX_NAME_CHARS} at most, a letter or digit first and no '.' last"

_META = "voice"
_LENGTH = 8
"""Bytes in which a file says how long its header is, https://huggingface.co/docs/safetensors."""
_SPEAKER, _CODES = "speaker", "codes"


class Sizes(BaseModel):
    """What a model must have to speak with a voice."""

    model_config = ConfigDict(frozen=True)

    hidden: Annotated[int, Field(gt=0)]
    """Of the talker."""
    groups: Annotated[int, Field(gt=0)]
    """Codes of a codec frame."""
    codebook: Annotated[int, Field(gt=0)]
    """Entries of a codebook."""

    @classmethod
    def of(cls, manifest: Manifest) -> Sizes:
        """The sizes of a model."""
        codec = manifest.sizes.codec
        return cls(hidden=manifest.sizes.talker.hidden_size, groups=codec.num_quantizers, codebook=codec.codebook_size)


class Facts(BaseModel):
    """What is known of a voice beside its tensors; it is a file's metadata."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARS)] = ""
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = None
    """What is said in the recording; None where only the speaker embedding is used."""
    created: Annotated[int, Field(ge=0)]
    """Unix seconds."""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Of the recording; 0 where there was none."""
    model: str
    """Id of the model that encoded it."""
    sizes: Sizes
    owner: str | None = None
    """Digest of the key that made it."""
    shared: bool = False
    """Whether others may speak with it."""
    consent: str = ""
    """What was said of the speaker's agreement."""
    designed: bool = False
    """Whether a VoiceDesign model made it up, so that nobody's voice was recorded."""
    notes: tuple[str, ...] = ()
    """What is wrong with the recording."""


@dataclass(frozen=True, eq=False)
class SavedVoice:
    """A voice that is kept."""

    facts: Facts
    reference: Reference

    @property
    def name(self) -> str:
        """What a request's `voice` may be."""
        return self.facts.name

    def visible(self, caller: str | None) -> bool:
        """Whether who asks, by the digest of a key, may speak with it."""
        return self.facts.owner is None or self.facts.shared or self.facts.owner == caller

    def fits(self, manifest: Manifest) -> bool:
        """Whether a model can speak with it."""
        return manifest.clones and Sizes.of(manifest) == self.facts.sizes


class VoiceFileError(ValueError):
    """A file holds no voice; the message says why."""


def write_voice(voice: SavedVoice) -> bytes:
    """The content of a voice's file."""
    reference = voice.reference
    tensors: dict[str, NDArray] = {_SPEAKER: np.ascontiguousarray(reference.speaker, np.float32)}
    if reference.codes is not None:
        tensors[_CODES] = np.ascontiguousarray(reference.codes, np.int32)
    return save(tensors, {_META: voice.facts.model_dump_json()})


def read_voice(path: Path) -> SavedVoice:
    """Read a voice's file.

    Raises:
        VoiceFileError: it is no such file, or a damaged one.
        OSError: it cannot be read.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_VOICE_BYTES:
        raise VoiceFileError(f"it is no file of at most {MAX_VOICE_BYTES} bytes")
    try:
        # Read, and not mapped: a mapped file that is cut off in the meantime would end the process.
        with path.open("rb") as stream:
            content = stream.read(MAX_VOICE_BYTES)
        tensors = load(content)
        header = json.loads(content[_LENGTH : _LENGTH + int.from_bytes(content[:_LENGTH], "little")])
        facts = Facts.model_validate_json(header["__metadata__"][_META])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise VoiceFileError(f"it is no file of a voice ({type(error).__name__})") from None
    speaker, codes = tensors.get(_SPEAKER), tensors.get(_CODES)
    sizes = facts.sizes
    if speaker is None or speaker.dtype != np.float32 or speaker.shape != (sizes.hidden,):
        raise VoiceFileError("its speaker embedding does not fit")
    if not np.isfinite(speaker).all():
        raise VoiceFileError("its speaker embedding is not finite")
    if (codes is None) != (facts.text is None):
        raise VoiceFileError("it has codes without a text, or a text without codes")
    if codes is not None:
        if codes.dtype != np.int32 or codes.ndim != 2 or codes.shape[1] != sizes.groups or not len(codes):
            raise VoiceFileError("its codes do not fit")
        if codes.min() < 0 or codes.max() >= sizes.codebook:
            raise VoiceFileError("its codes are out of range")
    if path.name != facts.name + SUFFIX:
        raise VoiceFileError(f"its voice is called {facts.name}")
    return SavedVoice(facts, Reference(speaker, None if codes is None else codes.astype(np.int64), facts.text))
