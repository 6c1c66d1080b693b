"""The pages: what is generated is what the code says, and what they link to and name is there."""

from __future__ import annotations

import ast
import json
import re
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmarks import recorded
from server.audio.recording import BEST_SECONDS
from server.http.routes.speech import MAX_TIMES_CHARS
from server.http.stream_session import MAX_TEXT_CHARS
from server.speech.batch import MAX_ITEMS
from server.speech.cloning import MOST_WAITING
from server.speech.fields import MAX_LEXICON_ENTRIES
from server.speech.live_reading import SETTLE_SECONDS
from server.text.chunks import GOAL_TOKENS, MAX_TOKENS
from server.text.lexicon import MAX_SAY_CHARS, MAX_WORD_CHARS
from server.text.tags import MAX_SILENCE_SECONDS
from server.voices.saved import MAX_VOICE_BYTES
from tests.examples import ADDRESS, NOT_RUN, Example, examples, pages
from tests.sources import ROOT

SITE = runpy.run_path(str(ROOT / "docs" / "site_pages.py"))
ELSEWHERE = {"docs/serving/speech_api.md", "docs/OperatorKernels.md"}
"""Pages of other repositories that ours name."""
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


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (
            "api.md",
            f"at most {MAX_LEXICON_ENTRIES} words of {MAX_WORD_CHARS} characters, each with {MAX_SAY_CHARS} to say",
        ),
        ("api.md", f"at most {MAX_ITEMS} items."),
        ("api.md", f"together have at most {MAX_SILENCE_SECONDS} s:"),
        ("api.md", f"if that list has at most {MAX_TIMES_CHARS}"),
        ("api.md", f"A paragraph of up to {MAX_TOKENS} tokens"),
        ("api.md", f"cut into chunks of about {GOAL_TOKENS} tokens"),
        ("live.md", f"at most {MAX_TEXT_CHARS} characters a message"),
        ("live.md", f"in which it gets more than {GOAL_TOKENS} tokens"),
        ("live.md", f"no text has come for {SETTLE_SECONDS} s"),
        ("cloning.md", "{} to {} s of one person".format(*BEST_SECONDS)),
        ("cloning.md", f"if {MOST_WAITING} recordings are waiting"),
        ("cloning.md", f"of at most {MAX_VOICE_BYTES // 1000} KB"),
    ],
)
def test_the_pages_have_the_limits_of_the_code(page: str, says: str) -> None:
    assert says in (ROOT / "docs" / page).read_text("utf-8")


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    page = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(path: Path) -> None:
    for target in SITE["links"](path.read_text("utf-8")):
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


def test_every_page_can_be_reached_from_the_first() -> None:
    assert not set(pages()) - set(SITE["reachable"]())


def test_the_site_has_every_page_in_its_contents() -> None:
    """MkDocs says so too, where it is installed."""
    named = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == [path.relative_to(ROOT).as_posix() for path in pages()]


def test_whatever_the_repository_says_of_a_page_there_is_one() -> None:
    """Comments, messages and help name pages by their paths."""
    folders = ("server", "export", "tests", "benchmarks", "deploy", "docs", "models", ".ci", ".github")
    kinds = {".py", ".sh", ".yaml", ".yml", ".toml", ".js", ".html", ".service", ".conf"}
    texts = [*ROOT.glob("*.*"), ROOT / "Makefile", ROOT / "Dockerfile", ROOT / ".ci" / "run"]
    texts = [path for path in texts if path.is_file() and path.suffix in {*kinds, ""}]
    for folder in folders:
        texts += [path for path in (ROOT / folder).rglob("*") if path.suffix in kinds and path.is_file()]
    missing = {
        (path.relative_to(ROOT).as_posix(), page)
        for path in texts
        if not {"node_modules", "swagger", "__pycache__"} & set(path.parts)
        for page in re.findall(r"(?<![\w/])(?:docs|benchmarks)/[\w/]+\.md", path.read_text("utf-8"))
        if not (ROOT / page).is_file()
    }
    assert {page for _, page in missing} == ELSEWHERE, missing


def test_every_benchmark_that_somebody_runs_has_its_line() -> None:
    main = 'if __name__ == "__main__":'
    commands = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if main in path.read_text("utf-8")}
    told = re.findall(
        r"^\| `python -m benchmarks\.(\w+)", (ROOT / "benchmarks/README.md").read_text("utf-8"), re.MULTILINE
    )
    assert commands - set(told) == {"peer_speakers"}, "benchmarks.peers starts that one"


def test_what_is_made_from_the_recorded_figures_is_as_they_are() -> None:
    for path, text in recorded.made().items():
        assert path.read_text("utf-8") == text, "make it again: python -m benchmarks.plots"


def test_the_chart_has_every_figure_and_bars_as_long_as_these() -> None:
    panels, _ = recorded.read()
    for panel in panels:
        chart = recorded.draw([panel])
        bars = [float(width) for width in re.findall(r'width="([\d.]+)" height="20" fill="#\w+"/>', chart)]
        lows = [bar.low for bar in panel.bars]
        assert len(bars) == len(lows)
        for width, low in zip(bars, lows, strict=True):
            assert width / bars[0] == pytest.approx(low / lows[0], rel=0.02)
        for bar in panel.bars:
            assert f">{bar.name}<" in chart
            assert f">{bar.text()} {panel.unit}<" in chart
        assert panel.machine in chart
        assert panel.how in chart
        assert panel.forced in chart


def test_what_nobody_has_measured_is_said_to_be_so() -> None:
    row = recorded.Model("m", "int8", disk="", memory="1 GB", rtf="", official="", agreement="")
    shown = recorded.table_of_models([row]).splitlines()[-1]
    assert shown == "| m | int8 | not measured | 1 GB | not measured | not measured | not measured |"


def test_a_page_without_the_place_for_a_table_is_told() -> None:
    with pytest.raises(ValueError, match="<!-- models -->"):
        recorded.written_into("# A page", "models", "| a |")


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.page)
def test_examples_can_be_read(example: Example) -> None:
    if example.language == "python":
        compile(example.code, example.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    elif example.language == "json":
        json.loads(example.code)
    elif example.language == "yaml":
        yaml.safe_load(example.code)
    elif example.language == "sh":
        subprocess.run(["bash", "-n"], input=example.code, text=True, check=True)
    elif example.language == "nginx":  # the values are compared with those of `deploy/nginx.conf` in test_deploy
        assert all(re.fullmatch(r"\w+ [^;#]+; +# .+", line) for line in example.code.splitlines())
    else:
        assert example.language == "js", "say in what language it is, and run it"


def test_what_no_test_runs_is_there() -> None:
    """A reason for a command that no page has any more is to go."""
    commands = [command for example in examples() if example.language == "sh" for command in example.commands()]
    assert [begins for begins in NOT_RUN if not any(re.match(begins, command) for command in commands)] == []


def test_a_programs_example_speaks_to_the_server() -> None:
    """Else `tests/server/http/test_examples.py` and `tests/clients/test_snippets.py` would not run it."""
    for example in examples():
        assert example.language not in ("python", "js") or ADDRESS in example.code, example.page


def test_commands_are_told_apart() -> None:
    code = """make serve   # the server
echo "one # two" \\
  three
curl -d "{
  'a': 1}" -o x   # until here

export A=b
"""
    assert Example("p.md", "sh", code).commands() == [
        "make serve",
        'echo "one # two" \\\n  three',
        "curl -d \"{\n  'a': 1}\" -o x",
        "export A=b",
    ]
