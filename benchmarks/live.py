"""Text that arrives while it is spoken: `python -m benchmarks.live`.

A language model's words go into `WS /v1/audio/speech/stream` at its pace: evenly, in bursts, or with a stall, beside
the same text at once. A player that begins at the first sound and plays on hears gaps where its audio is late; those
that the text has caused, which came too late itself, are told from the others (`benchmarks/listener.py`). Prints a
table of all ways and paces, each of which every round has once, and one of what is wanted of them.

A model that has not learnt to be given a text while it speaks is served as if it had (from a copy of its manifest):
what it says with `token` is no speech then, and takes the time that speech takes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from benchmarks.listener import (
    FRAME_SECONDS,
    REACTION_FRAMES,
    Gap,
    Listener,
    Token,
    certain,
    frames_came,
    unit_came,
)
from server.engine.tokenizer import TextTokenizer
from server.manifest import MANIFEST_NAME, TOKENIZER, read_manifest
from server.speech.live_plan import make_live_plan
from server.speech.request_parsing import build
from server.voices.profiles import load_profiles

TEXT = (
    "Sure, I can help you with that. The early train was late again, so we shared a taxi and talked about the weather "
    "all the way. When we came to the station, nobody was there, and the doors were closed. Shall I look for another?"
)
STALL_SECONDS = 2.0
AT_ONCE = "at once"
BYTES_A_SECOND = 48_000
PATIENCE_SECONDS = 120.0
ROWS_RUNNING = "qwen3_tts_rows_running{"
FRAMES_MADE = "qwen3_tts_frame_seconds_count{"
BARGE_IN_TRIES = 5
"""How often the listener interrupts where it was not clear how many frames were made behind the interruption."""

Message = tuple[float, float | dict[str, Any]]
"""When it came, and the seconds of sound that it holds, or an event."""
Taken = Callable[[list[Token]], list[float]]
"""Tells of a text, given when its tokens were sent, when a row could take each token of the model's."""
Case = tuple[str, str, float]
"""What is spoken at once, the pace of the text, and its tokens a second."""


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
        pace: `even`, `bursts` (of eight), `stall` (once, in the middle of a sentence) or `AT_ONCE`.
        rate: tokens a second.
    """
    pieces = tokens_of(TEXT)
    if pace == AT_ONCE:
        return [(0.0, TEXT)]
    times = [number / rate for number in range(len(pieces))]
    if pace == "bursts":
        times = [times[number - number % 8] for number in range(len(pieces))]
    if pace == "stall":
        times = [at + (STALL_SECONDS if number > len(pieces) // 3 else 0) for number, at in enumerate(times)]
    return list(zip(times, pieces, strict=True))


@dataclass(frozen=True)
class Heard:
    """One utterance, times in seconds from its first word.

    Attributes:
        first: when the first sound came.
        third: when the third word had come, or the last one of fewer.
        end: when the last sound came.
        gaps: silences that a player made for want of sound.
        audio: seconds of it.
        units: how many there were.
    """

    first: float
    third: float
    end: float
    gaps: tuple[Gap, ...]
    audio: float
    units: int

    @property
    def after_third(self) -> float:
        """From the third word to the first sound, in the time of a codec frame."""
        return (self.first - self.third) / FRAME_SECONDS

    @property
    def own_gaps(self) -> list[Gap]:
        """Those that the text did not cause, or not alone."""
        return [gap for gap in self.gaps if gap.own]


class Live:
    """A socket with its configuration."""

    def __init__(self, connection: ClientConnection, granularity: str, voice: str) -> None:
        self.socket = connection
        config = {"voice": voice, "response_format": "pcm", "stream_audio": True, "split_granularity": granularity}
        self.tell("session.config", **config)

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        self.socket.send(json.dumps({"type": kind, **fields}))

    def converse(self, tokens: list[Token]) -> tuple[list[Token], list[Message]]:
        """Say tokens when they come, and listen to the end; returns when they were said, and what was heard."""
        began = time.perf_counter()
        sent: list[Token] = []

        def say() -> None:
            for at, piece in tokens:
                time.sleep(max(0.0, began + at - time.perf_counter()))
                sent.append((time.perf_counter() - began, piece))
                self.tell("input.text", text=piece)
            self.tell("input.done")

        saying = threading.Thread(target=say)
        saying.start()
        messages: list[Message] = []
        while True:
            message = self.socket.recv(PATIENCE_SECONDS)
            now = time.perf_counter() - began
            if isinstance(message, bytes):
                messages.append((now, len(message) / BYTES_A_SECOND))
                continue
            event = json.loads(message)
            if event["type"] == "error":
                raise RuntimeError(event["message"])
            messages.append((now, event))
            if event["type"] == "session.done":
                break
        saying.join()
        return sent, messages


def reckoned(sent: list[Token], messages: list[Message], taken: Taken | None) -> Heard:
    """What a listener has heard.

    Args:
        sent: when each token was sent.
        messages: what came.
        taken: when a row could take each token of the model's, where the text has no units; else None.
    """
    times = taken(sent) if taken else []
    listener = Listener()
    came, said, units = 0.0, 0, 0
    for now, message in messages:
        if isinstance(message, float):
            listener.hear(now, message, frames_came(times, listener.audio + message) if taken else came)
        elif message["type"] == "audio.start":
            units += 1
            said += len("".join(message["sentence_text"].split()))
            came = unit_came(sent, said)
    if listener.first is None:
        raise RuntimeError("nothing was heard")
    return Heard(listener.first, third_word(sent), listener.end, tuple(listener.gaps), listener.audio, units)


@contextmanager
def dialled(url: str, key: str | None, granularity: str, voice: str) -> Iterator[Live]:
    """A socket that is closed afterwards."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = f"{url.replace('http', 'ws', 1)}/v1/audio/speech/stream"
    with connect(address, additional_headers=headers, compression=None, proxy=None) as connection:
        yield Live(connection, granularity, voice)


def third_word(tokens: list[Token]) -> float:
    """When the third word of a text was there, or its last one."""
    words = accumulate(piece.count(" ") for _, piece in tokens)
    return next((at for (at, _), blanks in zip(tokens, words, strict=True) if blanks >= 2), tokens[-1][0])


class Metrics:
    """A server's metrics, summed over its models; looked at over one connection."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=PATIENCE_SECONDS)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def ask(self) -> None:
        """Ask for them; `answer` waits for the answer."""
        self._connection.request("GET", "/metrics", headers=self._headers)

    def answer(self) -> dict[str, float]:
        """The metrics that are looked at here."""
        lines = self._connection.getresponse().read().decode().splitlines()
        return {
            name: sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
            for name in (ROWS_RUNNING, FRAMES_MADE)
        }

    def look(self) -> dict[str, float]:
        """Ask, and wait."""
        self.ask()
        return self.answer()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def barge_in(url: str, key: str | None, voice: str, granularity: str, how: str) -> tuple[float, float]:
    """Interrupt half a second into the sound.

    The metrics are asked for right before the interruption and right behind it: where a frame was made between the two,
    nobody knows on which side of it, so that the listener interrupts another time.

    Returns:
        Seconds until no row runs, a look at the metrics included, and codec frames that were made in them, or one more
        where it was never clear.
    """
    for _ in range(BARGE_IN_TRIES):
        seconds, most, least = interrupt(url, key, voice, granularity, how)
        if most == least:
            break
    return seconds, most


def interrupt(url: str, key: str | None, voice: str, granularity: str, how: str) -> tuple[float, float, float]:
    """Interrupt once: the seconds until no row runs, and the most and the fewest frames that were made in them."""
    with (
        dialled(url, key, granularity, voice) as live,
        closing(Metrics(url, key)) as before,
        closing(Metrics(url, key)) as behind,
    ):
        for metrics in (before, behind):
            metrics.look()  # the connection is there
        live.tell("input.text", text=TEXT)
        while not isinstance(live.socket.recv(PATIENCE_SECONDS), bytes):
            pass
        time.sleep(0.5)
        before.ask()
        began = time.perf_counter()
        if how == "cancel":
            live.tell("input.cancel")
        else:
            live.socket.socket.shutdown(socket.SHUT_RDWR)
        behind.ask()
        made = [metrics.answer()[FRAMES_MADE] for metrics in (before, behind)]
        while (look := behind.look())[ROWS_RUNNING]:
            pass
        seconds = time.perf_counter() - began
        return seconds, look[FRAMES_MADE] - made[0], look[FRAMES_MADE] - made[1]


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
    cases: list[Case] = [("none", AT_ONCE, 0.0), *((way, AT_ONCE, 0.0) for way in options.granularities)]
    cases += [(way, pace, rate) for way in options.granularities for pace in options.paces for rate in options.rates]
    heard: dict[Case, list[Heard]] = {case: [] for case in cases}
    interrupted: dict[tuple[str, str], list[tuple[float, float]]] = {
        (way, how): [] for way in options.granularities for how in ("cancel", "close")
    }
    taken = taken_by(options.bundle, options.voice) if "token" in options.granularities else None
    with server_for(options) as (url, key):
        with dialled(url, key, "none", options.voice) as live:
            live.converse([(0.0, "One. Two.")])  # warms it up
        for _ in range(options.rounds):
            for case in cases:
                tokens = paced(case[1], case[2])
                with dialled(url, key, case[0], options.voice) as live:
                    sent, messages = live.converse(tokens)
                heard[case].append(reckoned(sent, messages, taken if case[0] == "token" else None))
            for (way, how), found in interrupted.items():
                found.append(barge_in(url, key, options.voice, way, how))
    print(table(heard))
    for (way, how), found in interrupted.items():
        seconds, frames = zip(*found, strict=True)
        print(
            f"Barge-in by {how}, {way}: no row runs after {1000 * median(seconds):.0f} ms and {median(frames):g} "
            f"frames, {max(frames):g} at most (of {len(found)})."
        )
    print(f"\n{verdicts(heard, interrupted)}")


def taken_by(bundle: Path, voice: str) -> Taken:
    """What tells when a row of a bundle's model could take each token of a text."""
    manifest = read_manifest(bundle).model_copy(update={"whole_text": False})
    plan = make_live_plan(build(input=TEXT, voice=voice), manifest, load_profiles(None))
    return partial(certain, TextTokenizer(bundle / TOKENIZER), plan.voiced(None)[1])


def table(heard: dict[Case, list[Heard]]) -> str:
    """All cases as a Markdown table: medians of times in seconds, and the gaps of all rounds."""
    columns = (
        "what is spoken at once",
        "text comes",
        "first sound, from the first word",
        f"from the third, in codec frames' time of 80 ms (wanted: {REACTION_FRAMES})",
        "last sound",
        "gaps that the text caused",
        "gaps that it did not cause (wanted: none)",
        "audio",
        "units",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for case, utterances in heard.items():
        gaps = [gap for one in utterances for gap in one.gaps]
        cells = [
            case[0],
            pace_of(case),
            *(f"{median(getattr(one, name) for one in utterances):.2f}" for name in ("first", "after_third", "end")),
            amount([gap.seconds for gap in gaps if not gap.own]),
            amount([gap.own for gap in gaps if gap.own]),
            f"{median(one.audio for one in utterances):.2f}",
            str(utterances[-1].units),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pace_of(case: Case) -> str:
    """How the text of a case comes, in words."""
    return case[1] if case[1] == AT_ONCE else f"{case[1]}, {case[2]:g} tokens a second"


def amount(seconds: list[float]) -> str:
    """How many there are, and how long they are together."""
    return f"{len(seconds)} ({sum(seconds):.2f} s)" if seconds else "none"


def verdicts(heard: dict[Case, list[Heard]], interrupted: dict[tuple[str, str], list[tuple[float, float]]]) -> str:
    """What is wanted of texts that come over time, as a Markdown table: the worst of the cases."""
    lines = ["| wanted | measured | met |", "|---" * 3 + "|"]

    def line(wanted: str, measured: str, met: bool) -> None:
        lines.append(f"| {wanted} | {measured} | {'yes' if met else 'no'} |")

    paced = {case: utterances for case, utterances in heard.items() if case[1] != AT_ONCE}
    if paced:
        after = {case: median(one.after_third for one in utterances) for case, utterances in paced.items()}
        slowest = max(after, key=lambda case: after[case])
        line(
            f"the first sound within {REACTION_FRAMES} codec frames' time of the third word",
            f"{after[slowest]:.1f} in the slowest case, {slowest[0]}, {pace_of(slowest)}",
            after[slowest] <= REACTION_FRAMES,
        )
        own = {case: [gap.own for one in utterances for gap in one.own_gaps] for case, utterances in paced.items()}
        found = "; ".join(f"{case[0]}, {pace_of(case)}: {amount(gaps)}" for case, gaps in own.items() if gaps)
        count = sum(map(len, paced.values()))
        line("no gap that the text did not cause", found or f"none in {count} utterances", not found)
    every = [one for found in interrupted.values() for one in found]
    if every:
        longest, most = max(seconds for seconds, _ in every), max(frames for _, frames in every)
        line(
            "no row goes on after an interruption for more than one codec frame, or the 80 ms that one lasts",
            f"{most:g} frames and {1000 * longest:.0f} ms at most in {len(every)}",
            all(frames <= 1 or seconds <= FRAME_SECONDS for seconds, frames in every),
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
