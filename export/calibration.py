"""The codec decoder in 8 bits: calibrated with what the bundle says, as long as it is not heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from export.graphs.codec_decoder import CodecDecoder as TorchCodecDecoder
from export.graphs.codec_decoder import CodecDecoderOnnxConfig, decode_whole
from export.graphs.codec_quantised import observe, quantise_decoder
from export.graphs.graph import export_graph, save_graph
from export.parity import TEXT, Tick
from export.quantise import INT8, INT8_FINE, WeightFormat, quantise_graph
from server.engine.bundle import OpenBundle, open_prompts
from server.engine.job import Job, Sampling
from server.engine.manner import AUTO
from server.engine.reference import Reference
from server.engine.synthesizer import Synthesizer
from server.graphs.code_predictor import CodePredictor
from server.graphs.codec_decoder import CodecDecoder, CodecState
from server.graphs.cores import thread_count
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import Manifest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LOUDEST_NOISE = -34.0
"""What 8 bits may add, in dB of the speech that they add it to, which masks it: soft speech, as the embedded model's at
-28 dB of full scale, takes -62. MP3 and Opus, in which most of it is sent, add more."""
_SOFTEST_SPEECH = -67.0
"""In dB of full scale. Noise below speech that is softer still is compared with this: -34 dB of it, -101, is what the
rounding to 16 bits adds."""
_TEXTS = (
    "Really? You would do that for me, after all this time!",
    "Once upon a time, she whispered, there was nothing here but sand and the sound of the sea.",
    "At 9:45 the judge asked for chapter 12; thirty voices answered.",
    "今天天气怎么样？我们去公园吧。",
)
_FRAMES = 64
_SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
_MATRICES: tuple[WeightFormat | None, ...] = (INT8, INT8_FINE, None)
"""How the decoder's matrices are stored, fastest first; None is in float32."""
_FRONT = dict.fromkeys(("/pre_conv/", "/pre_transformer/", "/upsample."), INT8_FINE)
"""Formats by how the nodes' names begin, which are the modules' own: of matrices that see a frame as a single row if it
is decoded alone, for which ONNX Runtime rounds otherwise than for several. In small blocks that is not heard either,
and they take little of the time."""


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
        found.append(np.concatenate(deaf.codes))
        deaf.codes.clear()
        tick(number + 1, len(texts))
    return found


@dataclass(frozen=True)
class Quietest:
    """How much of the codec decoder computes in 8 bits: the noise that it adds, in dB of the speech, the upsampling
    blocks that stay in float32, and how matrices are stored, None being in float32."""

    noise: float
    float_blocks: list[int]
    matrices: WeightFormat | None


def export_quantised(
    load: Callable[[], TorchCodecDecoder], codes: Sequence[Ints], folder: Path, *, always: bool, validate: bool = True
) -> Quietest:
    """Write `codec_decoder.onnx` with as much of it in 8 bits as is not heard: matrices, and first blocks first.

    Args:
        load: makes the decoder, in float32.
        codes: what it is calibrated with, and, last, what its noise is measured with.
        folder: where to write.
        always: whether to quantise everything, whatever the noise.
        validate: whether a decoder that stays in float32 is compared with PyTorch's.
    """
    exact = load()
    ranges, wanted = observe(exact, codes[:-1]), decode_whole(exact, codes[-1])
    every = sorted(ranges)
    for count in range(len(every), 0, -1):
        decoder = load()
        quantise_decoder(decoder, ranges, every[:count])
        path = export_graph("codec_decoder", CodecDecoderOnnxConfig(decoder), folder, validate=False)
        for how in _MATRICES if count == len(every) else _MATRICES[-1:]:
            model = onnx.load(path)
            if how:
                quantise_graph(model, how, formats_by_prefix=_FRONT)
            noise = noise_db(_run(model, codes[-1]), wanted)
            if always or noise <= LOUDEST_NOISE:
                save_graph(model, path)
                return Quietest(noise, every[count:], how)
    export_graph("codec_decoder", CodecDecoderOnnxConfig(exact), folder, validate=validate)
    return Quietest(-np.inf, every, None)


def noise_db(found: Floats, wanted: Floats) -> float:
    """Root mean square of what two recordings differ by, in dB of that of the `wanted` one."""
    noise, speech = (np.square(x.astype(np.float64)).mean() for x in (found.astype(np.float64) - wanted, wanted))
    return _decibels(noise) - max(_decibels(speech), _SOFTEST_SPEECH)


def _decibels(power: float) -> float:
    return float(10 * np.log10(power + 1e-20))


def _run(model: onnx.ModelProto, codes: Ints) -> Floats:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = thread_count(0)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    waveform, _ = CodecDecoder(session).decode(codes[None], [CodecDecoder(session).start()])
    return waveform[0]  # type: ignore[no-any-return]
