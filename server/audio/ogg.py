"""Ogg pages (RFC 3533), each written as soon as it is full: libav's muxer holds one back until the next one is full."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

FIRST, LAST = 2, 4
"""Flags of a stream's first and last page."""
_SERIAL = 1
"""Of the one stream of a file; it is no random number, so that the same sound makes the same file."""
_HEAD = "<4sBBqIIIB"
_CHECKSUM = slice(22, 26)
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Pages:
    """Writes the pages of one stream."""

    def __init__(self) -> None:
        self._written = 0

    def page(self, packets: Sequence[bytes], position: int, flags: int = 0) -> bytes:
        """A page of whole packets, which together take at most 255 segments of 255 bytes.

        Args:
            packets: in order.
            position: samples up to the end of the last one, in the units of the codec.
            flags: `FIRST`, `LAST` or none.
        """
        segments = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
        head = struct.pack(_HEAD, b"OggS", 0, flags, position, _SERIAL, self._written, 0, len(segments))
        self._written += 1
        page = bytearray(b"".join((head, segments, *packets)))
        page[_CHECKSUM] = _checksum(page).to_bytes(4, "little")
        return bytes(page)


def _checksum(page: bytearray) -> int:
    """The CRC of a page whose own field for it is 0: zlib's polynomial with the bits in the other order, from 0 on."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
