"""Plots a load over time; run as a command it draws the chart of the first page from `recorded.toml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks import recorded
from benchmarks.observed import Phase, Seen


def plot(phases: Sequence[Phase], seen: Seen, title: str, file: Path) -> None:
    """Write a PNG: memory, rows and queue, TTFA and `/livez`, each over the seconds since the load began."""
    zero = phases[0].began
    figure = Figure(figsize=(9, 10), layout="constrained")
    figure.suptitle(title)
    memory, rows, ttfa, livez = figure.subplots(4, sharex=True)

    known = [(state.at - zero, state.rss / 1e9) for state in seen.states if state.rss is not None]
    memory.plot(*zip(*known, strict=True) if known else ([], []))
    memory.set_ylabel("server RSS, GB")
    memory.set_ylim(0, 1.1 * max((rss for _, rss in known), default=1))

    times = [state.at - zero for state in seen.states]
    rows.step(times, [state.running for state in seen.states], label="rows running")
    rows.step(times, [state.waiting for state in seen.states], label="jobs waiting")
    rows.legend()

    for name in dict.fromkeys(phase.name for phase in phases):
        heard = [one for phase in phases if phase.name == name for one in phase.heard if one.ttfa is not None]
        ttfa.scatter([one.began - zero for one in heard], [one.ttfa for one in heard if one.ttfa], s=9, label=name)
    ttfa.set_ylabel("TTFA, s")
    ttfa.set_ylim(bottom=0)
    ttfa.legend()

    livez.scatter([probe.at - zero for probe in seen.probes], [1e3 * probe.seconds for probe in seen.probes], s=3)
    livez.set_ylabel("/livez, ms")
    livez.set_yscale("log")
    livez.set_xlabel("seconds")

    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> None:
    """Draw the chart of the recorded figures, and write the tables of the pages that show them."""
    for path, text in recorded.made().items():
        path.write_text(text, "utf-8")
        print(f"{path.relative_to(recorded.ROOT)} is written")


if __name__ == "__main__":
    main()
