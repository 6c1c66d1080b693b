"""Memory goes back to the system, and what was in it stays right."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from server.engine.provider import open_bundle
from server.graphs import pages
from server.graphs.frame_state import Controls
from server.graphs.pages import MappedTable, give_back_mapped, mappings, trim_heap, use_huge_pages
from tests.bundles import RANDOM_BUNDLE
from tests.predicted import predict

SIZE = 64 * mmap.PAGESIZE
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped")


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file of `SIZE` random bytes, mapped as ONNX Runtime maps weights, all of it in memory."""
    path.write_bytes(np.random.default_rng(0).bytes(SIZE))
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view,
    ):
        assert bytes(view) == path.read_bytes()
        yield view


def resident(folder: Path) -> int:
    return sum(mapping.resident for mapping in mappings(folder))


@on_linux
def test_pages_are_given_back_and_come_again(tmp_path: Path) -> None:
    with mapped(tmp_path / "some weights") as view:
        assert resident(tmp_path) == SIZE
        give_back_mapped(tmp_path)
        assert resident(tmp_path) == 0
        assert bytes(view) == (tmp_path / "some weights").read_bytes()
        assert resident(tmp_path) == SIZE


@on_linux
def test_what_was_written_is_kept(tmp_path: Path) -> None:
    with mapped(tmp_path / "weights") as view:
        view[5] ^= 0xFF
        expected = bytes(view)
        give_back_mapped(tmp_path)
        assert [mapping.written for mapping in mappings(tmp_path)] == [mmap.PAGESIZE]
        assert resident(tmp_path) == SIZE
        assert bytes(view) == expected


@on_linux
def test_other_folders_keep_theirs(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with mapped(tmp_path / "weights"), mapped(tmp_path / "inner" / "weights"):
        give_back_mapped(tmp_path / "inner")
        assert (resident(tmp_path), resident(tmp_path / "inner")) == (SIZE, 0)


def test_other_systems_have_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mapped(tmp_path / "weights") as view:
        monkeypatch.setattr(pages, "MAPPINGS", tmp_path / "absent")
        give_back_mapped(tmp_path)
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setattr(pages, "_libc", lambda: pytest.fail("there is no such library"))
        assert mappings(tmp_path) == []
        give_back_mapped(tmp_path)
        trim_heap()
        use_huge_pages()
        assert bytes(view) == (tmp_path / "weights").read_bytes()


PAGE = 1 << 21
"""Bytes of a large page in the tests below."""


class Advised:
    """Stands in for the C library: keeps what it is told about which bytes."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, int]] = []

    def madvise(self, address: ctypes.c_void_p, size: ctypes.c_size_t, advice: int) -> int:
        assert address.value is not None
        self.told.append((address.value, size.value, advice))
        return -1  # as a system that declines


def stretch(start: int, size: int, *, rights: str = "rw-p", path: str = "", filled: float = 1, flags: str = "") -> str:
    """A mapping as Linux tells of it."""
    resident = int(filled * size) // 1024
    return f"{start:x}-{start + size:x} {rights} 0 00:00 0 {path}\nRss: {resident} kB\nVmFlags: rd wr {flags}\n"


@pytest.mark.parametrize(
    ("told", "joined"),
    [
        (stretch(PAGE, 4 * PAGE), [(PAGE, 4 * PAGE)]),
        (stretch(PAGE + 4096, 4 * PAGE), [(2 * PAGE, 3 * PAGE)]),
        (stretch(PAGE, 4 * PAGE, path="[heap]", filled=0.97), [(PAGE, 4 * PAGE)]),
        (stretch(PAGE, PAGE) + stretch(9 * PAGE, 2 * PAGE), [(PAGE, PAGE), (9 * PAGE, 2 * PAGE)]),
        (stretch(PAGE + 4096, 2 * PAGE - 8192), []),
        (stretch(PAGE, 4 * PAGE, filled=0.6), []),
        (stretch(PAGE, 4 * PAGE, flags="nh"), []),
        (stretch(PAGE, 4 * PAGE, path="/models/talker.onnx_data"), []),
        (stretch(PAGE, 4 * PAGE, rights="rw-s"), []),
        (stretch(PAGE, 4 * PAGE, rights="r-xp"), []),
        ("", []),
    ],
    ids=["whole", "cut to pages", "heap", "two", "no page", "gaps", "declined", "file", "shared", "code", "none"],
)
def test_large_blocks_are_joined(
    told: str, joined: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "smaps").write_text(told)
    (tmp_path / "hpage_pmd_size").write_text(f"{PAGE}\n")
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    heard = Advised()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(pages, "MAPPINGS", tmp_path / "smaps")
    monkeypatch.setattr(pages, "HUGE_PAGES", tmp_path)
    monkeypatch.setattr(pages, "_libc", lambda: heard)
    use_huge_pages()
    assert heard.told == [(*block, advice) for block in joined for advice in (14, 25)]
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    use_huge_pages()
    assert len(heard.told) == 2 * len(joined)


@on_linux
def test_what_is_joined_stays_the_same() -> None:
    values = np.random.default_rng(0).bytes(4 * PAGE)
    with mmap.mmap(-1, 4 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as view:
        view[:] = values
        use_huge_pages()
        assert view[:] == values


@on_linux
def test_a_table_keeps_nothing_in_memory(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((5000, 7), np.float32)
    np.save(tmp_path / "table.npy", table)
    rows = MappedTable(tmp_path / "table.npy")
    np.testing.assert_array_equal(rows[[4999, 0, 0, 17]], table[[4999, 0, 0, 17]])
    np.testing.assert_array_equal(rows[42], table[42])
    assert rows[[]].shape == (0, 7)
    assert [mapping.resident for mapping in mappings(tmp_path)] == [0]


@on_linux
def test_an_opened_bundle_begins_with_no_file_in_memory() -> None:
    bundle = open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=1)
    assert mappings(RANDOM_BUNDLE)
    assert resident(RANDOM_BUNDLE) == 0
    sizes, code_0 = bundle.manifest.sizes, np.zeros(1, np.int64)
    hidden = np.random.default_rng(0).standard_normal((1, sizes.talker.hidden_size), np.float32)
    uniforms = np.full((1, sizes.code_predictor.num_code_groups - 1), 0.5, np.float32)
    frames = []
    for _ in range(2):
        frames.append(predict(bundle, hidden, code_0, uniforms, [Controls(predictor_top_k=50)]))
        assert resident(RANDOM_BUNDLE) > 0  # its embeddings are read where they are
        give_back_mapped(RANDOM_BUNDLE)
    np.testing.assert_array_equal(frames[1].codes, frames[0].codes)
    np.testing.assert_array_equal(frames[1].embedding, frames[0].embedding)
