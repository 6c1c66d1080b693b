"""How many CPU cores this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path

import psutil

from server.graphs.control_groups import cpu_quota

TOPOLOGY = Path("/sys/devices/system/cpu")
"""Linux says here which processors are hyper-threads of one core."""


def usable_cores() -> int:
    """Physical cores of the affinity mask, and not more than a container's CPU quota rounded up; at least 1.

    Hyper-threads of one core share its multipliers: a second one makes no matrix product faster.
    """
    quota = cpu_quota()
    cores = _physical_cores(_mask())
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def thread_count(wanted: int) -> int:
    """Threads for a computation.

    Args:
        wanted: so many, but not more than there are processors to run them: they wait for each other in busy loops,
            and a model that has ten times as many as processors takes minutes to load. 0 is `usable_cores()`.
    """
    return min(wanted, len(_mask())) if wanted else usable_cores()


def _mask() -> Collection[int]:
    """Processors that this process may run on, hyper-threads each; all of them where the system has no such mask."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # Linux, Windows, FreeBSD
        allowed: list[int] = process.cpu_affinity()
        return allowed
    return range(os.cpu_count() or 1)


def _physical_cores(mask: Collection[int]) -> int:
    siblings = {
        path.read_text("ascii")
        for processor in mask
        if (path := TOPOLOGY / f"cpu{processor}" / "topology" / "thread_siblings_list").is_file()
    }
    if siblings:
        return len(siblings)
    return min(len(mask), psutil.cpu_count(logical=False) or len(mask))
