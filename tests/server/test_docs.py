"""Swagger UI, from our own files."""

from __future__ import annotations

import re

import httpx
import pytest

from server.routes.docs import PARTS, SWAGGER
from tests.server.answers import PREFIXES, check_error


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


def test_the_browser_keeps_what_has_not_changed(visitor: httpx.Client) -> None:
    url = "/v1/swagger/swagger-ui-bundle.js"
    first = visitor.get(url)
    again = visitor.get(url, headers={"if-modified-since": first.headers["last-modified"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["LICENSE", "index.html", "..%2Fauth.py", "%2e%2e%2fauth.py", ""])
def test_nothing_else_is_given_away(visitor: httpx.Client, name: str) -> None:
    check_error(visitor.get(f"/v1/swagger/{name}"), 404, "not_found")


def test_our_own_files_name_no_other_host() -> None:
    for name in ("index.html", "start.js"):
        assert "//" not in re.sub(r"^//.*$", "", (SWAGGER / name).read_text(), flags=re.MULTILINE)


def test_its_licence_is_there() -> None:
    assert "Apache License" in (SWAGGER / "LICENSE").read_text()
    assert (SWAGGER / "swagger-ui-bundle.js.LICENSE.txt").exists()
