"""What wyoming-openai sends for one spoken text: as_wyoming_openai.py BASE_URL KEY TEXT.

The requests are those of `src/wyoming_openai/compatibility.py` (how it finds out which server this is) and
`src/wyoming_openai/handler.py` (`_stream_tts_audio`) of github.com/roryeckel/wyoming_openai, version 0.8.0: the SDK's
own HTTP client, without a key, asks for three paths, and for the model's voices; then the text is asked for as a WAV
and read in pieces of 2048 bytes, of which the first must have a whole header; up to three sentences are asked for at
once.
"""

from __future__ import annotations

import asyncio
import io
import wave
from typing import Any

from openai import AsyncOpenAI, OpenAIError, omit
from seen import Server, report

PIECE_BYTES = 2048
MODEL = "tts-1"


async def backend(client: AsyncOpenAI) -> str:
    """Which server it takes this one for."""
    ready = await client._client.get("/readyz")
    if ready.is_success:
        return "LocalAI"
    if (health := await client._client.get("../../health")).is_success and health.text == "OK":
        return "Speaches"
    test = await client._client.get("/test")
    return "Kokoro-FastAPI" if test.is_success and test.json().get("status") == "ok" else "OpenAI"


async def voices_of(client: AsyncOpenAI, model: str) -> list[str]:
    """What it lists of a server that it takes for Speaches; it stops where this fails."""
    answer = await client._client.get(f"/models/{model}")
    answer.raise_for_status()
    return [voice["name"] for voice in answer.json()["voices"]]


async def speak(server: Server, client: AsyncOpenAI, text: str, voice: str, **settings: Any) -> dict[str, Any]:
    """One text; the format is read of the first piece."""
    create = client.audio.speech.with_streaming_response.create
    facts: dict[str, Any] = {"bytes": 0, "pieces": 0}
    fields = {"speed": omit, "instructions": omit, **settings}
    async with create(model=MODEL, voice=voice, input=text, response_format="wav", **fields) as response:
        async for piece in response.iter_bytes(chunk_size=PIECE_BYTES):
            if not facts["pieces"]:
                facts["first_while_speaking"] = await asyncio.to_thread(server.still_speaks)
                beginning = io.BytesIO(piece)
                with wave.open(beginning) as header:
                    facts["format"] = [header.getframerate(), header.getnchannels(), header.getsampwidth()]
                    facts["header_bytes"] = beginning.tell()
            facts["pieces"] += 1
            facts["bytes"] += len(piece)
    facts["audio_bytes"] = facts["bytes"] - facts["header_bytes"]
    return facts


async def converse(server: Server, text: str) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key=server.key, max_retries=0) as client:
        taken_for = await backend(client)
        listed = await voices_of(client, MODEL)
        whole = await speak(server, client, text, listed[0])
        sentences = [f"{sentence}." for sentence in text.removesuffix(".").split(". ")][:3]
        together = await asyncio.gather(*(speak(server, client, sentence, listed[-1]) for sentence in sentences))
        voices = [(await speak(server, client, "Hello.", voice))["audio_bytes"] for voice in listed]
        slower = await speak(server, client, text, listed[0], speed=0.8, instructions="Speak slowly.")
        try:
            await speak(server, client, text, "nobody")
            refused = ""
        except OpenAIError as error:
            refused = str(error)
    report(
        backend=taken_for, listed=listed, whole=whole, together=together, voices=voices, slower=slower, refused=refused
    )


if __name__ == "__main__":
    started = Server()
    asyncio.run(converse(started, started.rest[0]))
