"""`python drills.py WORK`: many more words for the talker to learn to read, without a sound of them.

What a small talker gets wrong is how a word is spelt, not how it sounds. To know that, the teacher's dictionary is
enough, which costs a tenth of its voice: `drills-n.npz` holds texts and codes of which only those of the phonemes are
the teacher's (`HEARD` says how many). Each phoneme lasts as long as it did somewhere in the speech, between the same
neighbours; pitch and spectrum are those of some frame with the same phonemes, and are only there to be heard, not to
be learned. Half of the texts are those that the teacher did not get to say, half are words in no order, rare ones
oftener than they are written.
"""

from __future__ import annotations

import server  # noqa: F401  (before hibari loads ONNX Runtime: it switches its telemetry off)

# isort: split
import argparse
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hibari import Hibari
from numpy.typing import NDArray

from speech_codes import COMING, SLOT_OF_CODEBOOK, encode_sounds
from speech_data import FRAME, STEP, finished_shards, framed
from teacher import SHARD

HEARD = COMING + 1
"""Codebooks that are as the teacher would say them."""
_NEIGHBOURS = ((2, 2), (1, 1), (0, 1), (0, 0))
"""How many phonemes before and after it a duration is looked up with, if that context is known."""
_EDGE = -1
_RARER = 0.4
"""Words are drawn by their count to this power."""
_SHORTEST, _LONGEST = 3, 8
_NUMBERS = 0.08
_REPEATED = 0.15
"""Share of lists in which some words come twice: a talker that has not met that goes on after the second, or never."""


class Durations:
    """Draws the steps that phonemes last from the speech."""

    def __init__(self, spoken: list[tuple[NDArray[np.uint8], NDArray[np.int64]]], draw: random.Random) -> None:
        self._draw = draw
        self._known: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for phones, steps in spoken:
            first = np.concatenate([[0], np.cumsum(steps)[:-1]])
            for start, count in zip(first[steps > 0], steps[steps > 0], strict=True):
                said = phones[start : start + count]
                begins = np.concatenate([[0], np.flatnonzero(said[1:] != said[:-1]) + 1, [count]])
                lasts = np.diff(begins)
                for key, duration in zip(self._keys([int(p) for p in said[begins[:-1]]]), lasts, strict=True):
                    for each in key:
                        self._known[each].append(int(duration))

    @staticmethod
    def _keys(phones: list[int]) -> Iterator[list[tuple[int, ...]]]:
        wide = [_EDGE, _EDGE, *phones, _EDGE, _EDGE]
        for at in range(2, len(phones) + 2):
            yield [(before, *wide[at - before : at + after + 1]) for before, after in _NEIGHBOURS]

    def __call__(self, phones: list[int]) -> list[int]:
        found = []
        for keys in self._keys(phones):
            known = next((self._known[key] for key in keys if key in self._known), [1])
            found.append(self._draw.choice(known))
        return found


class Sounds:
    """Frames of the speech to take pitch and spectrum from."""

    def __init__(self, codes: NDArray[np.int16], draw: random.Random) -> None:
        self._codes, self._draw = codes, draw
        self._whole: dict[tuple[int, ...], list[int]] = defaultdict(list)
        self._middle: dict[int, list[int]] = defaultdict(list)
        for number, row in enumerate(codes[:, : len(SLOT_OF_CODEBOOK)].tolist()):
            self._whole[tuple(row)].append(number)
            self._middle[row[0]].append(number)

    def fill(self, codes: NDArray[np.int16]) -> None:
        """Put in the codes from `HEARD` on."""
        for row in codes:
            said = tuple(row[: len(SLOT_OF_CODEBOOK)].tolist())
            like = self._whole.get(said) or self._middle.get(said[0]) or range(len(self._codes))
            row[HEARD:] = self._codes[self._draw.choice(like), HEARD:]


def word_lists(texts: list[str], draw: random.Random) -> Iterator[str]:
    """Yield endlessly some words of the texts, as a list or a phrase."""
    counts = Counter(word for text in texts for word in re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text))
    words = sorted(word for word in counts if word.islower() or not counts[word.lower()])
    weights = [(counts[word] + counts[word.capitalize()]) ** _RARER for word in words]
    while True:
        chosen = draw.choices(words, weights, k=draw.randint(_SHORTEST, _LONGEST))
        if draw.random() < _REPEATED:
            start = draw.randrange(len(chosen) - 1)
            chosen += chosen[start : start + draw.randint(2, 3)]
        if draw.random() < _NUMBERS * len(chosen):
            value = draw.randrange(10 ** draw.randint(1, 4))
            chosen[draw.randrange(len(chosen))] = draw.choice((f"{value}", f"{value:,}", f"{value}%", f"${value}"))
        text = draw.choice((" ", " ", ", ", " and ", " the ", " of ")).join(chosen)
        yield (text[0].upper() + text[1:] if draw.random() < 0.7 else text) + draw.choice((".", ".", "", "?", "!"))


def pronounced(teacher: Hibari, text: str) -> tuple[list[int], list[int]] | None:
    """The teacher's phonemes, none twice in a row, and the word of each (-1 where not known)."""
    phones: list[int] = []
    words: list[int] = []
    first = 0
    for sentence in teacher.split_sentences(text):
        phonemes = teacher.g2p(sentence)
        if not phonemes or len(phonemes) > 400:
            return None
        known = [character for character in phonemes if character in teacher.vocab]
        ids = [int(number) for number in teacher.ids(phonemes)]
        numbers = [first + count for count in np.cumsum([character == " " for character in known]).tolist()]
        if numbers[-1] + 1 - first != len(sentence.split()):
            numbers = [-1] * len(known)
        first += len(sentence.split())
        for phone, word in zip(ids, [numbers[0], *numbers, numbers[-1]], strict=True):
            if not phones or phones[-1] != phone:
                phones.append(phone)
                words.append(word)
    return (phones, words) if phones else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Write codes of texts that nobody said.")
    parser.add_argument("--shards", type=int, default=110)
    parser.add_argument("--first", type=int, default=0, help="shard to begin with")
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    work: Path = arguments.work
    texts = (work / "texts.txt").read_text("utf-8").splitlines()
    numbers = finished_shards(work)
    spoken = []
    for number in numbers:
        with np.load(work / f"spoken-{number:03d}.npz") as data:
            spoken.append((data["phones"], data["lengths"] // STEP))
    draw = random.Random(arguments.first)
    teacher, lasting = Hibari(), Durations(spoken, draw)
    sounds = Sounds(np.concatenate([np.load(work / f"codes-{number:03d}.npy") for number in numbers]), draw)
    with np.load(work / "books.npz") as file:
        books = dict(file)
    unsaid = texts[(numbers[-1] + 1) * SHARD :]
    lists = word_lists(texts, draw)
    for number in range(arguments.first, arguments.first + arguments.shards):
        half = SHARD // 2
        lines = [*unsaid[number * half : (number + 1) * half], *(next(lists) for _ in range(half))]
        kept, lengths, phones, words = [], [], [], []
        for line in lines:
            if (said := pronounced(teacher, line)) is None:
                continue
            steps = lasting(said[0])
            kept.append(line)
            frames = -(-sum(steps) * STEP // FRAME)
            lengths.append(frames * FRAME)
            steps[-1] += frames * FRAME // STEP - sum(steps)
            phones.append(np.repeat(np.array(said[0], np.uint8), steps))
            words.append(np.repeat(np.array(said[1], np.int16), steps))
        every = np.concatenate(phones)
        # Some pitch has to be there; it is not looked at.
        shard = framed(number, np.zeros(0, np.int16), np.array(lengths), every, np.full(len(every), 100.0, np.float32),
                       np.concatenate(words))  # fmt: skip
        codes = encode_sounds(shard, books)
        sounds.fill(codes)
        with (temporary := work / f"drills-{number:03d}.tmp").open("wb") as out:
            np.savez(out, texts=np.array(kept), starts=shard.starts, codes=codes, words=shard.words.astype(np.int16))
        temporary.replace(work / f"drills-{number:03d}.npz")
        print(f"drills {number}: {len(codes)} frames", flush=True)


if __name__ == "__main__":
    main()
