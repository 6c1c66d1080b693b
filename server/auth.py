"""Bearer keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from server.errors import UnauthorizedError


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class KeyRing:
    """The keys that open the server.

    Keys are held and compared as digests of one length, all of them on every request: the time taken tells nothing.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def check(self, authorization: str | None) -> None:
        """Check the `Authorization` header of a request.

        Raises:
            UnauthorizedError: no bearer key, or none of ours.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise UnauthorizedError("send an API key as the header 'Authorization: Bearer KEY'")
        given = _digest(key.strip())
        matches = [hmac.compare_digest(given, known) for known in self._digests]
        if not any(matches):
            raise UnauthorizedError("this API key is not known here")
