"""LiveKit's `openai.TTS`: as_livekit.py BASE_URL KEY TEXT [OPTIONS [leave]].

OPTIONS is a JSON object of the plugin's options, which are its own defaults otherwise. With `leave` the listener leaves
at the first audio.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from livekit.agents import APIConnectOptions, APIError
from livekit.plugins import openai
from seen import Server, report


async def speak(server: Server, text: str, options: dict[str, Any], *, leave: bool) -> None:
    facts: dict[str, Any] = {"bytes": 0, "frames": 0, "formats": [], "first_while_speaking": False, "error": None}
    async with openai.TTS(base_url=server.base_url, api_key=server.key, **options) as tts:
        tts.prewarm()
        try:
            async with tts.synthesize(text, conn_options=APIConnectOptions(max_retry=0)) as stream:
                async for audio in stream:
                    if not facts["frames"]:
                        facts["first_while_speaking"] = await asyncio.to_thread(server.still_speaks)
                    facts["frames"] += 1
                    facts["bytes"] += len(audio.frame.data.cast("b"))
                    made = [audio.frame.sample_rate, audio.frame.num_channels]
                    if made not in facts["formats"]:
                        facts["formats"].append(made)
                    if leave:
                        break
        except APIError as error:
            facts["error"] = {
                "name": type(error).__name__,
                "text": error.message,
                "status": getattr(error, "status_code", None),
            }
    report(**facts)


if __name__ == "__main__":
    started = Server()
    said, *rest = started.rest
    asyncio.run(speak(started, said, json.loads(rest[0]) if rest else {}, leave="leave" in rest))
