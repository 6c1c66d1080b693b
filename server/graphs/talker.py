"""Runs the talker graph over KV caches that stay where they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.caches import Saved, open_caches
from server.graphs.cuda.static_call import NO_GRAPH, run_options
from server.manifest import TalkerSizes

Floats = NDArray[np.float32]


class TalkerOutput(NamedTuple):
    """`logits` float32 `[rows, vocab_size]` and `hidden` float32 `[rows, hidden_size]` at each row's last position."""

    logits: Floats
    hidden: Floats


class Talker:
    """The talker's session and its KV caches, one slot a row.

    The graph reads and writes the caches in place: what a slot holds is known to the caller by its length alone, and
    an old tenant's keys need no clearing. Memory of a slot is touched only as far as it is used.

    Args:
        session: of `talker.onnx`.
        sizes: from the manifest.
        slots: rows that can be under way at once.
        device: where the caches live and the kernels run, cpu or cuda.
    """

    def __init__(self, session: ort.InferenceSession, sizes: TalkerSizes, slots: int, device: str = "cpu") -> None:
        self.session = session
        self.device = device
        self._uncaptured = None if device == "cpu" else run_options(NO_GRAPH)
        self.sizes = sizes
        self.slots = slots
        self._names = [value.name for value in session.get_inputs() if value.name.startswith("past.")]
        self._caches = open_caches(session, sizes, slots, device)
        self.caches_copy_fast = device == "cpu"
        """Whether `save` and `restore` are worth their while: a GPU prefills a prefix in the time that one takes."""

    def prefill(self, slot: int, inputs_embeds: Floats, past: int = 0) -> TalkerOutput:
        """Put a prompt `[positions, hidden_size]` into a slot, behind the `past` positions that it holds."""
        length = past + len(inputs_embeds)
        return self._run(slot, slot + 1, inputs_embeds[None], np.array([length], np.int32))

    def save(self, slot: int, positions: int) -> Saved:
        """A copy of a slot's first positions, for `restore`."""
        return self._caches.save(slot, positions)

    def restore(self, slot: int, saved: Saved) -> None:
        """Make a slot begin with what `save` gave."""
        self._caches.restore(slot, saved)

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
        self._caches.swap(one, other, positions)

    def release(self, held: Collection[int]) -> None:
        """Give back to the system what long rows have taken in slots that are not `held` any more.

        Quick where there is nothing to give back, so that it may be called after every frame.
        """
        self._caches.release(held)

    def caches(
        self, start: int, stop: int, positions: int | None = None
    ) -> tuple[dict[str, ort.OrtValue], dict[str, ort.OrtValue]]:
        """The caches of slots `start` to `stop` as the graph's inputs and, the same ones, as its outputs.

        Args:
            start: first slot.
            stop: behind the last one.
            positions: of each that are needed; None is all that there can be.
        """
        view = self._caches.view(start, stop, positions)
        outputs = ["next." + name.removeprefix("past.") for name in self._names]
        return dict(zip(self._names, view, strict=True)), dict(zip(outputs, view, strict=True))

    def _run(self, start: int, stop: int, inputs_embeds: Floats, lengths: NDArray[np.int32]) -> TalkerOutput:
        binding = self.session.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(inputs_embeds))
        binding.bind_cpu_input("lengths", lengths)
        binding.bind_cpu_input("total_length", lengths.max(keepdims=True))
        binding.bind_output("logits")
        binding.bind_output("hidden")
        past, following = self.caches(start, stop, int(lengths.max()))
        for name, value in past.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in following.items():
            binding.bind_ortvalue_output(name, value)
        self.session.run_with_iobinding(binding, self._uncaptured)
        logits, hidden, *_ = binding.get_outputs()
        return TalkerOutput(logits.numpy(), hidden.numpy())
