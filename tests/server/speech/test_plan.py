"""What a request asks of a model: sampling that leaves a code to draw, text that can be said, voices in it."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server import log
from server.engine.sampling import RowSampler
from server.errors import InvalidRequestError
from server.manifest import Manifest, read_manifest
from server.models.pool import Lease
from server.models.pool_entry import SpeechEngine
from server.speech.live_plan import check_live, make_live_plan
from server.speech.plan import Passage, Plan, make_plan
from server.speech.request_parsing import build
from server.speech.service import SpeechService
from server.text.lexicon import lexicon_of
from server.voices.profiles import Profile, ProfileSampling
from tests.bundles import TINY_BUNDLE
from tests.host_draw import draw_code_0
from tests.server.fakes import manifest_of
from tests.server.text.written import CLEAN

TINY = (5e-324, 1e-300, 1e-46)
"""The first is the smallest number above 0; all are 0 as float32."""


@pytest.mark.parametrize("source", ["request", "profile", "manifest"])
@pytest.mark.parametrize(
    "sampling",
    [
        *({"top_p": value} for value in TINY),
        *({"temperature": value} for value in TINY),
        *({"temperature": value, "top_p": value} for value in TINY),
        {"temperature": 0.0, "top_p": 1e-300},
        {"top_k": 1, "repetition_penalty": 1.0},
    ],
)
@pytest.mark.filterwarnings("error")
def test_the_least_values_draw_the_likeliest_code(source: str, sampling: dict[str, float]) -> None:
    generation: dict[str, Any] = {}
    if source == "manifest":
        generation = sampling | {f"subtalker_{k}": v for k, v in sampling.items() if k != "repetition_penalty"}
    manifest = Manifest.model_validate(manifest_of("m", generation=generation))
    request = build(model="m", input="Hello", voice="mine", **(sampling if source == "request" else {}))
    own = ProfileSampling.model_validate(sampling if source == "profile" else {})
    planned = make_plan(request, manifest, {"mine": Profile(speaker="ryan", sampling=own)}).delivery.sampling
    assert np.float32(planned.predictor_top_p) > 0
    logits = np.linspace(-1, 1, manifest.sizes.talker.vocab_size, dtype=np.float32)
    logits[7] = 2
    sampler = RowSampler(planned, 1, manifest)
    drawn = {draw_code_0(sampler, logits, sampler.uniforms()[0], end=manifest.ids.codec_eos) for _ in range(20)}
    assert drawn == {7}


MANIFEST = Manifest.model_validate(manifest_of("m", follows_instructions=True))
PROFILES = {
    "slow": Profile(speaker="serena", language="german", instruction="Slowly.", speed=0.5),
    "plain": Profile(speaker="ryan"),
}


def planned(text: str, manifest: Manifest = MANIFEST, **fields: Any) -> Plan:
    return make_plan(build(model="m", input=text, **{"voice": "plain", **fields}), manifest, PROFILES)


NOTHING = ["...", "—", "*", "()", "###", "😊", "\u200b", "\ufeff", "ㅤ", "* * *", "-----", "\u3000。"]
TAGGED = [
    "[0s]",
    "[0.00001s]",
    "[0s] [0s]",
    "[0s] ...",
    "[pause:0.0s]",
    '<break time="0ms"/>',
    '<break strength="none"/>',
]


@pytest.mark.parametrize("text", [*NOTHING, *TAGGED, *(f"[0s]{text}[voice:slow]{text}" for text in NOTHING)])
@pytest.mark.parametrize("frames", [None, 5])
def test_nothing_to_say_is_one_error(text: str, frames: int | None) -> None:
    with pytest.raises(InvalidRequestError, match="nothing to speak") as caught:
        planned(text, exact_frames=frames)
    assert caught.value.param == "input"


@pytest.mark.parametrize("text", ["Привет, мир!", "नमस्ते", "Hi [1s] Привет, мир!", "مرحبا بالعالم"])
def test_letters_that_no_language_of_the_model_writes(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="it speaks chinese, english, german") as caught:
        planned(text)
    assert caught.value.param == "input"


@pytest.mark.parametrize("text", ["We met in Москва last май.", "你好", "12:30", "Hello, my friends! [1s] Привет"])
def test_letters_that_are_few_or_known(text: str) -> None:
    assert planned(text).parts


def test_each_part_is_prepared() -> None:
    made = planned("\ufeff wrapped\r\nlines [pause 1s]... <break/>\n\nOne.\n\n\n\nTwo. ")
    assert [part.text if isinstance(part, Passage) else float(part.seconds) for part in made.parts] == [
        "wrapped lines",
        1.75,
        "One.\n\nTwo.",
    ]
    assert made.text_changes == ("invisibles", "blanks", "lines")
    assert made.text_notes == ()


def test_a_voice_in_the_text_brings_all_of_its_profile() -> None:
    made = planned("One. [voice:Slow] Two. [voice:serena]Three.", speed=2)
    first, second, third = [part.delivery for part in made.parts if isinstance(part, Passage)]
    assert first == made.delivery
    assert (first.speaker, first.language, first.instruction, first.speed) == ("ryan", "auto", None, 2)
    assert (second.speaker, second.language, second.instruction, second.speed) == ("serena", "german", "Slowly.", 1)
    assert (third.speaker, third.instruction) == ("serena", None)
    loud = planned("One. [voice:slow] Two.", instructions="Shout.", language="en", temperature=0.3)
    for part in loud.parts:
        assert isinstance(part, Passage)
        assert (part.delivery.instruction, part.delivery.language) == ("Shout.", "english")
        assert part.delivery.sampling.temperature == 0.3


def test_an_instruction_of_a_voice_in_the_text_may_be_dropped_too() -> None:
    deaf = Manifest.model_validate(manifest_of("m"))
    assert not planned("One.", deaf).instruction_dropped
    assert planned("One. [voice:slow]Two.", deaf).instruction_dropped


def test_an_unknown_voice_is_the_same_error_in_the_text() -> None:
    with pytest.raises(InvalidRequestError) as named:
        planned("Hello", voice="nobody")
    with pytest.raises(InvalidRequestError) as tagged:
        planned("Hello [voice:nobody] you")
    assert (tagged.value.message, tagged.value.param) == (named.value.message, named.value.param)


def test_the_log_says_what_preparation_changed_and_not_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(patient: bool) -> SpeechEngine:
        raise LookupError("no engine is needed here")

    def lease(bundle: object) -> Lease:
        return Lease(wait, lambda: None)

    bundles = SimpleNamespace(resolve=lambda model: SimpleNamespace(manifest=MANIFEST))
    service = SpeechService(SimpleNamespace(bundles=bundles, lease=lease), PROFILES, 1000)  # type: ignore[arg-type]
    request = build(model="m", input="\ufeffSecret\nwords [1s]again", voice="plain")
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(log, "event", lambda name, **fields: told.append((name, fields)))
    with pytest.raises(LookupError):
        asyncio.run(service.start(request))
    fields = {"level": logging.DEBUG, "chars": 23, "parts": 3, "changed": "invisibles,blanks,lines", "notes": None}
    assert told == [("text_prepared", fields)]


TINY = read_manifest(TINY_BUNDLE)


def said(text: str, manifest: Manifest = TINY, **fields: Any) -> str:
    parts = make_plan(build(model="m", input=text, **fields), manifest, {}).parts
    return " | ".join(part.text for part in parts if isinstance(part, Passage))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("This is **very** important.", "This is very important."),
        ("It isn’t “here”.", 'It isn\'t "here".'),
        ("See https://example.org/a/ for more.", "See example dot org slash a for more."),
        ("Tom &amp; Jerry <b>run</b>.", "Tom and Jerry run."),
    ],
)
def test_a_text_goes_through_all_its_steps(text: str, expected: str) -> None:
    assert said(text) == expected


def test_the_format_of_a_text_can_be_said() -> None:
    raw = TINY.model_copy(update={"alphabet": None})
    text = "Tom <b>runs</b> to **us**."
    assert said(text, raw, text_format="plain") == text
    assert said(text, raw, text_format="html") == "Tom runs to **us**."
    assert said(text, raw, text_format="markdown") == said(text, raw) == "Tom runs to us."


@pytest.mark.parametrize("text", CLEAN.values(), ids=CLEAN.keys())
def test_a_clean_text_reaches_a_model_without_an_alphabet_as_it_is(text: str) -> None:
    everything = MANIFEST.model_copy(update={"languages": {"english": 1, "one that is unknown here": 2}})
    parts = make_plan(build(model="m", input=text, voice="plain"), everything, PROFILES).parts
    assert [part.text for part in parts if isinstance(part, Passage)] == [text]


def test_what_is_dropped_is_told_and_what_is_folded_is_not() -> None:
    told = make_plan(build(model="m", input="Hi 東 there, José."), TINY, {})
    assert told.text_notes == ("dropped U+6771",)
    assert "alphabet" in told.text_changes


def test_the_requests_lexicon_goes_before_the_operators() -> None:
    operators = lexicon_of({"nginx": "engine x", "SQL": "sequel"})
    request = build(model="m", input="nginx and SQL", lexicon={"SQL": "S Q L"})
    parts = make_plan(request, TINY, {}, operators).parts
    assert [part.text for part in parts if isinstance(part, Passage)] == ["Engine x and S Q L."]


def test_a_requests_lexicon_may_ask_for_any_case() -> None:
    lexicon = {"sql": {"say": "sequel", "any_case": True}, "nginx": "engine x"}
    raw = TINY.model_copy(update={"alphabet": None})
    assert said("SQL and Sql, nginx and NGINX.", raw, lexicon=lexicon) == "sequel and sequel, engine x and NGINX."


def test_a_lexicon_that_blows_a_text_up_is_told() -> None:
    with pytest.raises(InvalidRequestError) as found:
        said("a " * 2000, lexicon={"a": "b" * 500})
    assert found.value.param == "lexicon"


def test_a_model_that_has_learnt_whole_texts_alone_is_given_no_other() -> None:
    request = build(model="m", input="Hello")
    manifest = read_manifest(TINY_BUNDLE)
    assert manifest.whole_text
    for plan in (check_live, lambda request, manifest: make_live_plan(request, manifest, {})):
        with pytest.raises(InvalidRequestError, match="choose sentence or clause") as refused:
            plan(request, manifest)
        assert refused.value.param == "split_granularity"
    with pytest.raises(InvalidRequestError, match="leave layout out"):
        make_plan(build(model="m", input="Hello", layout="streaming"), manifest, {})
    other = manifest.model_copy(update={"whole_text": False})
    assert make_live_plan(request, other, {}).plan.delivery.layout == "streaming"
    assert make_plan(build(model="m", input="Hello", layout="streaming"), other, {}).delivery.layout == "streaming"


@pytest.mark.parametrize("text_format", ["markdown", "html"])
def test_markup_that_is_asked_for_needs_a_whole_text(text_format: str) -> None:
    manifest = Manifest.model_validate(manifest_of("m"))
    with pytest.raises(InvalidRequestError, match="choose sentence") as refused:
        check_live(build(model="m", input="Hello", text_format=text_format), manifest)
    assert refused.value.param == "text_format"
