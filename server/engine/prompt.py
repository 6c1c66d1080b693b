"""What the talker is fed before it speaks: a prompt as input embeddings.

The layouts are those of the official `qwen-tts` package's `generate`. Every position is a text embedding, from the role
on plus a codec embedding. Where the layout is `whole` (there `non_streaming_mode=True`), the prompt holds all of the
text. Where it is `streaming` (`non_streaming_mode=False`), the prompt ends with the first token of the text; the other
tokens and the end of the text are fed one a frame behind it.

A model that clones voices has the embedding of a speaker where others have a row of their codec table. In-context
learning puts the codec frames of the recording behind that, as if the model had just said its text: in the layout
`whole` behind the texts of recording and speech, in `streaming` beside them, token by frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Literal

import numpy as np

from server.engine.manner import (
    END_IDS,
    ROLE_IDS,
    Codes,
    Floats,
    Manner,
    Manners,
    PromptError,
    Recording,
    chat_ids,
)
from server.engine.reference import Reference
from server.engine.tokenizer import TextTokenizer
from server.graphs.pages import MappedTable
from server.manifest import PREDICTOR_TABLE, BundleError, Manifest

Layout = Literal["whole", "streaming"]
NO_TEXT: Floats = np.zeros((0, 0), np.float32)
"""What follows a prompt that holds all of its text."""


@dataclass(frozen=True)
class Prompt:
    """Talker inputs, float32 `[positions, hidden]`; the first `prefix` are the same for every text said this way."""

    embeddings: Floats
    prefix: int
    following: Floats = field(default_factory=lambda: NO_TEXT)
    """Text sides of the positions behind the prompt, one a frame, `[tokens, hidden]`; padding is fed behind them."""
    spoken: Codes | None = None
    """Codec frames of a recording that the speech goes on from, `[frames, groups]`; None where it begins anew."""

    def __len__(self) -> int:
        return len(self.embeddings)

    @cached_property
    def key(self) -> bytes:
        """What tells one prefix from another."""
        return blake2b(self.embeddings[: self.prefix].tobytes()).digest()


class PromptBuilder:
    """Builds prompts for one bundle.

    Args:
        manifest: ids, speakers, languages and sizes.
        tokenizer: of the same bundle.
        text_embedding: `text_projection` of the text embedding, float32 `[text_vocab, hidden]`.
        codec_embedding: the talker's codec embedding, float32 `[vocab, hidden]`.
        max_positions: of a prompt; None is as many as the model has, less one for a frame.
        predictor_embedding: the code predictor's embeddings, float32 `[(groups - 1) * codes, hidden]`, for recordings;
            None where the model clones no voices.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        text_embedding: Floats | MappedTable,
        codec_embedding: Floats | MappedTable,
        max_positions: int | None = None,
        predictor_embedding: Floats | MappedTable | None = None,
    ) -> None:
        self._manifest = manifest
        self.tokenizer = tokenizer
        self._text = text_embedding
        self._codec = codec_embedding
        self._predictor = predictor_embedding
        room = manifest.sizes.talker.max_positions - 1
        self.max_positions = room if max_positions is None else min(max_positions, room)
        """Positions that a prompt may take."""
        self.manners = Manners(manifest, tokenizer, self.max_positions)
        """The ways in which a text can be said."""
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
        layout: Layout | None = None,
        reference: Reference | None = None,
    ) -> Prompt:
        """Embed a prompt.

        Args:
            text: what to say.
            speaker: a key of the manifest's speakers, or None where the model has no speakers.
            language: a key of the manifest's languages, or `auto`.
            instruction: how to say it; dropped by models that do not follow instructions.
            layout: whether the prompt holds the whole text, or its first token only; None is what the official package
                does, which is `streaming` for a model that clones voices and `whole` for all others.
            reference: the voice to speak with, in a model that clones voices.

        Raises:
            PromptError: unknown speaker or language, or more positions than a prompt may take.
            InstructionError: the instruction takes more than its share of them.
            CloneError: as `Manners.of`.
        """
        ids = self._manifest.ids
        layout = layout or ("streaming" if self._manifest.clones and not self._manifest.whole_text else "whole")
        if self.tokenizer.surely_exceeds(text, self.max_positions):
            raise PromptError(f"the text alone takes more than the {self.max_positions} positions that are allowed")
        chat = chat_ids(self.tokenizer, ids, text)
        role, body = chat[:ROLE_IDS], chat[ROLE_IDS:-END_IDS]
        manner = self.manners.of(speaker=speaker, language=language, instruction=instruction, reference=reference)
        # Counted before anything is embedded: an embedding takes kilobytes a position, and a request may ask for many.
        self.check_room(manner, len(body))
        recording = manner.recording
        if layout == "streaming":
            if not recording:
                body = body or [ids.im_end]  # of no text the official package takes what stands behind it
            return self.opening(manner, role, [*body, ids.tts_eos])
        prefix, read = self._prefix(manner, role), recording.text if recording else ()
        texts = [*read, *body, ids.tts_eos]
        said = self._text[texts] + self._codec[[ids.codec_pad] * len(texts)]
        frames = self._frames(recording)
        begun = self._text[[ids.tts_pad] * len(frames)] + frames
        embeddings = np.concatenate([prefix, said, begun]).astype(np.float32, copy=False)
        return Prompt(embeddings, len(prefix) + len(read), spoken=recording.codes if recording else None)

    def check_room(self, manner: Manner, tokens: int) -> None:
        """See that so many tokens of text may be said in this manner, in whichever layout.

        Raises:
            PromptError: they may not.
        """
        positions = manner.positions + tokens + 2
        if positions > self.max_positions:
            what = "text, instruction and recording" if manner.recording else "text and instruction"
            raise PromptError(f"the {what} take {positions} positions; at most {self.max_positions} are allowed")

    def opening_positions(self, manner: Manner) -> int:
        """Positions of `opening`, the first tokens of the text among them."""
        return manner.positions + 1 - (len(manner.recording.text) if manner.recording else 0)

    def opening(self, manner: Manner, role: Sequence[int], text: Sequence[int]) -> Prompt:
        """The prompt of the layout `streaming`, and what follows it of the text so far.

        Args:
            manner: how it is said.
            role: ids.
            text: ids, with that of its end where that is known. Without it there are at least as many as `openings`
                says.
        """
        ids, prefix, recording = self._manifest.ids, self._prefix(manner, role), manner.recording
        read = recording.text if recording else ()
        frames, texts = self._frames(recording), [*read, *text]
        beside, rest = texts[: len(frames)], texts[len(frames) :]
        said = self._text[beside + [ids.tts_pad] * (len(frames) - len(beside))] + frames
        return Prompt(
            np.concatenate([prefix, said]).astype(np.float32, copy=False),
            len(prefix) + min(len(read), len(frames) - 1),
            following=self.text_sides(rest) if rest else NO_TEXT,
            spoken=recording.codes if recording else None,
        )

    @staticmethod
    def openings(manner: Manner) -> int:
        """How many tokens of a text its prompt holds in the layout `streaming`, where the text has so many."""
        recording = manner.recording
        return max(1, 1 + len(recording.codes) - len(recording.text)) if recording else 1

    def text_sides(self, ids: Sequence[int]) -> Floats:
        """What is fed of these tokens behind a prompt, `[tokens, hidden]`."""
        return np.array(self._text[list(ids)], np.float32)

    def _prefix(self, manner: Manner, role: Sequence[int]) -> Floats:
        ids, codec = self._manifest.ids, manner.codec
        sides = self._codec[[*codec, ids.codec_pad]]
        if manner.voice is not None:
            sides = np.insert(sides, len(codec), manner.voice, axis=0)
        begun = self._text[[ids.tts_pad] * (len(sides) - 1) + [ids.tts_bos]] + sides
        return np.concatenate([self._text[list(manner.instructed)], self._text[list(role)], begun])

    def _frames(self, recording: Recording | None) -> Floats:
        """The codec side from the beginning of speech on: that id, and the frames of the recording, `[1 + frames,
        hidden]`."""
        begin = self._codec[[self._manifest.ids.codec_bos]]
        if recording is None:
            return begin
        if self._predictor is None:
            raise BundleError(f"{self._manifest.id}: {PREDICTOR_TABLE} is missing; convert the checkpoint again")
        sizes = self._manifest.sizes.code_predictor
        frames = self._codec[recording.codes[:, 0].tolist()]
        for group in range(1, sizes.num_code_groups):
            rows = recording.codes[:, group] + (group - 1) * sizes.vocab_size
            frames = frames + self._predictor[rows.tolist()]
        return np.concatenate([begin, frames])
