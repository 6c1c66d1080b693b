"""Bearer keys: who may come in, under which label, and how much one key may ask for at once."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from server.errors import KeyLimitError, UnauthorizedError
from server.http.key_file import KeyFile, digest

_SCHEMES = ("bearer", "api-key")


class KeyRing:
    """The keys that open the server.

    Keys are held and compared as digests of one length, all of them on every request: the time taken tells nothing.

    Args:
        keys: their labels are `key1`, `key2`, ...
        file: more keys, see `server.http.key_file`.

    Raises:
        KeyFileError, OSError: the file cannot be read.
    """

    def __init__(self, keys: Sequence[str], file: Path | None = None) -> None:
        self._own = {f"key{number}": digest(key) for number, key in enumerate(keys, 1)}
        self._file = KeyFile(file) if file else None

    def check(self, authorization: str | None, api_key: str | None = None) -> str:
        """The label of a request's key.

        Args:
            authorization: header of this name, `Bearer KEY`, or `Api-Key KEY` as clients of Baseten send it.
            api_key: header `api-key`, as clients of Azure's OpenAI service send it; counts where the other has no key.

        Raises:
            UnauthorizedError: no bearer key, or none of ours.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() not in _SCHEMES or not key.strip():
            key = api_key or ""
        if not key.strip():
            raise UnauthorizedError("send an API key as the header 'Authorization: Bearer KEY'")
        given = digest(key.strip())
        known = {**self._own, **(self._file.keys() if self._file else {})}
        matches = [label for label, kept in known.items() if hmac.compare_digest(given, kept)]
        if not matches:
            raise UnauthorizedError("this API key is not known here")
        return matches[0]


class KeyLimit:
    """How many requests one key may have under way.

    Args:
        most: 0 is no limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def one_more(self, label: str | None) -> Iterator[None]:
        """Count what runs inside; without a label it is not counted.

        Raises:
            KeyLimitError: the key has as many already.
        """
        if label is None or not self._most:
            yield
            return
        if self._under_way[label] >= self._most:
            raise KeyLimitError(f"this API key has {self._most} requests under way, its limit; try again soon")
        self._under_way[label] += 1
        try:
            yield
        finally:
            self._under_way[label] -= 1
