"""How many cores there are for this process, and that its threads keep to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from server.graphs import control_groups, cores
from server.graphs.checking import verify_files
from server.graphs.control_groups import cpu_quota, memory_limit
from server.graphs.cores import thread_count, usable_cores
from server.graphs.session import open_session
from server.manifest import read_manifest
from tests.bundles import RANDOM_BUNDLE
from tests.server.answers import GOOD
from tests.server.running import run_server

GIB = 2**30
Lay = Callable[[str, dict[str, str]], None]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lay:
    """Lays out a process' groups and the files of their file system."""
    monkeypatch.setattr(control_groups, "GROUPS_OF_PROCESS", tmp_path / "cgroup")
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path / "mount")

    def lay(process: str, files: dict[str, str]) -> None:
        (tmp_path / "cgroup").write_text(process)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return lay


@pytest.fixture
def processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine of so many cores with so many hyper-threads each, numbered as Linux does: siblings lie far apart."""

    def rig(mask: list[int], physical: int, threads: int, topology: bool = True) -> None:
        monkeypatch.setattr(cores, "TOPOLOGY", tmp_path / "cpu")
        monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda process: mask, raising=False)
        monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: physical * (threads if logical else 1))
        monkeypatch.setattr(os, "cpu_count", lambda: physical * threads)
        for processor in range(physical * threads if topology else 0):
            folder = tmp_path / "cpu" / f"cpu{processor}" / "topology"
            folder.mkdir(parents=True, exist_ok=True)
            siblings = [str(processor % physical + physical * n) for n in range(threads)]
            (folder / "thread_siblings_list").write_text(",".join(siblings) + "\n")

    return rig


VERSION_1 = "4:memory:/a/b\n3:cpu,cpuacct:/a/b\n1:name=systemd:/a/b\n0::/a/b\n"
QUOTAS: list[tuple[str, dict[str, str], float | None]] = [
    ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
    ("0::/\n", {"cpu.max": "max 100000"}, None),
    ("0::/\n", {}, None),
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2.0),
    ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
    ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2.0),
    ("0::/a/b\n", {"other/cpu.max": "50000 100000", "a/b/c/cpu.max": "50000 100000"}, None),
    # A container that sees its own group as the root, while the path is the host's, and one that looks out of it.
    ("0::/docker/0123\n", {"cpu.max": "300000 100000"}, 3.0),
    ("0::/../../b\n", {"cpu.max": "300000 100000"}, 3.0),
    ("0::/a\n", {"a/cpu.max": "nonsense"}, None),
    (VERSION_1, {"cpu/a/b/cpu.cfs_quota_us": "250000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 2.5),
    (VERSION_1, {"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, None),
    (
        VERSION_1,
        {
            "cpu/a/b/cpu.cfs_quota_us": "-1",
            "cpu/a/b/cpu.cfs_period_us": "100000",
            "cpu/a/cpu.cfs_quota_us": "10000",
            "cpu/a/cpu.cfs_period_us": "10000",
        },
        1.0,
    ),
    (VERSION_1, {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
    (VERSION_1, {"cpu/a/b/cpu.cfs_quota_us": "50000"}, None),
]


@pytest.mark.parametrize(("process", "files", "quota"), QUOTAS)
def test_the_smallest_quota_above_a_process_counts(
    groups: Lay, process: str, files: dict[str, str], quota: float | None
) -> None:
    groups(process, files)
    assert cpu_quota() == quota


@pytest.mark.parametrize(
    ("process", "files", "limit"),
    [
        ("0::/\n", {"memory.max": str(GIB)}, GIB),
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": str(GIB), "memory.max": "max"}, GIB),
        (VERSION_1, {"memory/a/b/memory.limit_in_bytes": str(2**63 - 4096), "memory/a/memory.limit_in_bytes": "7"}, 7),
        (VERSION_1, {"memory/memory.limit_in_bytes": str(GIB)}, GIB),
        (VERSION_1, {"cpu/a/b/cpu.cfs_quota_us": "1"}, None),
    ],
)
def test_the_smallest_memory_above_a_process_counts(
    groups: Lay, process: str, files: dict[str, str], limit: int | None
) -> None:
    groups(process, files)
    assert memory_limit() == limit


def test_systems_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_groups, "GROUPS_OF_PROCESS", tmp_path / "absent")
    assert (cpu_quota(), memory_limit()) == (None, None)


@pytest.mark.parametrize(
    ("quota", "expected"), [("max", 4), ("800000", 4), ("300000", 3), ("210000", 3), ("100000", 1), ("5000", 1)]
)
def test_a_quota_counts_rounded_up(groups: Lay, processors: Any, quota: str, expected: int) -> None:
    groups("0::/\n", {"cpu.max": f"{quota} 100000"})
    processors([0, 1, 2, 3], physical=4, threads=1)
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (list(range(8)), 4),
        ([0, 1, 2, 3], 4),  # a hyper-thread of each core
        ([0, 4], 1),  # both of one core
        ([0, 4, 1], 2),
        ([7], 1),
    ],
)
def test_hyper_threads_of_one_core_count_once(groups: Lay, processors: Any, mask: list[int], expected: int) -> None:
    groups("0::/\n", {})
    processors(mask, physical=4, threads=2)
    assert usable_cores() == expected


@pytest.mark.parametrize(("mask", "expected"), [(list(range(8)), 4), ([0, 1], 2)])
def test_a_system_that_hides_its_topology(groups: Lay, processors: Any, mask: list[int], expected: int) -> None:
    """Windows has affinity masks; psutil counts its cores."""
    groups("0::/\n", {})
    processors(mask, physical=4, threads=2, topology=False)
    assert usable_cores() == expected


def test_a_system_without_affinity_masks(processors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS."""
    processors([0], physical=4, threads=2, topology=False)
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    monkeypatch.setattr(control_groups, "GROUPS_OF_PROCESS", tmp_path / "absent")
    assert (usable_cores(), thread_count(100)) == (4, 8)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (usable_cores(), thread_count(100)) == (1, 1)


def test_who_wants_more_threads_than_processors_gets_those(groups: Lay, processors: Any) -> None:
    groups("0::/\n", {"cpu.max": "100000 100000"})
    processors([0, 1, 4, 5], physical=4, threads=2)
    assert [thread_count(wanted) for wanted in (0, 1, 3, 4, 512)] == [1, 1, 3, 4, 4]


def test_sessions_and_hashing_get_the_number(processors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero would leave the choice to ONNX Runtime, which pins threads to every core of the machine."""
    processors([0, 1, 2], physical=8, threads=1)
    for wanted, given in ((0, 3), (2, 2), (512, 3)):
        session = open_session(RANDOM_BUNDLE / "codec_decoder.onnx", "cpu", wanted)
        assert session.get_session_options().intra_op_num_threads == given
    asked: list[int] = []
    pool = sys.modules["server.graphs.checking"].ThreadPoolExecutor
    monkeypatch.setattr(
        "server.graphs.checking.ThreadPoolExecutor", lambda workers: asked.append(workers) or pool(workers)
    )
    verify_files(RANDOM_BUNDLE, read_manifest(RANDOM_BUNDLE))
    assert asked == [3]


ONE_PROCESSOR = (
    "import os, runpy, sys\n"
    "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    "sys.argv[1:] = []\n"
    "runpy.run_module('server', run_name='__main__')"
)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks to keep to")
@pytest.mark.parametrize("threads", ["", "0", "2", "512"])
def test_no_thread_leaves_the_mask(tmp_path: Path, threads: str) -> None:
    """The first processor of the mask: ONNX Runtime left to itself pins its workers to others, or fails to."""
    mask = {min(os.sched_getaffinity(0))}
    settings = {"KW_MODELS_DIR": str(RANDOM_BUNDLE.parent), "KW_THREADS": threads}
    with run_server(("-c", ONE_PROCESSOR), tmp_path, **settings) as server:
        server.wait_ready()
        with server.client() as client:
            spoken: httpx.Response = client.post("/v1/audio/speech", json={**GOOD, "exact_frames": 4})
        assert spoken.status_code == 200, spoken.text
        masks = [os.sched_getaffinity(thread.id) for thread in psutil.Process(server.process.pid).threads()]
        assert server.stop() == 0
    assert masks
    assert all(found == mask for found in masks)
    assert not [line for line in server.log if "affinity" in line]
    lowered = [line for line in server.log if "threads_lowered" in line]
    assert len(lowered) == (threads in ("2", "512"))
    assert all(f'threads=1 reason="KW_THREADS={threads} is more than' in line for line in lowered)
