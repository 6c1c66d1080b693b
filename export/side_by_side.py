"""Matrices worked on side by side, each by one thread, where operations are too small to be shared among threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

MOST = 4
"""Parts at a time, so that memory does not grow with the number of cores."""


def side_by_side(work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """What `work` gives for each part, in order; an error of `work` is raised again here.

    As many parts are worked on at a time as torch may have threads, up to `MOST`. Each has one thread, so that results
    do not depend on the number of cores, and cores that are busy with something else hold nobody up: torch's own
    threads wait for each other after every operation. It lets go of the interpreter's lock while it computes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, MOST)) as pool:
            return list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)
