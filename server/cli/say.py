"""Writes speech to a file, and its captions to another; each is either complete or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from server.leftovers import unfinished
from server.speech.captions import Caption
from server.speech.rendering import Speech
from server.speech.request import SpeechRequest
from server.speech.service import SpeechService
from server.text.subtitles import FORMATS, Cue


async def write(
    service: SpeechService,
    request: SpeechRequest,
    output: Path,
    whole: Callable[[Speech, int], object] = lambda speech, size: None,
    captions: Path | None = None,
) -> Speech:
    """Write a request's speech to `output`, which is complete or stays as it was.

    Args:
        service: makes the speech.
        request: what is said.
        output: the file.
        whole: hears of the speech and the bytes of its file, once they are on the disk and before they have that name.
        captions: a file in one of `subtitles.FORMATS` that is written as well, for a request with timestamps.

    Raises:
        ApiError: as for `SpeechService.start` and `Speech.whole`.
    """
    files = [output] if captions is None else [output, captions]
    try:
        speech = await service.start(request, wait=True)
        try:
            size = unfinished(output).write_bytes(await speech.whole())
        finally:
            speech.stop()
        if captions is not None:
            unfinished(captions).write_text(_captions(await speech.captions(), captions), "utf-8", newline="\n")
        whole(speech, size)
        for path in files:
            unfinished(path).replace(path)
    finally:
        for path in files:
            unfinished(path).unlink(missing_ok=True)
    return speech


def _captions(captions: list[Caption], path: Path) -> str:
    """What a file of this name holds."""
    return FORMATS[path.suffix.lower()](
        Cue(caption.start_time, caption.end_time, caption.text)
        for caption in captions
        if not caption.pause and caption.end_time is not None
    )


async def say(service: SpeechService, request: SpeechRequest, output: Path, captions: Path | None = None) -> str:
    """Write a request's speech to `output`; return a line about it.

    Raises:
        ApiError: as for `write`.
    """
    speech = await write(service, request, output, captions=captions)
    audio, wall = speech.audio_seconds, speech.wall_seconds
    cut = f", cut off at {request.max_new_tokens} frames," if speech.capped else ""
    return (
        f"{output}: {audio:.2f} s of audio{cut} made in {wall:.2f} s by {speech.model}, voice {request.voice_name}, "
        f"seed {speech.seed}; RTF {wall / audio:.2f} (below 1 is faster than real time)"
    )
