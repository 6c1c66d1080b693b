"""What the talker is fed before it speaks: the prompt of CustomVoice and VoiceDesign as input embeddings.

The layouts are those of the official `qwen-tts` package's `generate`. Every position is a text embedding, from the role
on plus a codec embedding. Where the layout is `whole` (there `non_streaming_mode=True`), the prompt holds all of the
text. Where it is `streaming` (`non_streaming_mode=False`), the prompt ends with the first token of the text; the other
tokens and the end of the text are fed one a frame behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.engine.tokenizer import TextTokenizer
from server.graphs.pages import MappedTable
from server.manifest import Manifest, Speaker

Floats = NDArray[np.float32]
Layout = Literal["whole", "streaming"]
AUTO = "auto"
ROLE_IDS = 3
END_IDS = 5
INSTRUCTION_SHARE = 0.5
"""An instruction may take this part of a prompt's positions; the rest is there for text."""
NO_TEXT: Floats = np.zeros((0, 0), np.float32)
"""What follows a prompt that holds all of its text."""


class PromptError(ValueError):
    """A prompt that cannot be built: an unknown speaker or language, or a text too long for the model."""


class InstructionError(PromptError):
    """An instruction that leaves too little room for text."""


@dataclass(frozen=True)
class Prompt:
    """Talker inputs, float32 `[positions, hidden]`; the first `prefix` are the same for every text said this way."""

    embeddings: Floats
    prefix: int
    following: Floats = field(default_factory=lambda: NO_TEXT)
    """Text sides of the positions behind the prompt, one a frame, `[tokens, hidden]`; padding is fed behind them."""

    def __len__(self) -> int:
        return len(self.embeddings)

    @cached_property
    def key(self) -> bytes:
        """What tells one prefix from another."""
        return blake2b(self.embeddings[: self.prefix].tobytes()).digest()


class Manner(NamedTuple):
    """How a text is said, whatever it is: ids of the instruction, and language and speaker on the codec side."""

    instructed: tuple[int, ...]
    codec: tuple[int, ...]


class PromptBuilder:
    """Builds prompts for one bundle.

    Args:
        manifest: ids, speakers, languages and sizes.
        tokenizer: of the same bundle.
        text_embedding: `text_projection` of the text embedding, float32 `[text_vocab, hidden]`.
        codec_embedding: the talker's codec embedding, float32 `[vocab, hidden]`.
        max_positions: of a prompt; None is as many as the model has, less one for a frame.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        text_embedding: Floats | MappedTable,
        codec_embedding: Floats | MappedTable,
        max_positions: int | None = None,
    ) -> None:
        self._manifest = manifest
        self.tokenizer = tokenizer
        self._text = text_embedding
        self._codec = codec_embedding
        room = manifest.sizes.talker.max_positions - 1
        self.max_positions = room if max_positions is None else min(max_positions, room)
        """Positions that a prompt may take."""
        self._most_instructed = int(INSTRUCTION_SHARE * self.max_positions)
        self.pad: Floats = np.array(text_embedding[manifest.ids.tts_pad])
        """Text side of every position after the text, `[hidden]`."""
        self.im_start, self.text_end = manifest.ids.im_start, manifest.ids.tts_eos

    def count_tokens(self, text: str) -> int:
        """Positions that a text takes."""
        return self.tokenizer.count(text)

    def build(
        self,
        text: str,
        *,
        speaker: str | None,
        language: str,
        instruction: str | None,
        layout: Layout = "whole",
    ) -> Prompt:
        """Embed a prompt.

        Args:
            text: what to say.
            speaker: a key of the manifest's speakers, or None where the model has no speakers.
            language: a key of the manifest's languages, or `auto`.
            instruction: how to say it; dropped by models that do not follow instructions.
            layout: whether the prompt holds the whole text, or its first token only.

        Raises:
            PromptError: unknown speaker or language, or more positions than a prompt may take.
            InstructionError: the instruction takes more than its share of them.
        """
        ids = self._manifest.ids
        if self.tokenizer.surely_exceeds(text, self.max_positions):
            raise PromptError(f"the text alone takes more than the {self.max_positions} positions that are allowed")
        chat = self._chat_ids(text)
        role, body = chat[:ROLE_IDS], chat[ROLE_IDS:-END_IDS]
        manner = self.manner(speaker=speaker, language=language, instruction=instruction)
        # Counted before anything is embedded: an embedding takes kilobytes a position, and a request may ask for many.
        self.check_room(manner, len(body))
        if layout == "streaming":
            first, *others = body or [ids.im_end]  # of no text the official package takes what stands behind it
            return replace(self.opening(manner, role, first), following=self.text_sides([*others, ids.tts_eos]))
        prefix, spoken = self._prefix(manner, role), [*body, ids.tts_eos]
        said = self._text[spoken] + self._codec[[ids.codec_pad] * len(spoken)]
        last = self._text[[ids.tts_pad]] + self._codec[[ids.codec_bos]]
        return Prompt(np.concatenate([prefix, said, last]).astype(np.float32, copy=False), len(prefix))

    def manner(self, *, speaker: str | None, language: str, instruction: str | None) -> Manner:
        """How a text is said; the arguments and errors are those of `build`."""
        codec = self._codec_prefix(speaker, language)
        instructed = self._instruction_ids(instruction)
        if len(instructed) > self._most_instructed:
            raise InstructionError(
                f"the instructions take {len(instructed)} positions; at most {self._most_instructed} are allowed"
            )
        return Manner(tuple(instructed), tuple(codec))

    def check_room(self, manner: Manner, tokens: int) -> None:
        """See that so many tokens of text may be said in this manner, in whichever layout.

        Raises:
            PromptError: they may not.
        """
        positions = self.opening_positions(manner) + tokens + 1
        if positions > self.max_positions:
            raise PromptError(
                f"the text and instruction take {positions} positions; at most {self.max_positions} are allowed"
            )

    def opening_positions(self, manner: Manner) -> int:
        """Positions of `opening`, the first token of the text among them."""
        return len(manner.instructed) + ROLE_IDS + len(manner.codec) + 2

    def opening(self, manner: Manner, role: Sequence[int], first: int) -> Prompt:
        """The prompt of the layout `streaming`, without what follows it: `role` ids, and the first token of text."""
        prefix = self._prefix(manner, role)
        said = self._text[[first]] + self._codec[[self._manifest.ids.codec_bos]]
        return Prompt(np.concatenate([prefix, said]).astype(np.float32, copy=False), len(prefix))

    def text_sides(self, ids: Sequence[int]) -> Floats:
        """What is fed of these tokens behind a prompt, `[tokens, hidden]`."""
        return np.array(self._text[list(ids)], np.float32)

    def _prefix(self, manner: Manner, role: Sequence[int]) -> Floats:
        ids, codec = self._manifest.ids, manner.codec
        begun = self._text[[ids.tts_pad] * len(codec) + [ids.tts_bos]] + self._codec[[*codec, ids.codec_pad]]
        return np.concatenate([self._text[list(manner.instructed)], self._text[list(role)], begun])

    def _chat_ids(self, text: str) -> list[int]:
        # The role and the text are tokenised in one piece, as a chat template does: a text that begins with a line
        # break merges with the one before it, and the official package cuts role and body by count all the same.
        ids, encode = self._manifest.ids, self.tokenizer.encode
        said = [ids.im_start, *encode(f"assistant\n{text}"), ids.im_end, *encode("\n")]
        return [*said, ids.im_start, *encode("assistant\n")]

    def _instruction_ids(self, instruction: str | None) -> list[int]:
        if not instruction or not self._manifest.follows_instructions:
            return []
        if self.tokenizer.surely_exceeds(instruction, self._most_instructed):
            raise InstructionError(f"the instructions take more than the {self._most_instructed} positions allowed")
        ids, encode = self._manifest.ids, self.tokenizer.encode
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
