"""What the log and the metrics are told of speech that has ended, whichever door it left by."""

from __future__ import annotations

from server import log
from server.errors import ApiError, KeyLimitError
from server.metrics import Metrics, Outcome
from server.speech.rendering import Speech
from server.speech.request import SpeechRequest

CAPPED = "length"
"""OpenAI's word for an answer that a limit of tokens ended."""

_REFUSALS: dict[int, Outcome] = {429: "queue_full", 503: "unavailable"}


def refusal(error: ApiError) -> Outcome:
    """The outcome of a request that was refused before there was any speech."""
    return "key_limit" if isinstance(error, KeyLimitError) else _REFUSALS.get(error.status, "invalid")


def ended(
    metrics: Metrics,
    order: SpeechRequest,
    speech: Speech,
    *,
    request_id: str,
    key: str | None = None,
    way: str = "whole",
    chars: int | None = None,
) -> None:
    """Log and count speech that is over.

    Args:
        metrics: told of it.
        order: what was asked for.
        speech: what came of it.
        request_id: for the log.
        key: its key's label; None where it has none.
        way: how it was sent; `whole` is a file with its length.
        chars: of its text; None where that is the order's.
    """
    audio, wall = speech.audio_seconds, speech.wall_seconds
    rtf = wall / audio if audio else None
    log.event(
        "speech",
        id=request_id,
        key=key,
        model=speech.model,
        voice=order.voice_name,
        speaker=speech.speaker,
        format=order.response_format,
        stream=None if way == "whole" else way,
        chars=len(order.input) if chars is None else chars,
        ignored=",".join(order.ignored) or None,
        stand_in=speech.stand_in or None,
        cloned=speech.cloned or None,
        seed=speech.seed,
        outcome=speech.outcome,
        finish=CAPPED if speech.capped else None,
        error=speech.error,
        audio_seconds=audio,
        queue_seconds=speech.queue_seconds,
        ttfa_seconds=speech.ttfa_seconds,
        wall_seconds=wall,
        rtf=rtf,
    )
    metrics.request(speech.model, order.response_format, speech.outcome, key)
    whole = speech.outcome == "done"
    metrics.speech(
        speech.model, audio_seconds=audio, ttfa_seconds=speech.ttfa_seconds, rtf=wall / audio if whole else None
    )
