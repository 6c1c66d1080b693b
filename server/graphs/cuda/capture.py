"""CUDA graphs: the launches of a call are recorded once and replayed with one launch from then on.

ONNX Runtime records a run of a session that was opened for it under the number that its options name, and replays that
recording for every later run with the same number: with the addresses, shapes and host inputs of the first one
(https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html, "Using CUDA Graphs").
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.graphs.bound_call import NOT_CAPTURED, BoundCall, graph_options


class CaptureGate:
    """Keeps every other use of CUDA in this process away while a call is recorded.

    While one thread records, a copy, an allocation or a wait of any other thread makes CUDA refuse the recording.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = self._recorders = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Use CUDA. Not to be nested: who has to record goes first, and would wait for the outer use."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recorders)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Record: waits until nobody uses CUDA, and has whoever wants to wait."""
        with self._changed:
            self._recorders += 1
            try:
                self._changed.wait_for(lambda: not self._users)
                yield
            finally:
                self._recorders -= 1
                self._changed.notify_all()


GATE = CaptureGate()
"""Of this process."""
_this_thread = threading.local()


@contextmanager
def without_recording() -> Iterator[None]:
    """Have this thread run calls as they are: ONNX Runtime keeps a thread's recordings until the session is closed."""
    _this_thread.records_nothing = True
    try:
        yield
    finally:
        del _this_thread.records_nothing


class CapturedCall:
    """A call that is recorded when it is run for the first time, in which ONNX Runtime runs it several times.

    Args:
        call: over tensors that stay where they are, and which gives the same when it is run twice.
        number: of its recording, which no other call of the session has.
    """

    def __init__(self, call: BoundCall, number: int) -> None:
        self._call, self._options = call, graph_options(number)
        self._here = threading.local()
        """Of each thread: whether it has recorded the call."""

    def run(self) -> None:
        """Run the graph; each thread has recordings of its own."""
        if hasattr(_this_thread, "records_nothing"):
            with GATE.shared():
                self._call.run(NOT_CAPTURED)
            return
        with GATE.shared() if hasattr(self._here, "recorded") else GATE.alone():
            self._call.run(self._options)
        self._here.recorded = True
