"""`python teacher.py WORK`: says `texts.txt` with hibari-tts and keeps what is needed to learn from it.

Shard `n` holds the texts from `n * SHARD` on: `audio-n.npy` (int16, 24 kHz, every utterance a whole number of codec
frames) and `spoken-n.npz`: `lengths` (samples), and at 80 a second `phones` (the teacher's phoneme ids), `pitch` (Hz,
about 0 where it has none) and `words` (index into `text.split()`, or -1 where the teacher's words do not match the
written ones). Shards that exist are kept, so that a run that was cut off goes on; several processes may share a folder
(`--part 0/2`, `--part 1/2`).
"""

from __future__ import annotations

import server  # noqa: F401  (before hibari loads ONNX Runtime: it switches its telemetry off)

# isort: split
import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from hibari import Hibari, dsp
from numpy.typing import NDArray

SHARD = 1000
SAMPLE_RATE = 24_000
FRAME = 1920
STEP = 300
"""Samples of one of the teacher's own frames."""
_LEAD, _TAIL = 6, 12
"""Frames of its silence that are kept before and after the speech."""
_DURATIONS = "/Clip_output_0"
_STEPS_A_DURATION = 2


@dataclass(frozen=True)
class Utterance:
    """Audio float32 `[samples]`; at `[samples / STEP]` phoneme ids, word indices and pitch in Hz."""

    audio: NDArray[np.float32]
    phones: NDArray[np.uint8]
    words: NDArray[np.int16]
    pitch: NDArray[np.float32]


class Teacher:
    """hibari-tts, with the durations that its graph computes on the way."""

    def __init__(self) -> None:
        self._hibari = Hibari()
        graph = onnx.load(self._hibari.model_path)
        graph.graph.output.append(onnx.ValueInfoProto(name=_DURATIONS))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph.SerializeToString(), options)

    def say(self, text: str, seed: int) -> Utterance | None:
        """Speak `text`, sentence by sentence; None where the teacher has nothing to say or would cut a sentence."""
        draw = np.random.default_rng(seed)
        parts, first = [], 0
        for sentence in self._hibari.split_sentences(text):
            phonemes = self._hibari.g2p(sentence)
            if not phonemes or len(phonemes) > 400:
                return None
            parts.append(self._sentence(sentence, phonemes, first, draw))
            first += len(sentence.split())
        if not parts:
            return None
        return Utterance(
            *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Utterance))
        )

    def _sentence(self, sentence: str, phonemes: str, first: int, draw: np.random.Generator) -> Utterance:
        ids = self._hibari.ids(phonemes)
        feed = {"ids": np.array([ids], np.int64), "speed": np.ones(1, np.float32)}
        *spectrum, durations = self._session.run(None, feed)
        pitch = spectrum[-1][0]
        audio = dsp.synth(*(part[0] for part in spectrum), draw)
        durations = durations.reshape(-1).astype(int) * _STEPS_A_DURATION
        if durations.sum() * STEP != len(audio):
            raise RuntimeError(f"{durations.sum()} steps of durations for {len(audio)} samples: another hibari-tts")
        known = [character for character in phonemes if character in self._hibari.vocab]
        numbers = np.cumsum([character == " " for character in known]) + first
        if numbers[-1] + 1 - first != len(sentence.split()):
            numbers = np.full(len(known), -1)
        words = np.repeat(np.array([numbers[0], *numbers, numbers[-1]]), durations).astype(np.int16)
        phones = np.repeat(np.array(ids), durations).astype(np.uint8)
        return _trimmed(Utterance(audio.astype(np.float32), phones, words, pitch))


def _trimmed(whole: Utterance) -> Utterance:
    """Cut off the silence at the ends that speech does not need."""
    steps = len(whole.phones)
    loud = np.abs(whole.audio[: steps * STEP]).reshape(steps, STEP).max(1) > 0.01
    if not loud.any():
        return whole
    start = max(int(loud.argmax()) - _LEAD, 0)
    end = min(steps - int(loud[::-1].argmax()) + _TAIL, steps)
    kept = {field.name: getattr(whole, field.name)[start:end] for field in fields(Utterance)[1:]}
    return Utterance(whole.audio[start * STEP : end * STEP], **kept)


def _padded(utterance: Utterance) -> Utterance:
    """Fill up to whole codec frames with silence."""
    samples = -(-len(utterance.audio) // FRAME) * FRAME
    steps = samples // STEP  # not a whole number for an odd count of frames: the last half step is left out
    more = (0, steps - len(utterance.phones))
    said = {name: np.pad(getattr(utterance, name), more) for name in ("phones", "pitch")}
    return Utterance(
        np.pad(utterance.audio, (0, samples - len(utterance.audio))),
        words=np.pad(utterance.words, more, mode="edge"),
        **said,
    )


def _shard(teacher: Teacher, texts: list[str], first: int) -> Iterator[Utterance | None]:
    for number, text in enumerate(texts, first):
        said = teacher.say(text, number)
        yield _padded(said) if said else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Speak the training texts with the teacher.")
    parser.add_argument("--part", default="0/1", help="which of how many processes this is")
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    texts = (arguments.work / "texts.txt").read_text("utf-8").splitlines()
    teacher = Teacher()
    for shard in range(part, -(-len(texts) // SHARD), parts):
        target = arguments.work / f"spoken-{shard:03d}.npz"
        if target.exists():
            continue
        first = shard * SHARD
        said = list(_shard(teacher, texts[first : first + SHARD], first))
        spoken = [utterance for utterance in said if utterance]
        audio = np.concatenate([np.clip(item.audio * 32767, -32768, 32767).astype(np.int16) for item in spoken])
        np.save(arguments.work / f"audio-{shard:03d}.npy", audio)
        with (temporary := target.with_suffix(".tmp")).open("wb") as file:
            lengths = np.array([len(utterance.audio) if utterance else 0 for utterance in said])
            parts = {field.name: [getattr(item, field.name) for item in spoken] for field in fields(Utterance)[1:]}
            np.savez(file, lengths=lengths, **{name: np.concatenate(values) for name, values in parts.items()})
        temporary.replace(target)
        print(f"shard {shard}: {len(audio) / SAMPLE_RATE / 3600:.2f} h", flush=True)


if __name__ == "__main__":
    main()
