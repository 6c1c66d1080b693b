"""The examples of the pages for packages of `make test-clients`: each makes its client of the package's names."""

from __future__ import annotations

import subprocess

import pytest

from tests.clients.environments import LIMIT_SECONDS, python_of
from tests.examples import Example, examples
from tests.server.running import clean_environment

CLIENTS = {"livekit.plugins": "livekit-live", "pipecat.services": "pipecat"}
"""Whose environment an example needs, by the package that it imports."""
FOUND = [
    (client, example)
    for package, client in CLIENTS.items()
    for example in examples()
    if example.language == "python" and f"from {package}" in example.code
]


@pytest.mark.parametrize(("client", "example"), FOUND, ids=[client for client, _ in FOUND])
def test_an_example_makes_its_client(client: str, example: Example) -> None:
    done = subprocess.run(
        [python_of(client), "-c", f"{example.code}\nprint(type(tts).__name__)"],
        env=clean_environment(),
        timeout=LIMIT_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "TTS" in done.stdout


def test_each_client_has_an_example() -> None:
    assert [client for client, _ in FOUND] == list(CLIENTS.values())
