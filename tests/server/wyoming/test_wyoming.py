"""Home Assistant's protocol, with the package's own client, over the fake engine."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from server.engine.reference import Reference
from server.models.catalogue import Bundles, find
from server.voices.folder import VoiceFolder
from server.voices.saved import Facts, SavedVoice, Sizes
from server.wyoming import information as module
from server.wyoming.conversation import MOST_WAITING
from server.wyoming.events import EVENT_BYTES
from server.wyoming.information import Information
from server.wyoming.server import SERVICE, WyomingServer, announce
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, PATIENCE_SECONDS, RunningServer, run_server, wait_until

FRAME_BYTES = 3840
SHORT = {"generation": {"max_new_tokens": 2}}
LONG = {"generation": {"max_new_tokens": 2000}}


def uri_of(server: RunningServer) -> str:
    def find() -> str | None:
        return next(
            (found[1] for line in server.log if (found := re.search(r" wyoming_listening uri=(\S+)", line))), None
        )

    return str(wait_until(find, "Wyoming is listened for"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Both protocols, on a model whose speech is short and one whose speech is long."""
    scratch = tmp_path_factory.mktemp("wyoming")
    write_bundle(scratch / "models", "custom", **SHORT)
    write_bundle(scratch / "models", "endless", **LONG)
    settings = {"KW_WYOMING_URI": "tcp://127.0.0.1:0", "KW_SOCKET_IDLE_SECONDS": "5", "KW_MAX_INPUT_CHARS": "300"}
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(scratch / "models"), FAKE_FRAME_SECONDS="0.005", **settings) as it:
        it.wait_ready()
        yield it


Talk = Callable[[AsyncClient], Awaitable[None]]


def talk(server: RunningServer, conversation: Talk) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), AsyncClient.from_uri(uri_of(server)) as client:
            await conversation(client)

    asyncio.run(bounded())


async def tell(client: AsyncClient, *events: Eventable) -> None:
    for event in events:
        await client.write_event(event.event())


async def hear(client: AsyncClient, last: type[Any] = AudioStop) -> list[Event]:
    """Events up to one of this type, or to the end of the connection."""
    events: list[Event] = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if last.is_type(event.type):
            break
    return events


def audio_of(events: list[Event]) -> bytes:
    return b"".join(event.payload or b"" for event in events)


def test_it_describes_itself(server: RunningServer) -> None:
    async def conversation(client: AsyncClient) -> None:
        await tell(client, Describe(), Ping(text="x"))
        info = Info.from_event((await hear(client, Info))[-1])
        assert [program.name for program in info.tts] == ["custom", "endless"]
        program = info.tts[0]
        assert program.supports_synthesize_streaming and program.installed
        voices = {voice.name: voice for voice in program.voices}
        assert {"serena", "ryan", "serena_meditation"} <= set(voices)
        assert not {"alloy", "af_heart"} & set(voices)
        assert voices["ryan"].languages == ["zh", "en", "de"]
        assert Pong.from_event((await hear(client, Pong))[-1]).text == "x"

    talk(server, conversation)


def test_what_it_tells_is_made_once_and_anew_when_something_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made for each event, on the event loop: 6 ms of 200 voices, and 9 ms while their folder changed."""
    write_bundle(tmp_path / "models", "base", model_type="base")
    (tmp_path / "voices").mkdir()
    kept = VoiceFolder(tmp_path / "voices")
    information = Information(Bundles(find(tmp_path / "models"), None), {}, kept)
    made: list[bool] = []
    program = module._program

    def note(*arguments: Any) -> Any:
        made.append(threading.current_thread() is threading.main_thread())
        return program(*arguments)

    monkeypatch.setattr(module, "_program", note)

    async def names() -> list[str]:
        return [voice.name for voice in Info.from_event(await information.told()).tts[0].voices]

    async def test() -> None:
        assert await asyncio.gather(*(names() for _ in range(5))) == [[]] * 5
        assert len(made) == 1
        facts = Facts(name="anna", text=None, created=1, model="base", sizes=Sizes(hidden=4, groups=16, codebook=2048))
        kept.add(SavedVoice(facts, Reference(np.ones(4, np.float32), None, None)))
        assert await names() == ["anna"]
        kept.remove("anna", None)
        assert await names() == []
        assert len(made) == 3

    asyncio.run(test())
    assert not any(made), "the event loop's thread makes nothing"


def test_half_a_character_is_replaced(server: RunningServer) -> None:
    async def conversation(client: AsyncClient) -> None:
        assert client._writer is not None
        client._writer.write(rb'{"type": "ping", "data": {"text": "\ud800"}}' + b"\n")
        assert Pong.from_event((await hear(client, Pong))[-1]).text == "\ufffd"
        client._writer.write(rb'{"type": "synthesize", "data": {"text": "One \ud800."}}' + b"\n")
        assert len(audio_of(await hear(client))) == 2 * FRAME_BYTES

    talk(server, conversation)


def test_cloned_voices_that_need_no_key(tmp_path: Path) -> None:
    """They are listed with the models that can speak with them, and spoken with wherever the model is left open."""
    kept = VoiceFolder(tmp_path / "voices")
    (tmp_path / "voices").mkdir()
    sizes = Sizes(hidden=4, groups=16, codebook=2048)
    owned: dict[str, dict[str, Any]] = {
        "mine": {"owner": "me"},
        "ours": {"owner": "me", "shared": True},
        "all": {},
    }
    for name, facts in owned.items():
        about = Facts(name=name, text="Said.", created=1, model="base", sizes=sizes, description="warm", **facts)
        kept.add(SavedVoice(about, Reference(np.ones(4, np.float32), np.ones((5, 16), np.int64), "Said.")))
    write_bundle(tmp_path / "models", "custom", **SHORT)
    write_bundle(tmp_path / "models", "base", model_type="base", **SHORT)

    async def conversation(client: AsyncClient) -> None:
        await tell(client, Describe())
        info = Info.from_event((await hear(client, Info))[-1])
        told = {program.name: {voice.name: voice for voice in program.voices} for program in info.tts}
        assert set(told["base"]) == {"all", "ours"}
        assert not {"all", "ours"} & set(told["custom"])
        assert told["base"]["ours"].description == "ours: warm"
        assert told["base"]["ours"].languages == ["zh", "en", "de"]
        for name in ("ours", "all"):
            await tell(client, Synthesize("Hello.", voice=SynthesizeVoice(name=name)))
            assert len(audio_of(await hear(client))) == 2 * FRAME_BYTES
            assert it.events("prompt")[-1]["cloned"]["text"] == "Said."
        await tell(client, Synthesize("Hello.", voice=SynthesizeVoice(name="mine")))
        refused = Error.from_event((await hear(client, Error))[-1])
        assert "voice" in refused.text

    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_VOICES_DIR": str(tmp_path / "voices")}
    with run_server(FAKE, tmp_path, KW_WYOMING_URI="tcp://127.0.0.1:0", **settings) as it:
        it.wait_ready()
        talk(it, conversation)


def test_a_text(server: RunningServer) -> None:
    async def conversation(client: AsyncClient) -> None:
        for voice in (None, SynthesizeVoice(name="ryan"), SynthesizeVoice(language="de")):
            await tell(client, Synthesize("One. Two.", voice=voice))
            start, *chunks, stop = await hear(client)
            assert AudioStart.from_event(start) == AudioStart(24000, 2, 1, timestamp=0)
            assert all(AudioChunk.is_type(chunk.type) for chunk in chunks)
            assert len(audio_of(chunks)) == 2 * FRAME_BYTES
            assert AudioStop.from_event(stop).timestamp == 160

    talk(server, conversation)
    spoken = [event for event in server.events("prompt") if event["speaker"] == "ryan"]
    assert spoken and server.events("prompt")[-1]["language"] == "german"


def test_a_text_that_arrives_while_it_is_spoken(server: RunningServer) -> None:
    async def conversation(client: AsyncClient) -> None:
        await tell(client, SynthesizeStart(), SynthesizeChunk("The first one. The"))
        heard = [await client.read_event(), await client.read_event()]  # before the text has ended
        assert [AudioStart.is_type(heard[0].type), AudioChunk.is_type(heard[1].type)] == [True, True]
        await tell(client, SynthesizeChunk(" second"), Synthesize("The first one. The second"), SynthesizeStop())
        rest = await hear(client, SynthesizeStopped)
        assert [AudioStop.is_type(rest[-2].type), SynthesizeStopped.is_type(rest[-1].type)] == [True, True]
        assert not any(AudioStart.is_type(event.type) for event in rest)
        assert len(audio_of([*heard, *rest])) == 2 * 2 * FRAME_BYTES
        await tell(client, SynthesizeStart(), SynthesizeStop())
        assert [event.type for event in await hear(client, SynthesizeStopped)] == [
            *("audio-start", "audio-stop"),
            "synthesize-stopped",
        ]

    talk(server, conversation)


def test_leaving_frees_the_row(server: RunningServer) -> None:
    before = len(server.events("dropped"))

    async def conversation(client: AsyncClient) -> None:
        await tell(client, SelectProgram("endless"), SynthesizeStart(), SynthesizeChunk("One. Two"))
        await hear(client, AudioStart)

    talk(server, conversation)
    wait_until(lambda: len(server.events("dropped")) > before, "the row is free")
    wait_until(lambda: any("stream=wyoming" in line and "outcome=stopped" in line for line in server.log), "it is told")


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([Synthesize("Hello.", voice=SynthesizeVoice(name="nobody"))], "voices are"),
        ([Synthesize("Hello.", voice=SynthesizeVoice(language="tlh"))], "english"),
        ([Synthesize("x" * 301)], "300 characters"),
        ([SelectProgram("nothing")], "no such model"),
        ([SelectProgram("x" * 257)], "name must have at most 256 characters"),
        ([SynthesizeStart(voice=SynthesizeVoice(name="nobody"))], "voices are"),
        ([Synthesize("fail-at-start")], "could not be made"),
    ],
)
def test_what_is_wrong_is_said(server: RunningServer, events: list[Eventable], words: str) -> None:
    async def conversation(client: AsyncClient) -> None:
        await tell(client, *events)
        (error,) = await hear(client, Error)
        assert words in Error.from_event(error).text
        if Synthesize.is_type(events[0].event().type):
            assert [event.type for event in await hear(client)] == ["audio-start", "audio-stop"]
        if SynthesizeStart.is_type(events[0].event().type):
            # The text that this voice cannot speak, as servers that know no chunks would hear it, is no other text.
            await tell(client, SynthesizeChunk("One. Two."), Synthesize("One. Two."), SynthesizeStop())
            assert [event.type for event in await hear(client, SynthesizeStopped)] == ["synthesize-stopped"]
        await tell(client, Synthesize("Hello."))
        assert len(audio_of(await hear(client))) == 2 * FRAME_BYTES

    talk(server, conversation)


def test_of_too_many_texts_each_is_answered_in_its_turn(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom", **SHORT)
    gate = tmp_path / "gate"
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_WYOMING_URI": "tcp://127.0.0.1:0"}
    in_chunks: list[Eventable] = [SynthesizeStart(), SynthesizeChunk("One. Two."), SynthesizeStop()]

    async def conversation(client: AsyncClient) -> None:
        await tell(client, *(Synthesize("Hello.") for _ in range(MOST_WAITING)), *in_chunks, Synthesize("Hello."))
        await tell(client, Ping())
        assert [event.type for event in await hear(client, Pong)] == ["pong"], "all have been taken, and none is heard"
        gate.touch()
        for _ in range(MOST_WAITING):
            kinds = [event.type for event in await hear(client) if not AudioChunk.is_type(event.type)]
            assert kinds == ["audio-start", "audio-stop"]
        refused = await hear(client)
        kinds = [event.type for event in refused]
        assert kinds == ["error", "synthesize-stopped", "error", "audio-start", "audio-stop"]
        assert "have not been heard" in Error.from_event(refused[0]).text
        await tell(client, Synthesize("Hello."))
        assert len(audio_of(await hear(client))) == 2 * FRAME_BYTES, "it may go on"

    with run_server(FAKE, tmp_path, FAKE_GATE=str(gate), **settings) as server:
        talk(server, conversation)


def test_who_sends_texts_without_end_is_put_out(server: RunningServer) -> None:
    async def conversation(client: AsyncClient) -> None:
        await tell(client, SelectProgram("endless"), *(Synthesize("Hello.") for _ in range(2 * MOST_WAITING + 1)))
        heard = await hear(client, Error)
        assert "have not been heard" in Error.from_event(heard[-1]).text
        assert not any(Error.is_type(event.type) for event in await hear(client)), "the connection has ended"

    talk(server, conversation)


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\n",
        b"[]\n",
        b'{"type": 1}\n',
        b"[" * 100_000 + b"\n",
        b'{"type": "describe", "data_length": -1}\n',
        b'{"type": "describe", "data_length": 99999999}\n',
        b'{"type": "describe", "payload_length": 99999999}\n',
        b"x" * (2 * EVENT_BYTES),
    ],
)
def test_what_is_no_event_ends_the_connection(server: RunningServer, sent: bytes) -> None:
    host, port = uri_of(server).removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as connection:
        try:
            connection.sendall(sent)
            received = b""
            while more := connection.recv(65536):
                received += more
            assert b'"error"' in received
        except ConnectionError:  # it was closed before all was sent
            pass
    with server.client() as client:
        assert server.complaints(client) == []


def test_alone_and_stopping(tmp_path: Path) -> None:
    """Without HTTP; what is spoken is heard to its end, an idle connection is closed, and zeroconf is not asked for."""
    write_bundle(tmp_path / "models", "custom", generation={"max_new_tokens": 40})
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_WYOMING_URI": "tcp://127.0.0.1:0"}
    settings |= {"FAKE_FRAME_SECONDS": "0.02", "KW_DRAIN_SECONDS": "50"}
    with run_server((*FAKE, "wyoming"), tmp_path, **settings) as server:

        async def conversation(client: AsyncClient) -> None:
            async with AsyncClient.from_uri(uri_of(server)) as idle:
                await tell(client, Synthesize("Hello."))
                heard = await hear(client, AudioStart)
                stopping = asyncio.create_task(asyncio.to_thread(server.stop))
                assert await idle.read_event() is None
                heard += await hear(client)
                assert len(audio_of(heard)) == 40 * FRAME_BYTES
                assert await client.read_event() is None
                if sys.platform != "win32":
                    assert await stopping == 0

        talk(server, conversation)
        assert not any("announced=" in line or "not_announced" in line for line in server.log)


def test_the_network_is_told() -> None:
    async def look() -> None:
        found: asyncio.Queue[str] = asyncio.Queue()

        def changed(zeroconf: Any, service_type: str, name: str, state_change: ServiceStateChange) -> None:
            if state_change is ServiceStateChange.Added:
                found.put_nowait(name)

        loopback = ["127.0.0.1"]
        announcement = await announce(["192.0.2.7"], 10200, loopback)
        listener = AsyncZeroconf(interfaces=loopback)
        browser = AsyncServiceBrowser(listener.zeroconf, SERVICE, handlers=[changed])
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (name := await found.get()).startswith("qwen3-tts-edge-"):
                    pass
                info = await listener.async_get_service_info(SERVICE, name)
            assert info is not None
            assert (info.port, info.parsed_addresses()) == (10200, ["192.0.2.7"])
        finally:
            await browser.async_cancel()
            await listener.async_close()
            await announcement.async_close()

    asyncio.run(look())


def test_a_text_that_fails_while_it_arrives_is_over(server: RunningServer) -> None:
    async def conversation(client: AsyncClient) -> None:
        await tell(client, SynthesizeStart(), SynthesizeChunk("The first one. fail-at-start\n\nThe"))
        heard = await hear(client, SynthesizeStopped)
        kinds = [event.type for event in heard if not AudioChunk.is_type(event.type)]
        assert kinds == ["audio-start", "error", "audio-stop", "synthesize-stopped"]
        await tell(client, SynthesizeChunk(" rest. Of it."), Synthesize("The whole. Text."), SynthesizeStop(), Ping())
        assert [event.type for event in await hear(client, Pong)] == ["pong"]
        await tell(client, Synthesize("Hello."))
        start, *chunks, _ = await hear(client)
        assert AudioStart.is_type(start.type)
        assert len(audio_of(chunks)) == 2 * FRAME_BYTES

    talk(server, conversation)


def open_sockets(server: RunningServer) -> int:
    port = int(uri_of(server).rpartition(":")[2])
    found = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(connection.laddr.port == port and bool(connection.raddr) for connection in found)


def test_clients_that_take_nothing_are_put_out(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_WYOMING_URI": "tcp://127.0.0.1:0"}
    with run_server((*FAKE, "wyoming"), tmp_path, KW_REQUEST_TIMEOUT="1", **settings) as server:
        host, port = uri_of(server).removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port)), 0.5) as connection:
            with suppress(TimeoutError, ConnectionError):  # the server does not read on, or has put this client out
                connection.sendall(b'{"type": "describe"}\n' * 20_000)
            wait_until(lambda: open_sockets(server) == 0, "the connection is gone")


def test_a_conversation_that_is_over_waits_for_its_client_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Over:
        def __init__(self, doors: object, name: str, reader: object, writer: asyncio.StreamWriter) -> None:
            self._writer = writer
            writers.append(writer)

        async def run(self) -> None:
            self._writer.write(bytes(20_000_000))

    writers: list[asyncio.StreamWriter] = []
    monkeypatch.setattr("server.wyoming.server.Conversation", Over)
    monkeypatch.setattr("server.wyoming.server.CLOSING_SECONDS", 0.1)
    doors: Any = SimpleNamespace(limits=SimpleNamespace(connections=1))

    async def work() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = WyomingServer(doors, [listener], announce=False)
        await server.start()
        with socket.create_connection(listener.getsockname()):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not writers or writers[0].transport.get_write_buffer_size():
                    await asyncio.sleep(0.01)
            await server.stop(0, asyncio.Event())

    asyncio.run(work())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at the first signal of another one")
def test_a_second_signal_ends_the_drain(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom", **LONG)
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_WYOMING_URI": "tcp://127.0.0.1:0"}
    settings |= {"FAKE_FRAME_SECONDS": "0.05", "KW_DRAIN_SECONDS": "3000"}
    for program in (FAKE, (*FAKE, "wyoming")):
        with run_server(program, tmp_path, **settings) as server:

            async def conversation(client: AsyncClient, server: RunningServer = server) -> None:
                await tell(client, Synthesize("Hello."))
                await hear(client, AudioStart)
                server.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(wait_until, lambda: any(" draining " in line for line in server.log), "drain")
                assert await asyncio.to_thread(server.stop) == 0

            talk(server, conversation)


def test_waiting_for_a_row_is_not_idle_and_halves_of_events_are_kept(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom", **SHORT)
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_WYOMING_URI": "tcp://127.0.0.1:0"}
    settings |= {"FAKE_FRAME_SECONDS": "1.5", "KW_SOCKET_IDLE_SECONDS": "0.5"}
    with run_server((*FAKE, "wyoming"), tmp_path, **settings) as server:

        async def conversation(client: AsyncClient) -> None:
            async with AsyncClient.from_uri(uri_of(server)) as other:
                await tell(other, Synthesize("Hello."))
                await asyncio.to_thread(server.wait_event, "submitted")
                await tell(client, SynthesizeStart(), SynthesizeChunk("The first one. The"))
                await asyncio.sleep(1)
                assert client._writer is not None
                client._writer.write(b'{"type": "synthesize-chunk", "data_length": 18}\n')
                await asyncio.sleep(1)
                client._writer.write(b'{"text":" second"}')
                await tell(client, SynthesizeStop())
                assert len(audio_of(await hear(client, SynthesizeStopped))) == 2 * 2 * FRAME_BYTES
                assert len(audio_of(await hear(other))) == 2 * FRAME_BYTES

        talk(server, conversation)
