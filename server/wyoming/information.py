"""What the server tells of itself: each model is a program, the default one first, with its voices.

The protocol knows no keys, so that of the cloned voices only those are told that need none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wyoming.info import Attribution, Info, TtsProgram, TtsVoice

from server import __version__
from server.models.catalogue import Bundle, Bundles
from server.voices import languages
from server.voices.catalogue import own_voices_of
from server.voices.folder import VoiceFolder
from server.voices.profiles import Profile

QWEN = Attribution("Qwen team, Alibaba Cloud", "https://github.com/QwenLM/Qwen3-TTS")
UPLOADED = Attribution("Uploaded to this server", "")


def information(bundles: Bundles, profiles: Mapping[str, Profile], kept: VoiceFolder) -> Info:
    """Programs and voices, without the voices that are only other names of these."""
    return Info(tts=[_program(bundle, profiles, kept) for bundle in bundles.all() if bundle.manifest_or_none])


def _program(bundle: Bundle, profiles: Mapping[str, Profile], kept: VoiceFolder) -> TtsProgram:
    manifest = bundle.manifest
    voices = [
        _voice(voice.id, voice.name, voice.description, voice.languages, QWEN)
        for voice in own_voices_of(manifest, profiles)
    ]
    voices += [
        _voice(saved.name, saved.name, saved.facts.description, manifest.languages, UPLOADED)
        for saved in kept.voices(None)
        if saved.fits(manifest)
    ]
    return TtsProgram(
        name=bundle.id,
        attribution=QWEN,
        installed=True,
        description=manifest.description,
        version=__version__,
        voices=voices,
        supports_synthesize_streaming=True,
    )


def _voice(name: str, title: str, description: str, spoken: Iterable[str], attribution: Attribution) -> TtsVoice:
    return TtsVoice(
        name=name,
        attribution=attribution,
        installed=True,
        description=f"{title}: {description}" if description else title,
        version=None,
        languages=[languages.code(language) or language for language in languages.spoken(spoken)],
    )
