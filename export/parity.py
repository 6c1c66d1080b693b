"""ONNX against PyTorch: how far a bundle is from the checkpoint it was made of.

The PyTorch side runs first and leaves a `Reference`; the ONNX side runs afterwards, through the wrappers that ship, so
that no more than one copy of the weights is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.checkpoint import Checkpoint
from export.encoders_parity import Encoded, encode_sample, run_encoders
from export.graphs.code_predictor import CodePredictorStep
from export.graphs.codec_decoder import CodecDecoder as TorchCodecDecoder
from export.graphs.codec_decoder import decode_whole
from export.graphs.first_code import FirstCode
from export.graphs.layers import empty_caches
from export.graphs.talker import Talker as TorchTalker
from export.graphs.validation import relative_error
from server.engine.bundle import codec_decoder_of
from server.engine.manner import AUTO
from server.engine.prompt import PromptBuilder
from server.engine.synthesizer import CHUNK_RAMP
from server.graphs.code_predictor import forced_logits
from server.graphs.cuda.memory import DeviceMemory
from server.graphs.frame_state import Controls
from server.graphs.memory import HostMemory, Memory
from server.graphs.session import Chosen, Session, open_session
from server.graphs.talker import Talker
from server.manifest import SPEAKER_ENCODER, Manifest, Sizes

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Tick = Callable[[int, int], None]

FRAMES = 32
TEXT = "On 3 May 2026, at half past seven, the ferry left for Aarhus with 214 people aboard."
REPETITION_PENALTY = 1.05


class GreedyCodes:
    """Chooses code 0 greedily, frame by frame; end-of-speech is passed over.

    Args:
        manifest: sizes and end-of-speech.
    """

    def __init__(self, manifest: Manifest) -> None:
        talker, self._groups = manifest.sizes.talker, manifest.sizes.code_predictor.num_code_groups
        self._first = FirstCode(talker.vocab_size, manifest.ids.codec_eos, self._groups, hidden_size=1)
        self._seen = torch.zeros(1, talker.vocab_size, dtype=torch.bool)
        self._last = -1

    def choose(self, logits: Floats) -> int:
        """The code that the logits `[vocab_size]` are largest for, after the repetition penalty."""
        controls = Controls(last_code=self._last, repetition_penalty=REPETITION_PENALTY)
        sent = torch.nn.functional.pad(torch.tensor([controls], dtype=torch.float32), (0, self._groups))
        free = torch.full((1, self._groups), -1)
        code, _, self._seen, *_ = self._first(sent, torch.from_numpy(logits)[None], torch.zeros(1, 1), self._seen, free)
        return int(code)

    def accept(self, code: int) -> None:
        """From now on the repetition penalty counts this code."""
        self._last = code


@dataclass(frozen=True)
class Reference:
    """What the checkpoint says to one prompt, greedily, for some frames.

    `encoded` is what its encoders make of a recording, if it clones voices.

    Shapes: `prompt` `[positions, hidden]`, `codes` `[frames, groups]`, `inputs` and `hidden` `[frames, hidden]` (talker
    input after each frame, hidden state before it), `logits` `[frames, vocab_size]`, `predictor_logits` `[frames,
    groups - 1, codes]`, `waveform` `[samples]`.
    """

    prompt: Floats
    codes: Ints
    inputs: Floats
    hidden: Floats
    logits: Floats
    predictor_logits: Floats
    waveform: Floats
    encoded: Encoded | None = None


@torch.inference_mode()
def reference(
    checkpoint: Checkpoint,
    manifest: Manifest,
    prompts: PromptBuilder,
    codec_embedding: Floats,
    tick: Tick,
    text: str = TEXT,
) -> Reference:
    """Run the torch modules over `FRAMES` frames of a text; end-of-speech is passed over.

    Raises:
        ValueError: they give values that are not finite.
    """
    encoded = encode_sample(checkpoint) if manifest.clones else None
    speaker = next(iter(manifest.speakers), None) if encoded is None else None
    language = "english" if "english" in manifest.languages else AUTO
    prompt = prompts.build(
        text,
        speaker=speaker,
        language=language,
        instruction="Speak calmly.",
        layout="whole",
        reference=encoded.voice if encoded else None,
    ).embeddings
    talker, step = TorchTalker.from_checkpoint(checkpoint), CodePredictorStep.from_checkpoint(checkpoint)
    greedy = GreedyCodes(manifest)
    length = len(prompt)
    caches = empty_caches(talker.sizes, 1, length + FRAMES)
    logits, hidden, *caches = talker(torch.from_numpy(prompt)[None], *_lengths(length), caches)
    rows: dict[str, list[Any]] = {name: [] for name in ("codes", "inputs", "hidden", "logits", "predictor_logits")}
    for frame in range(FRAMES):
        _check_finite(logits.numpy(), "the talker's logits are", "PyTorch")
        code_0 = greedy.choose(logits[0].numpy())
        greedy.accept(code_0)
        first = torch.tensor(codec_embedding[code_0])
        codes, embedding, predictor_logits = _predict(step, hidden, first)
        inputs = embedding + torch.from_numpy(prompts.pad)
        _check_finite(predictor_logits, "the code predictor's logits are", "PyTorch")
        values = ([code_0, *codes], inputs[0], hidden[0], logits[0], predictor_logits)
        for name, value in zip(rows, values, strict=True):
            rows[name].append(np.array(value))
        length += 1
        logits, hidden, *caches = talker(inputs[None], *_lengths(length), caches)
        tick(frame + 1, FRAMES)
    del talker, step, caches
    stacked = {name: np.stack(values) for name, values in rows.items()}
    waveform = decode_whole(TorchCodecDecoder.from_checkpoint(checkpoint), stacked["codes"])
    _check_finite(waveform, "the samples are", "PyTorch")
    return Reference(prompt=prompt, waveform=waveform, encoded=encoded, **stacked)


def _lengths(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([length], dtype=torch.int32)
    return lengths, lengths


def _predict(step: CodePredictorStep, hidden: torch.Tensor, first: torch.Tensor) -> tuple[list[int], Any, Floats]:
    """One greedy frame by the torch step."""
    one, best, zero, free = torch.ones(1), torch.tensor([1]), torch.zeros(1), torch.tensor([-1])
    inputs, total = torch.stack((hidden[0], first))[None], first[None]
    caches, codes, logits = empty_caches(step.sizes, 1, step.groups), [], []
    for index in range(step.groups - 1):
        code, embedding, step_logits, *caches = step(inputs, torch.tensor(index), one, best, one, zero, free, caches)
        codes.append(int(code))
        logits.append(step_logits[0].numpy())
        inputs, total = embedding[:, None], total + embedding
    return codes, total, np.stack(logits)


def measure(
    folder: Path, manifest: Manifest, expected: Reference, threads: int = 0, device: Chosen = "cpu"
) -> dict[str, Any]:
    """Run the bundle's graphs on the reference's inputs.

    Every step is fed what PyTorch was fed (teacher forcing), so that errors do not add up: the greedy code of each is
    compared with PyTorch's.

    Returns:
        `frames`; `codes`: `equal` of `compared` for codebook 0 and for the others; `recording`: the same of the codes
        of a recording, where voices are cloned; `graphs`: for each what is compared, `max_error`, `mean_error`, and
        `relative_error`, the largest as a part of PyTorch's largest magnitude.

    Raises:
        BundleError: the codec decoder keeps its states as another version does.
        ValueError: a graph gives values that are not finite.
    """
    talker_logits = _talker_logits(folder, manifest, expected, threads, device)
    predictor_logits = _predictor_logits(folder, manifest, expected, threads, device)
    waveform = _waveform(folder, manifest, expected, threads, device)
    errors = {
        "talker": _error("talker", "logits", talker_logits, expected.logits),
        "code_predictor": _error("code_predictor", "logits", predictor_logits, expected.predictor_logits),
        "codec_decoder": _error("codec_decoder", "samples", waveform, expected.waveform),
    }
    equal_0 = greedy_codes(talker_logits, expected.codes, manifest) == expected.codes[:, 0]
    equal_rest = predictor_logits.argmax(-1) == expected.codes[:, 1:]
    codes = {
        name: {"equal": int(equal.sum()), "compared": equal.size}
        for name, equal in (("codebook 0", equal_0), ("other codebooks", equal_rest))
    }
    report = {"frames": FRAMES, "codes": codes, "graphs": errors}
    if expected.encoded is not None:
        found = run_encoders(folder, manifest, threads)
        errors[SPEAKER_ENCODER] = _error(SPEAKER_ENCODER, "embedding", found.speaker, expected.encoded.speaker)
        equal = found.codes == expected.encoded.codes
        report["recording"] = {"equal": int(equal.sum()), "compared": equal.size}
    return report


def _error(graph: str, of: str, found: Floats, expected: Floats) -> dict[str, Any]:
    _check_finite(found, f"the {of} of the {graph} are", "ONNX Runtime")
    difference = np.abs(found.astype(np.float64) - expected)
    return {
        "of": of,
        "max_error": float(difference.max()),
        "mean_error": float(difference.mean()),
        "relative_error": relative_error(found, expected),
    }


def _check_finite(values: Floats, what: str, where: str) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{what} not finite in {where}: the weights are damaged, or too large for the precision")


def _short(manifest: Manifest, expected: Reference) -> Sizes:
    """The sizes with no more positions than are needed: a device takes the memory of all of them."""
    positions = min(len(expected.prompt) + FRAMES, manifest.sizes.talker.max_positions)
    talker = manifest.sizes.talker.model_copy(update={"max_positions": positions})
    return manifest.sizes.model_copy(update={"talker": talker})


def _memory(session: Session, device: Chosen) -> Memory:
    return HostMemory() if device == "cpu" else DeviceMemory(session, device)


def _talker_logits(folder: Path, manifest: Manifest, expected: Reference, threads: int, device: Chosen) -> Floats:
    session = open_session(folder / manifest.graphs["talker"].file, device, threads)
    talker = Talker(session, _short(manifest, expected), slots=1, memory=_memory(session, device))
    logits = [talker.prefill(0, expected.prompt).logits]
    for frame in range(FRAMES - 1):
        length = np.array([len(expected.prompt) + frame], np.int32)
        logits.append(talker.decode(0, expected.inputs[frame : frame + 1], length).logits)
    return np.concatenate(logits)


def greedy_codes(logits: Floats, codes: Ints, manifest: Manifest) -> Ints:
    """Greedy codes 0 `[frames]` by logits `[frames, vocab_size]`; the repetition penalty follows the codes that were
    said, `[frames, groups]`."""
    greedy = GreedyCodes(manifest)
    found = []
    for row, code in zip(logits, codes[:, 0], strict=True):
        found.append(greedy.choose(row))
        greedy.accept(int(code))
    return np.array(found)


def _predictor_logits(folder: Path, manifest: Manifest, expected: Reference, threads: int, device: Chosen) -> Floats:
    session = open_session(folder / manifest.graphs["code_predictor"].file, device, threads)
    return forced_logits(session, expected.hidden, expected.codes)


def _waveform(folder: Path, manifest: Manifest, expected: Reference, threads: int, device: Chosen) -> Floats:
    session = open_session(folder / manifest.graphs["codec_decoder"].file, device, threads)
    decoder = codec_decoder_of(manifest, session, 1, _memory(session, device))
    # In the engine's own chunks, so that the carried state is measured too.
    state, samples, start, turn = decoder.start(), [], 0, 0
    while start < FRAMES:
        count = min(CHUNK_RAMP[min(turn, len(CHUNK_RAMP) - 1)], FRAMES - start)
        waveform, (state,) = decoder.decode(expected.codes[None, start : start + count], [state])
        samples.append(waveform[0])
        start, turn = start + count, turn + 1
    return np.concatenate(samples)
