"""wyoming-openai in front of the server, asked as Home Assistant would: as_wyoming_openai.py BASE_URL KEY TEXT."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process
from typing import Any

from seen import Server, report
from wyoming.audio import AudioChunk, AudioStart
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice

HOST = "127.0.0.1"
PATIENCE_SECONDS = 60


async def start(server: Server, port: int) -> Process:
    """The program, with one model that takes a text as it comes and one that does not."""
    settings = {
        "WYOMING_URI": f"tcp://{HOST}:{port}",
        "TTS_OPENAI_URL": server.base_url,
        "TTS_OPENAI_KEY": server.key,
        "TTS_MODELS": "tts-1",
        "TTS_STREAMING_MODELS": "gpt-4o-mini-tts",
    }
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "wyoming_openai", env={**os.environ, **settings})


async def connected(port: int) -> AsyncTcpClient:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            client = AsyncTcpClient(HOST, port)
            try:
                await client.connect()
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return client


async def next_event(client: AsyncTcpClient) -> Event:
    event = await client.read_event()
    assert event is not None
    if Error.is_type(event.type):
        raise RuntimeError(Error.from_event(event).text)
    return event


async def hear(client: AsyncTcpClient, until: str, server: Server) -> dict[str, Any]:
    facts: dict[str, Any] = {"bytes": 0, "formats": []}
    while (event := await next_event(client)).type != until:
        if AudioStart.is_type(event.type):
            start = AudioStart.from_event(event)
            facts["formats"].append([start.rate, start.channels, start.width])
        elif AudioChunk.is_type(event.type):
            if not facts["bytes"]:
                facts["first_while_speaking"] = await asyncio.to_thread(server.still_speaks)
            facts["bytes"] += len(AudioChunk.from_event(event).audio)
    return facts


async def converse(server: Server, text: str) -> None:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    program = await start(server, port)
    try:
        client = await connected(port)
        await client.write_event(Describe().event())
        info = Info.from_event(await next_event(client))
        streaming, whole = info.tts
        await client.write_event(Synthesize(text, voice=SynthesizeVoice(whole.voices[0].name)).event())
        said = await hear(client, "audio-stop", server)
        await client.write_event(SynthesizeStart(voice=SynthesizeVoice(streaming.voices[0].name)).event())
        for word in text.split():
            await client.write_event(SynthesizeChunk(f"{word} ").event())
        await client.write_event(SynthesizeStop().event())
        streamed = await hear(client, "synthesize-stopped", server)
        await client.disconnect()
    finally:
        program.terminate()
        await program.wait()
    report(
        voices={
            bool(program.supports_synthesize_streaming): [voice.name for voice in program.voices]
            for program in info.tts
        },
        languages=[voice.languages for program in info.tts for voice in program.voices],
        whole=said,
        streamed=streamed,
    )


if __name__ == "__main__":
    started = Server()
    asyncio.run(converse(started, started.rest[0]))
