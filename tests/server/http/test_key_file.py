"""The file of keys: made, listed, revoked, changed beneath a running server."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import KeyLimitError, UnauthorizedError
from server.http import key_file
from server.http.access import KeyLimit, KeyRing
from server.http.key_file import KeyFileError


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
def test_malformed_and_reserved_labels_are_refused(path: Path, label: str) -> None:
    with pytest.raises(KeyFileError, match="cannot be a label"):
        key_file.add(path, label)
    assert not path.exists()


def test_a_label_is_given_once(path: Path) -> None:
    key_file.add(path, "alice")
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="already"):
        key_file.add(path, "alice")
    assert path.read_bytes() == before


def test_revoking_removes_one_key_and_names_the_others(path: Path) -> None:
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


HASH = "0a" * 32


@pytest.mark.parametrize(
    "content", [b"alice\n", b"alice:sk-a-plain-key\n", b"\xff\xfea\0:\0", b"# nothing\n\nkey1:" + b"0" * 64]
)
def test_what_is_no_key_file_is_refused_without_a_word_of_it(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=r"line \d is not LABEL:SHA256") as caught:
        KeyRing([], path)
    assert "plain-key" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "  ",
        "# a comment",
        "  # bob:no",
        f"\ufeffbob:{HASH}",
        f"bob: {HASH}",
        f" bob :{HASH} ",
        f"bob:{HASH.upper()}",
    ],
)
def test_what_people_write_into_such_files(path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(f"{line}\nalice:{HASH}\n", "utf-8")
    expected = {"alice"} | ({"bob"} if HASH in line.lower() else set())
    assert set(key_file.read(path)) == expected
    assert set(key_file.read(path).values()) == {bytes.fromhex(HASH)}
    assert not caplog.records


@pytest.mark.parametrize(
    "line", [b"bob", b"bob:sk-plain-key", b"bob:" + b"0" * 63, b"b b:" + b"0" * 64, b"\xff:\xfe", b"alice:" + b"1" * 64]
)
def test_a_line_that_cannot_be_read_costs_that_line_alone(
    path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(f"alice:{HASH}\n".encode() + line + f"\ncarol:{HASH}\n".encode())
    ring = KeyRing([], path)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert f"file={path} " in record.message and "line 2 " in record.message
    assert "plain-key" not in record.message
    assert key_file.read(path) == {"alice": bytes.fromhex(HASH), "carol": bytes.fromhex(HASH)}
    dora = key_file.add(path, "dora")
    assert opens(ring, dora) == "dora"
    key_file.revoke(path, "alice")
    assert set(key_file.read(path)) == {"carol", "dora"}, "both lines with that label are gone"


def test_comments_and_what_cannot_be_read_stay_where_they_are(path: Path) -> None:
    path.write_bytes(b"# people\n\nalice:" + HASH.encode() + b"\n# \xff\nbroken")
    key_file.add(path, "bob")
    key_file.revoke(path, "alice")
    assert path.read_bytes().startswith(b"# people\n\n# \xff\nbroken\nbob:")


def test_keys_made_and_revoked_at_once_are_all_kept(path: Path) -> None:
    before = key_file.add(path, "before")
    labels = [f"label-{number}" for number in range(16)]
    with ThreadPoolExecutor(len(labels) + 1) as threads:
        made = [threads.submit(key_file.add, path, label) for label in labels]
        threads.submit(key_file.revoke, path, "before").result()
    assert set(key_file.read(path)) == set(labels)
    ring = KeyRing([], path)
    assert [opens(ring, key.result()) for key in made] == labels
    assert opens(ring, before) is None
    assert [found.name for found in path.parent.iterdir()] == ["keys"]


def test_owner_and_mode_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file.add(path, "alice")
    path.chmod(0o640)
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    monkeypatch.setattr(os, "fchown", lambda handle, *owner: given.append(owner))
    key_file.add(path, "bob")
    assert path.stat().st_mode & 0o777 == 0o640
    assert given == [(path.stat().st_uid, path.stat().st_gid)]


@pytest.mark.parametrize("reason", [errno.EBUSY, errno.EXDEV])
def test_a_file_that_cannot_be_replaced_is_written_in_place(
    path: Path, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single file that is mounted into a container is such a one."""
    key_file.add(path, "alice")
    inode = path.stat().st_ino

    def refuse(self: Path, target: Path) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Path, "replace", refuse)
    key_file.add(path, "bob")
    key_file.revoke(path, "alice")
    assert list(key_file.read(path)) == ["bob"]
    assert path.stat().st_ino == inode
    assert [found.name for found in path.parent.iterdir()] == ["keys"]


def test_where_no_lock_can_lie_beside_it_the_file_itself_is_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file.add(path, "alice")
    real = os.open

    def read_only_folder(name: str | Path, flags: int, mode: int = 0o777) -> int:
        if Path(name) != path:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", read_only_folder)
    key_file.add(path, "bob")
    assert list(key_file.read(path)) == ["alice", "bob"]
    with pytest.raises(OSError, match="Read-only file system") as caught:
        key_file.add(path.with_name("other"), "carol")
    assert caught.value.filename == str(path.with_name("other"))


def test_a_missing_key_file_is_an_error_that_says_how_to_make_it(path: Path) -> None:
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


def test_a_key_limit_of_0_is_no_limit() -> None:
    limit = KeyLimit(0)
    with limit.one_more("a"), limit.one_more("a"), limit.one_more("a"):
        pass
