"""Caches in host memory, where it is taken page by page and where it is taken at once."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.provider import open_bundle
from server.graphs import caches
from server.graphs.caches import FIRST_POSITIONS, KEPT_POSITIONS, HostCaches, cache_bytes, takes_memory_at_once
from tests.bundles import RANDOM_BUNDLE

SLOTS = 3
POSITIONS = 6 * FIRST_POSITIONS - 100
Open = Callable[[], OpenBundle]


def windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(caches, "OVERCOMMIT", tmp_path / "absent")
    monkeypatch.setattr(sys, "platform", "win32")


def strict_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "overcommit_memory").write_text("2\n")
    monkeypatch.setattr(caches, "OVERCOMMIT", tmp_path / "overcommit_memory")


@pytest.fixture
def folder() -> Path:
    """The bundle whose caches are looked at."""
    return RANDOM_BUNDLE


@pytest.fixture(params=[windows, strict_linux])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> Open:
    """Opens the bundle on a system that takes memory at once."""

    def opened() -> OpenBundle:
        with monkeypatch.context() as patch:
            request.param(patch, tmp_path)
            return open_bundle(folder, provider="cpu", threads=1, slots=SLOTS, positions=POSITIONS)

    return opened


def host_caches(bundle: OpenBundle) -> HostCaches:
    found: Any = bundle.talker
    assert isinstance(found._caches, HostCaches)
    return found._caches


def embeddings(bundle: OpenBundle, *shape: int, seed: int = 0) -> np.ndarray:
    size = bundle.manifest.sizes.talker.hidden_size
    return np.random.default_rng(seed).normal(size=(*shape, size)).astype(np.float32)


@pytest.mark.parametrize(
    ("platform", "setting", "expected"),
    [
        ("win32", None, True),
        ("darwin", None, False),
        ("linux", None, False),
        ("linux", "0\n", False),
        ("linux", "1\n", False),
        ("linux", "2\n", True),
    ],
)
def test_who_takes_memory_at_once(
    platform: str, setting: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(caches, "OVERCOMMIT", tmp_path / "overcommit_memory")
    if setting is not None:
        (tmp_path / "overcommit_memory").write_text(setting)
    assert takes_memory_at_once() is expected


def test_little_is_taken_at_the_start(at_once: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the 0.6B with four rows 235 MB in the place of 7.5 GB."""
    taken: list[int] = []
    real = mmap.mmap

    class Counted(real):  # type: ignore[valid-type, misc]
        def __new__(cls, handle: int, size: int, *more: Any, **named: Any) -> Any:
            taken.extend([size] * (handle == -1))
            return real.__new__(cls, handle, size, *more, **named)

    monkeypatch.setattr(mmap, "mmap", Counted)
    bundle = at_once()
    start = cache_bytes(bundle.manifest, SLOTS) * FIRST_POSITIONS // POSITIONS
    assert sum(taken) == host_caches(bundle).nbytes == start
    bundle.talker.prefill(0, embeddings(bundle, FIRST_POSITIONS))
    assert sum(taken) == start
    bundle.talker.decode(0, embeddings(bundle, 1), np.array([FIRST_POSITIONS], np.int32))
    assert host_caches(bundle).nbytes == 2 * start
    bundle.talker.prefill(1, embeddings(bundle, 5 * FIRST_POSITIONS))
    assert host_caches(bundle).nbytes == 5 * start
    bundle.talker.prefill(2, embeddings(bundle, POSITIONS))
    assert host_caches(bundle).nbytes == cache_bytes(bundle.manifest, SLOTS)


def test_rows_are_the_same_in_memory_that_grows(at_once: Open, folder: Path) -> None:
    """Prefilled, decoded across two moves beside others, saved, restored and swapped."""
    lazy = open_bundle(folder, provider="cpu", threads=1, slots=SLOTS, positions=POSITIONS)
    assert host_caches(lazy).nbytes == cache_bytes(lazy.manifest, SLOTS)
    grown = at_once()
    heard: list[list[np.ndarray]] = []
    for bundle in (lazy, grown):
        talker, found = bundle.talker, []
        lengths = np.array([FIRST_POSITIONS - 2, 2 * FIRST_POSITIONS - 2], np.int32)
        for slot, length in enumerate(lengths):
            found.append(talker.prefill(slot, embeddings(bundle, int(length), seed=slot)).logits)
        for step in range(4):
            output = talker.decode(0, embeddings(bundle, 2, seed=10 + step), lengths + np.int32(step))
            found += [output.logits, output.hidden]
        saved = talker.save(1, 2 * FIRST_POSITIONS + 2)
        talker.swap(0, 2, FIRST_POSITIONS + 2)
        found.append(talker.decode(2, embeddings(bundle, 1, seed=20), lengths[:1] + np.int32(4)).hidden)
        talker.restore(0, saved)
        found.append(talker.decode(0, embeddings(bundle, 1, seed=21), lengths[1:] + np.int32(4)).hidden)
        heard.append(found)
    for expected, found in zip(*heard, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())  # another alignment


def test_what_was_saved_finds_room(at_once: Open) -> None:
    first, second = at_once(), at_once()
    first.talker.prefill(0, embeddings(first, 3 * FIRST_POSITIONS))
    saved = first.talker.save(0, 3 * FIRST_POSITIONS)
    second.talker.restore(1, saved)
    for kept, again in zip(saved, second.talker.save(1, 3 * FIRST_POSITIONS), strict=True):
        np.testing.assert_array_equal(again, kept)


def test_a_row_that_memory_is_too_small_for_harms_no_other(at_once: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = at_once()
    talker, length = bundle.talker, np.array([50], np.int32)
    talker.prefill(0, embeddings(bundle, 50))
    expected = talker.decode(0, embeddings(bundle, 1), length)
    left = [1]

    def scarce(size: int) -> mmap.mmap:
        if not left:
            raise OSError(1455, "The paging file is too small for this operation to complete")
        left.pop()
        return mmap.mmap(-1, size)

    monkeypatch.setattr(caches, "_untouched", scarce)
    with pytest.raises(OSError, match="paging file"):
        talker.prefill(1, embeddings(bundle, FIRST_POSITIONS + 1))
    found = talker.decode(0, embeddings(bundle, 1), length)
    np.testing.assert_array_equal(found.logits, expected.logits)


MEASURE = """
import sys
import numpy as np, psutil
from server.graphs.caches import KEPT_POSITIONS, HostCaches

heads, positions, head_dim = 4, int(sys.argv[1]), 64
element, size = sys.argv[2:]
caches = HostCaches([f"tensor({element})"] * 8, (3, heads, positions, head_dim))
row, kept = (8 * heads * count * head_dim * int(size) for count in (positions, KEPT_POSITIONS))

def resident():
    return psutil.Process().memory_info().rss

def fill(slot, value):
    for tensor in caches.view(slot, slot + 1, positions):
        tensor.numpy()[:] = value

caches.view(0, 1, 1)
idle = resident()
fill(1, 1.0)
taken = resident() - idle
caches.release({1})
held = resident() - idle
caches.swap(1, 0, positions)
caches.release({0})
moved = resident() - idle
caches.release(())
left = resident() - idle
fill(2, 2.0)
again = resident() - idle
print(row, kept, taken, held, moved, left, again)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes pages back")
@pytest.mark.parametrize(("positions", "element", "size"), [(8192, "float", 4), (8187, "float", 4), (32763, "int8", 1)])
def test_memory_of_a_long_row_goes_back(positions: int, element: str, size: int) -> None:
    """What is resident in a process of its own, for a row of 67 MB; ends of heads lie within pages, or not."""
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(positions), element, str(size)], check=True, capture_output=True, text=True
    ).stdout
    row, kept, taken, held, moved, left, again = map(int, measured.split())
    slack = 4 << 20  # what the interpreter itself takes and lets go of meanwhile
    assert row > 60 << 20
    assert abs(taken - row) < slack
    assert abs(held - row) < slack, "a row under way keeps its memory"
    assert abs(moved - row - kept) < slack, "one that moved leaves nothing but the first positions of its slot behind"
    assert abs(left - 2 * kept) < slack
    assert abs(again - 2 * kept - row) < slack, "the slot can be used again"


def test_giving_memory_back_touches_no_other_row() -> None:
    """Of three long rows, whose heads share pages, two stay as they are and one keeps its beginning."""
    heads, positions, head_dim = 3, KEPT_POSITIONS + 333, 16
    found = HostCaches(["tensor(float)"] * 2, (3, heads, positions, head_dim))
    random = np.random.default_rng(0)
    rows = [[random.normal(size=(heads, positions, head_dim)).astype(np.float32) for _ in range(2)] for _ in range(3)]
    for slot, row in enumerate(rows):
        found.restore(slot, list(row))
    found.release({0, 2})
    for slot, length in enumerate((positions, KEPT_POSITIONS, positions)):
        for kept, expected in zip(found.save(slot, length), rows[slot], strict=True):
            np.testing.assert_array_equal(kept, expected[:, :length])


def test_a_row_in_a_slot_that_was_given_back_is_as_ever(folder: Path) -> None:
    talker = open_bundle(folder, provider="cpu", threads=1, slots=2).talker
    size, length = talker.sizes.hidden_size, KEPT_POSITIONS + 200
    prompts = np.random.default_rng(0).normal(size=(2, length, size)).astype(np.float32)
    expected = [talker.prefill(0, prompt).logits for prompt in prompts]
    talker.release(())
    talker.prefill(1, prompts[0, : KEPT_POSITIONS + 100])
    talker.release({1})
    again = talker.prefill(1, prompts[0, KEPT_POSITIONS + 100 :], past=KEPT_POSITIONS + 100).logits
    np.testing.assert_allclose(
        again, expected[0], rtol=0, atol=1e-5 * np.abs(expected[0]).max()
    )  # two products for one
    np.testing.assert_array_equal(talker.prefill(0, prompts[1]).logits, expected[1])


def test_windows_of_many_rows_are_not_all_kept() -> None:
    slots = 24
    found = HostCaches(["tensor(float)"], (slots, 1, 8, 16))
    for start in range(slots):
        for stop in range(start + 1, slots + 1):
            found.view(start, stop)
    assert len(found._windows._kept) <= 2 * slots
    assert found.view(0, slots) is found.view(0, slots)
    assert found.view(3, 7)[0].shape() == [4, 1, 8, 16]
