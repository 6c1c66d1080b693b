"""Whether written forms cost words: texts as they are sent, beside the same texts written out by hand.

Both go the whole way of a request, in this process and with the same seeds, and both are compared with the words
written out by hand. What the model itself cannot say is wrong in both; the difference is what preparing the text costs.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.recogniser import hear, normal, word_error_rate
from benchmarks.written_inputs import Pair
from server.cli.startup import open_own_service
from server.config import Settings
from server.errors import ApiError
from server.speech.request_parsing import build
from server.speech.service import SpeechService

Audio = NDArray[np.float32]
THREADS = 2
CLOSE = 3.0
"""Points of word error rate that a written text may be worse than the one written out by hand."""


@dataclass(frozen=True)
class Heard:
    """What was heard of one pair with one seed; nothing where the server gave an error."""

    pair: Pair
    seed: int
    written: str
    by_hand: str


@dataclass(frozen=True)
class Row:
    """A line of the table: word error rates in percent."""

    name: str
    words: int
    written: float
    by_hand: float

    @property
    def difference(self) -> float:
        """Points that the written texts are worse."""
        return self.written - self.by_hand


def listen(bundle: Path, pairs: Sequence[Pair], seeds: Iterable[int]) -> list[Heard]:
    """Let a bundle say both texts of all pairs, with its own sampling, and write down what is heard."""
    return asyncio.run(_listen(bundle, pairs, list(seeds)))


async def _listen(bundle: Path, pairs: Sequence[Pair], seeds: list[int]) -> list[Heard]:
    settings = Settings(models_dir=bundle.parent, model=bundle.name, threads=THREADS, max_rows=1)
    service = open_own_service(settings)
    heard: list[Heard] = []
    try:
        for pair in pairs:
            for seed in seeds:
                written, by_hand = [await _say(service, text, seed) for text in (pair.written, pair.by_hand)]
                of_hand = _words(by_hand)
                # Where both became the same text, the audio is the same, and so is what is heard.
                of_written = of_hand if np.array_equal(written[0], by_hand[0]) else _words(written)
                heard.append(Heard(pair, seed, of_written, of_hand))
    finally:
        await service.pool.close()
    return heard


async def _say(service: SpeechService, text: str, seed: int) -> tuple[Audio, int]:
    """A text's samples and their rate; none where it cannot be said."""
    try:
        request = build(model="default", voice="default", input=text, seed=seed, response_format="wav")
        speech = await service.start(request, wait=True)
        try:
            body = await speech.whole()
        finally:
            speech.stop()
    except ApiError as error:
        print(f"{error} for {text!r}")
        return np.zeros(0, np.float32), 0
    samples, rate = soundfile.read(io.BytesIO(body), dtype="float32")
    return samples, rate


def _words(audio: tuple[Audio, int]) -> str:
    return hear(*audio) if audio[1] else ""


def rows(heard: Sequence[Heard]) -> Iterator[Row]:
    """Figures by kind, in the order of the pairs, and of all together."""
    for kind in dict.fromkeys(one.pair.kind for one in heard):
        yield _row(kind, [one for one in heard if one.pair.kind == kind])
    yield _row("all", heard)


def _row(name: str, heard: Sequence[Heard]) -> Row:
    words = sum(len(normal(one.pair.by_hand).split()) for one in heard)
    written = sum(_wrong(one.pair.by_hand, one.written) for one in heard)
    by_hand = sum(_wrong(one.pair.by_hand, one.by_hand) for one in heard)
    return Row(name, words, 100 * written / words, 100 * by_hand / words)


def _wrong(said: str, heard: str) -> float:
    """Words of a text that were not heard, as many as it has at most: where the recogniser writes one word two hundred
    times, as it sometimes does, that text is wrong, and the others count as before.
    """
    return min(word_error_rate([said], [heard]), 1.0) * len(normal(said).split())


def report(heard: Sequence[Heard]) -> str:
    """A table, and whether the whole is within `CLOSE` points."""
    lines = ["| kind | words | written, % | by hand, % | difference, points |", "|---|---|---|---|---|"]
    table = list(rows(heard))
    lines += [
        f"| {row.name} | {row.words} | {row.written:.1f} | {row.by_hand:.1f} | {row.difference:+.1f} |" for row in table
    ]
    within = "within" if table[-1].difference <= CLOSE else "not within"
    return "\n".join([*lines, "", f"The written texts are {within} {CLOSE:g} points of those written out by hand."])
