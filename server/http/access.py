"""Who may come in: known API keys, a limited number of requests for each, and, without keys, only some web pages."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from sanic import Request

from server.config.addresses import ANY, is_loopback, without_port
from server.errors import ForbiddenError, KeyLimitError, UnauthorizedError
from server.http.key_file import KeyFile, digest

_SCHEMES = ("bearer", "api-key")
_KEY_SUBPROTOCOL = "openai-insecure-api-key."


def key_of_subprotocols(headers: Iterable[str]) -> str | None:
    """The API key among the subprotocols that a WebSocket's client offers; pages can set no other header of theirs.

    It is offered as OpenAI's SDK for Node does in a browser (https://github.com/openai/openai-node,
    `src/realtime/websocket.ts`): `openai-insecure-api-key.KEY`. A key with characters that a subprotocol may not have
    (RFC 6455, section 4.1), or with a percent sign, is percent-encoded.

    Args:
        headers: values of the request's `Sec-WebSocket-Protocol`.
    """
    offered = (name.strip() for header in headers for name in header.split(","))
    keys = (unquote(name.removeprefix(_KEY_SUBPROTOCOL)) for name in offered if name.startswith(_KEY_SUBPROTOCOL))
    return next(keys, None)


class KeyRing:
    """The API keys that the server accepts.

    Keys are kept and compared as digests of one length, and every request is compared with all of them, so that the
    time taken tells nothing about them.

    Args:
        keys: keys whose labels are `key1`, `key2`, ...
        file: file of more keys, see `server.http.key_file`.

    Raises:
        KeyFileError: the file's content cannot be used.
        OSError: the file cannot be read.
    """

    def __init__(self, keys: Sequence[str], file: Path | None = None) -> None:
        self._own = {f"key{number}": digest(key) for number, key in enumerate(keys, 1)}
        self._file = KeyFile(file) if file else None

    def owner(self, label: str) -> str | None:
        """Return a digest of the key of this label, by which its voices are known; None if there is none any more.

        It is not the digest that the file of keys holds, so that a folder of voices tells nothing of that.
        """
        kept = self._own.get(label) or (self._file.keys().get(label) if self._file else None)
        return hashlib.blake2b(kept, digest_size=16, person=b"voices").hexdigest() if kept else None

    def check(self, authorization: str | None, api_key: str | None = None) -> str:
        """Return the label of a request's key.

        Args:
            authorization: the header of this name, `Bearer KEY`, or `Api-Key KEY` as clients of Baseten send it.
            api_key: what counts only where that header has no key, such as the header `api-key`, which clients of
                Azure's OpenAI service send.

        Raises:
            UnauthorizedError: the request has no key, or one that is not known.
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
    """Limits the requests that one key may have under way.

    Args:
        most: how many; 0 is no limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def one_more(self, label: str | None) -> Iterator[None]:
        """Count the request that runs inside; one without a label is not counted.

        Raises:
            KeyLimitError: the key has as many requests under way as it may have.
        """
        if label is None or not self._most:
            yield
            return
        if self._under_way[label] >= self._most:
            requests = "1 request" if self._most == 1 else f"{self._most} requests"
            raise KeyLimitError(f"this API key has {requests} under way, its limit; try again soon")
        self._under_way[label] += 1
        try:
            yield
        finally:
            self._under_way[label] -= 1


class BrowserGuard:
    """Says which web pages may ask a server that wants no key.

    A browser sends requests to loopback addresses for any page that is open in it. Without a key, any page could make
    the server work, and a page whose name is made to mean 127.0.0.1 (DNS rebinding) could read the answers. Browsers
    say which page asks (`Origin`, `Sec-Fetch-Site`) and by which name (`Host`); other programs send neither of the
    first two. Programs, the server's own pages, and pages of listed origins are let in.

    Args:
        hosts: names of the server beside those of the loopback addresses; `*` is every name.
        origins: origins whose pages may call the API; `*` is every origin.
    """

    def __init__(self, hosts: Collection[str], origins: Collection[str]) -> None:
        self._hosts = frozenset(host for host in hosts if not is_loopback(host))
        self._origins = frozenset(origins)

    def check(self, request: Request) -> None:
        """Look at the headers of a request.

        Raises:
            ForbiddenError: it asks by a name that is not the server's, or for a page that may not ask.
        """
        host = request.headers.getone("host", "")
        self._check_host(host)
        self._check_page(request, host.lower())

    def _check_host(self, host: str) -> None:
        if not host or ANY in self._hosts:
            return
        name = without_port(host)
        if not (is_loopback(name) or name in self._hosts):
            raise ForbiddenError(
                f"this server has no key and does not answer to the name {host}; "
                "ask it as localhost, or list the name in KW_ALLOWED_HOSTS"
            )

    def _check_page(self, request: Request, host: str) -> None:
        origin = request.headers.getone("origin", "").lower()
        site = request.headers.getone("sec-fetch-site", "").lower()
        if ANY in self._origins or origin in self._origins or site == "same-origin":
            return
        if origin:
            authority = origin.partition("://")[2]
            if authority != host and without_port(authority) not in self._hosts:
                raise ForbiddenError(
                    f"pages of {origin} may not ask this server, which has no key; list the origin in KW_CORS_ORIGINS"
                )
        elif site == "cross-site" and not _opens_a_page(request):
            raise ForbiddenError("pages of other sites may not ask this server, which has no key")


def _opens_a_page(request: Request) -> bool:
    """Whether the user followed a link of another site, which does not let that site read the answer."""
    headers = request.headers
    navigates = (
        headers.getone("sec-fetch-mode", "") == "navigate" and headers.getone("sec-fetch-dest", "") == "document"
    )
    return navigates and request.method in ("GET", "HEAD")
