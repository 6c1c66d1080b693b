"""The real server on the fake engine: `python -m tests.server.fake_server`."""

from __future__ import annotations

from functools import partial

from server import config
from server.cli.serve import run_server
from tests.server.fakes import FakeEngine

if __name__ == "__main__":
    settings = config.load()
    run_server(settings, partial(FakeEngine.load, max_queue=settings.max_queue))
