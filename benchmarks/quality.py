"""How well a bundle speaks: `python -m benchmarks.quality --bundle FOLDER ...`.

Held-out sentences go through a running server. Whisper base writes down what it hears, from the bundle and from the
teacher that the bundle learned from; the rest of the table is compared with the teacher's audio of the same text.
With `--written` it hears texts as people write them beside the same texts written out by hand, without a server or
teacher. Needs what the tests need.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import httpx
import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks import written
from benchmarks.recogniser import hear, word_error_rate
from benchmarks.written_inputs import PAIRS
from server.bench.report import machine

Audio = NDArray[np.float32]
ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = ROOT / "models" / "qwen3_tts_tiny"
HELD_OUT = EMBEDDED / "recipe" / "heldout.txt"
RATE = 24_000
LONGEST = 300
"""Characters of the longest of the inputs that runaways and early stops are counted in."""
_SLOW, _FAST = 1.6, 0.55
_SLACK_SECONDS = 0.8
_MELS = 80
_TO_CEPSTRUM = np.log(10) / 20 * np.sqrt(2 / _MELS)
"""From librosa's orthonormal transform of decibels to c in ln|S(w)| = sum of c_m cos(m w)."""
_TO_DECIBELS = 10 / np.log(10) * np.sqrt(2)


@dataclass(frozen=True)
class Spoken:
    """A text, the teacher's audio of it, and the bundle's, None where the server gave an error."""

    text: str
    wanted: Audio
    made: Audio | None

    @property
    def runaway(self) -> bool:
        """Much longer than the teacher, or given up by the server."""
        return self.made is None or len(self.made) / RATE > _SLOW * len(self.wanted) / RATE + _SLACK_SECONDS

    @property
    def early_stop(self) -> bool:
        """Much shorter than the teacher."""
        return self.made is not None and len(self.made) / RATE < _FAST * len(self.wanted) / RATE - _SLACK_SECONDS / 4


def sentences(held_out: list[str], number: int) -> list[str]:
    """Choose the first held-out texts of four words or more."""
    return [text for text in held_out if len(text.split()) >= 4][:number]


def inputs_of_all_lengths(held_out: list[str], number: int) -> list[str]:
    """Held-out texts, and letters before them, whose lengths run evenly from 1 to `LONGEST` characters."""
    pool = sorted([*held_out, *"ABIOXyes7", "No", "Hi", "Go!"], key=lambda text: (len(text), text))
    chosen, more = [], itertools.cycle(held_out)
    for wanted in np.linspace(1, LONGEST, number):
        text = pool.pop(max((i for i in range(len(pool)) if len(pool[i]) <= wanted), default=0))
        while len(text) + 20 < wanted:
            room = wanted - len(text) - 1
            text += " " + next(each for each in more if len(each) <= room)
        chosen.append(text[:LONGEST])
    return chosen


def mel_cepstral_distance(one: Audio, other: Audio) -> float:
    """Mel-cepstral distortion in dB along the best alignment (Kubichek 1993): coefficients 1 to 13, hop 10 ms."""
    import librosa  # most of those who import this module measure no distance, and numba may have to compile it first

    cepstra = [
        librosa.feature.mfcc(y=audio, sr=RATE, n_mfcc=14, n_mels=_MELS, n_fft=1024, hop_length=240)[1:] * _TO_CEPSTRUM
        for audio in (one, other)
    ]
    costs, path = librosa.sequence.dtw(*cepstra)
    return float(_TO_DECIBELS * costs[-1, -1] / len(path))


@contextmanager
def speaking(bundle: Path, rows: int) -> Iterator[httpx.Client]:
    """Start a server with this bundle, and make a client of it."""
    from tests.server.running import REAL, run_server

    with tempfile.TemporaryDirectory() as scratch:
        variables = {"KW_MODELS_DIR": str(bundle.parent), "KW_MODEL": bundle.name, "KW_MAX_ROWS": str(rows)}
        with run_server(REAL, Path(scratch), **variables) as server:
            server.wait_ready()
            with server.client() as client:
                yield client


def say(client: httpx.Client, text: str, seed: int) -> Audio | None:
    """Let the server speak a text with its model's own settings."""
    fields = {
        "model": "tts-1",
        "voice": "alloy",
        "language": "en",
        "input": text,
        "seed": seed,
        "response_format": "wav",
        "stream": False,
    }
    response = client.post("/v1/audio/speech", json=fields)
    if response.status_code != 200:
        print(f"{response.status_code} for {text!r}: {response.text}")
        return None
    audio: Audio = soundfile.read(io.BytesIO(response.content), dtype="float32")[0]
    return audio


def listen(bundle: Path, texts: list[str], wanted: list[Audio], rows: int) -> list[Spoken]:
    """Let the server speak all texts, several at once."""
    with speaking(bundle, rows) as client, ThreadPoolExecutor(rows) as pool:
        made = list(pool.map(lambda job: say(client, job[1], job[0]), enumerate(texts)))
    return [Spoken(*each) for each in zip(texts, wanted, made, strict=True)]


def main() -> None:
    """Parse the options, listen, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bundle", type=Path, nargs="+", default=[EMBEDDED], help="folders (default: the embedded model)"
    )
    parser.add_argument("--held-out", type=Path, default=HELD_OUT, help="texts, one a line")
    parser.add_argument("--sentences", type=int, default=100, help="to be recognised (default: %(default)s)")
    parser.add_argument("--inputs", type=int, default=200, help="of all lengths (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=2, help="requests at once (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for the audio, as WAV")
    parser.add_argument("--written", action="store_true", help="written forms beside the same text written out by hand")
    parser.add_argument("--seeds", type=int, default=2, help="for each written text (default: %(default)s)")
    options = parser.parse_args()
    if options.written:
        _written(options.bundle, options.seeds)
        return

    from hibari import Hibari

    held_out = options.held_out.read_text("utf-8").splitlines()
    texts = sentences(held_out, options.sentences)
    inputs = inputs_of_all_lengths(held_out, options.inputs)
    teacher = Hibari()
    wanted = [np.asarray(teacher(text, seed=0), np.float32) for text in [*texts, *inputs]]
    print(
        f"{len(texts)} sentences, {len(inputs)} inputs of {len(inputs[0])} to {len(inputs[-1])} characters; {machine()}"
    )
    print("| bundle | word error rate | mel-cepstral distance, dB | runaways | early stops |\n|---|---|---|---|---|")
    heard = [hear(audio, RATE) for audio in wanted[: len(texts)]]
    print(f"| teacher | {word_error_rate(texts, heard):.1%} | 0 | - | - |", flush=True)
    for bundle in options.bundle:
        spoken = listen(bundle, [*texts, *inputs], wanted, options.rows)
        first = spoken[: len(texts)]
        heard = ["" if one.made is None else hear(one.made, RATE) for one in first]
        distance = mean(mel_cepstral_distance(one.wanted, one.made) for one in first if one.made is not None)
        rest = spoken[len(texts) :]
        precision = json.loads((bundle / "manifest.json").read_text("utf-8"))["precision"]
        runaways, stops = sum(one.runaway for one in rest), sum(one.early_stop for one in rest)
        figures = f"{word_error_rate(texts, heard):.1%} | {distance:.2f} | {runaways} | {stops}"
        print(f"| {bundle.name}, {precision} | {figures} |", flush=True)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for number, (one, words) in enumerate(zip(first, heard, strict=True)):
                if one.made is not None:
                    soundfile.write(options.keep / f"{bundle.name}-{number:03d}.wav", one.made, RATE)
                print(f"  {one.text} -> {words}")
            for one in rest:
                if one.runaway or one.early_stop:
                    print(f"  {'runaway' if one.runaway else 'early stop'}: {one.text!r}")


def _written(bundles: list[Path], seeds: int) -> None:
    for bundle in bundles:
        print(f"{bundle.name}: {len(PAIRS)} texts, {seeds} seeds, {written.THREADS} threads; {machine()}", flush=True)
        heard = written.listen(bundle, PAIRS, range(seeds))
        for one in heard:
            if one.written != one.by_hand:
                print(f"  {one.pair.by_hand!r}, seed {one.seed}\n    {one.written!r}\n    {one.by_hand!r}")
        print(written.report(heard))


if __name__ == "__main__":
    main()
