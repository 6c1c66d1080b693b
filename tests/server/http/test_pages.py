"""The pages over HTTP, from a server that wants a key."""

from __future__ import annotations

import re

import httpx
import pytest

from server.http.routes.pages import PAGES, WEB
from tests.server.answers import check_error

FILES = {**PAGES, **{f"/web/{path.name}": path.name for path in WEB.glob("*.[!h]*") if path.is_file()}}
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_served_as_it_is_with_headers_that_guard_it(visitor: httpx.Client, path: str) -> None:
    response = visitor.get(path)
    assert response.status_code == 200
    content = re.sub(rb'="web/[0-9a-f]{16}/', b'="web/', response.content) if path in PAGES else response.content
    assert content == (WEB / FILES[path]).read_bytes()
    assert response.headers["content-type"] == TYPES[FILES[path].rpartition(".")[2]]
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert {source for part in policy.values() for source in part.split()} <= {"'none'", "'self'", "blob:", "data:"}

    head = visitor.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == response.headers["content-length"]


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0, *", False),
        ("*, gzip; q=0.000", False),
    ],
)
def test_a_file_is_compressed_for_clients_that_accept_it(
    visitor: httpx.Client, accepted: str, compressed: bool
) -> None:
    for path in ("/web/studio.js", "/v1/swagger/swagger-ui-bundle.js"):
        response = visitor.get(path, headers={"accept-encoding": accepted})
        whole = len(response.content)
        assert response.headers["vary"] == "Accept-Encoding"
        assert response.headers.get("content-encoding") == ("gzip" if compressed else None)
        assert (int(response.headers["content-length"]) < whole / 2) == compressed
        known = {"accept-encoding": accepted, "if-none-match": response.headers["etag"]}
        again = visitor.get(path, headers=known)
        assert (again.status_code, again.headers["etag"]) == (304, response.headers["etag"])
    tags = {visitor.get("/", headers={"accept-encoding": coding}).headers["etag"] for coding in ("gzip", "")}
    assert len(tags) == 2


def test_a_file_that_the_browser_has_is_not_sent_again(visitor: httpx.Client) -> None:
    tag = visitor.get("/").headers["etag"]
    assert tag != visitor.get("/developers").headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = visitor.get("/", headers={"if-none-match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
    assert visitor.get("/", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_a_page_names_its_parts_so_that_browsers_keep_them(visitor: httpx.Client, path: str) -> None:
    page = visitor.get(path)
    named = re.findall(r'="(web/[^"]+)"', page.text)
    assert "style.css" in {name.rpartition("/")[2] for name in named}
    assert len({name.rpartition("/")[0] for name in named}) == 1, "all are of one version"
    for name in named:
        part = visitor.get(page.url.join(name))
        assert part.content == (WEB / name.rpartition("/")[2]).read_bytes()
        assert part.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_a_page_that_is_older_than_the_server_keeps_nothing(visitor: httpx.Client) -> None:
    part = visitor.get("/web/0123456789abcdef/studio.js")
    assert part.content == (WEB / "studio.js").read_bytes()
    assert part.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", sorted({*PAGES} - {"/"}))
def test_a_slash_too_many_is_redirected_away(visitor: httpx.Client, path: str) -> None:
    response = visitor.get(f"{path}/", follow_redirects=True)
    assert (response.status_code, response.url.path) == (200, path)


@pytest.mark.parametrize(
    "name", ["none.js", "index.html", "..%2fvoices.json", "%2e%2e/voices.json", "", "a/none.js", "a/index.html", "a/"]
)
def test_other_files_are_not_served(visitor: httpx.Client, name: str) -> None:
    check_error(visitor.get(f"/web/{name}"), 404, "not_found")


def test_other_routes_still_want_a_key(visitor: httpx.Client) -> None:
    check_error(visitor.get("/v1/models"), 401, "invalid_api_key")
    assert visitor.post("/").status_code == 405
