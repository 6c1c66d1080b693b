"""What TF32 costs the codec decoder: `python -m benchmarks.tf32 [--checkpoint FOLDER]`.

On a GPU the products of the codec decoder take both operands with 10 bits of mantissa and add up in float32, which is
imitated here in PyTorch on the CPU: it decodes codes in float32 and again with the operands of all convolutions and
matrix products rounded, and compares the samples. NVIDIA says that inputs are rounded
(https://developer.nvidia.com/blog/accelerating-ai-training-with-tf32-tensor-cores/); whether to the nearest or by
cutting off is the kernel's choice, so that both have a row: no kernel should be further off than the second one.
Operands in bfloat16 stand beside them, since the official package loads its codec decoder in the type that its model is
loaded in; it rounds every result to that type too, so that its error is larger than that row's.

The codes are what the embedded model says, and random ones for any other checkpoint. Needs what the tests need.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks.quality import EMBEDDED
from export.calibration import spoken_codes
from export.checkpoint import Checkpoint, open_checkpoint
from export.graphs.codec_decoder import CodecDecoder, decode_whole
from server.bench.report import machine
from server.manifest import read_manifest

Ints = NDArray[np.int64]
Rounding = Callable[[Tensor], Tensor]

MANTISSA, TF32, BFLOAT16 = 23, 10, 7
"""Bits of the mantissa that are stored."""
PRODUCTS = frozenset(
    {torch.conv1d, torch.conv_transpose1d, torch.nn.functional.linear, torch.matmul, torch.Tensor.matmul}
)
"""Functions whose first two arguments are the operands; a bias, if any, is added in float32."""
CHECKPOINT = EMBEDDED / "checkpoint"
RANDOM_TEXTS, RANDOM_FRAMES = 3, 48
"""Codes for a checkpoint other than the embedded one."""


def nearest(x: Tensor, bits: int) -> Tensor:
    """Float32 values rounded to `bits` bits of mantissa, of which the last is 0 in a tie (IEEE 754's default)."""
    dropped, pattern = MANTISSA - bits, x.view(torch.int32)
    last = (pattern >> dropped) & 1
    rounded = (pattern + (1 << (dropped - 1)) - 1 + last) & -(1 << dropped)
    return torch.where(x.isnan(), x, rounded.view(torch.float32))


def cut(x: Tensor, bits: int) -> Tensor:
    """Float32 values, each without the end of its mantissa after `bits` bits."""
    shortened = x.view(torch.int32) & -(1 << (MANTISSA - bits))
    return torch.where(x.isnan(), x, shortened.view(torch.float32))


ROUNDINGS: dict[str, Rounding] = {
    "TF32, to the nearest": partial(nearest, bits=TF32),
    "TF32, cut off": partial(cut, bits=TF32),
    "bfloat16, to the nearest": partial(nearest, bits=BFLOAT16),
}


class RoundedProducts(TorchFunctionMode):
    """While it is entered, `PRODUCTS` round their operands."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self._rounding = rounding

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in PRODUCTS:
            one, other, *rest = args
            args = (self._rounding(one), self._rounding(other), *rest)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Error:
    """Of samples: the ratio of signal to error in dB, and the largest difference as a part of full scale."""

    ratio: float
    largest: float


def errors(decoder: CodecDecoder, texts: Sequence[Ints]) -> dict[str, Error]:
    """How far each rounding of operands moves the samples of codes `[frames, num_quantizers]`, over all texts."""

    def samples() -> NDArray[np.float64]:
        return np.concatenate([decode_whole(decoder, codes) for codes in texts]).astype(np.float64)

    exact, found = samples(), dict[str, Error]()
    for name, rounding in ROUNDINGS.items():
        with RoundedProducts(rounding):
            off = samples() - exact
        ratio = 10 * np.log10(np.square(exact).sum() / np.square(off).sum())
        found[name] = Error(float(ratio), float(np.abs(off).max()))
    return found


def codes_for(folder: Path, checkpoint: Checkpoint) -> list[Ints]:
    """What the embedded model says to some texts if the checkpoint is its own, else random codes."""
    if folder.resolve() == CHECKPOINT.resolve():
        return spoken_codes(EMBEDDED, read_manifest(EMBEDDED), lambda done, total: None)
    config, draw = checkpoint.codec_config["decoder_config"], np.random.default_rng(0)
    shape = (RANDOM_FRAMES, config["num_quantizers"])
    return [draw.integers(config["codebook_size"], size=shape) for _ in range(RANDOM_TEXTS)]


def main() -> None:
    """Parse the options, decode, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tf32", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="folder (default: %(default)s)")
    folder = parser.parse_args().checkpoint
    checkpoint = open_checkpoint(str(folder))
    texts = codes_for(folder, checkpoint)
    found = errors(CodecDecoder.from_checkpoint(checkpoint).for_device(), texts)
    print(f"{len(texts)} texts, {sum(map(len, texts))} frames; {machine()}\n")
    print("| operands | signal to error, dB | largest difference, part of full scale |\n|---|---|---|")
    for name, error in found.items():
        print(f"| {name} | {error.ratio:.1f} | {error.largest:.1e} |")


if __name__ == "__main__":
    main()
