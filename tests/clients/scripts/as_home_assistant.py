"""Home Assistant's Wyoming integration: as_home_assistant.py BASE_URL KEY URI TEXT.

Its own classes find out what the server is and has, as when it is added under Devices & services, and ask for speech:
of a whole text, and of one that comes word by word, as a conversation agent's does.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
import types
import wave
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

from seen import Server, report

# Both listen to a microphone, which nobody does here, and are C++ without a wheel for every Python.
for name in ("pymicro_vad", "pyspeex_noise"):
    unused = types.ModuleType(name)
    unused.__getattr__ = lambda wanted: type(wanted, (), {})
    sys.modules[name] = unused

from homeassistant.components.tts import TTSAudioRequest  # noqa: E402
from homeassistant.components.wyoming.coordinator import WyomingInfoCoordinator  # noqa: E402
from homeassistant.components.wyoming.data import WyomingService  # noqa: E402
from homeassistant.components.wyoming.tts import WyomingTtsProvider  # noqa: E402
from homeassistant.config_entries import SOURCE_USER, ConfigEntry  # noqa: E402
from homeassistant.core import HomeAssistant  # noqa: E402
from homeassistant.exceptions import HomeAssistantError  # noqa: E402
from homeassistant.helpers import frame  # noqa: E402


async def added(hass: HomeAssistant, host: str, port: int) -> WyomingTtsProvider:
    """The entity that there is once the server has been added."""
    service = await WyomingService.create(host, port)
    assert service is not None
    entry: ConfigEntry[Any] = ConfigEntry(
        data={"host": host, "port": port},
        discovery_keys=types.MappingProxyType({}),
        domain="wyoming",
        minor_version=1,
        options=None,
        source=SOURCE_USER,
        subentries_data=None,
        title=service.get_name() or "",
        unique_id=None,
        version=1,
    )
    coordinator = WyomingInfoCoordinator(hass, entry, host, port)
    await coordinator.async_refresh()
    provider = WyomingTtsProvider(entry, coordinator, service)
    provider.hass = hass
    return provider


def samples_of(file: bytes) -> dict[str, Any]:
    with wave.open(io.BytesIO(file)) as audio:
        form = [audio.getframerate(), audio.getnchannels(), audio.getsampwidth()]
        return {"format": form, "bytes": len(audio.readframes(audio.getnframes()))}


async def streamed(provider: WyomingTtsProvider, server: Server, text: str, options: dict[str, Any]) -> dict[str, Any]:
    """A text that comes word by word; the first part of the answer is a header without a length."""
    facts: dict[str, Any] = {"bytes": 0, "parts": 0}
    written: list[str] = []

    async def words() -> AsyncGenerator[str]:
        for word in text.split():
            written.append(word)
            yield f"{word} "
            await asyncio.sleep(0.1)

    answer = await provider.async_stream_tts_audio(TTSAudioRequest("en", options, words()))
    header = await anext(answer.data_gen)
    facts["format"] = samples_of(header)["format"]
    async for part in answer.data_gen:
        if not facts["parts"]:
            facts["first_while_written"] = len(written) < len(text.split())
        facts["parts"] += 1
        facts["bytes"] += len(part)
    return facts


async def refused(provider: WyomingTtsProvider, voice: str) -> str:
    try:
        await provider.async_get_tts_audio("Hello.", "en", {"voice": voice})
    except HomeAssistantError as error:
        return str((error.translation_placeholders or {}).get("error"))
    return ""


async def speak(server: Server, uri: str, text: str) -> None:
    address = urlsplit(uri)
    with tempfile.TemporaryDirectory() as folder:
        hass = HomeAssistant(folder)
        frame.async_setup(hass)
        provider = await added(hass, str(address.hostname), int(address.port or 0))
        voices = provider.async_get_supported_voices("en") or []
        options = {"voice": voices[0].voice_id}
        extension, file = await provider.async_get_tts_audio(text, "en", options)
        report(
            name=provider.name,
            languages=provider.supported_languages,
            voices=[[voice.voice_id, voice.name] for voice in voices],
            takes_words=provider.async_supports_streaming_input(),
            extension=extension,
            whole=samples_of(file),
            streamed=await streamed(provider, server, text, options),
            refused=await refused(provider, "nobody"),
        )
        await hass.async_stop(force=True)


if __name__ == "__main__":
    started = Server()
    asyncio.run(speak(started, *started.rest))
