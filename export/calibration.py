"""What a bundle says: the codes that its codec decoder is calibrated and measured with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.parity import TEXT, Tick
from export.weights import CheckpointError
from server.engine.bundle import OpenBundle, open_prompts
from server.engine.job import Job, Sampling
from server.engine.manner import AUTO
from server.engine.reference import Reference
from server.engine.synthesizer import Synthesizer
from server.graphs.code_predictor import CodePredictor
from server.graphs.codec_decoder import CodecDecoder, CodecState
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import Manifest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_TEXTS = (
    "Really? You would do that for me, after all this time!",
    "Once upon a time, she whispered, there was nothing here but sand and the sound of the sea.",
    "At 9:45 the judge asked for chapter 12; thirty voices answered.",
    "今天天气怎么样？我们去公园吧。",
)
_FRAMES = 64
_SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)


class _Deaf(CodecDecoder):
    """Keeps the codes that it is given and makes no sound of them."""

    def __init__(self, samples_per_frame: int) -> None:
        self._samples_per_frame = samples_per_frame
        self.codes: list[Ints] = []

    def start(self) -> CodecState:
        return CodecState(0, ())

    def decode(self, codes: Ints, states: Sequence[CodecState]) -> tuple[Floats, list[CodecState]]:
        rows, frames, _ = codes.shape
        self.codes.append(codes[0])
        return np.zeros((rows, frames * self._samples_per_frame), np.float32), list(states)


def spoken_codes(folder: Path, manifest: Manifest, tick: Tick, voice: Reference | None = None) -> list[Ints]:
    """What a bundle's talker and code predictor say, `[frames, groups]` a text; the last is to be measured with.

    Args:
        folder: holds the bundle's tables and graphs.
        manifest: of these.
        tick: hears how many texts of how many have been spoken.
        voice: to speak with, where the model clones voices.

    Raises:
        CheckpointError: it says nothing.
    """
    sessions = {
        name: open_session(folder / manifest.graphs[name].file, "cpu", 0) for name in ("talker", "code_predictor")
    }
    talker = Talker(sessions["talker"], manifest.sizes, 1)
    deaf = _Deaf(manifest.sizes.codec.samples_per_frame)
    bundle = OpenBundle(
        manifest=manifest,
        provider="cpu",
        prompts=open_prompts(folder, manifest),
        talker=talker,
        code_predictor=CodePredictor(sessions["code_predictor"], talker.state),
        codec_decoder=deaf,
    )
    synthesizer, speakers, found = Synthesizer(bundle), list(manifest.speakers), []
    language = "english" if "english" in manifest.languages else AUTO
    texts = (*_TEXTS, TEXT)
    for number, text in enumerate(texts):
        speaker = speakers[number % len(speakers)] if speakers and voice is None else None
        prompt = bundle.prompts.build(
            text,
            speaker=speaker,
            language=language if text.isascii() else AUTO,
            instruction=None,
            layout="whole",
            reference=voice,
        )
        row = synthesizer.start(Job(prompt, _SAMPLING, seed=number, max_frames=_FRAMES), 0)
        while not row.finished:
            synthesizer.frame([row])
        if row.error:
            raise row.error
        if not deaf.codes:
            raise CheckpointError(
                f"the model ends at once when it is to say {text!r}, so that its codec decoder cannot be measured with "
                "what it says: look at the checkpoint, or convert with --precision fp32"
            )
        found.append(np.concatenate(deaf.codes))
        deaf.codes.clear()
        tick(number + 1, len(texts))
    return found
