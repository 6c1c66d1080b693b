"""The pages of `docs`: what is generated is what the code says, and the files that they name are there."""

from __future__ import annotations

import re
import runpy

from tests.sources import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_the_picture_is_what_the_imports_say() -> None:
    drawing = runpy.run_path(str(ROOT / "docs" / "draw_rooms.py"))
    assert drawing["draw"]() == drawing["PICTURE"].read_text("utf-8"), "draw it again: python docs/draw_rooms.py"


def test_a_request_passes_few_files_and_each_is_there() -> None:
    walk = PAGE[PAGE.index("## The walk of one request") : PAGE.index("## What may import what")]
    files = set(re.findall(r"`(server/[a-z_/]+\.py)`", walk))
    assert 10 < len(files) <= 25
    assert not [name for name in files if not (ROOT / name).is_file()]


def test_lines_of_code_are_counted_without_blanks_comments_and_documentation() -> None:
    counting = runpy.run_path(str(ROOT / "docs" / "count_lines.py"))
    source = """'Of a module.'

# a comment
X = (
    1,
)
'Of X.'
def f():
    'Of f.'
    return "two\\
lines"  # of code
"""
    assert counting["code_lines"](source) == 6


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    writing = runpy.run_path(str(ROOT / "docs" / "write_settings.py"))
    assert writing["write"]() == writing["PAGE"].read_text("utf-8"), "write it again: python docs/write_settings.py"
