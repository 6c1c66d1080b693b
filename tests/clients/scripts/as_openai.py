"""OpenAI's Python SDK as its documentation shows it: as_openai.py BASE_URL KEY TEXT."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
from seen import Server, report

FIELDS: dict[str, Any] = {"model": "gpt-4o-mini-tts", "voice": "coral", "instructions": "Speak in a cheerful tone."}


def streamed(server: Server, client: openai.OpenAI, text: str) -> dict[str, Any]:
    """PCM as it comes."""
    create = client.audio.speech.with_streaming_response.create
    facts: dict[str, Any] = {"bytes": 0, "parts": 0}
    with create(**FIELDS, input=text, response_format="pcm") as response:
        for part in response.iter_bytes():
            if not facts["parts"]:
                facts["first_while_speaking"] = server.still_speaks()
            facts["parts"] += 1
            facts["bytes"] += len(part)
    return facts


def events(client: openai.OpenAI, text: str) -> dict[str, Any]:
    """The same as server-sent events."""
    create = client.audio.speech.with_streaming_response.create
    with create(**FIELDS, input=text, response_format="pcm", stream_format="sse") as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    *deltas, done = map(json.loads, lines)
    return {
        "bytes": sum(len(base64.b64decode(delta["audio"])) for delta in deltas),
        "types": sorted({delta["type"] for delta in deltas}),
        "last": done["type"],
        "usage": sorted(done["usage"]),
    }


def refused(client: openai.OpenAI, **fields: Any) -> dict[str, Any]:
    """What a caller sees of a request that is refused."""
    try:
        client.audio.speech.create(**{**FIELDS, "input": "Hello.", **fields})
    except openai.APIStatusError as error:
        return {"name": type(error).__name__, "status": error.status_code, "text": error.message}
    return {"name": "none"}


def speak(server: Server, text: str) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key=server.key, max_retries=0) as client:
        report(
            streamed=streamed(server, client, text),
            events=events(client, text),
            mp3_head=client.audio.speech.create(**FIELDS, input=text).content[:3].hex(),
            unknown_voice=refused(client, voice="nobody"),
            unknown_model=refused(client, model="gpt-9"),
            wrong_key=refused(client.with_options(api_key="wrong")),
        )


if __name__ == "__main__":
    started = Server()
    speak(started, started.rest[0])
