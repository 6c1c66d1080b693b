"""The check on real weights: its sentences, its comparisons, and what its report says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.acceptance import RATE, Accepted, Sentence, Spoken, difference, report, sentences_of
from benchmarks.recogniser import error_rate
from server.manifest import Manifest
from server.voices import languages
from tests.server.fakes import manifest_of

AUDIO = np.zeros(2 * RATE, np.float32)


@pytest.mark.parametrize("language", languages.KNOWN)
def test_every_language_has_thirty_sentences_of_its_own(language: str) -> None:
    texts = sentences_of(language, 30)
    assert len(set(texts)) == 30
    assert all(text == text.strip() and text[-1] in ".?!。？！" for text in texts)


def test_a_language_without_sentences_is_passed_over() -> None:
    assert sentences_of("klingon", 30) == []


@pytest.mark.parametrize(
    ("said", "heard", "language", "rate"),
    [
        ("Der Zug fährt ab.", "der zug fahrt ab", "de", 1 / 4),
        ("今天早上下雨。", "今天早上下雪", "zh", 1 / 6),
        ("노래를 합니다.", "노래를합니다", "ko", 0.0),
        ("It costs $12.", "it costs twelve dollars", "en", 0.0),
    ],
)
def test_errors_are_counted_as_the_language_asks_for(said: str, heard: str, language: str, rate: float) -> None:
    assert error_rate([said], [heard], language) == pytest.approx(rate)


def test_codes_are_compared_until_they_part() -> None:
    codes = np.arange(40 * 16).reshape(40, 16)
    other = codes.copy()
    other[7, 3] += 1
    assert difference(codes, codes) == "all 640 codes equal"
    assert difference(other, codes) == "equal for 7 of 40 frames"
    assert difference(codes[:30], codes) == "equal for 30 frames, and then one ends: ours has 30, theirs 40"


def test_the_report_tells_of_failures_and_of_what_was_heard_worst() -> None:
    sentences = [
        Sentence("The cat sat down.", "ryan", AUDIO, "the cat sat down"),
        Sentence("Come here now.", "eric", AUDIO, "come hear now"),
        Sentence("Not spoken at all.", "ryan", None),
    ]
    spoken = Spoken("english", sentences, seconds=8.0, runaways=2, retries=1)
    good = Accepted(
        "int8", 12.0, 2 * 10**9, None, Manifest.model_validate(manifest_of("m")), ["english: all"], [spoken]
    )
    told = report("me/model", [good, Accepted("fp32", 3.0, 0, "the conversion ended with status 1")], "Whisper", 2, "")
    assert "| int8 | 12 | 2.0 |" in told
    assert "| fp32 | 3 |  |  |  | the conversion ended with status 1 |" in told
    assert "- int8: english: all" in told
    assert "| int8 | english | 3 | 45.5% | 1 | 2 | 1 | 4 | 2.00 |" in told
    worst = told.partition("### Heard worst")[2]
    assert "- Not spoken at all. → (nothing) (ryan)" in worst and "come hear now" in worst and "cat" not in worst
