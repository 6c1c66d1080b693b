"""What goes through the codec decoder when a bundle speaks: for scales that are fixed when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from export.convolutions import Floats, blocks, quantise_convolutions, range_output, watched
from export.parity import TEXT, Tick
from server.engine.bundle import OpenBundle, open_prompts
from server.engine.job import Job, Sampling
from server.engine.prompt import AUTO
from server.engine.synthesizer import Synthesizer
from server.graphs.code_predictor import CodePredictor
from server.graphs.codec_decoder import CodecDecoder, CodecState
from server.graphs.manifest import Manifest
from server.graphs.session import open_session
from server.graphs.talker import Talker

Ints = NDArray[np.int64]

LOUDEST_NOISE = -60.0
"""In dB of full scale, of what 8 bits may add."""
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


def spoken_codes(folder: Path, manifest: Manifest, tick: Tick) -> list[Ints]:
    """What a bundle's talker and code predictor say, `[frames, groups]` a text; the last is to be measured with.

    Args:
        folder: holds the bundle's tables and graphs.
        manifest: of these.
        tick: hears how many texts of how many have been spoken.
    """
    sessions = {
        name: open_session(folder / manifest.graphs[name].file, "cpu", 0) for name in ("talker", "code_predictor")
    }
    deaf = _Deaf(manifest.sizes.codec.samples_per_frame)
    bundle = OpenBundle(
        manifest=manifest,
        provider="cpu",
        prompts=open_prompts(folder, manifest),
        talker=Talker(sessions["talker"], manifest.sizes.talker, 1),
        code_predictor=CodePredictor(sessions["code_predictor"]),
        codec_decoder=deaf,
    )
    synthesizer, speakers, found = Synthesizer(bundle), list(manifest.speakers), []
    language = "english" if "english" in manifest.languages else AUTO
    texts = (*_TEXTS, TEXT)
    for number, text in enumerate(texts):
        speaker = speakers[number % len(speakers)] if speakers else None
        prompt = bundle.prompts.build(
            text, speaker=speaker, language=language if text.isascii() else AUTO, instruction=None
        )
        row = synthesizer.start(Job(prompt, _SAMPLING, seed=number, max_frames=_FRAMES), 0)
        while not row.finished:
            synthesizer.frame([row])
        if row.error:
            raise row.error
        if deaf.codes:
            found.append(np.concatenate(deaf.codes))
        deaf.codes = []
        tick(number + 1, len(texts))
    return found


def quantise_quietly(model: onnx.ModelProto, codes: Sequence[Ints], *, always: bool) -> tuple[float, list[int]]:
    """Quantise, in place, the convolutions of as many of the codec decoder's blocks as are not heard, first ones first.

    Args:
        model: the decoder, in float32.
        codes: what it is calibrated with, and, last, what it is measured with.
        always: whether to quantise them all, whatever the noise.

    Returns:
        The noise that this adds to the last codes' audio, in dB of full scale, and the blocks that stay in float32.
    """
    observed, names = watched(model)
    decode, outputs = _session(observed), [range_output(name) for name in names]
    ranges: dict[str, Floats] = {}
    for frames in codes[:-1]:
        for name, ends in zip(names, _run(decode, outputs, frames), strict=True):
            low, high = ranges.setdefault(name, ends)
            ranges[name] = np.stack([np.minimum(low, ends[0]), np.maximum(high, ends[1])])
    (wanted,) = _run(decode, ["waveform"], codes[-1])
    every = blocks(model.graph)
    for count in range(len(every), 0, -1):
        quantised = onnx.ModelProto()
        quantised.CopyFrom(model)
        quantise_convolutions(quantised, ranges, every[:count])
        (found,) = _run(_session(quantised), ["waveform"], codes[-1])
        noise = noise_dbfs(found, wanted)
        if always or noise <= LOUDEST_NOISE:
            model.CopyFrom(quantised)
            return noise, every[count:]
    return -np.inf, every


def noise_dbfs(found: Floats, wanted: Floats) -> float:
    """Root mean square of what two recordings differ by, in dB of full scale."""
    power = np.square(found.astype(np.float64) - wanted).mean()
    return float(10 * np.log10(power + 1e-20))


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, outputs: list[str], codes: Ints) -> list[Any]:
    past = {
        value.name: np.zeros((1, *value.shape[1:]), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past.")
    }
    return session.run(outputs, {"codes": codes[None], "position": np.zeros(1, np.int64), **past})  # type: ignore[no-any-return]
