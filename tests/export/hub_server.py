"""A stand-in for the Hub on the loopback: as much of its API as `snapshot_download` asks for, and its failures."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPO = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class StandInHub:
    """Serves `folder` as `REPO` at branch main.

    Attributes:
        folder: the repository's files.
        gated: file requests without this token are refused as the Hub refuses a gated repository.
        broken: answer HTTP 500 to everything.
        stall: send half of this path's bytes, set `stalled`, and wait until the server is closed.
        cut: for a path, break the connection once after that many bytes of it.
        requests: method, path and Range header of each request, in order.
    """

    folder: Path
    gated: str | None = None
    broken: bool = False
    stall: str | None = None
    cut: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    _closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> StandInHub:
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_for_the_end(self) -> None:
        """Block until the server is being closed."""
        self._closing.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fetched(self) -> set[str]:
        """Paths of the repository's files whose bytes were asked for."""
        prefix = f"/{REPO}/resolve/{COMMIT}/"
        return {path.removeprefix(prefix) for method, path, _ in self.requests if method == "GET" and prefix in path}


class _Handler(BaseHTTPRequestHandler):
    state: StandInHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  # the base class's name
        """Keep quiet."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((self.command, path, self.headers.get("Range")))
        if self.state.broken:
            self._send(500, {}, b"")
        elif path.startswith("/api/models/"):
            self._describe(path.removeprefix("/api/models/"))
        elif path.startswith(f"/{REPO}/resolve/"):
            self._file(path.removeprefix(f"/{REPO}/resolve/").partition("/")[2], body=body)
        else:
            self._refuse(404, "RepoNotFound")

    def _describe(self, name: str) -> None:
        repo, _, revision = name.partition("/revision/")
        if repo.startswith(f"{REPO}/tree/"):
            self._refuse(404, "EntryNotFound")
        elif repo != REPO:
            self._refuse(404, "RepoNotFound")
        elif revision not in ("", "main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        else:
            files = [p.relative_to(self.state.folder).as_posix() for p in self.state.folder.rglob("*") if p.is_file()]
            answer = {"id": REPO, "sha": COMMIT, "tags": [], "siblings": [{"rfilename": file} for file in files]}
            self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _file(self, name: str, *, body: bool) -> None:
        if self.state.gated and self.headers.get("Authorization") != f"Bearer {self.state.gated}":
            self._refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
            return
        if not (self.state.folder / name).is_file():
            self._refuse(404, "EntryNotFound")
            return
        content = (self.state.folder / name).read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        status, start = 200, 0
        if asked := self.headers.get("Range"):
            status, start = 206, int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        content = content[start:]
        cut = self.state.cut.pop(name, None) if body else None
        if body and name == self.state.stall:
            self._send(status, headers, content, sent=len(content) // 2)
            self.state.stalled.set()
            self.state.wait_for_the_end()
            return
        self._send(status, headers, content, sent=cut if body else 0)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": code}, b"")

    def _send(self, status: int, headers: dict[str, str], content: bytes, *, sent: int | None = None) -> None:
        """Announce all of `content` and send its first `sent` bytes; fewer than announced ends the connection."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:sent])
            self.close_connection = sent is not None
