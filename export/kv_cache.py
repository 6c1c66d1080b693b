"""The talker's KV cache in 8 bits: a quarter of the memory, read by the CPU's kernel in less than half the time.

Each channel of a head has a scale of its own, a constant of the graph. The scales come from the caches of what the
model itself says. Keys are cached behind the rotary embedding, which turns the two channels of a pair into each other
as positions go on. So both get the scale that their longest vector asks for, wherever it points at another position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.calibration import Spoken
from export.graphs.files import save_graph
from export.parity import greedy_codes
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import Manifest

Floats = NDArray[np.float32]

LARGEST = 127
HEADROOM = 1.25
"""Largest value that a scale has room for, as a part of the largest one that was seen; what is larger is clipped."""
LEAST_AGREEMENT = 0.95
"""Part of the greedy codes of codebook 0 that must be those of a float32 cache."""
_FIRST_SCALE = 12
"""Place of the keys' scales among the inputs of `GroupQueryAttention`; those before it that it lacks are empty."""


@dataclass(frozen=True)
class Agreement:
    """How many greedy codes of codebook 0 stayed the same when the cache's values were rounded to 8 bits.

    Every step is fed what it was fed with a float32 cache.
    """

    equal: int
    compared: int

    @property
    def enough(self) -> bool:
        """Whether it is `LEAST_AGREEMENT`."""
        return self.equal >= LEAST_AGREEMENT * self.compared


def scales_of(spoken: Sequence[Spoken]) -> list[Floats]:
    """Scales `[1, kv_heads, 1, head_dim]` of each tensor of the cache, in the order of the graph's inputs."""
    reaches = []
    for number, _ in enumerate(spoken[0].caches):
        reach = np.max([_reach(one.caches[number], keys=number % 2 == 0) for one in spoken], axis=0)
        reaches.append((reach * HEADROOM / LARGEST)[None, :, None].astype(np.float32))
    return reaches


def _reach(cache: Floats, *, keys: bool) -> Floats:
    """The largest magnitude of each channel `[kv_heads, head_dim]` of a cache `[kv_heads, positions, head_dim]`."""
    if keys:
        left, right = np.split(cache, 2, axis=-1)
        cache = np.tile(np.hypot(left, right), 2)
    reach: Floats = np.abs(cache).max(axis=1)
    return reach


def quantise_cache(model: onnx.ModelProto, scales: Sequence[Floats]) -> None:
    """Turn a talker with a float32 cache, in place, into one with a cache in 8 bits.

    Args:
        model: its weights need not be loaded.
        scales: as `scales_of` gives them.
    """
    graph = model.graph
    past = [value for value in graph.input if value.name.startswith("past.")]
    for value in (*past, *(value for value in graph.output if value.name.startswith("next."))):
        value.type.tensor_type.elem_type = TensorProto.INT8
    stored = {value.name: f"{value.name}.scales" for value in past}
    for name, scale in zip(stored.values(), scales, strict=True):
        graph.initializer.append(numpy_helper.from_array(scale, name))
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            _, _, _, key, value, *_ = node.input
            node.input.extend([""] * (_FIRST_SCALE - len(node.input)))
            node.input.extend([stored[key], stored[value]])
            kinds = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
            node.attribute.extend(helper.make_attribute(name, kind) for name, kind in kinds.items())


def try_cache(folder: Path, manifest: Manifest, spoken: Sequence[Spoken], *, force: bool) -> Agreement:
    """Give the talker in `folder` a cache in 8 bits, if that changes few codes.

    Args:
        folder: holds a talker with a float32 cache.
        manifest: of the graphs there.
        spoken: what the model says with it. The scales come from all but the last text.
        force: give it such a cache in any case.
    """
    path = folder / manifest.graphs["talker"].file
    trial = path.with_name(f"trial-{path.name}")  # reads the weights of the talker that is there
    try:
        model = onnx.load(path, load_external_data=False)
        quantise_cache(model, scales_of(spoken[:-1]))
        onnx.save(model, trial)
        found = agreement(trial, manifest, spoken)
        if force or found.enough:
            save_graph(onnx.load(trial), path)
    finally:
        trial.unlink(missing_ok=True)
    return found


def agreement(path: Path, manifest: Manifest, spoken: Sequence[Spoken]) -> Agreement:
    """Compare a talker's greedy codes with those of the talker that what was spoken comes from."""
    talker = Talker(open_session(path, "cpu", 0), manifest.sizes, slots=1)
    equal = compared = 0
    for one in spoken:
        found, expected = (
            greedy_codes(logits, one.codes, manifest)
            for logits in (replayed(talker, one), one.logits[: len(one.codes)])
        )
        equal += int((found == expected).sum())
        compared += len(found)
    return Agreement(equal, compared)


def replayed(talker: Talker, spoken: Spoken) -> Floats:
    """Logits `[frames, vocab_size]` of a talker that is fed what another one was fed."""
    length = len(spoken.prompt)
    logits = [talker.prefill(0, spoken.prompt).logits]
    for step in range(len(spoken.codes) - 1):
        lengths = np.array([length + step], np.int32)
        logits.append(talker.decode(0, spoken.inputs[step : step + 1], lengths).logits)
    return np.concatenate(logits)
