"""What the routes share whose requests are more than one speech: the service, what counts them, and their bounds."""

from __future__ import annotations

from dataclasses import dataclass

from server.http.access import KeyLimit
from server.metrics import Metrics
from server.speech.rendering import WholeFiles
from server.speech.service import SpeechService


@dataclass(frozen=True)
class StreamLimits:
    """What sockets may take.

    Attributes:
        sockets: open ones.
        idle_seconds: without a message, while nothing is spoken, after which one is closed; 0 is never.
        timeout: seconds without progress, of the engine or of the client, after which speech is ended; 0 is never.
        text_chars: of an utterance.
        message_bytes: of any message.
    """

    sockets: int
    idle_seconds: float
    timeout: float
    text_chars: int
    message_bytes: int


@dataclass(frozen=True)
class Doors:
    """What speaks, what is told of it, and what bounds it.

    Attributes:
        service: what speaks.
        metrics: told of each speech.
        keys: counts what each key has under way.
        files: counts the files that are sent whole.
        limits: what sockets may take; its `timeout` holds for every other route too.
        streams: whether audio is sent while it is made if a request does not say.
    """

    service: SpeechService
    metrics: Metrics
    keys: KeyLimit
    files: WholeFiles
    limits: StreamLimits
    streams: bool = True
