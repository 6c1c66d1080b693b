"""Draws the frames of rows and has the talker see them: rows in, codes out; the numbers stay where the kernels run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from server.engine.rows import Row, batched_or_one_by_one, ends_row_on_error
from server.graphs.code_predictor import CodePredictor
from server.graphs.frame_state import NOT_FINITE, Controls, control_buffer
from server.graphs.talker import Talker
from server.manifest import Sizes

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]


class Frames:
    """The talker and the code predictor at work on rows, in any order; on the CPU in neighbouring slots.

    A row's logits and hidden state are in its slot from its first frame on. A row that is set back, or moved, has
    copies of them, which are brought there before its next frame.

    Args:
        talker: with one slot a row.
        code_predictor: over the talker's state.
        sizes: from the manifest.
        text_pad: text side of the positions after the text, `[hidden_size]`.
    """

    def __init__(self, talker: Talker, code_predictor: CodePredictor, sizes: Sizes, text_pad: Floats) -> None:
        self._talker, self._code_predictor = talker, code_predictor
        self._sizes, self._text_pad = sizes, text_pad
        self._under_way: WeakSet[Row] = WeakSet()
        """Rows that went on in the last frame, where they may take part in frames that they have no part in."""
        self._lengths = np.ones(talker.slots, np.int32)
        """Each slot's positions with the one that the talker is fed next."""

    def draw(self, rows: Sequence[Row]) -> list[tuple[Row, Codes | None]]:
        """The codes of a frame `[groups]` of each row, None where it ends its speech.

        Rows for which this fails are marked and left out.
        """
        self._keep_left_out(rows)
        sent: dict[Row, tuple[Controls, Floats]] = {}
        for row in rows:
            with ends_row_on_error(row):
                if row.state.output is not None:
                    self._talker.state.put(row.slot, row.state.output, row.sampler.seen)
                    row.state = replace(row.state, output=None)
                self._talker.state.put_text(row.slot, self._text_after(row))
                sent[row] = self._controls(row), row.sampler.uniforms()
        found: list[tuple[Row, Codes | None]] = []
        for row, codes in batched_or_one_by_one(list(sent), lambda part: self._draw(part, sent)):
            with ends_row_on_error(row):
                if codes[0] == NOT_FINITE:
                    raise FloatingPointError("a graph gave numbers that are not finite")
                found.append((row, None if row.sampler.ends(codes[0]) else codes))
        return found

    def _keep_left_out(self, rows: Sequence[Row]) -> None:
        """Copy what the slots of rows hold that were in the last frame and are not in this one."""
        for row in self._under_way:
            if row not in rows and not (row.finished or row.job.over):
                self.keep(row)
        self._under_way.clear()

    def _text_after(self, row: Row) -> Floats:
        """The text side of the position that the talker is fed after this frame of a row, `[hidden_size]`.

        It depends on the number of frames alone, so that a row that is set back is fed the same text again.
        """
        following, made = row.job.following, row.state.made
        return following[made] if made < len(following) else self._text_pad

    def _draw(self, rows: Sequence[Row], sent: dict[Row, tuple[Controls, Floats]]) -> list[Codes]:
        state = self._talker.state
        first, stop = state.window(*_window(rows))
        controls = state.idle(first, stop)
        # Of all rows in these slots, lest one that is not asked for have another frame than its own.
        there = [row for row in sent if first <= row.slot < stop]
        slots = [row.slot for row in there]
        controls[np.array(slots) - first] = control_buffer(*zip(*(sent[row] for row in there), strict=True))
        self._lengths[first:stop] = controls[:, 0] + 1
        state.held[slots] = self._lengths[slots]  # with the position that the talker is fed next
        codes = self._code_predictor.run(first, controls)
        return [codes[row.slot - first] for row in rows]

    def _controls(self, row: Row) -> Controls:
        sampling, drawn = row.sampler.sampling, row.sampler.drawn
        vocab_size, codes = self._sizes.talker.vocab_size, self._sizes.code_predictor.vocab_size
        return Controls(
            # A row that is full makes its last frame; the talker may write to its last position all the same.
            length=min(row.state.length, self._talker.sizes.max_positions - 1),
            last_code=drawn[-1] if drawn else -1,
            may_end=row.sampler.may_end,
            repetition_penalty=sampling.repetition_penalty,
            temperature=sampling.temperature or 1.0,
            top_k=min(sampling.top_k or vocab_size, vocab_size),
            top_p=sampling.top_p,
            predictor_temperature=sampling.predictor_temperature or 1.0,
            predictor_top_k=min(sampling.predictor_top_k or codes, codes),
            predictor_top_p=sampling.predictor_top_p,
        )

    def advance(self, rows: Sequence[Row]) -> None:
        """One talker step for rows that have a frame it has not seen.

        A row among them that does not go on, since it has ended or was set back in this very frame, takes part all
        the same: one row more costs less than a second call. What is written behind its last position counts for
        nothing, and a row that was set back has a copy of its output.
        """
        for row, _ in batched_or_one_by_one(rows, self._advance):
            row.state = replace(row.state, length=row.state.length + 1, output=None, unseen=False)
            if self._talker.idle_take_part:
                self._under_way.add(row)

    def _advance(self, rows: Sequence[Row]) -> Sequence[Row]:
        first, stop = _window(rows)
        self._talker.advance(first, stop, int(self._lengths[first:stop].max()))
        return rows

    def keep(self, row: Row) -> None:
        """Copy to the row's state what its slot holds, so that the row can move or go back to this state later.

        To be called while the talker has seen the row's last frame; a row that has a copy keeps it.
        """
        if row.state.output is None:
            row.state = replace(row.state, output=self._talker.state.get(row.slot))


def _window(rows: Sequence[Row]) -> tuple[int, int]:
    """First slot, and the one behind the last."""
    return min(row.slot for row in rows), max(row.slot for row in rows) + 1


def check_finite(*values: Floats) -> None:
    """Refuse numbers that are not finite.

    Raises:
        FloatingPointError: a value is infinite or NaN.
    """
    if not all(np.isfinite(value).all() for value in values):
        raise FloatingPointError("a graph gave numbers that are not finite")
