"""How a text is said, whatever it is: the ids of instruction, language and speaker, and the cloned voice.

They are chosen as the official `qwen-tts` package's `generate` does. A model that clones voices has the embedding of a
speaker where others have an id.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.engine.reference import Reference
from server.engine.tokenizer import TextTokenizer
from server.manifest import Manifest, Speaker, TokenIds

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]
AUTO = "auto"
"""The language that the model finds out by itself."""
ROLE_IDS = 3
"""Ids before a text in a chat: who speaks."""
END_IDS = 5
"""Ids behind it."""
INSTRUCTION_SHARE = 0.5
"""An instruction may take this part of a prompt's positions; the rest is there for text."""
NO_CLONING = (
    "{model} cannot clone voices; a Base model can: "
    "qwen3-tts convert --model Qwen/Qwen3-TTS-12Hz-0.6B-Base --output models/qwen3_tts_0_6b_base"
)


class PromptError(ValueError):
    """A prompt that cannot be built: an unknown speaker or language, or a text too long for the model."""


class CloneError(PromptError):
    """A cloned voice that this model cannot speak with, or a recording that is none."""


class InstructionError(PromptError):
    """An instruction that leaves too little room for text."""


class Recording(NamedTuple):
    """What a prompt holds of a recording: ids of its text, and its codec frames `[frames, groups]`."""

    text: tuple[int, ...]
    codes: Codes


class Manner(NamedTuple):
    """How a text is said, whatever it is: ids of the instruction, language and speaker on the codec side, and, of a
    cloned voice, the speaker's embedding `[hidden]` and the recording."""

    instructed: tuple[int, ...]
    codec: tuple[int, ...]
    voice: Floats | None = None
    recording: Recording | None = None

    @property
    def positions(self) -> int:
        """Of a prompt, those that are there whatever is said, in whichever layout."""
        recorded = self.recording
        return (
            len(self.instructed) + ROLE_IDS + len(self.codec) + (self.voice is not None) + 1
            + (len(recorded.text) + len(recorded.codes) if recorded else 0)
        )  # fmt: skip


class Manners:
    """Finds the manners of one bundle.

    Args:
        manifest: ids, speakers, languages and sizes.
        tokenizer: of the same bundle.
        max_positions: of a prompt.
    """

    def __init__(self, manifest: Manifest, tokenizer: TextTokenizer, max_positions: int) -> None:
        self._manifest, self._tokenizer, self._max_positions = manifest, tokenizer, max_positions
        self._most_instructed = int(INSTRUCTION_SHARE * max_positions)

    def of(
        self, *, speaker: str | None, language: str, instruction: str | None, reference: Reference | None = None
    ) -> Manner:
        """Find one.

        Args:
            speaker: a key of the manifest's speakers, or None where the model has no speakers.
            language: a key of the manifest's languages, or `auto`.
            instruction: how to say it; dropped by models that do not follow instructions.
            reference: the voice to speak with, in a model that clones voices.

        Raises:
            PromptError: unknown speaker or language, or a recording whose text takes more than a prompt may.
            InstructionError: the instruction takes more than its share of a prompt.
            CloneError: the model clones no voices, or none but cloned ones and there is none, or the voice is not
                of this model's sizes.
        """
        check_reference(self._manifest, speaker, reference)
        codec = self._codec_prefix(speaker, language)
        instructed = self._instruction_ids(instruction)
        if len(instructed) > self._most_instructed:
            raise InstructionError(
                f"the instructions take {len(instructed)} positions; at most {self._most_instructed} are allowed"
            )
        if reference is None:
            return Manner(tuple(instructed), tuple(codec))
        voice = reference.speaker.astype(np.float32, copy=False)
        return Manner(tuple(instructed), tuple(codec), voice, self._recording(reference))

    def _recording(self, reference: Reference) -> Recording | None:
        codes, text = reference.codes, reference.text
        if codes is None or text is None:
            return None
        if self._tokenizer.surely_exceeds(text, self._max_positions):
            raise PromptError(f"the text of the recording takes more than the {self._max_positions} positions allowed")
        # The official package cuts both texts in the same way.
        ids = chat_ids(self._tokenizer, self._manifest.ids, text)
        return Recording(tuple(ids[ROLE_IDS:-END_IDS]), codes)

    def _instruction_ids(self, instruction: str | None) -> list[int]:
        if not instruction or not self._manifest.follows_instructions:
            return []
        if self._tokenizer.surely_exceeds(instruction, self._most_instructed):
            raise InstructionError(f"the instructions take more than the {self._most_instructed} positions allowed")
        ids, encode = self._manifest.ids, self._tokenizer.encode
        return [ids.im_start, *encode(f"user\n{instruction}"), ids.im_end, *encode("\n")]

    def _codec_prefix(self, speaker: str | None, language: str) -> list[int]:
        """Language and speaker on the codec side."""
        ids = self._manifest.ids
        voice = self._speaker(speaker)
        language_id = self._language_id(language, voice.dialect if voice else None)
        if language_id is None:
            prefix = [ids.codec_nothink, ids.codec_think_bos, ids.codec_think_eos]
        else:
            prefix = [ids.codec_think, ids.codec_think_bos, language_id, ids.codec_think_eos]
        return [*prefix, voice.id] if voice else prefix

    def _speaker(self, speaker: str | None) -> Speaker | None:
        speakers = self._manifest.speakers
        if speaker is None:
            return None
        if speaker not in speakers:
            raise PromptError(f"unknown speaker {speaker!r}; this model has: {', '.join(speakers) or 'none'}")
        return speakers[speaker]

    def _language_id(self, language: str, dialect: str | None) -> int | None:
        languages = self._manifest.languages
        if dialect and language.lower() in ("chinese", AUTO):
            return languages[dialect]
        if language == AUTO:
            return None
        if language not in languages:
            raise PromptError(f"unknown language {language!r}; this model has: {', '.join([AUTO, *languages])}")
        return languages[language]


def chat_ids(tokenizer: TextTokenizer, ids: TokenIds, text: str) -> list[int]:
    """The ids of a chat in which the assistant says a text: `ROLE_IDS` of them, those of the text, and `END_IDS`."""
    # The role and the text are tokenised in one piece, as a chat template does: a text that begins with a line
    # break merges with the one before it, and the official package cuts role and body by count all the same.
    said = [ids.im_start, *tokenizer.encode(f"assistant\n{text}"), ids.im_end, *tokenizer.encode("\n")]
    return [*said, ids.im_start, *tokenizer.encode("assistant\n")]


def check_reference(manifest: Manifest, speaker: str | None, reference: Reference | None) -> None:
    """See that a model can speak with a voice.

    Args:
        manifest: of the model.
        speaker: one of its own, or None.
        reference: a cloned voice, or None.

    Raises:
        CloneError: it cannot, with what to do.
    """
    if reference is None:
        if manifest.clones and speaker is None:
            raise CloneError(f"{manifest.id} speaks with cloned voices only; give it a recording of a voice")
        return
    if not manifest.clones:
        raise CloneError(NO_CLONING.format(model=manifest.id))
    if speaker is not None:
        raise CloneError("a cloned voice and a speaker were given; give one of them")
    hidden, sizes = manifest.sizes.talker.hidden_size, manifest.sizes.code_predictor
    if reference.speaker.shape != (hidden,) or not np.isfinite(reference.speaker).all():
        raise CloneError(
            f"the speaker embedding has the shape {list(reference.speaker.shape)}, and {manifest.id} takes {hidden} "
            "finite numbers; it was made by a model of another size, so encode the recording again"
        )
    codes = reference.codes
    if codes is not None and (
        codes.ndim != 2
        or codes.shape[1] != sizes.num_code_groups
        or not len(codes)
        or codes.min() < 0
        or codes.max() >= sizes.vocab_size
    ):
        raise CloneError(
            f"the codes of the recording have the shape {list(codes.shape)}, and {manifest.id} takes frames of "
            f"{sizes.num_code_groups} codes from 0 to {sizes.vocab_size - 1}; encode the recording again"
        )
    if reference.text is not None and not reference.text.strip():
        raise CloneError("the text of the recording is empty; say what is heard in it, or use the voice alone")
