"""How speech is to sound: the fields of a request over the profile of a voice, and these over the model's defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from server.audio.stretch import MAX_SPEED, MIN_SPEED
from server.engine.job import Sampling
from server.engine.prompt import Layout
from server.engine.reference import Reference
from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.speech.cloning import check_fit
from server.speech.request import SpeechRequest
from server.voices import catalogue as voices
from server.voices import languages
from server.voices.profiles import Profile, ProfileSampling
from server.voices.saved import SavedVoice

GREEDY_BELOW = 0.01
"""Lower temperatures are taken as 0: dividing by them may overflow, and they draw the likeliest code anyway."""
LEAST_TOP_P = 1e-6
"""Lower values are raised to this: as float32 they may become 0, which leaves no code to draw. The likeliest of some
thousand codes has a higher probability, so that it alone is left either way."""

_SAMPLING = set(ProfileSampling.model_fields)

Saved = Callable[[str], SavedVoice | None]
"""Finds the cloned voice of a name, if one is kept that who asks may speak with."""


@dataclass(frozen=True)
class Delivery:
    """How a part of speech is spoken.

    Attributes:
        speaker: a key of the manifest's speakers, or None where the model has none.
        language: a key of the manifest's languages, or `auto`.
        instruction: how to speak, None where there is none or the model follows none.
        sampling: how codes are drawn.
        speed: of the speech; silences keep their length.
        layout: whether the model is given a text whole or token by token; None leaves it to the model.
        reference: the cloned voice; None where the model speaks with its own.
    """

    speaker: str | None
    language: str
    instruction: str | None
    sampling: Sampling
    speed: float
    layout: Layout | None = None
    reference: Reference | None = None


def no_saved(name: str) -> SavedVoice | None:
    """Where no voices are kept."""
    return None


class Deliveries:
    """The deliveries of one request: that of its own voice, and those of the voices that its text names.

    Args:
        request: the request.
        manifest: the model's manifest.
        profiles: the voice profiles, by id.
        cloned: whether the request's own voice is a cloned one, which is not known yet.
        saved: finds the voices that are kept.

    Raises:
        InvalidRequestError: something in the request does not fit the model.
    """

    def __init__(
        self,
        request: SpeechRequest,
        manifest: Manifest,
        profiles: Mapping[str, Profile],
        *,
        cloned: bool = False,
        saved: Saved = no_saved,
    ) -> None:
        self._request, self._manifest, self._profiles, self._saved = request, manifest, profiles, saved
        self._instructed = bool(request.instructions)
        own = (
            voices.Choice(Profile(), stand_in=False)
            if cloned
            else voices.choose(request.voice_name, manifest, profiles)
        )
        self.own = self._of(own.profile)
        """How the request's own voice is spoken."""
        self.stand_in = own.stand_in and own.profile.speaker is not None
        """Whether the model lacks the speaker that this voice means, so that another one speaks."""

    @property
    def instruction_dropped(self) -> bool:
        """Whether a voice that has been asked for so far has an instruction, and the model does not follow any."""
        return self._instructed and not self._manifest.follows_instructions

    def named(self, name: str | None) -> Delivery:
        """How a voice is spoken that the text names; None is the request's own.

        Raises:
            InvalidRequestError: there is no such voice, or it does not fit the model.
        """
        if name is None:
            return self.own
        kept = self._saved(name)
        if kept is None:
            return self._of(voices.profile(name, self._manifest, self._profiles))
        check_fit(kept, self._manifest.id, self._manifest)
        return replace(self._of(Profile()), reference=kept.reference)

    def _of(self, profile: Profile) -> Delivery:
        request, manifest = self._request, self._manifest
        self._instructed = self._instructed or bool(profile.instruction)
        language = languages.resolve(request.language, manifest.languages)
        check_layout(request.layout, manifest, "layout", "leave layout out")
        instruction = request.instructions or profile.instruction
        return Delivery(
            speaker=profile.speaker,
            language=profile.language if language == languages.AUTO else language,
            instruction=instruction if manifest.follows_instructions else None,
            sampling=_sampling(request, profile.sampling, manifest),
            # The two are multiplied, because clients send a speed of 1 without being asked to.
            speed=min(max(request.speed * profile.speed, MIN_SPEED), MAX_SPEED),
            layout=request.layout,
        )


def check_layout(layout: Layout | None, manifest: Manifest, param: str, instead: str) -> None:
    """See that a model has learnt a layout.

    Args:
        layout: None is the model's own.
        manifest: the model's manifest.
        param: the field that asks for it.
        instead: what to do where it has not.

    Raises:
        InvalidRequestError: it has not.
    """
    if layout == "streaming" and manifest.whole_text:
        raise InvalidRequestError(
            f"the model {manifest.id} has not learnt to be given a text token by token while it speaks; {instead}, or "
            "another model",
            param=param,
        )


def _sampling(request: SpeechRequest, profile: ProfileSampling, manifest: Manifest) -> Sampling:
    """Take each value from the request, else from the profile, else from the model's defaults.

    What request and profile say holds for talker and code predictor alike.
    """
    defaults = manifest.generation
    own = Sampling.of(defaults)
    own = replace(
        own,
        temperature=own.temperature if defaults.do_sample else 0.0,
        predictor_temperature=own.predictor_temperature if defaults.subtalker_dosample else 0.0,
    )
    asked = {**profile.model_dump(exclude_none=True), **request.model_dump(include=_SAMPLING, exclude_none=True)}
    most = manifest.sizes.talker.vocab_size
    if asked.get("top_k", 0) > most:
        raise InvalidRequestError(f"top_k must be at most {most} for this model", param="top_k")
    alike = {f"predictor_{name}": value for name, value in asked.items() if name != "repetition_penalty"}
    wanted = replace(own, **asked, **alike)
    return replace(
        wanted,
        temperature=_temperature(wanted.temperature),
        top_p=max(wanted.top_p, LEAST_TOP_P),
        predictor_temperature=_temperature(wanted.predictor_temperature),
        predictor_top_p=max(wanted.predictor_top_p, LEAST_TOP_P),
    )


def _temperature(value: float) -> float:
    return value if value >= GREEDY_BELOW else 0.0
