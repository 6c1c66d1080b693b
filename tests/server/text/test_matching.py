"""Regular expressions over long texts: the same as `sub`, while other threads go on and without a heap of strings."""

from __future__ import annotations

import ast
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from server.text import matching
from server.text.chunks import chunks
from server.text.clean import short_runs, single_blanks, without_invisibles
from server.text.lexicon import lexicon_of
from server.text.matching import found_in, matches, replace

LONG = 100_000
MEGABYTE = 1 << 20


@pytest.fixture
def turns_of_others() -> Iterator[Callable[[], int]]:
    """How often another thread has had the interpreter's lock, which nobody is made to let go of here."""
    turns, stop = 0, threading.Event()

    def take() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += 1
            time.sleep(0)  # lets go of the lock

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield lambda: turns
    finally:
        stop.set()
        sys.setswitchinterval(usual)
        thread.join()


UNMET = regex.compile(r"[xyz]{2,}(?<=q)")
"""Matches nothing."""
SEARCHES: dict[str, Callable[[str], object]] = {
    "matches": lambda text: list(matches(UNMET, text)),
    "found_in": lambda text: found_in(UNMET, text),
    "replace": lambda text: replace(UNMET, "", text),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_other_threads_go_on_while_it_searches(
    search: Callable[[str], object], turns_of_others: Callable[[], int]
) -> None:
    text = "a" * 30 * LONG
    before = turns_of_others()
    search(text)
    assert turns_of_others() > before


@given(st.text("ab \n", max_size=40), st.text("xy", max_size=3))
def test_it_replaces_as_sub_does(text: str, by: str) -> None:
    for pattern in (regex.compile(r"a+"), regex.compile(r" \n ?|\n "), regex.compile(r"[b\n]")):
        assert replace(pattern, by, text) == pattern.sub(by, text)
        assert replace(pattern, lambda found: found[0] * 2, text) == pattern.sub(r"\g<0>\g<0>", text)


def test_very_many_matches_are_replaced_in_order() -> None:
    numbers = range(10 * matching._JOINED_AT)
    text = " ".join(str(number) for number in numbers)
    expected = " ".join(f"<{number}>" for number in numbers)
    assert replace(regex.compile(r"\d+"), lambda found: f"<{found[0]}>", text) == expected


def peak(work: Callable[[], object]) -> int:
    """The most bytes of Python's objects during some work, beyond those before it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


WIDE = "\U0001f469"
WORKS: dict[str, Callable[[], object]] = {
    "replace": lambda: replace(regex.compile(WIDE), "\u4eca", f"{WIDE}." * (LONG // 2)),
    "invisibles": lambda: without_invisibles(f"{WIDE}\u200d" * (LONG // 2)),
    "blanks": lambda: single_blanks(f"{WIDE}\t" * (LONG // 2)),
    "runs": lambda: short_runs(f"{WIDE * 4}a" * (LONG // 5)),
    "lexicon": lambda: lexicon_of({"x": "y"}).apply("\u4eca" * LONG),
    "chunks": lambda: next(chunks("e\u0301" * (LONG // 2), None, len)),
}


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_it_holds_no_object_for_each_match(work: Callable[[], object]) -> None:
    """A text of 100,000 wide characters takes 0.4 MB; an object for each would take 8 MB and more."""
    assert peak(work) < 3 * MEGABYTE


WHOLE = ("clean", "html_text", "markup_marks", "speakable", "tags")
"""Modules that are given texts of any length and look through all of them."""
SEARCHING = {"finditer", "findall", "search", "split", "sub", "subn"}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_texts_are_searched_by_these_functions_alone(name: str) -> None:
    """Or with `concurrent=True`: other searches keep all threads waiting."""
    path = Path(matching.__file__).with_name(f"{name}.py")
    others = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SEARCHING
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id.startswith("_")
        and not any(keyword.arg == "concurrent" for keyword in node.keywords)
    ]
    assert others == []
