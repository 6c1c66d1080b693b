"""`python spelling.py WORK BUNDLE`: how well a bundle knows how words are said, by the phonemes in its own codes.

No recogniser is needed: codebooks 0 to 3 are phonemes. They are compared with the teacher's for the same texts, those
of the first shard, which the talker never sees, as runs: how long each lasts does not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
from numpy.typing import NDArray

from layout import SPEAKER
from server.engine.job import Job, Sampling
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.graphs.codec_decoder import CodecDecoder, CodecState
from speech_codes import SLOT_OF_CODEBOOK
from speech_data import SILENT, load_shard

SHORTEST, LONGEST = 25, 90
"""Frames of the utterances that are compared."""


class Deaf(CodecDecoder):
    """Keeps the codes that it is given and makes no sound of them."""

    def __init__(self, samples_per_frame: int) -> None:
        self._samples_per_frame = samples_per_frame
        self.codes: list[NDArray[np.int64]] = []

    def start(self) -> CodecState:
        return CodecState(0, ())

    def decode(
        self, codes: NDArray[np.int64], states: Sequence[CodecState]
    ) -> tuple[NDArray[np.float32], list[CodecState]]:
        self.codes.append(codes[0])
        return np.zeros((len(codes), codes.shape[1] * self._samples_per_frame), np.float32), list(states)


def phonemes(codes: NDArray[np.integer]) -> str:
    """Ids of the sounds in codes `[frames, CODEBOOKS]`, none twice in a row."""
    line = codes[:, np.argsort(SLOT_OF_CODEBOOK)].reshape(-1)
    line = line[np.concatenate([[True], line[1:] != line[:-1]])]
    return " ".join(str(phone) for phone in line if phone not in SILENT)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a bundle's phonemes with the teacher's.")
    parser.add_argument("--utterances", type=int, default=100)
    parser.add_argument("--temperature", type=float, help="of all codes (default: the bundle's own)")
    parser.add_argument("work", type=Path)
    parser.add_argument("bundle", type=Path)
    arguments = parser.parse_args()
    work: Path = arguments.work
    texts = (work / "texts.txt").read_text("utf-8").splitlines()
    starts, codes = load_shard(work, 0).starts, np.load(work / "codes-000.npy")
    spans = zip(texts, starts[:-1], starts[1:], strict=False)
    chosen = [span for span in spans if SHORTEST <= span[2] - span[1] <= LONGEST][: arguments.utterances]
    bundle = open_bundle(arguments.bundle, provider="cpu", threads=1, slots=1)
    own = bundle.manifest.generation
    temperature, other = (own.temperature, own.subtalker_temperature)
    if arguments.temperature is not None:
        temperature = other = arguments.temperature
    sampling = Sampling(temperature, own.top_k, own.top_p, own.repetition_penalty, other, own.subtalker_top_k,
                        own.subtalker_top_p)  # fmt: skip
    deaf = Deaf(bundle.manifest.sizes.codec.samples_per_frame)
    synthesizer = Synthesizer(replace(bundle, codec_decoder=deaf))
    wanted, made = [], []
    for seed, (text, start, end) in enumerate(chosen):
        deaf.codes = []
        prompt = bundle.prompts.build(text, speaker=SPEAKER, language="english", instruction=None)
        row = synthesizer.start(Job(prompt, sampling, seed=seed, max_frames=4 * LONGEST), 0)
        while not row.finished:
            synthesizer.frame([row])
        wanted.append(phonemes(codes[start:end]))
        made.append(phonemes(np.concatenate(deaf.codes)))
    found = jiwer.process_words(wanted, made)
    count = sum(len(line.split()) for line in wanted)
    print(f"{len(chosen)} utterances, {count} phonemes: {found.wer:.1%} wrong ({found.substitutions} others, "
          f"{found.insertions} too many, {found.deletions} missing)")  # fmt: skip


if __name__ == "__main__":
    main()
