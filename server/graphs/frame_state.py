"""What the two graphs of a frame hand each other, one row a slot.

The talker leaves logits and a hidden state; the code predictor's graph draws all codes of the frame from them and
leaves what the talker is fed next. Both work on buffers that stay where they are, so that a GPU need not wait for the
host between them, and nothing but `Controls` goes up and nothing but codes comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.graphs.memory import Memory
from server.manifest import Sizes

Floats = NDArray[np.float32]

NOT_FINITE = -1
"""Code 0 of a row whose logits or hidden state are not finite."""
RESERVED_CODES = 1024
"""The last codes of the talker's vocabulary are control codes; of them only end-of-speech may be drawn."""


class Controls(NamedTuple):
    """What one row tells a frame's graph. All of it is sent as float32, in which whole numbers up to 2^24 are exact.

    `temperature` and `predictor_temperature` are above 0, `top_k` counts from 1, `top_p` is in (0, 1]. A row is greedy
    where its uniforms are 0.
    """

    length: int = 0
    """Positions in the row's slot, fewer than the talker has at most."""
    last_code: int = -1
    """Code 0 of the row's last frame, which the repetition penalty counts from now on; -1 is none."""
    may_end: bool = False
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 1
    top_p: float = 1.0
    predictor_temperature: float = 1.0
    predictor_top_k: int = 1
    predictor_top_p: float = 1.0


IDLE = Controls()
"""The controls of a slot that has no row in this frame; what the graph gives for it is thrown away."""


def control_buffer(controls: Sequence[Controls], uniforms: Sequence[Floats]) -> Floats:
    """What goes up for a frame: `[rows, len(Controls._fields) + groups]`, the uniforms `[groups]` of each row last."""
    return np.concatenate((np.array(controls, np.float32), np.stack(uniforms)), axis=1)


class RowOutput(NamedTuple):
    """The talker's output for one row: `logits` float32 `[vocab_size]` and `hidden` float32 `[hidden_size]`."""

    logits: Floats
    hidden: Floats


class FrameState:
    """The buffers of all slots.

    Args:
        memory: where the kernels run.
        sizes: from the manifest.
        slots: rows that can be under way at once.
    """

    def __init__(self, memory: Memory, sizes: Sizes, slots: int) -> None:
        vocab_size, hidden_size = sizes.talker.vocab_size, sizes.talker.hidden_size
        groups = sizes.code_predictor.num_code_groups
        self.slots, self.memory = slots, memory
        self.held = np.zeros(slots, np.int32)
        """Positions that each slot holds. In a frame without a row in it the slot is written to behind them."""
        self.logits = memory.buffer(np.float32, (slots, vocab_size))
        self.hidden = memory.buffer(np.float32, (slots, hidden_size))
        self.seen = memory.buffer(np.bool_, (slots, vocab_size))
        """Codes 0 that the repetition penalty counts."""
        self.controls = memory.buffer(np.float32, (slots, len(Controls._fields) + groups))
        self.text_embeds = memory.buffer(np.float32, (slots, hidden_size))
        """The text side of the position that the talker is fed next; see `put_text`."""
        self.forced_codes = memory.buffer(np.int64, (slots, groups))
        """Codes to be taken instead of drawn ones; -1 is none, and there are none but in measurements."""
        self.forced_codes.write(0, np.full((slots, groups), -1, np.int64))
        self.codes = memory.buffer(np.int64, (slots, groups))
        self.talker_inputs = memory.buffer(np.float32, (slots, 1, hidden_size))
        """What the talker is fed next: the embeddings of a frame's codes and of its text, summed."""
        self.lengths = memory.buffer(np.int32, (slots,))
        """Positions of each slot with that one."""
        self.first_position = memory.buffer(np.int64, (slots,))
        """Zeros: in a frame the talker is fed one position a row."""
        self._most = sizes.talker.max_positions - 1
        self._idle = control_buffer([IDLE], [np.zeros(groups, np.float32)])
        self._texts: list[Floats | None] = [None] * slots

    def window(self, start: int, stop: int) -> tuple[int, int]:
        """First slot that a frame takes up for rows in slots `start` to `stop`, and the one behind the last."""
        return self.memory.window(start, stop, self.slots)

    def release(self, held: Collection[int]) -> None:
        """Count nothing of what lies in slots that are not `held`."""
        self.held[[slot for slot in range(self.slots) if slot not in held]] = 0

    def idle(self, start: int, stop: int) -> Floats:
        """Controls of slots without a row in a frame, `[slots, ...]`: the talker writes behind what they hold."""
        controls = np.tile(self._idle, (stop - start, 1))
        controls[:, 0] = np.minimum(self.held[start:stop], self._most)
        return controls

    def put(self, slot: int, output: RowOutput, seen: NDArray[np.bool_]) -> None:
        """Bring a row into its slot; `seen` is bool `[vocab_size]`."""
        self.logits.write(slot, output.logits[None])
        self.hidden.write(slot, output.hidden[None])
        self.seen.write(slot, seen[None])

    def get(self, slot: int) -> RowOutput:
        """A copy of what the talker left for a row."""
        (logits,), (hidden,) = self.logits.read(slot, slot + 1), self.hidden.read(slot, slot + 1)
        return RowOutput(logits, hidden)

    def put_text(self, slot: int, embedding: Floats) -> None:
        """Say what is added to the embeddings of a row's next frame, `[hidden_size]`.

        It is copied if it is another array than the slot's last one, so that an array must not be changed afterwards.
        """
        if self._texts[slot] is not embedding:
            self.text_embeds.write(slot, embedding[None])
            self._texts[slot] = embedding
