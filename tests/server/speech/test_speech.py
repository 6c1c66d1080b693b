"""Files that are made whole: how long one may be, and all of them together."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from server.audio.encoders import make_encoder
from server.audio.formats import AudioFormat
from server.audio.pcm import Samples
from server.errors import BusyError, InvalidRequestError
from server.speech.rendering import Speech, WholeFiles


def test_a_file_may_be_as_long_as_all_of_them() -> None:
    files = WholeFiles(100)
    with files.one() as grow:
        grow(60)
        grow(40)
        with pytest.raises(InvalidRequestError, match="stream"):
            grow(1)


def test_files_share_their_room_and_give_it_back() -> None:
    files = WholeFiles(100)
    with files.one() as first:
        first(60)
        with files.one() as second:
            second(40)
            with pytest.raises(BusyError, match="stream"):
                second(1)
        with pytest.raises(ZeroDivisionError), files.one() as third:
            third(40)
            raise ZeroDivisionError
        first(40)


SAMPLE_RATE, SECONDS = 24_000, 600


class Silence:
    """A reading of ten minutes."""

    sample_rate = SAMPLE_RATE

    async def __aiter__(self) -> AsyncIterator[Samples]:
        for _ in range(SECONDS):
            yield np.zeros(SAMPLE_RATE, np.float32)


@pytest.mark.parametrize("audio_format", ["wav", "pcm"])
def test_a_whole_file_is_held_once(audio_format: AudioFormat) -> None:
    plan: Any = SimpleNamespace(
        seed=1,
        delivery=SimpleNamespace(speaker=None, reference=None),
        stand_in=False,
        instruction_dropped=False,
        text_notes=(),
        script=None,
    )
    encoder = make_encoder(audio_format, SAMPLE_RATE, "")
    speech = Speech(cast(Any, Silence()), encoder, plan, encoder.close, model="m", repeatable=True)
    made: list[bytearray] = []

    async def make() -> None:
        made.append(await speech.whole())

    tracemalloc.start()
    try:
        asyncio.run(make())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(made[0]) >= 2 * SAMPLE_RATE * SECONDS
    assert most < 1.3 * len(made[0])
