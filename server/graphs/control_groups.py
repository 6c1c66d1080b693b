"""What Linux's control groups allow this process, versions 1 and 2: a container's limits are theirs.

A group is held by the limits of all groups above it too, so that the smallest counts
(https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/scheduler/sched-bwc.html).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS_OF_PROCESS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def cpu_quota() -> float | None:
    """CPUs' time that this process may take, such as 1.5, or None where nothing limits it."""
    quotas = []
    for folder in _folders("cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):  # not there, or "max"
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            quotas.append(int(quota) / int(period))
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period"))
            quotas.append(int(quota) / int(period))
    return min((quota for quota in quotas if quota > 0), default=None)  # version 1 says "no limit" with -1


def memory_limit() -> int | None:
    """Bytes of memory that this process may take, or None where nothing limits it.

    Version 1 says "no limit" with more bytes than any machine has.
    """
    limits = []
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text("ascii")))
    return min(limits, default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Where the limits of this process' groups and of those above them would lie; not all of them are there.

    A container may see its own group as the root of the file system while the process' path is the host's; the folders
    of that path are then missing, and the root is looked at all the same.
    """
    try:
        lines = GROUPS_OF_PROCESS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:  # not Linux, or a sandbox without /proc
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = MOUNT
        elif controller in controllers.split(","):
            mount = MOUNT / controller
        else:
            continue
        group = Path(path)
        for part in (group, *group.parents):
            yield mount / part.relative_to(group.anchor)
