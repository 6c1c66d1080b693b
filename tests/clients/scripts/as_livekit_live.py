"""LiveKit's `baseten.TTS(model="qwen3-tts")`: as_livekit_live.py BASE_URL KEY TEXT OPTIONS [leave].

The text is pushed word by word, twice on one socket. OPTIONS is a JSON object of the plugin's options. With `leave` the
listener leaves at the first audio.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from livekit.agents import APIConnectOptions, APIError
from livekit.plugins import baseten
from seen import Server, report


async def turn(tts: baseten.TTS, text: str, *, leave: bool) -> dict[str, Any]:
    """One turn of an agent."""
    facts: dict[str, Any] = {"bytes": 0, "frames": 0, "formats": [], "error": None}
    try:
        async with tts.stream(conn_options=APIConnectOptions(max_retry=0)) as stream:

            async def push() -> None:
                for word in text.split():
                    stream.push_text(f"{word} ")
                    await asyncio.sleep(0.01)
                stream.end_input()

            pushing = asyncio.create_task(push())
            async for audio in stream:
                facts["frames"] += 1
                facts["bytes"] += len(audio.frame.data.cast("b"))
                made = [audio.frame.sample_rate, audio.frame.num_channels]
                if made not in facts["formats"]:
                    facts["formats"].append(made)
                if leave:
                    break
            pushing.cancel()
    except APIError as error:
        facts["error"] = {"name": type(error).__name__, "text": error.message}
    return facts


async def speak(server: Server, text: str, options: dict[str, Any], *, leave: bool) -> None:
    async with aiohttp.ClientSession() as session:
        tts = baseten.TTS(
            model="qwen3-tts",
            model_endpoint=server.base_url.replace("http", "ws", 1) + "/audio/speech/stream",
            api_key=server.key,
            task_type="CustomVoice",
            http_session=session,
            **options,
        )
        turns = [await turn(tts, text, leave=leave) for _ in range(1 if leave else 2)]
        backend = tts._qwen3
        alive = None if backend._warm is None else await backend._empty_flush(backend._warm.ws)
        await tts.aclose()
    report(turns=turns, alive=alive)


if __name__ == "__main__":
    started = Server()
    said, options, *rest = started.rest
    asyncio.run(speak(started, said, json.loads(options), leave="leave" in rest))
