"""Compares the codes that a device draws with the CPU's, which computes in float32 with the same rounded weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.graphs.cuda.widened import widen
from server.engine.bundle import open_prompts
from server.engine.frames import Frames
from server.engine.holdback import RowState
from server.engine.job import Job, Sampling
from server.engine.manner import AUTO
from server.engine.prompt import Prompt
from server.engine.provider import open_bundle
from server.engine.rows import Row
from server.engine.sampling import RowSampler
from server.engine.synthesizer import CHUNK_RAMP
from server.graphs.code_predictor import CodePredictor, forced_logits
from server.graphs.cuda.codec_decoder import PooledCodecDecoder
from server.graphs.cuda.memory import DeviceMemory
from server.graphs.frame_state import Controls, RowOutput, control_buffer
from server.graphs.memory import HostMemory
from server.graphs.session import Chosen, Session, open_session
from server.graphs.talker import Talker
from server.manifest import Manifest, read_manifest
from tests.host_draw import draw_code_0

FRAMES = 32
TEXT = "On 3 May 2026, at half past seven, the ferry left for Aarhus with 214 people aboard."
REPETITION_PENALTY = 1.05
SAMPLED = Sampling(0.9, 50, 0.95, 1.05, 0.9, 50, 1.0)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Said:
    """What a bundle says to one prompt, greedily.

    Shapes: `codes` `[frames, groups]`, `inputs` and `hidden` `[frames, hidden]` (what the talker is fed after each
    frame, and its hidden state before it), `logits` `[frames, vocab_size]`, `predictor_logits` `[frames, groups - 1,
    codes]`, `waveform` `[samples]`.
    """

    codes: NDArray[np.int64]
    inputs: Floats
    hidden: Floats
    logits: Floats
    predictor_logits: Floats
    waveform: Floats


class Equal(NamedTuple):
    """How many codes of so many are the same."""

    equal: int
    compared: int


class Parity(NamedTuple):
    """How far a device is from the CPU.

    `codes` by what is compared; `errors` by graph: the largest difference of its output as a part of the CPU's largest
    magnitude.
    """

    codes: dict[str, Equal]
    errors: dict[str, float]


def parity(bundle: Path, device: Chosen, threads: int) -> Parity:
    """Compare a bundle on `device` with itself on the CPU, in float32.

    The CPU speaks first. Each step of the device is then fed what the CPU was fed (teacher forcing), so that errors do
    not add up. Of codebook 0 it also says how often the device draws, from the same logits and with the same numbers,
    what NumPy draws.
    """
    manifest = read_manifest(bundle)
    prompts = open_prompts(bundle, manifest)
    speaker = next(iter(manifest.speakers), None)
    prompt = prompts.build(TEXT, speaker=speaker, language=AUTO, instruction=None).embeddings
    with TemporaryDirectory(dir=bundle.parent, prefix=".widened-") as folder:
        for graph in manifest.graphs.values():
            widen(bundle / graph.file, Path(folder, graph.file))
        expected = _spoken(_Graphs(Path(folder), manifest, "cpu", threads), prompt, prompts.pad, None)
    found = _spoken(_Graphs(bundle, manifest, device, threads), prompt, prompts.pad, expected)
    wanted = expected.codes
    codes = {
        "codebook 0": _equal(found.codes[:, 0], wanted[:, 0]),
        "other codebooks": _equal(found.predictor_logits.argmax(-1), wanted[:, 1:]),
        "codebook 0 drawn from the same logits": _drawn(bundle, device, threads, len(prompt), expected),
    }
    errors = {
        "talker": _error(found.logits, expected.logits),
        "code predictor": _error(found.predictor_logits, expected.predictor_logits),
        "codec decoder": _error(found.waveform, expected.waveform),
    }
    return Parity(codes, errors)


class _Graphs:
    """The three graphs of a bundle on a device, for one row."""

    def __init__(self, folder: Path, manifest: Manifest, device: Chosen, threads: int) -> None:
        self.manifest, self.device = manifest, device
        self._sessions = {n: open_session(folder / g.file, device, threads) for n, g in manifest.graphs.items()}

    def __getitem__(self, name: str) -> Session:
        return self._sessions[name]


def _spoken(graphs: _Graphs, prompt: Floats, pad: Floats, forced: Said | None) -> Said:
    """What the graphs say; where `forced` is given, each step is fed what was said there."""
    manifest, sizes = graphs.manifest, graphs.manifest.sizes
    positions = min(len(prompt) + FRAMES, sizes.talker.max_positions)  # a device takes the memory of all of them
    sizes = sizes.model_copy(update={"talker": sizes.talker.model_copy(update={"max_positions": positions})})
    memory = HostMemory() if graphs.device == "cpu" else DeviceMemory(graphs["talker"], graphs.device)
    talker = Talker(graphs["talker"], sizes, 1, memory)
    talker.state.put_text(0, pad)
    predictor = CodePredictor(graphs["code_predictor"], talker.state)
    rows: dict[str, list[Any]] = {name: [] for name in ("codes", "inputs", "hidden", "logits", "predictor_logits")}
    begin, groups = talker.prefill(0, prompt), sizes.code_predictor.num_code_groups
    seen = np.zeros(sizes.talker.vocab_size, np.bool_)
    talker.state.put(0, RowOutput(*(value[0] for value in begin)), seen)
    controls = Controls(len(prompt), repetition_penalty=REPETITION_PENALTY)
    for frame in range(FRAMES):
        logits, hidden = talker.state.get(0)
        (codes,) = predictor.run(0, control_buffer([controls], [np.zeros(groups, np.float32)]))
        ((inputs,),) = talker.state.talker_inputs.read(0, 1)
        fed_codes, fed_inputs, fed_hidden = codes[None], inputs[None], hidden[None]
        if forced is not None:
            now = slice(frame, frame + 1)
            fed_codes, fed_inputs, fed_hidden = forced.codes[now], forced.inputs[now], forced.hidden[now]
        (predictor_logits,) = forced_logits(graphs["code_predictor"], fed_hidden, fed_codes)
        for name, value in zip(rows, (codes, inputs, hidden, logits, predictor_logits), strict=True):
            rows[name].append(value)
        talker.decode(0, fed_inputs, np.array([controls.length], np.int32))
        controls = controls._replace(length=controls.length + 1, last_code=int(fed_codes[0, 0]))
    stacked: dict[str, Any] = {name: np.stack(values) for name, values in rows.items()}
    decoder = PooledCodecDecoder(graphs["codec_decoder"], sizes.codec.samples_per_frame, 1, memory)
    said = forced.codes if forced else stacked["codes"]
    for _ in range(2):  # the second time every call is replayed, each behind calls of other shapes
        waveform = np.concatenate([*_decoded(decoder, said)])
    assert manifest.sizes.codec.samples_per_frame * FRAMES == len(waveform)
    return Said(waveform=waveform, **stacked)


def _decoded(decoder: PooledCodecDecoder, codes: NDArray[np.int64]) -> Iterator[Floats]:
    """Samples, in chunks as the engine decodes them, so that what is carried between them is compared too."""
    state, start, turn = decoder.start(), 0, 0
    while start < len(codes):
        count = min(CHUNK_RAMP[min(turn, len(CHUNK_RAMP) - 1)], len(codes) - start)
        waveform, (state,) = decoder.decode(codes[None, start : start + count], [state])
        yield waveform[0]
        start, turn = start + count, turn + 1


def _equal(found: NDArray[Any], expected: NDArray[Any]) -> Equal:
    return Equal(int((found == expected).sum()), expected.size)


def _error(found: Floats, expected: Floats) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


def _drawn(bundle: Path, device: Chosen, threads: int, length: int, expected: Said) -> Equal:
    opened = open_bundle(bundle, provider=device, threads=threads, slots=1, positions=length + FRAMES)
    codec, equal = opened.codec_decoder.start(), 0
    prompt = Prompt(np.zeros((length, expected.hidden.shape[1]), np.float32), 1)
    job = Job(prompt, SAMPLED, seed=0, max_frames=FRAMES)
    device_sampler, host_sampler = (RowSampler(SAMPLED, 0, opened.manifest) for _ in range(2))
    frames = Frames(opened.talker, opened.code_predictor, opened.manifest.sizes, opened.prompts.pad)
    end = opened.manifest.ids.codec_eos
    for logits, hidden, codes in zip(expected.logits, expected.hidden, expected.codes, strict=True):
        row = Row(job, 0, RowState(length, RowOutput(logits, hidden), codec, None), device_sampler)
        wanted = draw_code_0(host_sampler, logits, host_sampler.uniforms()[0], end=end)
        found = [end if drawn is None else drawn[0] for _, drawn in frames.draw([row])]
        equal += found == [wanted]
        for sampler in (device_sampler, host_sampler):
            sampler.accept(int(codes[0]))
    return Equal(equal, len(expected.codes))
