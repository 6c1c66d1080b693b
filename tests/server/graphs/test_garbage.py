"""Garbage is freed even if another thread is in the middle of a collection."""

from __future__ import annotations

import gc
import threading
import weakref

from server.graphs.garbage import collect_garbage
from tests.server.running import PATIENCE_SECONDS


class Cycle:
    """An object that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self


class SlowToEnd(Cycle):
    """One whose finalizer holds up the collection that frees it, and lets other threads run meanwhile."""

    def __init__(self, collecting: threading.Event, may_end: threading.Event) -> None:
        super().__init__()
        self._collecting = collecting
        self._may_end = may_end

    def __del__(self) -> None:
        self._collecting.set()
        self._may_end.wait(PATIENCE_SECONDS)


def test_a_collection_of_another_thread_is_no_substitute() -> None:
    collecting, may_end = threading.Event(), threading.Event()
    SlowToEnd(collecting, may_end)
    other = threading.Thread(target=gc.collect)
    other.start()
    assert collecting.wait(PATIENCE_SECONDS)
    garbage = Cycle()
    watched = weakref.ref(garbage)
    del garbage
    assert gc.collect() == 0, "the interpreter refuses a second collection"
    assert watched() is not None
    threading.Timer(0.05, may_end.set).start()
    collect_garbage()
    assert watched() is None
    other.join()


def test_nothing_is_left_behind() -> None:
    before = list(gc.callbacks)
    collect_garbage()
    assert gc.callbacks == before
