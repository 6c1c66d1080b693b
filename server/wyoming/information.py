"""What the server tells of itself: each model is a program, the default one first, with its voices.

The protocol knows no keys, so that of the cloned voices only those are told that need none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from wyoming.event import Event
from wyoming.info import Attribution, Info, TtsProgram, TtsVoice

from server import __version__
from server.models.catalogue import Bundle, Bundles
from server.voices import languages
from server.voices.catalogue import own_voices_of
from server.voices.folder import VoiceFolder
from server.voices.profiles import Profile

QWEN = Attribution("Qwen team, Alibaba Cloud", "https://github.com/QwenLM/Qwen3-TTS")
UPLOADED = Attribution("Uploaded to this server", "")


class Information:
    """What is told, which is made anew when models or voices have changed: of 200 voices it takes 6 ms.

    Args:
        bundles: the models.
        profiles: the voice profiles, by id.
        kept: the cloned voices.
    """

    def __init__(self, bundles: Bundles, profiles: Mapping[str, Profile], kept: VoiceFolder) -> None:
        self._bundles, self._profiles, self._kept = bundles, profiles, kept
        self._of: object = None
        """What there was when `_event` was made."""
        self._event = Event("")
        self._making = asyncio.Lock()

    async def told(self) -> Event:
        """The event that describes the server."""
        await self._kept.look()
        async with self._making:
            there = (self._kept.changes, [(bundle.id, bundle.manifest_or_none) for bundle in self._bundles.all()])
            if there != self._of:
                self._event = await asyncio.to_thread(self._made)
                self._of = there
            return self._event

    def _made(self) -> Event:
        """Programs and voices, without the voices that are only other names of these."""
        able = (bundle for bundle in self._bundles.all() if bundle.manifest_or_none)
        return Info(tts=[_program(bundle, self._profiles, self._kept) for bundle in able]).event()


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
