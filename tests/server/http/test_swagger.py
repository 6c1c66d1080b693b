"""Swagger UI, from our own files."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import httpx
import pytest

from server.http.routes.pages import SWAGGER
from server.http.routes.pages import SWAGGER_PAGE as PAGE
from tests.server.answers import PREFIXES, check_error
from tests.server.running import RunningServer, fetch

PARTS = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_page_and_its_parts_need_no_key(visitor: httpx.Client, prefix: str) -> None:
    page = visitor.get(f"{prefix}/index.html")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    named = re.findall(r'(?:src|href)="([^":]+)"', page.text)
    assert set(named) == {*(f"swagger/{name}" for name in PARTS), "openapi.json"}
    for name in named:
        part = visitor.get(page.url.join(name))
        assert part.status_code == 200
        assert part.headers["content-type"].split(";")[0] in ("text/css", "text/javascript", "application/json")
        assert len(part.content) > 100


def test_a_file_that_has_not_changed_since_is_not_sent_again(visitor: httpx.Client) -> None:
    url = "/v1/swagger/swagger-ui-bundle.js"
    first = visitor.get(url)
    again = visitor.get(url, headers={"if-modified-since": first.headers["last-modified"]})
    assert (again.status_code, again.content) == (304, b"")
    again = visitor.get(url, headers={"if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT"})
    assert again.status_code == 200


def test_each_file_has_a_date_and_a_tag_of_its_own(fake_server: RunningServer) -> None:
    tags = set()
    for name in (PAGE, *PARTS):
        response = fetch("GET", f"{fake_server.url}/v1/{'' if name == PAGE else 'swagger/'}{name}")
        modified = int((SWAGGER / name).stat().st_mtime)
        assert parsedate_to_datetime(response.headers["last-modified"]).timestamp() == modified
        tags.add(response.headers["etag"])
        known = {"if-none-match": response.headers["etag"], "if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}
        assert fetch("GET", response.url, headers=known).status_code == 304
    assert len(tags) == 1 + len(PARTS)


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Jan 1970 00:00:00 GMT"])
def test_a_date_that_cannot_be_read_is_ignored(fake_server: RunningServer, date: str) -> None:
    url = f"{fake_server.url}/v1/swagger/start.js"
    assert fetch("GET", url, headers={"if-modified-since": date}).status_code == 200


def test_the_page_has_no_slash_behind_it_as_names_are_relative(fake_server: RunningServer) -> None:
    check_error(fetch("GET", f"{fake_server.url}/v1/index.html/"), 404, "not_found")


@pytest.mark.parametrize("name", ["LICENSE", "swagger-ui-bundle.js.LICENSE.txt", "index.html", "..%2Faccess.py", ""])
def test_other_files_are_not_served(visitor: httpx.Client, name: str) -> None:
    check_error(visitor.get(f"/v1/swagger/{name}"), 404, "not_found")


def test_our_own_files_name_no_other_host() -> None:
    for name in ("index.html", "start.js"):
        assert "//" not in re.sub(r"^//.*$", "", (SWAGGER / name).read_text(), flags=re.MULTILINE)


def test_its_licence_is_there() -> None:
    assert "Apache License" in (SWAGGER / "LICENSE").read_text()
    assert (SWAGGER / "swagger-ui-bundle.js.LICENSE.txt").exists()
