"""Times the graph calls of an open bundle."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from server.engine.bundle import OpenBundle


class Stopwatch:
    """Wraps calls and keeps the seconds that each of them took, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call`, timed under `name`."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[name].append(time.perf_counter() - start)

        return timed


class _Timed:
    """Stands for another object and times those of its methods that are named."""

    def __init__(self, inner: Any, watch: Stopwatch, **methods: str) -> None:
        self._inner = inner
        for method, name in methods.items():
            setattr(self, method, watch.wrap(name, getattr(inner, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def timed_bundle(bundle: OpenBundle, watch: Stopwatch) -> OpenBundle:
    """Return the bundle with its graph calls timed: `talker`, `code predictor`, `codec decoder`."""
    timed: dict[str, Any] = {
        "talker": _Timed(bundle.talker, watch, advance="talker"),
        "code_predictor": _Timed(bundle.code_predictor, watch, run="code predictor"),
        "codec_decoder": _Timed(bundle.codec_decoder, watch, decode="codec decoder"),
    }
    return dataclasses.replace(bundle, **timed)
