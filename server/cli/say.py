"""Writes speech to a file, which is either complete or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from server.speech.rendering import Speech
from server.speech.request import SpeechRequest
from server.speech.service import SpeechService


async def write(
    service: SpeechService,
    request: SpeechRequest,
    output: Path,
    whole: Callable[[Speech, int], object] = lambda speech, size: None,
) -> Speech:
    """Write a request's speech to `output`, which is complete or stays as it was.

    Args:
        service: makes the speech.
        request: what is said.
        output: the file.
        whole: hears of the speech and the bytes of its file, once they are on the disk and before they have that name.

    Raises:
        ApiError: as for `SpeechService.start` and `Speech.whole`.
    """
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        speech = await service.start(request, wait=True)
        try:
            size = unfinished.write_bytes(await speech.whole())
        finally:
            speech.stop()
        whole(speech, size)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return speech


async def say(service: SpeechService, request: SpeechRequest, output: Path) -> str:
    """Write a request's speech to `output`; return a line about it.

    Raises:
        ApiError: as for `write`.
    """
    speech = await write(service, request, output)
    audio, wall = speech.audio_seconds, speech.wall_seconds
    cut = f", cut off at {request.max_new_tokens} frames," if speech.capped else ""
    return (
        f"{output}: {audio:.2f} s of audio{cut} made in {wall:.2f} s by {speech.model}, voice {request.voice_name}, "
        f"seed {speech.seed}; RTF {wall / audio:.2f} (below 1 is faster than real time)"
    )
