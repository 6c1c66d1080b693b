"""How much memory a model may take, and whether this machine has it."""

from __future__ import annotations

from typing import NamedTuple

import psutil
from pydantic import ByteSize

from server.graphs.caches import cache_bytes
from server.graphs.control_groups import memory_limit
from server.graphs.manifest import Manifest


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


def model_bytes(manifest: Manifest, rows: int) -> int:
    """An upper bound on what a model takes: its files, and KV caches for `rows` rows filled to their last position.

    Less is used as a rule: files are mapped, and caches take memory only as far as rows get.
    """
    return _file_bytes(manifest) + cache_bytes(manifest, rows)


def _file_bytes(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files.values())


def check(manifest: Manifest, rows: int, machine: Machine) -> str | None:
    """Compare what a model may need with what there is; returns a warning where it may not fit.

    Raises:
        MemoryShortage: not even one row fits.
    """
    files, caches = _file_bytes(manifest), cache_bytes(manifest, rows)
    one_row = cache_bytes(manifest, 1)
    if one_row > machine.total:
        raise MemoryShortage(
            f"{manifest.id} needs {_human(one_row)} for the KV cache of one row, and this machine has "
            f"{_human(machine.total)}: choose another model or machine"
        )
    if files + caches <= machine.available:
        return None
    return (
        f"{manifest.id} may need up to {_human(files + caches)}: {_human(files)} of files and {_human(caches)} of "
        f"KV caches for KW_MAX_ROWS={rows}, each {_human(one_row)} at its longest; {_human(machine.available)} are "
        "available. If that runs out, lower KW_MAX_ROWS or convert the checkpoint to a smaller precision"
    )


def _human(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True)
