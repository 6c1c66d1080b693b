"""Runs the talker graph over KV caches that stay where they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.caches import Saved, cache_shape
from server.graphs.frame_state import FrameState
from server.graphs.memory import Call, HostMemory, Memory
from server.graphs.windows import Windows
from server.manifest import Sizes

Floats = NDArray[np.float32]


LAST = "last"
"""Input of a graph for a GPU: where each row's last new position is, int64 `[rows]`."""


class TalkerOutput(NamedTuple):
    """`logits` float32 `[rows, vocab_size]` and `hidden` float32 `[rows, hidden_size]` at each row's last position."""

    logits: Floats
    hidden: Floats


class _Bound(NamedTuple):
    """A window's call, and the tensors of the caches that it was bound to."""

    caches: Sequence[ort.OrtValue]
    call: Call


class Talker:
    """The talker's session, its KV caches, and the state that it shares with the code predictor; one slot a row.

    The graph reads and writes the caches in place: what a slot holds is known to the caller by its length alone, and
    an old tenant's keys need no clearing. Memory of a slot is touched only as far as it is used.

    Args:
        session: of `talker.onnx`.
        sizes: from the manifest.
        slots: rows that can be under way at once.
        memory: where the kernels run; None is the host's.
    """

    def __init__(self, session: ort.InferenceSession, sizes: Sizes, slots: int, memory: Memory | None = None) -> None:
        memory = memory or HostMemory()
        self.sizes = sizes.talker
        self.slots = slots
        self.state = FrameState(memory, sizes, slots)
        self.caches_copy_fast = memory.copies_fast
        """Whether `save` and `restore` are worth their while."""
        self.idle_take_part = memory.idle_take_part
        """Whether slots without a row may lie between those of rows; see `Memory`."""
        self._session, self._memory = session, memory
        past = [value for value in session.get_inputs() if value.name.startswith("past.")]
        self._past = [value.name for value in past]
        self._takes_last = LAST in {value.name for value in session.get_inputs()}
        self._next = ["next." + name.removeprefix("past.") for name in self._past]
        self._caches = memory.caches([value.type for value in past], cache_shape(sizes.talker, slots))
        self._total_length = np.ones(1, np.int32)
        self._calls: Windows[_Bound] = Windows(2 * slots)

    def prefill(self, slot: int, inputs_embeds: Floats, past: int = 0) -> TalkerOutput:
        """Put a prompt `[positions, hidden_size]` into a slot, behind the `past` positions that it holds."""
        return self._prefill(slot, np.ascontiguousarray(inputs_embeds[None]), [len(inputs_embeds)], past)

    def prefill_together(self, first_slot: int, prompts: Sequence[Floats]) -> TalkerOutput:
        """Put whole prompts `[positions, hidden_size]` into neighbouring slots, in one run; a row each comes out."""
        lengths = [len(prompt) for prompt in prompts]
        padded = np.zeros((len(prompts), max(lengths), self.sizes.hidden_size), np.float32)
        for row, prompt in zip(padded, prompts, strict=True):
            row[: len(prompt)] = prompt
        return self._prefill(first_slot, padded, lengths, 0)

    def _prefill(self, slot: int, inputs_embeds: Floats, new: Sequence[int], past: int) -> TalkerOutput:
        rows, most, _ = inputs_embeds.shape
        total = past + most
        caches = self._caches.view(slot, slot + rows, total)
        lengths = np.array([past + each for each in new], np.int32)
        feed: dict[str, NDArray[Any]] = {
            "inputs_embeds": inputs_embeds,
            "lengths": lengths,
            "total_length": np.array([total], np.int32),
        }
        if self._takes_last:
            feed[LAST] = np.array(new, np.int64) - 1
        binding = self._session.io_binding()
        binding.bind_output("logits")
        binding.bind_output("hidden")
        for name, next_name, cache in zip(self._past, self._next, caches, strict=True):
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(next_name, cache)
        self._memory.run_once(self._session, binding, feed)
        self.state.held[slot : slot + rows] = lengths
        logits, hidden, *_ = binding.get_outputs()
        return TalkerOutput(logits.numpy(), hidden.numpy())

    def advance(self, start: int, stop: int, longest: int) -> None:
        """Feed slots `start` to `stop` what the state holds for them, and leave their logits and hidden states there.

        Args:
            start: first slot.
            stop: behind the last one.
            longest: of the slots' lengths with the new position.
        """
        start, stop = self._memory.window(start, stop, self.slots)
        if self.idle_take_part:
            longest = self.sizes.max_positions  # a call's values on the host never change
        caches = self._caches.view(start, stop, longest)
        bound = self._calls.get(
            start,
            stop,
            lambda: self._bind(start, stop, caches),
            still_right=lambda kept: kept.caches is caches,  # caches that have grown lie elsewhere
        )
        self._total_length[0] = longest
        bound.call.run()

    def _bind(self, start: int, stop: int, caches: Sequence[ort.OrtValue]) -> _Bound:
        state = self.state
        inputs = {
            "inputs_embeds": state.talker_inputs.view(start, stop),
            "lengths": state.lengths.view(start, stop),
            # The kernel reads this one on the host, wherever it computes.
            "total_length": ort.OrtValue.ortvalue_from_numpy(self._total_length),
        }
        outputs = {"logits": state.logits.view(start, stop), "hidden": state.hidden.view(start, stop)}
        if self._takes_last:
            inputs[LAST] = state.first_position.view(start, stop)
        inputs |= zip(self._past, caches, strict=True)
        outputs |= zip(self._next, caches, strict=True)
        return _Bound(caches, self._memory.call(self._session, inputs, outputs, stop))

    def decode(self, first_slot: int, inputs_embeds: Floats, lengths: NDArray[np.int32]) -> TalkerOutput:
        """Do as `advance` does with inputs that do not come from a frame, for measurements.

        Args:
            first_slot: slot of the first row.
            inputs_embeds: `[rows, hidden_size]`.
            lengths: `[rows]`, positions in each slot before this call.
        """
        stop = first_slot + len(lengths)
        self.state.talker_inputs.write(first_slot, inputs_embeds[:, None])
        self.state.lengths.write(first_slot, lengths + np.int32(1))
        self.advance(first_slot, stop, int(lengths.max()) + 1)
        return TalkerOutput(self.state.logits.read(first_slot, stop), self.state.hidden.read(first_slot, stop))

    def save(self, slot: int, positions: int) -> Saved:
        """A copy of a slot's first positions, for `restore`."""
        return self._caches.save(slot, positions)

    def restore(self, slot: int, saved: Saved) -> None:
        """Make a slot begin with what `save` gave."""
        self._caches.restore(slot, saved)

    def swap(self, one: int, other: int, positions: int) -> None:
        """Exchange the first `positions` of two slots."""
        self._caches.swap(one, other, positions)
        self.state.held[[one, other]] = self.state.held[[other, one]]

    def release(self, held: Collection[int]) -> None:
        """Give back to the system what long rows have taken in slots that are not `held` any more.

        Quick where there is nothing to give back, so that it may be called after every frame.
        """
        self._caches.release(held)
        self.state.release(held)
