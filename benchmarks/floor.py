"""The floor of decoding: how long this machine takes merely to read the weights and the KV cache of a frame."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from server.graphs.caches import item_bytes
from server.manifest import Manifest, WeightReads


def frame_reads(manifest: Manifest) -> list[WeightReads] | None:
    """Return what talker and code predictor read for one frame of one row; None where the manifest does not say."""
    reads = [manifest.graphs[name].reads for name in ("talker", "code_predictor")]
    known = [one for one in reads if one is not None]
    return known if len(known) == len(reads) else None


def cache_reads(manifest: Manifest, positions: float) -> int:
    """Return the bytes that the talker's attention reads of its KV cache for one frame of one row behind so many
    positions."""
    talker = manifest.sizes.talker
    return round(positions) * talker.num_layers * 2 * talker.num_kv_heads * talker.head_dim * item_bytes(manifest)


class FloorProbe:
    """Reads as many bytes as a frame does, in as many passes over working sets of the same size.

    Args:
        reads: what each graph of one frame reads, however many rows there are.
        threads: how many threads read, each its own part.
        cache: bytes that a frame reads of the KV cache of one row.
        rows: the most rows of one run.
    """

    def __init__(self, reads: Iterable[WeightReads], threads: int, cache: int = 0, rows: int = 1) -> None:
        reads = list(reads)
        self._passes = [(self._parts(r.once, threads), 1) for r in reads if r.once]
        self._passes += [(self._parts(r.looped, threads), r.passes) for r in reads if r.looped]
        self._caches = [self._parts(cache, threads) for _ in range(rows)] if cache else []
        self.seconds: dict[int, list[float]] = defaultdict(list)
        """Seconds of each run so far, by its number of rows."""

    @staticmethod
    def _parts(size: int, threads: int) -> list[np.ndarray]:
        return [np.ones(max(size // 8 // threads, 1), np.int64) for _ in range(threads)]

    def _of(self, rows: int) -> list[tuple[list[np.ndarray], int]]:
        return [*self._passes, *((parts, 1) for parts in self._caches[:rows])]

    def bytes_read(self, rows: int = 1) -> int:
        """Number of bytes that one run for so many rows reads."""
        return sum(part.nbytes * passes for parts, passes in self._of(rows) for part in parts)

    def run(self, rows: int = 1) -> None:
        """Read everything once as a frame of so many rows would."""
        start = time.perf_counter()
        for parts, passes in self._of(rows):
            readers = [threading.Thread(target=_read, args=(part, passes)) for part in parts]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
        self.seconds[rows].append(time.perf_counter() - start)


def _read(part: np.ndarray, passes: int) -> None:
    for _ in range(passes):
        np.bitwise_or.reduce(part)
