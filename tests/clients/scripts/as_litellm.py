"""LiteLLM's speech call, with and without asyncio: as_litellm.py BASE_URL KEY TEXT."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
from seen import Server, report


def failure(**fields: Any) -> dict[str, Any]:
    """What a caller sees of a request that is refused."""
    try:
        litellm.speech(**fields)
    except Exception as error:
        return {"name": type(error).__name__, "status": getattr(error, "status_code", None), "text": str(error)}
    return {"name": "none"}


def speak(server: Server, text: str) -> None:
    fields: dict[str, Any] = {
        "model": "openai/tts-1",
        "voice": "alloy",
        "input": text,
        "api_base": server.base_url,
        "api_key": server.key,
        "max_retries": 0,
    }
    whole = litellm.speech(**fields)
    report(
        mp3={
            "type": whole.response.headers["content-type"],
            "head": whole.content[:3].hex(),
            "bytes": len(whole.content),
        },
        wav=litellm.speech(**fields, response_format="wav").content[:44].hex(),
        pcm_bytes=len(litellm.speech(**fields, response_format="pcm").content),
        async_pcm_bytes=len(asyncio.run(litellm.aspeech(**fields, response_format="pcm")).content),
        other_model_bytes=len(
            litellm.speech(**{**fields, "model": "openai/gpt-4o-mini-tts"}, response_format="pcm", speed=1).content
        ),
        unknown_voice=failure(**{**fields, "voice": "nobody"}),
        unknown_model=failure(**{**fields, "model": "openai/gpt-9"}),
        wrong_key=failure(**{**fields, "api_key": "wrong"}),
    )


if __name__ == "__main__":
    started = Server()
    speak(started, started.rest[0])
