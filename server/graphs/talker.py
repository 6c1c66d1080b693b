"""Runs the talker graph over KV caches that stay where they are."""

from __future__ import annotations

import mmap
from math import prod
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.manifest import TalkerSizes

Floats = NDArray[np.float32]


_HEAD_MULTIPLE = 16
"""Head sizes of the caches are padded to this: GroupQueryAttention refuses others."""


def cache_bytes(sizes: TalkerSizes, slots: int) -> int:
    """Bytes of the KV caches of so many slots, each filled to its last position."""
    head_dim = -(-sizes.head_dim // _HEAD_MULTIPLE) * _HEAD_MULTIPLE
    return 2 * sizes.num_layers * sizes.num_kv_heads * sizes.max_positions * head_dim * 4 * slots


class TalkerOutput(NamedTuple):
    """`logits` float32 `[rows, vocab_size]` and `hidden` float32 `[rows, hidden_size]` at each row's last position."""

    logits: Floats
    hidden: Floats


def _untouched(shape: tuple[int, ...]) -> Floats:
    """Zeros that take memory page by page as they are written.

    NumPy asks for huge pages, of which the few positions that a row uses in each head would take most of a gigabyte.
    """
    return np.frombuffer(mmap.mmap(-1, prod(shape) * 4), np.float32).reshape(shape)


class Talker:
    """The talker's session and its KV caches, one slot a row.

    The graph reads and writes the caches in place: what a slot holds is known to the caller by its length alone, and
    an old tenant's keys need no clearing. Memory of a slot is touched only as far as it is used.

    Args:
        session: of `talker.onnx`.
        sizes: from the manifest.
        slots: rows that can be under way at once.
    """

    def __init__(self, session: ort.InferenceSession, sizes: TalkerSizes, slots: int) -> None:
        self._session = session
        self.sizes = sizes
        self.slots = slots
        self._names = [value.name for value in session.get_inputs() if value.name.startswith("past.")]
        shapes = {value.name: value.shape for value in session.get_inputs()}
        self._caches = [
            _untouched((slots, sizes.num_kv_heads, sizes.max_positions, shapes[name][3])) for name in self._names
        ]
        self._views: dict[tuple[int, int], list[ort.OrtValue]] = {}

    def prefill(self, slot: int, inputs_embeds: Floats) -> TalkerOutput:
        """Put a prompt `[positions, hidden_size]` into a slot, from position 0."""
        length = len(inputs_embeds)
        return self._run(slot, slot + 1, inputs_embeds[None], np.array([length], np.int32))

    def decode(self, first_slot: int, inputs_embeds: Floats, lengths: NDArray[np.int32]) -> TalkerOutput:
        """Add one position to each of the neighbouring slots from `first_slot` on.

        Args:
            first_slot: slot of the first row.
            inputs_embeds: `[rows, hidden_size]`.
            lengths: `[rows]`, positions in each slot before this call.
        """
        return self._run(first_slot, first_slot + len(lengths), inputs_embeds[:, None], lengths + np.int32(1))

    def _run(self, start: int, stop: int, inputs_embeds: Floats, lengths: NDArray[np.int32]) -> TalkerOutput:
        binding = self._session.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(inputs_embeds))
        binding.bind_cpu_input("lengths", lengths)
        binding.bind_cpu_input("total_length", lengths.max(keepdims=True))
        binding.bind_output("logits")
        binding.bind_output("hidden")
        for name, value in zip(self._names, self._view(start, stop), strict=True):
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output("next." + name.removeprefix("past."), value)
        self._session.run_with_iobinding(binding)
        logits, hidden, *_ = binding.get_outputs()
        return TalkerOutput(logits.numpy(), hidden.numpy())

    def _view(self, start: int, stop: int) -> list[ort.OrtValue]:
        """The caches of slots `start` to `stop`, as tensors over the same memory."""
        if (start, stop) not in self._views:
            self._views[start, stop] = [ort.OrtValue.ortvalue_from_numpy(c[start:stop]) for c in self._caches]
        return self._views[start, stop]
