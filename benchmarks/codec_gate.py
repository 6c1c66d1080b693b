"""How much of the codec decoder computes in 8 bits, and how fast it is: `python -m benchmarks.codec_gate`.

Decoders of the published size, whose loudness and activations each seed draws over two orders of magnitude, and the
embedded model's, made wider without changing what it computes, go through the decision of a conversion. The table says
which parts stay in float32, how loud the noise is against what the speech masks and against the speech itself, and how
much of what 8 bits save is left, reckoned by multiplications and snakes as the decision reckons it. Noise is that of
the graph's arithmetic imitated in PyTorch. None of this depends on the clock, so that the machine may be busy.

With `--times` each choice of parts that occurred is also exported and timed in chunks of 8 frames, in turns with a
decoder in float32 and one that is wholly in 8 bits, which wants a quiet machine. It needs what the tests need.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.make_checkpoint import SIZES, TiledDraw
from export.audibility import loudest_db, noise_to_mask
from export.calibration import spoken_codes
from export.checkpoint import open_checkpoint
from export.codec_precision import MeasuredPart, choose, export_parts, imitate_export, measure_parts
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

FRAMES = 24
"""Of random codes, as many for calibration as for measuring."""
SPOKEN = 3
"""Texts of the embedded model, the last of which is measured with."""
ROUNDS = 8
"""How often each choice of parts is timed."""
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
    decoder.prepare().requires_grad_(False)
    codes = [draw.integers(config["codebook_size"], size=(FRAMES, config["num_quantizers"])) for _ in range(2)]
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
    codes = _embedded_codes()[-SPOKEN:]
    return Case(f"embedded, width {width}", partial(copy.deepcopy, decoder), codes, manifest.sizes.codec.sample_rate)


@cache
def _embedded_codes() -> list[Ints]:
    return spoken_codes(TINY_BUNDLE, read_manifest(TINY_BUNDLE), lambda done, total: None)


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
    return wide.prepare().requires_grad_(False)


def decibels(samples: NDArray[np.floating]) -> float:
    """Of full scale, root mean square."""
    return float(10 * np.log10(np.square(samples.astype(np.float64)).mean() + 1e-20))


HEAD = """| decoder | speech, dB of full scale | in 8 bits: noise in dB of the speech / of what is heard \
| as converted: the same | in float32 | left of what 8 bits save |
|---|---|---|---|---|---|"""


def row(case: Case) -> tuple[str, list[Part]]:
    """Decide about a decoder as a conversion does; a row of the table, and the parts that stay in float32."""
    exact, codes = case.load(), case.codes[-1]
    wanted, ranges = decode_whole(exact, codes), observe(exact, case.codes[:-1])
    measured: list[MeasuredPart] = []
    said: list[str] = []

    def noise(in_float32: Collection[Part]) -> float:
        decoder = case.load()
        imitate_export(decoder, ranges, in_float32)
        samples = decode_whole(decoder, codes)
        heard = loudest_db(noise_to_mask(samples, wanted, case.rate))
        said.append(f"{decibels(samples - wanted) - decibels(wanted):.0f} / {heard:.1f}")
        return heard

    def measure() -> list[MeasuredPart]:
        measured.extend(measure_parts(case.load, ranges, codes, case.rate))
        return measured

    chosen = choose(noise, measure).in_float32
    saving = sum(one.saves for one in measured if one.part not in chosen)
    left = saving / sum(one.saves for one in measured) if measured else 1
    parts = ", ".join(map(str, chosen)) or "-"
    cells = case.name, f"{decibels(wanted):.0f}", said[0], said[-1], parts, f"{left:.0%}"
    return f"| {' | '.join(cells)} |", chosen


TIMES_HEAD = """| width | in float32 | ms a frame in chunks of 8 | times as fast as all in float32 |
|---|---|---|---|"""


def times(case: Case, choices: Iterable[Sequence[Part]], threads: int) -> list[str]:
    """Rows of a table: how fast decoders of the size of this one are with these parts in float32, taking turns."""
    exact = case.load()
    width, ranges = exact.codec_config["decoder_dim"], observe(exact, case.codes[:-1])
    every = parts_of(exact)
    seconds: dict[tuple[Part, ...], list[float]] = {tuple(parts): [] for parts in (every, *choices, [])}
    decoders = {}
    for parts in seconds:
        with TemporaryDirectory() as folder:
            path = export_parts(case.load(), ranges, parts, Path(folder), validate=False)
            decoders[parts] = codec_decoder.CodecDecoder(open_session(path, "cpu", threads))
    chunk = case.codes[-1][None, : CHUNK_RAMP[-1]]
    for _ in range(ROUNDS):
        for parts, decoder in decoders.items():
            start = time.perf_counter()
            decoder.decode(chunk, [decoder.start()])
            seconds[parts].append((time.perf_counter() - start) / chunk.shape[1])
    rows = []
    for parts, found in seconds.items():
        faster = median(slow / now for slow, now in zip(seconds[tuple(every)], found, strict=True))
        name = "all" if list(parts) == every else ", ".join(map(str, parts)) or "-"
        rows.append(f"| {width} | {name} | {1e3 * min(found):.1f} | {faster:.2f} |")
    return rows


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec_gate", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, nargs=2, default=(0, 12), metavar=("FIRST", "END"), help="of random decoders (0 12)"
    )
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS, help="of the embedded model's decoder")
    parser.add_argument("--times", action="store_true", help="also time the choices, for which nothing else should run")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args()
    threads = thread_count(options.threads)
    torch.set_num_threads(threads)
    print(f"{threads} threads; {machine()}\n\n{HEAD}", flush=True)
    makers = [partial(random_case, seed) for seed in range(*options.seeds)]
    makers += [partial(embedded_case, width) for width in options.widths]
    choices: dict[int, tuple[Callable[[], Case], list[list[Part]]]] = {}
    for make in makers:
        case = make()
        line, chosen = row(case)
        print(line, flush=True)
        choices.setdefault(case.load().codec_config["decoder_dim"], (make, []))[1].append(chosen)
    if options.times:
        print(f"\n{TIMES_HEAD}", flush=True)
        for remade, chosen_ones in choices.values():
            print("\n".join(times(remade(), chosen_ones, threads)), flush=True)


if __name__ == "__main__":
    main()
