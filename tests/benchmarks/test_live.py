"""The benchmark of text that arrives over time, on the fake engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.listener import (
    FRAME_SECONDS,
    REACTION_FRAMES,
    Gap,
    Listener,
    certain,
    frames_came,
    unit_came,
)
from benchmarks.live import (
    AT_ONCE,
    STALL_SECONDS,
    TEXT,
    Case,
    Heard,
    Message,
    as_if_learnt,
    main,
    paced,
    reckoned,
    table,
    third_word,
    tokens_of,
    verdicts,
)
from server.engine.tokenizer import TextTokenizer
from server.manifest import TOKENIZER, read_manifest
from server.text.gradual import Preparation
from server.text.lexicon import NO_LEXICON
from server.text.prepare import Prepared, Steps, prepare
from tests.bundles import TINY_BUNDLE
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, KEY, run_server


def test_tokens_come_at_their_pace() -> None:
    assert "".join(tokens_of(TEXT)) == TEXT
    even, bursts, stall = (paced(pace, 20) for pace in ("even", "bursts", "stall"))
    assert [at for at, _ in even[:3]] == [0, 0.05, 0.1]
    assert len({at for at, _ in bursts[:8]}) == 1
    assert stall[-1][0] == pytest.approx(even[-1][0] + STALL_SECONDS)
    assert paced(AT_ONCE, 20) == [(0.0, TEXT)]


def test_a_text_is_there_when_what_follows_shows_it() -> None:
    tokens = [(0.0, "One."), (1.0, " Tw"), (2.0, "o.")]
    assert unit_came(tokens, len("One.")) == 1.0
    assert unit_came(tokens, len("One.Two.")) == 2.0


def test_the_third_word_has_come_with_its_first_token() -> None:
    assert third_word([(0.0, "So"), (1.0, " it"), (2.0, " beg"), (3.0, "ins")]) == 2.0
    assert third_word([(0.0, "So"), (1.0, " it")]) == 1.0
    assert third_word([(0.5, "So it begins")]) == 0.5


WANTED = REACTION_FRAMES * FRAME_SECONDS


@pytest.mark.parametrize(
    ("came", "own"),
    [
        (0.0, 0.5),
        (1.2 - WANTED, 0.3),  # it might have come in time, and was wanted 0.2 s after the sound had run out
        (1.5 - WANTED, 0.0),
        (1.4, 0.0),
    ],
)
def test_a_gap_is_the_texts_as_far_as_sound_could_not_be_wanted_before(came: float, own: float) -> None:
    listener = Listener()
    listener.hear(0.5, 0.5, 0.0)
    listener.hear(1.5, 0.5, came)
    (gap,) = listener.gaps
    assert (gap.at, gap.seconds) == pytest.approx((1.0, 0.5))
    assert gap.own == pytest.approx(own)
    assert (listener.first, listener.end, listener.audio) == (0.5, 1.5, 1.0)


def test_sound_that_comes_before_it_is_played_leaves_no_gap() -> None:
    listener = Listener()
    for now in (0.5, 0.5, 0.9, 1.4, 2.0):
        listener.hear(now, 0.4, 0.0)
    assert not listener.gaps
    listener.hear(2.7, 0.4, 0.0)
    assert [gap.at for gap in listener.gaps] == pytest.approx([2.5])


def test_what_is_heard_of_sentences_is_reckoned_from_when_they_were_whole() -> None:
    sent = [(0.0, "One two"), (0.1, " three."), (0.2, " Four"), (3.0, " five.")]
    messages: list[Message] = [
        (0.5, {"type": "audio.start", "sentence_index": 0, "sentence_text": "One two three."}),
        (0.5, 0.08),
        (0.9, 1.0),
        (3.2, {"type": "audio.start", "sentence_index": 1, "sentence_text": "Four five."}),
        (3.3, 1.0),
        (3.3, {"type": "session.done"}),
    ]
    heard = reckoned(sent, messages, None)
    assert (heard.first, heard.end, heard.units) == (0.5, 3.3, 2)
    assert heard.after_third == pytest.approx(5)
    late, text = heard.gaps
    assert (late.seconds, late.own) == pytest.approx((0.32, 0.9 - (0.2 + WANTED))), "its text was there at 0.2"
    assert (text.seconds, text.own) == pytest.approx((1.4, 0)), "its text was there at 3.0"
    assert heard.own_gaps == [late]


def test_what_is_heard_of_tokens_is_reckoned_from_when_a_row_could_take_them() -> None:
    times = [0.0, 0.1, 0.2, 5.0, 5.0]
    messages: list[Message] = [(0.2, 0.08), (0.25, 0.08), (0.88, 0.08), (5.3, 0.08), (6.0, 0.08)]
    heard = reckoned([(0.0, "One")], messages, lambda sent: times)
    assert [round(gap.seconds, 3) for gap in heard.gaps] == [0.52, 4.34, 0.62]
    third, fourth, fifth = (gap.own for gap in heard.gaps)
    assert (third, fourth) == (0, 0), "the third frame takes the fourth token with it"
    assert fifth == pytest.approx(6.0 - (5.0 + WANTED))


def test_a_row_can_take_a_token_once_later_text_cannot_change_it() -> None:
    def prepared(text: str, begins_line: bool, ends_line: bool) -> Prepared:
        return prepare(text, ["english"], Steps(NO_LEXICON.apply, None, None))

    tokenizer = TextTokenizer(TINY_BUNDLE / TOKENIZER)
    preparation = Preparation(prepared, NO_LEXICON, False, "en")
    tokens = [(0.0, "One"), (1.0, " two"), (2.0, " three"), (3.0, " four.")]
    times = certain(tokenizer, preparation, tokens)
    assert len(times) == len(tokenizer.encode("One two three four.")) + 1
    assert times == sorted(times)
    assert times.count(2.0) == len(tokenizer.encode("One")), "two words have to have begun behind it"
    assert set(times) == {2.0, 3.0}
    assert frames_came(times, 0.0) == times[0]
    assert frames_came(times, 0.08) == times[1]
    assert frames_came(times, 100.0) == 3.0


def test_what_is_wanted_is_told_of_the_worst_case() -> None:
    def heard(first: float, *gaps: Gap) -> Heard:
        return Heard(first, 0.1, 3.0, gaps, 2.0, 1)

    none, ours, texts = heard(0.3), heard(0.3, Gap(1.0, 0.5, 0.2)), heard(0.3, Gap(1.0, 0.5, 0.0))
    cases: dict[Case, list[Heard]] = {
        ("none", AT_ONCE, 0.0): [heard(9.0, Gap(1.0, 9.0, 9.0))],
        ("sentence", "even", 20.0): [none, texts],
        ("token", "stall", 20.0): [heard(0.4), heard(0.58), heard(0.4)],
    }
    barge_ins = {("sentence", "cancel"): [(0.05, 4.0), (0.2, 1.0)]}
    lines = verdicts(cases, barge_ins).splitlines()[2:]
    assert [line.split(" | ")[-1] for line in lines] == ["yes |"] * 3
    assert "3.8 in the slowest case, token, stall, 20 tokens a second" in lines[0]
    assert "none in 5 utterances" in lines[1]
    assert "4 frames and 200 ms at most in 2" in lines[2]
    cases["sentence", "even", 20.0] += [ours, ours]
    cases["token", "stall", 20.0] = [heard(0.6)]
    barge_ins["sentence", "cancel"] += [(0.09, 2.0)]
    lines = verdicts(cases, barge_ins).splitlines()[2:]
    assert [line.split(" | ")[-1] for line in lines] == ["no |"] * 3
    assert "sentence, even, 20 tokens a second: 2 (0.40 s)" in lines[1]
    told = table(cases).splitlines()
    assert "| sentence | even, 20 tokens a second | 0.30 |" in told[3]
    assert "| 1 (0.50 s) | 2 (0.40 s) |" in told[3]


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "models", "custom", generation={"max_new_tokens": 20})
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.01"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        options = ["--url", server.url, "--key", KEY, "--rounds", "1", "--paces", "even", "--rates", "500"]
        main([*options, "--granularities", "sentence"])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    assert [row[:2] for row in rows[2:5]] == [
        ["none", "at once"],
        ["sentence", "at once"],
        ["sentence", "even, 500 tokens a second"],
    ]
    assert [row[-2:] for row in rows[2:5]] == [["1.60", "1"], ["6.40", "4"], ["6.40", "4"]]
    assert [row[0].split()[1] for row in rows[7:]] == ["first", "gap", "row"]
    found = re.findall(r"Barge-in by (\w+), (\w+): no row runs after \d+ ms and [\d.]+ frames", printed)
    assert found == [("cancel", "sentence"), ("close", "sentence")]


def test_a_model_that_has_not_learnt_it_is_measured_all_the_same(tmp_path: Path) -> None:
    copy = as_if_learnt(TINY_BUNDLE, tmp_path)
    assert (read_manifest(TINY_BUNDLE).whole_text, read_manifest(copy).whole_text) == (True, False)
    assert as_if_learnt(copy, tmp_path / "again") == copy
