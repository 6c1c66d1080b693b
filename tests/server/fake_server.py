"""The real server on the fake engine: `python -m tests.server.fake_server`, with `wyoming` for that protocol alone."""

from __future__ import annotations

import sys
from functools import partial

from server import config
from server.cli.serve import run_server
from server.cli.wyoming import run_wyoming
from tests.server.fakes import FakeEngine


def main() -> None:
    """Serve as the environment and the arguments say, until a signal ends it."""
    settings = config.load()
    run = run_wyoming if sys.argv[1:] == ["wyoming"] else run_server
    run(settings, partial(FakeEngine.load, max_queue=settings.max_queue))


if __name__ == "__main__":
    main()
