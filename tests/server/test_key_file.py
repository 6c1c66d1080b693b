"""The file of keys: made, listed, revoked, changed beneath a running server."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import key_file
from server.auth import KeyLimit, KeyRing
from server.errors import KeyLimitError, UnauthorizedError
from server.key_file import KeyFileError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_what_is_made_is_a_hash_that_only_its_owner_reads(path: Path) -> None:
    keys = {label: key_file.add(path, label) for label in ("alice", "bob-2")}
    assert len(set(keys.values())) == 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().splitlines() == [
        f"{label}:{hashlib.sha256(key.encode()).hexdigest()}" for label, key in keys.items()
    ]
    assert [found.name for found in path.parent.iterdir()] == ["keys"]


def test_a_link_stays_a_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    key_file.add(link, "alice")
    assert link.is_symlink()
    assert list(key_file.read(path)) == ["alice"]


@pytest.mark.parametrize("label", ["", "a b", "a:b", ".hidden", "x" * 65, "key1", "a\n", "é"])
def test_labels_that_cannot_be(path: Path, label: str) -> None:
    with pytest.raises(KeyFileError, match="cannot be a label"):
        key_file.add(path, label)
    assert not path.exists()


def test_a_label_is_given_once(path: Path) -> None:
    key_file.add(path, "alice")
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="already"):
        key_file.add(path, "alice")
    assert path.read_bytes() == before


def test_revoking(path: Path) -> None:
    for label in ("alice", "bob"):
        key_file.add(path, label)
    key_file.revoke(path, "alice")
    assert list(key_file.read(path)) == ["bob"]
    with pytest.raises(KeyFileError, match="no key alice; there are bob"):
        key_file.revoke(path, "alice")


def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file.add(path, "alice")
    before = path.read_bytes()

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        key_file.add(path, "bob")
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == ["keys"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"alice\n", "line 1 is not"),
        (b"alice:sk-a-plain-key\n", "line 1 is not"),
        (b"alice:" + b"0" * 64 + b"\n\n", "line 2 is not"),
        (b"a:" + b"0" * 64 + b"\na:" + b"1" * 64, "line 2 has a label"),
        (b"\xff", "is not text"),
    ],
)
def test_what_is_no_key_file_is_refused_without_a_word_of_it(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=says) as caught:
        KeyRing([], path)
    assert "plain-key" not in str(caught.value)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(KeyFileError, match="keys new LABEL"):
        KeyRing([], path)


def opens(ring: KeyRing, key: str) -> str | None:
    try:
        return ring.check(f"Bearer {key}")
    except UnauthorizedError:
        return None


def test_a_ring_follows_its_file(path: Path) -> None:
    alice = key_file.add(path, "alice")
    ring = KeyRing(["mine"], path)
    assert (opens(ring, alice), opens(ring, "mine")) == ("alice", "key1")
    bob = key_file.add(path, "bob")
    assert (opens(ring, alice), opens(ring, bob)) == ("alice", "bob")
    key_file.revoke(path, "alice")
    assert (opens(ring, alice), opens(ring, bob)) == (None, "bob")
    path.write_text("nonsense")
    assert (opens(ring, bob), opens(ring, "mine")) == (None, "key1")
    path.unlink()
    assert (opens(ring, bob), opens(ring, "mine")) == (None, "key1")
    assert opens(ring, key_file.add(path, "carol")) == "carol"


@given(key=st.text(min_size=1, max_size=60))
def test_no_other_key_opens(key: str) -> None:
    assert opens(KeyRing(["right"]), key) == ("key1" if key.strip() == "right" else None)


def test_a_key_has_its_limit_and_no_other() -> None:
    limit = KeyLimit(2)
    with limit.one_more("a"), limit.one_more("a"):
        with pytest.raises(KeyLimitError) as caught, limit.one_more("a"):
            pass
        assert caught.value.headers["retry-after"]
        with limit.one_more("b"), limit.one_more(None), limit.one_more(None), limit.one_more(None):
            pass
    with pytest.raises(ZeroDivisionError), limit.one_more("a"):
        raise ZeroDivisionError
    with limit.one_more("a"), limit.one_more("a"):
        pass


def test_no_limit() -> None:
    limit = KeyLimit(0)
    with limit.one_more("a"), limit.one_more("a"), limit.one_more("a"):
        pass
