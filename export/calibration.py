"""What a bundle says: what its codec decoder and its KV cache are calibrated and measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.parity import TEXT, Tick
from export.weights import CheckpointError
from server.engine.bundle import OpenBundle, open_prompts
from server.engine.job import Job, Sampling
from server.engine.manner import AUTO
from server.engine.prompt import Prompt, PromptBuilder
from server.engine.reference import Reference
from server.engine.synthesizer import Synthesizer
from server.graphs.caches import Saved
from server.graphs.code_predictor import CodePredictor
from server.graphs.codec_decoder import CodecDecoder, CodecState
from server.graphs.frame_state import FrameState
from server.graphs.session import Session, open_session
from server.graphs.talker import Talker
from server.manifest import Manifest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TEXTS = (
    "Really? You would do that for me, after all this time!",
    "Once upon a time, she whispered, there was nothing here but sand and the sound of the sea.",
    "At 9:45 the judge asked for chapter 12; thirty voices answered.",
    "今天天气怎么样？我们去公园吧。",
    TEXT,
)
"""What is said where no other texts are given; the last is to be measured with."""
_FRAMES = 64
_SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)


@dataclass(frozen=True)
class Spoken:
    """What a bundle says to a text, and what its talker computes meanwhile.

    `caches` are the tensors of its KV cache in the graph's order, `[kv_heads, positions, head_dim]` each. Others'
    shapes: `codes` `[frames, groups]`, `prompt` `[positions, hidden]`, `logits` `[steps, vocab_size]` that each code 0
    is drawn from, `inputs` `[steps, hidden]` that the talker is fed after each. The last step may be one more than the
    last frame: the one in which the speech ends.
    """

    codes: Ints
    prompt: Floats
    logits: Floats
    inputs: Floats
    caches: Saved


class _Watched(CodePredictor):
    """Keeps what it draws the first code from, and what it gives the talker; of one row."""

    def __init__(self, session: Session, state: FrameState) -> None:
        super().__init__(session, state)
        self.logits: list[Floats] = []
        self.inputs: list[Floats] = []

    def run(self, start: int, controls: Floats) -> Ints:
        self.logits.append(self._state.logits.read(start, start + 1)[0])
        codes = super().run(start, controls)
        self.inputs.append(self._state.talker_inputs.read(start, start + 1)[0, 0])
        return codes


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


def prompts_of(
    prompts: PromptBuilder, manifest: Manifest, texts: Sequence[str], voice: Reference | None = None
) -> list[Prompt]:
    """Whole prompts of some texts; speakers take turns, unless there is a voice to speak with."""
    speakers = list(manifest.speakers) if voice is None else []
    english = "english" if "english" in manifest.languages else AUTO
    return [
        prompts.build(
            text,
            speaker=speakers[number % len(speakers)] if speakers else None,
            language=english if text.isascii() else AUTO,
            instruction=None,
            layout="whole",
            reference=voice,
        )
        for number, text in enumerate(texts)
    ]


def spoken(
    folder: Path, manifest: Manifest, tick: Tick, voice: Reference | None = None, texts: Sequence[str] = TEXTS
) -> list[Spoken]:
    """What a bundle's talker and code predictor say to some texts; one to which they say nothing is left out.

    Args:
        folder: holds the bundle's tables and graphs.
        manifest: of these.
        tick: hears how many texts of how many have been spoken.
        voice: to speak with, where the model clones voices.
        texts: to be said.

    Raises:
        CheckpointError: it says something to fewer than two of several texts, or to none.
    """
    sessions = {
        name: open_session(folder / manifest.graphs[name].file, "cpu", 0) for name in ("talker", "code_predictor")
    }
    talker = Talker(sessions["talker"], manifest.sizes, 1)
    watched = _Watched(sessions["code_predictor"], talker.state)
    deaf = _Deaf(manifest.sizes.codec.samples_per_frame)
    bundle = OpenBundle(
        manifest=manifest,
        provider="cpu",
        prompts=open_prompts(folder, manifest),
        talker=talker,
        code_predictor=watched,
        codec_decoder=deaf,
    )
    synthesizer, found = Synthesizer(bundle), list[Spoken]()
    for number, prompt in enumerate(prompts_of(bundle.prompts, manifest, texts, voice)):
        row = synthesizer.start(Job(prompt, _SAMPLING, seed=number, max_frames=_FRAMES), 0)
        while not row.finished:
            synthesizer.frame([row])
        if row.error:
            raise row.error
        if deaf.codes:
            found.append(
                Spoken(
                    codes=np.concatenate(deaf.codes),
                    prompt=prompt.embeddings,
                    logits=np.stack(watched.logits),
                    inputs=np.stack(watched.inputs),
                    caches=talker.save(0, row.state.length),
                )
            )
        for kept in (deaf.codes, watched.logits, watched.inputs):
            kept.clear()
        tick(number + 1, len(texts))
    if len(found) < min(2, len(texts)):
        raise CheckpointError(
            f"the model ends at once when it is to say {texts[0]!r} and the like, so that its codec decoder cannot be "
            "measured with what it says: look at the checkpoint, or convert with --precision fp32"
        )
    return found


def spoken_codes(folder: Path, manifest: Manifest, tick: Tick, voice: Reference | None = None) -> list[Ints]:
    """The codes of `spoken`, whose arguments and errors it has, `[frames, groups]` a text."""
    return [one.codes for one in spoken(folder, manifest, tick, voice)]
