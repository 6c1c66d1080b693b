"""Bodies that bring recordings along: longer than others, and few at a time."""

from __future__ import annotations

import pytest

from server.errors import BusyError
from server.http.capacity import UPLOADS_AT_ONCE, Uploads

USUAL = 1000


def test_only_so_many_long_bodies_are_received_at_a_time() -> None:
    uploads = Uploads(3_000_000)
    assert uploads.longest > 4_000_000
    held = [uploads.one(uploads.longest, USUAL) for _ in range(UPLOADS_AT_ONCE)]
    for one in held:
        one.__enter__()
    with uploads.one(USUAL, USUAL):
        pass
    with pytest.raises(BusyError), uploads.one(USUAL + 1, USUAL):
        pass
    held.pop().__exit__(None, None, None)
    with pytest.raises(ZeroDivisionError), uploads.one(uploads.longest, USUAL):
        raise ZeroDivisionError  # a client that leaves gives its place back
    with uploads.one(uploads.longest, USUAL):
        pass
