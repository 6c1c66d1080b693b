"""Graphs that misbehave by plan, wrapped around real ones, and events that count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from server.engine.bundle import OpenBundle
from server.graphs.frame_state import Controls
from server.graphs.talker import Talker, TalkerOutput


class Counted:
    """Engine events, counted by name; `frame_made` by its rows too."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rows: list[int] = []

    def queued(self, seconds: float) -> None:
        self.counts["queued"] += 1

    def prefilled(self, seconds: float) -> None:
        self.counts["prefilled"] += 1

    def frame_made(self, seconds: float, rows: int) -> None:
        self.counts["frame_made"] += 1
        self.rows.append(rows)

    def runaway(self) -> None:
        self.counts["runaway"] += 1

    def retried(self) -> None:
        self.counts["retried"] += 1

    def cancelled(self) -> None:
        self.counts["cancelled"] += 1


class Wrapped:
    """Another object with some of its methods replaced."""

    def __init__(self, inner: Any, **methods: Callable) -> None:
        self._inner = inner
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


MARK = 3.0
"""Every component of an input that the rigged graphs know again."""
STUCK = 255
"""Code 1, or every code but code 0, of a frame in the hole."""


def mark(talker: Talker, slot: int) -> None:
    """Mark what the talker is fed next in a slot."""
    talker.state.talker_inputs.write(slot, np.full((1, 1, talker.sizes.hidden_size), MARK, np.float32))


def marked(talker: Talker, start: int, stop: int) -> np.ndarray:
    """Which of the slots' talker inputs carry the mark, bool `[slots]`."""
    return (talker.state.talker_inputs.read(start, stop) == MARK).all(axis=(1, 2))


def uniforms(controls: np.ndarray) -> np.ndarray:
    """The uniforms `[rows, groups]` of a frame's controls."""
    return controls[:, len(Controls._fields) :]


class StickyPredictor:
    """Falls into a hole at some codes 0, and stays there as long as the first uniform is below `stay`.

    The hole is a state of the row alone: its input to the talker is marked, and `talker` answers with one code 0. The
    other codes are always the same, or, if `varied`, code 1 is.
    """

    def __init__(self, bundle: OpenBundle, code_0: Iterable[int], *, varied: bool, stay: float = 0.97) -> None:
        self._inner, self._codes, self._stay = bundle.code_predictor, list(code_0), stay
        self._same = slice(1, 2) if varied else slice(1, None)
        self._talker = talker = bundle.talker

        def answer(start: int, stop: int, longest: int) -> None:
            stuck = marked(talker, start, stop)
            talker.advance(start, stop, longest)
            logits = talker.state.logits.read(start, stop)
            logits[stuck, self._codes[0]] = 1e4
            talker.state.logits.write(start, logits)

        self.talker = Wrapped(talker, advance=answer)

    def run(self, start: int, controls: np.ndarray) -> np.ndarray:
        codes = self._inner.run(start, controls)
        stuck = np.isin(codes[:, 0], self._codes) & (uniforms(controls)[:, 1] < self._stay)
        codes[stuck, self._same] = STUCK
        for row in np.flatnonzero(stuck):
            mark(self._talker, start + int(row))
        return codes


def sticky_is_silent(decoder: Any) -> Callable:
    """A `decode` whose samples are 0 where the frame is that of the hole."""

    def decode(codes: np.ndarray, states: Any) -> Any:
        waveform, after = decoder.decode(codes, states)
        silent = codes[:, :, 1] == STUCK
        waveform = waveform.reshape(*silent.shape, -1) * ~silent[:, :, None]
        return waveform.reshape(len(codes), -1).astype(np.float32), after

    return decode


class RecordingTalker:
    """Keeps what was written to each slot, position by position, and counts calls."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._written: dict[int, dict[int, np.ndarray]] = {}
        self._saved: dict[int, dict[int, np.ndarray]] = {}
        self.advances = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def inputs(self, slot: int, length: int) -> np.ndarray:
        return np.stack([self._written[slot][position] for position in range(length)])

    def prefill(self, slot: int, inputs_embeds: np.ndarray, past: int = 0) -> TalkerOutput:
        if not past:
            self._written[slot] = {}
        self._written[slot] |= dict(enumerate(inputs_embeds, start=past))
        return self._inner.prefill(slot, inputs_embeds, past)

    def save(self, slot: int, positions: int) -> list[np.ndarray]:
        saved = self._inner.save(slot, positions)
        self._saved[id(saved)] = dict(self._written[slot])
        return saved

    def restore(self, slot: int, saved: list[np.ndarray]) -> None:
        self._written[slot] = dict(self._saved[id(saved)])
        self._inner.restore(slot, saved)

    def advance(self, start: int, stop: int, longest: int) -> None:
        self.advances += 1
        state = self._inner.state
        pairs = zip(state.talker_inputs.read(start, stop), state.lengths.read(start, stop), strict=True)
        for slot, ((inputs,), length) in enumerate(pairs, start):
            self._written[slot][int(length) - 1] = inputs
        self._inner.advance(start, stop, longest)
