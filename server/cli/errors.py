"""How a command says that it cannot go on."""

from __future__ import annotations

USAGE_ERROR = 2
FAILURE = 1


class CommandError(Exception):
    """A command cannot go on.

    Args:
        message: one line for the user of the command.
        status: the exit code.
    """

    def __init__(self, message: str, status: int = FAILURE) -> None:
        super().__init__(message)
        self.status = status
