"""Draws `docs/rooms.svg`: the rooms of the server, and which imports which. Run it as `python docs/draw_rooms.py`.

Everything is read from the import statements of `server/`, so that the picture stays true; a test draws it again and
compares.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "rooms.svg"
QUESTIONS = {
    "cli": "what do you want done?",
    "http": "who asks, and in what shape?",
    "wyoming": "what does Home Assistant ask?",
    "speech": "how does a request become audio?",
    "voices": "who speaks?",
    "models": "which bundle, and is it loaded?",
    "text": "what is said?",
    "audio": "what file does it become?",
    "engine": "which rows run, and is it speech?",
    "graphs": "what does ONNX Runtime compute?",
    "bench": "how fast is it here?",
}
"""The rooms that are drawn, and the question that each answers; the others are leaves that everybody may import."""
ROWS = (
    ("cli",),
    ("http", "wyoming", "bench"),
    ("speech",),
    ("voices", "models", "text", "audio"),
    ("engine",),
    ("graphs",),
)
WIDTH, BOX, HEIGHT, GAP = 1120, 252, 58, 58


def imports(path: Path) -> Iterator[str]:
    """Rooms that a file imports, once for each name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "server":
            parts = node.module.split(".")
            yield from [parts[1]] if parts[1:] else [alias.name for alias in node.names]


def arrows() -> Counter[tuple[str, str]]:
    """How many import statements go from room to room."""
    found: Counter[tuple[str, str]] = Counter()
    for room in QUESTIONS:
        for path in sorted((ROOT / "server" / room).rglob("*.py")):
            found.update((room, other) for other in imports(path) if other in QUESTIONS and other != room)
    return found


def draw() -> str:
    """The picture."""
    places: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(ROWS):
        for column, room in enumerate(row):
            left = (WIDTH - len(row) * BOX - (len(row) - 1) * 24) / 2 + column * (BOX + 24)
            places[room] = (left, 20 + number * (HEIGHT + GAP))
    height = 20 + len(ROWS) * (HEIGHT + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#777"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for (room, other), number in sorted(arrows().items()):
        (left, top), (to_left, to_top) = places[room], places[other]
        x, to_x = left + BOX / 2, to_left + BOX / 2
        shift = 12 if to_x > x else -12 if to_x < x else (len(room) % 3 - 1) * 30
        start, end = top + HEIGHT, to_top - 2
        lines.append(
            f'<path d="M{x + shift:g} {start:g} C{x + shift:g} {start + 34:g} {to_x - shift:g} {end - 34:g} '
            f'{to_x - shift:g} {end:g}" fill="none" stroke="#999" stroke-width="{1 + min(number, 30) / 10:g}" '
            f'marker-end="url(#tip)"><title>{room} imports {other}: {number}</title></path>'
        )
    for room, (left, top) in places.items():
        files = len([path for path in (ROOT / "server" / room).rglob("*.py") if path.name != "__init__.py"])
        lines += [
            f'<rect x="{left:g}" y="{top:g}" width="{BOX}" height="{HEIGHT}" rx="8" fill="#eef3fb" stroke="#456"/>',
            f'<text x="{left + BOX / 2:g}" y="{top + 24:g}" text-anchor="middle" font-weight="bold">{room}/ '
            f'<tspan font-weight="normal" fill="#567">{files} files</tspan></text>',
            f'<text x="{left + BOX / 2:g}" y="{top + 44:g}" text-anchor="middle">{escape(QUESTIONS[room])}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)} is drawn\n")
