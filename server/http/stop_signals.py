"""Signals that ask the process to stop, on every system and without Sanic."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STOP_SIGNALS = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
"""Windows sends SIGBREAK at Ctrl+Break and when a console is closed."""
_MANY_SIGNALS = 4096


@contextmanager
def on_stop_signal(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` on the running loop, which is a selector's, at every signal that asks this process to stop.

    Windows' loops lack `loop.add_signal_handler`, and a signal does not interrupt `select` there: the loop is woken by
    the byte that Python's own handler writes, which is the signal's number.
    """
    loop = asyncio.get_running_loop()
    reader, writer = socket.socketpair()

    def read() -> None:
        for number in reader.recv(_MANY_SIGNALS):
            if number in _STOP_SIGNALS:
                act()

    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        loop.add_reader(reader, read)
        woken_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken_before)
            loop.remove_reader(reader)
