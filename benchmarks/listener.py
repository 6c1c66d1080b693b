"""What a listener hears of speech whose text arrives over time, and which of its gaps the text has caused."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

from server.engine.live import StableTokens
from server.engine.manner import ROLE_IDS
from server.engine.tokenizer import TextTokenizer
from server.text.gradual import Gradual, Preparation
from server.text.lines import PARAGRAPH

FRAME_SECONDS = 0.08
"""Of a codec frame."""
REACTION_FRAMES = 5
"""The time, in codec frames, in which sound is wanted behind its text: the first sound behind the third word, and more
sound where a row has waited for text."""
LEAST_GAP_SECONDS = 0.001
"""A shorter one is no gap: clocks and sockets make such."""

Token = tuple[float, str]
"""When it comes, in seconds from the first one, and its text."""


@dataclass(frozen=True)
class Gap:
    """A silence that a player made for want of sound.

    Attributes:
        at: when the sound ran out.
        seconds: how long it lasted.
        own: the seconds of it that the text did not cause: those in which the text of what was missing had been there
            for `REACTION_FRAMES`.
    """

    at: float
    seconds: float
    own: float


@dataclass
class Listener:
    """A player that begins at the first sound and plays on. Times are seconds on one clock.

    Attributes:
        first: when the first sound came.
        end: when the last one came.
        audio: seconds of sound so far.
        gaps: in order.
    """

    first: float | None = None
    end: float = 0.0
    audio: float = 0.0
    gaps: list[Gap] = field(default_factory=list)
    _played: float = 0.0
    """When the sound that has come runs out."""

    def hear(self, now: float, seconds: float, text_came: float) -> None:
        """Take in sound.

        Args:
            now: when it comes.
            seconds: how long it is.
            text_came: when the last of the text had come that it says.
        """
        if self.first is None:
            self.first = self._played = now
        if now - self._played > LEAST_GAP_SECONDS:
            due = max(self._played, text_came + REACTION_FRAMES * FRAME_SECONDS)
            own = now - due
            self.gaps.append(Gap(self._played, now - self._played, own if own > LEAST_GAP_SECONDS else 0.0))
        self._played = max(self._played, now) + seconds
        self.audio += seconds
        self.end = now


def unit_came(tokens: list[Token], letters: int) -> float:
    """When so many characters, blanks not counted, were there, and the one that shows that a unit ends behind them."""
    counts = accumulate(len("".join(piece.split())) for _, piece in tokens)
    return next((at for (at, _), count in zip(tokens, counts, strict=True) if count > letters), tokens[-1][0])


def certain(tokenizer: TextTokenizer, preparation: Preparation, tokens: list[Token]) -> list[float]:
    """When a row could take each token of a text that is given to the model as it comes, and the end of the text.

    A token can be taken once later text cannot change it: neither how it is prepared nor how it is cut into tokens.
    """
    gradual, stable = Gradual(preparation), StableTokens(tokenizer)
    times: list[float] = []
    for at, piece in tokens:
        for text in gradual.feed(piece):
            ids, held = stable.feed(text)
            stable.hold(held)
            times += [at] * len(ids)
    end = tokens[-1][0]
    for text in gradual.end():
        if text != PARAGRAPH:
            ids, held = stable.feed(text)
            stable.hold(held)
            times += [end] * len(ids)
    times += [end] * len(stable.end())
    return [*times[ROLE_IDS - 1 :], end]


def frames_came(times: list[float], until: float) -> float:
    """When the text had come that a row takes until it has made so many seconds of sound: a token beyond the first with
    each frame; `times` are those of `certain`."""
    return times[min(round(until / FRAME_SECONDS), len(times) - 1)]
