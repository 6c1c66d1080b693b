"""Exits with 0 where the server of this container says that it is ready, else with 1 and the reason.

It is run every few seconds, so that it imports little; images have no curl.
"""

from __future__ import annotations

import os
import socket
import sys

PATIENCE_SECONDS = 4.0


def status(host: str, port: int) -> str:
    """Return the first line of the answer to `GET /readyz`.

    Raises:
        OSError: nothing listens, or it does not answer in time.
    """
    with socket.create_connection((host, port), PATIENCE_SECONDS) as connection:
        connection.sendall(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            return answer.readline().decode("latin-1").strip()


def main() -> int:
    """Ask the server where its settings say that it listens."""
    host = os.environ.get("KW_HOST", "").strip().strip("[]") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        told = status(host, int(os.environ.get("KW_PORT") or 3000))
    except OSError as error:
        told = str(error)
    sys.stdout.write(f"{told}\n")
    return 0 if told.split()[1:2] == ["200"] else 1


if __name__ == "__main__":
    sys.exit(main())
