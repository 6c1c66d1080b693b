"""What there is to choose from: the models, and the voices that somebody may speak with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.errors import ModelFetchingError, ModelUnavailableError
from server.manifest import Manifest
from server.models.catalogue import Bundle, Bundles
from server.voices.catalogue import Voice, voices_of
from server.voices.folder import VoiceFolder
from server.voices.profiles import Profile
from server.voices.saved import SavedVoice


@dataclass(frozen=True)
class Listing:
    """The models and voices of a server, as they are at the moment of a call."""

    bundles: Bundles
    profiles: Mapping[str, Profile]
    """The voice profiles, by id."""
    kept: VoiceFolder
    """The cloned voices that are kept."""

    def models(self) -> list[Bundle]:
        """The bundles whose manifests can be read; a request for another one is told why it cannot be served."""
        return [bundle for bundle in self.bundles.all() if bundle.manifest_or_none]

    def voices(self, caller: str | None, model: str | None = None) -> tuple[list[Voice], list[SavedVoice]]:
        """The voices of a model, and those among them that are kept.

        Args:
            caller: digest of the key of who asks; None lists the kept voices that are everybody's.
            model: the name of a model; None takes the default one, and kept voices that any model speaks with.

        Raises:
            UnknownModelError: there is no such model.
            ModelUnavailableError, ModelFetchingError: the model has no manifest, or not yet.
        """
        none = model is None and not self.bundles.all()
        bundle = None if none else self.bundles.default() if model is None else self.bundles.resolve(model)
        voices = voices_of(bundle.manifest, self.profiles) if bundle else []
        able = [bundle] if model is not None and bundle else self.models()
        saved = []
        for voice in self.kept.voices(caller):
            if speaking := next((one.manifest for one in able if voice.fits(one.manifest)), None):
                voices.append(_as_voice(voice, speaking))
                saved.append(voice)
        return voices, saved

    def public_ids(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The ids of the models, and of the voices that everybody may use in a request that names no model.

        There are no such voices while the default model cannot be served.
        """
        models = tuple(bundle.id for bundle in self.models())
        try:
            voices, _ = self.voices(None)
        except (ModelUnavailableError, ModelFetchingError):
            voices = []
        return models, tuple(voice.id for voice in voices)


def _as_voice(voice: SavedVoice, manifest: Manifest) -> Voice:
    """A voice that is kept, among the others of a list, as a model speaks with it."""
    return Voice(
        id=voice.name,
        name=voice.name,
        description=voice.facts.description,
        languages=tuple(manifest.languages),
        instruction_used=manifest.follows_instructions,
    )
