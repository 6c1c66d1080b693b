"""A stand-in for the Hub on the loopback: as much of its API as we ask for, and its failures."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPO = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class StandInHub:
    """Serves `folder` as `repo` at branch main.

    Attributes:
        folder: the repository's files; without it the repository has yet to be made.
        repo: its id.
        writer: the token that may write.
        gated: file requests without this token are refused as the Hub refuses a gated repository.
        broken: answer HTTP 500 to everything.
        retry_after: answer HTTP 429 with this header to everything.
        description: what is told of the repository, whatever JSON that is, or bytes of a page; None is the truth.
        stall: send half of this path's bytes, set `stalled`, and wait for `go` before the rest.
        corrupt: of these paths the first byte is sent wrong once.
        cut: for a path, break the connection once after that many bytes of it.
        requests: method, path and Range header of each request, in order.
    """

    folder: Path
    repo: str = REPO
    writer: str = "hf_writer"
    gated: str | None = None
    broken: bool = False
    retry_after: str | None = None
    description: Any = None
    stall: str | None = None
    corrupt: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    uploads: dict[str, bytes] = field(default_factory=dict)
    go: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> StandInHub:
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fetched(self) -> set[str]:
        """Paths of the repository's files whose bytes were asked for."""
        prefix = f"/{self.repo}/resolve/{COMMIT}/"
        return {path.removeprefix(prefix) for method, path, _ in self.requests if method == "GET" and prefix in path}


class _Handler(BaseHTTPRequestHandler):
    state: StandInHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self._take()

    def do_PUT(self) -> None:
        self._take()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  # the base class's name
        """Keep quiet."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((self.command, path, self.headers.get("Range")))
        if self.state.broken:
            self._send(500, {}, b"")
        elif self.state.retry_after is not None:
            self._send(429, {"Retry-After": self.state.retry_after}, b"")
        elif path.startswith("/api/models/"):
            self._describe(path.removeprefix("/api/models/"))
        elif path.startswith(f"/{self.state.repo}/resolve/"):
            self._file(path.removeprefix(f"/{self.state.repo}/resolve/").partition("/")[2], body=body)
        else:
            self._refuse(404, "RepoNotFound")

    def _describe(self, name: str) -> None:
        repo, _, revision = name.partition("/revision/")
        if repo.startswith(f"{self.state.repo}/tree/"):
            self._refuse(404, "EntryNotFound")
        elif repo != self.state.repo or not self.state.folder.is_dir():
            self._refuse(404, "RepoNotFound")
        elif revision not in ("", "main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif isinstance(self.state.description, bytes):
            self._send(200, {"Content-Type": "text/html"}, self.state.description)
        elif self.state.description is not None:
            self._tell(self.state.description)
        else:
            found = {
                p.relative_to(self.state.folder).as_posix(): p for p in self.state.folder.rglob("*") if p.is_file()
            }
            files = [{"rfilename": name, "size": path.stat().st_size} for name, path in found.items()]
            self._tell({"id": repo, "sha": COMMIT, "tags": [], "siblings": files})

    def _take(self) -> None:
        """Take what is written: a repository is made, files are uploaded by their hash, and a commit names them."""
        state, path = self.state, unquote(urlsplit(self.path).path)
        state.requests.append((self.command, path, None))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path.startswith("/upload/"):  # the place is given to who may write, and asks for no token
            state.uploads[path.removeprefix("/upload/")] = body
            self._send(200, {"ETag": '"1"'}, b"")
        elif state.broken:
            self._send(500, {}, b"")
        elif self.headers.get("Authorization") != f"Bearer {state.writer}":
            self._refuse(401 if state.gated is None else 403, "")
        elif path == "/api/repos/create":
            state.folder.mkdir(exist_ok=True)
            self._tell({"url": f"{state.url}/{state.repo}"})
        elif path == "/api/validate-yaml":
            self._tell({"errors": [], "warnings": []})
        elif path == f"/api/models/{state.repo}/preupload/main":
            files = [{**file, "uploadMode": _mode(file["path"])} for file in json.loads(body)["files"]]
            self._tell({"files": [{**file, "shouldIgnore": False} for file in files]})
        elif path == f"/{state.repo}.git/info/lfs/objects/batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"{state.url}/upload/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self._tell({"transfer": "basic", "objects": objects})
        elif path == f"/api/models/{state.repo}/commit/main":
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "RepoNotFound")

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            place = self.state.folder / value.get("path", "")
            place.parent.mkdir(parents=True, exist_ok=True)
            if line["key"] == "file":
                place.write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                place.write_bytes(self.state.uploads[value["oid"]])
            elif line["key"] == "deletedFile":
                place.unlink()
        self._tell({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.state.url}/{self.state.repo}/commit/1"})

    def _tell(self, answer: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _file(self, name: str, *, body: bool) -> None:
        if self.state.gated and self.headers.get("Authorization") != f"Bearer {self.state.gated}":
            self._refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
            return
        if not (self.state.folder / name).is_file():
            self._refuse(404, "EntryNotFound")
            return
        etag = content = (self.state.folder / name).read_bytes()
        if body and name in self.state.corrupt:
            self.state.corrupt.remove(name)
            content = bytes([content[0] ^ 1]) + content[1:]
        headers = {"ETag": f'"{hashlib.sha256(etag).hexdigest()}"', "X-Repo-Commit": COMMIT}
        status, start = 200, 0
        if asked := self.headers.get("Range"):
            status, start = 206, int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        content = content[start:]
        cut = self.state.cut.pop(name, None) if body else None
        if body and name == self.state.stall:
            half = len(content) // 2
            self._send(status, headers, content, sent=half)
            self.state.stalled.set()
            self.state.go.wait()
            with suppress(OSError):  # the client may have left
                self.wfile.write(content[half:])
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
        if self.command != "HEAD":
            self.wfile.write(content[:sent])
            self.close_connection = self.close_connection or sent is not None


def _mode(path: str) -> str:
    return "lfs" if path.endswith(("onnx", "onnx_data", "npy")) else "regular"
