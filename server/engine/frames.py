"""Where a frame's numbers are: in rows, or on a device. What the synthesizer does with codes is the same for both.

`HostFrames` draws code 0 on the host and calls one graph after the other; `DeviceFrames` has all of it happen where the
kernels run, and sees the codes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from server.engine.rows import Row, failing, for_each
from server.graphs.code_predictor import CodePredictor, DrawParameters
from server.graphs.cuda.device_frame import IDLE, UNFIT, Controls, DevicePredictor, DeviceTalker, control_buffer
from server.graphs.talker import Talker, TalkerOutput
from server.manifest import Sizes

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]


class Drawn(NamedTuple):
    """A frame: `codes` `[groups]`, and the talker's `next_input` `[hidden_size]` where the host has it."""

    codes: Codes
    next_input: Floats | None


class Frames(Protocol):
    """Draws frames and has the talker see them. Rows are in neighbouring slots, in any order."""

    def draw(self, rows: Sequence[Row]) -> list[tuple[Row, Drawn | None]]:
        """A frame of each row, None where it ends its speech; rows for which this fails are marked and left out."""

    def advance(self, ahead: Sequence[Row], rows: Sequence[Row]) -> None:
        """One talker step for the rows that go on; `rows` are all of this frame.

        A row between them that does not go on (it has ended or was set back in this very frame) takes part all the
        same: one row more costs less than a second call, and what is written behind its last position counts for
        nothing.
        """

    def keep(self, row: Row) -> None:
        """Make the row's state, which the talker has seen the last frame of, one that can be gone back to later."""


class HostFrames:
    """Frames whose logits, hidden states and embeddings come to the host.

    Args:
        talker: with one slot a row.
        code_predictor: of the same bundle.
        sizes: from the manifest.
        text_pad: text side of every position after the prompt, `[hidden_size]`.
    """

    def __init__(self, talker: Talker, code_predictor: CodePredictor, sizes: Sizes, text_pad: Floats) -> None:
        self._talker, self._code_predictor, self._text_pad = talker, code_predictor, text_pad
        self._codes = sizes.code_predictor.vocab_size

    def draw(self, rows: Sequence[Row]) -> list[tuple[Row, Drawn | None]]:
        """As `Frames` says."""
        begun: dict[Row, tuple[int, Floats]] = {}
        ended: list[tuple[Row, Drawn | None]] = []
        for row in rows:
            with failing(row):
                uniforms = row.sampler.uniforms()
                code_0 = row.sampler.draw_code_0(_output(row).logits, uniforms[0])
                if code_0 is None:
                    ended.append((row, None))
                else:
                    begun[row] = code_0, uniforms[1:]
        return [*ended, *for_each(list(begun), lambda part: self._predict(part, begun))]

    def _predict(self, rows: Sequence[Row], begun: dict[Row, tuple[int, Floats]]) -> list[Drawn]:
        hidden = np.stack([_output(row).hidden for row in rows])
        codes_0 = np.array([begun[row][0] for row in rows], np.int64)
        uniforms = np.stack([begun[row][1] for row in rows])
        rest, embedding = self._code_predictor.run(hidden, codes_0, uniforms, self._parameters(rows))
        codes = np.concatenate((codes_0[:, None], rest), axis=1)
        return [Drawn(*pair) for pair in zip(codes, embedding + self._text_pad, strict=True)]

    def _parameters(self, rows: Sequence[Row]) -> DrawParameters:
        sampling = [row.sampler.sampling for row in rows]
        return DrawParameters(
            temperature=np.array([s.predictor_temperature or 1.0 for s in sampling], np.float32),
            top_k=np.array([min(s.predictor_top_k or self._codes, self._codes) for s in sampling], np.int64),
            top_p=np.array([s.predictor_top_p for s in sampling], np.float32),
        )

    def advance(self, ahead: Sequence[Row], rows: Sequence[Row]) -> None:
        """As `Frames` says."""
        for row, output in for_each(ahead, lambda part: self._advance(part, rows)):
            with failing(row):
                check_finite(*output)
                length = row.state.length + 1
                row.state = replace(row.state, length=length, output=output, unseen=False, next_input=None)

    def _advance(self, ahead: Sequence[Row], rows: Sequence[Row]) -> list[TalkerOutput]:
        first = min(row.slot for row in ahead)
        count = max(row.slot for row in ahead) + 1 - first
        inputs, lengths = np.zeros((count, len(self._text_pad)), np.float32), np.zeros(count, np.int32)
        for row in rows:
            if first <= row.slot < first + count and not row.finished:
                lengths[row.slot - first] = row.state.length
        for row in ahead:
            inputs[row.slot - first] = row.state.next_input
        output = self._talker.decode(first, inputs, lengths)
        return [TalkerOutput(output.logits[row.slot - first], output.hidden[row.slot - first]) for row in ahead]

    def keep(self, row: Row) -> None:
        """A row has all of it anyway."""


def _output(row: Row) -> TalkerOutput:
    if row.state.output is None:
        raise ValueError("the row's state is on a device")
    return row.state.output


class DeviceFrames:
    """Frames of which codes alone come to the host.

    A row's logits and hidden state are in its slot from its first frame on; a row that is set back, or moved, has
    copies of them, which are brought there before its next frame.

    Args:
        talker: with one slot a row.
        code_predictor: of the same bundle.
        sizes: from the manifest.
        text_pad: as `code_predictor` got it.
    """

    def __init__(self, talker: DeviceTalker, code_predictor: DevicePredictor, sizes: Sizes, text_pad: Floats) -> None:
        self._talker, self._code_predictor = talker, code_predictor
        self._sizes = sizes
        self._idle = np.zeros(sizes.code_predictor.num_code_groups, np.float32)
        self._lengths = np.ones(talker.slots, np.int32)
        """What the talker's lengths are, which it has on the device."""

    def draw(self, rows: Sequence[Row]) -> list[tuple[Row, Drawn | None]]:
        """As `Frames` says."""
        sent: dict[Row, tuple[Controls, Floats]] = {}
        for row in rows:
            with failing(row):
                if row.state.output is not None:
                    self._talker.state.put(row.slot, row.state.output, row.sampler.seen)
                    row.state = replace(row.state, output=None)
                sent[row] = self._controls(row), row.sampler.uniforms()
        found: list[tuple[Row, Drawn | None]] = []
        for row, codes in for_each(list(sent), lambda part: self._draw(part, sent)):
            with failing(row):
                if codes[0] == UNFIT:
                    raise FloatingPointError("a graph gave numbers that are not finite")
                found.append((row, None if row.sampler.ends(codes[0]) else Drawn(codes, None)))
        return found

    def _draw(self, rows: Sequence[Row], sent: dict[Row, tuple[Controls, Floats]]) -> list[Codes]:
        first, stop = _window(rows)
        controls, uniforms = [IDLE] * (stop - first), [self._idle] * (stop - first)
        for row in rows:
            controls[row.slot - first], uniforms[row.slot - first] = sent[row]
        self._lengths[first:stop] = [one.length + 1 for one in controls]
        codes = self._code_predictor.run(first, control_buffer(controls, uniforms))
        return [codes[row.slot - first] for row in rows]

    def _controls(self, row: Row) -> Controls:
        sampling, drawn = row.sampler.sampling, row.sampler.drawn
        vocab_size, codes = self._sizes.talker.vocab_size, self._sizes.code_predictor.vocab_size
        return Controls(
            # A row that is full makes its last frame; the talker may write to its last position all the same.
            length=min(row.state.length, self._sizes.talker.max_positions - 1),
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

    def advance(self, ahead: Sequence[Row], rows: Sequence[Row]) -> None:
        """As `Frames` says."""
        for row, _ in for_each(ahead, self._advance):
            row.state = replace(row.state, length=row.state.length + 1, output=None, unseen=False)

    def _advance(self, ahead: Sequence[Row]) -> Sequence[Row]:
        first, stop = _window(ahead)
        self._talker.advance(first, stop, int(self._lengths[first:stop].max()))
        return ahead

    def keep(self, row: Row) -> None:
        """Copy the state to the host: once for a row that is suspicious, moved or set back."""
        if row.state.output is None:
            row.state = replace(row.state, output=self._talker.state.get(row.slot))


def _window(rows: Sequence[Row]) -> tuple[int, int]:
    """First slot, and the one behind the last."""
    return min(row.slot for row in rows), max(row.slot for row in rows) + 1


def check_finite(*values: Floats) -> None:
    """Refuse numbers that are none.

    Raises:
        FloatingPointError: a value is infinite or no number.
    """
    if not all(np.isfinite(value).all() for value in values):
        raise FloatingPointError("a graph gave numbers that are not finite")
