"""Computes figures of what clients of a server under load have seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Literal, NamedTuple

import numpy as np

Outcome = Literal["whole", "left", "refused", "failed"]
"""How a request ended: heard to its end, left by its client, answered 429 or 503, or anything else."""


class Part(NamedTuple):
    """Audio that has arrived: when, on the client's clock, and how many seconds of it."""

    at: float
    audio: float


@dataclass(frozen=True)
class Heard:
    """One request as its client saw it.

    Attributes:
        began: when it was sent, on the client's clock.
        ended: when it was over.
        outcome: how.
        status: of the answer, if there was one.
        parts: the audio, as it came.
        slow: whether the client read more slowly than it could.
        problem: what has failed.
    """

    began: float
    ended: float
    outcome: Outcome
    status: int | None = None
    parts: tuple[Part, ...] = ()
    slow: bool = False
    problem: str | None = None

    @property
    def ttfa(self) -> float | None:
        """Seconds from the request to its first audio."""
        return self.parts[0].at - self.began if self.parts else None

    @property
    def audio(self) -> float:
        """Seconds of audio."""
        return sum(part.audio for part in self.parts)


class Probe(NamedTuple):
    """A request for `/livez`: when it was sent and the seconds it took."""

    at: float
    seconds: float


class State(NamedTuple):
    """What `/metrics` said: bytes of memory (None where the system does not tell), rows under way, jobs waiting."""

    at: float
    rss: int | None
    running: int
    waiting: int


@dataclass(frozen=True)
class Phase:
    """A stretch of one kind of load; stretches of the same name are parts of one measurement."""

    name: str
    began: float
    ended: float
    heard: Sequence[Heard]

    @property
    def wall(self) -> float:
        """Seconds it took."""
        return self.ended - self.began

    @property
    def throughput(self) -> float:
        """Seconds of audio that all callers heard in a second."""
        return sum(one.audio for one in self.heard) / self.wall


@dataclass
class Seen:
    """What was measured during the whole load; `heard` is what a listener beside it heard, if there was one."""

    probes: list[Probe] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)


class Underruns(NamedTuple):
    """How often, and for how many seconds in all, a player has nothing to play."""

    times: int
    seconds: float


def underruns(parts: Iterable[Part]) -> Underruns:
    """Count the underruns of a player that begins with the first part; a late start is not an underrun."""
    times, seconds, dry = 0, 0.0, None
    for part in parts:
        if dry is not None and part.at > dry:
            times += 1
            seconds += part.at - dry
        dry = (part.at if dry is None else max(dry, part.at)) + part.audio
    return Underruns(times, seconds)


def longest_gap(parts: Sequence[Part]) -> float:
    """Find the most seconds between a part and the next."""
    return max((later.at - part.at for part, later in pairwise(parts)), default=0.0)


def percentile(values: Sequence[float], percent: float) -> float:
    """Find the least value that at least so many percent of the values do not exceed (nearest rank)."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


def growth(states: Sequence[State]) -> float | None:
    """Memory at the end / memory once the load has settled: medians of the last and of the second tenth of the time."""
    known = [(state.at, state.rss) for state in states if state.rss is not None]
    if not known:
        return None
    began, wall = known[0][0], known[-1][0] - known[0][0]
    settled = [rss for at, rss in known if 0.1 * wall <= at - began <= 0.2 * wall]
    last = [rss for at, rss in known if at - began >= 0.9 * wall]
    return median(last) / median(settled) if settled and last else None


def table(phases: Sequence[Phase], seen: Seen) -> str:
    """A Markdown table with a column for each name of a phase."""
    columns: dict[str, list[Phase]] = {}
    for phase in phases:
        columns.setdefault(phase.name, []).append(phase)
    cells = [dict(_cells(same, seen)) for same in columns.values()]
    rows = [[name, *(column[name] for column in cells)] for name in cells[0]]
    head = ["measured", *columns]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _cells(phases: Sequence[Phase], seen: Seen) -> Iterator[tuple[str, str]]:
    heard = [one for phase in phases for one in phase.heard]
    outcomes = Counter(one.outcome for one in heard)
    yield "requests whole / left / failed", " / ".join(str(outcomes[name]) for name in ("whole", "left", "failed"))
    statuses = Counter(one.status for one in heard)
    yield "refused with 429 / 503", f"{statuses[429]} / {statuses[503]}"
    ttfa = [one.ttfa for one in heard if one.ttfa is not None]
    yield "TTFA, p50 / p95 / p99, s", _percentiles(ttfa, (50, 95, 99), 2)
    audio, wall = sum(one.audio for one in heard), sum(phase.wall for phase in phases)
    yield "wall time, s", f"{wall:.1f}"
    yield "audio heard, s", f"{audio:.1f}"
    yield "audio seconds a wall second, all callers", f"{audio / wall:.2f}"
    rtf = f"{wall / audio:.2f}" if audio else "-"
    yield "aggregate RTF (wall / audio, below 1 is faster than real time)", rtf
    starved = [underruns(one.parts) for one in heard if one.parts and not one.slow]
    times, seconds = sum(one.times for one in starved), sum(one.seconds for one in starved)
    affected = f"{sum(one.times > 0 for one in starved)} of {len(starved)}"
    yield "underruns at 1 x: requests / times / s", f"{affected} / {times} / {seconds:.1f}"
    probes = [1e3 * probe.seconds for probe in seen.probes if _inside(probe.at, phases)]
    yield "/livez, p50 / p99 / worst, ms (probes)", f"{_percentiles(probes, (50, 99, 100), 1)} ({len(probes)})"
    states = [state for state in seen.states if _inside(state.at, phases)]
    yield "rows running, median", f"{median(state.running for state in states):g}" if states else "-"
    sizes = [state.rss / 1e9 for state in states if state.rss is not None]
    shown = f"{sizes[0]:.3f} / {sizes[-1]:.3f} / {max(sizes):.3f}" if sizes else "-"
    yield "server RSS first / last / highest, GB", shown
    grown = growth(states)
    yield "the same, last tenth of the time against the second tenth", "-" if grown is None else f"{grown - 1:+.1%}"


def _inside(at: float, phases: Iterable[Phase]) -> bool:
    return any(phase.began <= at <= phase.ended for phase in phases)


def _percentiles(values: Sequence[float], percents: Iterable[float], digits: int) -> str:
    return " / ".join(f"{percentile(values, percent):.{digits}f}" if values else "-" for percent in percents)
