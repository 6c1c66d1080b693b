"""A check on real weights: `python -m benchmarks.acceptance --model ID`.

For whoever has a checkpoint of Qwen3-TTS: it is converted at each precision, its greedy codes are compared with those
of the official package if that is installed, and every bundle speaks the sentences of `benchmarks/sentences` in each
language that it has. Whisper writes down what it hears. The report is one Markdown file, to be pasted into an issue.
Options that are not listed here are handed on to `qwen3-tts convert`. Needs what the tests need.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

import httpx
import numpy as np
import soundfile
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.quality import RATE, Audio, speaking
from benchmarks.recogniser import error_rate, hear
from server import __version__
from server.bench.report import machine
from server.manifest import MANIFEST_NAME, Manifest, Precision, read_manifest
from server.metrics import PREFIX
from server.models.names import bundle_id
from server.voices import languages

SENTENCES = Path(__file__).resolve().parent / "sentences"
ON_CPU: tuple[Precision, ...] = ("fp32", "int8", "w8a8", "mixed", "int4")
GREEDY_FRAMES = 40
"""Codec frames of each greedy utterance, 3.2 s."""
WORST = 5
REQUEST_SECONDS = 1800.0

Codes = NDArray[np.int64]


class Sentence(NamedTuple):
    """A text, what the bundle made of it, and what was heard; no audio where the server gave an error."""

    text: str
    speaker: str | None
    audio: Audio | None
    heard: str = ""


@dataclass
class Spoken:
    """The sentences of one language."""

    language: str
    sentences: list[Sentence]
    seconds: float
    """Wall time of all of them, as many side by side as there were rows."""
    runaways: int
    retries: int

    @property
    def audio_seconds(self) -> float:
        return sum(len(one.audio) / RATE for one in self.sentences if one.audio is not None)

    @property
    def failed(self) -> int:
        return sum(one.audio is None for one in self.sentences)

    @property
    def errors(self) -> float:
        """Word or character error rate."""
        code = languages.code(self.language) or "en"
        return error_rate([one.text for one in self.sentences], [one.heard for one in self.sentences], code)

    def worst(self) -> list[Sentence]:
        """The sentences with the most errors."""
        code = languages.code(self.language) or "en"
        rated = sorted(self.sentences, key=lambda one: -error_rate([one.text], [one.heard], code))
        return [one for one in rated if error_rate([one.text], [one.heard], code) > 0][:WORST]


@dataclass
class Accepted:
    """All that is known of one bundle."""

    precision: str
    conversion_seconds: float | None = None
    """None where it was there already."""
    conversion_bytes: int = 0
    """Most memory that the conversion took."""
    problem: str | None = None
    manifest: Manifest | None = None
    greedy: list[str] = field(default_factory=list)
    """Of each greedy utterance, how it compares with the official package's."""
    spoken: list[Spoken] = field(default_factory=list)


def sentences_of(language: str, number: int) -> list[str]:
    """The first sentences in a language; none where there are none."""
    path = SENTENCES / f"{language.lower()}.txt"
    return path.read_text("utf-8").splitlines()[:number] if path.is_file() else []


def convert(model: str, bundle: Path, precision: str, options: Sequence[str]) -> Accepted:
    """Convert a checkpoint in a process of its own, unless that has been done."""
    result = Accepted(precision)
    if not (bundle / MANIFEST_NAME).is_file():
        chosen = ("--model", model, "--output", str(bundle), "--precision", precision)
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "export.convert", *chosen, *options])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        result.conversion_seconds = time.monotonic() - started
        result.conversion_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if process.returncode:
            result.problem = f"the conversion ended with status {process.returncode}"
            return result
    result.manifest = read_manifest(bundle)
    return result


def official_codes(checkpoint: Path, manifest: Manifest, texts: dict[str, str]) -> dict[str, Codes]:
    """Greedy codes `[frames, groups]` of the official package, by language."""
    from tests.oracle import Official

    official = Official(checkpoint)
    speaker = next(iter(sorted(manifest.speakers)), None)
    return {
        language: official.codes(
            text, speaker=speaker, language=language.capitalize(), frames=GREEDY_FRAMES, single_thread=False
        )
        for language, text in texts.items()
    }


def compare_greedy(bundle: Path, manifest: Manifest, texts: dict[str, str], official: dict[str, Codes]) -> list[str]:
    """Let a bundle speak greedily, and say where its codes leave the official ones."""
    from server.engine.job import Job
    from server.engine.provider import open_bundle
    from tests.parity.test_official import GREEDY, speak

    opened = open_bundle(bundle, provider="cpu", threads=0, slots=1)
    greedy = dataclasses.replace(GREEDY, repetition_penalty=manifest.generation.repetition_penalty)
    speaker = next(iter(sorted(manifest.speakers)), None)
    told = []
    for language, text in texts.items():
        prompt = opened.prompts.build(text, speaker=speaker, language=language, instruction=None)
        codes, _ = speak(opened, Job(prompt, greedy, seed=1, max_frames=GREEDY_FRAMES))
        told.append(f"{language}: {difference(codes, official[language])}")
    return told


def difference(ours: Codes, theirs: Codes) -> str:
    """Say in how far greedy codes `[frames, groups]` are the same; after the first difference nothing can be asked."""
    frames = min(len(ours), len(theirs))
    apart = np.flatnonzero((ours[:frames] != theirs[:frames]).any(axis=1))
    if len(apart):
        return f"equal for {apart[0]} of {len(theirs)} frames"
    if len(ours) != len(theirs):
        return f"equal for {frames} frames, and then one ends: ours has {len(ours)}, theirs {len(theirs)}"
    return f"all {ours.size} codes equal"


def counted(client: httpx.Client, name: str) -> int:
    """The sum of a counter of the server over its labels."""
    families = text_string_to_metric_families(client.get("/metrics").raise_for_status().text)
    samples = (sample for family in families for sample in family.samples)
    return int(sum(sample.value for sample in samples if sample.name == f"{PREFIX}_{name}_total"))


def speak_all(bundle: Path, manifest: Manifest, number: int, rows: int) -> list[Spoken]:
    """Let a server with this bundle speak the sentences of each language, its speakers taking turns."""
    speakers: list[str | None] = [*sorted(manifest.speakers)] or [None]
    done = []
    with speaking(bundle, rows) as client, ThreadPoolExecutor(rows) as pool:
        client.timeout = httpx.Timeout(REQUEST_SECONDS)

        def say(language: str, at: int, text: str) -> Sentence:
            speaker = speakers[at % len(speakers)]
            fields = {"input": text, "language": language, "seed": at, "response_format": "wav", "stream": False}
            response = client.post("/v1/audio/speech", json={**fields, **({"voice": speaker} if speaker else {})})
            if response.status_code != 200:
                print(f"{response.status_code} for {text!r}: {response.text}", file=sys.stderr)
                return Sentence(text, speaker, None)
            return Sentence(text, speaker, soundfile.read(io.BytesIO(response.content), dtype="float32")[0])

        for language in languages.spoken(manifest.languages):
            texts = sentences_of(language, number)
            before = [counted(client, name) for name in ("runaways", "retries")]
            started = time.monotonic()
            sentences = list(pool.map(lambda each, language=language: say(language, *each), enumerate(texts)))
            seconds = time.monotonic() - started
            after = [counted(client, name) for name in ("runaways", "retries")]
            if texts:
                done.append(Spoken(language, sentences, seconds, after[0] - before[0], after[1] - before[1]))
                print(f"{bundle.name}: {language} spoken in {seconds:.0f} s", file=sys.stderr, flush=True)
    return done


def listen(spoken: list[Spoken], whisper: str | None) -> None:
    """Write down what is heard of every sentence."""
    for each in spoken:
        code = languages.code(each.language) or "en"
        each.sentences = [
            one if one.audio is None else one._replace(heard=hear(one.audio, RATE, code, whisper))
            for one in each.sentences
        ]


def report(model: str, bundles: Sequence[Accepted], ear: str, rows: int, official: str) -> str:
    """The whole report."""
    first = next((one.manifest for one in bundles if one.manifest), None)
    revision = f", commit `{first.source.revision}`" if first and first.source.revision else ""
    lines = [
        f"## Acceptance of `{model}`{revision}",
        f"qwen3-tts-edge {__version__}; {machine()}; {rows} requests side by side; heard by {ear}.",
        "### Conversion",
        "\n".join(
            [
                "| precision | seconds | memory, GB | size, MB | codes equal to PyTorch's, step by step | problem |",
                "|---|---|---|---|---|---|",
                *(_conversion_row(one) for one in bundles),
            ]
        ),
        "### Greedy codes against the official package",
        official or "\n".join(f"- {one.precision}: {'; '.join(one.greedy)}" for one in bundles if one.greedy),
        "### Speech",
        "Errors are of words; of characters in Chinese, Japanese and Korean. They include the ear's own. RTF is wall "
        "time by seconds of audio, all requests together (below 1 is faster than real time).",
        "\n".join(
            [
                "| precision | language | sentences | errors | failed | runaways | retries | audio, s | RTF |",
                "|---|---|---|---|---|---|---|---|---|",
                *(_speech_row(one, spoken) for one in bundles for spoken in one.spoken),
            ]
        ),
        "### Heard worst",
    ]
    for one in bundles:
        for spoken in one.spoken:
            worst = [
                f"- {sentence.text} → {sentence.heard or '(nothing)'} ({sentence.speaker or 'no speaker'})"
                for sentence in spoken.worst()
            ]
            if worst:
                lines.append("\n".join([f"{one.precision}, {spoken.language}:", "", *worst]))
    return "\n\n".join(lines) + "\n"


def _conversion_row(one: Accepted) -> str:
    seconds = "there already" if one.conversion_seconds is None else f"{one.conversion_seconds:.0f}"
    memory = f"{one.conversion_bytes / 1e9:.1f}" if one.conversion_bytes else ""
    size, codes = "", ""
    if one.manifest:
        size = f"{sum(entry.size for entry in one.manifest.files.values()) / 1e6:.1f}"
        equal = one.manifest.parity.get("codes", {})
        codes = "; ".join(f"{name}: {each['equal']} of {each['compared']}" for name, each in equal.items())
    return f"| {one.precision} | {seconds} | {memory} | {size} | {codes} | {one.problem or ''} |"


def _speech_row(one: Accepted, spoken: Spoken) -> str:
    rtf = f"{spoken.seconds / spoken.audio_seconds:.2f}" if spoken.audio_seconds else ""
    return (
        f"| {one.precision} | {spoken.language} | {len(spoken.sentences)} | {spoken.errors:.1%} | {spoken.failed} "
        f"| {spoken.runaways} | {spoken.retries} | {spoken.audio_seconds:.0f} | {rtf} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, do all of it, and write the report after each bundle."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.acceptance", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="Hub id or folder of a checkpoint")
    parser.add_argument(
        "--precision", nargs="+", choices=get_args(Precision), default=ON_CPU, help="(default: those of a CPU)"
    )
    parser.add_argument("--sentences", type=int, default=30, help="in each language (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=2, help="requests at once (default: %(default)s)")
    parser.add_argument("--whisper", help="a model of faster-whisper, such as large-v3 (default: base, from a package)")
    parser.add_argument("--work", type=Path, default=Path(".cache/acceptance"), help="for the bundles (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("acceptance.md"), help="the report (%(default)s)")
    options, to_convert = parser.parse_known_args(arguments)

    from export.checkpoint import CheckpointError, open_checkpoint

    try:
        checkpoint = open_checkpoint(options.model).folder
    except CheckpointError as error:
        sys.exit(f"error: {error}")
    installed = importlib.util.find_spec("qwen_tts") is not None
    note = "" if installed else "Not compared: `qwen-tts` is not installed."
    ear = f"Whisper {options.whisper or 'base'}"
    done: list[Accepted] = []
    official: dict[str, Codes] = {}
    for precision in options.precision:
        bundle = (options.work / bundle_id(str(options.model), precision)).absolute()
        result = convert(options.model, bundle, precision, to_convert)
        done.append(result)
        if result.manifest is not None:
            spoken = languages.spoken(result.manifest.languages)
            texts = {language: found[0] for language in spoken if (found := sentences_of(language, 1))}
            if installed:
                official = official or official_codes(checkpoint, result.manifest, texts)
                result.greedy = compare_greedy(bundle, result.manifest, texts, official)
            result.spoken = speak_all(bundle, result.manifest, options.sentences, options.rows)
            listen(result.spoken, options.whisper)
        options.output.write_text(report(options.model, done, ear, options.rows, note), "utf-8")
    print(options.output.read_text("utf-8"))


if __name__ == "__main__":
    main()
