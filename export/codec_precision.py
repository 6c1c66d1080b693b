"""Which parts of the codec decoder compute in 8 bits: those that save most time while no noise is heard.

The parts are the decoder's front and, of each upsampling block, the transposed convolution and the residual units. The
decoder is written wholly in 8 bits first. Where its noise is heard, the noise of each part is measured alone, in
PyTorch, against what the speech masks. Noises of parts are independent, so that their powers add up: the part whose
noise is largest for the time that it saves goes back to float32 until nothing is heard. What is exported then is
measured as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.audibility import loudest_db, noise_to_mask
from export.graphs.codec_decoder import CodecDecoder as TorchCodecDecoder
from export.graphs.codec_decoder import CodecDecoderOnnxConfig, decode_whole
from export.graphs.codec_quantised import (
    FRONT,
    ChannelsLastBlock,
    Part,
    Product,
    UnitRanges,
    observe,
    parts_of,
    replace_parts,
)
from export.graphs.files import save_graph
from export.graphs.graph import export_graph
from export.graphs.streaming import StateSpec, Stream
from export.quantise import INT8, INT8_FINE, WeightFormat, quantise_graph, quantise_matrix
from server.graphs.codec_decoder import CodecDecoder
from server.graphs.session import open_session

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Ratios = NDArray[np.float64]
"""As `noise_to_mask` gives them."""

LOUDEST_NOISE = 0.0
"""Noise against what the speech masks, in dB, as `loudest_db` gives it: at 0 it begins to be heard."""
SNAKE = 100
"""Multiplications of a convolution that take as long as one value of a snake, in float32."""
MATRICES_SAVE = 0.1
"""Time that a matrix in 8 bits saves, as a part of what it takes in float32: little, except where chunks are short."""
_FRONT = ("/pre_conv/", "/pre_transformer/", "/upsample.")
"""How the names begin of those of the front's nodes whose matrices see a frame as a single row if it is decoded alone.
For one row ONNX Runtime rounds otherwise than for several; with small blocks that is not heard either."""


@dataclass(frozen=True)
class Chosen:
    """The parts that stay in float32, and the noise of all others against what the speech masks, in dB."""

    in_float32: list[Part]
    noise: float


def export_quantised(
    load: Callable[[], TorchCodecDecoder], codes: Sequence[Ints], folder: Path, rate: int, *, validate: bool = True
) -> Chosen:
    """Write `codec_decoder.onnx`, as fast as it can be without a noise that is heard.

    Args:
        load: makes the decoder, in float32.
        codes: what it is calibrated with, and, last, what its noise is measured with; `[frames, groups]` each.
        folder: where to write.
        rate: samples a second.
        validate: whether a decoder that stays in float32 is compared with PyTorch's, and refused if it differs.

    Raises:
        ValueError: the decoder's samples are not finite, or ONNX Runtime's are others.
    """
    exact = load()
    ranges, wanted = observe(exact, codes[:-1]), decode_whole(exact, codes[-1])
    if not np.isfinite(wanted).all():
        raise ValueError("the samples of the codec decoder are not finite in PyTorch: the weights are damaged")

    def noise(in_float32: Collection[Part]) -> float:
        path = export_parts(load(), ranges, in_float32, folder, validate=validate)
        return loudest_db(noise_to_mask(decoded(path, codes[-1]), wanted, rate))

    chosen = choose(noise, lambda: measure_parts(load, ranges, codes[-1], rate))
    if validate and not chosen.noise <= LOUDEST_NOISE:  # and not `>`, since NaN is not louder
        raise ValueError("the samples of the codec decoder are not those of PyTorch, in float32 either")
    return chosen


def choose(noise: Callable[[Collection[Part]], float], measure: Callable[[], Sequence[MeasuredPart]]) -> Chosen:
    """The parts that have to stay in float32 so that nothing is heard; all of them, if it is heard even then.

    Args:
        noise: of a decoder with these parts in float32, in dB of what the speech masks.
        measure: measures the parts one by one, which takes long; it is called if something is heard of all in 8 bits.
    """
    limit, loudness = LOUDEST_NOISE, noise([])
    if loudness <= LOUDEST_NOISE:
        return Chosen([], loudness)
    parts = measure()
    for in_float32, predicted in ever_quieter(parts):
        if predicted > limit and len(in_float32) < len(parts):
            continue
        if in_float32:
            loudness = noise(in_float32)
        if loudness <= LOUDEST_NOISE:
            break
        limit = predicted - (loudness - LOUDEST_NOISE)
    return Chosen(in_float32, loudness)


def export_parts(
    decoder: TorchCodecDecoder,
    ranges: Mapping[int, list[UnitRanges]],
    in_float32: Collection[Part],
    folder: Path,
    *,
    validate: bool = True,
) -> Path:
    """Write `codec_decoder.onnx` with all parts but these in 8 bits, and return its place; the decoder is changed.

    With `validate`, what is in float32 throughout is compared with PyTorch's. In 8 bits a rounding may fall otherwise.
    """
    in_bytes = [part for part in parts_of(decoder) if part not in in_float32]
    replace_parts(decoder, ranges, in_float32)
    config = CodecDecoderOnnxConfig(decoder)
    path = export_graph("codec_decoder", config, folder, validate=validate and not in_bytes)
    formats = {f"/decoder.{part.block}/product/": INT8 for part in in_bytes if part.block and not part.layer}
    if FRONT in in_bytes:
        formats |= dict.fromkeys(_FRONT, INT8_FINE) | {"/decoder.0/": INT8}
    if formats:
        model = onnx.load(path)
        quantise_graph(model, None, formats_by_prefix=formats)
        save_graph(model, path)
    return path


@dataclass(frozen=True)
class MeasuredPart:
    """A part's noise in 8 bits, and the time that 8 bits save, in that of a multiplication in float32."""

    part: Part
    noise: Ratios
    saves: float


@torch.inference_mode()
def measure_parts(
    load: Callable[[], TorchCodecDecoder], ranges: Mapping[int, list[UnitRanges]], codes: Ints, rate: int
) -> list[MeasuredPart]:
    """Decode with one part in 8 bits at a time; arguments are those of `export_quantised` and what `observe` found."""
    exact = load()
    outputs = [_front(exact, codes)]
    for block in exact.blocks:
        outputs.append(_run(block, block.states(""), outputs[-1]))

    def samples(number: int, output: Tensor) -> Floats:
        """What the decoder makes of a block's output."""
        for block in exact.blocks[number:]:
            output = _run(block, block.states(""), output)
        return np.array(_run(exact.tail, exact.tail_states(), output)[0])

    wanted, every, found = samples(len(exact.blocks), outputs[-1]), parts_of(exact), []
    for part in every:
        others = [other for other in every if other != part]
        if part == FRONT:
            decoder = load()
            imitate_export(decoder, ranges, others)
            output = _front(decoder, codes)
        else:
            block = ChannelsLastBlock(part.block, exact.blocks[part.block - 1], ranges[part.block], others)
            if not part.layer:
                round_products(block, INT8)
            output = _run(block, block.states(""), outputs[part.block - 1])
        noise = noise_to_mask(samples(part.block, output), wanted, rate)
        found.append(MeasuredPart(part, noise, _saves(exact, part, outputs[part.block].shape[2])))
    return found


def _saves(decoder: TorchCodecDecoder, part: Part, steps: int) -> float:
    """What 8 bits save of a part that gives so many steps, as `MeasuredPart` says it.

    The front is counted by its last convolution, a third of its multiplications.
    """
    layers: Any = decoder.decoder
    if part == FRONT:
        return float(MATRICES_SAVE * steps * layers[0].conv.weight.numel())
    layer = layers[part.block].block[part.layer + 1]
    if not part.layer:
        (stride,) = layer.conv.stride
        return float(MATRICES_SAVE * steps / stride * layer.conv.weight.numel())
    weights = layer.conv1.conv.weight.numel() + layer.conv2.conv.weight.numel()
    return float(steps * (weights + 2 * SNAKE * layer.conv2.conv.out_channels))


def ever_quieter(parts: Sequence[MeasuredPart]) -> Iterator[tuple[list[Part], float]]:
    """Parts to be in float32 and the noise of the others, in dB: none at first, one more each time, all at last."""
    in_bytes, in_float32 = list(parts), list[Part]()

    def noise(given_back: MeasuredPart | None = None) -> float:
        left = [one.noise for one in in_bytes if one is not given_back]
        return loudest_db(np.sum(left, axis=0)) if left else loudest_db(np.zeros((1, 1)))

    yield [], noise()
    while in_bytes:
        now = 10 ** (noise() / 10)
        best = max(in_bytes, key=lambda one: (now - 10 ** (noise(one) / 10)) / one.saves)
        in_bytes.remove(best)
        in_float32.append(best.part)
        yield sorted(in_float32), noise()


def imitate_export(
    decoder: TorchCodecDecoder, ranges: Mapping[int, list[UnitRanges]], in_float32: Collection[Part]
) -> None:
    """Have a decoder compute in PyTorch what the graph of `export_parts` computes, but for which way roundings fall."""
    in_bytes = [part for part in parts_of(decoder) if part not in in_float32]
    replace_parts(decoder, ranges, in_float32)
    if FRONT in in_bytes:
        for layer in (decoder.pre_conv, decoder.pre_transformer, decoder.upsample):
            round_products(layer, INT8_FINE)
        round_products(decoder.decoder[0], INT8)
    for part in in_bytes:
        if part != FRONT and not part.layer:
            round_products(decoder.decoder[part.block], INT8)


def round_products(module: nn.Module, weight_format: WeightFormat) -> None:
    """Have the products in a module round, in place, as `MatMulNBits` does: matrices once, and what they are given."""
    for layer in module.modules():
        if isinstance(layer, (Product, nn.Linear)):
            matrix = layer.matrix if isinstance(layer, Product) else layer.weight.T
            inner, outputs = matrix.shape
            fitting = weight_format.fitting(inner)
            stored, scales = quantise_matrix(np.array(matrix), fitting)
            values = (stored.astype(np.float32) - 2 ** (fitting.bits - 1)) * scales[..., None]
            matrix.copy_(torch.from_numpy(values.reshape(outputs, -1)[:, :inner].T))
            layer.register_forward_pre_hook(lambda _, given, size=fitting.block_size: (_rounded(given[0], size),))


def _rounded(x: Tensor, size: int) -> Tensor:
    """Values in 8 bits, each `size` of the last axis with a scale of their own."""
    inner = x.shape[-1]
    padded = nn.functional.pad(x, (0, -inner % size))
    blocks = padded.view(*x.shape[:-1], -1, size)
    scales = blocks.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) / 127
    rounded: Tensor = (blocks / scales).round() * scales
    return rounded.flatten(-2)[..., :inner]


def _front(decoder: TorchCodecDecoder, codes: Ints) -> Tensor:
    position = torch.zeros(1, dtype=torch.long)
    return _run(decoder.front, decoder.front_states(), torch.from_numpy(codes)[None], position)


def _run(layer: Callable[..., Tensor], states: Sequence[StateSpec], *inputs: Tensor) -> Tensor:
    return layer(*inputs, Stream([torch.zeros(1, *spec.shape) for spec in states]))


def decoded(path: Path, codes: Ints) -> Floats:
    """Samples of a graph, from nothing and in one go."""
    decoder = CodecDecoder(open_session(path, "cpu", 0))
    samples, _ = decoder.decode(codes[None], [decoder.start()])
    return np.array(samples[0])
