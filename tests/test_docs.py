"""The pages: what is generated is what the code says, and what they link to and name is there."""

from __future__ import annotations

import ast
import json
import re
import runpy
import subprocess
from pathlib import Path

import pytest

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


def pages() -> list[Path]:
    """Every page of Markdown that is somebody's to read."""
    return sorted(
        path
        for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "deploy/**/*.md", "models/**/*.md")
        for path in ROOT.glob(pattern)
    )


def without_code(page: str) -> str:
    return re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name) if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text("utf-8")), target


def test_the_first_page_is_short_and_begins_with_two_commands() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 120
    assert [line.split("#")[0].strip() for line in lines[2:6]] == ["```sh", "make serve", "make test", "```"]


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_can_be_read(path: Path) -> None:
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if language == "python":
            compile(code, path.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        elif language == "json":
            json.loads(code)
        elif language in ("sh", "bash"):
            subprocess.run(["bash", "-n"], input=code, text=True, check=True)
