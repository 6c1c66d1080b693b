"""Text that arrives while it is spoken: its tokens as soon as they are certain, and the job that speaks them.

The prompt has the layout `streaming`: it ends with the first token, and the others are fed one a frame. So a row can
begin with the first word. With a recording to go on from, the prompt holds as many tokens as the recording has frames
beyond its own text, so that the row begins with these, or at the end of the text. Where its text has not come yet it
waits, since the padding that is fed behind a text would tell the model that the text is over.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from server.engine.job import Floats, Job, Listener, Sampling
from server.engine.manner import ROLE_IDS, PromptError
from server.engine.prompt import NO_TEXT, Prompt, PromptBuilder
from server.engine.reference import Reference
from server.engine.tokenizer import TextTokenizer

MAX_HELD = 4096
"""Characters of a single word or of one run of white space; each that comes makes all of them be looked at again."""
MEASURE_GROWTH = 1.125
"""A text is measured anew for the guard each time it has grown by so much: so all of that takes linear time."""


class StableTokens:
    """The ids of a text that arrives over time: those that no later text can change.

    They are the ids that `PromptBuilder.build` has of the whole text, wherever it is cut: `ROLE_IDS` less one of them
    belong to the role, with which the text is tokenised in one piece. The last piece of the text is held back until the
    next one has begun, or from its last seam on. Marks at its end count for nothing until then, since the normal form
    may put others before them.

    Args:
        tokenizer: of the bundle.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        tokenizer.joints  # noqa: B018  # found now, since `feed` must not take long
        self._held = "assistant\n"

    def feed(self, text: str) -> tuple[list[int], str]:
        """Ids that are certain by now and have not been given before, and what is left, to be given to `hold`."""
        held = self._tokenizer.normal(self._held + text)
        stable = len(held)
        while stable and unicodedata.category(held[stable - 1]).startswith("M"):  # a mark that comes may go before it
            stable -= 1
        pieces = self._tokenizer.cut(held[:stable])
        # White space that ends the text may be one piece with a line break that is still to come.
        certain = len(pieces) - 1
        while certain > 0 and pieces[certain].isspace() and pieces[certain - 1].isspace():
            certain -= 1
        certain = max(certain, 0)
        left = pieces[certain:]
        seam = self._tokenizer.seam(left[0]) if len(left) == 1 else 0
        known = [*pieces[:certain], left[0][:seam]] if seam else pieces[:certain]
        return self._tokenizer.encode_pieces(known), "".join(left)[seam:] + held[stable:]

    def hold(self, text: str) -> None:
        """Take over the text that `feed` has left."""
        self._held = text

    def count(self, held: str) -> int:
        """How many ids `end` would give of a text that is held."""
        return len(self._tokenizer.encode(held))

    def end(self) -> list[int]:
        """The ids of what is held, the text being over."""
        held, self._held = self._held, ""
        return self._tokenizer.encode(held)


class Grown(NamedTuple):
    """What has become certain of a text: the prompt, if it was not there before, and what is fed behind it."""

    prompt: Prompt | None
    following: Sequence[Floats]
    tokens: int
    """Of the whole text so far."""


class LiveText:
    """The text of one job in the making: its tokens, and their embeddings. It is no more thread-safe than a list.

    Args:
        prompts: of the bundle.
        speaker, language, instruction, reference: as for `PromptBuilder.build`.

    Raises:
        PromptError: as `Manners.of`.
    """

    def __init__(
        self,
        prompts: PromptBuilder,
        *,
        speaker: str | None,
        language: str,
        instruction: str | None,
        reference: Reference | None = None,
    ) -> None:
        self._prompts = prompts
        self._manner = prompts.manners.of(
            speaker=speaker, language=language, instruction=instruction, reference=reference
        )
        self._openings = prompts.openings(self._manner)
        self._opened = False
        """Whether there is a prompt."""
        self._tokens = StableTokens(prompts.tokenizer)
        self._ids: list[int] = [prompts.im_start]
        """Ids of the role and of the text, until there is a prompt."""
        self._count = 1
        """Ids so far, those of the role too."""

    @property
    def prompt_positions(self) -> int:
        """Positions that the prompt takes, with the first token of the text."""
        return self._prompts.opening_positions(self._manner)

    def feed(self, text: str) -> Grown:
        """Take in some text, cut off anywhere.

        Raises:
            PromptError: the text is longer than it may be; it stays as it was.
        """
        if self._prompts.tokenizer.surely_exceeds(text, self._prompts.max_positions):
            raise PromptError(f"the text takes more than the {self._prompts.max_positions} positions that are allowed")
        ids, held = self._tokens.feed(text)
        if len(held) > MAX_HELD:
            raise PromptError(f"a single word or run of white space has more than {MAX_HELD} characters")
        tokens = self._count + len(ids) + self._tokens.count(held) - ROLE_IDS
        self._prompts.check_room(self._manner, tokens)
        self._tokens.hold(held)
        return self._grown(ids)

    def end(self) -> Grown:
        """The text is over; the last that is fed is its end. There is never a prompt where it had no token."""
        return self._grown(self._tokens.end(), end=[self._prompts.text_end])

    def _grown(self, ids: list[int], end: Sequence[int] = ()) -> Grown:
        self._count += len(ids)
        tokens, fed = max(self._count - ROLE_IDS, 0), [*ids, *end]
        if self._opened:
            return Grown(None, list(self._prompts.text_sides(fed)), tokens)
        self._ids += fed
        if not tokens or (tokens < self._openings and not end):
            return Grown(None, [], tokens)
        self._opened = True
        prompt = self._prompts.opening(self._manner, self._ids[:ROLE_IDS], self._ids[ROLE_IDS:])
        self._ids.clear()
        return Grown(prompt, list(prompt.following), tokens)


Measure = Callable[[str], tuple[int, int]]
"""Tells of a text its tokens, and how many of these repeat what stands before them; as `Job` has them."""


class LiveJob(Job):
    """A job whose text arrives over time: `feed` as often as there is some, then `end`, from any thread.

    It may be submitted before any text has come; until then it has a place in the queue, and no slot.

    Args:
        text: `Engine.live_text`, of this job alone.
        sampling, seed, max_frames, capacity, spare, listener, number, speed: as for `Job`.
        patience: seconds without the text that the next frame takes, after which the job ends with `TextLateError`.
        measure: of the text so far, for the runaway guard; None keeps it out.
    """

    def __init__(
        self,
        text: LiveText,
        sampling: Sampling,
        seed: int,
        max_frames: int,
        capacity: int = 64,
        *,
        patience: float,
        measure: Measure | None = None,
        spare: bool = False,
        listener: Listener | None = None,
        number: int = 0,
        speed: float = 1.0,
    ) -> None:
        super().__init__(
            _NO_PROMPT,
            sampling,
            seed,
            max_frames,
            capacity,
            text_tokens=None if measure is None else 0,
            spare=spare,
            listener=listener,
            number=number,
            speed=speed,
        )
        self.patience = patience
        self._text = text
        self._measure = measure
        self._so_far: list[str] = []
        self._chars = self._measured = 0
        self._following: list[Floats] = []
        self._text_ended = False
        self._adding = threading.Lock()

    def feed(self, text: str) -> None:
        """Take in some text, cut off anywhere. It is plain text: what looks like a control token is said.

        Raises:
            PromptError: the text is longer than it may be. What came before stays, and `end` may follow.
            RuntimeError: the text has been ended.
        """
        with self._adding:
            if self._text_ended:
                raise RuntimeError("text has come behind the end of the text")
            grown = self._text.feed(text)
            self._so_far.append(text)
            self._chars += len(text)
            self._grow(grown)
        self.on_consumer()

    def end(self) -> None:
        """No more text will come; a second call does nothing. A job without text ends without audio."""
        with self._adding:
            if self._text_ended:
                return
            self._measured = 0
            self._grow(self._text.end())
            self._text_ended = True
            if not self.ready:
                self.finish()
        self.on_consumer()

    def _grow(self, grown: Grown) -> None:
        if self._measure and self._chars > self._measured * MEASURE_GROWTH:
            self._measured = self._chars
            self.text_tokens, self.repeated_tokens = self._measure("".join(self._so_far))
        self._following += grown.following
        if grown.prompt is not None:
            self.prompt = grown.prompt

    @property
    def following(self) -> Floats | Sequence[Floats]:
        return self._following

    @property
    def ready(self) -> bool:
        return self.prompt is not _NO_PROMPT

    @property
    def starved(self) -> bool:
        return not self._text_ended and (not self.ready or self.frames >= len(self._following))

    @property
    def awaits_text(self) -> bool:
        return not self._text_ended

    @property
    def has_text_left(self) -> bool:
        return not self._text_ended or super().has_text_left


_NO_PROMPT = Prompt(NO_TEXT, prefix=0)
