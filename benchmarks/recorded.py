"""The recorded figures of `recorded.toml`, and the chart and tables of the pages that are made from them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = Path(__file__).with_name("recorded.toml")
CHART = ROOT / "docs" / "peers.svg"
NOT_MEASURED = "not measured"
WIDTH, NAMES, BAR, GAP = 860, 210, 20, 8
"""Pixels: of the chart, of the names left of the bars, a bar's height, and what lies between two bars."""


@dataclass(frozen=True)
class Bar:
    """One thing that was measured: the least and the most of its figures."""

    name: str
    low: float
    high: float
    ours: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"{self.name}: {self.low:g} to {self.high:g} is no range of a time")

    def text(self) -> str:
        """The figures in words."""
        digits = max(len(f"{figure:g}".partition(".")[2]) for figure in (self.low, self.high))
        return " to ".join(f"{figure:.{digits}f}" for figure in sorted({self.low, self.high}))


@dataclass(frozen=True)
class Panel:
    """One run on one machine: what the toml file says of each field."""

    title: str
    unit: str
    how: str
    machine: str
    date: str
    measured: str
    forced: str
    bars: tuple[Bar, ...]
    line: tuple[float, str] | None = None

    def notes(self) -> tuple[str, str]:
        """Two lines that say where the figures are from."""
        forced = f"; forced: {self.forced}" if self.forced else ""
        return f"{self.machine}; {self.date}; {self.measured}", f"{self.how}{forced}"


@dataclass(frozen=True)
class Model:
    """A row of the table of models; an empty text is a figure that nobody has measured."""

    model: str
    precision: str
    disk: str
    memory: str
    rtf: str
    official: str
    agreement: str


def read(file: Path = FILE) -> tuple[list[Panel], list[Model]]:
    """The panels of the chart and the rows of the table; a field too many or too few is a TypeError that names it."""
    told = tomllib.loads(file.read_text("utf-8"))
    panels = []
    for panel in told["panel"]:
        line = (panel["line"]["at"], panel["line"]["says"]) if "line" in panel else None
        panels.append(Panel(**{**panel, "bars": tuple(Bar(**bar) for bar in panel["bars"]), "line": line}))
    return panels, [Model(**row) for row in told["model"]]


def draw(panels: Sequence[Panel]) -> str:
    """The chart as SVG: the panels under each other, each with a scale of its own that begins at 0."""
    lines: list[str] = []
    top = 12.0
    for panel in panels:
        scale = (WIDTH - NAMES - 130) / max(bar.high for bar in panel.bars)
        lines.append(f'<text x="12" y="{top + 16:g}" font-weight="bold">{escape(panel.title)}</text>')
        first = top + 34
        end = first + len(panel.bars) * (BAR + GAP)
        for number, bar in enumerate(panel.bars):
            y = first + number * (BAR + GAP)
            low, high = bar.low * scale, bar.high * scale
            colour = "#2f6fbf" if bar.ours else "#9aa7b5"
            lines += [
                f'<text x="{NAMES - 10}" y="{y + 15:g}" text-anchor="end">{escape(bar.name)}</text>',
                f'<rect x="{NAMES}" y="{y:g}" width="{high:.1f}" height="{BAR}" fill="{colour}" opacity="0.5"/>',
                f'<rect x="{NAMES}" y="{y:g}" width="{low:.1f}" height="{BAR}" fill="{colour}"/>',
                f'<text x="{NAMES + high + 8:.1f}" y="{y + 15:g}">{bar.text()} {panel.unit}</text>',
            ]
        if panel.line:
            at, says = panel.line
            x = NAMES + at * scale
            lines += [
                f'<path d="M{x:.1f} {first - 6:g}V{end:g}" stroke="#b03030" stroke-dasharray="4 3"/>',
                f'<text x="{x + 4:.1f}" y="{first - 4:g}" font-size="11" fill="#b03030">{escape(says)}</text>',
            ]
        for number, note in enumerate(panel.notes()):
            lines.append(
                f'<text x="12" y="{end + 12 + 15 * number:g}" font-size="11" fill="#555">{escape(note)}</text>'
            )
        top = end + 46
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:g}" font-family="sans-serif" '
        f'font-size="13">\n<rect width="{WIDTH}" height="{top:g}" fill="#fff"/>'
    )
    return "\n".join([head, *lines, "</svg>", ""])


def table_of_peers(panels: Sequence[Panel]) -> str:
    """What the chart shows, in Markdown."""
    rows = [f"| {panel.title} | {bar.name} | {bar.text()} {panel.unit} |" for panel in panels for bar in panel.bars]
    notes = [f"- {panel.title}: {'; '.join(panel.notes())}." for panel in panels]
    return "\n".join(["| what | of | found |", "|---|---|---|", *rows, "", *notes])


def table_of_models(models: Sequence[Model]) -> str:
    """The table of models of the first page, in Markdown."""
    rows = []
    for row in models:
        cells = [row.model, row.precision, *(text or NOT_MEASURED for text in (row.disk, row.memory, row.rtf))]
        cells += [text or NOT_MEASURED for text in (row.official, row.agreement)]
        rows.append(f"| {' | '.join(cells)} |")
    head = "| model | precision | disk | memory | RTF | against the official package | codes that agree with fp32 |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def written_into(page: str, name: str, table: str) -> str:
    """The page with another table between `<!-- NAME -->` and `<!-- end of NAME -->`; ValueError without these."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    made, found = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n\n{table}\n\n{end}", page, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"the page has {begin} {found} times")
    return made


def made() -> dict[Path, str]:
    """Each file that is made from the figures, with what it is to hold."""
    panels, models = read()
    first, benchmarks = ROOT / "README.md", ROOT / "benchmarks" / "README.md"
    return {
        CHART: draw(panels),
        first: written_into(first.read_text("utf-8"), "models", table_of_models(models)),
        benchmarks: written_into(benchmarks.read_text("utf-8"), "peers", table_of_peers(panels)),
    }
