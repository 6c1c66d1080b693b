"""Starts the server as an add-on of Home Assistant: options become settings, and Home Assistant is told where it is.

It needs root to read the options, gives it up, and is then replaced by the server.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OPTIONS = Path("/data/options.json")
SHARE = Path("/share/qwen3-tts")
USER, GROUP = 10001, 0
"""The image's own."""
WYOMING_PORT = 10200
SUPERVISOR = "http://supervisor"
PATIENCE_SECONDS = 600.0
"""How long the server may take to start, which includes the loading of a big model."""


def settings_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the server's settings; the Supervisor tells Home Assistant of it, so that it need not announce itself."""
    chosen = {f"KW_{name.upper()}": str(value) for name, value in options.items() if value not in (None, "")}
    return {**chosen, "KW_WYOMING_URI": f"tcp://0.0.0.0:{WYOMING_PORT}", "KW_WYOMING_ANNOUNCE": "off"}


def announce(supervisor: str, token: str, port: int = WYOMING_PORT, patience: float = PATIENCE_SECONDS) -> None:
    """Wait until the server listens, then tell the Supervisor of it.

    Raises:
        OSError: it never listens, or the Supervisor refuses.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    told = {"service": "wyoming", "config": {"uri": f"tcp://{socket.gethostname()}:{port}"}}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{supervisor}/discovery", json.dumps(told).encode(), headers, method="POST")
    urllib.request.urlopen(request, timeout=30).close()


def announce_beside(token: str) -> None:
    """Announce from a process that belongs to nobody, as this one becomes the server, which waits for no child."""
    if os.fork():
        os.wait()
        return
    if os.fork() == 0:
        try:
            announce(SUPERVISOR, token)
        except OSError as error:
            sys.stderr.write(f"Home Assistant was not told of the server: {error}\n")
    os._exit(0)


def main() -> None:
    """Become the server."""
    environment = {**os.environ, **settings_of(json.loads(OPTIONS.read_text("utf-8")))}
    token = environment.pop("SUPERVISOR_TOKEN", None)
    if SHARE.is_dir():
        os.chdir(SHARE)  # whose `models` are served if there are any
    os.setgroups([])
    os.setgid(GROUP)
    os.setuid(USER)
    if token:
        announce_beside(token)
    os.execvpe("qwen3-tts", ["qwen3-tts", "serve"], environment)


if __name__ == "__main__":
    main()
