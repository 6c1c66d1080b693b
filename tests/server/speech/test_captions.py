"""Which part of a request's text a caption has, for texts as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.manifest import Manifest
from server.speech.captions import Captions
from server.speech.pieces import VoicedChunk, pieces_of
from server.speech.plan import Plan, make_plan
from server.speech.request_parsing import build
from server.speech.timeline import TimedPiece, Timeline
from server.text import tags
from server.voices.profiles import Profile
from tests.server.fakes import manifest_of
from tests.server.speech.test_pieces import CountingEngine

PROFILES = {"anna": Profile(speaker="serena"), "max": Profile(speaker="ryan")}
ASCII = "".join(map(chr, range(32, 127)))


def planned(text: str, alphabet: str | None = None, **fields: Any) -> Plan:
    manifest = Manifest.model_validate(manifest_of("m", alphabet=alphabet))
    fields = {"timestamps": "sentence", "language": "english", **fields}
    return make_plan(build(model="m", input=text, voice="anna", **fields), manifest, PROFILES)


def captions_of(text: str, alphabet: str | None = None, **fields: Any) -> Captions:
    """The captions of a text of which each piece is heard for a second."""
    plan = planned(text, alphabet, **fields)
    timeline = Timeline(10)
    for number, piece in enumerate(pieces_of(plan, CountingEngine())):
        said = piece.chunk.text if isinstance(piece, VoicedChunk) else ""
        kind = "silence" if isinstance(piece, tags.Silence) else "speech"
        timeline.pieces.append(TimedPiece(kind, said, 10 * number, 10 * number + 10))
    assert plan.script is not None
    return Captions(plan.script, timeline)


def ranges(text: str, **fields: Any) -> list[str]:
    """What the ranges of the captions hold."""
    return [text[caption.start_char : caption.end_char] for caption in captions_of(text, **fields).all()]


def texts(text: str, **fields: Any) -> list[str]:
    return [caption.text for caption in captions_of(text, **fields).all()]


SENTENCES = ["It cost $1,234.50 on 3 March.", "“Really?!” she asked.", "Dr. Smith was born in 1984.", "😊 So was I."]


@pytest.mark.parametrize("alphabet", [None, ASCII])
@pytest.mark.parametrize("joint", [" ", "  \n ", "\n\n", "\r\n\r\n"])
def test_a_caption_is_a_sentence_as_it_was_written(joint: str, alphabet: str | None) -> None:
    text = f" {joint.join(SENTENCES)} \n"
    assert ranges(text, alphabet=alphabet) == SENTENCES
    assert texts(text, alphabet=alphabet) == SENTENCES


def test_tags_are_no_part_of_a_sentence_and_silences_have_their_own_range() -> None:
    text = "[1s] One. [0.5s] <break time='1s'/> [voice:max] Two is 2. Three. [voice:anna]Four. [pause]"
    shown = ["[1s]", "One.", "[0.5s] <break time='1s'/> [voice:max]", "Two is 2.", "Three.", "Four.", "[pause]"]
    assert ranges(text) == shown
    assert texts(text) == ["", "One.", "", "Two is 2.", "Three.", "Four.", ""]
    assert [caption.pause for caption in captions_of(text).all()] == [not part for part in texts(text)]


@pytest.mark.parametrize("format_of", ["plain", "markdown"])
def test_no_range_goes_beyond_a_tag_whatever_the_words_have_become(format_of: str) -> None:
    shown = ["See 5", "*so* it is.", "[1s]", "It is 3:30", "[1s]", "Line 5", "1984.", "[1s]", "12", "[0.5s]", "13"]
    text = " ".join([shown[0], "[voice:max]", *shown[1:6], "[voice:anna]", *shown[6:]])
    found = [part for part in ranges(text, alphabet=ASCII, text_format=format_of) if part]
    assert found == shown


def test_markup_is_in_the_range_and_not_in_the_text() -> None:
    text = "# The **first** part\n\nIt is [short](https://example.org/a/b). It ends.\n\n- An item\n- Another *one*\n"
    assert texts(text) == ["The first part", "It is short.", "It ends.", "An item", "Another one"]
    found = ranges(text)
    assert found[0].endswith("The **first** part")
    assert found[1:3] == ["It is [short](https://example.org/a/b).", "It ends."]
    assert [" ".join(part.split()) for part in found[3:]] == ["- An item", "- Another *one*"]


def test_html_too() -> None:
    text = "<p>One &amp; <b>two</b>.</p>\n<p>Three. Four.</p>"
    assert texts(text) == ["One & two.", "Three.", "Four."]
    assert ranges(text)[0].startswith("<p>One &amp; <b>two</b>.")


def test_wrapped_lines_are_one_line_of_a_caption() -> None:
    text = "It was late,\nand nobody\ncame.\nThe end."
    assert ranges(text) == ["It was late,\nand nobody\ncame.", "The end."]
    assert texts(text) == ["It was late, and nobody came.", "The end."]


def test_characters_are_code_points() -> None:
    assert ranges("😀😀 One. 😀 Two.") == ["😀😀 One.", "😀 Two."]


def test_chunks_cut_the_text_as_it_is_cut_without_times() -> None:
    text = "One is here. Two is here.\n\nThree is here. Four."
    assert texts(text, timestamps="chunk") == ["One is here. Two is here.", "Three is here. Four."]
    assert planned(text, timestamps=None).script is None
    cut, uncut = (list(pieces_of(planned(text, timestamps=unit), CountingEngine())) for unit in ("chunk", None))
    assert cut == uncut


def test_a_lexicon_changes_what_is_said_and_not_the_caption() -> None:
    text = "Qwen speaks. I heard Qwen."
    assert texts(text, lexicon={"Qwen": "the model that is called chwen"}) == ["Qwen speaks.", "I heard Qwen."]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Room 12", ["Room 12"]),
        ("It is late. 12", ["It is late.", "12"]),
        ("See it. 5 €", ["See it.", "5 €"]),
        ("1 [1s] 2", ["1", "[1s]", "2"]),
        ("Room 1 [1s]\n", ["Room 1", "[1s]"]),
        ("Line 555-1234 [voice:max] Line 555-1235", ["Line 555-1234", "Line 555-1235"]),
    ],
)
def test_the_last_caption_ends_with_the_text(text: str, shown: list[str]) -> None:
    """Also where the text ends with what is said in other words."""
    assert ranges(text, alphabet=ASCII) == shown
    assert texts(text, alphabet=ASCII) == ["" if part.startswith("[") else part for part in shown]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["1", "12", "one", "5 €", "[1s]", "[voice:max]", "  ", " ", "\n\n", ".", "“No!”", "😊"])),
    st.sampled_from([None, ASCII]),
)
def test_ranges_are_in_order(parts: list[str], alphabet: str | None) -> None:
    text = f"1{' '.join(parts)}"
    places = [0]
    for caption in captions_of(text, alphabet=alphabet).all():
        places += [caption.start_char, caption.end_char]
    assert places == sorted(places)
    assert places[-1] <= len(text)


def test_a_text_in_one_piece_has_one_caption() -> None:
    text = "One.\n\nTwo. Three."
    assert ranges(text, timestamps="chunk", exact_frames=5) == [text]


def test_each_piece_is_told_when_it_begins_and_when_it_has_ended() -> None:
    captions = captions_of("One. [1s] Two.")
    timeline = captions._timeline
    pieces, timeline.pieces[:] = list(timeline.pieces), []
    told: list[tuple[str, float, float | None]] = []
    for piece in pieces:
        end, piece.end = piece.end, None
        timeline.pieces.append(piece)
        told += [(caption.text, caption.start_time, caption.end_time) for caption in captions.due()]
        assert told[-1][1:] == (piece.start / 10, None)
        assert not list(captions.due())
        piece.end = end
    told += [(caption.text, caption.start_time, caption.end_time) for caption in captions.due()]
    assert told == [
        ("One.", 0.0, None),
        ("One.", 0.0, 1.0),
        ("", 1.0, None),
        ("", 1.0, 2.0),
        ("Two.", 2.0, None),
        ("Two.", 2.0, 3.0),
    ]
    assert [caption.told() for caption in captions.all()][1] == {
        "text": "", "start_char": 5, "end_char": 9, "start_time": 1.0, "end_time": 2.0, "pause": True,
    }  # fmt: skip
