"""Giving memory back to the system."""

from __future__ import annotations

import gc

from server.graphs.pages import trim_heap


def give_back() -> None:
    """Free what only refers to itself, and return free pages of the C heap to the system.

    Jobs and their iterators refer to each other and to their engine. And glibc keeps what a model has freed: of the
    1.5 GB that an int8 model of 0.6B takes 1.0 were still there after unloading it, and 0.3 are after this. Other C
    libraries have no such function.
    """
    gc.collect()
    trim_heap()
