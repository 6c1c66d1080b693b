"""What a script of a client tells the test that started it; the standard library only, as any environment has it."""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

_COUNTER = "qwen3_tts_requests_total{"


class Server:
    """The server that a client is pointed at: `script.py BASE_URL KEY ...`, the base URL with its `/v1`."""

    def __init__(self) -> None:
        self.base_url, self.key, *self.rest = sys.argv[1:]
        self._ended = self._count()

    def _count(self) -> float:
        """Speech requests that have ended so far, however they did."""
        url = self.base_url.removesuffix("/v1") + "/metrics"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(_COUNTER))

    def still_speaks(self) -> bool:
        """Whether no speech request has ended since this object was made: the first one is still under way."""
        return self._count() == self._ended


def report(**facts: Any) -> None:
    """Hand facts to the test: the last line that the script writes."""
    sys.stdout.write(json.dumps(facts) + "\n")
