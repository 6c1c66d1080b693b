"""What is known of a bundle that is being fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol


class FetchError(ValueError):
    """A bundle that cannot be fetched.

    Args:
        message: what is wrong and what to do.
        passing: whether the same may succeed later without anybody's doing.
        retry_after: seconds that whoever refused it asks to wait before it is tried again; None is as one likes.
    """

    def __init__(self, message: str, *, passing: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.retry_after = retry_after


class Progress(NamedTuple):
    """How much of a bundle is there, in bytes; `total` is None until its manifest is there."""

    fetched: int
    total: int | None

    def __str__(self) -> str:
        if self.total is None:
            return "its size is not known yet"
        share = 100 * self.fetched // max(self.total, 1)
        return f"{share} % of {self.total / 1e6:,.0f} MB are there"


class Fetch(Protocol):
    """Brings one bundle into the models folder."""

    def run(self, *, tell: Callable[[str], object]) -> Path:
        """Fetch and verify it; return its folder. It goes on where an earlier call stopped.

        Args:
            tell: hears in lines what happens.

        Raises:
            FetchError: it cannot be fetched, now or ever.
        """
        ...

    def progress(self) -> Progress:
        """Tell how much of it is there, from any thread."""
        ...


@dataclass
class Fetching:
    """A fetching under way."""

    progress: Callable[[], Progress]
    trouble: str | None = None
    """Why the last try failed; it is tried again."""

    def __str__(self) -> str:
        trouble = f"; the last try failed: {self.trouble}" if self.trouble else ""
        return f"{self.progress()}{trouble}"
