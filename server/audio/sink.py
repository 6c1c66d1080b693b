"""A file in memory whose bytes are taken while it is written."""

from __future__ import annotations

import io


class Sink:
    """The file that a library writes. Its bytes are taken as they come; what is written over taken bytes is kept."""

    def __init__(self) -> None:
        self.corrections: list[tuple[int, bytes]] = []
        self.taken = 0
        """Number of bytes that have been taken."""
        self._fresh = bytearray()
        self._position = 0

    def write(self, data: bytes) -> int:
        """Write at the position, as a file does."""
        offset = self._position - self.taken
        if offset < 0:
            self.corrections.append((self._position, bytes(data)))
        else:
            self._fresh[offset : offset + len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, as a file does."""
        end = self.taken + len(self._fresh)
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the position, as a file does."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return nothing; soundfile asks for this method and does not call it."""
        return b""

    def complete(self, body: bytearray) -> None:
        """Write into the file's bytes what was written over them after they were taken."""
        for position, data in self.corrections:
            body[position : position + len(data)] = data

    def take(self) -> bytes:
        """Take the bytes that were written since the last call."""
        taken, self._fresh = bytes(self._fresh), bytearray()
        self.taken += len(taken)
        return taken
