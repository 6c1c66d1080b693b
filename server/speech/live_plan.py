"""Plans the speech of a text that arrives over time and is given to the model token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from server.engine.reference import Reference
from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.speech.delivery import Deliveries, Delivery, Saved, check_layout, no_saved
from server.speech.plan import Plan, seed_of
from server.speech.request import SpeechRequest
from server.speech.wording import Wording
from server.text.gradual import Preparation
from server.text.lexicon import NO_LEXICON, Lexicon
from server.text.prepare import Prepared
from server.voices import languages
from server.voices.profiles import Profile


class LivePlan(NamedTuple):
    """How a text is to be spoken that arrives over time.

    Attributes:
        plan: has no parts.
        voiced: the delivery and the preparation of what a voice says, None being that of the request; it raises
            `InvalidRequestError` for a name that is none.
    """

    plan: Plan
    voiced: Callable[[str | None], tuple[Delivery, Preparation]]

    def spoken_by(self, reference: Reference) -> LivePlan:
        """The same plan, with the voice that the request brings along, once it is known."""

        def voiced(name: str | None) -> tuple[Delivery, Preparation]:
            delivery, preparation = self.voiced(name)
            return replace(delivery, reference=reference) if name is None else delivery, preparation

        return LivePlan(self.plan.spoken_by(reference), voiced)


def make_live_plan(
    request: SpeechRequest,
    manifest: Manifest,
    profiles: Mapping[str, Profile],
    lexicon: Lexicon = NO_LEXICON,
    *,
    cloned: bool = False,
    saved: Saved = no_saved,
) -> LivePlan:
    """Plan the speech of a text that arrives over time; the request's `input` counts for nothing.

    Arguments and errors are those of `make_plan`.
    """
    check_live(request, manifest)
    deliveries = Deliveries(request, manifest, profiles, cloned=cloned, saved=saved)
    wording = Wording(request, manifest, lexicon)

    def voiced(name: str | None) -> tuple[Delivery, Preparation]:
        delivery = replace(deliveries.named(name), layout="streaming")

        def prepared(text: str, begins_line: bool, ends_line: bool) -> Prepared:
            return wording.prepared(text, delivery.language, begins_line=begins_line, ends_line=ends_line)

        language = languages.code(delivery.language)
        return delivery, Preparation(prepared, wording.lexicon, manifest.alphabet is not None, language)

    plan = Plan(
        parts=(),
        delivery=voiced(None)[0],
        stand_in=deliveries.stand_in,
        instruction_dropped=deliveries.instruction_dropped,
        seed=seed_of(request),
        exact_frames=request.exact_frames,
        most_frames=request.max_new_tokens,
        trim_start=request.trim_start,
    )
    return LivePlan(plan, voiced)


def check_live(request: SpeechRequest, manifest: Manifest) -> None:
    """Check whether a text of this request may be given to the model token by token, as it comes.

    Raises:
        InvalidRequestError: it may not.
    """
    if request.text_format not in ("auto", "plain"):
        raise InvalidRequestError(
            f"text_format {request.text_format} needs a sentence to be there before it is spoken; with "
            "split_granularity token send plain text, or choose sentence",
            param="text_format",
        )
    check_layout("streaming", manifest, "split_granularity", "choose sentence or clause")
