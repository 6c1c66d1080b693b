"""Which web pages may ask a server that wants no key.

A browser sends requests to loopback addresses for any page that is open in it. Without a key, any page could make the
server work, and one whose name is made to mean 127.0.0.1 (DNS rebinding) could read the answers. Browsers say which
page asks (`Origin`, `Sec-Fetch-Site`) and by which name (`Host`); other clients send neither of the first two.
"""

from __future__ import annotations

from collections.abc import Collection

from sanic import Request

from server.config.addresses import ANY, is_loopback, without_port
from server.errors import ForbiddenError


class BrowserGuard:
    """Lets in programs, the server's own pages, and the pages of origins that may call the API.

    Args:
        hosts: names of the server beside those of the loopback addresses; `*` is every one.
        origins: origins whose pages may call the API; `*` is every one.
    """

    def __init__(self, hosts: Collection[str], origins: Collection[str]) -> None:
        self._hosts = frozenset(host for host in hosts if not is_loopback(host))
        self._origins = frozenset(origins)

    def check(self, request: Request) -> None:
        """Look at a request.

        Raises:
            ForbiddenError: it asks by another name, or for a page that may not.
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
    """Whether a link of another site was followed, which shows that site nothing."""
    headers = request.headers
    navigates = (
        headers.getone("sec-fetch-mode", "") == "navigate" and headers.getone("sec-fetch-dest", "") == "document"
    )
    return navigates and request.method in ("GET", "HEAD")
