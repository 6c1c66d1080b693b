"""Runs the talker graph over KV caches that stay where they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.caches import Saved, open_caches
from server.graphs.manifest import TalkerSizes
from server.graphs.static_call import NO_GRAPH, StaticCall, run_options

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
        captured: whether the session captures CUDA graphs.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        sizes: TalkerSizes,
        slots: int,
        device: str = "cpu",
        *,
        captured: bool = False,
    ) -> None:
        self._session = session
        self._device, self._captured = device, captured
        self._uncaptured = None if device == "cpu" else run_options(NO_GRAPH)
        self._calls: dict[tuple[int, int], StaticCall] = {}
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
        stop, lengths = first_slot + len(lengths), lengths + np.int32(1)
        if self._device == "cpu":
            return self._run(first_slot, stop, inputs_embeds[:, None], lengths)
        feed = {"inputs_embeds": inputs_embeds[:, None], "lengths": lengths}
        if not self._captured:
            feed["total_length"] = lengths.max(keepdims=True)
        return TalkerOutput(*self._call(first_slot, stop).run(feed))

    def swap(self, one: int, other: int, positions: int) -> None:
        """Exchange the first `positions` of two slots."""
        self._caches.swap(one, other, positions)

    def _run(self, start: int, stop: int, inputs_embeds: Floats, lengths: NDArray[np.int32]) -> TalkerOutput:
        binding = self._session.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(inputs_embeds))
        binding.bind_cpu_input("lengths", lengths)
        binding.bind_cpu_input("total_length", lengths.max(keepdims=True))
        binding.bind_output("logits")
        binding.bind_output("hidden")
        for name, value in zip(self._names, self._caches.view(start, stop), strict=True):
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output("next." + name.removeprefix("past."), value)
        self._session.run_with_iobinding(binding, self._uncaptured)
        logits, hidden, *_ = binding.get_outputs()
        return TalkerOutput(logits.numpy(), hidden.numpy())

    def _call(self, start: int, stop: int) -> StaticCall:
        """One more position for these slots, over buffers that stay.

        A captured graph has `total_length` as it was, which then must be the longest that there can be: it says how far
        the caches go, and `lengths` how far a row does.
        """
        if (start, stop) not in self._calls:
            rows, sizes = stop - start, self.sizes
            inputs = {
                "inputs_embeds": np.zeros((rows, 1, sizes.hidden_size), np.float32),
                "lengths": np.ones(rows, np.int32),
            }
            view = self._caches.view(start, stop)
            self._calls[start, stop] = StaticCall(
                self._session,
                self._device,
                1 + start * self.slots + stop - 1,
                inputs=inputs,
                outputs={
                    "logits": ((rows, sizes.vocab_size), np.float32),
                    "hidden": ((rows, sizes.hidden_size), np.float32),
                },
                kept_inputs=dict(zip(self._names, view, strict=True)),
                kept_outputs={f"next.{n.removeprefix('past.')}": v for n, v in zip(self._names, view, strict=True)},
                on_host={"total_length": np.array([sizes.max_positions], np.int32)},
            )
        return self._calls[start, stop]
