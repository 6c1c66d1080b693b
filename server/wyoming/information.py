"""What the server tells of itself: each model is a program, the default one first, with its voices."""

from __future__ import annotations

from collections.abc import Mapping

from wyoming.info import Attribution, Info, TtsProgram, TtsVoice

from server import __version__
from server.models.catalogue import Bundle, Bundles
from server.voices import languages
from server.voices.catalogue import own_voices_of
from server.voices.profiles import Profile

QWEN = Attribution("Qwen team, Alibaba Cloud", "https://github.com/QwenLM/Qwen3-TTS")


def information(bundles: Bundles, profiles: Mapping[str, Profile]) -> Info:
    """Programs and voices, without the voices that are only other names of these."""
    return Info(tts=[_program(bundle, profiles) for bundle in bundles.all() if bundle.manifest_or_none])


def _program(bundle: Bundle, profiles: Mapping[str, Profile]) -> TtsProgram:
    voices = [
        TtsVoice(
            name=voice.id,
            attribution=QWEN,
            installed=True,
            description=f"{voice.name}: {voice.description}" if voice.description else voice.name,
            version=None,
            languages=[languages.code(language) or language for language in languages.spoken(voice.languages)],
        )
        for voice in own_voices_of(bundle.manifest, profiles)
    ]
    return TtsProgram(
        name=bundle.id,
        attribution=QWEN,
        installed=True,
        description=bundle.manifest.description,
        version=__version__,
        voices=voices,
        supports_synthesize_streaming=True,
    )
