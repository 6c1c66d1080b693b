"""Keeps the codec decoder's states behind recordings: speech in a cloned voice goes on from the recording's sound."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from server.engine.manner import Codes
from server.graphs.codec_decoder import FRAMES_AT_ONCE, CodecDecoder, CodecState

KEPT_STATES = 8
"""Recordings whose states are kept. A state of the published models takes 5 MB, however long its recording is."""
MOST_HELD = KEPT_STATES + 1
"""States that are held while the next one is made."""


class PrimedStates:
    """Decodes recordings part by part, and keeps the states behind those that were met last.

    Rows with one recording share its state: what one of them has decoded none decodes again. Parts begin at multiples
    of `FRAMES_AT_ONCE`, so that a recording leaves the same numbers each time.

    Args:
        decoder: whose states they are.
        most: states that are kept.
    """

    def __init__(self, decoder: CodecDecoder, most: int = KEPT_STATES) -> None:
        self._decoder = decoder
        self._most = most
        self._kept: OrderedDict[bytes, CodecState] = OrderedDict()

    def state(self, codes: Codes | None) -> CodecState | None:
        """The state behind a recording, or the one before any sound if there is none; None if `advance` has yet to be
        called."""
        if codes is None:
            return self._decoder.start()
        key = _key(codes)
        state = self._kept.get(key)
        if state is None or state.position < len(codes):
            return None
        self._kept.move_to_end(key)
        return state

    def advance(self, codes: Codes) -> None:
        """Decode the next part of a recording; its sound is thrown away."""
        key = _key(codes)
        state = self._kept.pop(key, None) or self._decoder.start()
        if state.position < len(codes):
            part = codes[state.position : state.position + FRAMES_AT_ONCE]
            _, (state,) = self._decoder.decode(part[None], [state])
        while len(self._kept) >= self._most:
            self._kept.popitem(last=False)
        self._kept[key] = state


def _key(codes: Codes) -> bytes:
    return blake2b(codes.tobytes(), person=str(codes.shape).encode()[:16]).digest()
