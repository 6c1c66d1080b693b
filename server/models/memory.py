"""How much memory a model may take, whether this machine has it, and how memory goes back to the system."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import psutil
from pydantic import ByteSize

from server.engine.primed import MOST_HELD
from server.graphs.caches import cache_bytes
from server.graphs.control_groups import memory_limit
from server.graphs.garbage import collect_garbage
from server.graphs.pages import trim_heap, tune_heap
from server.graphs.session import Provider, ProviderError, choose_provider
from server.manifest import CLONING_GRAPHS, TABLES, Manifest
from server.models.threads import DaemonThreads

ENCODING_BYTES = 500_000_000
"""What encoding a recording takes for activations, at most: of a minute, by encoders of the published sizes, whose
growth `python -m benchmarks.clone --seconds 59` shows. Half a minute takes half as much."""
WORTH_TRIMMING_BYTES = 2 << 20
"""Growth of the process in bytes below which memory is not trimmed."""
COLLECT_AFTER = (700, 5, 1)
"""New objects before a collection of the youngest, and how many collections of a generation before one of the next."""
MAPPED_FROM = 4 << 20
"""Blocks of at least this many bytes get pages of their own, which go back to the system when they are freed."""
TRIM_DELAY_SECONDS = 2.0
"""Seconds from the end of a request to trimming: the request's answer is freed only after it has been sent."""


class MemoryShortage(RuntimeError):
    """The model cannot run in this machine's memory; the message says what to change."""


class Machine(NamedTuple):
    """Bytes of memory: `total` is the most that this process may ever have, swap included; `available` is free now."""

    total: int
    available: int


def machine() -> Machine:
    """Read the memory of the machine, or of the container around this process."""
    memory = psutil.virtual_memory()
    total = memory.total + psutil.swap_memory().total
    limit = memory_limit()
    if limit is not None:
        total = min(total, limit)
    return Machine(total, min(memory.available, total))


@dataclass(frozen=True)
class Bounds:
    """The limits that an engine is run with.

    Args:
        rows: how many rows run at once.
        positions: prompt and frames of one row together; None, or more than the model has, means the model's own.
        provider: execution provider, or `auto`.
    """

    rows: int
    positions: int | None = None
    provider: Provider = "cpu"

    def on_gpu(self, manifest: Manifest) -> bool:
        """Whether the bundle's weights and caches will lie in a GPU's memory."""
        try:
            return choose_provider(self.provider, manifest.precision) == "cuda"
        except ProviderError:  # the model will not be loaded at all
            return False


def model_bytes(manifest: Manifest, bounds: Bounds) -> int:
    """Give an upper bound, in bytes, on the host memory of a model: its files, the KV caches of its longest rows, and
    what cloned voices take.

    A model usually takes less, because a cache takes memory only as far as its row has got, and encoders only while a
    recording is encoded. The embedding tables do not count, because nothing of them stays in memory. A model in a GPU's
    memory takes none of the host's, but for its encoders, which compute on the CPU.
    """
    if bounds.on_gpu(manifest):
        return _encoder_bytes(manifest)
    return _file_bytes(manifest) + cache_bytes(manifest, bounds.rows, bounds.positions) + cloning_bytes(manifest)


def cloning_bytes(manifest: Manifest) -> int:
    """Give an upper bound, in bytes, on what cloned voices take in host memory beside files and KV caches: the codec
    decoder's states behind their recordings, and the activations of the encoders."""
    if not manifest.clones:
        return 0
    carried = (spec for spec in manifest.graphs["codec_decoder"].inputs if spec.name.startswith("past."))
    state = sum(
        np.dtype(spec.dtype).itemsize * prod(size for size in spec.shape if isinstance(size, int)) for spec in carried
    )
    return MOST_HELD * state + ENCODING_BYTES


def _file_bytes(manifest: Manifest) -> int:
    return sum(entry.size for name, entry in manifest.files.items() if name not in TABLES)


def _encoder_bytes(manifest: Manifest) -> int:
    """What the encoders take while a recording is encoded: their files, and activations."""
    if not manifest.clones:
        return 0
    files = {manifest.graphs[name].file for name in CLONING_GRAPHS}
    weights = sum(entry.size for name, entry in manifest.files.items() if name.removesuffix("_data") in files)
    return weights + ENCODING_BYTES


def check_memory(manifest: Manifest, bounds: Bounds, machine: Machine) -> str | None:
    """Compare what a model may need with what the machine has; return a warning if the model may not fit.

    A GPU's memory is not checked: it is taken while the model loads, so that a lack of it shows then.

    Raises:
        MemoryShortage: not even one row fits.
    """
    if bounds.on_gpu(manifest):
        return None
    files, caches = _file_bytes(manifest), cache_bytes(manifest, bounds.rows, bounds.positions)
    one_row, cloning = cache_bytes(manifest, 1, bounds.positions), cloning_bytes(manifest)
    if one_row > machine.total:
        raise MemoryShortage(
            f"{manifest.id} needs {human_size(one_row)} for the KV cache of one row, and this machine has "
            f"{human_size(machine.total)}: lower KW_MAX_FRAMES, or choose another model or machine"
        )
    if files + caches + cloning <= machine.available:
        return None
    voices = f"{human_size(cloning)} for cloned voices, " if cloning else ""
    together = human_size(files + caches + cloning)
    return (
        f"{manifest.id} may need up to {together}: {human_size(files)} of files, {voices}and "
        f"{human_size(caches)} of KV caches for KW_MAX_ROWS={bounds.rows}, each {human_size(one_row)} at its longest; "
        f"{human_size(machine.available)} are available. If that runs out, lower KW_MAX_ROWS or KW_MAX_FRAMES, or "
        "convert the checkpoint to a smaller precision"
    )


def human_size(size: int) -> str:
    """Bytes in the unit that people read, such as 1.5GB."""
    return ByteSize(size).human_readable(decimal=True)


def limit_heap_growth() -> None:
    """Keep glibc's heap from growing with the number of threads; call this before the first thread starts.

    glibc keeps a heap for each thread, up to 8 a core, and the free pages of one heap serve no other thread. Once a
    large block is freed, glibc takes blocks of that size from these heaps too. Texts of 100,000 characters in the six
    threads of an event loop on two cores left 83 MB behind without these limits, and 29 MB with them.
    """
    tune_heap(arenas=2, mapped_from=MAPPED_FROM)


def spare_what_is_loaded() -> None:
    """Leave what this process holds now out of every later collection of garbage; nothing of it is to be freed.

    A full collection holds up all threads. It takes 39 ms with the 68,000 objects of the server's modules, and less
    than 1 ms without them. So full collections can come often: after 7,000 new objects, where Python waits for 70,000.
    Requests whose clients have left at once are garbage of so many objects that one collection took 58 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def collect_and_trim() -> None:
    """Collect garbage, and return the free pages of glibc's heap to the system.

    Jobs and their iterators refer to each other and to their engine, so that only the garbage collector frees them.
    glibc keeps the memory that an unloaded model has freed: of the 1.5 GB of an int8 0.6B model 1.0 GB stayed in the
    process after unloading, and 0.3 GB stay after this call. Other C libraries have no such function.
    """
    collect_garbage()
    trim_heap()


class MemoryTrimmer:
    """Trims memory some seconds after the last request has ended, if the process has grown.

    It waits while requests are under way: they would take the memory again, and collecting garbage would delay them.

    Args:
        threads: where the trimming runs.
        at_rest: says whether no request is under way.
    """

    def __init__(self, threads: DaemonThreads, at_rest: Callable[[], bool]) -> None:
        self._threads = threads
        self._at_rest = at_rest
        self._baseline = 0
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None

    def set_baseline(self) -> None:
        """Take the memory that the process holds now as what it needs; only growth beyond it is trimmed."""
        self._baseline = resident()

    def request_ended(self) -> None:
        """Look at the memory in a while, because a request has ended."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TRIM_DELAY_SECONDS, self._check)

    def cancel(self) -> None:
        """Stop the timer; nothing is trimmed after this."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        held = resident()
        self._baseline = min(self._baseline, held)
        if held - self._baseline > WORTH_TRIMMING_BYTES and self._at_rest():
            self._work = asyncio.get_running_loop().create_task(self._trim())

    async def _trim(self) -> None:
        await self._threads.run(collect_and_trim)
        self.set_baseline()


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)
