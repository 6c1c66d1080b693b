"""Files of captions, read again by FFmpeg."""

from __future__ import annotations

import io
import re

import av
import pytest

from server.text.subtitles import FORMATS, LINE_CHARS, Cue

CUES = [
    Cue(0.0, 1.2345, "Hello."),
    Cue(1.2345, 59.9996, "It's more -->\n\n than that."),
    Cue(59.9996, 61.0, f"A {'long ' * 20}sentence."),
    Cue(3600.0, 363_600.5, "1"),
]


def read(ending: str, cues: list[Cue]) -> list[tuple[float, float, str]]:
    """Start, end and text of each caption of a file, as FFmpeg reads them."""
    file = io.BytesIO(FORMATS[ending](cues).encode())
    with av.open(file, format={".srt": "srt", ".vtt": "webvtt"}[ending]) as container:
        stream = container.streams.subtitles[0]
        found = []
        for packet in container.demux(stream):
            if packet.pts is None or packet.duration is None:
                continue
            start, length = (float(time * packet.time_base) for time in (packet.pts, packet.duration))
            texts = [subtitle.dialogue.decode() for subtitle in packet.decode() for subtitle in [subtitle]]
            found.append((start, start + length, texts[0]))
    return found


@pytest.mark.parametrize("ending", FORMATS)
def test_another_program_reads_the_same(ending: str) -> None:
    found = read(ending, CUES)
    assert [(start, end) for start, end, _ in found] == [
        pytest.approx((0.0, 1.234)),
        pytest.approx((1.234, 60.0)),
        pytest.approx((60.0, 61.0)),
        pytest.approx((3600.0, 363_600.5)),
    ]
    arrow = {".srt": "->", ".vtt": "-->"}[ending]
    assert [text for *_, text in found][:2] == ["Hello.", f"It's more {arrow} than that."]
    lines = re.split(r"\\N|\n", found[2][2])
    assert " ".join(lines) == CUES[2].text
    assert len(lines) == 2
    assert abs(len(lines[0]) - len(lines[1])) < LINE_CHARS // 4


def test_what_looks_like_markup_is_text_in_webvtt() -> None:
    text = "<b>Fish</b> & chips &amp; <c.red>"
    file = FORMATS[".vtt"]([Cue(0, 1, text)])
    assert "&lt;b&gt;Fish&lt;/b&gt; &amp; chips &amp;amp; &lt;c.red&gt;" in file
    assert read(".vtt", [Cue(0, 1, "Fish & chips < meat")])[0][2] == "Fish & chips < meat"


@pytest.mark.parametrize("ending", FORMATS)
def test_no_text_breaks_the_file(ending: str) -> None:
    texts = ["\n\nOne\n\n\nTwo", "00:00:01.000 --> 00:00:02.000", "7", "WEBVTT", "NOTE so", "a" * 500, "  b  "]
    found = read(ending, [Cue(number, number + 1, text) for number, text in enumerate(texts)])
    assert [round(start) for start, *_ in found] == list(range(len(texts)))


@pytest.mark.parametrize("ending", FORMATS)
def test_no_captions_are_a_file_too(ending: str) -> None:
    assert FORMATS[ending]([]) == {".srt": "", ".vtt": "WEBVTT\n"}[ending]
