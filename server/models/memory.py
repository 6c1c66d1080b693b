"""How much memory a model may take, and whether this machine has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import psutil
from pydantic import ByteSize

from server.graphs.caches import cache_bytes
from server.graphs.control_groups import memory_limit
from server.graphs.session import Provider, ProviderError, choose_provider
from server.manifest import CODEC_TABLE, TEXT_TABLE, Manifest


class MemoryShortage(RuntimeError):
    """The model cannot run here; the message says what to change."""


class Machine(NamedTuple):
    """Bytes of memory: what this process may ever have, swap included, and what is free for it now."""

    total: int
    available: int


def machine() -> Machine:
    """What the machine, or the container around this process, has."""
    memory = psutil.virtual_memory()
    total = memory.total + psutil.swap_memory().total
    limit = memory_limit()
    if limit is not None:
        total = min(total, limit)
    return Machine(total, min(memory.available, total))


@dataclass(frozen=True)
class Bounds:
    """What an engine may take: how it is run.

    Args:
        rows: under way at once.
        positions: of a row, prompt and frames; None, or more than a model has, is as many as it has.
        provider: execution provider, or `auto`.
    """

    rows: int
    positions: int | None = None
    provider: Provider = "cpu"

    def on_gpu(self, manifest: Manifest) -> bool:
        """Whether a bundle's weights and caches are to lie in a GPU's memory."""
        try:
            return choose_provider(self.provider, manifest.precision) == "cuda"
        except ProviderError:  # it will not be loaded at all
            return False


def model_bytes(manifest: Manifest, bounds: Bounds) -> int:
    """An upper bound on what a model takes of this machine's memory: files, and KV caches of rows at their longest.

    Less is used as a rule: caches take memory only as far as rows get. The tables of embeddings do not count, of which
    nothing stays in memory; nor does what lies in a GPU's memory, which is not this machine's.
    """
    if bounds.on_gpu(manifest):
        return 0
    return _file_bytes(manifest) + cache_bytes(manifest, bounds.rows, bounds.positions)


def _file_bytes(manifest: Manifest) -> int:
    return sum(entry.size for name, entry in manifest.files.items() if name not in (TEXT_TABLE, CODEC_TABLE))


def check(manifest: Manifest, bounds: Bounds, machine: Machine) -> str | None:
    """Compare what a model may need with what there is; returns a warning where it may not fit.

    Nothing is said of a GPU's memory: it is taken at the start, so that a lack of it shows there.

    Raises:
        MemoryShortage: not even one row fits.
    """
    if bounds.on_gpu(manifest):
        return None
    files, caches = _file_bytes(manifest), cache_bytes(manifest, bounds.rows, bounds.positions)
    one_row = cache_bytes(manifest, 1, bounds.positions)
    if one_row > machine.total:
        raise MemoryShortage(
            f"{manifest.id} needs {_human(one_row)} for the KV cache of one row, and this machine has "
            f"{_human(machine.total)}: lower KW_MAX_FRAMES, or choose another model or machine"
        )
    if files + caches <= machine.available:
        return None
    return (
        f"{manifest.id} may need up to {_human(files + caches)}: {_human(files)} of files and {_human(caches)} of "
        f"KV caches for KW_MAX_ROWS={bounds.rows}, each {_human(one_row)} at its longest; {_human(machine.available)} "
        "are available. If that runs out, lower KW_MAX_ROWS or KW_MAX_FRAMES, or convert the checkpoint to a smaller "
        "precision"
    )


def _human(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True)
