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
FLOAT_BYTES = 4

KERNEL_HEAD_DIM_MULTIPLE = 16
"""The attention kernel takes caches of no other head size; exported graphs pad theirs."""


class TalkerOutput(NamedTuple):
    """`logits` float32 `[rows, vocab_size]` and `hidden` float32 `[rows, hidden_size]` at each row's last position."""

    logits: Floats
    hidden: Floats


def _untouched(shape: tuple[int, ...]) -> Floats:
    """Zeros that take memory page by page as they are written.

    NumPy asks for huge pages, of which the few positions that a row uses in each head would take most of a gigabyte.
    """
    return np.frombuffer(mmap.mmap(-1, prod(shape) * FLOAT_BYTES), np.float32).reshape(shape)


def cache_shape(sizes: TalkerSizes, slots: int) -> tuple[int, int, int, int]:
    """Shape of the keys, or of the values, of one layer: `[slots, kv_heads, max_positions, padded head_dim]`."""
    head_dim = -(-sizes.head_dim // KERNEL_HEAD_DIM_MULTIPLE) * KERNEL_HEAD_DIM_MULTIPLE
    return slots, sizes.num_kv_heads, sizes.max_positions, head_dim


def cache_bytes(sizes: TalkerSizes, slots: int) -> int:
    """Bytes of the KV caches of all slots, if every row took all its positions: a page is taken when it is written."""
    return 2 * sizes.num_layers * prod(cache_shape(sizes, slots)) * FLOAT_BYTES


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
        self._caches = [_untouched(cache_shape(sizes, slots)) for _ in self._names]
        self._views: dict[tuple[int, int], list[ort.OrtValue]] = {}

    def prefill(self, slot: int, inputs_embeds: Floats, past: int = 0) -> TalkerOutput:
        """Put a prompt `[positions, hidden_size]` into a slot, behind the `past` positions that it holds."""
        length = past + len(inputs_embeds)
        return self._run(slot, slot + 1, inputs_embeds[None], np.array([length], np.int32))

    def save(self, slot: int, positions: int) -> list[Floats]:
        """A copy of a slot's first positions, for `restore`: `[kv_heads, positions, head_dim]`, two a layer."""
        return [cache[slot, :, :positions].copy() for cache in self._caches]

    def restore(self, slot: int, saved: list[Floats]) -> None:
        """Make a slot begin with what `save` gave."""
        for cache, kept in zip(self._caches, saved, strict=True):
            cache[slot, :, : kept.shape[1]] = kept

    def decode(self, first_slot: int, inputs_embeds: Floats, lengths: NDArray[np.int32]) -> TalkerOutput:
        """Add one position to each of the neighbouring slots from `first_slot` on.

        Args:
            first_slot: slot of the first row.
            inputs_embeds: `[rows, hidden_size]`.
            lengths: `[rows]`, positions in each slot before this call.
        """
        return self._run(first_slot, first_slot + len(lengths), inputs_embeds[:, None], lengths + np.int32(1))

    def swap(self, one: int, other: int, positions: int) -> None:
        """Exchange the first `positions` of two slots."""
        for cache in self._caches:
            kept = cache[one, :, :positions].copy()
            cache[one, :, :positions] = cache[other, :, :positions]
            cache[other, :, :positions] = kept

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
