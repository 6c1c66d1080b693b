"""URLs, addresses and names are read out; what only looks like them stays."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.locators import spoken_links, spoken_names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("See https://example.org/path/ now.", "See example dot org slash path now."),
        ("See https://www.example.org.", "See example dot org."),
        ("www.example.org, (http://a.example/b)", "example dot org, (a dot example slash b)"),
        ("https://example.org/a_(b)!", "example dot org slash a underscore b!"),
        ("HTTPS://Example.org/a-b?q=1&r=%C3%A9#top",
         "Example dot org slash a dash b question mark q equals 1 and r equals é hash top"),
        ("ftp://example.org:21/a.b", "example dot org colon 21 slash a dot b"),
        ("Write to ann.lee@mail.example.org.", "Write to ann dot lee at mail dot example dot org."),
        ("mailto:a_b@example.org", "a underscore b at example dot org"),
        ("https://", "https://"),
        ("me @ home, @ann, a@b", "me @ home, @ann, a@b"),
        ("either/or and report.pdf", "either/or and report.pdf"),
    ],
)  # fmt: skip
def test_links_are_read_out_in_english(text: str, said: str) -> None:
    assert spoken_links(text, "en") == said


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", "a Punkt example Schrägstrich b, c at a Punkt example"),
        ("fr", "a point example barre oblique b, c arobase a point example"),
        ("es", "a punto example barra b, c arroba a punto example"),
        ("it", "a punto example barra b, c chiocciola a punto example"),
        ("pt", "a ponto example barra b, c arroba a ponto example"),
        ("ru", "a точка example слэш b, c собака a точка example"),
        ("zh", "a 点 example 斜杠 b, c 艾特 a 点 example"),
        ("ja", "a ドット example スラッシュ b, c アットマーク a ドット example"),
        ("ko", "a 닷 example 슬래시 b, c 골뱅이 a 닷 example"),
        ("sw", "a.example/b, c@a.example"),
        (None, "a.example/b, c@a.example"),
    ],
)
def test_links_in_other_languages(language: str | None, said: str) -> None:
    assert spoken_links("https://a.example/b/, c@a.example", language) == said


def test_a_link_ends_where_unspaced_marks_begin() -> None:
    assert spoken_links("请看https://a.example/b。好", "zh") == "请看a 点 example 斜杠 b。好"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Open report.pdf, main.py and data_1.json.",
         "Open report dot P D F, main dot P Y and data underscore 1 dot json."),
        ("in /usr/local/bin now", "in slash user slash local slash bin now"),
        ("~/notes/a.txt", "tilde slash notes slash a dot T X T"),
        ("src/main.rs", "source slash main dot R S"),
        ("C:\\Users\\ann", "C colon backslash Users backslash ann"),
        ("Visit example.org/docs or sub.example.com.", "Visit example dot org slash docs or sub dot example dot com."),
        ("version 1.2.3 and v10.0.1-rc1", "version 1 point 2 point 3 and version 10 point 0 point 1 rc1"),
        ("at 192.168.0.10:8080, 10.0.0.0/8.", "at 192 dot 168 dot 0 dot 10 port 8080, 10 dot 0 dot 0 dot 0 slash 8."),
    ],
)  # fmt: skip
def test_names_of_hosts_and_files_are_read_out_in_english_alone(text: str, said: str) -> None:
    assert spoken_names(text, "en") == said
    assert spoken_names(text, "de") == text


@pytest.mark.parametrize(
    "text",
    [
        "either/or, and/or, he/she/they", "1/2 of 24/7, 3/4/2024", "5 km/h", "e.g. i.e. U.S. a.m.", "3.14 and 1,000.50",
        "on 01.02.2003 or 1.2.03", "Mr.Smith went.Then he", "a.b", "...", "/", "//", "Yes.No", "and so on...",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_name_stays(text: str) -> None:
    assert spoken_names(text, "en") == text


@given(st.text(), st.sampled_from(["en", "de", None]))
def test_no_letter_or_digit_of_other_text_is_lost(text: str, language: str | None) -> None:
    if "://" in text or "www." in text or "%" in text:
        return
    for step in (spoken_links, spoken_names):
        said = step(text, language)
        missing = set(re.findall(r"\w", text.lower())) - set(said.lower())
        assert missing <= {"_", "v"} or said == text
        assert step(said, language) == said


PATHOLOGICAL = [
    "a.", "a@", "a.b@", "1.", "/a", "a/", "https://", "www.", "https://a(", "https://)", "%", ".", "~/", "a-", "C:\\",
    "字", "@a.",
    "http://a.b ", "a@b.c ",
]  # fmt: skip


@pytest.mark.parametrize("piece", PATHOLOGICAL)
def test_a_very_long_text_is_linear_work(piece: str) -> None:
    text = (piece * (200_000 // len(piece) + 1))[:200_000]
    assert len(spoken_links(text, "en")) + len(spoken_names(text, "en")) <= 24 * len(text)
