"""How much of the codec decoder computes in 8 bits, and how fast it is: `python -m benchmarks.codec_gate`.

Decoders of the published size, whose loudness and activations each seed draws over two orders of magnitude, and the
embedded model's, made wider without changing what it computes, are quantised as a conversion does. The table says which
parts stay in float32, how loud the noise is against what the speech masks and against the speech itself, and the
milliseconds a frame in chunks of 8, beside those of a decoder in float32 and of one that is wholly in 8 bits. These
depend on the parts alone, so that each choice of parts is timed once. It needs what the tests need.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.make_checkpoint import SIZES, TiledDraw
from export.audibility import loudest_db, noise_to_mask
from export.calibration import spoken_codes
from export.checkpoint import open_checkpoint
from export.codec_precision import decoded, export_parts, export_quantised
from export.graphs.codec_decoder import CodecDecoder, UpsampleBlock, decode_whole
from export.graphs.codec_quantised import Part, observe, parts_of
from server.bench.report import machine
from server.engine.synthesizer import CHUNK_RAMP
from server.graphs import codec_decoder
from server.graphs.cores import thread_count
from server.graphs.session import open_session
from server.manifest import read_manifest
from tests.bundles import TINY_BUNDLE
from tests.checkpoints import codec_config
from tests.random_weights import Gains, values_of

Ints = NDArray[np.int64]

TEXTS, FRAMES = 3, 32
"""Random codes: so many texts of so many frames."""
TIMED = 8
WIDTHS = (256, 768, 1536)
"""Of the embedded model's decoder; the first is its own, the last that of the published ones."""


@dataclass(frozen=True)
class Case:
    """A decoder, its codes, samples a second, and how it was drawn."""

    name: str
    load: Callable[[], CodecDecoder]
    codes: list[Ints]
    rate: int


def random_case(seed: int) -> Case:
    """A random decoder of the published size.

    Drawn are: its loudest sample, from 0.01 to 1; a factor of what the upsampling blocks are given, from 0.1 to 10; and
    how much channels differ in loudness, a standard deviation of up to 1 of their natural logarithm.
    """
    draw = np.random.default_rng(seed)
    peak, activations, spread = 10 ** draw.uniform(-2, 0), 10 ** draw.uniform(-1, 1), draw.uniform(0, 1)
    config = codec_config(SIZES["0.6b"])["decoder_config"]
    decoder = CodecDecoder(config)
    values = dict(values_of(decoder, TiledDraw(seed)))
    generator = torch.Generator().manual_seed(seed)
    for name, value in values.items():
        if ".block." in name and name.endswith("conv.weight"):
            axis = 1 if name.endswith("block.1.conv.weight") else 0  # a transposed one has its outputs there
            shape = [1] * value.ndim
            shape[axis] = value.shape[axis]
            factors = torch.exp(spread * torch.randn(shape, generator=generator))
            value *= Gains().blocks * factors / factors.square().mean().sqrt()
    values["decoder.0.conv.weight"] *= activations
    decoder.load_state_dict(values)
    _prepare(decoder)
    codes = [draw.integers(config["codebook_size"], size=(FRAMES, config["num_quantizers"])) for _ in range(TEXTS)]
    convolution: Any = decoder.decoder[-1]
    last = convolution.conv
    last.weight *= 1e-6  # far from where the decoder clips
    last.bias *= 1e-6
    factor = peak / float(np.abs(decode_whole(decoder, codes[-1])).max())
    last.weight *= factor
    last.bias *= factor
    name = f"random {seed}: peak {peak:.3f}, activations x {activations:.1f}, spread {spread:.1f}"
    return Case(name, partial(copy.deepcopy, decoder), codes, 24_000)


def embedded_case(width: int) -> Case:
    """The embedded model's decoder with upsampling blocks of that width."""
    checkpoint, manifest = open_checkpoint(str(TINY_BUNDLE / "checkpoint")), read_manifest(TINY_BUNDLE)
    decoder = widened(CodecDecoder.from_checkpoint(checkpoint).requires_grad_(False), width)
    codes = spoken_codes(TINY_BUNDLE, manifest, lambda done, total: None)
    return Case(f"embedded, width {width}", partial(copy.deepcopy, decoder), codes, manifest.sizes.codec.sample_rate)


def widened(decoder: CodecDecoder, width: int) -> CodecDecoder:
    """A decoder with more channels in its upsampling blocks that computes the same but for roundings.

    Channels are repeated, and what follows takes a random part of each copy. The weights behind two copies differ;
    those before them are the same, and so is their noise.

    Raises:
        ValueError: the decoder is wider than that already.
    """
    wide = CodecDecoder({**decoder.codec_config, "decoder_dim": width})
    values, random = {name: value.clone() for name, value in decoder.state_dict().items()}, np.random.default_rng(0)
    before = decoder.codec_config["decoder_dim"]
    if width < before:
        raise ValueError(f"a decoder of width {before} cannot be made {width} wide; give {before} or more")
    copies: list[Ints] = []
    parts: list[torch.Tensor] = []
    for number in range(len(decoder.blocks) + 1):
        source = np.arange(width >> number) % (before >> number)
        share = random.uniform(0.5, 1.5, len(source))
        share /= np.bincount(source, share)[source]
        copies.append(source)
        parts.append(torch.from_numpy(share.astype(np.float32)))

    def widen(name: str, axis: int, number: int, *, split: bool = False) -> None:
        value = values[name].index_select(axis, torch.from_numpy(copies[number]))
        if split:
            value *= parts[number].view([-1 if place == axis else 1 for place in range(value.ndim)])
        values[name] = value

    def widen_all(prefix: str, number: int) -> None:
        """Of everything there that is not a convolution's inputs, the first axis."""
        for name in [name for name in values if name.startswith(prefix)]:
            widen(name, 0, number)

    widen_all("decoder.0.", 0)
    for number, block in enumerate(decoder.blocks, 1):
        assert isinstance(block, UpsampleBlock)
        prefix = f"decoder.{number}.block."
        widen_all(f"{prefix}0.", number - 1)
        widen(f"{prefix}1.conv.weight", 0, number - 1, split=True)
        widen(f"{prefix}1.conv.weight", 1, number)
        widen(f"{prefix}1.conv.bias", 0, number)
        for unit in range(2, len(block.block)):
            widen_all(f"{prefix}{unit}.", number)
            for convolution in ("conv1", "conv2"):
                widen(f"{prefix}{unit}.{convolution}.conv.weight", 1, number, split=True)
    last = len(decoder.blocks) + 1
    widen_all(f"decoder.{last}.", last - 1)
    widen(f"decoder.{last + 1}.conv.weight", 1, last - 1, split=True)
    wide.load_state_dict(values)
    return _prepare(wide)


def _prepare(decoder: CodecDecoder) -> CodecDecoder:
    quantizer: Any = decoder.quantizer
    quantizer.rvq_first.prepare()
    quantizer.rvq_rest.prepare()
    return decoder.eval().requires_grad_(False)


def decibels(samples: NDArray[np.floating]) -> float:
    """Of full scale, root mean square."""
    return float(10 * np.log10(np.square(samples.astype(np.float64)).mean() + 1e-20))


HEAD = """| decoder | speech, dB of full scale | in 8 bits: noise in dB of the speech / of what is heard \
| as converted: the same | in float32 | ms a frame: all in float32 / as converted / all in 8 bits | of the time saved |
|---|---|---|---|---|---|---|"""


class Gate:
    """Quantises cases and writes the rows of a Markdown table."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._times: dict[tuple[int, tuple[Part, ...]], float] = {}

    def row(self, case: Case, folder: Path) -> str:
        """Quantise a decoder as a conversion does, and wholly."""
        exact = case.load()
        every, codes, width = parts_of(exact), case.codes[-1], exact.codec_config["decoder_dim"]
        wanted, ranges = decode_whole(exact, codes), observe(exact, case.codes[:-1])

        def noises() -> str:
            samples = decoded(path, codes)
            heard = loudest_db(noise_to_mask(samples, wanted, case.rate))
            return f"{decibels(samples - wanted) - decibels(wanted):.0f} / {heard:.1f}"

        if (width, tuple(every)) not in self._times:
            path = export_parts(case.load(), ranges, every, folder, validate=False)
            self._time(path, codes, width, every)
        path = export_parts(case.load(), ranges, [], folder)
        self._time(path, codes, width, [])
        wholly = noises()
        chosen = export_quantised(case.load, case.codes, folder, case.rate, validate=False).in_float32
        self._time(path, codes, width, chosen)
        slow, now, fast = (self._times[width, tuple(parts)] for parts in (every, chosen, []))
        return (
            f"| {case.name} | {decibels(wanted):.0f} | {wholly} | {noises()} "
            f"| {', '.join(map(str, chosen)) or '-'} | {slow:.1f} / {now:.1f} / {fast:.1f} "
            f"| {(slow - now) / (slow - fast):.0%} |"
        )

    def _time(self, path: Path, codes: Ints, width: int, in_float32: Sequence[Part]) -> None:
        """Milliseconds a frame in the engine's longest chunks, in the quietest of some calls."""
        if (key := (width, tuple(in_float32))) in self._times:
            return
        decoder = codec_decoder.CodecDecoder(open_session(path, "cpu", self._threads))
        chunk, seconds = codes[None, : CHUNK_RAMP[-1]], []
        for _ in range(TIMED):
            start = time.perf_counter()
            decoder.decode(chunk, [decoder.start()])
            seconds.append(time.perf_counter() - start)
        self._times[key] = 1e3 * min(seconds) / chunk.shape[1]


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec_gate", description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=12, help="how many random decoders (default: %(default)s)")
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS, help="of the embedded model's decoder")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args()
    threads = thread_count(options.threads)
    torch.set_num_threads(threads)
    print(f"{threads} threads; {machine()}\n\n{HEAD}", flush=True)
    gate = Gate(threads)
    makers = [partial(embedded_case, width) for width in options.widths]
    makers += [partial(random_case, seed) for seed in range(options.random)]
    with TemporaryDirectory() as folder:
        for make in makers:
            print(gate.row(make(), Path(folder)), flush=True)


if __name__ == "__main__":
    main()
