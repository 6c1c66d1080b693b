"""Print how many lines of code each room has: lines with a token, without blanks, comments and docstrings.

python docs/count_lines.py [FOLDER ...]
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("server", "export", "benchmarks", "docs", "tests")

_NO_CODE = frozenset(
    (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
)


def code_lines(source: str) -> int:
    """Count the lines of a module that hold code.

    A string that is a statement of its own counts as documentation: docstrings, and the strings beneath constants
    and fields.

    Args:
        source: text of the module.
    """
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def count(folder: Path) -> Counter[str]:
    """Count the lines of code of a folder by room; a room is a folder directly in it, `.` the files beside them."""
    rooms: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        rooms[parts[0] if len(parts) > 1 else "."] += code_lines(path.read_text("utf-8"))
    return rooms


def main() -> None:
    """Print a table of rooms and the sum of each folder."""
    parser = argparse.ArgumentParser(description="Count lines of code without blanks, comments and docstrings.")
    parser.add_argument("folders", nargs="*", default=FOLDERS, metavar="FOLDER")
    for name in parser.parse_args().folders:
        rooms = count(ROOT / name)
        table = [*((f"{name}/{room}", lines) for room, lines in sorted(rooms.items())), (name, sum(rooms.values()))]
        sys.stdout.writelines(f"{room:24} {lines:6,}\n" for room, lines in table)


if __name__ == "__main__":
    main()
