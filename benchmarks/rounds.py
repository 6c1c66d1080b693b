"""Rounds in which engines speak in turn: how busy the machine was with other things, and ratios within each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, Self

import psutil

MOST_OTHERS = 0.1
"""Part of the machine's cores that other processes may have taken in a round that counts."""
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
"""Times of all cores that are not idle, what a hypervisor gave to others (steal) among them; those of guests are in
`user` already."""


class Load(NamedTuple):
    """Seconds of processor time so far: of all cores together, of those that were not idle, and of what is measured."""

    whole: float
    busy: float
    own: float

    @classmethod
    def now(cls, *processes: psutil.Process) -> Self:
        """Read it; `processes` are what is measured, each with all that it has started."""
        times = psutil.cpu_times()
        busy = sum(getattr(times, name) for name in _BUSY)
        return cls(busy + times.idle + times.iowait, busy, sum(map(processor_seconds, processes)))


def processor_seconds(process: psutil.Process) -> float:
    """Processor time of a process and of its descendants, those that have ended among them."""
    seconds = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:  # it has just ended, and counts for its parent
            continue
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def others(before: Load, after: Load) -> float:
    """Part of the machine's cores that went to anything but what is measured, 0 to 1."""
    whole, busy, own = (now - then for now, then in zip(after, before, strict=True))
    return max(0.0, busy - own) / whole if whole else 0.0


@dataclass(frozen=True)
class Turn:
    """What one engine did in one round.

    Attributes:
        wall: seconds from the request to the last sample.
        first_audio: seconds to the first sound; that of an engine that gives all at once is `wall`.
        audio: seconds of sound.
        others: part of the machine's cores that other processes took meanwhile.
    """

    wall: float
    first_audio: float
    audio: float
    others: float

    @property
    def rtf(self) -> float:
        """Wall seconds / audio seconds; below 1 is faster than real time."""
        return self.wall / self.audio


Round = Mapping[str, Turn]
"""The turns of one round, by engine."""


def disturbed(turns: Round) -> float | None:
    """The largest part of the cores that others took in a turn of the round, where that is too much; else None."""
    most = max(turn.others for turn in turns.values())
    return most if most > MOST_OTHERS else None


def ratios(rounds: Sequence[Round], engine: str, to: str) -> list[float]:
    """How many times longer one engine took than another for a second of audio, by round."""
    return [turns[engine].rtf / turns[to].rtf for turns in rounds]


def table(rounds: Sequence[Round], ours: str, peaks: Mapping[str, int]) -> str:
    """The figures of rounds that count, as a Markdown table.

    Args:
        rounds: at least one.
        ours: the engine that the others are compared with.
        peaks: the most resident memory of each engine's process, in bytes.
    """
    lines = [
        f"| engine | RTF, median | times {ours}, by round | median | TTFA, median | peak RSS |",
        "|---|---|---|---|---|---|",
    ]
    for engine in rounds[0]:
        times = ratios(rounds, engine, ours)
        rtf, first = (median(getattr(turns[engine], name) for turns in rounds) for name in ("rtf", "first_audio"))
        lines.append(
            f"| {engine} | {rtf:.2f} | {', '.join(f'{ratio:.2f}' for ratio in times)} | {median(times):.2f} "
            f"| {first:.2f} s | {peaks[engine] / 1e9:.2f} GB |"
        )
    return "\n".join(lines)
