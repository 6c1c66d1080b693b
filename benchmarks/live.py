"""Text that arrives while it is spoken: `python -m benchmarks.live`.

A language model's words go into `WS /v1/audio/speech/stream` at its pace: evenly, in bursts, or with a stall, beside
the same text at once. A player that begins at the first sound and plays on hears gaps where its audio is late. Prints a
table of medians; each round has every way and pace once.
"""

from __future__ import annotations

import argparse
import json
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

TEXT = (
    "Sure, I can help you with that. The early train was late again, so we shared a taxi and talked about the weather "
    "all the way. When we came to the station, nobody was there, and the doors were closed. Shall I look for another?"
)
STALL_SECONDS = 2.0
BYTES_A_SECOND = 48_000
PATIENCE_SECONDS = 120.0
ROWS_RUNNING = "qwen3_tts_rows_running{"

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

    def hear(self, tokens: list[Token]) -> Heard:
        """Say tokens, and listen to the end."""
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


def barge_in(url: str, key: str | None, voice: str, how: str) -> float:
    """Seconds from the listener's interruption, half a second into the sound, until no row runs."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with dialled(url, key, "sentence", voice) as live, httpx.Client(base_url=url, headers=headers) as client:
        running(client)  # the connection is there
        live.tell("input.text", text=TEXT)
        while not isinstance(live.socket.recv(PATIENCE_SECONDS), bytes):
            pass
        time.sleep(0.5)
        began = time.perf_counter()
        if how == "cancel":
            live.tell("input.cancel")
        else:
            live.socket.socket.shutdown(socket.SHUT_RDWR)
        while running(client):
            pass
        return time.perf_counter() - began


def running(client: httpx.Client) -> float:
    """Rows that run now."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(ROWS_RUNNING))


@contextmanager
def server_for(options: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """URL and key of the server to be used; one that was started here ends afterwards."""
    if options.url:
        yield options.url, options.key
        return
    from tests.server.running import KEY, REAL, run_server

    bundle: Path = options.bundle
    settings = {"KW_MODELS_DIR": str(bundle.parent), "KW_MODEL": bundle.name, "KW_THREADS": str(options.threads)}
    with tempfile.TemporaryDirectory() as scratch, run_server(REAL, Path(scratch), **settings) as server:
        server.wait_ready()
        yield server.url, KEY


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
    parser.add_argument("--granularities", nargs="+", default=["sentence", "clause"], help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    cases = [("none", "at once", 0.0), *((way, "at once", 0.0) for way in options.granularities)]
    cases += [(way, pace, rate) for way in options.granularities for pace in options.paces for rate in options.rates]
    heard: dict[tuple[str, str, float], list[Heard]] = {case: [] for case in cases}
    interrupted: dict[str, list[float]] = {"cancel": [], "close": []}
    with server_for(options) as (url, key):
        with dialled(url, key, "none", options.voice) as live:
            live.hear([(0.0, "One. Two.")])  # warms it up
        for _ in range(options.rounds):
            for case in cases:
                with dialled(url, key, case[0], options.voice) as live:
                    heard[case].append(live.hear(paced(case[1], case[2])))
            for how, times in interrupted.items():
                times.append(barge_in(url, key, options.voice, how))
    print(table(heard))
    for how, times in interrupted.items():
        print(f"Barge-in by {how}: no row runs after {1000 * median(times):.0f} ms (median of {len(times)}).")


def table(heard: dict[tuple[str, str, float], list[Heard]]) -> str:
    """Medians as a Markdown table, in seconds."""
    columns = (
        "first sound from the first word",
        "from the third",
        "last sound",
        "gaps",
        "gaps not of the text",
        "audio",
    )
    names = ("first", "after_third", "end", "gaps", "own_gaps", "audio")
    lines = [f"| what is spoken at once | text comes | {' | '.join(columns)} | units |", "|---" * 9 + "|"]
    for (granularity, pace, rate), utterances in heard.items():
        figures = [f"{median(getattr(one, name) for one in utterances):.2f}" for name in names]
        comes = pace if pace == "at once" else f"{pace}, {rate:g} tokens a second"
        lines.append(f"| {granularity} | {comes} | {' | '.join(figures)} | {utterances[-1].units} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
