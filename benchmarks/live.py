"""Text that arrives while it is spoken: `python -m benchmarks.live`.

A language model's words go into `WS /v1/audio/speech/stream` at its pace: evenly, in bursts, or with a stall, beside
the same text at once. A player that begins at the first sound and plays on hears gaps where its audio is late. Prints a
table of medians; each round has every way and pace once.

A model that has not learnt to be given a text while it speaks is served as if it had (from a copy of its manifest):
what it says with `token` is no speech then, and takes the time that speech takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from server.engine.tokenizer import TextTokenizer
from server.manifest import MANIFEST_NAME, TOKENIZER, read_manifest

TEXT = (
    "Sure, I can help you with that. The early train was late again, so we shared a taxi and talked about the weather "
    "all the way. When we came to the station, nobody was there, and the doors were closed. Shall I look for another?"
)
STALL_SECONDS = 2.0
BYTES_A_SECOND = 48_000
FRAME_SECONDS = 0.08
"""Of a codec frame."""
PATIENCE_SECONDS = 120.0
ROWS_RUNNING = "qwen3_tts_rows_running{"
FRAMES_MADE = "qwen3_tts_frame_seconds_count{"

Token = tuple[float, str]
"""When it comes, in seconds from the first one, and its text."""


def tokens_of(text: str) -> list[str]:
    """Pieces as a language model has them, about 1.3 a word; joined they are the text."""
    pieces = []
    for number, word in enumerate(text.split(" ")):
        said = word if number == 0 else f" {word}"
        pieces += [said[:5], said[5:]] if len(said) > 8 else [said]
    return pieces


def paced(pace: str, rate: float) -> list[Token]:
    """The text's tokens and when they come.

    Args:
        pace: `even`, `bursts` (of eight), `stall` (once, in the middle of a sentence) or `at once`.
        rate: tokens a second.
    """
    pieces = tokens_of(TEXT)
    if pace == "at once":
        return [(0.0, TEXT)]
    times = [number / rate for number in range(len(pieces))]
    if pace == "bursts":
        times = [times[number - number % 8] for number in range(len(pieces))]
    if pace == "stall":
        times = [at + (STALL_SECONDS if number > len(pieces) // 3 else 0) for number, at in enumerate(times)]
    return list(zip(times, pieces, strict=True))


@dataclass
class Heard:
    """One utterance, times in seconds from its first word.

    Attributes:
        first: when the first sound came.
        after_third: the same, from the third word.
        end: when the last sound came.
        gaps: silence that a player made for want of audio.
        own_gaps: of these, what passed while the text of what was missing was there.
        audio: seconds of it.
        units: how many there were.
    """

    first: float
    after_third: float
    end: float
    gaps: float
    own_gaps: float
    audio: float
    units: int

    @property
    def in_frames(self) -> float:
        """From the third word to the first sound, in the time of a codec frame."""
        return self.after_third / FRAME_SECONDS


class Live:
    """A socket with its configuration."""

    def __init__(self, connection: ClientConnection, granularity: str, voice: str) -> None:
        self.socket = connection
        config = {"voice": voice, "response_format": "pcm", "stream_audio": True, "split_granularity": granularity}
        self.tell("session.config", **config)

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        self.socket.send(json.dumps({"type": kind, **fields}))

    def say(self, tokens: list[Token], began: float) -> None:
        """Send tokens when they come, then the end."""
        for at, piece in tokens:
            time.sleep(max(0.0, began + at - time.perf_counter()))
            self.tell("input.text", text=piece)
        self.tell("input.done")

    def hear(self, tokens: list[Token], needed: list[float]) -> Heard:
        """Say tokens, and listen to the end.

        Args:
            tokens: when they come.
            needed: when what each frame of a text is made of had come, where the text has no units.
        """
        began = time.perf_counter()
        saying = threading.Thread(target=self.say, args=(tokens, began))
        saying.start()
        played = gaps = own_gaps = first = audio = 0.0
        complete, said = 0.0, 0
        unit = -1
        while True:
            message = self.socket.recv(PATIENCE_SECONDS)
            now = time.perf_counter() - began
            if isinstance(message, str):
                event = json.loads(message)
                if event["type"] == "session.done":
                    break
                if event["type"] == "error":
                    raise RuntimeError(event["message"])
                if event["type"] == "audio.start":
                    unit = event["sentence_index"]
                    said += len("".join(event["sentence_text"].split()))
                    complete = arrival(tokens, said)
                continue
            if needed:
                complete = needed[min(round(audio / FRAME_SECONDS), len(needed) - 1)]
            if not first:
                first = played = now
            if now > played:
                gaps += now - played
                own_gaps += now - max(played, min(now, complete))
                played = now
            seconds = len(message) / BYTES_A_SECOND
            played += seconds
            audio += seconds
        saying.join()
        third = tokens[min(2, len(tokens) - 1)][0]
        return Heard(first, first - third, now, gaps, own_gaps, audio, unit + 1)


@contextmanager
def dialled(url: str, key: str | None, granularity: str, voice: str) -> Iterator[Live]:
    """A socket that is closed afterwards."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = f"{url.replace('http', 'ws', 1)}/v1/audio/speech/stream"
    with connect(address, additional_headers=headers, compression=None, proxy=None) as connection:
        yield Live(connection, granularity, voice)


def arrival(tokens: list[Token], letters: int) -> float:
    """When so many characters, blanks not counted, were there, and the one that shows that a unit ends behind them."""
    counts = accumulate(len("".join(piece.split())) for _, piece in tokens)
    return next((at for (at, _), count in zip(tokens, counts, strict=True) if count > letters), tokens[-1][0])


def needs(tokenizer: TextTokenizer, tokens: list[Token]) -> list[float]:
    """When the text of each frame had come, where a token of the model's is fed with every frame."""
    text = "".join(piece for _, piece in tokens)
    times = [at for at, piece in tokens for _ in piece]
    counts = (len(tokenizer.encode(text[: end + 1])) for end in range(len(text)))
    return [at for at, count, before in _steps(times, counts) for _ in range(count - before)]


def _steps(times: list[float], counts: Iterator[int]) -> Iterator[tuple[float, int, int]]:
    before = 0
    for at, count in zip(times, counts, strict=True):
        if count > before:
            yield at, count, before
            before = count


def barge_in(url: str, key: str | None, voice: str, granularity: str, how: str) -> tuple[float, float]:
    """Seconds from the listener's interruption, half a second into the sound, until no row runs, and frames made."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with dialled(url, key, granularity, voice) as live, httpx.Client(base_url=url, headers=headers) as client:
        metric(client, ROWS_RUNNING)  # the connection is there
        live.tell("input.text", text=TEXT)
        while not isinstance(live.socket.recv(PATIENCE_SECONDS), bytes):
            pass
        time.sleep(0.5)
        before = metric(client, FRAMES_MADE)
        began = time.perf_counter()
        if how == "cancel":
            live.tell("input.cancel")
        else:
            live.socket.socket.shutdown(socket.SHUT_RDWR)
        while metric(client, ROWS_RUNNING):
            pass
        return time.perf_counter() - began, metric(client, FRAMES_MADE) - before


def metric(client: httpx.Client, name: str) -> float:
    """A metric of all models."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextmanager
def server_for(options: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """URL and key of the server to be used; one that was started here ends afterwards."""
    if options.url:
        yield options.url, options.key
        return
    from tests.server.running import KEY, REAL, run_server

    with tempfile.TemporaryDirectory() as scratch:
        bundle = as_if_learnt(options.bundle, Path(scratch, "models"))
        settings = {"KW_MODELS_DIR": str(bundle.parent), "KW_MODEL": bundle.name, "KW_THREADS": str(options.threads)}
        with run_server(REAL, Path(scratch), **settings) as server:
            server.wait_ready()
            yield server.url, KEY


def as_if_learnt(bundle: Path, models: Path) -> Path:
    """The bundle, or a copy of it that says that its model has learnt to be given a text while it speaks."""
    manifest = read_manifest(bundle)
    if not manifest.whole_text:
        return bundle
    copy = models / bundle.name
    copy.mkdir(parents=True)
    for name in manifest.files:
        shutil.copy(bundle / name, copy)
    told = manifest.model_copy(update={"whole_text": False})
    (copy / MANIFEST_NAME).write_text(told.model_dump_json())
    return copy


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.live", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("models/qwen3_tts_tiny"), help="(default: %(default)s)")
    parser.add_argument("--url", help="of a server that runs already")
    parser.add_argument("--key", help="of that server")
    parser.add_argument("--voice", default="alloy", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="KW_THREADS (default: %(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=[30.0], help="tokens a second (default: 30)")
    parser.add_argument("--paces", nargs="+", default=["even", "bursts", "stall"], help="(default: %(default)s)")
    parser.add_argument(
        "--granularities", nargs="+", default=["sentence", "clause", "token"], help="(default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    cases = [("none", "at once", 0.0), *((way, "at once", 0.0) for way in options.granularities)]
    cases += [(way, pace, rate) for way in options.granularities for pace in options.paces for rate in options.rates]
    heard: dict[tuple[str, str, float], list[Heard]] = {case: [] for case in cases}
    interrupted: dict[tuple[str, str], list[tuple[float, float]]] = {
        (way, how): [] for way in options.granularities for how in ("cancel", "close")
    }
    tokenizer = TextTokenizer(options.bundle / TOKENIZER) if "token" in options.granularities else None
    with server_for(options) as (url, key):
        with dialled(url, key, "none", options.voice) as live:
            live.hear([(0.0, "One. Two.")], [])  # warms it up
        for _ in range(options.rounds):
            for case in cases:
                tokens = paced(case[1], case[2])
                needed = needs(tokenizer, tokens) if tokenizer and case[0] == "token" else []
                with dialled(url, key, case[0], options.voice) as live:
                    heard[case].append(live.hear(tokens, needed))
            for (way, how), found in interrupted.items():
                found.append(barge_in(url, key, options.voice, way, how))
    print(table(heard))
    for (way, how), found in interrupted.items():
        times, frames = zip(*found, strict=True)
        print(
            f"Barge-in by {how}, {way}: no row runs after {1000 * median(times):.0f} ms and {median(frames):g} frames, "
            f"{max(frames):g} at most (of {len(found)})."
        )


def table(heard: dict[tuple[str, str, float], list[Heard]]) -> str:
    """Medians as a Markdown table, in seconds."""
    columns = (
        "first sound from the first word",
        "from the third",
        "the same, in codec frames of 80 ms",
        "last sound",
        "gaps",
        "gaps not of the text",
        "audio",
    )
    names = ("first", "after_third", "in_frames", "end", "gaps", "own_gaps", "audio")
    lines = [f"| what is spoken at once | text comes | {' | '.join(columns)} | units |", "|---" * 10 + "|"]
    for (granularity, pace, rate), utterances in heard.items():
        figures = [f"{median(getattr(one, name) for one in utterances):.2f}" for name in names]
        comes = pace if pace == "at once" else f"{pace}, {rate:g} tokens a second"
        lines.append(f"| {granularity} | {comes} | {' | '.join(figures)} | {utterances[-1].units} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
