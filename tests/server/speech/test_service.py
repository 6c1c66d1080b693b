"""What comes before what when a request is started: its place, then the preparation of its text, then the model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NoReturn, cast

import pytest

from server.audio.encoders import PcmEncoder
from server.audio.formats import Encoder
from server.engine.manner import CloneError
from server.errors import ApiError, BusyError, InvalidRequestError
from server.manifest import Manifest
from server.models.pool import Lease
from server.models.pool_entry import SpeechEngine
from server.speech import service as service_module
from server.speech.request import SpeechRequest
from server.speech.request_parsing import build
from server.speech.service import LONG_CHARS, SpeechService
from tests.server.clock import settle, until
from tests.server.fakes import manifest_of

MANIFEST = Manifest.model_validate(manifest_of("model"))


class Pool:
    """Leases of a model that is not loaded yet."""

    def __init__(self, places: int = 1000) -> None:
        self.bundles = SimpleNamespace(resolve=lambda model: SimpleNamespace(id="model", manifest=MANIFEST))
        self.places = places
        self.waiting = 0
        """Requests that wait for the model."""

    def loaded(self) -> dict[str, SpeechEngine]:
        return {}

    def lease(self, bundle: object) -> Lease:
        if not self.places:
            raise BusyError("full")
        self.places -= 1
        return Lease(self._wait, self._release)

    async def _wait(self, patient: bool) -> SpeechEngine:
        self.waiting += 1
        await asyncio.Event().wait()
        raise AssertionError("the model is never there")

    def _release(self) -> None:
        self.places += 1


class Planning:
    """Stands for `make_plan`: it notes what is planned, and ends when the gate is open."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.under_way = 0
        self.most = 0
        self.gate = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, request: SpeechRequest, *_: object, **__: object) -> NoReturn:
        with self._lock:
            self.begun.append(request.input)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.gate.wait()
        with self._lock:
            self.under_way -= 1
        raise InvalidRequestError("planned")


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> Planning:
    planning = Planning()
    monkeypatch.setattr(service_module, "make_plan", planning)
    return planning


@contextmanager
def opening(gate: threading.Event) -> Iterator[None]:
    """Open the gate whatever happens, since a loop waits for its threads when it is closed."""
    try:
        yield
    finally:
        gate.set()


def request_of(text: str) -> SpeechRequest:
    return SpeechRequest(model="model", input=text)


def service_of(pool: Pool) -> SpeechService:
    return SpeechService(pool, {}, 10 * LONG_CHARS)  # type: ignore[arg-type]


def test_a_request_without_a_place_is_not_prepared(planning: Planning) -> None:
    planning.gate.set()
    with pytest.raises(BusyError):
        asyncio.run(service_of(Pool(places=0)).start(request_of("Hello.")))
    assert not planning.begun


def test_a_request_that_is_wrong_waits_for_no_model_and_gives_its_place_back() -> None:
    pool = Pool(places=1)
    for text in ("[4000s]", "\u0001"):
        with pytest.raises(InvalidRequestError):
            asyncio.run(service_of(pool).start(request_of(text)))
    assert (pool.waiting, pool.places) == (0, 1)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("fault", ["instructions", "place", "plan", "client"])
def test_the_encoder_of_speech_that_does_not_begin_is_closed(
    monkeypatch: pytest.MonkeyPatch, live: bool, fault: str
) -> None:
    encoders: list[Encoder] = []

    class Noted(PcmEncoder):
        closed = False

        def close(self) -> None:
            self.closed = True

    def make(*_: object) -> Encoder:
        encoders.append(Noted())
        return encoders[0]

    monkeypatch.setattr(service_module, "make_encoder", make)
    pool = Pool(places=0 if fault == "place" else 1)
    fields = {"instructions": {"instructions": "x" * 20 * LONG_CHARS}, "plan": {"top_k": 1_000_000}}.get(fault, {})
    request = build(model="model", input="Hello.", **fields)

    async def arriving() -> None:
        return None

    async def play() -> None:
        service = service_of(pool)
        starting = asyncio.create_task(service.start_live(request, arriving) if live else service.start(request))
        if fault == "client":
            await until(lambda: pool.waiting, "the request waits for the model")
            starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled() or isinstance(starting.exception(), ApiError)

    asyncio.run(play())
    (encoder,) = encoders
    assert cast(Noted, encoder).closed


def test_a_place_is_held_while_a_request_waits_for_its_model() -> None:
    async def play() -> None:
        pool = Pool(places=2)
        waiting = asyncio.create_task(service_of(pool).start(request_of("Hello.")))
        await until(lambda: pool.waiting, "the request waits for the model")
        assert pool.places == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        assert pool.places == 2

    asyncio.run(play())


def test_one_short_and_one_long_text_are_prepared_at_a_time(planning: Planning) -> None:
    async def play() -> None:
        service = service_of(Pool())
        long = [str(number) + "." * LONG_CHARS for number in range(8)]
        tasks = [asyncio.create_task(service.start(request_of(text))) for text in [*long, *"abcdefgh"]]
        with opening(planning.gate):
            await until(lambda: len(planning.begun) >= 2, "a short text waits for no long one")
            await settle()
            assert sorted(len(text) > LONG_CHARS for text in planning.begun) == [False, True]
        await asyncio.wait(tasks)
        assert len(planning.begun) == len(tasks)
        assert planning.most == 2

    asyncio.run(play())


def test_a_text_whose_client_leaves_before_its_turn_is_never_prepared(planning: Planning) -> None:
    """One that is being prepared goes on to its end, and no other one begins beside it."""

    async def play() -> None:
        pool = Pool()
        service = service_of(pool)
        tasks = [asyncio.create_task(service.start(request_of(text))) for text in "abcdefgh"]
        with opening(planning.gate):
            await until(lambda: planning.begun, "one is prepared")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert pool.places == 1000
            last = asyncio.create_task(service.start(request_of("z")))
            await settle()
            assert planning.begun == ["a"]
        await asyncio.wait([last])
        assert planning.begun == ["a", "z"]

    asyncio.run(play())


def test_a_voice_that_the_model_cannot_speak_with_is_the_fault_of_the_voice() -> None:
    async def refuse() -> None:
        raise CloneError("speaks with cloned voices only")

    with pytest.raises(InvalidRequestError, match="speaks with cloned voices only") as caught:
        asyncio.run(service_module._begin(SimpleNamespace(begin=refuse), whole=True))  # type: ignore[arg-type]
    assert caught.value.param == "voice"
